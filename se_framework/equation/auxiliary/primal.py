r"""q is the data: theta meets :math:`\beta D(p_d, p_\theta)` itself, in the data's space or in an embedding."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

from torch import Tensor, nn

from divergences.base import Divergence
from models.laws import Particles
from se_framework.equation.auxiliary.base import Auxiliary, InnerProblem, Solution, power, scaled
from se_framework.equation.roles import Role
from se_framework.errors import IncompatibleError


class Primal(Auxiliary):
    r"""Base of the q-steps at which q is the data, so that theta meets :math:`\beta D(p_d, p_\theta)` itself."""

    sources: tuple[str, ...] = ()
    works_through = "primal_needs"
    evaluates_primal = True
    counts_entropy = False

    def needs_samples(self, divergence: Divergence) -> bool:
        """Whether D is computed between two clouds; cross-entropy to data asks for log-densities only."""
        return divergence.primal_needs == "samples"

    def needs_density(self, divergence: Divergence) -> bool:
        """Whether D asks for the model's log-density at the data."""
        return divergence.primal_needs == "log_prob"

    def compares_pairs(self, divergence: Divergence) -> bool:
        """Whether D is computed between two clouds."""
        return self.needs_samples(divergence)

    def reads_context(self, divergence: Divergence) -> bool:
        """Whether labels are seen: by a conditional density, not by a distance of clouds."""
        return divergence.primal_needs == "log_prob"

    def q(self, problem: InnerProblem) -> Particles:
        """Refuse: q is the data, of which there is no more."""
        raise IncompatibleError(f"q is the data under {type(self).__name__}: sample p_theta itself")

    @abstractmethod
    def evaluate(self, problem: InnerProblem) -> Tensor:
        """Return D."""

    def minimum(self, problem: InnerProblem, role: Role | None = None) -> Tensor:
        r"""Return :math:`\beta D`."""
        return scaled(problem.beta, self.evaluate(problem))

    def solve(self, problem: InnerProblem) -> Solution:
        """Return D; the other terms are constants."""
        value = self.evaluate(problem).double()
        up_to_constant = problem.divergence.up_to_constant or problem.alpha > 0
        return Solution(problem.beta * value, None, value, None, up_to_constant)

    @property
    def scalar_name(self) -> str:
        """Return the formula, and which terms are constants."""
        return f"{self.minimum_name}  (H(q), E_q f, E_pd f: constants)"

    def meaning(self, divergence: Divergence, metric: nn.Module | None, alpha: float) -> str:
        """Return of what the value is an estimate."""
        biased = divergence.primal_needs == "samples" and not getattr(divergence, "unbiased", False)
        laws = "e#p_d, e#p_theta" if self.embeds else "p_d, p_theta"
        estimate = f"estimate of beta {type(divergence).__name__}({laws})"
        return estimate + ", biased upward by sampling" * biased


class Empirical(Primal):
    r"""q is the empirical distribution: the limit beta -> 0 inside min_q with f = log of the empirical density.

    The theta-step minimises :math:`\beta D(p_d, p_\theta)`. H(q), E_q f and E_pd f are constants: the two f terms
    cancel, and H(q) of an empirical distribution has no number, so the total is known up to alpha H(q).
    """

    uses_metric = False
    minimum_name = "beta D(p_d, p)"

    def additive(self, divergence: Divergence) -> bool:
        """Whether D is cross-entropy, a mean over the data."""
        return divergence.entropy_weight == 0 and divergence.primal_needs == "log_prob"

    def evaluate(self, problem: InnerProblem) -> Tensor:
        r"""Return :math:`D(p_d, p_\theta)`."""
        return problem.divergence.primal(problem.data, problem.model(problem.data.context), problem.p)

    def data_values(self, problem: InnerProblem) -> Tensor | None:
        r"""Return :math:`-\beta\log p_\theta(x_i)` where D is declared to be cross-entropy (c = 0 of CE - c H)."""
        if problem.divergence.entropy_weight != 0 or problem.divergence.primal_needs != "log_prob":
            return None
        data = problem.data
        return -problem.beta * problem.model(data.context).log_prob(data.x)


class Embedded(Primal):
    r"""q is the data, seen through a learned embedding: :math:`D(e_\phi\#p_d, e_\phi\#p_\theta)`.

    theta descends and phi ascends on it, so the ground cost is :math:`|e_\phi(x)-e_\phi(y)|` at its hardest: learned
    kernels (Li et al. 2017, MMD GAN) and learned transport costs (Genevay, Peyre, Cuturi 2018). Where D grows with the
    scale of its points the embedding must be Lipschitz or bounded, else phi has no maximum; a 1-Lipschitz embedding
    bounds the value by that of D in the space of the data.
    """

    sources: tuple[str, ...] = ("li2017mmd", "genevay2018learning")
    embeds = True
    minimum_name = "beta D(e#p_d, e#p)"

    def evaluate(self, problem: InnerProblem) -> Tensor:
        r"""Return D of the embedded clouds."""
        if problem.v is None or problem.v_data is None or problem.p is None:
            raise IncompatibleError("this auxiliary needs an embedding f_phi")
        q, p = replace(problem.data, x=problem.v_data), replace(problem.p, x=problem.v)
        return problem.divergence.primal(q, None, p)

    def cost_degree(self, divergence: Divergence, metric: nn.Module | None) -> float:
        """Return that of D where the embedding is 1-Lipschitz and not bounded: only then it grows with the data."""
        grows = getattr(metric, "function_class", "") == "1-Lipschitz by construction" and not metric.bounded  # type: ignore[union-attr]
        return divergence.cost_degree if grows else 0.0

    def unit(self, divergence: Divergence, metric: nn.Module | None) -> str:
        """Return the unit of the data where the embedding grows with the data, else that of its own points."""
        if self.cost_degree(divergence, metric) == divergence.cost_degree:
            return super().unit(divergence, metric)
        return power("unit of the embedding", divergence.cost_degree)
