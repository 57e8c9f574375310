r"""Estimates of D from samples, and of the dual's bound from critic outputs, each with a standard error.

The standard error is that of the *infinitesimal jackknife* (Jaeckel 1972; Efron 1982, "The jackknife, the bootstrap and
other resampling plans", chapter 6): a statistic T of weights w on independent points moves by
:math:`\sum_i w_i\,\phi_i` to first order, :math:`\phi_i=\partial T/\partial w_i`, so

.. math:: \mathrm{se}^2 = \sum_i w_i^2\,(\phi_i-\bar\phi)^2, \qquad \bar\phi=\sum_iw_i\phi_i,

summed over both samples. For kernels :math:`\phi` is twice the witness, for transport the potentials: where a program
has several, as on the line where levels of both clouds coincide, one that is feasible, so that the error is right for
clouds of equal size too. Where q and p differ it lies within 20 % of the spread of repeats from two dozen points a side
on (a law of :func:`divergences.checks.check_divergence`). Where q = p the first order vanishes; for kernels the formula
then gives the root of twice the variance (both are second order in the same spectrum), for transport 1.3 to 1.5 times
the spread: it errs to the safe side. A sample of a single point shows no spread, and adds nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from divergences.exact import Points

if TYPE_CHECKING:
    from divergences.base import Divergence


class Estimate(NamedTuple):
    """A statistic of samples.

    Attributes:
        value: shape ().
        standard_error: of the value, shape (); inf where a dual's bound rests on so few points that none can be told
            (:func:`tail`).
        bias: ``"0"``, ``"+O(1/n)"`` (upward, n the smaller sample), or ``"unknown"``.
    """

    value: Tensor
    standard_error: Tensor
    bias: str


def from_samples(
    divergence: Divergence, x: Tensor, y: Tensor, weights_x: Tensor | None, weights_y: Tensor | None
) -> Estimate:
    """Return the primal on two samples; see :meth:`divergences.Divergence.estimate`."""
    name = type(divergence).__name__
    if divergence.surrogate or divergence.primal_needs != "samples":
        if divergence.primal_needs == "log_prob":
            instead = "it needs the model's log_prob: use `primal` with the law, or `exact`"
        elif divergence.has_dual and not divergence.surrogate:
            instead = "samples alone carry no density ratio: use `bound` with a critic's outputs, or `exact`"
        else:
            instead = "there is no D of two samples here"
        raise NotImplementedError(f"{name} cannot be estimated from samples alone: {instead}")
    x, y = _points(name, "x", x), _points(name, "y", y)
    w_x, w_y = (_normalised(name, *pair) for pair in (("x", x, weights_x), ("y", y, weights_y)))
    with torch.enable_grad():
        leaves = [w.detach().requires_grad_() for w in (w_x, w_y)]
        value = divergence.primal(Points(x.detach(), leaves[0].log()), None, Points(y.detach(), leaves[1].log()))
        slopes = torch.autograd.grad(value, leaves)
    return Estimate(value.detach(), _standard_error((w_x, w_y), slopes), divergence.sample_bias or "unknown")


def from_critic(divergence: Divergence, v_data: Tensor, v_model: Tensor, normalised: bool) -> Estimate:
    """Return the dual's bound; see :meth:`divergences.Divergence.bound`."""
    name = type(divergence).__name__
    if divergence.surrogate or not divergence.has_dual:
        instead = "it is a surrogate and bounds no D" if divergence.surrogate else "use `estimate` or `primal`"
        raise NotImplementedError(f"{name} has no dual bound: {instead}")
    if normalised and not divergence.has_normalised_dual:
        raise NotImplementedError(f"{name} has no dual over probability q: take normalised=False")
    v_data, v_model = _points(name, "v_data", v_data), _points(name, "v_model", v_model)
    for symbol, v in (("v_data", v_data), ("v_model", v_model)):
        if v.ndim != 1 or len(v) == 0:
            raise ValueError(f"{name}.bound takes critic outputs of shape (N,), got {symbol} of shape {tuple(v.shape)}")
    v_data, v_model = v_data.detach().double(), v_model.detach().double()
    w_data, w_model = (_normalised(name, "v", v, None) for v in (v_data, v_model))
    with torch.enable_grad():
        leaves = [w.detach().requires_grad_() for w in (w_data, w_model)]
        p = Points(v_model[:, None], leaves[1].log())
        if normalised:
            conjugate = divergence.inner_normalised(v_model, p, v_data).conjugate
        else:
            conjugate = divergence.mean_conjugate(v_model, p)
        value = leaves[0] @ divergence.link(v_data) - conjugate
        slopes = torch.autograd.grad(value, leaves)
    additive = divergence.additive_dual and not normalised
    error = _standard_error((w_data, w_model), slopes)
    if not tail(divergence, v_data, v_model)[1]:
        error = torch.full_like(error, torch.inf)
    return Estimate(value.detach(), error, "0" if additive else "+O(1/n)")


FEW, SHARE = 200.0, 0.25
"""Effective points, and share of the sample, below which a standard error says nothing."""
FAR = 18.0
"""|v| at which it is looked whether an integrand grows exponentially: e^18 is above 1e6."""


def tail(divergence: Divergence, v_data: Tensor, v_model: Tensor) -> tuple[float, bool]:
    r"""Return the effective sample size of the dual's exponential integrands, and whether a standard error holds.

    Where the conjugate grows as e^v (KL, Pearson, ...) its mean under p rests on few points: with v the log-ratio of
    KL D nats the variance of e^v is of order :math:`e^{2D}` or more, and what the sample has not met is missing from
    value and standard error alike (McAllester and Stratos, "Formal limitations on the measurement of mutual
    information", 2020). The size is Kish's :math:`(\sum u)^2/\sum u^2` with u = e^v on p's points; where the link falls
    as :math:`-e^{-v}` (reverse KL, Neyman) with e^-v on data. Below :data:`FEW` points, and :data:`SHARE` of the
    sample, a standard error says nothing. Measured for KL's bound at the optimal v, 4,096 points in 20 dimensions: of
    60 repeats 2, 10, 30, 47 and 73 % lay two standard errors above D = 0.5, 2, 4, 6, 10 nats.

    Args:
        divergence: D, with a dual.
        v_data: critic outputs on data, shape (N,).
        v_model: critic outputs on p's points, shape (M,).
    """
    ends = torch.tensor([-FAR, FAR], dtype=torch.float64)
    found = []
    if divergence.critic_reads == "log_ratio":
        sides = ((divergence.conjugate if divergence.additive_dual else torch.exp)(ends)[1], v_model.double())
        low = (divergence.link(ends)[0], -v_data.double())
        found = [(_kish(v), len(v)) for at, v in (sides, low) if not abs(float(at)) < 1e6]
    smallest = min((size for size, _ in found), default=float(min(len(v_data), len(v_model))))
    return smallest, all(size >= min(FEW, SHARE * n) for size, n in found)


def _kish(v: Tensor) -> float:
    return float((2 * v.logsumexp(0) - (2 * v).logsumexp(0)).exp())


def _points(name: str, symbol: str, x: Any) -> Tensor:
    """Return points as a tensor of floats: whole numbers are points too.

    Raises:
        TypeError: it is no tensor, or one without values in their places (sparse, nested).
        ValueError: its numbers are not real.
    """
    if not isinstance(x, Tensor) or x.is_sparse or x.is_nested:
        kind = f"a {'sparse' if x.is_sparse else 'nested'} tensor" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        remedy = f"{symbol}.to_dense()" if isinstance(x, Tensor) else f"torch.as_tensor({symbol})"
        raise TypeError(f"{name} takes tensors of shape (N, *E), got {kind} for {symbol}: write {remedy}")
    if x.is_complex():
        raise ValueError(f"{name} takes real numbers, got {x.dtype} for {symbol}")
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def _normalised(name: str, symbol: str, points: Tensor, weights: Tensor | None) -> Tensor:
    """Return weights of mass one for points, shape (N,)."""
    n = len(points)
    if weights is None:
        return points.new_full((n,), 1.0 / max(n, 1))
    if weights.shape != (n,) or not bool((weights > 0).all() & weights.isfinite().all()):
        raise ValueError(
            f"{name}.estimate takes one positive weight per point, shape ({n},), for {symbol}; got shape "
            f"{tuple(weights.shape)}: leave out points of weight zero"
        )
    return weights.detach() / weights.detach().sum()


def _standard_error(weights: tuple[Tensor, Tensor], slopes: tuple[Tensor, ...]) -> Tensor:
    """Return the infinitesimal jackknife's standard error from weights and influences of both samples."""
    parts = [(w * (s - w @ s)).square().sum() for w, s in zip(weights, slopes, strict=True)]
    return (parts[0] + parts[1]).sqrt()
