r"""Elementwise invertible maps of values in [0, 1] to the line, as a declared part of data whose Jacobian is counted.

What comes before a model moves its likelihood more than the choice of the model does, so a likelihood is always told in
user units, :math:`\log p_{user}(x)=\log p_{model}(T(x))+\sum_i\log T_i'(x_i)`, and compared at equal maps.
"""

from __future__ import annotations

from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from se_framework.errors import DataError

Name = Literal["none", "logit", "gaussianise"]
MARGIN = 0.05
"""a of the logit map."""
EDGE = 2.0**-53
"""Probability kept from 0 and 1: where a value is 0 or 1 by rounding, the quantile would be infinite."""


class Transform(Protocol):
    """A map of every coordinate of a point by an increasing function of its own.

    Attributes:
        name: for tables of likelihoods.
    """

    name: str

    def forward(self, x: Tensor) -> Tensor:
        r"""Map points (n, \*E) in [0, 1] to the line, in float64."""

    def inverse(self, z: Tensor) -> Tensor:
        r"""Map points (n, \*E) of the line to [0, 1], in float64."""

    def log_slope(self, x: Tensor) -> Tensor:
        r"""Return :math:`\sum_i\log T_i'(x_i)` at points (n, \*E) in [0, 1], shape (n,), in float64."""


class Logit:
    r""":math:`T(x)=\log\frac{p}{1-p}`, p = a + (1-2a) x.

    Source: Dinh, Sohl-Dickstein, Bengio, "Density estimation using Real NVP", ICLR 2017, section 4.1 (a = 0.05).

    Args:
        margin: a.
    """

    name = "logit"

    def __init__(self, margin: float = MARGIN) -> None:
        self.margin = margin

    def _shares(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.double()
        return self.margin + (1 - 2 * self.margin) * x, self.margin + (1 - 2 * self.margin) * (1 - x)

    def forward(self, x: Tensor) -> Tensor:
        r"""Return the logits, (n, \*E)."""
        p, q = self._shares(x)
        return p.log() - q.log()

    def inverse(self, z: Tensor) -> Tensor:
        r"""Return the values, (n, \*E), in [0, 1] where the logits are those of such values."""
        return (torch.sigmoid(z.double()) - self.margin) / (1 - 2 * self.margin)

    def log_slope(self, x: Tensor) -> Tensor:
        r"""Return :math:`\sum_i\log\frac{1-2a}{p_iq_i}`, shape (n,)."""
        p, q = self._shares(x)
        slope = torch.tensor(1 - 2 * self.margin, dtype=torch.float64, device=x.device).log()
        return (slope - p.log() - q.log()).flatten(1).sum(1)


class Gaussianise:
    r"""Each coordinate by its own distribution function, then the normal quantile: :math:`T_i=\Phi^{-1}\circ F_i`.

    :math:`F_i` has a constant density on each of the K levels ((k-1)/K, k/K), the share of the level among the rows
    after smoothing: to the counts of a coordinate are added those of all coordinates together, scaled to ``pooled``
    counts, and ``even`` counts spread evenly. So a level that a pixel never had in training has a positive density.

    Under independent coordinates with these densities, points are N(0, I): a model that starts there starts at the best
    product law. The idea is the marginal step of Chen and Gopinath, "Gaussianization", NIPS 2000.

    Args:
        levels: the level 0..K-1 of every coordinate of the rows, shape (N, \*E), int64.
        count: K.
        pooled: see above.
        even: see above.
    """

    name = "gaussianise"

    def __init__(self, levels: Tensor, count: int, pooled: float = 4.0, even: float = 1.0) -> None:
        rows = levels.flatten(1)
        own = torch.zeros(rows.shape[1], count, dtype=torch.float64)
        own.scatter_add_(1, rows.T, torch.ones(rows.T.shape, dtype=torch.float64))
        share = own.sum(0) / own.sum()
        smooth = own + pooled * share + even / count
        self._share = smooth / smooth.sum(1, keepdim=True)
        below = self._share.cumsum(1)
        below[:, -1] = 1.0
        self._below = torch.nn.functional.pad(below, (1, 0))
        self._count = count

    def _level(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the level of values (n, d) and how far they are into it, in units of a level."""
        scaled = x * self._count
        level = scaled.floor().clamp(0, self._count - 1)
        return level.long(), scaled - level

    def forward(self, x: Tensor) -> Tensor:
        r"""Return the quantiles, (n, \*E)."""
        flat = x.double().flatten(1)
        level, into = self._level(flat)
        below, share = (_at(table, level) for table in (self._below, self._share))
        p = (below + share * into).clamp(EDGE, 1 - EDGE)
        return torch.special.ndtri(p).view(x.shape)

    def inverse(self, z: Tensor) -> Tensor:
        r"""Return the values, (n, \*E)."""
        p = torch.special.ndtr(z.double().flatten(1))
        edges = self._below.to(z.device)[:, 1:-1].contiguous()
        level = torch.searchsorted(edges, p.T.contiguous(), right=True).T
        below, share = (_at(table, level) for table in (self._below, self._share))
        into = ((p - below) / share).clamp(0, 1)
        return ((level + into) / self._count).view(z.shape)

    def log_slope(self, x: Tensor) -> Tensor:
        r"""Return :math:`\sum_i\log(Ks_i)-\log\phi(T_i(x_i))`, s the share of the level of x_i, shape (n,)."""
        flat = x.double().flatten(1)
        density = (_at(self._share, self._level(flat)[0]) * self._count).log()
        z = self.forward(flat)
        return (density + 0.5 * z.square() + 0.5 * torch.log(torch.tensor(2 * torch.pi, dtype=torch.float64))).sum(1)


def _at(table: Tensor, level: Tensor) -> Tensor:
    """Return the entries of a table (d, K) at levels (n, d)."""
    return table.to(level.device).gather(1, level.T).T


def transform_of(name: str, levels: Tensor, count: int) -> Transform | None:
    r"""Return the map of that name for values in [0, 1] that carry noise as wide as a level; None for "none".

    Args:
        name: none, logit or gaussianise.
        levels: of the training rows, (N, \*E), whole numbers 0..count-1.
        count: number of levels.

    Raises:
        DataError: there is no such map.
    """
    if name not in get_args(Name):
        raise DataError(f"data.transform={name}: there is no such map; choose one of {', '.join(get_args(Name))}")
    if name == "none":
        return None
    return Logit() if name == "logit" else Gaussianise(levels.round().long(), count)
