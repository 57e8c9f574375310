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
from divergences.limits import limit_at_zero
from divergences.roots import EPS, FAR, Scores, Table, multiplier, readable, scores

LIMIT = 20.0
"""|v| up to which the generic form is evaluated: beyond, u h'(u) - h(u) cancels more than 1e-6 in float64."""


EXTREME = 300.0
"""|log(q/p)| up to which :meth:`FDivergence.integrand` evaluates h: squares of e^300 are numbers."""
NEGLIGIBLE = 1e-20
"""Integrand that cannot count beside a mass of one."""


class FDivergence(Divergence):
    r"""Generic f-divergence of a generator h, in nats.

    Args:
        h: the generator, from a tensor u >= 0 to a tensor of the same shape, elementwise; smooth, convex.
        value_at_identity: h(1).
        supremum: :math:`h'(\infty)`. By default it is measured: finite where h' agrees to 1e-6 at the last two of
            u = e^(5/8), e^(5/4), ..., e^640 that float64 can evaluate, which a tail that falls like a power
            :math:`u^{-c}` does from c = 0.05 on. Declare it for slower ones: dual_probability bounds lambda by it.

    Raises:
        ValueError: on a grid of :math:`u\in[e^{-20}, e^{20}]` h is not a number or not convex, or h' jumps inside
            :math:`[e^{-15}, e^{15}]`, or h is linear near 1; or h(1) is not the declared value; or h does not keep the
            shape of u.
    """

    sources: tuple[str, ...] = ("nguyen2010estimating", "nowozin2016fgan")
    has_dual = True
    critic_reads = "log_ratio"
    supremum: float = torch.inf
    """h'(inf), the upper end of the domain of h*."""

    def __init__(
        self, h: Callable[[Tensor], Tensor], value_at_identity: float = 0.0, supremum: float | None = None
    ) -> None:
        super().__init__()
        self.h = h
        self.value_at_identity = value_at_identity
        v = torch.linspace(-LIMIT, LIMIT, 4001, dtype=torch.float64)
        self._require_numbers(v)
        at_one = float(h(torch.ones((), dtype=torch.float64)))
        if not abs(at_one - value_at_identity) < 1e-9:
            raise ValueError(
                f"the generator {self.generator_name} has h(1) = {at_one:.6g}, expected {value_at_identity:g}: "
                "subtract the constant or declare value_at_identity"
            )
        slope = self.slope(v)
        rise = slope.diff()
        rounding = 64 * EPS / v[1:].exp().clamp(max=1)  # a derivative through log u rounds like 1/u
        falls = rise < -(1e-9 + rounding) * slope.abs()[1:].clamp(min=1)
        if bool(falls.any()):
            first = int(torch.where(falls, v[1:].abs(), torch.inf).argmin())  # nearest to u = 1, where data is
            raise ValueError(
                f"the generator {self.generator_name} is not convex: h' falls at u = {float(v[1 + first].exp()):.3g}"
            )
        self._require_smooth(v[500:-500:20], slope[500:-500:20])
        self.supremum = float(supremum if supremum is not None else self._measured_supremum())

    def _require_numbers(self, v: Tensor) -> None:
        """Refuse an h of another shape, or without a value: NaN anywhere, or h' without one where h is no overflow."""
        h = self.h(v.exp())
        if not (isinstance(h, Tensor) and h.shape == v.shape):
            got = tuple(h.shape) if isinstance(h, Tensor) else type(h).__name__
            raise ValueError(
                f"the generator {self.generator_name} returned {got} for u of shape {tuple(v.shape)}: it must act on "
                "every element of a tensor"
            )
        wrong = h.isnan() | (h == -torch.inf) | (~self.slope(v).isfinite() & (h < 1e150))
        if bool(wrong.any()):
            at = float(v[wrong][v[wrong].abs().argmin()].exp())
            raise ValueError(f"the generator {self.generator_name} or its derivative is not a number at u = {at:.3g}")

    def _require_smooth(self, v: Tensor, slope: Tensor) -> None:
        """Refuse an h with a kink or a linear piece: there h'(e^v) is no function of v, or has no gradient."""
        low, high, s_low, s_high = v[:-1], v[1:], slope[:-1], slope[1:]
        for _ in range(35):  # halve towards the steeper half: the rise of a smooth h' falls to 3e-12 of its derivative
            middle = (low + high) / 2
            s = self.slope(middle)
            left = s - s_low > s_high - s
            low, high = torch.where(left, low, middle), torch.where(left, middle, high)
            s_low, s_high = torch.where(left, s_low, s), torch.where(left, s, s_high)
        jump = ((s_high - s_low) / (s_high.abs() + s_low.abs()).clamp(min=1)).nan_to_num(nan=0.0)  # inf - inf
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

    def _measured_supremum(self) -> float:
        """Return h'(inf): infinite unless h' has settled as far out as it can be evaluated.

        That is as far as it is finite and does not fall: an overflow inside h may hide in a finite number.
        """
        far = self.slope(5 * 2 ** torch.arange(-3, 8, dtype=torch.float64))
        falls = ~(far.diff() >= -1e-9 * far[1:].abs().clamp(min=1)) | ~far[1:].isfinite()
        reach = int(torch.cat([falls, torch.tensor([True])]).int().argmax())
        before, last = float(far[max(reach - 1, 0)]), float(far[reach])
        return last if reach and abs(last - before) <= 1e-6 * max(1.0, abs(last)) else torch.inf

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

    def slope(self, s: Tensor) -> Tensor:
        """Return h'(e^s) in the type of s, for any s."""
        return self._h_and_slope(s.exp())[1]

    def _h_and_slope(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return h and h', elementwise: in reverse, because torch runs the tangents of scalars' sums in Python."""
        h, pull = torch.func.vjp(self.h, u)[:2]
        return h, pull(torch.ones_like(u))[0]

    def _u_h_slope(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return u = e^v, h(u) and h'(u) in float64; refuse v where the generic form is not right."""
        w = v.double()
        outside = w.abs() > LIMIT
        if not readable(w):  # mark instead
            w = torch.where(outside, torch.nan, w)
        elif bool(outside.any()):
            raise ValueError(
                f"the generic form of {self.generator_name} is right for |v| <= {LIMIT:g}, got v = "
                f"{float(w.detach()[outside].flatten()[0]):.4g}: bound or regularise the critic, or write stable forms"
            )
        u = w.exp()
        h, slope = self._h_and_slope(u)
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

    @torch.no_grad()
    def inverse_link(self, t: Tensor) -> Tensor:
        r"""Return :math:`s` with :math:`h'(e^s) = t`, without a gradient; -inf below h'(e^-40), +inf above h'(e^40)."""
        return Table(self.slope, t.device).exactly(t.double()).to(t.dtype)

    # The dual over probability q.

    @torch.no_grad()
    def normaliser(self, t: Tensor, p: WeightedPoints) -> Tensor:
        r"""Return the :math:`\lambda` at which :math:`q^* = p\,(h^*)'(t - \lambda)` has mass one, shape ().

        Args:
            t: :math:`f/\beta` at p's particles, shape (N,), float64.
            p: the particles.
        """
        table = Table(self.slope, t.device)

        def search(inverse: Callable[[Tensor], Tensor]) -> Tensor:
            return multiplier(lambda x: p.mean(inverse(t - x).exp()).log(), self.slope, t, p)

        found, visible = search(table.roughly), readable(t)
        # Newton on the logarithm of the mass, with one slope, by differences: an error e becomes 1e-4 e or less.
        step = 1e-4
        s = table.roughly(t - found)
        s, inside = s.clamp(min=-FAR, max=FAR), s.isfinite()
        curvature = (self.slope(s + step) - self.slope(s - step)) / (2 * step)
        u = torch.where(inside, s.exp(), 0.0)
        stiffness = p.mean(u) / p.mean(torch.where(inside, u / curvature, 0.0))
        for _ in range(5):
            log_mass = p.mean(table.exactly(t - found).exp()).log()
            found = found + log_mass * stiffness
            if visible and bool(log_mass.abs() < 1e-9):
                return found
        return search(table.exactly) if visible else found  # an h that is rough on the scale of the table

    def inner_normalised(self, v: Tensor, p: WeightedPoints, v_data: Tensor | None = None) -> InnerSolution:
        r"""Solve over probability q: :math:`D^*_p = \lambda + \mathbb E_p[u\,(t-\lambda) - h(u)]`, u = dq*/dp.

        By the envelope theorem u and lambda are constants in the gradient. In second derivatives they are not:
        :math:`\delta u = r\,(\delta t - \delta\lambda)`, :math:`r = (h^*)''(t-\lambda)`, with lambda moving so that
        the mass stays one. A quadratic term of value and gradient zero holds them, half of

        .. math::
            \mathbb E_p[r\,\delta t^2] - (\delta\,\mathbb E_p u + \mathbb E_p[r\,\delta t])^2 / \mathbb E_p r .

        Where h'(inf) is finite, q may put mass off p at finite cost, so
        :math:`\lambda \ge \sup f/\beta - h'(\infty)` over the data as well as p's particles; when that bound is
        active the rest of the mass sits at the supremum and enters D as mass times h'(inf).
        """
        return self.over_probabilities(scores(self.link, self.slope, self.supremum, v, p, v_data), p, v.dtype)

    def over_probabilities(self, of: Scores, p: WeightedPoints, dtype: torch.dtype) -> InnerSolution:
        r"""Do what :meth:`inner_normalised` does, at scores f/beta made by any link; the conjugate is of ``dtype``."""
        t, origin, floor = of
        found = self.normaliser(t.detach(), p)
        active = floor > found
        lagrange = torch.where(active, floor, found)
        log_tilt = self.inverse_link((t - lagrange).detach())
        u, rate = log_tilt.exp(), self.rate(log_tilt)
        h = self.h(u.clamp(min=math.exp(-FAR)) if type(self) is FDivergence else u)  # u log u at 0 is NaN in most hands
        moved = t - t.detach() - (lagrange - lagrange.detach())
        excess = p.mean(u) + p.mean(rate * moved)
        excess = torch.where(active, 0.0, excess - excess.detach())
        stiffness = torch.where(active, 1.0, p.mean(rate))
        second = (p.mean(rate * moved.square()) - excess.square() / stiffness) / 2
        divergence, rest = p.mean(h), torch.where(active, 1 - p.mean(u), 0.0)
        if self.supremum < torch.inf:
            divergence = divergence + rest * self.supremum
        return InnerSolution(
            conjugate=(origin + lagrange + p.mean(u * (t - lagrange) - h) + second).to(dtype),
            divergence=divergence,
            link_q=origin + p.mean(u * t.detach()),
            log_tilt=log_tilt,
            multiplier=origin + lagrange + excess / stiffness,
        )

    @torch.no_grad()
    def rate(self, log_tilt: Tensor) -> Tensor:
        r"""Return :math:`(h^*)'' = du/dt = e^s/\ell'(s)`, 0 where q* is 0."""
        there = log_tilt.isfinite()
        s = torch.where(there, log_tilt, 0.0)
        curvature = torch.func.vjp(self.slope, s)[1](torch.ones_like(s))[0]
        return torch.where(there, s.exp() / curvature, 0.0)
