r"""Figures of a trained critic: its values and slopes where the samples are, and the weights that make p_theta into q.

Everything is in the units of the data and in float64 beyond the networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]
FEW = 3.0
"""Samples within a bandwidth below which a kernel estimate says nothing."""
CHUNK = 2**22
"""Distances that are computed together."""


def slopes(f: Function, x: Tensor) -> Tensor:
    r"""Return :math:`\nabla_x f`, shape (n, d), of a function that treats its points one by one, (n, d) to (n,)."""
    with torch.enable_grad():
        points = x.detach().clone().requires_grad_()
        values = f(points)
        if not values.requires_grad:  # a function without slope, as far as torch knows
            return torch.zeros_like(x)
        (found,) = torch.autograd.grad(values.sum(), points, allow_unused=True, materialize_grads=True)
    return found.detach().double()


def steepest(f: Function, data: Tensor, samples: Tensor, seed: int = 0) -> float:
    r"""Return the largest :math:`|\nabla f|` found on data, on samples and at points between them: at most Lip(f).

    Args:
        f: (n, d) to (n,).
        data: shape (n, d).
        samples: shape (n, d); each is joined with a point of the data, at a place drawn uniformly.
        seed: of these places.
    """
    n = min(len(data), len(samples))
    place = torch.rand(n, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(data)
    between = data[:n] + place * (samples[:n] - data[:n])
    found = slopes(f, torch.cat([data, samples, between])).norm(dim=1)
    finite = found[torch.isfinite(found)]
    return float(finite.max()) if len(finite) else math.nan


def effective_size(log_weights: Tensor) -> float:
    r"""Return Kish's effective sample size :math:`(\sum_i w_i)^2 / \sum_i w_i^2` of weights given by their logarithms.

    Kish, "Survey Sampling", 1965: n where all are equal, 1 where one outweighs the others.
    """
    w = log_weights.double()
    return float(torch.exp(2 * torch.logsumexp(w, 0) - torch.logsumexp(2 * w, 0)))


class Histogram(NamedTuple):
    """Shares of values between edges; what lies beyond the last edge is counted in the last bar."""

    edges: Tensor
    shares: Tensor


def histogram(values: Tensor, bars: int = 40, reach: float = 0.995) -> Histogram:
    """Return the histogram of finite values from the least to their quantile ``reach``; their shares sum to one."""
    values = values[torch.isfinite(values)].double()
    low, high = float(values.min()), float(values.quantile(reach))
    if not high > low:
        low, high = low - 0.5, low + 0.5
    edges = torch.linspace(low, high, bars + 1, dtype=torch.float64)
    place = ((values - low) / (high - low) * bars).long().clamp(0, bars - 1)
    return Histogram(edges, torch.bincount(place, minlength=bars).double() / len(values))


def kernel_log_density(samples: Tensor, x: Tensor) -> Tensor:
    r"""Return the log of a Gaussian kernel estimate of the samples' density at x; NaN where hardly a sample lies.

    Args:
        samples: shape (n, d).
        x: shape (m, d).

    The bandwidth in each coordinate is a third of Scott's :math:`s_i\,n^{-1/(d+4)}`, which would wash out narrow modes.
    """
    n, d = samples.shape
    width = (samples.std(0).clamp(min=1e-9) * n ** (-1 / (d + 4)) / 3).double()
    scaled, out = samples.double() / width, []
    for part in x.double().split(max(1, CHUNK // n)):
        square = torch.cdist(part / width, scaled, compute_mode="donot_use_mm_for_euclid_dist").square()
        out.append(torch.logsumexp(-0.5 * square, 1))
    total = torch.cat(out)
    log_density = total - math.log(n) - d / 2 * math.log(2 * math.pi) - float(width.log().sum())
    return torch.where(total < math.log(FEW), torch.nan, log_density)


class Arrows(NamedTuple):
    """Line segments, shape (k, 4) as x, y, x2, y2: shafts and both sides of their heads."""

    segments: Tensor


def arrows(points: Tensor, field: Tensor, longest: float) -> Arrows:
    """Return arrows of a vector field in the plane.

    Args:
        points: where they start, shape (n, 2).
        field: shape (n, 2); one that is not finite, or zero, has no arrow.
        longest: length of the arrow at the 95th percentile of lengths; longer ones are cut to one and a half of it.
    """
    size = field.norm(dim=1)
    good = torch.isfinite(size) & (size > 0) & torch.isfinite(points).all(1)
    points, field, size = points[good].double(), field[good].double(), size[good].double()
    if not len(points):
        return Arrows(torch.zeros(0, 4, dtype=torch.float64))
    length = (size / size.quantile(0.95) * longest).clamp(max=1.5 * longest)
    step = field / size[:, None] * length[:, None]
    tip = points + step
    sides = []
    for angle in (2.6, -2.6):  # radians off the direction of the arrow, so the head points forward
        turn = torch.tensor(
            [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]], dtype=torch.float64
        )
        sides.append(torch.cat([tip, tip + 0.35 * step @ turn], 1))
    return Arrows(torch.cat([torch.cat([points, tip], 1), *sides]))
