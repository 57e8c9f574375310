"""Laws of one real number, and the rule by which integrals over them are found, placed by means, scales, supports."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MixtureSameFamily

from divergences.quadrature import integrate

REACH = 45.0
"""Quadrature runs over x = c + s sinh(t), |t| <= 45: to 1e19 scales of either law, so that no tail is cut."""


class Line(NamedTuple):
    """Two laws of real numbers and the rule they are integrated by.

    Attributes:
        log_q: log-density of q, elementwise; -inf outside its support.
        log_p: that of p.
        cdf_q: distribution function of q, elementwise; refuses where the law has none.
        cdf_p: that of p.
        breaks: increasing arguments t at which densities may bend or jump, shape (K,).
        point: x as a function of t; its derivative is ``jacobian``.
        jacobian: dx/dt.
    """

    log_q: Callable[[Tensor], Tensor]
    log_p: Callable[[Tensor], Tensor]
    cdf_q: Callable[[Tensor], Tensor]
    cdf_p: Callable[[Tensor], Tensor]
    breaks: Tensor
    point: Callable[[Tensor], Tensor]
    jacobian: Callable[[Tensor], Tensor]

    def gap(self, x: Tensor) -> Tensor:
        """Return the difference of the distribution functions, zero where only rounding is left of it.

        Raises:
            NotImplementedError: torch has no ``cdf`` for a law.
        """
        try:
            gap = self.cdf_q(x) - self.cdf_p(x)
        except NotImplementedError:
            raise NotImplementedError(
                "a law has no distribution function (`cdf`) in torch.distributions: discretise both laws to points"
            ) from None
        return torch.where(gap.abs() <= 2**-50, 0.0, gap)

    def integral(self, f: Callable[[Tensor], Tensor], what: str) -> Tensor:
        r"""Return :math:`\int f(x)\,dx` to 1e-8 of :math:`\int|f|`, or refuse.

        Raises:
            NotImplementedError: the rule's own estimate of its error is larger, or f is not finite.
        """

        def over_t(t: Tensor) -> Tensor:
            return f(self.point(t)) * self.jacobian(t)

        value, error, size = integrate(over_t, self.breaks)
        # What is left at the ends, where an integral that diverges by its tails is still large.
        error += float(over_t(self.breaks[[0, -1]]).abs().sum()) if size < torch.inf else 0.0
        if not error <= 1e-8 * max(size, 1e-3):
            raise NotImplementedError(
                f"{what}: quadrature does not settle (value {value:.6g}, error {error:.2g}): the integral may be "
                "infinite, or a law has features this rule cannot see; discretise both to points with weights"
            )
        return torch.tensor(value, dtype=torch.float64)


def shown(law: Any) -> str:
    """Return a law as messages name it."""
    event = tuple(getattr(law, "event_shape", ()))
    batch = tuple(getattr(law, "batch_shape", ()))
    return f"{type(law).__name__} (event shape {event}{f', batch shape {batch}' if batch else ''})"


def is_line(law: Any) -> bool:
    """Whether a law has a density on the real line (event shape () or (1,), no batch axes)."""
    if not isinstance(law, Distribution) or law.batch_shape:
        return False
    try:
        counts = law.support.is_discrete  # type: ignore[union-attr]
    except (NotImplementedError, AttributeError):  # a law of a user's that says nothing
        counts = False
    return not counts and law.event_shape.numel() == 1 and len(law.event_shape) <= 1


def line(q: Any, p: Any, name: str) -> Line:
    """Return two laws on the line with the rule that resolves both; refuse laws whose mass the rule does not find."""
    for law in (q, p):
        try:
            _features(law), law.support.check(law.mean)
        except (NotImplementedError, AttributeError) as error:
            raise NotImplementedError(
                f"{name}: torch.distributions knows no mean, standard deviation or support of {shown(law)}, by which "
                "the quadrature is placed; discretise both laws to points with log-weights, or estimate from samples"
            ) from error
    q, p = in_double(q), in_double(p)
    centres, scales, edges = (torch.cat(parts) for parts in zip(_features(q), _features(p), strict=True))
    if not bool(torch.isfinite(torch.cat([centres, scales])).all()):
        raise NotImplementedError(f"{name}: {shown(q)} or {shown(p)} has no finite mean, loc or scale to place a rule")
    middle, unit = centres.mean(), scales.max()
    around = torch.tensor([0.0, 1.0, 6.0, 40.0], dtype=torch.float64)
    around = torch.cat([-around, around])
    marks = torch.cat([(centres[:, None] + scales[:, None] * around).flatten(), edges[edges.isfinite()]])
    ends = torch.tensor([-REACH, -5.0, 0.0, 5.0, REACH], dtype=torch.float64)
    breaks = torch.unique(torch.cat([ends, torch.asinh((marks - middle) / unit).clamp(-REACH, REACH)]))
    edges = edges[edges.isfinite()]
    where = torch.asinh((edges - middle) / unit)

    def point(t: Tensor) -> Tensor:
        x = middle + unit * torch.sinh(t)
        # A node beside an end of a support may be rounded onto or over it, where a density is infinite or gone: there
        # its distance from the end is taken from t, and is never zero.
        for edge, at in zip(edges, where, strict=True):
            step = torch.where(t == at, 2.0**-53 * at.abs().clamp(min=1e-3), t - at)
            beside = edge + unit * torch.cosh(at) * step
            sides = [torch.nextafter(edge, torch.tensor(side, dtype=torch.float64)) for side in (-torch.inf, torch.inf)]
            beside = torch.where(step < 0, torch.minimum(beside, sides[0]), torch.maximum(beside, sides[1]))
            x = torch.where(step.abs() < 1e-9, beside, x)
        return x

    found = Line(
        partial(_log_density, q), partial(_log_density, p), partial(_cdf, q), partial(_cdf, p),
        breaks, point, lambda t: unit * torch.cosh(t),
    )  # fmt: skip
    for symbol, law in (("q", q), ("p", p)):
        mass = float(found.integral(partial(_density, law), f"{name}, mass of {symbol}"))
        if not abs(mass - 1) <= 1e-6:
            raise NotImplementedError(
                f"{name}: the rule finds a mass of {mass:.6g} for {symbol} in place of 1: its density has features "
                "that its mean, deviation and support do not show; discretise it to points with log-weights"
            )
    return found


def in_double(law: Any) -> Any:
    """Return a copy of a distribution with its parameters in float64 (its normaliser is otherwise off by 1e-8)."""
    twin = copy.copy(law)
    for name, value in vars(law).items():
        if isinstance(value, Tensor) and value.is_floating_point():
            vars(twin)[name] = value.double()
        elif isinstance(value, Distribution):
            vars(twin)[name] = in_double(value)
    return twin


def _features(law: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return where a law has its mass (centres, scales) and where its density may jump (ends of supports)."""
    if isinstance(law, (MixtureSameFamily, Independent)):
        return _features(law.component_distribution if isinstance(law, MixtureSameFamily) else law.base_dist)
    finite = law.mean.isfinite() & law.stddev.isfinite()  # Cauchy's are not
    centre = law.mean if bool(finite.all()) else getattr(law, "loc", law.mean)
    scale = law.stddev if bool(finite.all()) else getattr(law, "scale", law.stddev)
    ends = [getattr(law.support, side, None) for side in ("lower_bound", "upper_bound")]
    edges = [torch.as_tensor(e, dtype=torch.float64).reshape(-1) for e in ends if e is not None]
    flat = [t.detach().double().reshape(-1) for t in torch.broadcast_tensors(centre, scale)]
    return flat[0], flat[1], torch.cat(edges) if edges else flat[0][:0]


def _log_density(law: Any, x: Tensor) -> Tensor:
    """Return the log-density at real numbers x, shape (N,) (or with the batch axes of a component); -inf outside."""
    if isinstance(law, MixtureSameFamily):
        parts = _log_density(law.component_distribution, x.unsqueeze(-1))
        return torch.logsumexp(parts + law.mixture_distribution.logits.double().log_softmax(-1), -1)
    if isinstance(law, Independent):
        parts = _log_density(law.base_dist, x.unsqueeze(-1))
        return parts.squeeze(-1) if law.reinterpreted_batch_ndims else parts
    inside = law.support.check(x)
    anchor = torch.where(law.mean.isfinite(), law.mean, getattr(law, "loc", law.mean)).double()
    x = torch.where(inside, x, anchor)  # never evaluated where the density is not defined
    point = x.unsqueeze(-1) if law.event_shape else x
    return torch.where(inside, law.log_prob(point).double(), -torch.inf)


def _density(law: Any, x: Tensor) -> Tensor:
    return _log_density(law, x).exp()


def _cdf(law: Any, x: Tensor) -> Tensor:
    """Return the distribution function at real numbers x, shape (N,)."""
    if isinstance(law, MixtureSameFamily):
        parts = _cdf(law.component_distribution, x.unsqueeze(-1))
        return (parts * law.mixture_distribution.logits.double().softmax(-1)).sum(-1)
    if isinstance(law, Independent):
        return _cdf(law.base_dist, x.unsqueeze(-1)).squeeze(-1)
    inside = law.support.check(x)
    low = getattr(law.support, "lower_bound", None)
    below = torch.zeros_like(inside) if low is None else x < low
    anchor = torch.where(law.mean.isfinite(), law.mean, getattr(law, "loc", law.mean)).double()
    value = law.cdf(torch.where(inside, x, anchor)).double()
    return torch.where(inside, value, torch.where(below, 0.0, 1.0).double())
