r"""Spline flows: couplings that move a coordinate along a monotone rational-quadratic spline."""

from __future__ import annotations

from math import expm1, log
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.base import checked_at_least
from models.flows import CouplingFlow, Support
from models.networks import Activation

# Durkan et al.'s least width and height of a bin, as a share of the box, and least derivative at a knot.
MIN_SIZE = 1e-3
MIN_SLOPE = 1e-3
# softplus(_SLOPE_SHIFT) = 1 - MIN_SLOPE: the number 0 stands for the derivative 1.
_SLOPE_SHIFT = log(expm1(1 - MIN_SLOPE))


class Bins(NamedTuple):
    """The bins that hold a batch of coordinates; shares of the box run from 0 to 1.

    Attributes:
        low: the left and the lower edge as shares of the box, shape (2, m, N).
        size: width and height as shares of the box, shape (2, m, N).
        slope: derivatives at both knots, over the mean slope height / width of the bin, shape (2, m, N).
    """

    low: Tensor
    size: Tensor
    slope: Tensor


def find_bins(numbers: Tensor, share: Tensor, axis: int) -> Bins:
    """Return the bins that hold the coordinates.

    Every sum over bins is a product with a mask: a comparison with the knots gives the mask of the bins to the left,
    its differences the one-hot mask of the bin itself. The mask knows no knots at the ends of the box, so the numbers
    of the derivatives there are sums of nothing: zero, which stands for the derivative 1 of the tails.

    Args:
        numbers: what a conditioner returned, shape (3 K - 1, m, N): K of the widths, K of the heights, K - 1 of the
            derivatives at inner knots.
        share: coordinates as shares of the box, in [0, 1], shape (m, N).
        axis: 0 to look them up among the widths, 1 among the heights.
    """
    bins = (len(numbers) + 1) // 3
    gain = 1 - bins * MIN_SIZE
    of_sizes, of_slopes = numbers.split((2 * bins, bins - 1))
    parts = of_sizes.unflatten(0, (2, bins)).softmax(1)
    least = torch.arange(1, bins, dtype=share.dtype, device=share.device)[:, None, None] * MIN_SIZE
    knots = torch.add(least, parts[axis, :-1].detach().cumsum(0), alpha=gain)
    left = (share >= knots).to(share.dtype)  # (K - 1, m, N): whether the bin lies left of the one sought
    here = torch.cat((torch.ones_like(left[:1]), left)) - torch.cat((left, torch.zeros_like(left[:1])))
    low = MIN_SIZE * left.sum(0) + gain * (parts[:, :-1] * left).sum(1)
    size = MIN_SIZE + gain * (parts * here).sum(1)
    slope = torch.stack(((of_slopes * here[1:]).sum(0), (of_slopes * here[:-1]).sum(0)))
    slope = MIN_SLOPE + F.softplus(slope + _SLOPE_SHIFT)
    return Bins(low, size, slope * (size[0] / size[1]))


def ratio_and_log_slope(t: Tensor, u: Tensor, bins: Bins) -> tuple[Tensor, Tensor]:
    r"""Return how far up its bin the spline is, in [0, 1], and its log-derivative.

    With :math:`t\in[0,1]` the way across the bin, u = 1 - t, and :math:`g_0,g_1` the derivatives at the knots over
    the mean slope s,

    .. math::
        A=u+g_1t,\quad B=t+g_0u,\qquad \rho=\frac{tB}{tB+uA},\qquad y'=s\,\frac{tA+uB}{(tB+uA)^2}.

    This is Durkan et al.'s eqs. (4) and (5) without differences: no cancellation, whatever the derivatives.

    Args:
        t: shape (m, N).
        u: shape (m, N).
        bins: the bins.
    """
    a, b = torch.addcmul(u, t, bins.slope[1]), torch.addcmul(t, u, bins.slope[0])
    rise = t * b
    total = torch.addcmul(rise, u, a)
    steepness = torch.addcmul(t * a, u, b) / (total.square() * (bins.size[0] / bins.size[1]))
    return rise / total, steepness.log()


class SplineFlow(CouplingFlow):
    r"""Neural spline flow: couplings by monotone rational-quadratic splines; it starts at N(0, I).

    A coordinate moves along a spline of K bins that maps [-B, B] to itself, with free widths, heights and inner
    derivatives; outside, it stays where it is.

    Source: Durkan, Bekasov, Murray, Papamakarios, "Neural spline flows", NeurIPS 2019.

    Args:
        event_shape: shape E of one example, prod(E) >= 2.
        couplings: number of couplings; at least 2, so that both halves move.
        width: units of a hidden layer of a conditioner.
        depth: hidden layers of a conditioner.
        activation: nonlinearity of a conditioner.
        bins: K.
        bound: B, which should exceed the data (after the learnt affine map at the data end, which starts at the
            identity) and the latent normal law; the input of a conditioner is clamped there, too.
        support: "real", or "unit" for data in the unit cube, see :class:`CouplingFlow`.
        classes: number of classes of the context; 0 for an unconditional model.

    Raises:
        ValueError: one-dimensional data, or a hyperparameter out of range.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        couplings: int = 8,
        width: int = 64,
        depth: int = 2,
        activation: Activation = "relu",
        bins: int = 8,
        bound: float = 5.0,
        support: Support = "real",
        classes: int = 0,
    ) -> None:
        checked_at_least("bins", bins, 2)
        if not bins * MIN_SIZE < 1:
            raise ValueError(f"bins must be below {1 / MIN_SIZE:g}, the inverse of the least width, got {bins}; use 8")
        if not 0 < bound < float("inf"):
            raise ValueError(f"bound must be positive and finite, got {bound}; use 5.0 for standardised data")
        super().__init__(event_shape, 3 * bins - 1, couplings, width, depth, activation, bound, support, classes)
        self.bound = bound

    def pull_coordinate(self, numbers: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate the spline; where a coordinate leaves the box, the rest of it is added after the spline."""
        inside = x.clamp(-self.bound, self.bound)
        share = inside * (0.5 / self.bound) + 0.5
        bins = find_bins(numbers, share, 0)
        t = (share - bins.low[0]) / bins.size[0]
        rho, log_slope = ratio_and_log_slope(t, 1 - t, bins)
        end = torch.addcmul(bins.low[1], bins.size[1], rho) - 0.5
        return torch.add(x - inside, end, alpha=2 * self.bound), log_slope

    def push_coordinate(self, numbers: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        r"""Invert the spline.

        With v the way up the bin, w = 1 - v, and r = t / u, :math:`w r^2+q r-v=0`, :math:`q=wg_0-vg_1`. Its positive
        root is :math:`r=2v/(q+R)=(R-q)/(2w)`, :math:`R=\sqrt{q^2+4vw}`; the form without a difference is taken.
        """
        inside = z.clamp(-self.bound, self.bound)
        share = inside * (0.5 / self.bound) + 0.5
        bins = find_bins(numbers, share, 1)
        v = (share - bins.low[1]) / bins.size[1]
        w = 1 - v
        q = w * bins.slope[0] - v * bins.slope[1]
        # v may leave [0, 1] by rounding; at the ends the root is |q| > 0.
        large = torch.addcmul(4 * (v * w).clamp(min=0), q, q).sqrt() + q.abs()
        forward = q >= 0
        above, below = torch.where(forward, 2 * v, large), torch.where(forward, large, 2 * w)
        total = above + below
        t, u = above / total, below / total
        log_slope = ratio_and_log_slope(t, u, bins)[1]
        end = torch.addcmul(bins.low[0], bins.size[0], t) - 0.5
        return torch.add(z - inside, end, alpha=2 * self.bound), -log_slope
