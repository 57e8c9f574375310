r"""The auxiliary distribution q: how :math:`\min_q -\alpha H(q) + \beta D(q,p_\theta) - \mathbb E_q f` is taken.

After an exact q-step the players treat q as a constant (Danskin): what they differentiate is the minimum's value. An
auxiliary with trainable parameters is a player itself, which descends on the same value.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from divergences.base import Divergence
from models.base import Model
from models.laws import Particles
from se_framework.equation.roles import Role
from se_framework.errors import IncompatibleError
from se_framework.randomness import Stream

Draws = Mapping[str, Tensor]
"""Random tensors by purpose."""


def drawn_for(part: str, draws: Draws) -> dict[str, Tensor]:
    """Return what was drawn for a part, by purpose."""
    start = f"{part}/"
    return {key.removeprefix(start): value for key, value in draws.items() if key.startswith(start)}


class Solution(NamedTuple):
    """The inner minimum with its three terms and the mass of q (None: one), float64 scalars.

    None marks a constant or unknown term.
    """

    minimum: Tensor
    entropy: Tensor | None
    divergence: Tensor | None
    f_q: Tensor | None
    up_to_constant: bool = False
    mass: Tensor | None = None


class InnerProblem(NamedTuple):
    """Everything the minimum over q depends on.

    Attributes:
        v: critic outputs at p's particles, shape (N,), or their embedding, shape (N, k); None without a metric.
        v_data: critic outputs on data, shape (M,), or their embedding; None without a metric.
        data: particles of p_d.
        p: particles of p_theta; None where D asks for the law only.
        model: p_theta itself.
        divergence: D, or a player's view.
        alpha: weight of H(q).
        beta: weight of D.
        metric: f_phi's network at further points, from (B, *E) to (B,); None without a metric.
        draws: what the auxiliary has drawn for this step, by purpose (:meth:`Auxiliary.draws`).
    """

    v: Tensor | None
    v_data: Tensor | None
    data: Particles
    p: Particles | None
    model: Model
    divergence: Divergence
    alpha: float
    beta: float
    metric: Callable[[Tensor], Tensor] | None = None
    draws: Draws = {}  # noqa: RUF012  never written to


class Auxiliary(nn.Module, ABC):
    """Base of every q-step: what it computes, what it needs, and what its value means.

    What it needs of the other parts:

    Attributes:
        uses_metric: f_phi enters; otherwise the auxiliary gives a metric nothing to learn from.
        embeds: f_phi is not a score but an embedding, in which D is computed.
        works_through: the declaration of D that must be there (``"has_dual"``, ``"primal_needs"``,
            ``"entropy_weight"``, ``"has_ground_cost"``, or one of a divergence of one's own); None if D may be absent.
        needs_mass_one: q is a probability, so D must have its dual over those.
        needs_alpha: True: the step exists only for alpha > 0; False: only for alpha = 0; None: for any alpha.
        keeps_function_class: what D asks of the function class of f_phi (1-Lipschitz) is asked here.
        evaluates_primal: D's primal is computed, so its limits (dimensions, packages) apply.
        keeps_margin: q has p's margin of x, where points are pairs (x, y) and p is the product of the data's margins.
        moves_points: the metric is evaluated at points of the auxiliary's own, so its scores may not couple a batch.
        takes_views: players may see the critic's output through other divergences.

    What its scalar is:

    Attributes:
        minimum_reads_data: the minimum reads the critic on data (``problem.v_data``), which else only E_pd f does.
        minimum_name: the minimum's formula, for messages and logs.
        counts_entropy: alpha H(q) is a part of the total; not where q is the data, and it a constant.
        free_mass: the minimum runs over q of any mass, so f has no free constant, and the optimal v of two duals agree.
        value_is_minimum: the value is that of the minimum, not only its slopes (as where q is sampled).
    """

    uses_metric: ClassVar[bool] = True
    embeds: ClassVar[bool] = False
    works_through: ClassVar[str | None] = None
    needs_mass_one: bool = False
    needs_alpha: ClassVar[bool | None] = None
    keeps_function_class: ClassVar[bool] = False
    evaluates_primal: ClassVar[bool] = False
    keeps_margin: ClassVar[bool] = False
    moves_points: ClassVar[bool] = False
    takes_views: ClassVar[bool] = False
    minimum_reads_data: bool = True
    minimum_name: ClassVar[str] = "min_q"
    counts_entropy: ClassVar[bool] = True
    free_mass: bool = False
    value_is_minimum: ClassVar[bool] = True

    @property
    def advances(self) -> bool:
        """Whether this auxiliary carries something from step to step that :meth:`advance` moves."""
        return type(self).advance is not Auxiliary.advance

    @property
    def draws_itself(self) -> bool:
        """Whether :meth:`draws` returns something."""
        return type(self).draws is not Auxiliary.draws

    @property
    def has_scores(self) -> bool:
        """Whether f_phi is a score, so that its means under q and p_d are terms of the scalar."""
        return self.uses_metric and not self.embeds

    # -- what of the model it asks for ---------------------------------------------------------------------------------

    def needs_samples(self, divergence: Divergence) -> bool:
        """Whether p_theta enters through particles."""
        return True

    def needs_density(self, divergence: Divergence) -> bool:
        """Whether p_theta enters through its log-density."""
        return False

    def compares_pairs(self, divergence: Divergence) -> bool:
        """Whether every particle is compared with every example, so that time and memory grow with the square."""
        return False

    def reads_context(self, divergence: Divergence) -> bool:
        """Whether labels of data and particles are seen."""
        return True

    def additive(self, divergence: Divergence) -> bool:
        """Whether the minimum is a mean over particles and over examples, so that it is the mean of those of pieces.

        Asked where a batch is cut (``players.NAME.accumulate``); what is drawn is then drawn once for each example.
        """
        return False

    # -- what it computes ----------------------------------------------------------------------------------------------

    def f(self, v: Tensor, divergence: Divergence, beta: float) -> Tensor:
        """Return f from the critic's output v, shape (B,); v itself by default."""
        return v

    def draws(self, n: int, stream: Stream) -> dict[str, Tensor]:
        """Return all that is random in a step, by purpose: drawn outside, for the whole batch; nothing by default.

        Args:
            n: examples of the batch.
            stream: a generator for each purpose, with :meth:`~Stream.normal` and :meth:`~Stream.uniform`.
        """
        return {}

    def advance(self, problem: InnerProblem, role: Role) -> None:
        """Move what is carried from step to step (chains, an exact q) before a player's step, without a graph.

        It must live in buffers, filled in place, so that checkpoints hold it and a failed step is taken back.
        """

    @abstractmethod
    def minimum(self, problem: InnerProblem, role: Role | None = None) -> Tensor:
        """Return the minimum over q, a scalar the players differentiate.

        Args:
            problem: what it depends on.
            role: whose step it is, for an auxiliary that gives players other losses (wake, sleep); None for nobody's.
        """

    @abstractmethod
    def solve(self, problem: InnerProblem) -> Solution:
        """Return the minimum with its terms, for the record; the problem is in float64."""

    def values(self, problem: InnerProblem) -> Tensor | None:
        """Return the minimum particle by particle, shape (N,), where it is their mean under p, else None."""
        return None

    def data_values(self, problem: InnerProblem) -> Tensor | None:
        """Return the minimum example by example, shape (M,), where it (or what :meth:`values` lacks) is their mean."""
        return None

    def log_ratio(self, x: Tensor, v: Tensor, problem: InnerProblem) -> Tensor:
        """Return log dq*/dp at x, shape (B,), from the critic's output v there: at the optimum q* is the data."""
        return v

    def q(self, problem: InnerProblem) -> Particles:
        """Return particles of q* made of those of p: by default the same points, with the weights dq*/dp at them.

        Raises:
            IncompatibleError: q* has no density with respect to p that the critic tells.
        """
        (v, p), divergence = needed_scores(problem), problem.divergence
        if not divergence.has_dual or divergence.critic_reads != "log_ratio":
            raise IncompatibleError(
                f"q* is not p times a function of the critic under {type(divergence).__name__}: the critic's output is "
                "no log-ratio there"
            )
        return reweighted(p, self.log_ratio(p.x, v, problem))

    # -- what its value means ------------------------------------------------------------------------------------------

    @property
    def scalar_name(self) -> str:
        """Return the formula of the scalar with q at its minimum."""
        return f"{self.minimum_name} + E_pd f" if self.has_scores else self.minimum_name

    def f_name(self, divergence: Divergence) -> str:
        """Return the formula of f in the critic's output v."""
        return "v"

    def meaning(self, divergence: Divergence, metric: nn.Module | None, alpha: float) -> str:
        """Return what the scalar's value on fresh data is: a bound of what, in which direction, or no bound."""
        return f"{self.scalar_name}, of which {type(self).__name__} declares no bound"

    def cost_degree(self, divergence: Divergence, metric: nn.Module | None) -> float:
        """Return k where data multiplied by s multiply the scalar by s ** k: by default that of D."""
        return divergence.cost_degree

    def unit(self, divergence: Divergence, metric: nn.Module | None) -> str:
        """Return what the scalar is counted in: by default what D is."""
        degree = self.cost_degree(divergence, metric)
        return divergence.unit if degree == 0 else power("unit of the data", degree)


def power(unit: str, degree: float) -> str:
    """Return a unit to a power, in words."""
    return unit if degree == 1 else f"{unit} ** {degree:g}"


def target(divergence: Divergence, alpha: float) -> str:
    """Return what the scalar is at the optimal metric, in words."""
    return f"{'-alpha H(p_d) + ' if alpha > 0 else ''}beta {type(divergence).__name__}(p_d, p_theta)"


def scaled(weight: float, value: Tensor) -> Tensor:
    """Return the product; a weight of one, the usual one, costs no kernel and no node of the graph."""
    return value if type(weight) is float and weight == 1.0 else weight * value


def reweighted(p: Particles, log_ratio: Tensor) -> Particles:
    """Return p's points with weights in proportion to theirs times a ratio, given by its logarithm, shape (N,)."""
    before = 0.0 if p.log_weights is None else p.log_weights
    return replace(p, log_weights=(before + log_ratio.double()).log_softmax(0), log_prob=None)


def needed_scores(problem: InnerProblem) -> tuple[Tensor, Particles]:
    """Return v and p, which must be there."""
    if problem.v is None or problem.p is None:
        raise IncompatibleError("this auxiliary needs a metric f_phi")
    return problem.v, problem.p


def needed_density(problem: InnerProblem) -> Tensor:
    """Return log p_theta at its particles, which must be there."""
    if problem.p is None or problem.p.log_prob is None:
        raise IncompatibleError(f"{type(problem.model).__name__} has no density, which this auxiliary needs")
    return problem.p.log_prob


def jackknifed(minimum: Callable[[InnerProblem], Tensor], problem: InnerProblem) -> Tensor:
    r"""Return :math:`2m - \tfrac12(m_1 + m_2)`, with :math:`m_1, m_2` the minimum on every other particle of p.

    Where a minimum is a smooth function of sample means its expectation is off by a/N + O(1/N^2): the first term
    cancels. Weighted particles are no sample and have no such error: theirs is returned as it is.

    Source: Quenouille, "Approximate tests of correlation in time-series", JRSS B 11 (1949).

    Args:
        minimum: of a problem.
        problem: with critic outputs v at particles p.
    """
    whole, (v, p) = minimum(problem), needed_scores(problem)
    if p.log_weights is not None or len(v) < 2:
        return whole
    halves = [slice(0, None, 2), slice(1, None, 2)]
    return 2 * whole - sum(minimum(problem._replace(v=v[half], p=p.rows(half))) for half in halves) / 2
