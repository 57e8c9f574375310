"""The metric's function class and its penalties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from divergences import KL, JensenShannon
from models import GaussianMixture, GroupSortCritic, MLPCritic, MLPGenerator
from models.laws import Particles
from se_framework.data import Moons
from se_framework.equation.auxiliary import Dual
from se_framework.equation.equation import StandardEquation
from se_framework.equation.metric import Metric
from se_framework.equation.penalties import R1, GradientPenalty
from se_framework.errors import ConfigError
from se_framework.training.draws import draw_step, step_stream
from se_framework.training.objective import penalties
from se_framework.training.state import TrainState
from se_framework.training.step import play_round
from tests.support.cases import PENALTIES
from tests.support.oracles import central_difference, z_score

DEFAULT_DTYPE = torch.float64


def test_metric_checks_the_shape_and_knows_its_class():
    with pytest.raises(ValueError, match=r"metric.network Linear returned \(4, 1\) for a batch of 4: one score per"):
        Metric(nn.Linear(2, 1))(torch.zeros(4, 2))
    for part in (MLPGenerator((2,), 2), KL()):
        with pytest.raises(ConfigError, match=f"metric.network must map examples to scores, got {type(part).__name__}"):
            Metric(part)
    network = MLPCritic((2,), width=8)
    assert Metric(network).function_class == Metric(network, R1()).function_class == "unrestricted"
    assert Metric(network, GradientPenalty()).function_class == "1-Lipschitz by penalty"
    assert Metric(GroupSortCritic((2,), width=8)).function_class == "1-Lipschitz by construction"
    coupled = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1), nn.Flatten(0))
    assert Metric(coupled).batch_coupled and not Metric(network).batch_coupled


class Linear(nn.Module):
    """v = w . x over all axes."""

    def __init__(self, w: torch.Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.w * x).flatten(1).sum(1)


class Quartic(Linear):
    """v = sum w x^3 / 3 over all axes, so that the gradient differs from example to example."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.w * x**3 / 3).flatten(1).sum(1)


PENALTY_OF_NORM = {
    "two_sided": lambda n: 10 * (n - 1) ** 2,
    "one_sided": lambda n: 10 * max(n - 1, 0) ** 2,
    "r1": lambda n: 0.1 * n**2 / 2,
    "r1_r2": lambda n: 0.1 * n**2,
}


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh"])
def test_a_perceptrons_own_gradient_is_that_of_two_derivatives(activation, classes):
    """Values, and slopes in every parameter, against double differentiation; tanh has no such short way."""
    critic = MLPCritic((2, 3), width=7, depth=3, activation=activation, classes=classes)
    x, labels = torch.randn(11, 2, 3), torch.arange(11) % 3 if classes else None
    once = Metric(critic).gradient(x, labels)
    x.requires_grad_()
    (twice,) = torch.autograd.grad(critic(x, labels).sum(), x, create_graph=True)
    torch.testing.assert_close(once, twice, rtol=1e-12, atol=1e-14)
    weights = torch.randn(11, 2, 3)
    slopes = (
        torch.autograd.grad(
            (g * weights).square().sum(), list(critic.parameters()), allow_unused=True, materialize_grads=True
        )
        for g in (once, twice)
    )
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_a_perceptrons_own_gradient_is_of_its_own_type():
    torch.set_default_dtype(torch.float32)  # 0.2 of this type in the place of slopes would be off by 1e-8
    critic, x = MLPCritic((2,), width=7).double(), torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    (want,) = torch.autograd.grad(critic(x).sum(), x)
    torch.testing.assert_close(critic.gradient(x.detach()), want, rtol=1e-12, atol=1e-14)


class Counting(MLPCritic):
    """A perceptron that writes down how many rows it is given."""

    def score(self, x, context=None):
        self.rows.append(len(x))
        return super().score(x, context)


def counting(row_wise=True):
    critic = Counting((2,), width=4)
    critic.rows, critic.row_wise = [], row_wise
    return critic


def test_data_and_samples_are_scored_in_one_pass_where_rows_are_separate():
    x, y = torch.randn(5, 2), torch.randn(3, 2)
    for row_wise, rows in ((True, [8]), (False, [5, 3])):
        critic = counting(row_wise)
        v_data, v = Metric(critic).on_both(Particles(x), Particles(y))
        assert critic.rows == rows
        torch.testing.assert_close((v_data, v), (critic(x), critic(y)), rtol=1e-12, atol=1e-14)
    coupled = Metric(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1), nn.Flatten(0)))
    v_data, v = coupled.on_both(Particles(x), Particles(y))
    torch.testing.assert_close((v_data, v), (coupled(x), coupled(y)))  # each with the statistics of its own cloud
    labelled = Metric(MLPCritic((2,), width=4, classes=2))
    here, there = torch.tensor([0, 1, 1, 0, 1]), torch.tensor([1, 0, 0])
    v_data, v = labelled.on_both(Particles(x, context=here), Particles(y, context=there))
    torch.testing.assert_close((v_data, v), (labelled(x, here), labelled(y, there)))


def test_theta_does_not_score_data_unless_its_minimum_reads_that():
    """One pass over both clouds for phi, samples alone for theta; over probability q the data price q too."""
    for normalised, rows in ((False, [8, 4]), (True, [8, 8])):
        critic = counting()
        equation = StandardEquation(
            model=MLPGenerator((2,), 2, width=4), divergence=JensenShannon(), auxiliary=Dual(normalised),
            metric=Metric(critic),
        )  # fmt: skip
        play_round(TrainState(equation), Moons(), 4, 1)
        assert critic.rows == rows


def test_a_metric_without_clip_has_nothing_to_settle():
    critic = MLPCritic((2,), width=4)
    for clip in (None, 0.1):
        equation = StandardEquation(
            model=MLPGenerator((2,), 2, width=4), divergence=JensenShannon(), auxiliary=Dual(),
            metric=Metric(critic, clip=clip),
        )  # fmt: skip
        assert bool(TrainState(equation).player("phi")._settle) == (clip is not None)


penalty_case = pytest.mark.parametrize("name", PENALTIES)


@penalty_case
@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4)])
@pytest.mark.parametrize("norm", [0.25, 1.0, 4.0])
def test_penalty_of_a_linear_critic(name, shape, norm):
    """The norm runs over all axes but the batch: a gradient spread over several axes has this one number."""
    w = torch.randn(shape)
    metric = Linear(norm * w / w.norm())
    x, y, mix = torch.randn(5, *shape), torch.randn(5, *shape), torch.rand(5)
    penalty = PENALTIES[name]()
    assert float(penalty(metric, x, y, mix).detach()) == pytest.approx(PENALTY_OF_NORM[name](norm), abs=1e-12)
    assert penalty.per_example and penalty.enforces_lipschitz is isinstance(penalty, GradientPenalty)
    lazy = PENALTIES[name](weight=3.0, every=7)
    plain = PENALTIES[name](weight=1.0)
    got, want = (float(penalty(metric, x, y, mix).detach()) for penalty in (lazy, plain))
    assert got == pytest.approx(21 * want, rel=1e-12)


@penalty_case
def test_penalty_of_flattened_inputs_is_the_same(name):
    shape = (2, 3, 4)
    w, x, y, mix = torch.randn(shape), torch.randn(5, *shape), torch.randn(5, *shape), torch.rand(5)
    whole = PENALTIES[name]()(Quartic(w), x, y, mix)
    flat = PENALTIES[name]()(Quartic(w.flatten()), x.flatten(1), y.flatten(1), mix)
    torch.testing.assert_close(whole, flat, rtol=1e-12, atol=1e-12)


@penalty_case
def test_penalty_is_the_mean_over_examples_at_the_stated_points(name):
    """One mixing weight per example, epsilon on data and 1 - epsilon on samples; R1 on data, R2 on samples."""
    shape = (2, 2)
    w, x, y, mix = torch.randn(shape), torch.randn(3, *shape), torch.randn(3, *shape), torch.rand(3)
    got = float(PENALTIES[name]()(Quartic(w), x, y, mix).detach())

    def norm(point):
        return float((w * point**2).norm())

    between = [norm(e * a + (1 - e) * b) for e, a, b in zip(mix, x, y, strict=True)]
    exact = {
        "two_sided": np.mean([10 * (n - 1) ** 2 for n in between]),
        "one_sided": np.mean([10 * max(n - 1, 0) ** 2 for n in between]),
        "r1": 0.05 * np.mean([norm(a) ** 2 for a in x]),
        "r1_r2": 0.05 * np.mean([norm(a) ** 2 + norm(b) ** 2 for a, b in zip(x, y, strict=True)]),
    }[name]
    assert got == pytest.approx(exact, rel=1e-12)


@penalty_case
def test_a_mean_over_particles_weighs_them(name):
    """v = sum w x^3 / 3 has slope w x^2; every particle, of mass e^(log weight), meets an example in turn, by hand."""
    w, x, y = torch.tensor([0.7, -1.3]), torch.randn(3, 2), torch.randn(7, 2)
    log_weights, mix = torch.randn(7).log_softmax(0), torch.rand(3)
    got = float(PENALTIES[name]()(Quartic(w), x, y, mix, log_weights.exp()).detach())
    mass, v = log_weights.exp().numpy(), w.numpy()

    def norm(point):
        return float(np.linalg.norm(v * np.asarray(point) ** 2))

    a, e = x.numpy(), mix.numpy()
    between = [norm(e[j % 3] * a[j % 3] + (1 - e[j % 3]) * y[j].numpy()) for j in range(7)]
    on_data = np.mean([norm(point) ** 2 for point in a])
    exact = {
        "two_sided": np.sum([10 * m * (n - 1) ** 2 for m, n in zip(mass, between, strict=True)]),
        "one_sided": np.sum([10 * m * max(n - 1, 0) ** 2 for m, n in zip(mass, between, strict=True)]),
        "r1": 0.05 * on_data,
        "r1_r2": 0.05 * (on_data + np.sum([m * norm(point) ** 2 for m, point in zip(mass, y.numpy(), strict=True)])),
    }[name]
    assert got == pytest.approx(exact, rel=1e-12)


def test_the_penalty_of_a_mixtures_quadrature_is_that_of_its_law():
    """E |x|^2 of p, whose components have masses 0.99 and 0.01: v = |x|^2 / 2, so R1 on samples is that moment."""

    class Half(nn.Module):
        def forward(self, x, context=None):
            return x.square().sum(1) / 2

    model = GaussianMixture((2,), components=2, init_scale=1.0)
    with torch.no_grad():
        model.logits.copy_(torch.tensor([0.99, 0.01]).log())
        model.loc.copy_(torch.tensor([[0.0, 0.0], [6.0, 0.0]]))
        model.log_excess.fill_(math.log(0.5 - 0.01))
    metric = Metric(Half(), R1(2.0, fake=True))
    metric.extra = nn.Parameter(torch.zeros(()))
    equation = StandardEquation(model=model, divergence=KL(), auxiliary=Dual(), metric=metric)
    x, stream = Particles(torch.zeros(4000, 2)), step_stream(0, 0, "phi", 0, torch.zeros(1))
    draws = draw_step(equation, ("own",), x, stream)
    p = equation.particles(draws)
    assert p.log_weights is not None
    (found,) = penalties(equation, ("own",), x, p, draws)
    second = 2 * 0.25 + 0.01 * 36  # trace of the covariance within, and the far mean
    squares = p.x.square().sum(1).detach()
    error = float((p.log_weights.detach().exp().square() * (squares - squares.mean()).square()).sum().sqrt())
    assert float(found.detach()) == pytest.approx(second, abs=z_score(1) * error)


@penalty_case
def test_penalty_gradient(name):
    critic = MLPCritic((2,), width=6, activation="tanh")
    x, y, mix = 3 * torch.randn(4, 2), torch.randn(4, 2), torch.rand(4)
    weight = next(p for p in critic.parameters() if p.ndim == 2)
    penalty = PENALTIES[name]()
    (gradient,) = torch.autograd.grad(penalty(critic, x, y, mix), weight)
    start = weight.detach().clone()

    def at(w):
        with torch.no_grad():
            weight.copy_(w)
        return penalty(critic, x, y, mix).detach()

    numeric = central_difference(at, start)
    torch.testing.assert_close(gradient, numeric, rtol=1e-6, atol=1e-8)


@penalty_case
def test_penalty_gradient_is_finite_where_the_critic_is_flat(name):
    metric = Linear(torch.zeros(3))
    value = PENALTIES[name]()(metric, torch.randn(4, 3), torch.randn(4, 3), torch.rand(4))
    (gradient,) = torch.autograd.grad(value, metric.w)
    assert gradient.isfinite().all() and float(value.detach()) == pytest.approx(PENALTY_OF_NORM[name](0.0), rel=1e-9)


@pytest.mark.parametrize("bad", [{"weight": -1.0}, {"weight": math.nan}, {"weight": math.inf}, {"every": 0}])
@penalty_case
def test_bad_penalties_are_refused(name, bad):
    with pytest.raises(ConfigError, match=r"metric.penalty needs weight >= 0 and every >= 1, got"):
        PENALTIES[name](**bad)


# -- legality ---------------------------------------------------------------------------------------------------------
