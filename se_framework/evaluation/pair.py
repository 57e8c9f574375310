r"""Two samples beside each other, and what several scores share: one view of the points, their distances, their error.

Most scores look at a *view*: the data's features where it declares some, else the points in model space, whose
coordinates are of one size. Transport and the energy distance stay in user units: they have a unit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from se_framework.data.base import Data
from se_framework.evaluation.transport import EXACT

SEPARATE = 4
"""Points at least that a score of pairs compares."""


class Figure(NamedTuple):
    """What a score is of one pair of samples.

    Attributes:
        value: the figure.
        se: its standard error over draws of both samples.
        n: points of each sample that were looked at.
        more: what else the entry says, e.g. a p-value.
        perfect: its mean where both samples are of one law, where that is known.
    """

    value: float
    se: float
    n: int
    more: dict[str, Any] = {}  # noqa: RUF012  nobody writes into it
    perfect: float | None = None


class TooFewError(ValueError):
    """There are too few points for a score: its entry says so."""


class Pair:
    r"""Samples x of one law, and real points y that were never trained on, in user units, as many of each.

    Args:
        data: whose view is taken.
        x: shape (n, \*E), float64.
        y: shape (n, \*E), float64.
        bandwidth: the length of the data that kernels are as wide as, in the view.
        pairs: points of each sample at most that are compared pair by pair.
        assigned: points at most of an exact assignment.
        directions: of slices, shape (D, numel(E)).
        seed: of what is drawn besides.
        errors: whether standard errors are wanted; else those that cost are NaN.
    """

    def __init__(
        self, data: Data, x: Tensor, y: Tensor, *, bandwidth: float, pairs: int, assigned: int, directions: Tensor,
        seed: int, errors: bool = True,
    ) -> None:  # fmt: skip
        self.data, self.x, self.y, self.bandwidth, self.seed = data, x, y, bandwidth, seed
        self.errors = errors
        self._shared: dict[str, Any] = {}
        self.pairs, self.assigned, self.directions = min(pairs, len(x), len(y)), assigned, directions

    def few(self) -> tuple[Tensor, Tensor]:
        """Return the points that are compared pair by pair, in user units, both of shape (m, d).

        Raises:
            TooFewError: there are fewer than :data:`SEPARATE` of them.
        """
        at_least(self.pairs, SEPARATE)
        return self.x[: self.pairs].flatten(1), self.y[: self.pairs].flatten(1)

    def shared(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return what several scores read of this pair, computed once."""
        if name not in self._shared:
            self._shared[name] = compute()
        return self._shared[name]

    @cached_property
    def view(self) -> tuple[Tensor, Tensor]:
        """The same points as scores without unit look at them, both of shape (m, k)."""
        self.few()
        return view(self.data, self.x[: self.pairs]), view(self.data, self.y[: self.pairs])

    @cached_property
    def distances(self) -> tuple[Tensor, Tensor, Tensor]:
        """Distances in the view: among the samples, among real points, and from real points to samples, (m, m)."""
        a, b = self.view
        return distance(a, a), distance(b, b), distance(b, a)


def at_least(n: int, least: int) -> None:
    """Refuse fewer points.

    Raises:
        TooFewError: see above.
    """
    if n < least:
        raise TooFewError(f"it needs {least} samples and as many held-out rows, and there are {n}")


def view(data: Data, x: Tensor) -> Tensor:
    r"""Return points in user units, (n, \*E), as scores look at them, (n, k), in float64."""
    return data.to_model(x).flatten(1) if data.features is None else data.features(x)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Return Euclidean distances, (n, m), without the expanded square."""
    return torch.cdist(a, b, compute_mode=EXACT)
