"""Parts of one's own with a state of their own: a divergence and a posterior with parameters, a chain in buffers.

Each has an optimum that is known in closed form, or a course that can be written down.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn

from divergences import Divergence
from models import Affine
from models.base import Model
from models.laws import Particles, PushForward
from se_framework.data import Data
from se_framework.equation.auxiliary import Auxiliary, Dual, InnerProblem, Solution


class Rows(Data):
    """A fixed cloud in order, without end: a batch as long as the cloud *is* the data, so nothing is random in it."""

    name = "rows"

    def __init__(self, x: torch.Tensor) -> None:
        self.x, self.event_shape = x, tuple(x.shape[1:])

    def batch(self, start: int, n: int, seed: int, device="cpu") -> Particles:
        return Particles(self.x[(start + torch.arange(n)) % len(self.x)])

    def held_out(self, n: int, seed: int = 0, device="cpu") -> Particles:
        return self.batch(0, n, seed)


class Shifted(Divergence):
    r"""KL's dual with a shift c of its own: max over c of E_pd(1 + v + c) - E_p e^(v + c) is Donsker-Varadhan's bound.

    The best c is -log E_p e^v, at any v.
    """

    has_dual, critic_reads, has_normalised_dual = True, "log_ratio", False

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.zeros(()))

    def link(self, v):
        return 1 + v + self.c

    def conjugate(self, v):
        return torch.exp(v + self.c)

    def value(self, v):
        return (v + self.c) * torch.exp(v + self.c)

    def log_tilt(self, v):
        return v + self.c


class Tuned(Divergence):
    r"""|mean of q - mean of p|^2 plus (c - 3)^2: a parameter that descends with theta."""

    primal_needs = "samples"
    parameters_ascend = False

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.zeros(()))

    def primal(self, q, law, p):
        return (q.x.mean(0) - p.x.mean(0)).square().sum() + (self.c - 3).square()


class Latent(Model):
    r"""z ~ N(0, 1), x = loc + z + e with e ~ N(0, 1), so x ~ N(loc, 2) and z | x ~ N((x - loc)/2, 1/2)."""

    has_log_prob, has_rsample = True, True

    def __init__(self, event_shape: tuple[int, ...] = (1,)) -> None:
        super().__init__(event_shape)
        self.loc = nn.Parameter(torch.zeros(()))

    def forward(self, context=None):
        root = math.sqrt(2.0)
        return PushForward(
            lambda z: (self.loc + root * z, z.new_full((len(z),), math.log(root))), (1,), (1,), self.loc,
            pull=lambda x: ((x - self.loc) / root, x.new_full((len(x),), -math.log(root))),
        )  # fmt: skip


class Posterior(Auxiliary):
    r"""q(z | x) = N(a x + b, e^(2 s)), and the negative evidence lower bound in closed form.

    .. math:: \mathrm{KL}(q(z|x)\,\|\,N(0, 1)) - \mathbb E_q \log N(x; \text{loc} + z, 1)

    Its least value, at a = 1/2, b = -loc/2, s = log(1/2)/2, is the negative log-likelihood of N(loc, 2).
    """

    uses_metric = False
    counts_entropy = False
    minimum_name = "-ELBO"

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.s = (nn.Parameter(torch.zeros(())) for _ in range(3))

    def needs_samples(self, divergence):
        return False

    def minimum(self, problem: InnerProblem, role=None):
        x, loc = problem.data.x[:, 0], problem.model.loc
        mean, variance = self.a * x + self.b, (2 * self.s).exp()
        kl = (variance + mean.square() - 1) / 2 - self.s
        rest = ((x - loc - mean).square() + variance + math.log(2 * math.pi)) / 2
        return problem.data.mean(kl + rest)

    def solve(self, problem: InnerProblem) -> Solution:
        return Solution(self.minimum(problem).double(), None, None, None)


class Anchored(Dual):
    """The dual plus (c - 2)^2: a parameter of q that descends to 2, whatever the others do."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.zeros(()))

    def minimum(self, problem, role=None):
        return super().minimum(problem, role) + (self.c - 2).square()


class Chain(Auxiliary):
    r"""An average that is pulled towards a chain: E|mean of p - chain|^2, and the chain x <- x/2 + noise moves first.

    It moves before every step of every player, by noise that is drawn for it.
    """

    uses_metric = False
    minimum_name = "E |E_p x - chain|^2"

    def __init__(self, event_shape: tuple[int, ...] = (2,), size: int = 8) -> None:
        super().__init__()
        self.register_buffer("chain", torch.zeros(size, *event_shape))
        self.register_buffer("moves", torch.zeros((), dtype=torch.int64))

    def draws(self, n, stream):
        return {"kick": stream.normal("kick", tuple(self.chain.shape))}

    def advance(self, problem, role):
        self.chain.mul_(0.5).add_(problem.draws["kick"]).add_(problem.data.x.mean(0))
        self.moves.add_(1)

    def minimum(self, problem, role=None):
        return (problem.p.x.mean(0) - self.chain).square().mean()

    def solve(self, problem):
        return Solution(self.minimum(problem).double(), None, None, None)


class Bare(Divergence):
    """A divergence that declares nothing: what its auxiliary makes of it is known to that alone."""


class OwnStep(Auxiliary):
    r"""A q-step of one's own: min_q = -E_p(v + v^2/4), Pearson's conjugate, written out here; only what must be."""

    def f(self, v, divergence, beta):
        return v

    def minimum(self, problem, role=None):
        return -problem.p.mean(problem.v + problem.v.square() / 4)

    def solve(self, problem):
        return Solution(self.minimum(problem), None, None, None)


class Said(OwnStep):
    """The same, with words of its own."""

    minimum_name = "-E_p(v + v^2/4)"

    def meaning(self, divergence, metric, alpha):
        return "lower bound of chi squared, by hand"

    def unit(self, divergence, metric):
        return "squared surprise"


class Doubled(Model):
    """x = 2 z + shift, and its particles say their z."""

    has_log_prob, has_rsample = False, True

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__(event_shape)
        self.shift = nn.Parameter(torch.zeros(event_shape))

    def forward(self, context=None):
        return PushForward(lambda z: 2 * z + self.shift, self.event_shape, self.event_shape, self.shift)

    def particles(self, draws, context=None):
        p = super().particles(draws, context)
        return replace(p, latent=draws["noise"], log_prob=-draws["noise"].square().sum(1))


class ReadsLatents(Auxiliary):
    r"""E_p |x - 2 z - shift|^2 + E_p(log p + |z|^2): zero of particles whose fields belong together, else not."""

    uses_metric = False
    minimum_name = "E_p |x - 2 z|^2"

    def minimum(self, problem, role=None):
        p = problem.p
        told = (p.x - 2 * p.latent - problem.model.shift).square().sum(1) + p.log_prob + p.latent.square().sum(1)
        return p.mean(told.to(p.x.dtype)) + (problem.draws["kick"] * p.x[:, 0]).mean() * 0

    def draws(self, n, stream):
        return {"kick": stream.normal("kick", (n,))}

    def solve(self, problem):
        return Solution(self.minimum(problem).double(), None, None, None)


class Noisy(Model):
    """A network with dropout and batch normalisation, and a density that draws on torch's own generator."""

    has_log_prob, has_rsample = True, True

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__(event_shape)
        d = self.dimension
        self.net = nn.Sequential(nn.Linear(d, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, d))

    def forward(self, context=None):
        net, like = self.net, self.net[0].weight

        class Law(PushForward):
            def log_prob(self, value):
                return -net(value.flatten(1)).square().sum(1) + torch.rand(len(value), dtype=value.dtype)

        return Law(lambda z: net(z).reshape(-1, *self.event_shape), (self.dimension,), self.event_shape, like)


class Silent(Affine):
    """It declares a density that it does not have."""

    def forward(self, context=None):
        law = super().forward(context)

        def refuse(value):
            raise NotImplementedError("this density is not known after all")

        law.log_prob = refuse
        return law


class NoisyCritic(nn.Module):
    """A critic with dropout."""

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__()
        d = math.prod(event_shape)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(d, 16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, x):
        return self.net(x).squeeze(1)


class Plain(nn.Module):
    """A constant f without parameters: one everywhere, with a graph to x."""

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__()

    def forward(self, x):
        return 1 + 0 * x.flatten(1).sum(1)
