r"""The f-divergence family :math:`D_h(q\|p) = \mathbb E_p\,h(q/p)` from one generator h.

h is convex on :math:`u \ge 0` with h(1) = 0 (or a declared ``value_at_identity``). The canonical critic outputs v and
sets :math:`f = \beta h'(e^v)`, hence

.. math::
    \ell(v) = h'(e^v), \qquad h^*(\ell(v)) = e^v h'(e^v) - h(e^v), \qquad q^* = p\,e^v .

No conjugate is derived by hand, the optimum is :math:`v = \log(p_d/p)` for every smooth h, and a critic trained under
one divergence can be read under another. The generic form below differentiates h by ``torch.func``; rows with a stable
closed form override it (:mod:`divergences.generators`).

Over probability q the dual is :math:`D^*_p(t) = \inf_\lambda \lambda + \mathbb E_p h^*(t - \lambda)` (Ruderman et al.
2012; Agrawal and Horel 2021), attained where :math:`\mathbb E_p (h^*)'(t-\lambda) = 1`, i.e. where q* has mass one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from divergences.base import Divergence, InnerSolution, WeightedPoints
from divergences.limits import limit_at_zero, slope_at_infinity

LIMIT = 20.0
"""|v| up to which the generic form is evaluated: beyond, u h'(u) - h(u) cancels more than 1e-6 in float64."""
BISECTIONS = 100
"""Halvings of a bracket: enough to exhaust float64 from any width a finite critic can produce."""


EXTREME = 300.0
"""|log(q/p)| up to which :meth:`FDivergence.integrand` evaluates h: squares of e^300 are numbers."""
NEGLIGIBLE = 1e-20
"""Integrand that cannot count beside a mass of one."""


class FDivergence(Divergence):
    r"""Generic f-divergence of a generator h, in nats.

    Args:
        h: the generator, from a tensor u >= 0 to a tensor of the same shape; smooth, convex.
        value_at_identity: h(1).

    Raises:
        ValueError: h is not convex on a grid of :math:`u\in[e^{-10}, e^{10}]`, or h' jumps there, or h is linear near
            1, or h(1) is not the declared value.
    """

    has_dual = True
    critic_reads = "log_ratio"
    supremum: float = torch.inf
    """h'(inf), the upper end of the domain of h*."""

    def __init__(self, h: Callable[[Tensor], Tensor], value_at_identity: float = 0.0) -> None:
        super().__init__()
        self.h = h
        self.value_at_identity = value_at_identity
        if type(self) is FDivergence:
            self.supremum = slope_at_infinity(h)
        v = torch.linspace(-10, 10, 201, dtype=torch.float64)
        at_one, slope = float(h(torch.ones((), dtype=torch.float64))), self.link(v)
        if not abs(at_one - value_at_identity) < 1e-9:
            raise ValueError(
                f"the generator {self.generator_name} has h(1) = {at_one:.6g}, expected {value_at_identity:g}: "
                "subtract the constant or declare value_at_identity"
            )
        if not bool((slope.diff() > -1e-9 * slope.abs()[1:].clamp(min=1)).all()):
            at = float(v[1:][slope.diff().argmin()].exp())
            raise ValueError(f"the generator {self.generator_name} is not convex: h' falls near u = {at:.3g}")
        self._require_smooth(v, slope)

    def _require_smooth(self, v: Tensor, slope: Tensor) -> None:
        """Refuse an h with a kink or a linear piece: there h'(e^v) is no function of v, or has no gradient."""
        low, high, s_low, s_high = v[:-1], v[1:], slope[:-1], slope[1:]
        for _ in range(25):  # halve towards the steeper half: the rise of a smooth h' falls to 3e-9 of its derivative
            middle = (low + high) / 2
            s = self.link(middle)
            left = s - s_low > s_high - s
            low, high = torch.where(left, low, middle), torch.where(left, middle, high)
            s_low, s_high = torch.where(left, s_low, s), torch.where(left, s, s_high)
        jump = (s_high - s_low) / (s_high.abs() + s_low.abs()).clamp(min=1)
        if bool((jump > 1e-6).any()):
            at = float(low[jump.argmax()].exp())
            raise ValueError(
                f"the generator {self.generator_name} is not smooth: h' jumps near u = {at:.3g} "
                "(total variation has a class of its own, TotalVariation)"
            )
        flat = (slope.diff() == 0) & (v[1:].abs() <= 1)
        if bool(flat.any()):
            at = float(v[1:][flat][0].exp())
            raise ValueError(
                f"the generator {self.generator_name} is linear near u = {at:.3g}: a critic has no gradient there"
            )

    @property
    def generator_name(self) -> str:
        """Name of h for messages."""
        return getattr(self.h, "__qualname__", type(self).__name__)

    def extra_repr(self) -> str:
        """Show the generator when it is the user's."""
        return "" if type(self) is not FDivergence else f"h={self.generator_name}"

    def integrand(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        r"""Return :math:`p\,h(q/p)`, with its limits :math:`q\,h'(\infty)` where p = 0 and :math:`p\,h(0)` where q = 0.

        A ratio beyond :math:`e^{\pm300}` is priced at the limit too where that is finite; where it is not and what is
        there at :math:`e^{\pm300}` counts, the answer is NaN, which :meth:`exact` refuses: h is no float64 beyond.
        """
        v = torch.where(log_p == -torch.inf, torch.inf, log_q - log_p.clamp(min=-1e300))
        q, p, u = log_q.exp(), log_p.exp(), v.clamp(-EXTREME, EXTREME).exp()
        h = self.h(u)
        low, high = limit_at_zero(self.h), self.supremum
        below = low if math.isfinite(low) else torch.where(p * h.abs() < NEGLIGIBLE, h, torch.nan)
        above = high if math.isfinite(high) else torch.where(q * h.abs() / u < NEGLIGIBLE, h / u, torch.nan)
        below = torch.where(v == -torch.inf, low, torch.where(v < -EXTREME, below, h))
        above = torch.where(v == torch.inf, high, above)
        near, far = (v <= EXTREME) & (p > 0), (v > EXTREME) & (q > 0)
        # Masked before the products: what is not taken must not reach the gradient as 0 times NaN either.
        return p * torch.where(near, below, 0.0) + q * torch.where(far, above, 0.0)

    # The dual, generic: in float64, because u h'(u) - h(u) cancels.

    def _u_h_slope(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return u = e^v, h(u) and h'(u) in float64; refuse v where the generic form is not right."""
        w = v.double()
        outside = w.abs() > LIMIT
        if torch._C._functorch.is_functorch_wrapped_tensor(w):  # a value cannot be read under vmap: mark it instead
            w = torch.where(outside, torch.nan, w)
        elif bool(outside.any()):
            raise ValueError(
                f"the generic form of {self.generator_name} is right for |v| <= {LIMIT:g}, got v = "
                f"{float(w.detach()[outside].flatten()[0]):.4g}: bound or regularise the critic, or write stable forms"
            )
        u = w.exp()
        h, slope = torch.func.jvp(self.h, (u,), (torch.ones_like(u),))[:2]
        return u, h, slope

    def value(self, v: Tensor) -> Tensor:
        r"""Return :math:`h(e^v)`."""
        return self._u_h_slope(v)[1].to(v.dtype)

    def link(self, v: Tensor) -> Tensor:
        r"""Return :math:`h'(e^v)`."""
        return self._u_h_slope(v)[2].to(v.dtype)

    def conjugate(self, v: Tensor) -> Tensor:
        r"""Return :math:`h^*(h'(e^v)) = e^v h'(e^v) - h(e^v)`."""
        u, h, slope = self._u_h_slope(v)
        return (u * slope - h).to(v.dtype)

    def inverse_link(self, t: Tensor) -> Tensor:
        r"""Return :math:`s` with :math:`h'(e^s) = t`, by bisection; -inf below the range of h', +inf above it."""
        low, high = torch.full_like(t, -LIMIT), torch.full_like(t, LIMIT)
        s_low, s_high = low, high
        for _ in range(60):  # 40 / 2^60 is below the spacing of float64 at 1
            middle = (low + high) / 2
            below = self.link(middle) < t
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        s = torch.where(t < self.link(s_low), -torch.inf, (low + high) / 2)
        return torch.where(t > self.link(s_high), torch.inf, s)

    # The dual over probability q.

    @torch.no_grad()
    def normaliser(self, t: Tensor, p: WeightedPoints) -> Tensor:
        r"""Return the :math:`\lambda` at which :math:`q^* = p\,(h^*)'(t - \lambda)` has mass one, by bisection.

        Args:
            t: :math:`f/\beta` at p's particles, shape (N,), float64.
            p: the particles.
        """
        at_one = self.link(torch.zeros((), dtype=t.dtype, device=t.device))
        low, high = t.min() - at_one, t.max() - at_one  # dq*/dp >= 1 everywhere, dq*/dp <= 1 everywhere
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            heavy = p.mean(self.inverse_link(t - middle).exp()) > 1
            low, high = torch.where(heavy, middle, low), torch.where(heavy, high, middle)
        return high

    def inner_normalised(self, v: Tensor, p: WeightedPoints, v_data: Tensor | None = None) -> InnerSolution:
        r"""Solve over probability q: :math:`D^*_p = \lambda + \mathbb E_p[u\,(t-\lambda) - h(u)]`, u = dq*/dp.

        By the envelope theorem u and lambda are constants for the players. Where h'(inf) is finite, q may put mass off
        p at finite cost, so :math:`\lambda \ge \sup f/\beta - h'(\infty)` over the data as well as p's particles; when
        that bound is active the rest of the mass sits at the supremum and enters D as mass times h'(inf).

        Everything is counted from the supremum, since :math:`D^*_p(t + c) = D^*_p(t) + c`: a multiplier of the size of
        a large t would be too coarse for the mass.
        """
        t = self.link(v).double()
        top = t.max()
        if v_data is not None and self.supremum < torch.inf:
            top = torch.maximum(top, self.link(v_data).double().max())
        origin = top.detach()
        t = t - origin
        multiplier = self.normaliser(t.detach(), p)
        if self.supremum < torch.inf:
            floor = top - origin - self.supremum
            active = floor > multiplier
            multiplier = torch.where(active, floor, multiplier)
        log_tilt = self.inverse_link((t - multiplier).detach())
        u = log_tilt.exp()
        h = self.h(u)
        divergence = p.mean(h)
        if self.supremum < torch.inf:
            rest = torch.where(active, 1 - p.mean(u), 0.0)
            divergence = divergence + rest * self.supremum
        return InnerSolution(
            conjugate=(origin + multiplier + p.mean(u * (t - multiplier) - h)).to(v.dtype),
            divergence=divergence,
            link_q=origin + p.mean(u * t.detach()),
            log_tilt=log_tilt,
            multiplier=origin + multiplier.detach(),
        )
