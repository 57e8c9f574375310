r"""Data that is read row by row when it is needed, by this process or by workers: files larger than the memory, folders
of images, Datasets with augmentation.

Batches are those of the same data in memory, bit for bit: functions of (seed, index), however many workers there are
and wherever a run was resumed. What stays in memory is one batch, two more per worker, and three permutations of the
rows: 24 bytes per row.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from se_framework.data import fingerprint
from se_framework.data.base import epoch_slices
from se_framework.data.images import files_of, in_unit_range, kept
from se_framework.data.moments import Finite, Moments, chunks
from se_framework.data.readers import as_floats, read_array
from se_framework.data.rows import MIN_ROWS, SPLIT_SEED, Part, RowData, check_labels, split
from se_framework.data.sources import DatasetRows, ImageFiles, MappedRows, ReadableFiles, Request, Source, Stored
from se_framework.data.tensors import image_shape_of
from se_framework.data.workers import ahead
from se_framework.errors import DataError

MANY = 256
"""Rows of one call from which on workers share it."""
SAMPLED_ROWS = 32
"""Rows by which a Dataset of unknown content is recognised."""


class StreamedRows(RowData):
    r"""Rows of a source, split as in memory; a subclass brings the source and the units.

    Args:
        source: the rows.
        held_out_fraction: share of the rows that is never trained on, in (0, 1).
        workers: processes that read ahead in training, and share larger readings; 0 reads in this process.

    Raises:
        DataError: fewer than four rows, or a number out of range.
    """

    resident = False

    def __init__(self, source: Source, held_out_fraction: float, workers: int) -> None:
        if workers < 0:
            raise DataError(f"data.workers must be at least 0, got {workers}")
        if len(source) < MIN_ROWS:
            raise DataError(
                f"{source.name} has {len(source)} rows of shape {source.event_shape}; give at least {MIN_ROWS} rows"
            )
        self.source, self.workers = source, workers
        train, rest = split(len(source), held_out_fraction)
        self._index: dict[Part, Tensor] = {"train": train, "rest": rest}
        self.train_size, self.rest_size = len(train), len(rest)
        self.event_shape, self.image_shape = source.event_shape, image_shape_of(source.event_shape)
        self._served: _Served | None = None
        self._kept: tuple[tuple[int, int, int], Stored] | None = None

    def rows(
        self, part: Part, index: Tensor, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> Tensor:
        r"""Read rows of a part, shape (n, \*E); where items are random, their draw is always the same here."""
        stored = self._read(Request(SPLIT_SEED, ((0, self._index[part][index].numpy()),)))
        return self.in_model_space(stored[0], device, dtype)

    def batch(
        self, n: int, seed: int, index: int, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> Tensor:
        r"""Return batch ``index``, shape (n, \*E): what workers have read ahead where it is that, else read now."""
        return self.in_model_space(self._stored(n, seed, index)[0], device, dtype)

    def in_model_space(self, stored: Tensor, device: torch.device | str, dtype: torch.dtype | None) -> Tensor:
        """Return a copy of stored rows in model space; they cross to the device as they are stored."""
        x = self.to_model(as_floats(stored.to(device, non_blocking=True)))
        return x.to(dtype or torch.get_default_dtype())

    @contextmanager
    def prefetch(self, n: int, seed: int, index: int, device: torch.device | str = "cpu") -> Iterator[None]:
        """While active, workers read the batches from ``index`` on ahead of their use."""
        if self.workers == 0:
            yield
            return
        requests = (self._request(n, seed, i) for i in itertools.count(index))
        outer = self._served
        try:
            with ahead(self.source, requests, self.workers, torch.device(device).type == "cuda") as stored:
                self._served = _Served(n, seed, index, stored)
                yield
        finally:
            self._served = outer

    def fingerprint(self) -> str:
        """Return a hash of the length and of 32 evenly spaced rows, those of one fixed draw where items are random."""
        count = len(self.source)
        rows = np.unique(np.linspace(0, count - 1, min(count, SAMPLED_ROWS)).astype(np.int64))
        x, labels = self._read(Request(SPLIT_SEED, ((0, rows),)))
        return fingerprint.of_tensors([torch.tensor(count), x, *([] if labels is None else [labels])])

    def _stored(self, n: int, seed: int, index: int) -> Stored:
        if self._served is not None and (found := self._served.take(n, seed, index)) is not None:
            return found
        # The last batch is kept: labels are asked for after their rows, and a logged round looks at the next batch.
        if self._kept is None or self._kept[0] != (n, seed, index):
            self._kept = (n, seed, index), self._read(self._request(n, seed, index))
        return self._kept[1]

    def _request(self, n: int, seed: int, index: int) -> Request:
        slices = epoch_slices(n, index, self.train_size)
        train = self._index["train"]
        return Request(seed, tuple((e, train[self._epoch(seed, e)[a:b]].numpy()) for e, a, b in slices))

    def _read(self, request: Request) -> Stored:
        """Read rows now: here, or by workers where they are many."""
        if self.workers == 0 or sum(len(rows) for _, rows in request.parts) < MANY:
            return self.source.read(request)
        size = MANY // 4
        pieces = [(e, rows[i : i + size]) for e, rows in request.parts for i in range(0, len(rows), size)]
        found = list(_each(self.source, (Request(request.seed, (piece,)) for piece in pieces), self.workers))
        labels = [y for _, y in found if y is not None]
        return torch.cat([x for x, _ in found]), torch.cat(labels) if labels else None


class _Served:
    """Batches in the order in which workers deliver them; the last one can be asked for again."""

    def __init__(self, n: int, seed: int, index: int, stored: Iterator[Stored]) -> None:
        self._key, self._next, self._stored = (n, seed), index, stored
        self._last: Stored | None = None

    def take(self, n: int, seed: int, index: int) -> Stored | None:
        """Return a batch, or None where it is neither the next nor the last one."""
        if (n, seed) != self._key or index not in (self._next, self._next - 1):
            return None
        if index == self._next:
            self._last, self._next = next(self._stored), self._next + 1
        return self._last


class StreamedData(StreamedRows):
    r"""A map-style Dataset, whose items are read when they are needed and random in every epoch anew.

    An item's random numbers (an augmentation that draws on torch's CPU generator, numpy's or Python's) are a function
    of (seed, epoch, row); a generator that the Dataset keeps for itself is refused.

    Args:
        dataset: items are tensors of one shape, or tuples that begin with one; in a configuration the dotted path of
            what returns it (``data.dataset=my_module.my_dataset``). Integers and booleans become floats.
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

    def labels(self, n: int, seed: int, index: int, device: torch.device | str = "cpu") -> Tensor | None:
        """Return the labels of ``batch(n, seed, index)``, shape (n,), or None where ``classes`` is 0."""
        labels = self._stored(n, seed, index)[1] if self.classes else None
        return None if labels is None else labels.to(device)

    def held_out_labels(self, n: int, seed: int = 0, device: torch.device | str = "cpu") -> Tensor | None:
        """Return the labels of ``held_out(n, seed)``, shape (m,), or None where ``classes`` is 0."""
        if not self.classes:
            return None
        rows = self._index["rest"][self._chosen_rest(n, seed)].numpy()
        labels = self._read(Request(SPLIT_SEED, ((0, rows),)))[1]
        return None if labels is None else labels.to(device)

    def _moments(self) -> tuple[Tensor, Tensor]:
        moments, train = Moments(), np.sort(self._index["train"].numpy())
        bounds = [np.searchsorted(train, chunk) for chunk in chunks(len(self.source), self.event_shape)]
        requests = [Request(SPLIT_SEED, ((0, train[a:b]),)) for a, b in bounds if a < b]
        for x, _ in _each(self.source, requests, self.workers):
            moments.add(as_floats(x))
        return moments.result()


class StreamedArray(StreamedRows):
    """The rows of a .npy file that need not fit in memory: the file is mapped, and a batch reads its own rows.

    The file is read once from end to end at every start, for NaN, and for mean and standard deviation.

    Args:
        path: the file; ``~`` is expanded.
        workers: processes that read ahead; 0 reads in this process.
        standardize: bring every feature to mean 0 and standard deviation 1 (undone in samples and scores).
        held_out_fraction: share of the rows that is never trained on.
        labels: a second file with one label in 0..K-1 per row of the first, in the same order; None for no labels.

    Raises:
        DataError: a file is missing or malformed; the message says where.
    """

    def __init__(
        self,
        path: str | Path,
        workers: int = 0,
        standardize: bool = True,
        held_out_fraction: float = 0.1,
        labels: str | Path | None = None,
    ) -> None:
        source = MappedRows(path)
        super().__init__(source, held_out_fraction, workers)
        self.name = source.path.stem
        self._files = [source.path, *([] if labels is None else [Path(labels).expanduser()])]
        if labels is not None:
            found = read_array(labels, option="data.labels")
            numbers, self.classes = check_labels(found, len(source), f"data.labels: {str(labels)!r}")
            self.train_labels, self.rest_labels = numbers[self._index["train"]], numbers[self._index["rest"]]
        self._look_through(source, standardize)

    def fingerprint(self) -> str:
        """Return a hash of the bytes of the files."""
        return fingerprint.of_files(Path(), self._files)

    def _look_through(self, source: MappedRows, standardize: bool) -> None:
        finite, moments = Finite(), Moments()
        held = torch.zeros(len(source), dtype=torch.bool)
        held[self._index["rest"]] = True
        for start, stop in chunks(len(source), self.event_shape):
            x = source.gather(slice(start, stop))[0]
            finite.add(x, start)
            if standardize:
                moments.add(x[~held[start:stop]])
        finite.refuse(source.name, len(source))
        if standardize:
            self.loc, self.scale = moments.result()


class StreamedImages(StreamedRows):
    """A folder of images, as :class:`se_framework.data.images.ImageFolder` reads it, decoded when needed.

    A file that is no image is named when its turn comes; ``skip_broken`` finds them all at the start.

    Args:
        path: the folder; ``~`` is expanded.
        workers: processes that decode ahead; 0 decodes in this process.
        size: height and width of the images.
        grey: one channel of grey values in place of three of colour.
        labels: give the models the sub-folder of an image as its label.
        held_out_fraction: share of the images that is never trained on.
        skip_broken: decode every file once at every start, and leave out, with a warning, what is no image.

    Attributes:
        class_names: names of the sub-folders with images, in the order of the labels; empty for a flat folder.
        skipped: the files left out, relative to the folder.

    Raises:
        DataError: the folder cannot be read, or there are fewer than four images.
    """

    loc = 127.5
    scale = 127.5

    def __init__(
        self,
        path: str | Path,
        workers: int = 0,
        size: int = 64,
        grey: bool = False,
        labels: bool = False,
        held_out_fraction: float = 0.1,
        skip_broken: bool = False,
    ) -> None:
        split(MIN_ROWS, held_out_fraction)  # a share out of range is refused before thousands of files are read
        folder, files = files_of(path, size)
        readable = [True] * len(files)
        if skip_broken:
            pieces = torch.arange(len(files)).split(MANY // 4)
            requests = (Request(SPLIT_SEED, ((0, piece.numpy()),)) for piece in pieces)
            looked = list(_each(ReadableFiles(folder, files, size, grey), requests, workers))
            readable = torch.cat([x for x, _ in looked]).tolist()
        self.images = found = kept(folder, files, readable, labels)
        super().__init__(ImageFiles(folder, found.files, size, grey), held_out_fraction, workers)
        self.name, self.class_names, self.skipped = found.name, found.class_names, found.skipped
        self.image_shape = self.event_shape
        if found.labels is not None:
            self.classes = len(self.class_names)
            self.train_labels, self.rest_labels = found.labels[self._index["train"]], found.labels[self._index["rest"]]

    def in_model_space(self, stored: Tensor, device: torch.device | str, dtype: torch.dtype | None) -> Tensor:
        """Return images in [-1, 1]; they cross to the device as bytes."""
        return in_unit_range(stored, device, dtype)

    def fingerprint(self) -> str:
        """Return a hash of the names and bytes of the image files."""
        return fingerprint.of_files(self.images.folder, self.images.files)


def _each(source: Source, requests: Iterable[Request], workers: int) -> Iterator[Stored]:
    """Yield the rows of every request, read by workers where there are any."""
    with ahead(source, requests, workers) if workers else nullcontext(map(source.read, requests)) as found:
        yield from found
