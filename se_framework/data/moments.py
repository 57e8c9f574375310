"""Mean, spread and finiteness of rows that come in chunks: the same numbers whether they are in memory or on disk."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from se_framework.errors import DataError

CHUNK = 2**18
"""Numbers in a chunk: 2 MiB in float64."""


def chunks(count: int, event_shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) over ``count`` rows, each chunk of at most :data:`CHUNK` numbers and at least one row."""
    step = max(1, CHUNK // max(1, torch.Size(event_shape).numel()))
    for start in range(0, count, step):
        yield start, min(start + step, count)


class Moments:
    r"""Mean and standard deviation of every feature in one pass, in float64.

    Per chunk the deviations are taken from the chunk's own mean, and chunks are merged by

    .. math:: \bar x = \bar x_a + \delta \tfrac{n_b}{n}, \qquad
              M = M_a + M_b + \delta^2 \tfrac{n_a n_b}{n}, \qquad \delta = \bar x_b - \bar x_a ,

    with M the sum of squared deviations: E[x^2] - E[x]^2 would lose a spread of 5 around 1000.

    Source: Chan, Golub, LeVeque, "Algorithms for computing the sample variance", Am. Stat. 37 (1983), eq. 2.1.
    """

    def __init__(self) -> None:
        self._count = 0

    def add(self, x: Tensor) -> None:
        r"""Take in rows of shape (n, \*E); n may be 0."""
        if not len(x):
            return
        low, high, x = x.amin(0).double(), x.amax(0).double(), x.double()
        mean = x.mean(0)
        squares, total = (x - mean).square().sum(0), self._count + len(x)
        if not self._count:
            self._mean, self._squares, self._low, self._high = mean, squares, low, high
        else:
            delta = mean - self._mean
            self._mean = self._mean + delta * (len(x) / total)
            self._squares = self._squares + squares + delta.square() * (self._count * (len(x) / total))
            self._low, self._high = torch.minimum(self._low, low), torch.maximum(self._high, high)
        self._count = total

    def result(self) -> tuple[Tensor, Tensor]:
        r"""Return mean and standard deviation, both of shape E; 1 for the deviation of a feature that is constant.

        Raises:
            DataError: the variance overflows float64.
        """
        scale = (self._squares / self._count).sqrt()
        # The rounded mean of a constant column leaves a spread of about 1e-16 that must not be blown up to 1.
        constant = (self._low == self._high) | (scale == 0)
        loc, scale = torch.where(constant, self._low, self._mean), torch.where(constant, 1.0, scale)
        if not bool((torch.isfinite(loc) & torch.isfinite(scale)).all()):
            raise DataError(
                "the data is too large to standardise in float64 (its variance overflows); rescale the file"
            )
        return loc, scale


def moments_of(rows: Tensor, without: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation over all rows but some, in the order in which a stream has them."""
    moments, left_out = Moments(), torch.zeros(len(rows), dtype=torch.bool)
    left_out[without] = True
    for start, stop in chunks(len(rows), tuple(rows.shape[1:])):
        moments.add(rows[start:stop][~left_out[start:stop]])
    return moments.result()


class Finite:
    """Counts NaN and infinite values, and remembers the first row that has one."""

    def __init__(self) -> None:
        self._bad, self._first = 0, 0

    def add(self, x: Tensor, start: int) -> None:
        r"""Look at rows ``start``, ``start + 1``, ..., of shape (n, \*E)."""
        bad = ~torch.isfinite(x.flatten(1))
        if bool(bad.any()):
            self._first = self._first if self._bad else start + int(bad.any(1).to(torch.uint8).argmax())
            self._bad += int(bad.sum())

    def refuse(self, what: str, rows: int) -> None:
        """Raise a DataError if there was one."""
        if self._bad:
            raise DataError(
                f"{what} has {self._bad} NaN or infinite values, the first in row {self._first + 1} of {rows}; "
                "remove or fill them"
            )
