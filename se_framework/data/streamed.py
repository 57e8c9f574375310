r"""Data that is read when it is needed, by this process or by workers, in place of being kept in memory.

Batches are those of the same data in memory, bit for bit: functions of (start, n, seed), however many workers there are
and wherever a run was resumed. What stays in memory is a batch, two more per worker, and three permutations of the
rows: 24 bytes per row.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from models.laws import Particles
from se_framework.data import fingerprint
from se_framework.data.base import epoch_slices, image_shape_of, plain_units
from se_framework.data.readers import as_floats, as_numbers
from se_framework.data.rows import MIN_ROWS, SPLIT_SEED, Part, RowData, split
from se_framework.data.sources import Request, Source, Stored
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
            raise DataError(f"workers must be at least 0, got {workers}")
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

    @property
    def dtype(self) -> torch.dtype:
        """Type of the points of a batch."""
        return torch.int64 if self.source.whole and plain_units(self) else torch.get_default_dtype()

    def rows(self, part: Part, index: Tensor, device: torch.device | str = "cpu") -> Tensor:
        r"""Read rows of a part, shape (n, \*E); where items are random, their draw is always the same here."""
        return self.points(part, index, device).x

    def points(
        self, part: Part, index: Tensor, device: torch.device | str = "cpu", noise: Tensor | None = None
    ) -> Particles:
        """Read rows of a part as :meth:`rows` does, with the labels that they come with."""
        stored = self._read(Request(SPLIT_SEED, ((0, self._index[part][index].numpy()),)))
        found = self._points(stored, part, index, device)
        return replace(found, x=self._shaped(found.x, noise))

    def batch(self, start: int, n: int, seed: int, device: torch.device | str = "cpu") -> Particles:
        r"""Return a batch, x of shape (n, \*E): what workers have read ahead where it is that, else read now."""
        return self._points(self._stored(start, n, seed), "train", self._chosen(start, n, seed), device)

    def in_model_space(self, stored: Tensor, device: torch.device | str) -> Tensor:
        """Return a copy of stored rows in model space; they cross to the device as they are stored."""
        x, plain = stored.to(device, non_blocking=True), plain_units(self)
        if plain and not x.is_floating_point():
            return as_numbers(x, self.source.name).to(torch.int64, copy=True)
        x = x if plain else self.to_model(as_floats(x))
        return x.to(torch.get_default_dtype(), copy=plain)

    @contextmanager
    def prefetch(self, start: int, n: int, seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
        """While active, workers read the batches of n from row ``start`` on ahead of their use."""
        if self.workers == 0:
            yield
            return
        requests = (self._request(first, n, seed) for first in itertools.count(start, n))
        outer = self._served
        try:
            with ahead(self.source, requests, self.workers, torch.device(device).type == "cuda") as stored:
                self._served = _Served(start, n, seed, stored)
                yield
        finally:
            self._served = outer

    def _reorder(self, order: Tensor) -> None:
        self._index, self._served, self._kept = self._index | {"train": self._index["train"][order]}, None, None
        self.train_labels = None if self.train_labels is None else self.train_labels[order]

    def fingerprint(self) -> str:
        """Return a hash of the length and of 32 evenly spaced rows, those of one fixed draw where items are random."""
        count = len(self.source)
        rows = np.unique(np.linspace(0, count - 1, min(count, SAMPLED_ROWS)).astype(np.int64))
        x, labels = self._read(Request(SPLIT_SEED, ((0, rows),)))
        return fingerprint.of_tensors([torch.tensor(count), x, *([] if labels is None else [labels])])

    def _points(self, stored: Stored, part: Part, index: Tensor, device: torch.device | str) -> Particles:
        x, labels = stored
        if labels is None:  # known before rows are read
            return Particles(self.in_model_space(x, device), context=self._context(part, index, device))
        return Particles(self.in_model_space(x, device), context=labels.to(device, copy=True))

    def _stored(self, start: int, n: int, seed: int) -> Stored:
        if self._served is not None and (found := self._served.take(start, n, seed)) is not None:
            return found
        # The last batch is kept: a logged round looks at the next batch.
        if self._kept is None or self._kept[0] != (start, n, seed):
            self._kept = (start, n, seed), self._read(self._request(start, n, seed))
        return self._kept[1]

    def _request(self, start: int, n: int, seed: int) -> Request:
        slices = epoch_slices(start, n, self.train_size)
        train = self._index["train"]
        return Request(seed, tuple((e, train[self._epoch(seed, e)[a:b]].numpy()) for e, a, b in slices))

    def _read(self, request: Request) -> Stored:
        """Read rows now: here, or by workers where they are many."""
        if self.workers == 0 or sum(len(rows) for _, rows in request.parts) < MANY:
            return self.source.read(request)
        size = MANY // 4
        pieces = [(e, rows[i : i + size]) for e, rows in request.parts for i in range(0, len(rows), size)]
        found = list(each(self.source, (Request(request.seed, (piece,)) for piece in pieces), self.workers))
        labels = [y for _, y in found if y is not None]
        return torch.cat([x for x, _ in found]), torch.cat(labels) if labels else None


class _Served:
    """Batches in the order in which workers deliver them; the last one can be asked for again."""

    def __init__(self, start: int, n: int, seed: int, stored: Iterator[Stored]) -> None:
        self._n, self._seed, self._next, self._stored = n, seed, start, stored
        self._last: Stored | None = None

    def take(self, start: int, n: int, seed: int) -> Stored | None:
        """Return a batch, or None where it is neither the next nor the last one."""
        if (n, seed) != (self._n, self._seed) or start not in (self._next, self._next - n):
            return None
        if start == self._next:
            self._last, self._next = next(self._stored), self._next + n
        return self._last


def each(source: Source, requests: Iterable[Request], workers: int) -> Iterator[Stored]:
    """Yield the rows of every request, read by workers where there are any."""
    with ahead(source, requests, workers) if workers else nullcontext(map(source.read, requests)) as found:
        yield from found
