r"""Data that brings a second law along, ``reference``, for estimates of a divergence between the two.

* :class:`TwoSamples`: p_d is the law of the rows of one file, the reference that of another.
* :class:`Paired`: p_d is the law of rows (x, y), the reference the product of the laws of x and of y. Then
  :math:`KL(p_d, p)` is the mutual information I(x; y), and any other D a dependence of its own.
* :class:`CorrelatedGaussians`: the benchmark on which I(x; y) is known.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from se_framework.data import fingerprint
from se_framework.data.readers import as_floats, read_array
from se_framework.data.rows import split
from se_framework.data.sampler import Sampler
from se_framework.data.tensors import ArrayData, check_rows
from se_framework.errors import DataError


class Rows:
    r"""The law of stored rows: with replacement from those for training, each once from those that are held out.

    Args:
        train: shape (N, \*E).
        rest: shape (M, \*E).
    """

    def __init__(self, train: Tensor, rest: Tensor) -> None:
        self.train, self.rest = train, rest

    def draw(self, n: int, generator: torch.Generator, held_out: bool = False) -> Tensor:
        r"""Draw points, shape (m, \*E), m = n but for held-out rows, of which there may be fewer."""
        if held_out:
            return self.rest[torch.randperm(len(self.rest), generator=generator)[:n]]
        return self.train[torch.randint(len(self.train), (n,), generator=generator)]


class Product:
    r"""The product of the margins of stored rows (x, y): x of one row beside y of another.

    From training rows any two; from held-out rows x of the first half beside y of the second, each row once, so that
    the points are independent and their mean has the standard error that it seems to have.

    Args:
        train: shape (N, d).
        rest: shape (M, d).
        first: coordinates of x.
    """

    def __init__(self, train: Tensor, rest: Tensor, first: int) -> None:
        self.train, self.rest, self.first = train, rest, first

    def draw(self, n: int, generator: torch.Generator, held_out: bool = False) -> Tensor:
        """Draw points, shape (m, d)."""
        if held_out:
            half = len(self.rest) // 2
            x, y = self.rest[:half], self.rest[half : 2 * half]
            order = torch.randperm(half, generator=generator)[:n]
            return torch.cat([x[order, : self.first], y[order, self.first :]], 1)
        i, j = torch.randint(len(self.train), (2, n), generator=generator)
        return torch.cat([self.train[i, : self.first], self.train[j, self.first :]], 1)


class TwoSamples(ArrayData):
    """The rows of a file, to be compared with those of another: .npy, .npz, .pt (one tensor) or .csv.

    Args:
        path: the file whose rows are p_d's.
        against: the file whose rows are p's.
        standardize: bring every feature of the first to mean 0 and standard deviation 1; the second by the same map.
        key: name of the array in .npz files with several.
        held_out_fraction: share of the rows of each that is never trained on: the figure at the end is of those.

    Raises:
        DataError: a file is missing or malformed, or their rows have different shapes.
    """

    def __init__(
        self,
        path: str | Path,
        against: str | Path,
        standardize: bool = True,
        key: str | None = None,
        held_out_fraction: float = 0.3,
    ) -> None:
        super().__init__(path, standardize, key, held_out_fraction)
        file, what = Path(against).expanduser(), f"data.against: {str(against)!r}"
        self._stamps += fingerprint.stamps([file])
        self._files.append(file)
        rows = as_floats(check_rows(read_array(against, key, option="data.against"), what))
        if tuple(rows.shape[1:]) != self.event_shape:
            raise DataError(
                f"{what} has rows of shape {tuple(rows.shape[1:])}, and those of data.path have shape "
                f"{self.event_shape}: give two files of the same columns"
            )
        train, rest = split(len(rows), held_out_fraction)
        placed = self.to_model(rows)
        self.reference = Rows(placed[train].to(self.dtype), placed[rest].to(self.dtype))


class Paired(ArrayData):
    """Rows (x, y) of a file, to be compared with the product of the margins of x and y.

    Half of the held-out rows are p_d's, the others make the product, see :class:`Product`.

    Args:
        path: the file.
        first: columns of x, the others are those of y.
        standardize: bring every feature to mean 0 and standard deviation 1.
        key: name of the array in an .npz file with several.
        held_out_fraction: share of the rows that is never trained on: the figure at the end is of those.

    Raises:
        DataError: the file is missing or malformed, ``first`` leaves no column to x or y, or there are too few rows.
    """

    def __init__(
        self,
        path: str | Path,
        first: int,
        standardize: bool = True,
        key: str | None = None,
        held_out_fraction: float = 0.3,
    ) -> None:
        super().__init__(path, standardize, key, held_out_fraction)
        columns = self.event_shape[0]
        if len(self.event_shape) != 1 or not 0 < first < columns:
            raise DataError(
                f"data.first={first} of rows of shape {self.event_shape}: give 1 to {columns - 1} columns to x"
            )
        half = self.rest_size // 2
        if half < 4:
            raise DataError(
                f"{self.origin} has {self.rest_size} held-out rows, half of which make the product of margins: give "
                "more rows, or a larger data.held_out_fraction"
            )
        self.reference = Product(self.train.to(self.dtype), self.rest[half:].to(self.dtype), first)
        self.rest, self.rest_size = self.rest[:half], half


class CorrelatedGaussians(Sampler):
    r"""Pairs (x, y) of d-dimensional Gaussians, coordinate by coordinate correlated, of given mutual information.

    .. math:: I(x; y) = -\tfrac d2\log(1-\rho^2) ; \qquad
              \operatorname{Var}_p[\tfrac{dp_d}{dp}] = e^{2I} - 1 ,

    the benchmark of Belghazi et al. 2018 and Poole et al. 2019 (section 4); the reference is N(0, I) of both.

    Args:
        dimension: d of x and of y.
        information: I in nats.
        cubic: take :math:`y^3` for y, which leaves I as it is (Poole et al. 2019).

    Raises:
        DataError: d < 1, or I is not positive and finite.
    """

    sources: tuple[str, ...] = ("belghazi2018mutual", "poole2019variational")
    name = "correlated_gaussians"

    def __init__(self, dimension: int = 20, information: float = 2.0, cubic: bool = False) -> None:
        if dimension < 1 or not (0 < information < math.inf):
            raise DataError(
                f"data.dimension={dimension} data.information={information}: give at least one dimension and a "
                "positive number of nats"
            )
        self.event_shape = (2 * dimension,)
        self.information, self.cubic = information, cubic
        self.rho = math.sqrt(-math.expm1(-2 * information / dimension))
        self.reference = Independent(self)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n pairs, shape (n, 2d), float64."""
        return self.pairs(n, generator, self.rho)

    def pairs(self, n: int, generator: torch.Generator, rho: float) -> Tensor:
        """Draw pairs whose coordinates have the correlation rho, shape (n, 2d), float64."""
        x, e = torch.randn(2, n, self.event_shape[0] // 2, generator=generator, dtype=torch.float64)
        y = rho * x + math.sqrt(1 - rho**2) * e
        return torch.cat([x, y**3 if self.cubic else y], 1)

    def log_ratio(self, points: Tensor) -> Tensor:
        r"""Return :math:`\log\frac{dp_d}{dp}` at points (n, 2d), shape (n,)."""
        x, y = points.double().chunk(2, 1)
        y = y.sign() * y.abs() ** (1 / 3) if self.cubic else y
        quadratic = (self.rho**2 * (x**2 + y**2) - 2 * self.rho * x * y) / (2 * (1 - self.rho**2))
        return self.information - quadratic.sum(1)


class Independent:
    """The product of the margins of correlated Gaussians: the same without the correlation."""

    def __init__(self, joint: CorrelatedGaussians) -> None:
        self.joint, self.first = joint, joint.event_shape[0] // 2

    def draw(self, n: int, generator: torch.Generator, held_out: bool = False) -> Tensor:
        """Draw n pairs, shape (n, 2d), float64."""
        return self.joint.pairs(n, generator, 0.0)
