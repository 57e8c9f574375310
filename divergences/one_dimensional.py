r"""Exact transport on the line, by quantiles: :math:`W_r^r(q,p)=\int_0^1|F_q^{-1}(u)-F_p^{-1}(u)|^r\,du`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from divergences import gaussians
from divergences.base import Divergence, WeightedPoints
from divergences.clouds import clouds, common_type, root
from divergences.gaussians import Gaussian
from divergences.lines import Line


class TransportCost(Divergence):
    r"""Base of the divergences with ground cost :math:`|x-y|^r` (no factor 1/r), on particles.

    Args:
        order: r, a finite number >= 1.

    Raises:
        ValueError: an order below 1, or one that is not finite.
    """

    sources: tuple[str, ...] = ("villani2003topics",)
    primal_needs = "samples"
    critic_reads = "potential"
    symmetric = True

    def __init__(self, order: float = 2.0) -> None:
        super().__init__()
        if not 1 <= order < float("inf"):
            raise ValueError(
                f"{type(self).__name__} takes a finite order >= 1, below which no quantiles meet; got {order}"
            )
        self.order = float(order)
        self.cost_degree = self.order

    def extra_repr(self) -> str:
        """Show the order."""
        return f"order={self.order:g}"

    def between_gaussians(self, q: Gaussian, p: Gaussian) -> Tensor | None:
        """Return the cost of the best plan at orders 2 and, where the covariances or the line allow it, 1."""
        if self.order == 2:
            return gaussians.wasserstein2_squared(q, p)
        return gaussians.wasserstein1(q, p) if self.order == 1 else None

    def on_a_line(self, line: Line) -> Tensor:
        r"""Return :math:`\int|F_q-F_p|` (Vallender 1974) at order 1.

        Raises:
            NotImplementedError: another order.
        """
        name = type(self).__name__
        if self.order != 1:
            raise NotImplementedError(
                f"{name} of order {self.order:g} has no exact value for these laws on the line, which needs their "
                "quantiles: discretise both to points with log-weights, or take order 1"
            )
        return line.integral(lambda x: line.gap(x).abs(), name)

    def ground_cost(self, squared: Tensor) -> Tensor:
        r"""Return :math:`|x-y|^r`, elementwise."""
        return power(squared, self.order)


class Wasserstein1D(TransportCost):
    r"""The r-th power of the Wasserstein distance of two laws on the line, exact on clouds with any weights.

    .. math:: W_r^r(q,p) = \int_0^1 |F_q^{-1}(u)-F_p^{-1}(u)|^r\,du

    (Villani, "Topics in optimal transportation", 2003, theorem 2.18), in (unit of the data)**r: time
    O((N+M) log(N+M)), memory O(N+M). Its slopes in points and weights are exact wherever no two points of one cloud
    coincide and no two levels of the distribution functions do; elsewhere one of the subgradients. The clouds may
    differ in size. On samples it is biased upward by the sampling error of both.

    The primal is for points of one coordinate: the data's own, or those of an embedding of dimension one
    (``auxiliary=embedded metric=projection``: *max-sliced* transport, Deshpande et al. 2019). The cost |x-y|^r is
    declared in any dimension, for ``auxiliary=transported``.

    Args:
        order: r >= 1.
        root: return :math:`W_r`, a distance in the unit of the data, in place of its power. It is not convex in q for
            r > 1, has no c-transform, and where the clouds coincide its slope is taken as zero.

    Raises:
        ValueError: an order below 1; at use, clouds of more than one coordinate, or as in every primal on clouds.
    """

    largest_dimension = 1

    def __init__(self, order: float = 2.0, root: bool = False) -> None:
        super().__init__(order)
        self.root = root
        self.has_ground_cost = self.convex_in_q = not root or order == 1
        if root:
            self.cost_degree = 1.0

    def extra_repr(self) -> str:
        """Show order and root."""
        return f"{super().extra_repr()}, root={self.root}"

    def between_gaussians(self, q: Gaussian, p: Gaussian) -> Tensor | None:
        """Return the distance or its power at orders 1 and 2 on the line."""
        cost = super().between_gaussians(q, p) if len(q.mean) == 1 else None
        return _root(cost, self.order) if self.root and cost is not None else cost

    def primal(self, q: WeightedPoints, law: Any, p: WeightedPoints | None) -> Tensor:
        """Return the distance or its power, shape (), from both particle clouds."""
        x, y, a, b = clouds("Wasserstein1D", q, p)
        if x.shape[1] != 1:
            raise ValueError(
                f"Wasserstein1D compares laws on the line, got points of {x.shape[1]} coordinates: use "
                "SlicedWasserstein or OptimalTransport, or embed them in one dimension"
            )
        equal = q.log_weights is None and p.log_weights is None  # type: ignore[union-attr]  # clouds() checked p
        cost = line_transport(x[:, 0], y[:, 0], self.order, None if equal else (a, b))
        return (_root(cost, self.order) if self.root else cost).to(common_type(q, p))


def line_transport(x: Tensor, y: Tensor, order: float, weights: tuple[Tensor, Tensor] | None = None) -> Tensor:
    r"""Return :math:`W_r^r` along the last axis, shape (\*).

    Args:
        x: points on lines, shape (\*, N).
        y: points on the same lines, shape (\*, M).
        order: r.
        weights: a, shape (N,), and b, shape (M,), each of sum one; None for equal ones.
    """
    x, x_order = x.sort(-1)
    y, y_order = y.sort(-1)
    if weights is None and x.shape[-1] == y.shape[-1]:
        return power((x - y).square(), order).mean(-1)
    a, b = weights or (x.new_full(x.shape[-1:], 1 / x.shape[-1]), y.new_full(y.shape[-1:], 1 / y.shape[-1]))
    # Between two neighbouring levels of either distribution function both quantiles are constant.
    f, g = a[x_order].cumsum(-1), b[y_order].cumsum(-1)
    levels = torch.cat([f, g], -1).detach().sort(-1).values
    widths = torch.diff(levels, dim=-1, prepend=torch.zeros_like(levels[..., :1]))
    gap = _quantiles(x, f, levels) - _quantiles(y, g, levels)
    cost = (widths * power(gap.square(), order)).sum(-1)
    if weights is None:
        return cost
    return cost + _in_levels(f, x, g, y, order) + _in_levels(g, y, f, x, order)


def _in_levels(f: Tensor, x: Tensor, g: Tensor, y: Tensor, order: float) -> Tensor:
    r"""Return zero with the slope of :math:`W_r^r` in the levels f of the sorted points x: the Kantorovich potential's.

    Where :math:`f_i` rises, mass that went from :math:`x_{i+1}` to the y at this level goes from :math:`x_i`. Where g
    has a level there too (as everywhere if both clouds have as many points of equal weight) there are two such y, below
    and above the level, each with a solution of the dual; the mean of both is one, and prefers neither cloud.
    """
    tie = 32 * torch.finfo(f.dtype).eps  # of levels that are equal but for the rounding of weights and sums
    slope: Tensor | float = 0.0
    for level in (f.detach() - tie, f.detach() + tie):
        other = _quantiles(y, g, level)[..., :-1]
        here, above = (power((points - other).square(), order) for points in (x[..., :-1], x[..., 1:]))
        slope = slope + (here - above) / 2
    last = power((x[..., -1] - y[..., -1]).square(), order) / 2  # half of it for the other cloud's mass
    moved = f - f.detach()
    return (slope * moved[..., :-1]).sum(-1) + last * moved[..., -1]


def _quantiles(x: Tensor, f: Tensor, levels: Tensor) -> Tensor:
    """Return the first of the sorted points at which the distribution function reaches each level."""
    index = torch.searchsorted(f.detach(), levels)
    # The two sums of weights may differ in their last digit; the levels between them are an interval of that width.
    return x.gather(-1, index.clamp(max=x.shape[-1] - 1))


def power(squared: Tensor, order: float) -> Tensor:
    r"""Return :math:`s^{r/2}` elementwise, whose slope at zero is zero (at r = 1: a subgradient of the distance)."""
    return squared if order == 2 else root(squared) if order == 1 else root(squared) ** order


def _root(cost: Tensor, order: float) -> Tensor:
    """Return the r-th root, with slope zero at zero."""
    return torch.where(cost > 0, torch.where(cost > 0, cost, 1.0) ** (1 / order), 0.0)
