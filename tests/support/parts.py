"""Parts of one's own with a state of their own: a divergence and a posterior with parameters, a chain in buffers.

Each has an optimum that is known in closed form, or a course that can be written down.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from divergences import Divergence
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
