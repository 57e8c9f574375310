r"""The scalar as a mean over pairs of an example and a particle."""

from __future__ import annotations

from torch import Tensor, nn

from divergences.base import Divergence
from models.laws import Particles
from se_framework.equation.auxiliary.base import (
    Auxiliary,
    InnerProblem,
    Solution,
    needed_scores,
    reweighted,
    scaled,
    target,
)
from se_framework.equation.roles import Role


class Paired(Auxiliary):
    r"""alpha = 0, and a D that is a maximum over v of a mean over pairs, :math:`\mathbb E\,\ell(v(x)-v(y))`.

    The scalar is :math:`\beta\,\mathbb E_{x\sim p_d,\,y\sim p}\,\ell(v(x)-v(y))`, every example compared with every
    particle: of all pairings of a batch this has the least variance, and its mean has no bias. In the equation's terms
    f looks at p, and the minimum over q is zero (:class:`divergences.PairedJensenShannon`); since a step of theta
    evaluates the minimum alone, all that moves is put there: f = v, and

    .. math:: \min_q = \beta\,\mathbb E\,\ell(v(x)-v(y)) - \mathbb E_{p_d} v .

    v has a free constant: only differences count. Time and memory grow with the product of both batches, in numbers
    per pair, not passes of the network.
    """

    sources: tuple[str, ...] = ("jolicoeurmartineau2019relativistic", "huang2024gan")
    works_through = "has_paired_dual"
    needs_alpha = False
    takes_views = True
    minimum_name = "beta E l(v(x) - v(y)) - E_pd f"

    def compares_pairs(self, divergence: Divergence) -> bool:
        """Whether every particle is compared with every example: so it is."""
        return True

    def compared(self, problem: InnerProblem, role: Role | None = None) -> Tensor:
        r"""Return :math:`\mathbb E\,\ell(v(x)-v(y))` over all pairs, as a player sees it, shape ()."""
        (v, p), v_data = needed_scores(problem), problem.v_data
        assert v_data is not None
        values = problem.divergence.paired(v_data[:, None] - v, role)
        of_example = values.mean(1) if p.log_weights is None else values @ p.log_weights.exp().to(values.dtype)
        return problem.data.mean(of_example)

    def minimum(self, problem: InnerProblem, role: Role | None = None) -> Tensor:
        r"""Return :math:`\beta\,\mathbb E\,\ell(v(x)-v(y)) - \mathbb E_{p_d}v`."""
        assert problem.v_data is not None
        return scaled(problem.beta, self.compared(problem, role)) - problem.data.mean(problem.v_data)

    def solve(self, problem: InnerProblem) -> Solution:
        """Return the minimum; of its terms at f = v none has a number of its own."""
        return Solution(self.minimum(problem), None, None, None)

    def log_ratio(self, x: Tensor, v: Tensor, problem: InnerProblem) -> Tensor:
        """Return v less the constant that gives q* = p e^v / Z mass one."""
        at_p, p = needed_scores(problem)
        return v - p.log_mean_exp(at_p.double()).to(v.dtype)

    def q(self, problem: InnerProblem) -> Particles:
        """Return p's points with the weights dq*/dp."""
        v, p = needed_scores(problem)
        return reweighted(p, self.log_ratio(p.x, v, problem))

    def meaning(self, divergence: Divergence, metric: nn.Module | None, alpha: float) -> str:
        """Return of what the value is a lower bound; a mean over pairs has no bias."""
        if divergence.surrogate:
            return f"the critic's side of a game with two losses: a lower bound of {target(divergence, alpha)}"
        return f"lower bound of {target(divergence, alpha)}"

    def unit(self, divergence: Divergence, metric: nn.Module | None) -> str:
        """Return that of D, which the critic's side of a surrogate has as well."""
        return divergence.unit
