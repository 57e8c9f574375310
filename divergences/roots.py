r"""One-dimensional equations: Chandrupatla's bracketed root, and the bracket of the multiplier over probability q."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from divergences.base import WeightedPoints

EPS = 2.0**-52
"""Spacing of float64 at one."""
FAR = 40.0
"""|log u| up to which links are inverted: e^-40 is below the spacing of float64 at one."""
MOST = 200
"""Steps after which a search ends whose noise keeps it from converging; halving alone needs 60."""


def readable(x: Tensor) -> bool:
    """Return whether Python may decide by the values of x: not under torch.func, nor while torch.compile traces."""
    return not (torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(x))


@torch.compiler.disable  # a search that ends by what it finds is no graph; the rest around it still compiles
def root(
    f: Callable[[Tensor], Tensor],
    low: Tensor,
    high: Tensor,
    at_low: Tensor,
    at_high: Tensor,
    steps: int,
    noise: float = 0.0,
    unit: float = 0.0,
) -> Tensor:
    """Return where an increasing f vanishes between low and high, elementwise (Chandrupatla 1997).

    Inverse quadratic interpolation through the last three points where it is safe, halving where it is not: no
    derivative is asked for, and infinite values of f are only told by their sign. It ends when every bracket has the
    width of a rounding; where values cannot be read, after a fixed number of steps.

    Args:
        f: elementwise, increasing.
        low: ends with f <= 0, in float64.
        high: ends with f >= 0.
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
    visible = readable(low)
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
        done = (error <= noise) | (width <= 2 * resolution)
        if visible and bool(done.all()):
            break
        xi, phi = (a - b) / (c - b), (f_a - f_b) / (f_c - f_b)
        fits = (phi.square() < xi) & ((1 - phi).square() < 1 - xi)
        curve = f_a / (f_b - f_a) * f_c / (f_b - f_c) + (c - a) / (b - a) * f_a / (f_c - f_a) * f_b / (f_c - f_b)
        least = (resolution / width.clamp(min=resolution)).clamp(max=0.5)
        t = torch.where(fits, torch.maximum(torch.minimum(curve, 1 - least), least), 0.5)
    return best


def multiplier(
    log_mass: Callable[[Tensor], Tensor], link: Callable[[Tensor], Tensor], t: Tensor, p: WeightedPoints, steps: int
) -> Tensor:
    r"""Return the :math:`\lambda` at which :math:`q^* = p\,e^s`, :math:`\ell(s) = t - \lambda`, has mass one, shape ().

    The bracket: dq*/dp >= 1 everywhere at :math:`\min t - \ell(0)` and <= 1 everywhere at :math:`\max t - \ell(0)`; and
    no particle of weight w carries more than everything, so that :math:`\lambda \ge t_i - \ell(-\log w_i)`, which is
    close however far down the other scores reach.

    Args:
        log_mass: the logarithm of the mass as a function of lambda, decreasing.
        link: :math:`\ell`.
        t: :math:`f/\beta` at p's particles, shape (N,), float64.
        p: the particles.
        steps: see :func:`root`.
    """
    log_weights = -torch.full_like(t, len(t)).log() if p.log_weights is None else p.log_weights.to(t.dtype)
    at_one = link(torch.zeros_like(t[0]))
    high = t.max() - at_one
    alone = torch.where(log_weights >= -FAR, t - link(-log_weights.clamp(min=-FAR)), -torch.inf)
    low = torch.maximum(t.min() - at_one, alone.max())
    low = torch.minimum(low, high)
    return root(lambda x: -log_mass(x), low, high, -log_mass(low), -log_mass(high), steps, noise=2 * EPS)


def from_supremum(
    link: Callable[[Tensor], Tensor], v: Tensor, v_data: Tensor | None, supremum: float
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return f/beta counted from its supremum over p and the data, that origin, and the least multiplier allowed.

    :math:`D^*_p(t + c) = D^*_p(t) + c`, and a multiplier of the size of a large t would be too coarse for the mass.

    Args:
        link: :math:`\ell`, of critic outputs.
        v: critic outputs at p's particles, shape (N,).
        v_data: critic outputs on data, shape (M,), where q may put mass as well at the price h'(inf) per unit.
        supremum: h'(inf); where it is infinite q stays on p, and the least multiplier is minus infinity.
    """
    t = link(v).double()
    top = t.max()
    if v_data is not None and supremum < torch.inf:
        top = torch.maximum(top, link(v_data).double().max())
    origin = top.detach()
    return t - origin, origin, top - origin - supremum
