"""Samples of q: with the critic that is best they are the data, whatever p_theta is."""

from __future__ import annotations

import math

import pytest
import torch

from divergences import KL, CrossEntropy, OptimalTransport, Wasserstein1
from models import Affine, Critic, GaussianMixture, Given, MLPGenerator, Particles
from se_framework import Dual, Empirical, Metric, StandardEquation, Tilted, Transported
from se_framework.commands.sample import METHODS as NAMED
from se_framework.data import TensorData
from se_framework.data.pairs import Rows
from se_framework.equation.auxiliary import InnerProblem
from se_framework.errors import ConfigError, IncompatibleError
from se_framework.training import from_q
from se_framework.training.from_q import draw_q
from tests.support.oracles import z_score

DEFAULT_DTYPE = torch.float64
N = 4_000
SHIFT, WIDTH = 0.6, 0.8
"""The data: N(0.6, 0.8^2) on a line; p_theta is N(0, 1)."""


class Slope(Critic):
    """c x, plus a x^2: log-ratios of normal laws, and potentials of shifts."""

    row_wise = True

    def __init__(self, linear, square=0.0):
        super().__init__((1,))
        self.coefficients = torch.nn.Parameter(torch.tensor([linear, square]))

    def score(self, x, context=None):
        return (self.coefficients * torch.cat([x, x.square()], 1)).sum(1)


@pytest.fixture(scope="module")
def data():
    draw = torch.Generator().manual_seed(0)
    return TensorData(10 + 3 * torch.randn(500, 1, generator=draw, dtype=torch.float64), standardize=True)


def equation(critic, divergence=None, auxiliary=None, model=None, **more):
    auxiliary = auxiliary or Dual()
    metric = Metric(critic) if critic is not None else None
    model = model or Affine((1,), init_scale=1.0)  # N(0, 1)
    return StandardEquation(model=model, divergence=divergence or KL(), auxiliary=auxiliary, metric=metric, **more)


def best():
    """log N(x; 0.6, 0.8^2) / N(x; 0, 1), up to its constant."""
    return Slope(SHIFT / WIDTH**2, 0.5 - 0.5 / WIDTH**2)


def moments(drawn, data):
    x = (drawn.x - data.loc) / data.scale
    assert x.shape == (N, 1)
    return x.mean(), x.var()


@pytest.mark.parametrize("auxiliary", [Dual(), Dual(normalised=True), Tilted()])
@pytest.mark.parametrize("method", ["resample", "reject", None])
def test_weighted_points_are_the_data(method, auxiliary, data):
    """Errors as of 500 independent points: of 40,000 proposals a third count, and a tenth is taken."""
    alpha = 1e-9 if isinstance(auxiliary, Tilted) else 0.0
    drawn = draw_q(equation(best(), auxiliary=auxiliary, alpha=alpha), data, N, 1, method)
    mean, variance = moments(drawn, data)
    assert abs(mean - SHIFT) < z_score(2) * WIDTH / N**0.5
    assert abs(variance - WIDTH**2) < z_score(2) * WIDTH**2 * (2 / N) ** 0.5


def test_what_is_said_of_weights_is_so(data):
    """E w^2 under p by the two normal laws; the share that is kept is 1 over the largest ratio."""
    precision = 2 / WIDTH**2 - 1
    exponent = SHIFT**2 * (2 / WIDTH**4 / precision - 1 / WIDTH**2)
    chi = math.exp(exponent) / WIDTH**2 / precision**0.5
    said = draw_q(equation(best()), data, N, 0, "resample").said
    total, count = (float(word) for word in said.replace(",", "").split() if word.isdigit())
    assert total == 40_000 and count / total == pytest.approx(1 / chi, rel=0.05)
    top = SHIFT / (1 - WIDTH**2)  # where the ratio of the two densities is largest
    ratio = math.exp(top**2 / 2 - (top - SHIFT) ** 2 / (2 * WIDTH**2)) / WIDTH
    said = draw_q(equation(best()), data, N, 0, "reject").said
    # The largest of 10,000 points lies a little below the top: then a little more is kept.
    assert 100 / ratio - 1 < float(said.split("%")[0].split()[-1]) < 103 / ratio + 1


def test_points_are_counted_as_they_come(data):
    """A law of 30 held-out rows gives 30, however many are asked for."""
    rest = torch.linspace(-1, 1, 30)[:, None]
    drawn = draw_q(equation(best(), model=Given((1,), Rows(rest, rest))), data, 8, 0, "resample")
    assert "from 30 points of p_theta" in drawn.said and set(drawn.x.flatten().tolist()) <= set(
        data.samples_to_user(rest).flatten().tolist()
    )


def test_langevin_dynamics_in_the_latent_space_ends_at_the_data(data, monkeypatch):
    """Of N(m, s^2) unadjusted steps of size h keep N(m, s^2 / (1 - h / (4 s^2))); 400 of them forget the start."""
    monkeypatch.setattr(from_q, "STEPS", 400)
    drawn = draw_q(equation(best()), data, N, 1, "langevin")
    mean, variance = moments(drawn, data)
    exact = WIDTH**2 / (1 - from_q.STEP / (4 * WIDTH**2))
    assert abs(mean - SHIFT) < z_score(2) * exact**0.5 / N**0.5
    assert abs(variance - exact) < z_score(2) * exact * (2 / N) ** 0.5


def test_transport_moves_every_point_where_the_potential_pays(data):
    """v(y) = 2 c y under |x - y|^2 moves by c, a 1-Lipschitz v under |x - y| by nothing."""
    drawn = draw_q(equation(Slope(2 * SHIFT), OptimalTransport(2), Transported()), data, N, 1, "transport")
    still = draw_q(equation(Slope(0.9), Wasserstein1(), allow=["lipschitz"]), data, N, 1)
    # 100 steps of 0.1 times a slope of 2 leave 0.8^100 of the way; gains near a maximum tell places to sqrt(eps) only.
    torch.testing.assert_close((drawn.x - still.x) / data.scale, torch.full((N, 1), SHIFT), atol=1e-7, rtol=0)
    assert "moved by 0.6 " in drawn.said and "moved by 0 " in still.said


def test_a_critic_steeper_than_one_moves_nothing_without_end(data):
    """What a penalty leaves is no 1-Lipschitz function: |x - y| would be paid for ever. It is flattened."""
    drawn = draw_q(equation(Slope(30.0), Wasserstein1(), allow=["lipschitz"]), data, 200, 1, "transport")
    still = draw_q(equation(Slope(0.9), Wasserstein1(), allow=["lipschitz"]), data, 200, 1)
    torch.testing.assert_close(drawn.x, still.x, atol=1e-7, rtol=0)
    critic, x = Slope(1.0, 1.0), torch.tensor([[0.0], [1.0], [4.0]])
    data_x = torch.tensor([[1.0], [-2.0]])
    problem = InnerProblem(
        critic(x), critic(data_x), Particles(data_x), Particles(x), Affine((1,)), Wasserstein1(), 0.0, 1.0, critic
    )
    within = from_q.within_slope(problem)  # x + x^2 between 1 and 4 has the slope 6, steeper than any other pair
    torch.testing.assert_close(within.v, critic(x) / 6, atol=1e-5, rtol=0)
    torch.testing.assert_close(within.v_data, critic(data_x) / 6, atol=1e-5, rtol=0)
    torch.testing.assert_close(within.metric(x), critic(x) / 6, atol=1e-5, rtol=0)
    assert bool(within.v[2] < critic(x)[2] / 6)  # a little less: no tie is decided by rounding
    assert from_q.within_slope(problem._replace(divergence=OptimalTransport(2))).metric is critic


def test_a_chain_is_drawn_for_every_sample_and_no_other(data):
    seen = []

    class Seen(Slope):
        def score(self, x, context=None):
            seen.append(len(x))
            return super().score(x)

    draw_q(equation(Seen(SHIFT / WIDTH**2)), data, 7, 1, "langevin")
    assert seen.count(7) >= from_q.STEPS and max(seen) <= from_q.BLOCK + 7  # the data's own beside them, once


def test_an_auxiliary_s_own_q_is_its_particles_moved():
    p = equation(Slope(1.0)).particles({"model/noise": torch.randn(6, 1)}).detach()
    critic = Slope(1.0)
    problem = InnerProblem(critic(p.x), critic(p.x), p, p, Affine((1,)), OptimalTransport(2), 0.0, 1.0, critic)
    torch.testing.assert_close(Transported(steps=200).q(problem).x, p.x + 0.5, atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    ("make", "method", "message"),
    [
        (lambda: equation(None, CrossEntropy(), Empirical()), None, "there is no critic"),
        (
            lambda: equation(Slope(1.0), Wasserstein1(), allow=["lipschitz"]),
            "resample",
            "the critic's output is no log-ratio there",
        ),
        (lambda: equation(Slope(1.0)), "transport", "KL is no transport at a cost: choose method=resample"),
        (lambda: equation(best(), model=GaussianMixture((1,), 2)), "langevin", "GaussianMixture has no latent"),
        (lambda: equation(Slope(1.0)), "resampled", "method=resampled: did you mean 'resample'"),
        (lambda: equation(Slope(60.0)), "reject", "keeps .* points of p_theta: the weights of q are too uneven"),
    ],
)
def test_what_has_no_such_q_is_refused(make, method, message, data, monkeypatch):
    monkeypatch.setattr(from_q, "PATIENCE", 100)
    with pytest.raises((ConfigError, IncompatibleError), match=message):
        draw_q(make(), data, 500, 0, method)


def test_a_seed_draws_the_same_and_help_names_the_methods_there_are(data):
    one, same, other = (draw_q(equation(best()), data, 300, seed, "reject").x for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert NAMED == from_q.METHODS
    # a generator's noise is N(0, I) too
    assert MLPGenerator((1,))().normal_noise
