"""An ensemble against its single runs: weights, batches, noise, gradients, trajectories.

The oracle is the single run, which shares no code of the stack: only the order of floating-point sums differs.
"""

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.optim.swa_utils import AveragedModel

from se_framework import StandardEquation, compose
from se_framework.assembly import assembly_of
from se_framework.config.composing import config_dir, groups
from se_framework.data import Digits, Ring8
from se_framework.ensemble.members import Ensemble
from se_framework.ensemble.stacked import Averages, stack
from se_framework.equation.legality import ELEMENTWISE
from se_framework.equation.penalties import GradientPenalty
from se_framework.equation.roles import Role
from se_framework.errors import StepError
from se_framework.training.players import Player
from se_framework.training.step import play_round
from tests.support.ensembles import BASE, REFUSED, SMALL, both, composed, distance, rounds, tensors

DEFAULT_DTYPE = torch.float64
STACKED = [name for name in groups([config_dir()])["experiment"] if name not in REFUSED]


@pytest.mark.parametrize("experiment", STACKED)
def test_members_follow_their_single_runs(experiment):
    """Every experiment: equal weights at the start bit for bit, 1e-8 after two rounds (rounding 1e-16, amplified)."""
    together, alone = both(experiment, members=2)
    for member, single in zip(together.members, alone, strict=True):
        assert distance(member.state, single.state) == 0
    rounds(together, alone, 2)
    together.state.scatter()
    for member, single in zip(together.members, alone, strict=True):
        assert (member.state.round, member.state.samples) == (2, single.state.samples)
        assert distance(member.state, single.state) < 1e-8
    first, second = (tensors(member.state) for member in together.members[:2])
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_batches_and_noise_are_those_of_the_single_runs_bit_for_bit(monkeypatch):
    seen, apart = [], []
    together, alone = both("wgan_gp")
    monkeypatch.setattr(Ensemble, "evaluate", lambda *a: seen.append(a[2]) or 1 / 0)
    with pytest.raises(StepError):
        play_round(together.state, together.data, 16, 50)
    particles, mixed = StandardEquation.particles, GradientPenalty.penalty
    noises = []
    monkeypatch.setattr(
        StandardEquation, "particles", lambda e, draws, c: noises.append(draws["model/noise"]) or particles(e, draws, c)
    )
    monkeypatch.setattr(
        GradientPenalty, "penalty", lambda p, f, x, y, mix: apart.append((x, mix)) or mixed(p, f, x, y, mix)
    )
    for k, single in enumerate(alone):
        apart.clear(), noises.clear()
        play_round(single.state, single.data, 16, 50)
        x, mix = apart[0]
        assert torch.equal(seen[0]["x"][k], x) and torch.equal(seen[0]["penalty/own/mix"][k], mix)
        assert torch.equal(seen[0]["model/noise"][k], noises[0])


@pytest.mark.parametrize("data", [Digits(), Digits(labels=True), Ring8()], ids=["rows", "labels", "sampler"])
def test_batches_of_several_seeds_are_stacked_batches(data):
    seeds = [4, 0, 7]
    for start in (0, 1200, 1240):
        alone = [data.batch(start, 40, seed) for seed in seeds]
        found = data.batches(start, 40, seeds)
        assert torch.equal(found.x, torch.stack([own.x for own in alone]))
        if data.classes:
            assert torch.equal(found.context, torch.stack([own.context for own in alone]))
        else:
            assert found.context is None


def test_permutations_are_drawn_once_an_epoch(monkeypatch):
    data, drawn = Digits(), []
    randperm = torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda n, **k: drawn.append(n) or randperm(n, **k))
    for index in range(20):
        data.batches(64 * index, 64, range(5))
    assert len(drawn) == 5 * 2  # 20 batches of 64 are more than the 1257 rows


@pytest.mark.parametrize("experiment", ["vanilla_gan", "wgan_gp", "tilted", "flow_gan"])
def test_first_gradients_agree(experiment):
    together, alone = both(experiment, members=2)
    gradients = []
    for stacked in together.state.players:
        step = stacked.step
        stacked.step = lambda g, step=step, own=stacked: (gradients.append((own.name, g)), step(g))
    play_round(together.state, together.data, 16, 50)
    name, first = gradients[0]
    for k, single in enumerate(alone):
        player = single.state.player(name)
        step = player.step
        own = []
        player.step = lambda *a, p=player, step=step, own=own: (
            step(*a), own.append([t.grad.clone() for t in p.parameters]) if not own else None,
        )[0]  # fmt: skip
        play_round(single.state, single.data, 16, 50)
        for a, b in zip([g[k] for g in first], own[0], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("experiment", ["vanilla_gan", "wgan_gp"])
def test_fifty_rounds_agree(experiment):
    together, alone = both(experiment, SMALL, members=2)
    rounds(together, alone, 50)
    together.state.scatter()
    for member, single in zip(together.members, alone, strict=True):
        assert distance(member.state, single.state) < 1e-8


CHOICES = {
    "labels": ("digits", ["data.labels=true", *SMALL]),
    "lazy penalty, several steps, averages of both": (
        "vanilla_gan",
        ["metric.penalty.every=2", "players.phi.steps=3", "players.theta.steps=2", "players.phi.ema=0.9", *SMALL],
    ),
    "warmup and decay": ("fgan", ["loop.warmup=3", "loop.decay=cosine", "players.phi.decay=linear"]),
    "settling with an average": ("sngan_hinge", ["players.phi.ema=0.9", *SMALL]),
    "convolutions": ("digits", ["model=conv_generator", "metric=conv_r1"]),
    "spline flow": ("mle_flow", ["model=spline_flow"]),
    "kernel of an embedding": ("mmd_gan", []),
    "view": ("fgan", ["divergence=pearson"]),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_what_a_step_can_do_is_done_for_all_members(choice):
    together, alone = both(*CHOICES[choice], members=2)
    rounds(together, alone, 3, horizon=5)
    together.state.scatter()
    for member, single in zip(together.members, alone, strict=True):
        assert distance(member.state, single.state) < 1e-8


@pytest.mark.parametrize("optimizer", ELEMENTWISE)
def test_members_of_other_weights_and_rates_follow_theirs(optimizer):
    """Every scalar of the issue, several at once, and a seed common to two; stacked anew in between."""
    columns = {
        "equation.beta": [0.5, 1.0, 2.0, 2.0], "optimizer.lr": [1e-3, 1e-3, 3e-3, 1e-3],
        "players.phi.lr": [2e-3, 1e-3, 1e-3, 2e-3], "metric.penalty.weight": [0.1, 1.0, 1.0, 0.3], "seed": [0, 0, 5, 6],
    }  # fmt: skip
    config = OmegaConf.merge(composed("vanilla_gan", *SMALL))
    config.optimizer = {"_target_": f"torch.optim.{optimizer}", "lr": 1e-3}
    alone = [config.copy() for _ in range(4)]
    for k, own in enumerate(alone):
        for key, column in columns.items():
            OmegaConf.update(own, key, column[k])
    together = assembly_of(OmegaConf.merge(config, {"ensemble": {"values": columns}}))
    alone = [assembly_of(own) for own in alone]
    for _ in range(2):
        rounds(together, alone, 2)
        together.state.scatter()
        for member, single in zip(together.members, alone, strict=True):
            assert distance(member.state, single.state) < 1e-8
        together.state.gather()
    assert distance(together.members[0].state, alone[1].state) > 1e-6


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_fused_optimisers_with_momentum_follow_theirs(optimizer):
    more = ["optimizer.momentum=0.9"] if optimizer == "sgd" else []
    together, alone = both("vanilla_gan", [f"optimizer={optimizer}", *more, *SMALL], members=2)
    for _ in range(2):
        rounds(together, alone, 2)
        together.state.scatter()
        for member, single in zip(together.members, alone, strict=True):
            assert distance(member.state, single.state) < 1e-8
        together.state.gather()


@pytest.mark.parametrize(
    ("experiment", "key", "column"),
    [("tilted", "equation.alpha", [0.3, 0.9]), ("flow_gan", "plus.likelihood.weight", [0.01, 1.0])],
)
def test_alpha_and_numbers_of_summands_may_differ(experiment, key, column):
    together = compose(experiment, [*BASE, f"ensemble.values={{{key}: {column}, seed: [1, 1]}}"])
    alone = [
        compose(experiment, [*BASE, "seed=1", f"{'+' * ('plus' in key and 'beta' in key)}{key}={value}"])
        for value in column
    ]
    rounds(together, alone, 3)
    together.state.scatter()
    for member, single in zip(together.members, alone, strict=True):
        assert distance(member.state, single.state) < 1e-8
    assert distance(together.members[0].state, alone[1].state) > 1e-6


def test_the_batch_of_a_member_has_the_labels_of_its_rows():
    data = Digits(labels=True)
    together = compose("digits", [*BASE, "ensemble.size=2", "data.labels=true"])
    batch = together.state.draw(data, 32)
    for k in range(2):
        own = data.batch(0, 32, k)
        assert torch.equal(batch.context[k], own.context) and torch.equal(batch.x[k], own.x)


def test_averages_take_over_buffers_as_torchs_own_do():
    modules = [nn.BatchNorm1d(2) for _ in range(2)]  # any module with buffers
    players = [
        Player(Role("phi", {"own": m}, m, +1), torch.optim.SGD(m.parameters()), average=AveragedModel(m))
        for m in modules
    ]
    columns = zip(*(m.parameters() for m in modules), strict=True)
    averages = Averages(players, {id(same[0]): stack(same) for same in columns})
    for k, module in enumerate(modules):
        module.running_mean.fill_(k + 1.0)
    averages.update()
    assert [float(p.average.module.running_mean[0]) for p in players] == [1, 2]
