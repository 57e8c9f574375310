"""The Fisher IPM against closed forms and search; learned kernels: phi maximises MMD over bandwidths."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import optimize, stats
from torch import nn

from divergences import MMD, FisherIPM
from models import Affine, TabularModel
from models.laws import Particles
from se_framework.equation.auxiliary import Embedded
from se_framework.equation.equation import StandardEquation
from se_framework.equation.metric import Metric
from tests.support.oracles import EPS, central_difference, letters, simplex, z_score

DEFAULT_DTYPE = torch.float64
K = 6


def at(d, x, y, a=None, b=None):
    return d.primal(Particles(x, None if a is None else a.log()), None, Particles(y, None if b is None else b.log()))


class Scaled(nn.Module):
    """A linear embedding x -> scale x, neither Lipschitz nor bounded: the bandwidth of a kernel on it is 1/scale."""

    outputs = 1

    def __init__(self, scale):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def forward(self, x):
        return self.log_scale.exp() * x


class Table(nn.Module):
    """One free row of features per letter: with K columns, every function on the alphabet is linear in it."""

    def __init__(self, features):
        super().__init__()
        self.outputs, self.features = features.shape[1], nn.Parameter(features)

    def forward(self, x):
        return nn.functional.one_hot(x[:, 0].long(), K).to(self.features) @ self.features


def on_letters(q, p, features, ridge=0.0):
    model = TabularModel(letters=K)
    with torch.no_grad():
        model.logits.copy_(torch.as_tensor(np.log(p)))
    game = StandardEquation(
        model=model, divergence=FisherIPM(ridge), auxiliary=Embedded(), metric=Metric(Table(features))
    )
    return game, game.scalar(letters(q), game.sample(0))


@pytest.mark.parametrize("seed", range(3))
def test_over_all_functions_it_is_the_root_of_twice_the_triangular_discrimination(seed):
    """Mroueh and Sercu 2017, theorem 1; any features of full rank span the functions, and D does not see which."""
    q, p = simplex(K, seed), simplex(K, seed + 40)
    exact = math.sqrt(2 * ((q - p) ** 2 / (q + p)).sum())
    for features in (torch.eye(K), torch.randn(K, K), 1e3 * torch.randn(K, K + 2)[:, :K]):
        game, value = on_letters(q, p, features)
        condition = float(torch.linalg.cond(features)) ** 2
        assert float(value.detach()) == pytest.approx(exact, abs=100 * EPS * (10 + condition))
        # theta's slope is that of D itself, not of E_p f alone at a frozen critic with its constraint forgotten.
        (slope,) = torch.autograd.grad(value, game.model.logits)

        def d(logits, q=q):
            w = torch.softmax(logits, 0).numpy()
            return torch.tensor(math.sqrt(2 * ((q - w) ** 2 / (q + w)).sum()))

        numeric = central_difference(d, game.model.logits)
        torch.testing.assert_close(slope, numeric, rtol=0, atol=1e-9 + 100 * EPS * condition)


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_the_inner_maximum_is_that_of_a_search(k, ridge):
    """max over w and c of a difference of means of wx + c under a bound on second moments, by sequential programs."""
    q, p, features = simplex(K, 1), simplex(K, 2), np.random.default_rng(k).standard_normal((K, k))
    spread = (
        np.cov(features.T, aweights=(q + p) / 2, ddof=0).trace()
        if k > 1
        else np.cov(features[:, 0], aweights=q + p, ddof=0)
    )
    affine = np.concatenate([features, np.ones((K, 1))], 1)
    moment = affine.T @ (affine * ((q + p) / 2)[:, None])
    moment[:k, :k] += ridge * spread / k * np.eye(k)
    delta = (q - p) @ affine
    found = optimize.minimize(
        lambda w: -w @ delta, delta, jac=lambda w: -delta, method="SLSQP", options={"ftol": 1e-15, "maxiter": 500},
        constraints={"type": "ineq", "fun": lambda w: 1 - w @ moment @ w, "jac": lambda w: -2 * moment @ w},
    )  # fmt: skip
    got = float(on_letters(q, p, torch.as_tensor(features), ridge)[1].detach())
    assert got == pytest.approx(-found.fun, rel=1e-7)
    assert got <= math.sqrt(2 * ((q - p) ** 2 / (q + p)).sum()) + 1e-12  # fewer functions, a smaller maximum


def test_phi_climbs_to_the_maximum_over_all_functions():
    """One learned feature is enough: the best is (q - p)/(q + p)."""
    q, p = simplex(K, 5), simplex(K, 6)
    game, _ = on_letters(q, p, torch.randn(K, 1))
    phi = torch.optim.Adam(game.metric.parameters(), lr=0.02)
    for _ in range(1500):
        phi.zero_grad()
        (-game.scalar(letters(q), game.sample(0))).backward()
        phi.step()
    exact = math.sqrt(2 * ((q - p) ** 2 / (q + p)).sum())
    assert exact - 1e-6 < float(game.scalar(letters(q), game.sample(0)).detach()) <= exact + 1e-12
    learned, best = game.metric.network.features.detach().numpy()[:, 0], (q - p) / (q + p)
    learned = learned - learned @ (q + p) / 2  # D is blind to a constant
    cosine = abs(learned @ (best * (q + p))) / math.sqrt((learned**2 @ (q + p)) * (best**2 @ (q + p)))
    assert cosine == pytest.approx(1, abs=1e-5)


def test_between_gaussians_by_moments():
    """On the line with features x: |m1 - m2| over the deviation of the mixture; two when nothing else is in it."""
    z = torch.special.ndtri((torch.arange(2000.0) + 0.5) / 2000)[:, None]
    second = float(z.square().mean())
    got = float(at(FisherIPM(0.0), 1.0 + 0.5 * z, -0.4 + 2 * z))
    exact = 1.4 / math.sqrt((0.25 * second + 4 * second) / 2 + 0.7**2)
    assert got == pytest.approx(exact, rel=1e-12)
    assert float(at(FisherIPM(0.0), torch.ones(3, 1), -torch.ones(2, 1))) == pytest.approx(2, rel=1e-14)


def test_slopes_vmap_and_compile():
    x, y, a, b = torch.randn(8, 3), torch.randn(7, 3) + 0.5, torch.rand(8), torch.rand(7).softmax(0)

    def value(x, y, log_a):
        return at(FisherIPM(0.01), x, y, log_a.softmax(0), b)

    inputs = [t.clone().requires_grad_() for t in (x, y, a)]
    assert torch.autograd.gradcheck(value, inputs) and torch.autograd.gradgradcheck(value, inputs)
    mapped = torch.func.vmap(torch.func.grad(value))(torch.stack([x, 2 * x]), torch.stack([y, y]), torch.stack([a, a]))
    compiled = torch.compile(value, backend="aot_eager", fullgraph=True)
    single = torch.autograd.grad(value(*inputs), inputs)
    torch.testing.assert_close(mapped[0], single[0], rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(torch.autograd.grad(compiled(*inputs), inputs), single, rtol=1e-11, atol=1e-13)


def test_bias_of_samples_of_one_law_is_as_documented():
    """D^2 of two samples of N points of N(0, I_k) has mean 2k/N to the first order in k/N."""
    n, k, draws = 1000, 3, 4000
    x, y = torch.randn(draws, n, k), torch.randn(draws, n, k)
    squares = torch.func.vmap(lambda x, y: at(FisherIPM(0.0), x, y))(x, y).square()
    se = float(squares.std()) / draws**0.5
    assert abs(float(squares.mean()) - 2 * k / n) < z_score() * se + 2 * k / n * (5 * k / n)


def test_ridge_and_zero():
    with pytest.raises(ValueError, match="FisherIPM takes a finite ridge >= 0, got -1"):
        FisherIPM(-1)
    x = torch.randn(5, 2)
    flat = torch.cat([x, torch.zeros(5, 1)], 1).requires_grad_()  # a feature that is always zero
    value = at(FisherIPM(), flat, flat.detach() + torch.tensor([1.0, 0, 0]))
    (slope,) = torch.autograd.grad(value, flat)
    assert 0 < float(value.detach()) < 2 and slope.isfinite().all()
    (slope,) = torch.autograd.grad(at(FisherIPM(), flat, flat.detach().clone()), flat)
    assert not slope.any()


# -- learned kernels --------------------------------------------------------------------------------------------------


def test_phi_learns_the_bandwidth_that_maximises_mmd():
    """An embedding x -> s x under a gaussian kernel of width 1 is a kernel of width 1/s (Li et al. 2017).

    N(0, 1) against N(m, 1): E k = (b^2/(b^2 + v))^(1/2) exp(-d^2/(2 (b^2 + v))), v of the difference of two points.
    """
    m = 2.0
    x = torch.arange(-12, 14, 0.05)
    q, p = (Particles(x[:, None], torch.as_tensor(stats.norm.logpdf(x, c, 1.0) + math.log(0.05))) for c in (0.0, m))

    def exact(log_scale):
        b2 = math.exp(-2 * log_scale)
        return math.sqrt(b2 / (b2 + 2)) * (2 - 2 * math.exp(-m * m / (2 * (b2 + 2))))

    game = StandardEquation(
        model=Affine((1,)), divergence=MMD(bandwidths=(1.0,)), auxiliary=Embedded(), metric=Metric(Scaled(3.0))
    )
    theta = game.metric.network.log_scale
    (slope,) = torch.autograd.grad(game.scalar(q, p), theta)
    start = math.log(3.0)
    assert float(game.scalar(q, p).detach()) == pytest.approx(exact(start), abs=1e-12)
    assert float(slope) == pytest.approx((exact(start + 1e-5) - exact(start - 1e-5)) / 2e-5, abs=1e-9)
    phi = torch.optim.LBFGS([theta], line_search_fn="strong_wolfe", max_iter=50, tolerance_grad=1e-10)

    def closure():
        phi.zero_grad()
        loss = -game.scalar(q, p)
        loss.backward()
        return loss

    phi.step(closure)
    best = optimize.minimize_scalar(lambda s: -exact(s), bounds=(-4, 3), method="bounded", options={"xatol": 1e-10})
    assert float(theta.detach()) == pytest.approx(best.x, abs=1e-5)
