r"""Data that is read when it is needed, by this process or by workers, in place of being kept in memory.

Batches are those of the same data in memory, bit for bit: functions of (seed, index), however many workers there are
and wherever a run was resumed. What stays in memory is a batch, two more per worker, and three permutations of the
rows: 24 bytes per row.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor

from se_framework.data import fingerprint
from se_framework.data.base import epoch_slices, image_shape_of
from se_framework.data.readers import as_floats
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
        x = as_floats(stored.to(device, non_blocking=True))
        plain = isinstance(self.loc, float) and (self.loc, self.scale) == (0.0, 1.0)
        x = x if plain else self.to_model(x)
        return x.to(dtype or torch.get_default_dtype(), copy=plain)

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
        found = list(each(self.source, (Request(request.seed, (piece,)) for piece in pieces), self.workers))
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


def each(source: Source, requests: Iterable[Request], workers: int) -> Iterator[Stored]:
    """Yield the rows of every request, read by workers where there are any."""
    with ahead(source, requests, workers) if workers else nullcontext(map(source.read, requests)) as found:
        yield from found
