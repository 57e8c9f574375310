r"""The auxiliary of transport: q is the model's law, every particle of it moved along the metric."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from divergences.base import Divergence
from models.laws import Particles
from se_framework.equation.auxiliary.base import Auxiliary, InnerProblem, Solution, target
from se_framework.equation.roles import Role
from se_framework.errors import ConfigError, IncompatibleError

MOST = 30
"""Steps of the search where none are chosen: from five coordinates on."""


class Transported(Auxiliary):
    r"""alpha = 0, D transport at a cost c: :math:`\min_q = -\beta\,\mathbb E_p f^c`, with :math:`f=\beta v`.

    .. math:: f^c(x) = \sup_y\; v(y) - c(x, y), \qquad q^* = \text{the law of } y^*(x),\; x\sim p .

    (Villani, "Topics in optimal transportation", 2003, theorem 1.3; the c-transform in place of a constraint: Mallasto,
    Montufar, Gerolin, "How well do WGANs estimate the Wasserstein metric?", 2019.) The metric needs no constraint: what
    is steeper than c moves p. A 1-Lipschitz v under c = |x-y| moves nothing: the scalar is that of ``auxiliary=dual``.

    *The supremum* runs over the particles of data and p: with ``steps=0`` it is exact on a finite alphabet, where these
    are all letters. Elsewhere it is improved by ``steps`` of gradient ascent on y, of which the best point is kept, and
    remains a lower bound of :math:`f^c`. So :math:`-\beta\,\mathbb E_p f^c`, the scalar and, at the optimal v, the
    estimate of D err **upward**, the less the more steps; without any they belong to the transport between the two
    clouds of a batch. Among few coordinates some particle lies near y*; among many the best one is mostly x itself,
    and theta's slope is that of v at x. W2 of N(0, I) and N(0, 4 I) at the optimal v, 256 particles, keeps of its slope

    ===  =======  ========  ========  =========
    d    0 steps  10 steps  30 steps  100 steps
    ===  =======  ========  ========  =========
    1    0.991    0.997     1.000     1.000
    2    0.961    0.986     0.998     1.000
    4    0.843    0.945     0.993     1.000
    16   0.500    0.826     0.979     1.000
    64   0.500    0.826     0.979     1.000
    ===  =======  ========  ========  =========

    *The slope* (Danskin): the displacement :math:`y^*-x` is a constant, so a particle descends on :math:`-v` at its
    new place. Where y* is a stationary point this is the slope of the cost, and where a kink of c holds y* at x it is
    that of v. Time O(N (N + M) d) and steps + 1 evaluations of the metric on p; memory O(N (N + M)).

    Args:
        steps: of gradient ascent on y; None for eight for every coordinate beyond the first, 30 at most.
        step_size: their length per unit of slope, in the (squared) unit of the data.

    Raises:
        ConfigError: steps below 0 or a step size that is not positive.
    """

    sources: tuple[str, ...] = ("villani2003topics", "mallasto2019well")
    works_through = "has_ground_cost"
    needs_alpha = False
    moves_points = True
    minimum_name = "-beta E_p sup_y f(y)/beta - c(x, y)"

    def __init__(self, steps: int | None = None, step_size: float = 0.1) -> None:
        super().__init__()
        if (steps is not None and steps < 0) or not 0 < step_size < float("inf"):
            raise ConfigError(
                f"auxiliary takes steps >= 0 and a positive step_size, got steps={steps}, step_size={step_size}"
            )
        self.steps, self.step_size = steps, step_size

    def extra_repr(self) -> str:
        """Show how the supremum is searched."""
        count = f"up to {MOST}" if self.steps is None else str(self.steps)
        ascent = "" if self.steps == 0 else f", then {count} steps of {self.step_size:g}"
        return f"among the particles{ascent}"

    def steps_in(self, d: int) -> int:
        """Return the steps of the search among points of d coordinates."""
        return min(MOST, 8 * (d - 1)) if self.steps is None else self.steps

    def compares_pairs(self, divergence: Divergence) -> bool:
        """Whether the supremum runs over all particles for each: it does."""
        return True

    def reads_context(self, divergence: Divergence) -> bool:
        """Whether labels are seen: they are not."""
        return False

    def f(self, v: Tensor, divergence: Divergence, beta: float) -> Tensor:
        r"""Return :math:`\beta v`."""
        return beta * v

    def minimum(self, problem: InnerProblem, role: Role | None = None) -> Tensor:
        r"""Return :math:`-\beta\,\mathbb E_p f^c`."""
        scores, cost, _, p = self._move(problem)
        return -problem.beta * p.mean(scores - cost)

    def solve(self, problem: InnerProblem) -> Solution:
        """Return D(q*, p) = E c(x, y*) and E_q* f; the entropy of q* is not known."""
        scores, cost, _, p = self._move(problem)
        divergence, f_q = p.mean(cost), problem.beta * p.mean(scores)
        return Solution(problem.beta * divergence - f_q, None, divergence, f_q)

    def q(self, problem: InnerProblem) -> Particles:
        """Return p's particles where they are moved to."""
        *_, places, p = self._move(problem)
        return replace(p, x=places.detach(), log_prob=None)

    def f_name(self, divergence: Divergence) -> str:
        """Return that f is the critic's output, weighted."""
        return "beta v"

    def meaning(self, divergence: Divergence, metric: nn.Module | None, alpha: float) -> str:
        """Return that the value is no bound, and why."""
        return f"not a bound: {target(divergence, alpha)} by a dual that what the search for sup_y misses raises"

    def _move(self, problem: InnerProblem) -> tuple[Tensor, Tensor, Tensor, Particles]:
        """Return v at the new places and what it cost to get there, shape (N,), the places, and p."""
        v, p, metric = problem.v, problem.p, problem.metric
        if v is None or problem.v_data is None or p is None or metric is None:
            raise IncompatibleError("this auxiliary needs a metric f_phi")
        x, cost = p.x.detach(), problem.divergence.ground_cost

        def paid(y: Tensor) -> Tensor:
            return cost((x - y).to(v.dtype).flatten(1).square().sum(1))

        def gain(y: Tensor) -> Tensor:
            return metric(y).to(v.dtype) - paid(y)

        places = torch.cat([x, problem.data.x.to(x)])
        scores = torch.cat([v, problem.v_data]).detach()
        distances = torch.cdist(x.flatten(1), places.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
        best, index = (scores - cost(distances.to(v.dtype).square())).max(1)
        y = y_best = places[index]
        for _ in range(self.steps_in(x.flatten(1).shape[1])):
            y = y + self.step_size * torch.func.grad(lambda z: gain(z).sum())(y).detach()
            found = gain(y).detach()
            better = found > best
            best = torch.where(better, found, best)
            y_best = torch.where(better.reshape(-1, *(1,) * (y.dim() - 1)), y, y_best)
        moved = y_best + (p.x - x)  # exactly y_best, with the slope of x: the displacement is what stays constant
        return metric(moved).to(v.dtype), paid(y_best), y_best, p
