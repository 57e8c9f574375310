r"""One-dimensional equations: Chandrupatla's bracketed root, and the bracket of the multiplier over probability q."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from divergences.base import WeightedPoints

EPS = 2.0**-52
"""Spacing of float64 at one."""
FAR = 40.0
"""|log u| up to which links are inverted: e^-40 is below the spacing of float64 at one."""
NODES = 8001
"""Nodes of a table of a link, a hundredth of log u apart."""
MOST = 200
"""Steps after which a search ends whose noise keeps it from converging; halving alone needs 60."""


def readable(x: Tensor) -> bool:
    """Return whether Python may decide by values of x: not under ``torch.func.vmap``, nor while a graph is traced."""
    if torch.compiler.is_compiling():
        return False
    try:
        bool(x.detach().isnan().any())
    except RuntimeError:  # so it is said by tensors that stand for many, or for none yet
        return False
    return True


@torch.compiler.disable  # a search that ends by what it finds is no graph; the rest around it still compiles
def root(
    f: Callable[[Tensor], Tensor],
    low: Tensor,
    high: Tensor,
    at_low: Tensor,
    at_high: Tensor,
    steps: int,
    noise: float | Tensor = 0.0,
    unit: float = 0.0,
) -> Tensor:
    """Return where an increasing f vanishes between low and high, elementwise (Chandrupatla 1997).

    Inverse quadratic interpolation through the last three points where it is safe, halving where it is not: no
    derivative is asked for, and infinite values of f are only told by their sign. It ends when every bracket has the
    width of a rounding; where values cannot be read, after a fixed number of steps.

    Args:
        f: elementwise, increasing.
        low: ends with f <= 0, in float64; where rounding has f > 0 already, the root is there.
        high: ends with f >= 0, likewise.
        at_low: f there.
        at_high: f there.
        steps: how many to take where convergence cannot be read; smooth f need 6 inside a narrow bracket.
        noise: |f| that counts as zero.
        unit: |x| below which roundings of x are counted as those of this.
    """
    a, f_a, b, f_b = low, at_low, high, at_high
    secant = f_a / (f_a - f_b)
    t = torch.where((secant > 0) & (secant < 1), secant, 0.5)
    best = torch.where(f_a.abs() < f_b.abs(), a, b)
    outside, visible = (at_low >= 0) | (at_high <= 0), readable(low)
    for _ in range(MOST if visible else steps):
        x = a + t * (b - a)
        f_x = f(x)
        same = torch.sign(f_x) == torch.sign(f_a)
        c, f_c = torch.where(same, a, b), torch.where(same, f_a, f_b)
        b, f_b = torch.where(same, b, a), torch.where(same, f_b, f_a)
        a, f_a = x, f_x
        closer = f_a.abs() < f_b.abs()
        best, error = torch.where(closer, a, b), torch.where(closer, f_a, f_b).abs()
        resolution = 2 * EPS * best.abs().clamp(min=max(unit, 1e-290))
        width = (b - a).abs()
        done = outside | (error <= noise) | (width <= 2 * resolution)
        if visible and bool(done.all()):
            break
        xi, phi = (a - b) / (c - b), (f_a - f_b) / (f_c - f_b)
        fits = (phi.square() < xi) & ((1 - phi).square() < 1 - xi)
        curve = f_a / (f_b - f_a) * f_c / (f_b - f_c) + (c - a) / (b - a) * f_a / (f_c - f_a) * f_b / (f_c - f_b)
        least = (resolution / width.clamp(min=resolution)).clamp(max=0.5)
        t = torch.where(fits, torch.maximum(torch.minimum(curve, 1 - least), least), 0.5)
    return torch.where(at_low >= 0, low, torch.where(at_high <= 0, high, best))


class Table:
    r"""An increasing link :math:`\ell(s)` on a grid of :math:`|s| \le 40`, to be inverted.

    Args:
        link: the link, elementwise; where it is not a number it counts as infinite.
        device: where.
    """

    def __init__(self, link: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self.link = link
        self.s = torch.linspace(-FAR, FAR, NODES, dtype=torch.float64, device=device)
        values = link(self.s)
        values = torch.where(values.isnan(), self.s.sign() * torch.inf, values)
        self.values = values.cummax(0).values  # where it saturates, rounding may fall

    def cell(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the nodes on both sides of t and the excess of the link over t there."""
        right = torch.searchsorted(self.values, t.contiguous()).clamp(1, NODES - 1)
        return self.s[right - 1], self.s[right], self.values[right - 1] - t, self.values[right] - t

    def roughly(self, t: Tensor) -> Tensor:
        """Return the inverse interpolated linearly: to 1e-4 of u for a link smooth on the scale of log u."""
        low, high, at_low, at_high = self.cell(t)
        inside = at_high.isfinite() & at_low.isfinite() & (at_high > at_low)
        share = torch.where(inside, -at_low / torch.where(inside, at_high - at_low, 1.0), 0.5)
        return self._or_end(low + share * (high - low), at_low, at_high)

    def exactly(self, t: Tensor) -> Tensor:
        """Return the inverse to rounding."""
        low, high, at_low, at_high = self.cell(t)
        rise = at_high - at_low  # over a hundredth: 1e-13 of it is 1e-15 of s
        noise = torch.where(rise < torch.inf, 1e-13 * rise + 2 * EPS * t.abs(), 0.0)
        s = root(lambda s: self.link(s) - t, low, high, at_low, at_high, steps=8, noise=noise, unit=1.0)
        return self._or_end(s, at_low, at_high)

    @staticmethod
    def _or_end(s: Tensor, at_low: Tensor, at_high: Tensor) -> Tensor:
        return torch.where(at_low > 0, -torch.inf, torch.where(at_high < 0, torch.inf, s))


def least_multiplier(link: Callable[[Tensor], Tensor], t: Tensor, p: WeightedPoints) -> Tensor:
    r"""Return a lower bound of the multiplier at which q has mass one, close however far the scores reach, shape ().

    At :math:`\min t - \ell(0)` dq*/dp >= 1 everywhere. And no particle of weight w carries more than everything:
    :math:`\lambda \ge t_i - \ell(-\log w_i)`.
    """
    log_weights = -torch.full_like(t, len(t)).log() if p.log_weights is None else p.log_weights.to(t.dtype)
    alone = torch.where(log_weights >= -FAR, t - link(-log_weights.clamp(min=-FAR)), -torch.inf)
    return torch.maximum(t.min() - link(torch.zeros_like(t[0])), alone.max())


def multiplier(
    log_mass: Callable[[Tensor], Tensor], link: Callable[[Tensor], Tensor], t: Tensor, p: WeightedPoints
) -> Tensor:
    r"""Return the :math:`\lambda` at which :math:`q^* = p\,e^s`, :math:`\ell(s) = t - \lambda`, has mass one, shape ().

    Args:
        log_mass: the logarithm of the mass as a function of lambda, decreasing.
        link: :math:`\ell`.
        t: :math:`f/\beta` at p's particles, shape (N,), float64.
        p: the particles.
    """
    high = t.max() - link(torch.zeros_like(t[0]))  # dq*/dp <= 1 everywhere
    low = torch.minimum(least_multiplier(link, t, p), high)
    return root(lambda x: -log_mass(x), low, high, -log_mass(low), -log_mass(high), steps=40, noise=2 * EPS)


class Scores(NamedTuple):
    r"""f/beta for the search of a multiplier.

    Attributes:
        t: at p's particles, counted from the origin, shape (N,), float64.
        origin: a constant; since :math:`D^*_p(t + c) = D^*_p(t) + c` it is added to the multiplier in the end.
        floor: the least multiplier that is allowed, from the origin: where h'(inf) is finite q may put mass off p.
    """

    t: Tensor
    origin: Tensor
    floor: Tensor


def scores(
    link: Callable[[Tensor], Tensor],
    any_link: Callable[[Tensor], Tensor],
    supremum: float,
    v: Tensor,
    p: WeightedPoints,
    v_data: Tensor | None,
) -> Scores:
    r"""Return f/beta counted from where its multiplier will be: one of the size of a large t would be too coarse.

    Args:
        link: :math:`\ell`, of critic outputs.
        any_link: the same, for any argument.
        supremum: h'(inf), the price of a unit of q's mass off p.
        v: critic outputs at p's particles, shape (N,).
        p: the particles.
        v_data: critic outputs on data, shape (M,), where q may put mass as well if the price is finite.
    """
    t = link(v).double()
    if supremum == torch.inf:
        origin = least_multiplier(any_link, t.detach(), p).detach()
        return Scores(t - origin, origin, torch.full_like(origin, -torch.inf))
    top = t.max() if v_data is None else torch.maximum(t.max(), link(v_data).double().max())
    return Scores(t - top.detach(), top.detach(), top - top.detach() - supremum)
