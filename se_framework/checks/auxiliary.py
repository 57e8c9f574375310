r"""Laws of a q-step, on a finite alphabet where every expectation is a finite sum.

The objective :math:`-\alpha H(q)+\beta D(q,p)-\mathbb E_qf` is evaluated here, at any q, from the divergence's
``integrand``; the auxiliary's own minimum must be below it everywhere and equal to it at its q*.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from divergences.base import Divergence
from divergences.checks.running import (
    Laws,
    close,
    close_to_slope,
    coordinates,
    maximum,
    named,
    normal,
    require,
    simplex,
)
from models.base import Model, check_context
from models.laws import Particles, Weighted
from se_framework.equation.auxiliary import Auxiliary, InnerProblem, Solution

K = 4


class Letters(Model):
    """A categorical model on letters of the plane, or of the line, with its logits as parameters."""

    has_log_prob = True
    has_rsample = False

    def __init__(self, log_p: Tensor, dimension: int) -> None:
        super().__init__((dimension,))
        self.logits = nn.Parameter(log_p.clone())
        self.register_buffer("points", normal((len(log_p), dimension), 3))

    def forward(self, context: Tensor | None = None) -> Weighted:
        """Return the law over all letters."""
        check_context(self, context)
        return Weighted(self.get_buffer("points"), self.logits.log_softmax(0))


class Case(NamedTuple):
    """A q-step and a divergence it is legal with."""

    auxiliary: Auxiliary
    divergence: Divergence

    @property
    def weights(self) -> tuple[float, float]:
        """Return alpha and beta that the step is for."""
        return (0.5 if self.auxiliary.needs_alpha else 0.0), 0.7

    def problem(self, v: Tensor | None = None, log_p: Tensor | None = None) -> InnerProblem:
        """Return the problem at critic outputs v (K,) on the letters, or their embedding (K, 2)."""
        if self.auxiliary.keeps_margin:
            return self.of_pairs(self.start() if v is None else v)
        model = Letters(simplex(K, 2).log() if log_p is None else log_p, coordinates(self.divergence))
        law = model()
        p = law.particles(law.noise(0))
        if log_p is not None:  # keep the graph of the caller's weights
            weights = log_p.log_softmax(0)
            p = Particles(p.x, weights, weights)
        data = Particles(p.x.detach(), simplex(K, 52).log())
        if v is None:
            v = self.start()
        (alpha, beta), scores = self.weights, v if self.auxiliary.uses_metric else None

        def metric(x: Tensor) -> Tensor:  # of letters alone
            return (x[:, None] == data.x).all(-1).to(v) @ v

        return InnerProblem(scores, scores, data, p, model, self.divergence, alpha, beta, metric)

    def of_pairs(self, v: Tensor) -> InnerProblem:
        """Return the problem at critic outputs v (K,) on letters (x, y) of a grid, p the product of their margins."""
        log_data = simplex(K, 52).log().view(2, 2)
        log_p = (log_data.logsumexp(1, keepdim=True) + log_data.logsumexp(0, keepdim=True)).flatten()
        model, grid = Letters(log_p, 2), torch.cartesian_prod(normal((2,), 3), normal((2,), 4))
        model.points, model.pairs = grid, 1
        data, p = Particles(grid, log_data.flatten()), Particles(grid, log_p, log_p)

        def metric(points: Tensor) -> Tensor:
            return (points[:, None] == grid).all(-1).to(v) @ v

        return InnerProblem(v, v, data, p, model, self.divergence, *self.weights, metric)

    def law_of(self, z: Tensor, log_p: Tensor) -> Tensor:
        """Return log q, shape (K,), of any numbers z: a q among those over which the minimum is taken."""
        if self.auxiliary.keeps_margin:
            rows = log_p.view(2, 2).logsumexp(1, keepdim=True)
            return (z.view(2, 2).log_softmax(1) + rows).flatten()
        return z if self.auxiliary.free_mass else z.log_softmax(0)

    def start(self) -> Tensor:
        """Return critic outputs, or embedded letters."""
        return normal((K, coordinates(self.divergence)), 7) if self.auxiliary.embeds else normal((K,), 7) / 2


def laws(case: Case) -> Laws:
    """Yield the laws that apply."""
    yield from named(case, solve_is_minimum, gradient_is_danskin)
    if case.divergence.surrogate:
        return
    yield from named(case, record_adds_up)
    if case.auxiliary.evaluates_primal:
        yield from named(case, minimum_is_the_primal)
        return
    own = case.auxiliary.moves_points and not case.auxiliary.keeps_margin
    if not (own or case.divergence.absent or case.divergence.critic_reads == "potential"):
        if not case.auxiliary.value_is_minimum:
            return
        if not case.divergence.additive_dual:  # of a q of any mass only its author knows the D
            return
        yield from named(case, no_q_does_better, log_ratio_reads_q)


def solve_is_minimum(case: Case) -> None:
    """The record's minimum is the scalar that players differentiate."""
    problem = case.problem()
    one, other = case.auxiliary.solve(problem).minimum, case.auxiliary.minimum(problem)
    require(other.shape == (), f"minimum has shape {tuple(other.shape)}, expected ()")
    close(one, other, 1e-9 * (1 + other.detach().abs()), "solve's minimum against minimum")


def record_adds_up(case: Case) -> None:
    """Minimum = -alpha H + beta D - E_q f, where the terms are known."""
    found: Solution = case.auxiliary.solve(case.problem())
    alpha, beta = case.weights
    if found.divergence is None or (alpha and found.entropy is None):
        return
    total = beta * found.divergence
    total = total - alpha * found.entropy if alpha and found.entropy is not None else total
    total = total - found.f_q if found.f_q is not None else total
    close(found.minimum, total, 1e-9 * (1 + total.detach().abs()), "minimum against -alpha H + beta D - E_q f")


def gradient_is_danskin(case: Case) -> None:
    """The gradient of the minimum in the critic's outputs and in theta is that of differences."""
    v, log_p = case.start(), simplex(K, 2).log()
    for name, at in (("v", v), ("log p_theta", log_p)):

        def minimum(x: Tensor, name=name) -> Tensor:
            return case.auxiliary.minimum(case.problem(x, log_p) if name == "v" else case.problem(v, x))

        if name == "v" and not case.auxiliary.uses_metric:
            continue
        if name != "v" and (not case.auxiliary.needs_samples(case.divergence) or case.auxiliary.keeps_margin):
            continue  # theta enters by the law's log_prob, which is checked with the divergence, or not at all
        e, leaf = normal(tuple(at.shape), 5), at.clone().requires_grad_()
        (slope,) = torch.autograd.grad(minimum(leaf), leaf, allow_unused=True)
        require(slope is not None, f"the minimum has no gradient in {name}")
        got = (slope * e).sum()
        allowed = max(1e-7, case.divergence.accuracy) * (1 + got.abs())
        close_to_slope(got, minimum, at, e, allowed, f"gradient of the minimum in {name}")


def minimum_is_the_primal(case: Case) -> None:
    """The minimum is beta D of the data, at the points D is computed on."""
    problem, (_, beta) = case.problem(), case.weights
    q, p = problem.data, problem.p
    if case.auxiliary.embeds:
        assert problem.v is not None and p is not None
        q, p = Particles(problem.v, q.log_weights), Particles(problem.v, p.log_weights)
    want = beta * case.divergence.primal(q, problem.model(), p)
    close(case.auxiliary.minimum(problem), want, 1e-9 * (1 + want.detach().abs()), "minimum against beta D(p_d, p)")


def no_q_does_better(case: Case) -> None:
    """The minimum is that of a direct search over q on the alphabet, and no random q is below it."""
    problem, (alpha, beta) = case.problem(), case.weights
    assert problem.v is not None and problem.p is not None and problem.p.log_weights is not None
    f = case.auxiliary.f(problem.v, case.divergence, beta)
    log_p, found = problem.p.log_weights.detach(), float(case.auxiliary.minimum(problem).detach())

    def objective(z: Tensor) -> Tensor:
        log_q = case.law_of(z, log_p)
        q = log_q.exp()
        d = case.divergence.integrand(log_q, log_p).sum()
        return alpha * (q * log_q).sum() + beta * d - (q * f).sum()

    best = -maximum(lambda z: -objective(z), log_p)[0]
    close(found, best, 1e-6 * (1 + abs(best)), "minimum against a search over q")
    for seed in range(20):
        other = float(objective(log_p + normal((K,), seed)))
        require(other >= found - 1e-9 * (1 + abs(found)), f"a q with objective {other:.8g} lies below {found:.8g}")


def log_ratio_reads_q(case: Case) -> None:
    """``log_ratio`` is log dq*/dp: q* = p e^ratio attains the minimum, with the mass that the record states."""
    if case.divergence.critic_reads == "sign":
        return
    problem, (alpha, beta) = case.problem(), case.weights
    assert problem.v is not None and problem.p is not None and problem.p.log_weights is not None
    ratio = case.auxiliary.log_ratio(problem.p.x, problem.v, problem).detach()
    log_p = problem.p.log_weights.detach()
    log_q, f = log_p + ratio, case.auxiliary.f(problem.v, case.divergence, beta)
    q, found = log_q.exp(), case.auxiliary.solve(problem)
    d = case.divergence.integrand(log_q, log_p).sum()
    total = alpha * torch.xlogy(q, q).sum() + beta * d - (q * f).sum()
    close(total, found.minimum, 1e-8, "objective at q* against minimum")
    close(q.sum(), 1.0 if found.mass is None else found.mass, 1e-8, "mass of q* = p e^ratio")
