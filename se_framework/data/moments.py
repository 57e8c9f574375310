"""Mean, spread and finiteness of rows that come in chunks: the same numbers whether they are in memory or on disk."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from se_framework.data.readers import as_floats
from se_framework.data.units import RESOLUTION
from se_framework.errors import DataError

SMALLEST = 1e-150
"""Standard deviation whose square float64 still holds with all digits, nearly."""
CHUNK = 2**18
"""Numbers in a chunk: 2 MiB in float64."""


def chunks(count: int, event_shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) over ``count`` rows, each chunk of at most :data:`CHUNK` numbers and at least one row."""
    step = max(1, CHUNK // max(1, torch.Size(event_shape).numel()))
    for start in range(0, count, step):
        yield start, min(start + step, count)


def exact(rows: Tensor) -> Tensor:
    """Return numbers in a type that holds them: int64, which float64 does not hold above 2^53, or floats."""
    return rows if rows.dtype == torch.int64 else as_floats(rows)


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
        low, high, x = x.amin(0), x.amax(0), x.double()  # the ends as they are: float64 holds no int64 above 2^53
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
            DataError: the variance overflows or underflows float64, or a feature varies by less than float64 resolves.
        """
        scale = (self._squares / self._count).sqrt()
        # The rounded mean of a constant column leaves a spread of about 1e-16 that must not be blown up to 1.
        constant = self._low == self._high
        loc, scale = torch.where(constant, self._low.double(), self._mean), torch.where(constant, 1.0, scale)
        if not bool((torch.isfinite(loc) & torch.isfinite(scale)).all()):
            raise DataError(
                "the data is too large to standardise in float64 (its variance overflows); rescale the file"
            )
        small = ((scale < SMALLEST) & (self._low.double() < self._high.double())).flatten().nonzero()
        if len(small):
            raise DataError(
                f"column {int(small[0]) + 1} has a standard deviation of {float(scale.flatten()[small[0]]):.3g}, whose "
                "square underflows float64; rescale the column"
            )
        varying = torch.where(constant, torch.inf, scale)
        refuse_coarse(loc, varying, torch.float64, "subtract that number from the column, or rescale it")
        return loc, scale


def refuse_coarse(loc: Tensor, scale: Tensor, dtype: torch.dtype, remedy: str) -> None:
    """Refuse features that vary by less than a type resolves around their mean.

    Args:
        loc: means, shape E.
        scale: standard deviations, shape E.
        dtype: the type that shall hold the numbers.
        remedy: what to do.

    Raises:
        DataError: numbers of that type next to a mean are more than 1e-3 standard deviations apart.
    """
    bad = (torch.finfo(dtype).eps * loc.abs() > RESOLUTION * scale).flatten().nonzero()
    if len(bad):
        k = int(bad[0])
        m, s = float(loc.flatten()[k]), float(scale.flatten()[k])
        raise DataError(
            f"column {k + 1} lies around {m:.6g} with a standard deviation of {s:.3g}, which {str(dtype)[6:]} does not "
            f"resolve: {remedy}"
        )


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
