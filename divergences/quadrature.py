"""Adaptive Gauss-Legendre quadrature of a function of one real number, with an estimate of its error."""

from __future__ import annotations

from collections.abc import Callable

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

NODES, WEIGHTS = (torch.tensor(part, dtype=torch.float64) for part in leggauss(15))
LEVELS = 60
"""Halvings of a panel: a jump at a point that is no break is cornered to 1e-18 of the first panel."""
LARGEST = 200_000
"""Panels at one level beyond which the function is given up."""


@torch.no_grad()
def integrate(f: Callable[[Tensor], Tensor], breaks: Tensor, tolerance: float = 1e-11) -> tuple[float, float, float]:
    r"""Return :math:`\int f`, an estimate of its error, and :math:`\int|f|`, between the first and the last break.

    An f that is +inf anywhere (and NaN nowhere) has the integral +inf.

    Panels are halved until the 15-point rule on a panel and on its halves agree to the tolerance (times the integral
    of :math:`|f|`) or to rounding; the sum of what they differ by is the estimate, inf where f is not finite. It is an
    estimate of the coarser rule's error, hence generous: 15 points are exact to degree 29.

    Args:
        f: elementwise, float64.
        breaks: increasing arguments, shape (K,): f is smooth between them, or is halved until its kinks do not matter.
        tolerance: relative to the integral of :math:`|f|`.
    """
    left, right = breaks[:-1], breaks[1:]
    coarse, size = _panels(f, left, right)
    total = error = settled = 0.0
    for _ in range(LEVELS):
        middle = (left + right) / 2
        halves = [_panels(f, left, middle), _panels(f, middle, right)]
        fine, weight = halves[0][0] + halves[1][0], halves[0][1] + halves[1][1]
        gap = (fine - coarse).abs()
        scale = settled + float(weight.sum())
        # A panel may err by its share in length, so that all together stay within the tolerance.
        share = ((right - left) / (breaks[-1] - breaks[0])).clamp(min=1e-4)
        done = (gap <= tolerance * scale * share) | (gap <= 1e-14 * weight)
        total, error = total + float(fine[done].sum()), error + float(gap[done].sum())
        settled += float(weight[done].sum())
        if bool(done.all()):
            return total, error, settled
        todo = ~done
        if bool((fine[todo] == torch.inf).any()) and not bool(fine[todo].isnan().any()):
            return torch.inf, 0.0, torch.inf
        if 2 * int(todo.sum()) > LARGEST or not bool(torch.isfinite(fine[todo]).all()):
            break
        left, right = torch.cat([left[todo], middle[todo]]), torch.cat([middle[todo], right[todo]])
        coarse = torch.cat([halves[0][0][todo], halves[1][0][todo]])
    rest = ~done
    gap_left = float(gap[rest].sum())
    error += gap_left if gap_left == gap_left else torch.inf
    return total + float(fine[rest].sum()), error, settled + float(weight[rest].sum())


def _panels(f: Callable[[Tensor], Tensor], left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return the 15-point rule for f and for its absolute value on every panel, shape (K,) each."""
    half = (right - left) / 2
    values = f(((left + right)[:, None] / 2 + half[:, None] * NODES).flatten()).reshape(-1, len(NODES))
    return half * (values @ WEIGHTS), half * (values.abs() @ WEIGHTS)
