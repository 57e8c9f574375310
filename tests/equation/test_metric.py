"""The metric: clipping, embeddings in the place of scores, and what a network does after each step of phi."""

from __future__ import annotations

import math

import pytest
import torch

from divergences import GAN, KL, Alpha, EnergyDistance, Neyman, Pearson, ReverseKL, Sinkhorn, Wasserstein1
from divergences.checks.running import METRIC
from models import Affine, GroupSortCritic, GroupSortEmbedding, MLPCritic, MLPEmbedding, Particles, SpectralCritic
from se_framework import Dual, GradientPenalty, Metric, StandardEquation, TrainState, train
from se_framework.equation.auxiliary import Embedded
from se_framework.errors import ConfigError
from se_framework.training.players import make_players

DEFAULT_DTYPE = torch.float64


def equation(metric, divergence=None, auxiliary=None):
    """Return an equation of an affine model in the plane."""
    return StandardEquation(
        model=Affine((2,)), divergence=divergence or Wasserstein1(), auxiliary=auxiliary or Dual(), metric=metric
    )


def test_clipping_holds_from_the_start_and_after_every_step():
    metric = Metric(MLPCritic((2,), width=16), clip=0.05)
    assert metric.function_class == "Lipschitz by clipping, of unknown constant"
    largest = lambda: max(float(p.detach().abs().max()) for p in metric.parameters())  # noqa: E731
    assert largest() <= 0.05
    state = TrainState(equation(metric))
    train(state, 3 + torch.randn(64, 2), rounds=20, batch_size=32, log_every=0, progress=False)
    assert largest() == 0.05  # the game pushes against the bound, and the bound holds
    with pytest.raises(ConfigError, match="metric.clip must be a positive number or null, got 0"):
        Metric(MLPCritic((2,)), clip=0.0)


def test_what_settles_does_so_in_steps_only():
    """Reading a metric leaves it alone; a step of phi, not of theta, lets it settle."""
    metric = Metric(SpectralCritic((2,), width=16, depth=2))
    state = TrainState(equation(metric))
    buffers = {name: b.clone() for name, b in metric.named_buffers()}
    assert buffers
    for _ in range(3):
        metric(torch.randn(5, 2))
    state.equation.terms(Particles(torch.randn(8, 2)), state.equation.sample(8))
    assert all(torch.equal(b, buffers[name]) for name, b in metric.named_buffers())
    train(state, torch.randn(64, 2), rounds=1, batch_size=16, log_every=0, progress=False)
    assert any(not torch.equal(b, buffers[name]) for name, b in metric.named_buffers())


def test_averages_settle_by_their_own_weights():
    """The largest singular value is known to n^(1/2^11), n = 16: 0.14 %; by the last weights' vector it would lag."""
    game = equation(Metric(SpectralCritic((2,), width=16, depth=2)), KL())
    fast = {"optimizer": lambda p: torch.optim.SGD(p, lr=1.0), "ema": 0.9}
    state = TrainState(game, make_players(game, phi=fast))
    train(state, torch.randn(64, 2), rounds=5, batch_size=16, log_every=0, progress=False)
    lags = []
    for module in (game.metric, state.trained().metric):
        for layer in (part for part in module.modules() if hasattr(part, "sigma")):
            exact = float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2))
            assert exact * (1 - 1.5e-3) <= float(layer.sigma().detach()) <= exact * (1 + 1e-12)
            lags.append(layer.u.clone())
    half = len(lags) // 2
    assert half == 3 and all(not torch.equal(a, b) for a, b in zip(lags[:half], lags[half:], strict=True) if len(a) > 1)


@pytest.mark.parametrize("kind", [GroupSortEmbedding, MLPEmbedding])
def test_an_embedding_carries_d_to_its_points_and_phi_climbs_on_it(kind):
    embedding = kind((2,), outputs=4, width=8)
    game = equation(Metric(embedding), EnergyDistance(), Embedded())
    data, p = Particles(torch.randn(16, 2)), game.sample(16)
    want = EnergyDistance().primal(Particles(embedding(data.x)), None, Particles(embedding(p.x)))
    minimum, f_data = game.parts(data, p)
    assert float(minimum.detach()) == pytest.approx(float(want.detach()), abs=1e-14) and float(f_data.detach()) == 0
    row = game.terms(data, p).as_dict()
    assert set(row) == {"D", "total"} and row["D"] == pytest.approx(float(want.detach()), abs=1e-14)
    phi, _ = make_players(game, lambda parameters: torch.optim.SGD(parameters, lr=1e-3))
    phi.apply(-game.scalar(data, game.sample(16, torch.Generator().manual_seed(0))), ())
    after = game.scalar(data, p.detach())
    assert float(after.detach()) > float(want.detach())


def test_embedded_particles_keep_their_weights():
    """Masses 1/2, 1/4 and 1/4 are those of four particles of which two are the same."""
    game = equation(Metric(MLPEmbedding((2,), outputs=3, width=8)), EnergyDistance(), Embedded())
    data, y = Particles(torch.randn(5, 2)), torch.randn(3, 2)
    weighted = game.minimum(data, Particles(y, torch.tensor([0.5, 0.25, 0.25]).log()))
    copied = game.minimum(data, Particles(y[[0, 0, 1, 2]]))
    assert float(weighted.detach()) == pytest.approx(float(copied.detach()), abs=1e-13)
    assert abs(float((weighted - game.minimum(data, Particles(y))).detach())) > 1e-3


def test_a_lipschitz_embedding_bounds_the_value_by_that_in_the_space_of_the_data():
    """W1 of the embedded clouds is at most W1 of the clouds; entropic smoothing moves either by blur log N at most."""
    embedding, blurred = GroupSortEmbedding((2,), outputs=4, width=8), Sinkhorn(p=1, blur=1e-3, scaling=0.9)
    x, y = torch.randn(24, 2), 1 + torch.randn(24, 2)
    inside = blurred.primal(Particles(embedding(x)), None, Particles(embedding(y)))
    outside = blurred.primal(Particles(x), None, Particles(y))
    assert 0 < float(inside.detach()) <= float(outside) + 2 * 1e-3 * math.log(24)


def test_an_embedding_returns_what_it_declares():
    class Liar(torch.nn.Module):
        outputs = 3

        def forward(self, x):
            return x

    with pytest.raises(ValueError, match=r"Liar returned \(5, 2\).*declares an embedding of 3 dimensions"):
        Metric(Liar())(torch.zeros(5, 2))


@pytest.mark.parametrize("heavy", [KL(), Pearson(), Neyman(), Alpha(1.0), Alpha(-1.0)])
def test_heavy_duals_are_learnt_through_a_light_one_and_meet_at_the_same_critic(heavy):
    phi, theta = make_players(equation(Metric(MLPCritic((2,))), heavy))
    assert isinstance(phi.view, GAN) and theta.view is None
    chosen, _ = make_players(equation(Metric(MLPCritic((2,))), heavy), phi={"view": heavy})
    assert chosen.view is heavy
    over_probabilities, _ = make_players(equation(Metric(MLPCritic((2,))), heavy, Dual(normalised=True)))
    assert over_probabilities.view is None and ReverseKL().view(METRIC) is None and Alpha(0.5).view(METRIC) is None
    constrained, _ = make_players(equation(Metric(GroupSortCritic((2,))), heavy))
    assert constrained.view is None  # among 1-Lipschitz functions the two duals have different optima


def test_a_penalty_of_weight_zero_enforces_nothing():
    for weight, found in ((0.0, "unrestricted"), (1e-3, "1-Lipschitz by penalty")):
        assert Metric(MLPCritic((2,), width=4), GradientPenalty(weight)).function_class == found


@pytest.mark.parametrize("critic", ["own gradient", "two derivatives"])
def test_a_metric_at_fixed_labels_is_that_of_each_row_with_its_label(critic):
    """Scores and slopes row by row, by the plain call."""
    metric = Metric(MLPCritic((2,), width=6, classes=3, activation="relu" if critic == "own gradient" else "tanh"))
    x, labels = torch.randn(7, 2, requires_grad=True), torch.tensor([0, 1, 1, 2, 0, 0, 2])
    rows = [metric(x[i : i + 1], labels[i : i + 1]) for i in range(7)]
    (slopes,) = torch.autograd.grad(sum(rows).sum(), x)
    given = metric.given(labels)
    torch.testing.assert_close(given(x), torch.cat(rows), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(given.gradient(x.detach()), slopes, rtol=1e-12, atol=1e-14)


def test_a_log_ratio_is_read_in_evaluation_mode_normaliser_and_all():
    """With dropout the normaliser too would differ from call to call: log Z is that of the scores without."""
    critic = torch.nn.Sequential(
        torch.nn.Linear(2, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1), torch.nn.Flatten(0)
    )
    game = equation(Metric(critic), KL(), Dual(normalised=True))
    x, data, p = torch.randn(5, 2), Particles(torch.randn(9, 2)), Particles(torch.randn(9, 2))
    found = game.log_ratio(x, data, p).detach()
    assert critic.training
    critic.eval()
    want = critic(x) - critic(p.x).logsumexp(0) + math.log(9)
    torch.testing.assert_close(found, want.detach(), rtol=1e-12, atol=1e-14)
