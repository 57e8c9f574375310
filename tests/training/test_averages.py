"""Averages of networks with batch normalisation: weights and running figures are averaged, the rest is followed."""

from __future__ import annotations

import copy

import torch
from torch import nn

from divergences import Surrogate
from models import ResidualCritic, ResidualGenerator
from models.images.layers import SpectralConv
from models.laws import Particles
from se_framework import Metric, StandardEquation, TrainState
from se_framework.data import Data
from se_framework.equation.auxiliary import Dual
from se_framework.training.averages import Average
from se_framework.training.players import make_players
from se_framework.training.step import play_round

DEFAULT_DTYPE = torch.float64
D = 0.75


def network():
    net = nn.Sequential(SpectralConv(2, 3), nn.BatchNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False))
    net.register_buffer("alpha", torch.zeros(()))
    return net


def test_running_figures_are_averaged_as_weights_are():
    net = network()
    average = Average(net, D)
    history = []
    for k in range(4):
        with torch.no_grad():
            for t in (*net.parameters(), net[1].running_mean, net[1].running_var, net[0].u, net.alpha):
                t.copy_(torch.randn(t.shape))
            net[1].num_batches_tracked += k
        history.append({name: t.clone() for name, t in net.state_dict().items()})
        average.update_parameters(net)
    weights = [D**3, *(D ** (3 - k) * (1 - D) for k in range(1, 4))]  # the first is a copy
    for name, t in average.module.state_dict().items():
        mean = sum(w * state[name] for w, state in zip(weights, history, strict=True))
        follows = name in ("0.u", "alpha", "1.num_batches_tracked")
        torch.testing.assert_close(t, history[-1][name] if follows else mean, rtol=1e-14, atol=1e-14)
    assert {"1.running_mean", "1.running_var", "0.weight"} <= set(average.module.state_dict())
    twin = copy.deepcopy(average)  # keeps its own norms
    twin.update_parameters(network())
    torch.testing.assert_close(average.module[1].running_var, sum(
        w * state["1.running_var"] for w, state in zip(weights, history, strict=True)
    ))  # fmt: skip


class Noise(Data):
    """Images of noise."""

    name, event_shape = "noise", (8, 8)

    def batch(self, start, n, seed, device="cpu"):
        return Particles(torch.randn(n, 8, 8, generator=torch.Generator().manual_seed(start)))

    def held_out(self, n, seed=0, device="cpu"):
        return self.batch(10**6, n, seed)


def test_samples_go_by_the_averages_figures_and_rows_move_nothing():
    torch.manual_seed(0)
    model, data = ResidualGenerator((8, 8), latent_dim=3, width=2, spectral=True), Noise()
    equation = StandardEquation(
        model=model, divergence=Surrogate("hinge"), auxiliary=Dual(), metric=Metric(ResidualCritic((8, 8), width=2))
    )
    state = TrainState(equation, make_players(equation, theta={"ema": D}))
    norm, own = model.blocks[0].norm2, []
    for _ in range(3):
        play_round(state, data, 16, 3)
        own.append(norm.running_var.clone())
        assert not state.buffers[0].requires_grad
    trained = state.trained().model
    assert trained is not model
    want = D**2 * own[0] + D * (1 - D) * own[1] + (1 - D) * own[2]
    torch.testing.assert_close(trained.blocks[0].norm2.running_var, want, rtol=1e-13, atol=1e-13)
    # Spectral norms are those of the averaged weights: settled, and not averaged.
    for layer in (part for part in trained.modules() if hasattr(part, "settle")):
        norm_of = torch.linalg.svdvals(layer.weight.detach().flatten(1))[0]
        torch.testing.assert_close(layer.sigma().detach(), norm_of, rtol=5e-3, atol=0)  # 2 ** (1 / 2**11) and room
    saved = state.state_dict()
    again = TrainState(copy.deepcopy(equation), make_players(copy.deepcopy(equation), theta={"ema": D}))
    fresh = copy.deepcopy(equation)
    again = TrainState(fresh, make_players(fresh, theta={"ema": D}))
    again.load_state_dict(copy.deepcopy(saved))
    found = again.trained().model.state_dict()
    assert all(torch.equal(t, found[name]) for name, t in trained.state_dict().items())
