r"""The minimum over q as a convex conjugate: q = p e^v."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from divergences.base import Divergence, InnerSolution
from se_framework.equation.auxiliary.base import (
    Auxiliary,
    InnerProblem,
    Solution,
    jackknifed,
    needed_scores,
    scaled,
    target,
)
from se_framework.equation.roles import Role

OFF = 1e-6
"""Mass of a probability q off p's particles from which on H(q) is not known; below it lies what the root leaves."""


class Dual(Auxiliary):
    r"""alpha = 0: :math:`\min_q \beta D(q,p) - \mathbb E_q f = -\beta D^*_p(f/\beta)`, with :math:`f=\beta\,\ell(v)`.

    Args:
        normalised: q ranges over probability measures (for KL: Donsker-Varadhan) instead of unnormalised q >= 0 (NWJ,
            f-GAN). The bound is tighter and blind to constants in f, but not additive over a batch: its slopes are
            biased by O(1/N).
        jackknife: take that bias to O(1/N^2) in steps, see :func:`.base.jackknifed`; the record stays that of the
            particles' own q.

    Raises:
        ValueError: a jackknife over unnormalised q, whose dual is a mean and has no bias.
    """

    works_through = "has_dual"
    needs_alpha = False
    keeps_function_class = True
    takes_views = True
    minimum_name = "-beta D*_p(f/beta)"

    def __init__(self, normalised: bool = False, jackknife: bool = False) -> None:
        super().__init__()
        if jackknife and not normalised:
            raise ValueError("the dual over unnormalised q is a mean and has no bias: leave jackknife out")
        self.jackknife = jackknife
        self.normalised = self.needs_mass_one = self.minimum_reads_data = normalised
        self.free_mass = not normalised

    @property
    def sources(self) -> tuple[str, ...]:
        """Keys of references: of the dual over the q that it is over."""
        return ("ruderman2012tighter",) if self.normalised else ("nguyen2010estimating",)

    def extra_repr(self) -> str:
        """Show over which q the minimum is taken."""
        return "over probability q" if self.normalised else "over unnormalised q"

    def additive(self, divergence: Divergence) -> bool:
        """Whether the conjugate is a mean: over unnormalised q, where D says so."""
        return divergence.has_dual and divergence.additive_dual and not self.normalised

    def f(self, v: Tensor, divergence: Divergence, beta: float) -> Tensor:
        r"""Return :math:`\beta\,\ell(v)`."""
        return scaled(beta, divergence.link(v))

    def _inner(self, problem: InnerProblem) -> InnerSolution:
        v, p = needed_scores(problem)
        return (
            problem.divergence.inner_normalised(v, p, problem.v_data)
            if self.normalised
            else problem.divergence.inner(v, p)
        )

    def minimum(self, problem: InnerProblem, role: Role | None = None) -> Tensor:
        r"""Return :math:`-\beta D^*_p(\ell(v))`."""
        if self.jackknife and role is not None:
            return jackknifed(self.minimum, problem)
        if self.normalised:
            return -scaled(problem.beta, self._inner(problem).conjugate)
        return -scaled(problem.beta, problem.divergence.mean_conjugate(*needed_scores(problem)))

    def values(self, problem: InnerProblem) -> Tensor | None:
        r"""Return :math:`-\beta h^*(\ell(v))`, where the conjugate is a mean over examples."""
        if self.normalised or not problem.divergence.additive_dual:
            return None
        return -problem.beta * problem.divergence.conjugate(needed_scores(problem)[0])

    def solve(self, problem: InnerProblem) -> Solution:
        """Return D(q*, p) and E_q* f of q* = p e^v (or of its normalised form)."""
        if problem.divergence.surrogate:  # not the conjugate of a D: there is no q, only the two players' losses
            return Solution(self.minimum(problem), None, None, None)
        inner, (_, p) = self._inner(problem), needed_scores(problem)
        entropy, u = None, inner.log_tilt.exp()
        # Over probability q, where h'(inf) is finite, mass may sit at the best score, off p: its entropy has no number.
        whole = not self.normalised or float(p.mean(u).detach()) > 1 - OFF
        if p.log_prob is not None and whole:
            entropy = -p.mean(torch.where(u == 0, 0.0, u * (inner.log_tilt + p.log_prob)))  # 0 log 0 = 0
        mass = None if self.normalised else p.mean(u)
        f_q = problem.beta * inner.link_q
        return Solution(-problem.beta * inner.conjugate, entropy, inner.divergence, f_q, mass=mass)

    def log_ratio(self, x: Tensor, v: Tensor, problem: InnerProblem) -> Tensor:
        r"""Return v, or under probability q :math:`\ell^{-1}(\ell(v) - \lambda)`: f is free up to a constant there.

        Where q* = p e^v / Z (:attr:`InnerSolution.log_partition`) log Z is taken off.
        """
        divergence = problem.divergence
        if not self.normalised and divergence.additive_dual:
            return v
        inner, s = self._inner(problem), v.double()
        if self.normalised:
            s = divergence.inverse_link(divergence.link(s) - inner.multiplier)
        return (s - inner.log_partition).to(v.dtype)

    def f_name(self, divergence: Divergence) -> str:
        """Return the link: v itself where the critic's output is a potential."""
        return "beta v" if divergence.critic_reads == "potential" else "beta l(v)"

    def unit(self, divergence: Divergence, metric: nn.Module | None) -> str:
        """Return that of D; a surrogate's losses have none."""
        return "losses without a unit" if divergence.surrogate else super().unit(divergence, metric)

    def meaning(self, divergence: Divergence, metric: nn.Module | None, alpha: float) -> str:
        """Return of what the value is a lower bound, and where it is none."""
        if divergence.surrogate:
            return f"the critic's side of the surrogate {divergence.extra_repr().partition(',')[0]}, no divergence"
        found = getattr(metric, "function_class", "unrestricted")
        if divergence.needs_lipschitz and found != "1-Lipschitz by construction":
            penalty = getattr(metric, "penalty", None)
            shown = "" if penalty is None else f"{type(penalty).__name__}({penalty.extra_repr()})"
            detail = f" ({shown}; see its docstring for the bias)" if shown else ""
            return f"not a bound: {target(divergence, alpha)} with a metric {found}{detail}"
        exact = divergence.additive_dual and not self.normalised
        return f"lower bound of {target(divergence, alpha)}" + ("" if exact else ", biased upward by sampling")
