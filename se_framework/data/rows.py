r"""Finitely many rows: an epoch is a permutation, the split is fixed, labels follow their rows."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from models.laws import Particles
from se_framework.data.base import Data, epoch_slices
from se_framework.data.readers import as_tensor
from se_framework.errors import DataError
from se_framework.randomness import generator

MIN_ROWS = 4
# The split belongs to the data, not to the run: runs with different seeds are compared on the same held-out rows.
SPLIT_SEED = 0

Part = Literal["train", "rest"]


class RowData(Data):
    r"""Rows split once and for all into training and held-out ones; a subclass says how they are stored.

    An epoch is a permutation of the training rows, a function of (seed, epoch); a batch that crosses the end of an
    epoch takes the tail of one permutation and the head of the next, so every row is seen equally often.

    Attributes:
        train_size: number of training rows.
        rest_size: number of held-out rows.
        validation_size: number of validation rows, see :meth:`with_validation`; they come after the training rows.
        train_labels: labels of the training rows, shape (train_size,), int64; None where they are not known.
        rest_labels: labels of the held-out rows, shape (rest_size,), int64; None where they are not known.
    """

    sources: tuple[str, ...] = ()
    train_size: int
    rest_size: int
    validation_size: int = 0
    train_labels: Tensor | None = None
    rest_labels: Tensor | None = None
    # Two permutations a seed suffice for batches in order, including the one that crosses the end of an epoch.
    _orders_kept: int = 2

    @abstractmethod
    def rows(self, part: Part, index: Tensor, device: torch.device | str = "cpu") -> Tensor:
        r"""Return a copy of the rows of a part in model space, before the data's transform and without noise.

        Args:
            part: "train" or "rest".
            index: which rows, shape (n,), int64.
            device: where they are put.

        Returns:
            Points of shape (n, \*E), of type :attr:`dtype`.
        """

    def points(
        self, part: Part, index: Tensor, device: torch.device | str = "cpu", noise: Tensor | None = None
    ) -> Particles:
        r"""Return a copy of rows with their noise, (n, \*E), in model space, labelled where the models read labels."""
        x = self._shaped(self.rows(part, index, device), noise)
        return Particles(x, context=self._context(part, index, device))

    def batch(self, start: int, n: int, seed: int, device: torch.device | str = "cpu") -> Particles:
        r"""Return rows start .. start + n - 1 without replacement within an epoch, shape (n, \*E), with labels."""
        return self.points("train", self._chosen(start, n, seed), device, self._noise(start, n, seed))

    def batches(self, start: int, n: int, seeds: Sequence[int], device: torch.device | str = "cpu") -> Particles:
        r"""Return ``batch(start, n, seed)`` of several seeds, x of shape (len(seeds), n, \*E), gathered at once."""
        self._orders_kept = max(self._orders_kept, 2 * len(seeds))
        if type(self).batch is not RowData.batch:
            return super().batches(start, n, seeds, device)
        noise = [added for seed in seeds if (added := self._noise(start, n, seed)) is not None]
        chosen = torch.cat([self._chosen(start, n, seed) for seed in seeds])
        found = self.points("train", chosen, device, torch.cat(noise) if noise else None)
        context = None if found.context is None else found.context.unflatten(0, (len(seeds), n))
        return Particles(found.x.unflatten(0, (len(seeds), n)), context=context)

    def held_out(self, n: int, seed: int = 0, device: torch.device | str = "cpu") -> Particles:
        r"""Return all held-out rows, or n of them chosen by the seed where there are more, shape (m, \*E)."""
        return self.points("rest", self._chosen_rest(n, seed), device)

    def with_validation(self, fraction: float) -> RowData:
        """Return this data with a share of its training rows, the same for every run, set apart.

        Raises:
            DataError: the share is not in (0, 1), or no such rows can be set apart.
        """
        if self.validation_size:
            return self
        kept, apart = split(self.train_size, fraction, "loop.validation", "validation")
        found = copy.copy(self)
        found.__dict__.pop("_epochs", None)
        found._reorder(torch.cat([kept, apart]))
        found.train_size, found.validation_size = len(kept), len(apart)
        return found

    def validation(self, n: int, device: torch.device | str = "cpu") -> Particles:
        r"""Return the validation rows, n of them where there are more, shape (m, \*E)."""
        if not self.validation_size:
            return super().validation(n, device)
        return self.points("train", self.train_size + torch.arange(min(n, self.validation_size)), device)

    def reference_rows(self, n: int) -> Particles:
        r"""Return training and validation rows as they are stored, n of them by one fixed draw where there are more."""
        count = self.train_size + self.validation_size
        chosen = torch.arange(count)
        if count > n:
            chosen = torch.randperm(count, generator=generator(SPLIT_SEED, 0, "reference"))[:n].sort().values
        x = self.points("train", chosen, noise=self._noise(0, len(chosen), SPLIT_SEED)).x
        return Particles(x, context=None if self.train_labels is None else self.train_labels[chosen])

    def _noise(self, start: int, n: int, seed: int) -> Tensor | None:
        r"""Return what is added to the rows of a batch, shape (n, \*E); None for nothing."""
        return None

    def _shaped(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Return rows with their noise after the data's transform, which float64 keeps off the edges of levels."""
        if self.transform is None:
            return x if noise is None else x + noise.to(x)
        return self.transform.forward(x.double() if noise is None else x.double() + noise.to(x.device)).to(x.dtype)

    def _reorder(self, order: Tensor) -> None:
        """Put the training rows, and their labels, into another order; nothing may be changed in place."""
        super().with_validation(0.5)  # it cannot: says so

    def _context(self, part: Part, index: Tensor, device: torch.device | str) -> Tensor | None:
        """Return a copy of the labels of rows of a part; None where the models are given none."""
        labels = self.train_labels if part == "train" else self.rest_labels
        return labels[index].to(device, non_blocking=True) if self.classes and labels is not None else None

    def _chosen(self, start: int, n: int, seed: int) -> Tensor:
        slices = epoch_slices(start, n, self.train_size)
        return torch.cat([self._epoch(seed, epoch)[first:stop] for epoch, first, stop in slices])

    def _chosen_rest(self, n: int, seed: int) -> Tensor:
        if n < self.rest_size:
            return torch.randperm(self.rest_size, generator=generator(seed, 0, "held_out"))[:n]
        return torch.arange(self.rest_size)

    def _epoch(self, seed: int, epoch: int) -> Tensor:
        key = (seed, epoch)
        if key not in self._epochs:
            self._epochs[key] = torch.randperm(self.train_size, generator=generator(seed, epoch, "epoch"))
            while len(self._epochs) > self._orders_kept:
                self._epochs.popitem(last=False)
        return self._epochs[key]

    @cached_property
    def _epochs(self) -> OrderedDict[tuple[int, int], Tensor]:
        return OrderedDict()


def split(
    count: int, held_out_fraction: float, option: str = "data.held_out_fraction", purpose: str = "split"
) -> tuple[Tensor, Tensor]:
    """Return the indices of the training and of the held-out rows, the same for every run.

    Args:
        count: number of rows, at least two.
        held_out_fraction: share that is held out, in (0, 1); at least one row.
        option: what sets the share, for messages.
        purpose: names the draw.

    Raises:
        DataError: the share is out of range.
    """
    if not 0 < held_out_fraction < 1:
        raise DataError(f"{option} must lie between 0 and 1 (exclusive), got {held_out_fraction}")
    held = min(max(1, round(held_out_fraction * count)), count - 1)
    order = torch.randperm(count, generator=generator(SPLIT_SEED, 0, purpose))
    return order[held:], order[:held]


def check_labels(labels: Tensor | np.ndarray, rows: int, what: str) -> tuple[Tensor, int]:
    """Return labels as int64 and the number of classes.

    Args:
        labels: one whole number per row, shape (rows,) or (rows, 1); every number of 0..K-1 occurs, K >= 2.
        rows: number of rows.
        what: how an error names them.

    Returns:
        The labels, shape (rows,), and K.

    Raises:
        DataError: see the messages.
    """
    if not isinstance(labels, Tensor | np.ndarray):
        raise DataError(f"{what} is a {type(labels).__name__}; give a tensor or an array: torch.as_tensor(labels)")
    found = as_tensor(labels, what) if isinstance(labels, np.ndarray) else labels.detach().cpu()
    if found.shape not in ((rows,), (rows, 1)):
        raise DataError(f"{what} has shape {tuple(found.shape)} for {rows} rows of data; give one label per row")
    values = found.flatten()
    if values.is_complex() or (values.is_floating_point() and not bool((values == values.round()).all())):
        raise DataError(f"{what} holds numbers that are not whole; label the classes 0, 1, ..., K-1")
    # NaN is not equal to itself and infinity would not fit: both are refused before the conversion.
    if values.is_floating_point() and not bool((values.abs() < 2**31).all()):
        raise DataError(f"{what} holds labels beyond 2^31; label the classes 0, 1, ..., K-1")
    values = values.to(torch.int64)
    seen = values.unique()
    if int(seen[0]) < 0:
        raise DataError(f"{what} holds the label {int(seen[0])}; label the classes 0, 1, ..., K-1")
    if len(seen) < 2:
        raise DataError(f"{what} holds one class only ({int(seen[0])}); give at least two, or no labels")
    gap = (seen != torch.arange(len(seen))).nonzero()
    if len(gap):
        raise DataError(
            f"{what} runs to {int(seen[-1])} but no row has label {int(gap[0])}; label the classes 0, 1, ..., K-1 "
            "without gaps"
        )
    return values, len(seen)
