"""The whole state of a run is what its parts hold: chains in buffers, parameters anywhere; saved, resumed, rewound."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from divergences import CrossEntropy
from models import Affine, MLPCritic, Particles
from se_framework import Metric, StandardEquation, TrainState
from se_framework.data import Moons
from se_framework.equation.auxiliary import Dual, Empirical
from se_framework.errors import NonFiniteError, StepError
from se_framework.randomness import Stream
from se_framework.runs.checkpoint import decode, encode
from se_framework.runs.directory import RunDirectory
from se_framework.training.failure import replay
from se_framework.training.loop import measure, train
from se_framework.training.monitors import watch
from se_framework.training.players import make_players
from tests.support.comparing import same
from tests.support.parts import Anchored, Chain, Rows, Shifted

DEFAULT_DTYPE = torch.float64
OPTIONS = {"batch_size": 16, "horizon": 60, "progress": False, "log_every": 10}


def adam(parameters):
    return torch.optim.Adam(parameters, lr=1e-2, betas=(0.5, 0.9), fused=True)


def chained(auxiliary=None, seed=0):
    """A model that follows a chain in q's buffers."""
    equation = StandardEquation(model=Affine((2,)), auxiliary=auxiliary or Chain())
    return TrainState(equation, make_players(equation, adam, theta={"steps": 2, "ema": 0.9}), seed=seed)


def game(seed=0):
    """Parameters in D and q."""
    torch.manual_seed(0)
    equation = StandardEquation(
        model=Affine((2,)), divergence=Shifted(), auxiliary=Anchored(), metric=Metric(MLPCritic((2,), width=8))
    )
    return TrainState(equation, make_players(equation, adam), seed=seed)


def rows(state):
    clock = ("seconds", "samples_per_second")
    return [{k: v for k, v in row.items() if k not in clock} for row in state.history]


@pytest.mark.parametrize("make", [chained, game])
def test_thirty_and_thirty_rounds_are_sixty_bit_for_bit(make, tmp_path):
    whole = train(make(), Moons(), rounds=60, **OPTIONS)
    run = RunDirectory(tmp_path)
    train(make(), Moons(), rounds=30, run=run, **OPTIONS)
    second = make()
    second.load_state_dict(run.load_checkpoint()[0])
    assert second.round == 30
    train(second, Moons(), rounds=60, **OPTIONS)
    assert same(whole.state_dict(), second.state_dict())
    assert rows(whole)[3:] == rows(second)


def test_a_chain_moves_before_every_step_as_its_formula_says():
    """Against the recursion written out, by the noise that the step's own stream gives."""
    state = train(chained(), Moons(), rounds=3, batch_size=16, log_every=1, progress=False)
    chain, start = torch.zeros(8, 2), 0
    for t in range(3):
        for k in range(2):
            kick = Stream(0, t, f"theta/{k}", dtype=torch.float64).below("auxiliary/own").normal("kick", (8, 2))
            chain = chain / 2 + kick + Moons().batch(start, 16, 0).x.mean(0)
            start += 16
    assert int(state.equation.auxiliary.moves) == 6
    assert torch.equal(state.equation.auxiliary.chain, chain)


def test_looking_moves_no_chain():
    state = train(chained(), Moons(), rounds=2, batch_size=16, log_every=0, progress=False)
    before = copy.deepcopy(state.state_dict())
    measure(state, Moons(), 16)
    watch(state, Moons(), {"round": 2.0})
    assert same(before, state.state_dict())


class Bad(Moons):
    """One batch, counted in batches of its size, holds a NaN."""

    at: int | None = 7

    def batch(self, start, n, seed, device="cpu"):
        x = super().batch(start, n, seed, device).x
        return Particles(torch.where(torch.arange(n)[:, None] == 3, math.nan, x) if start // n == self.at else x)


class Tired(Chain):
    """It raises in its last step, after the chain has moved."""

    last = 7

    def minimum(self, problem, role=None):
        if int(self.moves) == self.last + 1 and role is not None:
            raise RuntimeError("tired")
        return super().minimum(problem, role)


@pytest.mark.parametrize(("make", "data", "error"), [(Chain, Bad, NonFiniteError), (Tired, Moons, StepError)])
def test_a_failed_step_puts_the_chain_back_and_the_run_goes_on_as_if_it_had_not_been(make, data, error):
    """Step 7 is the second of round 3: state, chain and counters are then what that step saw."""
    state, source = chained(make()), data()
    with pytest.raises(error):
        train(state, source, rounds=60, batch_size=16, horizon=60, log_every=0, progress=False)
    twin = chained()
    train(twin, Moons(), rounds=3, batch_size=16, horizon=60, log_every=0, progress=False)
    twin.players[0].steps = 1
    average = copy.deepcopy(twin.players[0].average.state_dict())
    train(twin, Moons(), rounds=4, batch_size=16, horizon=60, log_every=0, progress=False)
    twin.players[0].average.load_state_dict(average)  # the twin's fourth round was completed
    twin.round = 3
    assert state.samples == 7 * 16 and int(state.equation.auxiliary.moves) == 7
    assert same(state.state_dict(), twin.state_dict())
    source.at, state.equation.auxiliary.last = None, 10**6
    for own, other in ((state, source), (twin, Moons())):
        own.players[0].steps = 2
        train(own, other, rounds=6, batch_size=16, horizon=60, log_every=0, progress=False)
    assert same(state.state_dict(), twin.state_dict())


def test_a_dumped_step_replays_with_its_chain(tmp_path):
    state, run = chained(), RunDirectory(tmp_path)
    with pytest.raises(NonFiniteError) as caught:
        train(state, Bad(), rounds=60, batch_size=16, log_every=0, run=run, progress=False)
    saved = run.load_state(run.failure / "step")
    assert same(saved["state"], decode(encode(state.state_dict()))) and "auxiliary.chain" in saved["state"]["equation"]
    again = replay(chained(), run)
    assert again.record.place == caught.value.record.place == "player theta, round 3, step 1"
    assert "NaN in 1 of 16 rows of the batch of data" in again.record.source == caught.value.record.source


def test_a_chain_that_holds_what_is_not_finite_is_not_saved(tmp_path):
    state = chained()
    train(state, Moons(), rounds=1, batch_size=16, log_every=0, progress=False)
    state.equation.auxiliary.register_buffer("spare", torch.tensor([1.0, math.inf]))
    with pytest.raises(NonFiniteError, match="inf in 1 of 2 entries of auxiliary.spare, .* after 2 rounds: not saved"):
        train(state, Moons(), rounds=2, batch_size=16, log_every=0, run=RunDirectory(tmp_path), progress=False)


def test_parameters_of_a_divergence_are_saved_and_restored(tmp_path):
    first, run = game(), RunDirectory(tmp_path)
    train(first, Moons(), rounds=5, run=run, **OPTIONS)
    assert float(first.equation.divergence.c.detach()) != 0
    second = game()
    second.load_state_dict(run.load_checkpoint()[0])
    assert torch.equal(first.equation.divergence.c, second.equation.divergence.c)
    assert same(first.trained().state_dict(), second.trained().state_dict())


def test_a_checkpoint_holds_every_tensor_once():
    """Summands share their model; all that is not the equation's is each player's optimiser, average and counter."""
    model = Affine((2,))
    likelihood = StandardEquation(model=model, divergence=CrossEntropy(), auxiliary=Empirical())
    equation = StandardEquation(
        model=model, divergence=Shifted(), auxiliary=Dual(), metric=Metric(MLPCritic((2,), width=4)),
        plus={"nll": (0.5, likelihood)},
    )  # fmt: skip
    state = TrainState(equation, make_players(equation, theta={"ema": 0.9}))
    saved = state.state_dict()
    tensors = equation.state_dict(keep_vars=True)
    assert len(saved["equation"]) == len({id(t) for t in tensors.values()}) < len(tensors)
    assert set(saved) == {"format", "seed", "round", "samples", "equation", "players"} and saved["format"] == 3
    for name, own in saved["players"].items():
        assert set(own) == {"optimizer_type", "optimizer", "average", "steps_taken"}
        assert (own["average"] is not None) == (name == "theta")


def test_what_does_not_persist_is_not_saved_nor_rewound():
    class Scratch(nn.Module):
        def __init__(self):
            super().__init__()
            self.critic = MLPCritic((2,), width=4)
            self.register_buffer("seen", torch.zeros(()), persistent=False)

        def forward(self, x):
            self.seen += len(x)
            return self.critic(x)

    equation = StandardEquation(model=Affine((2,)), divergence=Shifted(), auxiliary=Dual(), metric=Metric(Scratch()))
    state = TrainState(equation)
    train(state, Rows(torch.randn(16, 2)), rounds=1, batch_size=16, log_every=0, progress=False)
    assert float(equation.metric.network.seen) > 0
    assert not any("seen" in name for name in state.state_dict()["equation"])
    before = float(equation.metric.network.seen)
    state.rewind(state.mark())
    assert float(equation.metric.network.seen) == before
