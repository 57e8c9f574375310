r"""f-divergences over Lipschitz f, with the identity as link: the critic's output is f itself, not a log-ratio."""

from __future__ import annotations

import torch
from torch import Tensor

from divergences.base import Divergence, InnerSolution, WeightedPoints
from divergences.f_divergence import FDivergence
from divergences.limits import limit_at_zero
from divergences.programs import lipschitz_maximum
from divergences.roots import scores


class LipschitzRegularised(Divergence):
    r"""An f-divergence D, regularised by transport: its dual with f = v, over 1-Lipschitz v.

    .. math::
        D_L(q,p) = \inf_\eta D(\eta\|p) + W_1(q,\eta) = \max_{\|v\|_{Lip}\le1}\mathbb E_q v - \mathbb E_p h^*(v),

    the infimum over probabilities :math:`\eta`: mass of q is moved first, and what is left is compared with p. At most
    D and at most :math:`W_1`, and finite for laws without a common support. The best v is :math:`h'(d\eta/dp)` on p.

    The canonical link :math:`f=h'(e^v)` would not do: where v is 1-Lipschitz, f is not (for orders of alpha above one
    its slope has no bound), so the class of f would be that of v under no formula. Here f/beta is v. By the canonical
    forms of D, :math:`h^*(t)=h^*(\ell(s))` at :math:`s=\ell^{-1}(t)`, with slope :math:`e^s` and curvature
    :math:`e^s/\ell'(s)`, which derivatives up to the second see. Off the link's range :math:`h^*=-h(0)` below
    :math:`h'(0)`, where q* has no mass, and :math:`\infty` above :math:`h'(\infty)`. Where that supremum is finite (0
    for KL(p||q) and the GAN's) v has to stay below it: take D of superlinear growth (KL, alpha above one, Pearson), or
    ``auxiliary=dual_probability``, whose dual does not change when a constant is added to v.

    Distances are those of the space that the metric sees: standardised, where the data are. The value is in nats, and
    not multiplied by any power of a scale.

    Source: Birrell, Dupuis, Katsoulakis, Pantazis, Rey-Bellet, "(f, Gamma)-divergences: interpolating between
    f-divergences and integral probability metrics", JMLR 23 (2022), theorem 8.

    Args:
        of: D.

    Raises:
        ValueError: ``of`` is no smooth f-divergence.
    """

    sources: tuple[str, ...] = ("birrell2022fgamma",)
    has_dual = True
    critic_reads = "potential"
    needs_lipschitz = True
    link_slope = 1.0
    bounded_in_scale = True  # by D, where that is finite
    accuracy = 1e-6  # of the value on letters, by an iterative solver

    def __init__(self, of: FDivergence) -> None:
        super().__init__()
        if not isinstance(of, FDivergence):
            raise ValueError(f"LipschitzRegularised takes a smooth f-divergence, got {of}: take Alpha(order=2), say")
        self.of = of
        self.supremum = of.supremum
        self.value_at_identity = of.value_at_identity
        self.at_zero = limit_at_zero(of.h)  # finite wherever the range of the link has a lower end

    def link(self, v: Tensor) -> Tensor:
        """Return v: the critic's output is f/beta."""
        return v

    def inverse_link(self, t: Tensor) -> Tensor:
        """Return t."""
        return t

    @torch.no_grad()
    def log_tilt(self, v: Tensor) -> Tensor:
        r"""Return :math:`s=\log dq^*/dp` with :math:`\ell(s)=v`; -inf below the range of the link, inf above."""
        t = v.detach().double()
        s = self.of.inverse_link(t)
        return torch.where(t > self.supremum, torch.inf, s).to(v.dtype)

    def conjugate(self, v: Tensor) -> Tensor:
        r"""Return :math:`h^*(v)`."""
        t = v.double()
        s = self.log_tilt(t)
        there = s.isfinite() & s.exp().isfinite()
        at = torch.where(there, s, 0.0)
        outside = torch.where(s < 0, -self.at_zero, torch.inf)
        moved = t - t.detach()
        slope, curvature = (torch.where(there, t, 0.0) for t in (at.exp(), self.of.rate(s)))
        known = torch.where(there, self.of.conjugate(at).detach(), outside)
        return (known + slope * moved + curvature * moved.square() / 2).to(v.dtype)

    def value(self, v: Tensor) -> Tensor:
        r"""Return :math:`h(dq^*/dp)`."""
        s = self.log_tilt(v.double())
        there = s.isfinite()
        outside = torch.where(s < 0, self.at_zero, torch.inf)
        return torch.where(there, self.of.value(torch.where(there, s, 0.0)), outside).to(v.dtype)

    def inner_normalised(self, v: Tensor, p: WeightedPoints, v_data: Tensor | None = None) -> InnerSolution:
        r"""Solve :math:`\inf_\lambda\lambda+\mathbb E_p h^*(v-\lambda)`, as D does at its own link."""
        return self.of.over_probabilities(scores(self.link, self.of.slope, self.supremum, v, p, v_data), p, v.dtype)

    def between_letters(self, points: Tensor, log_q: Tensor, log_p: Tensor) -> Tensor:
        """Return the largest value of the dual over one score per letter, by a convex program; a number."""

        def integrand(v: Tensor) -> tuple[Tensor, Tensor]:
            return self.conjugate(v), self.log_tilt(v).exp()

        start = float(self.of.link(torch.zeros((), dtype=torch.float64)))
        return lipschitz_maximum(points, log_q.exp(), log_p.exp(), integrand, start, self.supremum)

    def extra_repr(self) -> str:
        """Show that the critic's output is f."""
        return "f = v"
