r"""Claims on the game's dynamics near its equilibrium, on the smallest game there is.

The *Dirac game* (Mescheder, Geiger, Nowozin 2018): data at 0, a model at :math:`\theta`, a critic
:math:`v(x) = \psi x`. Its vector field is :math:`(-\partial_\theta T, +\partial_\psi (T - R))` with T the equation's
scalar and R the metric's penalty; its Jacobian at (0, 0) tells whether the players converge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev

from divergences import (
    GAN,
    KL,
    Alpha,
    Divergence,
    Jeffreys,
    JensenShannon,
    Neyman,
    Pearson,
    ReverseKL,
    SoftenedReverseKL,
    SquaredHellinger,
    Wasserstein1,
)
from models.base import Model
from models.laws import Particles, Weighted
from se_framework.equation.auxiliary import Dual
from se_framework.equation.equation import StandardEquation
from se_framework.equation.metric import Metric
from se_framework.equation.penalties import R1, GradientPenalty, Penalty
from se_framework.verify.claims import Comparison, claim, equal, rate

State = Tensor
Field = Callable[[State], State]


class DiracModel(Model):
    """A point at theta, or a normal law around it by quadrature (instance noise).

    Args:
        noise: standard deviation around the point.
    """

    has_log_prob = False
    has_rsample = True

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__((1,))
        self.location = nn.Parameter(torch.zeros(1))
        self.rule = quadrature(noise)

    def forward(self, context: Tensor | None = None) -> Weighted:
        """Return the law: points of the rule around theta."""
        return Weighted(self.rule.x + self.location, self.rule.log_weights)  # type: ignore[arg-type]


def quadrature(noise: float) -> Particles:
    """Return a normal law of this standard deviation around 0 as particles: one point where it is zero."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40 if noise else 1)
    home = torch.get_default_device()
    x = torch.as_tensor(noise * nodes[:, None]).to(home)
    return Particles(x, torch.as_tensor(np.log(weights / weights.sum())).to(home))


class DiracGame(nn.Module):
    """The two players' scalars as functions of (theta, psi).

    Args:
        divergence: D.
        view: through which theta sees the critic; D by default.
        penalty: of the metric.
        noise: instance noise on data and model.
    """

    def __init__(
        self,
        divergence: Divergence,
        view: Divergence | None = None,
        penalty: Penalty | None = None,
        noise: float = 0.0,
    ) -> None:
        super().__init__()
        critic = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Flatten(0))
        allow = ["lipschitz"] if divergence.needs_lipschitz and penalty is None else []
        self.equation = StandardEquation(
            model=DiracModel(noise),
            divergence=divergence,
            auxiliary=Dual(),
            metric=Metric(critic, penalty),
            allow=allow,
        )
        self.view, self.data = view, quadrature(noise)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return what theta descends on and what phi ascends on."""
        p, metric = self.equation.sample(0), self.equation.metric
        assert p is not None and metric is not None
        theta, phi = (self.equation.scalar(self.data, p, view) for view in (self.view, None))
        if metric.penalty is not None:
            mix = torch.full((1,), 0.5)
            phi = phi - metric.penalty(metric, self.data.x, p.x.detach(), mix)
        return theta, phi

    def field(self, z: State) -> State:
        """Return the direction in which the players move from z = (theta, psi)."""
        names = ("equation.model.location", "equation.metric.network.0.weight")
        theta, psi = z[:1], z[1:].reshape(1, 1)

        def scalars(theta: Tensor, psi: Tensor) -> tuple[Tensor, Tensor]:
            return functional_call(self, dict(zip(names, (theta, psi), strict=True)), ())

        down, up = grad(lambda t: scalars(t, psi)[0])(theta), grad(lambda s: scalars(theta, s)[1])(psi)
        return torch.cat([-down, up.flatten()])


def eigenvalues(field: Field) -> np.ndarray:
    """Return the eigenvalues of the field's Jacobian at (0, 0), the largest imaginary part first."""
    found = torch.linalg.eigvals(jacrev(field)(torch.zeros(2))).cpu().numpy()
    return found[np.lexsort((-found.real, -found.imag))]


def pair(real: float, square: float) -> np.ndarray:
    """Return real +- sqrt(square), complex where the square is negative, in the order of :func:`eigenvalues`."""
    root = np.emath.sqrt(square)
    return np.array([real + root, real - root])


def _spectrum(label: str, field: Field, truth: np.ndarray) -> Comparison:
    found = eigenvalues(field)
    return equal(label, np.stack([found.real, found.imag]), np.stack([truth.real, truth.imag]))


def consensus(field: Field, weight: float) -> Field:
    r"""Return the field less :math:`\gamma\nabla\tfrac12|v|^2` (Mescheder, Nowozin, Geiger 2017)."""
    return lambda z: field(z) - weight * jacrev(lambda y: field(y).square().sum() / 2)(z)


def simulate(field: Field, how: str, h: float = 0.2, steps: int = 500, clip: float | None = None) -> np.ndarray:
    """Return the path from (1, -1), shape (steps + 1, 2): v = psi x falls from data to model there, as in the paper.

    Args:
        field: the game's.
        how: ``simultaneous``, ``alternating`` (theta first) or ``extragradient``.
        h: step size.
        steps: their number.
        clip: psi is kept in [-clip, clip].
    """
    z = torch.tensor([1.0, -1.0])
    path = [z]
    for _ in range(steps):
        if how == "alternating":
            z = z + h * field(z) * torch.tensor([1.0, 0.0])
            z = z + h * field(z) * torch.tensor([0.0, 1.0])
        else:
            z = z + h * field(z + h * field(z) if how == "extragradient" else z)
        if clip is not None:
            z = torch.stack([z[0], z[1].clamp(-clip, clip)])
        path.append(z)
    return torch.stack(path).detach().cpu().numpy()


def radius(path: np.ndarray) -> float:
    """Return the distance of the last state from the equilibrium."""
    return float(np.linalg.norm(path[-1]))


SOURCE = "Mescheder, Geiger, Nowozin 2018"


@claim("eigenvalues +-0.5i: the first game circles, in its non-saturating form too", f"{SOURCE}, lemma 2.3")
def spectrum_of_the_first_game() -> Iterator[Comparison]:
    yield _spectrum("one scalar", DiracGame(GAN()).field, pair(0, -0.25))
    yield _spectrum("non-saturating", DiracGame(GAN(), view=SoftenedReverseKL()).field, pair(0, -0.25))


@claim("eigenvalues +-i h''(1): every f-divergence circles", "by hand: the mixed derivative is (h*(h'(e^v)))' = h''(1)")
def spectrum_of_f_games() -> Iterator[Comparison]:
    curvature: list[tuple[Divergence, float]] = [
        (KL(), 1.0), (ReverseKL(), 1.0), (JensenShannon(), 0.25), (SquaredHellinger(), 0.5), (Jeffreys(), 2.0),
        (Pearson(), 2.0), (Neyman(), 2.0), (SoftenedReverseKL(), 0.5), (Alpha(0.3), 1.0),
    ]  # fmt: skip
    for divergence, second in curvature:
        yield _spectrum(type(divergence).__name__, DiracGame(divergence).field, pair(0, -(second**2)))


@claim("eigenvalues +-i: a transport game circles", f"{SOURCE}, section 2.3")
def spectrum_of_the_transport_game() -> Iterator[Comparison]:
    yield _spectrum("unpenalised", DiracGame(Wasserstein1()).field, pair(0, -1))


@claim("zero-centred penalty g: eigenvalues -g/2 +- sqrt(g^2/4 - 1/4), critical at g = 1", f"{SOURCE}, lemma 4.1")
def spectrum_under_r1() -> Iterator[Comparison]:
    for weight in (0.1, 0.3, 1.0, 2.0):
        truth = pair(-weight / 2, weight**2 / 4 - 0.25)
        if weight == 1.0:  # a double eigenvalue is found to the root of the rounding, its mean and product are not
            found = eigenvalues(DiracGame(GAN(), penalty=R1(weight)).field)
            yield equal("critical, sum", found.sum().real, -1.0)
            yield equal("critical, product", np.prod(found).real, 0.25)
            continue
        yield _spectrum(f"data, {weight}", DiracGame(GAN(), penalty=R1(weight)).field, truth)
        fake = DiracGame(GAN(), penalty=R1(weight / 2, fake=True)).field  # half on data, half on samples
        yield _spectrum(f"data and samples, {weight}", fake, truth)


@claim("instance noise s: eigenvalues -s^2/4 +- sqrt(s^4/16 - 1/4)", f"{SOURCE}, lemma 3.2")
def spectrum_under_instance_noise() -> Iterator[Comparison]:
    # f'' (0) = -1/4 multiplies E x^2 = s^2 once for data and once for samples: -s^2/2 in psi, none in theta.
    for noise in (0.3, 0.7):
        truth = pair(-(noise**2) / 4, noise**4 / 16 - 0.25)
        yield _spectrum(f"{noise}", DiracGame(GAN(), noise=noise).field, truth)


@claim("consensus g: eigenvalues -g/4 +- 0.5i", "Mescheder, Nowozin, Geiger 2017; with half the squared norm")
def spectrum_under_consensus() -> Iterator[Comparison]:
    for weight in (0.3, 1.0):
        yield _spectrum(f"{weight}", consensus(DiracGame(GAN()).field, weight), pair(-weight / 4, -0.25))


@claim("a gradient penalty with target one has no stationary point at the equilibrium", f"{SOURCE}, section 2.3")
def target_one_does_not_rest() -> Iterator[Comparison]:
    # The field is discontinuous at psi = 0: its two sides point outwards by 2 weight (1 - |psi|).
    field, small = DiracGame(Wasserstein1(), penalty=GradientPenalty(weight=0.7)).field, 1e-6
    yield equal("from above", field(torch.tensor([0.0, small]))[1], 1.4 * (1 - small))
    yield equal("from below", field(torch.tensor([0.0, -small]))[1], -1.4 * (1 - small))


@claim(
    "simultaneous steps h leave by sqrt(1 + h^2/4) a step, alternating ones stay on the unit circle", f"{SOURCE}, 2.3"
)
def moduli_of_one_step() -> Iterator[Comparison]:
    field = DiracGame(GAN()).field
    for h in (0.1, 0.4):
        jacobian = jacrev(field)(torch.zeros(2))
        eye, first, second = torch.eye(2), torch.diag(torch.tensor([1.0, 0.0])), torch.diag(torch.tensor([0.0, 1.0]))
        simultaneous = eye + h * jacobian
        alternating = (eye + h * second @ jacobian) @ (eye + h * first @ jacobian)
        extra = eye + h * jacobian @ (eye + h * jacobian)
        c = h / 2
        for label, step, modulus in (
            ("simultaneous", simultaneous, np.sqrt(1 + c**2)), ("alternating", alternating, 1.0),
            ("extragradient", extra, np.sqrt(1 - c**2 + c**4)),
        ):  # fmt: skip
            yield equal(f"{label}, h = {h}", torch.linalg.eigvals(step).abs(), [modulus, modulus])


@claim("from (1, -1) with h = 0.2, 500 steps: who circles, who converges", f"{SOURCE}, figure 3; recomputed")
def final_radii() -> Iterator[Comparison]:
    first, non_saturating = DiracGame(GAN()), DiracGame(GAN(), view=SoftenedReverseKL())
    transport = DiracGame(Wasserstein1(), penalty=GradientPenalty(weight=0.35))  # theirs is 0.7, halved
    runs: list[tuple[str, Field, float | None, float, float]] = [
        ("one scalar", first.field, None, 3.097, 1.421),
        ("non-saturating", non_saturating.field, None, 0.640, 0.284),
        ("transport, clipped", DiracGame(Wasserstein1()).field, 1.0, 1.002, 1.024),
        ("transport, target one", transport.field, None, 1.802, 1.221),
    ]
    for label, field, clip, simultaneous, alternating in runs:
        for how, truth in (("simultaneous", simultaneous), ("alternating", alternating)):
            # The reference has four digits.
            yield equal(f"{label}, {how}", radius(simulate(field, how, clip=clip)), truth, tolerance=1e-3)
    for label, field in (
        ("penalised 0.3", DiracGame(GAN(), penalty=R1(0.3)).field), ("noise 0.7", DiracGame(GAN(), noise=0.7).field),
        ("non-saturating, 0.3", DiracGame(GAN(), view=SoftenedReverseKL(), penalty=R1(0.3)).field),
        ("consensus 1", consensus(first.field, 1.0)),
    ):  # fmt: skip
        # Once near the equilibrium each step multiplies the radius by the modulus of the step's eigenvalues.
        path = np.linalg.norm(simulate(field, "simultaneous"), axis=1)
        modulus = np.abs(1 + 0.2 * eigenvalues(field)).max()
        yield rate(f"{label}, linear", np.exp(np.arange(200, 500)), path[200:500], float(np.log(modulus)))
