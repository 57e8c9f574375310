r"""alpha > 0: q in closed form, the teacher step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from divergences.base import Divergence
from models.laws import Particles
from se_framework.equation.auxiliary.base import (
    Auxiliary,
    InnerProblem,
    Solution,
    jackknifed,
    needed_density,
    needed_scores,
    reweighted,
    target,
)
from se_framework.equation.roles import Role
from se_framework.errors import IncompatibleError


class Tilted(Auxiliary):
    r"""alpha > 0, a model with density, and :math:`D = \mathrm{CE} - c\,H` (cross-entropy c = 0, KL c = 1).

    .. math::
        q^* \propto \exp\frac{\beta\log p + f}{\tau}, \qquad
        \min_q = -\tau\log\int\exp\frac{\beta\log p + f}{\tau}
               = -\tau\log\mathbb E_p\exp\frac{(\beta-\tau)\log p + f}{\tau}, \qquad \tau = \alpha + c\beta .

    (Hu and Xing 2022, the teacher step.) f is the critic's output itself. On samples the logarithm of a mean makes the
    value and its slopes biased by O(1/N).

    Args:
        jackknife: take that bias to O(1/N^2) in steps, see :func:`.base.jackknifed`; the record stays that of the
            particles' own q.
    """

    sources: tuple[str, ...] = ("hu2022toward",)
    works_through = "entropy_weight"
    needs_alpha = True
    minimum_reads_data = False
    minimum_name = "-tau log Z"

    def __init__(self, jackknife: bool = False) -> None:
        super().__init__()
        self.jackknife = jackknife

    def needs_density(self, divergence: Divergence) -> bool:
        """Whether log p_theta is read at its particles: always."""
        return True

    def reads_context(self, divergence: Divergence) -> bool:
        """Whether labels are seen: they are not."""
        return False

    def minimum(self, problem: InnerProblem, role: Role | None = None) -> Tensor:
        r"""Return :math:`-\tau\log\mathbb E_p\exp(((\beta-\tau)\log p + f)/\tau)`."""
        if self.jackknife and role is not None:
            return jackknifed(self.minimum, problem)
        (v, p), (_, tau) = needed_scores(problem), self._temperature(problem)
        return -tau * p.log_mean_exp(((problem.beta - tau) * needed_density(problem) + v) / tau)

    def solve(self, problem: InnerProblem) -> Solution:
        """Return H, D and E_q f by self-normalised weights on p's particles."""
        minimum, (c, tau) = self.minimum(problem), self._temperature(problem)
        (v, p), log_p = needed_scores(problem), needed_density(problem)
        log_q = (problem.beta * log_p + v + minimum) / tau  # the minimum is -tau log Z
        weight = torch.exp(log_q - log_p)
        entropy, cross_entropy = -p.mean(weight * log_q), -p.mean(weight * log_p)
        return Solution(minimum, entropy, cross_entropy - c * entropy, p.mean(weight * v))

    def log_ratio(self, x: Tensor, v: Tensor, problem: InnerProblem) -> Tensor:
        """Return log q* - log p at x."""
        return self.log_ratio_at(problem.model().log_prob(x), v, problem)

    def q(self, problem: InnerProblem) -> Particles:
        """Return p's points with the weights dq*/dp."""
        v, p = needed_scores(problem)
        return reweighted(p, self.log_ratio_at(needed_density(problem), v, problem))

    def log_ratio_at(self, log_p: Tensor, v: Tensor, problem: InnerProblem) -> Tensor:
        """Return log q* - log p where log p is known, shape (B,)."""
        _, tau = self._temperature(problem)
        return (problem.beta * log_p + v + self.minimum(problem)) / tau - log_p

    def _temperature(self, problem: InnerProblem) -> tuple[float, float]:
        """Return c and tau."""
        c = problem.divergence.entropy_weight
        if c is None:
            raise IncompatibleError(f"{type(problem.divergence).__name__} is not of the form CE - c H: no closed q")
        return c, problem.alpha + c * problem.beta

    def meaning(self, divergence: Divergence, metric: nn.Module | None, alpha: float) -> str:
        """Return of what the value is a lower bound."""
        return f"lower bound of {target(divergence, alpha)}, biased upward by sampling"
