"""Datasets of items that are read one by one, with labels where the items carry them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from se_framework.data.moments import Moments, chunks, exact
from se_framework.data.rows import SPLIT_SEED
from se_framework.data.sources import DatasetRows, Request
from se_framework.data.streamed import StreamedRows, each
from se_framework.errors import DataError


class StreamedData(StreamedRows):
    r"""A map-style Dataset, whose items are read when they are needed and random in every epoch anew.

    An item's random numbers (an augmentation that draws on torch's CPU generator, numpy's or Python's) are a function
    of (seed, epoch, row); a generator that the Dataset keeps for itself is refused. A Dataset that reads a file opens
    it in its first ``__getitem__``, not before: forked workers would share the place where it is read.

    Args:
        dataset: items are tensors of one shape, or tuples that begin with one; in a configuration the dotted path of
            what returns it (``data.dataset=my_module.my_dataset``). Integers and booleans come as int64.
        workers: processes that read ahead; 0 reads in this process.
        held_out_fraction: share of the rows that is never trained on, in (0, 1).
        standardize: bring every feature to mean 0 and standard deviation 1 over the training rows: reads them all once
            at every start, in one draw of what is random.
        classes: number K of classes where items are pairs (tensor, label in 0..K-1) and the models read the label.

    Raises:
        DataError: the Dataset has no length, or its items are no real tensors of one shape.
    """

    def __init__(
        self,
        dataset: Dataset | Callable[..., Any],
        workers: int = 0,
        held_out_fraction: float = 0.1,
        standardize: bool = False,
        classes: int = 0,
    ) -> None:
        made: Any = dataset() if isinstance(dataset, type) or not hasattr(dataset, "__getitem__") else dataset
        if not (hasattr(made, "__len__") and hasattr(made, "__getitem__")):
            raise DataError(
                f"data.dataset is a {type(made).__name__}; give a map-style Dataset, with a length and items by number"
            )
        if classes and classes < 2:
            raise DataError(f"data.classes must be at least 2, or 0 for no labels, got {classes}")
        source = DatasetRows(made, classes)
        super().__init__(source, held_out_fraction, workers)
        self.name, self.classes = source.name.lower(), classes
        if standardize:
            self.loc, self.scale = self._moments()

    def _moments(self) -> tuple[Tensor, Tensor]:
        moments, train = Moments(), np.sort(self._index["train"].numpy())
        bounds = [np.searchsorted(train, chunk) for chunk in chunks(len(self.source), self.event_shape)]
        requests = [Request(SPLIT_SEED, ((0, train[a:b]),)) for a, b in bounds if a < b]
        for x, _ in each(self.source, requests, self.workers):
            moments.add(exact(x))
        return moments.result()
