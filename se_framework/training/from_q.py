r"""Samples of q, the law at which the inner minimum is taken, and not of p_theta: what the critic has left to say.

At the optimal critic q* is the data. So points of p_theta that are weighted, chosen or moved as q* wants them are
nearer to the data, without any training:

* ``resample``: points of p by their weights dq*/dp (importance resampling, Rubin 1988);
* ``reject``: a point is kept with probability (dq*/dp) / M, M from a pilot (von Neumann 1951; discriminator rejection
  sampling: Azadi et al. 2019);
* ``langevin``: steps in the latent space along :math:`\nabla_z[\log\tfrac{dq^*}{dp}(g(z)) - \tfrac12|z|^2]`, with noise
  (discriminator-driven latent sampling: Che et al. 2020, eq. 7), biased by the length of the steps;
* ``transport``: every point moved to :math:`\arg\max_y f(y)/\beta - c(x, y)` (discriminator optimal transport: Tanaka
  2019), for W1 with the critic brought to slopes of at most one, see :func:`within_slope`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import log
from typing import NamedTuple

import torch
from torch import Tensor

from models.laws import Particles
from se_framework.data import Data
from se_framework.equation.auxiliary import InnerProblem, Transported
from se_framework.equation.equation import StandardEquation
from se_framework.equation.modes import evaluating
from se_framework.errors import ConfigError, IncompatibleError, nearest
from se_framework.randomness import generator, stream_seed
from se_framework.training.draws import draw_batch
from se_framework.training.sampling import BLOCK, NUMBERS, check_label, fitting, labels_of, widest

METHODS = ("resample", "reject", "langevin", "transport")
PILOT = 10_000
"""Points of p from which the largest weight is taken."""
PAIRS = 1_000
"""Points that are moved together: all are compared with each other."""
PROPOSALS = 10
"""Points of p for one that is resampled."""
PATIENCE = 1_000
"""Points of p for one that is kept, at most."""
TIE = 1e-6
"""Share by which a critic of slope one is flattened further."""
STEPS, STEP = 100, 0.02
"""Of a search, or of Langevin dynamics, whose noise has the variance STEP in a step."""


class Drawn(NamedTuple):
    r"""Samples and how they came about.

    Attributes:
        x: in the units of the user, shape (n, \*E).
        said: acceptance, effective sample size, or distance moved, in words.
    """

    x: Tensor
    said: str


class Proposals:
    """Points of p_theta, block by block, and the inner problem at them.

    Args:
        equation: trained.
        data: p_d.
        seed: of the draw.
        label: the class of all points; None for labels as in the training data.
        device: of the equation.
        most: points of a block at most.

    Attributes:
        used: blocks that were drawn.
        total: points in them: a law of held-out rows, or of letters, gives as many as it has.
        normal: whether the noise of the last block was N(0, I).
    """

    def __init__(
        self, equation: StandardEquation, data: Data, seed: int, label: int | None, device: torch.device, most: int
    ) -> None:
        self.equation, self.data, self.seed, self.label, self.device = equation, data, seed, label, device
        network = None if equation.metric is None else equation.metric.network
        self.size = fitting(NUMBERS, widest(equation.model, network), most)
        self.used, self.total, self.normal = 0, 0, False

    def stream(self, purpose: str) -> torch.Generator:
        """Return a generator of the block that was drawn last, on the CPU."""
        return generator(self.seed, self.used, f"from_q/{purpose}")

    def problem(self, p: Particles) -> InnerProblem:
        """Return the inner problem at particles of p; its data are the first rows of p_d's sequence."""
        rows = min(BLOCK, self.data.train_size or BLOCK)
        return self.equation.inner_problem(draw_batch(self.data, 0, rows, self.seed, self.equation), p)

    def latent(self) -> tuple[Tensor, Callable[[Tensor], Particles]]:
        """Return the noise of the next block and what makes particles of it."""
        number, self.used = self.used, self.used + 1
        labels = labels_of(self.data, number * self.size, self.size, self.seed, self.label, self.device)
        law = self.equation.model(labels)
        self.normal = getattr(law, "normal_noise", False)
        noise = law.noise(self.size, generator(self.seed, number, "sample", self.device))

        def particles(z: Tensor) -> Particles:
            found = law.particles(z)
            return found if labels is None else replace(found, context=labels)

        return noise, particles

    def next(self) -> Particles:
        """Return the next block of points."""
        noise, particles = self.latent()
        p = particles(noise)
        self.total += len(p.x)
        return p

    def ratios(self, p: Particles) -> Tensor:
        """Return log dq*/dp at the points of a block, as its own mean of dq*/dp tells the constant, shape (m,)."""
        q = self.equation.auxiliary.q(self.problem(p))
        if q.log_weights is None:
            raise IncompatibleError("q* moves the points of p_theta and weighs none of them: choose method=transport")
        return q.log_weights + log(len(q.log_weights))


def draw_q(
    equation: StandardEquation,
    data: Data,
    n: int,
    seed: int = 0,
    method: str | None = None,
    label: int | None = None,
    device: torch.device | str = "cpu",
) -> Drawn:
    r"""Draw n samples of q*.

    Args:
        equation: trained; a sum has no q.
        data: p_d.
        n: how many.
        seed: of the draw.
        method: one of :data:`METHODS`; None for transport where the critic's output is a potential, else resample.
        label: the class of all samples, where the data has labels.
        device: of the equation.

    Raises:
        ConfigError: no such method or label, or rejection keeps too few.
        IncompatibleError: this equation has no such q.
    """
    if len(equation.plus):
        raise IncompatibleError("from=q: a sum of equations has a q for each: sample p_theta itself")
    if equation.metric is None:
        raise IncompatibleError("from=q: there is no critic, so q says nothing that p_theta does not: leave from out")
    method = method or ("transport" if equation.divergence.has_ground_cost else "resample")
    if method not in METHODS:
        raise ConfigError(f"method={method}: {nearest(method, METHODS)}")
    check_label(label, data)
    draw = {"resample": _resample, "reject": _reject, "langevin": _langevin, "transport": _transport}[method]
    with evaluating(equation, seed=stream_seed(seed, 0, "from_q")):
        most = {"transport": PAIRS, "langevin": min(n, PILOT)}.get(method, PILOT)  # every point of a chain is kept
        x, said = draw(Proposals(equation, data, seed, label, torch.device(device), most), n)
    return Drawn(data.samples_to_user(x), said)


@torch.no_grad()
def _resample(proposals: Proposals, n: int) -> tuple[Tensor, str]:
    """Systematic: one uniform number, so that a weight of k / m is drawn k times, or one more or less."""
    found: list[Tensor] = []
    effective, take = 0.0, max(1, proposals.size // PROPOSALS)
    while sum(map(len, found)) < n:
        p = proposals.next()
        weights = proposals.ratios(p).cpu().softmax(0)
        draw = proposals.stream("resample")
        places = (torch.arange(take, dtype=torch.float64) + torch.rand((), generator=draw, dtype=torch.float64)) / take
        index = torch.searchsorted(weights.cumsum(0), places).clamp(max=len(weights) - 1)
        found.append(p.x[index[torch.randperm(take, generator=draw)].to(p.x.device)])
        effective += float(1 / weights.square().sum())
    return torch.cat(found)[:n], f"resampled from {proposals.total} points of p_theta, of which {effective:.0f} count"


@torch.no_grad()
def _reject(proposals: Proposals, n: int) -> tuple[Tensor, str]:
    found: list[Tensor] = []
    kept, most = 0, -torch.inf
    while kept < n:
        p = proposals.next()
        ratio = proposals.ratios(p).cpu()
        most = float(ratio.max()) if proposals.used == 1 else most
        uniform = torch.rand(len(ratio), generator=proposals.stream("reject"), dtype=torch.float64)
        found.append(p.x[(uniform.log() < ratio - most).to(p.x.device)])
        kept += len(found[-1])
        if kept < n and proposals.total > PATIENCE * n:
            raise ConfigError(
                f"method=reject keeps {kept} of {proposals.total} points of p_theta: the weights of q are too uneven: "
                "method=resample says how many points count"
            )
    return torch.cat(found)[:n], f"kept {kept / proposals.total:.1%} of {proposals.total} points of p_theta"


def _langevin(proposals: Proposals, n: int) -> tuple[Tensor, str]:
    auxiliary, metric = proposals.equation.auxiliary, proposals.equation.metric
    found: list[Tensor] = []
    while sum(map(len, found)) < n:
        z, particles = proposals.latent()
        if not proposals.normal:
            name = type(proposals.equation.model).__name__
            raise IncompatibleError(f"method=langevin: {name} has no latent N(0, I): choose method=resample")
        with torch.no_grad():
            problem = proposals.problem(particles(z))
            proposals.ratios(particles(z))  # refuses what has no such weights
        draw = proposals.stream("langevin")

        def potential(z: Tensor, particles: Callable[[Tensor], Particles], problem: InnerProblem) -> Tensor:
            p = particles(z)
            assert metric is not None
            return auxiliary.log_ratio(p.x, metric(p.x, p.context), problem).sum() - z.square().sum() / 2

        for _ in range(STEPS):
            z = z.detach().requires_grad_()
            (slope,) = torch.autograd.grad(potential(z, particles, problem), z)
            noise = torch.randn(z.shape, generator=draw, dtype=torch.float64).to(z)
            z = z.detach() + STEP / 2 * slope + STEP**0.5 * noise
        found.append(particles(z).x.detach())
    return torch.cat(found)[:n], f"{STEPS} Langevin steps of {STEP:g} in the latent space"


def within_slope(problem: InnerProblem) -> InnerProblem:
    r"""Return the problem with f divided by its steepest slope between two points of data and p, where D wants one.

    A penalty or clipping leaves a critic that is steeper than 1-Lipschitz. The transport at the cost |x - y| would then
    pay without end, and points run away along the slope. The largest :math:`|f(x) - f(y)| / |x - y|` of sampled points
    is Tanaka's (2019) effective Lipschitz constant; f is divided by a little more, so that rounding decides no tie.
    """
    metric, v, v_data, p = problem.metric, problem.v, problem.v_data, problem.p
    if not problem.divergence.needs_lipschitz or metric is None or v is None or v_data is None or p is None:
        return problem
    x, scores = torch.cat([p.x, problem.data.x.to(p.x)]).flatten(1).double(), torch.cat([v, v_data]).detach().double()
    apart = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    slopes = (scores[:, None] - scores).abs() / apart.where(apart > 0, torch.inf)
    steepest = max(1.0, float(slopes.max())) * (1 + TIE)
    return problem._replace(v=v / steepest, v_data=v_data / steepest, metric=lambda y: metric(y) / steepest)


def _transport(proposals: Proposals, n: int) -> tuple[Tensor, str]:
    if not proposals.equation.divergence.has_ground_cost:
        name = type(proposals.equation.divergence).__name__
        raise IncompatibleError(f"method=transport: {name} is no transport at a cost: choose method=resample")
    found: list[Tensor] = []
    auxiliary, far = Transported(steps=STEPS), 0.0
    while sum(map(len, found)) < n:
        p = proposals.next().detach()
        problem = within_slope(proposals.problem(p))
        # Among p's points alone: among those of the data it would return training rows.
        moved = auxiliary.q(problem._replace(data=p, v_data=problem.v)).x
        far += float((moved - p.x).flatten(1).double().norm(dim=1).sum())
        found.append(moved)
    return torch.cat(found)[:n], f"moved by {far / proposals.total:.3g} in the mean (unit of model space)"
