r"""Claims on sums of equations, on the search of a c-transform, and on what players and the record read of each q."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from divergences import GAN, KL, CrossEntropy, OptimalTransport, Pearson
from models import Affine, TabularCritic
from models.laws import Particles
from se_framework.equation.auxiliary import Dual, Empirical, Tilted, Transported
from se_framework.equation.equation import StandardEquation
from se_framework.equation.metric import Metric
from se_framework.verify import references as ref
from se_framework.verify.alphabet import equation, phi_slope, scores, set_critic, simplex, terms, theta_slope, value
from se_framework.verify.claims import Comparison, claim, equal

Q, P, V, W = simplex(seed=81), simplex(seed=82), scores(seed=83), scores(seed=84)


def _sum() -> StandardEquation:
    """Return KL's dual at critic W plus 0.3 times Pearson's at V plus 0.7 times cross-entropy to the data, beta 1.5."""
    whole = equation(KL(), P)
    pearson = StandardEquation(
        model=whole.model, divergence=Pearson(), auxiliary=Dual(), metric=Metric(TabularCritic(letters=len(P)))
    )
    set_critic(pearson, V)
    nll = StandardEquation(model=whole.model, divergence=CrossEntropy(), auxiliary=Empirical(), beta=1.5)
    plus = {"pearson": (0.3, pearson), "nll": (0.7, nll)}
    return StandardEquation(model=whole.model, divergence=KL(), auxiliary=Dual(), metric=whole.metric, plus=plus)


def _by_hand(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits) / np.exp(logits).sum()
    kl = (Q * (1 + W)).sum() - (p * np.exp(W)).sum()
    pearson = (Q * 2 * (np.exp(V) - 1)).sum() - (p * (np.exp(2 * V) - 1)).sum()
    return kl + 0.3 * pearson - 0.7 * 1.5 * (Q * np.log(p)).sum()


@claim("a sum of equations is the weighted sum of their scalars, and theta's slope that of the one number", "linearity")
def sum_of_equations() -> Iterator[Comparison]:
    of = _sum()
    yield equal("value", value(of, Q, W), float(_by_hand(np.log(P))))
    yield equal("slope of theta", theta_slope(of, Q, W), ref.complex_slope(_by_hand, np.log(P)))
    yield equal("slope of phi", phi_slope(of, Q, W), Q - P * np.exp(W))


class _Bowl(nn.Module):
    """v = c |x|^2."""

    def __init__(self, c: float) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.tensor(c))

    def forward(self, x: Tensor) -> Tensor:
        return self.c * x.square().flatten(1).sum(1)


@claim("sup_y c|y|^2 - k|x - y|^2 = k c |x|^2/(k - c): found with its slope, at any beta", "Villani 2003, 1.3")
def search_of_the_c_transform() -> Iterator[Comparison]:
    divergence = OptimalTransport()
    k = float(divergence.ground_cost(torch.ones(1)))
    for d, c, beta in ((1, 0.4 * k, 1.0), (3, 0.4 * k, 2.5), (3, -1.0 * k, 0.5)):
        x, y = (np.random.default_rng(seed).standard_normal((8, d)) for seed in (85, 86))
        of = StandardEquation(
            model=Affine((d,)), divergence=divergence, auxiliary=Transported(400, 0.1 / k), metric=Metric(_Bowl(c)),
            beta=beta,
        )  # fmt: skip
        points = torch.as_tensor(x).requires_grad_()
        scalar = of.scalar(Particles(torch.as_tensor(y)), Particles(points))
        (slope,) = torch.autograd.grad(scalar, points)
        factor = k * c / (k - c)
        truth = beta * (c * (y**2).sum(1).mean() - factor * (x**2).sum(1).mean())
        yield equal(f"value, d {d}, beta {beta:g}", float(scalar.detach()), truth)
        yield equal(f"slope, d {d}, beta {beta:g}", slope.cpu().numpy(), -2 * beta * factor * x / len(x))


@claim("the slope of phi is pd - q*: with alpha > 0 as without", "Danskin 1966; Hu and Xing 2022")
def phi_reads_the_difference() -> Iterator[Comparison]:
    for alpha, beta, kl in ((0.5, 1.0, False), (2.0, 0.3, False), (0.5, 1.4, True)):
        of = equation(KL() if kl else CrossEntropy(), P, Tilted(), alpha=alpha, beta=beta)
        weights = np.exp((beta * np.log(P) + V) / (alpha + kl * beta))
        yield equal(f"alpha {alpha}, beta {beta}, kl={kl}", phi_slope(of, Q, V), Q - weights / weights.sum())
    weights = P * np.exp(V)
    yield equal("probability q", phi_slope(equation(KL(), P, Dual(normalised=True)), Q, V), Q - weights / weights.sum())


@claim("H(q) on record is -sum q log q: of q = p e^v, or of q = p e^v/Z over probabilities", "Nguyen et al. 2010")
def entropy_under_the_duals() -> Iterator[Comparison]:
    for divergence in (KL(), Pearson(), GAN()):
        q = P * np.exp(V)
        name = type(divergence).__name__
        yield equal(f"{name}, unnormalised q", terms(equation(divergence, P), Q, V).entropy, -(q * np.log(q)).sum())
    q = P * np.exp(V) / (P @ np.exp(V))
    row = terms(equation(KL(), P, Dual(normalised=True)), Q, V)
    yield equal("KL, probability q", row.entropy, -(q * np.log(q)).sum())
    f = 2 * np.expm1(0.2 * V)  # Pearson's q is p (1 + (f - lambda)/2), positive at these scores
    q = P * (1 + (f - P @ f) / 2)
    row = terms(equation(Pearson(), P, Dual(normalised=True)), Q, 0.2 * V)
    yield equal("Pearson, probability q", row.entropy, -(q * np.log(q)).sum())
