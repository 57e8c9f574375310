r"""Spline flows: couplings that move a coordinate along a monotone rational-quadratic spline."""

from __future__ import annotations

from math import log
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.arguments import checked_at_least
from models.flows import CouplingFlow, Support
from models.networks import Activation

# Durkan et al.'s least width and height of a bin, as a share of the box, and least derivative at a knot.
MIN_SIZE = 1e-3
MIN_SLOPE = 1e-3
# softplus(0) = log(2) / beta = 1 - MIN_SLOPE: the number 0 stands for the derivative 1.
_SOFTNESS = log(2) / (1 - MIN_SLOPE)


class Bins(NamedTuple):
    """The bins that hold a batch of coordinates, in a box that begins at 0; every field has shape (m, N).

    Attributes:
        left: left edge.
        bottom: lower edge.
        width: width.
        height: height.
        slope_0: derivative at the left knot.
        slope_1: derivative at the right knot.
    """

    left: Tensor
    bottom: Tensor
    width: Tensor
    height: Tensor
    slope_0: Tensor
    slope_1: Tensor


def find_bins(numbers: Tensor, place: Tensor, axis: int, box: float) -> Bins:
    """Return the bins that hold the coordinates.

    Every look-up is a product with a mask: a comparison with the knots gives the mask of the bins before the one
    sought, its differences the one-hot mask of the bin itself. These masks carry no gradient and need no index, and no
    number stands for the derivatives at the ends of the box: a sum of nothing, 0, is the derivative 1 of the tails.

    Args:
        numbers: what a conditioner returned, shape (3 K - 1, m, N): K of the widths, K of the heights, K - 1 of the
            derivatives at inner knots.
        place: coordinates in [0, box], shape (m, N).
        axis: 0 to look them up among the widths, 1 among the heights.
        box: width and height of the box.
    """
    bins = (len(numbers) + 1) // 3
    of_sizes, of_slopes = numbers.split((2 * bins, bins - 1))
    # A size is unit (softmax + least), which sums to the box.
    unit, least = box * (1 - bins * MIN_SIZE), MIN_SIZE / (1 - bins * MIN_SIZE)
    sizes = of_sizes.reshape(2, bins, *place.shape).softmax(1) + least
    passed = (place.detach() >= unit * sizes.detach()[axis, :-1].cumsum(0)).to(place.dtype)
    passed = torch.cat((torch.ones_like(place)[None], passed, torch.zeros_like(place)[None]))  # (K + 1, m, N)
    before, after = passed[1:], 1 - passed[:-1]
    low, gap = (sizes * (unit * torch.stack((before, after))[:, None])).sum(2)
    size = (box - gap) - low  # so the last bin ends where the box does, to the last digit
    here = passed[:-1] - passed[1:]
    slopes = (of_slopes * torch.stack((here[1:], here[:-1]))).sum(1)
    return Bins(*low.unbind(), *size.unbind(), *(F.softplus(slopes, _SOFTNESS) + MIN_SLOPE).unbind())


def within(t: Tensor) -> Tensor:
    """Return t without what rounding has put outside [0, 1]; the gradient stays that of t."""
    return t + (t.clamp(0, 1) - t).detach()


def rise_and_log_slope(t: Tensor, u: Tensor, mean: Tensor, bins: Bins) -> tuple[Tensor, Tensor]:
    r"""Return how far up its bin the spline is, in [0, 1], and its log-derivative.

    With t in [0, 1] the way across the bin, u = 1 - t, s the mean slope height / width, and :math:`d_0,d_1` the
    derivatives at the knots,

    .. math::
        A=su+d_1t,\quad B=st+d_0u,\qquad \rho=\frac{tB}{tB+uA},\qquad y'=s^2\,\frac{tA+uB}{(tB+uA)^2}.

    This is Durkan et al.'s eqs. (4) and (5) as sums of positive terms: nothing cancels, whatever the derivatives.

    Args:
        t: shape (m, N).
        u: shape (m, N).
        mean: s, shape (m, N).
        bins: the bins.
    """
    # Products and sums rather than addcmul and quotients: their backward passes are shorter.
    a, b = mean * u + bins.slope_1 * t, mean * t + bins.slope_0 * u
    rise = t * b
    inverse = (rise + u * a).reciprocal()
    scale = mean * inverse
    return rise * inverse, ((t * a + u * b) * (scale * scale)).log()


def checked_spline(bins: int, bound: float) -> None:
    """Refuse a number of bins or a box that no spline has.

    Raises:
        ValueError: see above.
    """
    checked_at_least("bins", bins, 2)
    if not bins * MIN_SIZE < 1:
        raise ValueError(f"bins must be below {1 / MIN_SIZE:g}, the inverse of the least width, got {bins}; use 8")
    if not 0 < bound < float("inf"):
        raise ValueError(f"bound must be positive and finite, got {bound}; use 5.0 for standardised data")


def pull_spline(numbers: Tensor, x: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Return the splines of ``numbers``, (3 K - 1, m, N), at x, (m, N), on [-bound, bound], and the log-derivatives.

    What a coordinate exceeds the box by is added after it.
    """
    place = F.hardtanh(x, -bound, bound) + bound  # a clamp, with a shorter backward pass
    bins = find_bins(numbers, place, 0, 2 * bound)
    t = within((place - bins.left) / bins.width)
    rise, log_slope = rise_and_log_slope(t, 1 - t, bins.height / bins.width, bins)
    return bins.bottom + bins.height * rise + (x - place), log_slope


def push_spline(numbers: Tensor, z: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Invert :func:`pull_spline`; the log-derivatives are those of the inverse."""
    bins, mean, t, u, beyond = _solved(numbers, z, bound)
    _, log_slope = rise_and_log_slope(t, u, mean, bins)
    return bins.left + bins.width * t + beyond, -log_slope


def _solved(numbers: Tensor, z: Tensor, bound: float) -> tuple[Bins, Tensor, Tensor, Tensor, Tensor]:
    r"""Return the bins, s, t and u of the inverse, and what z exceeds the box by.

    With v the way up the bin, w = 1 - v, and r = t / u, :math:`swr^2+qr-sv=0`, :math:`q=wd_0-vd_1`. Its positive root
    is :math:`r=2sv/(q+R)=(R-q)/(2sw)`, :math:`R=\sqrt{q^2+4s^2vw}`; the form without a difference is taken.
    """
    place = F.hardtanh(z, -bound, bound) + bound
    bins = find_bins(numbers, place, 1, 2 * bound)
    mean = bins.height / bins.width
    v = within((place - bins.bottom) / bins.height)
    w = 1 - v
    q = w * bins.slope_0 - v * bins.slope_1
    v, w = 2 * mean * v, 2 * mean * w
    large = (q * q + v * w).sqrt() + q.abs()
    forward = q >= 0
    across, rest = torch.where(forward, v, large), torch.where(forward, large, w)
    per_total = (across + rest).reciprocal()
    return bins, mean, across * per_total, rest * per_total, z - place


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
        whiten: start at the Gaussian of the first batch, see :class:`CouplingFlow`.

    Raises:
        ValueError: one-dimensional data, or a hyperparameter out of range.
    """

    sources: tuple[str, ...] = ("durkan2019neural",)

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
        whiten: bool = False,
    ) -> None:
        checked_spline(bins, bound)
        super().__init__(
            event_shape, 3 * bins - 1, couplings, width, depth, activation, bound, support, classes, whiten
        )
        self.bound = bound

    def pull_coordinate(self, numbers: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate the spline; what a coordinate exceeds the box by is added after it."""
        return pull_spline(numbers, x, self.bound)

    def push_coordinate(self, numbers: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Invert the spline."""
        return push_spline(numbers, z, self.bound)

    def carry_coordinate(self, numbers: Tensor, z: Tensor) -> Tensor:
        """Invert the spline without its slope."""
        bins, _, t, _, beyond = _solved(numbers, z, self.bound)
        return bins.left + bins.width * t + beyond
