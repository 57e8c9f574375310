"""The loop: whose parameters move, when, on which batch; faults, averages, signals, resuming; games end at p_d."""

from __future__ import annotations

import copy
import math
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from divergences import GAN, KL, CrossEntropy, Divergence, Jeffreys, JensenShannon, SoftenedReverseKL
from models import Affine, MLPCritic, MLPGenerator, TabularCritic, TabularModel
from models.laws import Particles
from se_framework.data import Data, GaussianMixture1d, Moons
from se_framework.equation.auxiliary import Dual, Empirical, Tilted
from se_framework.equation.equation import StandardEquation
from se_framework.equation.metric import Metric
from se_framework.equation.penalties import R1
from se_framework.equation.units import in_user_units
from se_framework.errors import ConfigError, NonFiniteError, RunDirectoryError
from se_framework.randomness import generator, seed_global, stream_seed
from se_framework.training.finite import ADVICE
from se_framework.training.loop import measure, train
from se_framework.training.players import make_players
from se_framework.training.state import TrainState
from se_framework.training.step import play_round
from tests.support.cases import F_DIVERGENCES
from tests.support.commands import ROOT, fresh
from tests.support.oracles import divergence, entropy, letters, total_variation

DEFAULT_DTYPE = torch.float64
PD = np.array([5, 2, 3, 2, 1, 3]) / 16


class Letters(Data):
    """Six letters in exact proportion: a batch of 16 m letters *is* p_d, so nothing is random in the game.

    ``on_batch`` is called with the index of every batch drawn, counted in batches of its size.
    """

    event_shape = (1,)

    def __init__(self, on_batch=lambda index: None) -> None:
        self.on_batch, self.drawn = on_batch, []

    def batch(self, start, n, seed, device="cpu"):
        self.on_batch(start // n)
        self.drawn.append(start // n)
        return Particles(torch.repeat_interleave(torch.arange(6.0), torch.as_tensor(PD * n).long())[:, None])

    def held_out(self, n, seed=0, device="cpu"):
        return self.batch(-n, n, seed, device)


def tabular(d: Divergence, auxiliary=None, alpha=0.0) -> StandardEquation:
    return StandardEquation(
        model=TabularModel(), divergence=d, auxiliary=auxiliary or Dual(), metric=Metric(TabularCritic()), alpha=alpha
    )


def plane(d: Divergence | None = None, seed: int = 0, penalty=None, dropout: float = 0.0) -> StandardEquation:
    """A small adversarial game on the plane."""
    torch.manual_seed(seed)
    critic = MLPCritic((2,), width=8)
    network = nn.Sequential(nn.Dropout(dropout), critic) if dropout else critic
    return StandardEquation(
        model=MLPGenerator((2,), latent_dim=3, width=8), divergence=d or GAN(), auxiliary=Dual(),
        metric=Metric(network, penalty),
    )  # fmt: skip


def state_of(equation: StandardEquation, seed: int = 0, optimizer=None, **players) -> TrainState:
    return TrainState(equation, make_players(equation, optimizer, **players), seed=seed)


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(module.state_dict())


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


def sgd(lr: float):
    return lambda parameters: torch.optim.SGD(parameters, lr=lr)


# -- players ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gan", "kl", "softened_reverse_kl"])
def test_a_player_moves_its_own_parameters_only(name):
    for mover, rest in (("phi", "theta"), ("theta", "phi")):
        equation = plane(F_DIVERGENCES[name](), penalty=R1())
        state = state_of(equation, **{rest: {"steps": 0}})
        before = snapshot(equation)
        play_round(state, Moons(), 32, 10)
        moved = {k.split(".")[0] for k, v in equation.state_dict().items() if not torch.equal(v, before[k])}
        assert moved == {"model" if mover == "theta" else "metric"}
        still = state.player(rest).module
        assert all(p.grad is None for p in still.parameters())


def test_a_players_gradient_is_that_of_the_scalar():
    """Sign, view and penalty: one SGD step of each player against autograd on the same batch and noise."""
    data, view = Moons(), SoftenedReverseKL()
    for name in ("phi", "theta"):
        equation = plane(GAN(), penalty=R1(0.3))
        rest = "theta" if name == "phi" else "phi"
        state = state_of(equation, optimizer=sgd(0.1), theta={"view": view})
        state.player(rest).steps = 0
        player = state.player(name)
        before = [p.detach().clone() for p in player.parameters]
        x = data.batch(0, 16, 0).x
        p = equation.sample(16, generator(0, 0, f"{name}/0/noise"))
        scalar = equation.scalar(Particles(x), p, view if name == "theta" else None)
        loss = scalar if name == "theta" else -scalar + equation.metric.penalty(equation.metric, x, p.x.detach(), None)
        exact = torch.autograd.grad(loss, player.parameters)
        figures = play_round(state, data, 16, 10)[0]
        for old, new, g in zip(before, player.parameters, exact, strict=True):
            torch.testing.assert_close(new.detach(), old - 0.1 * g, rtol=1e-12, atol=1e-14)
        seen = scalar if name == "phi" else equation.parts(Particles(x), p, view)[0]  # E_pd f does not move with theta
        assert figures[f"{name}_objective"] == pytest.approx(float(seen.detach()), rel=1e-12)
        norm = math.sqrt(sum(float(g.square().sum()) for g in exact))
        assert figures[f"{name}_gradient"] == pytest.approx(norm, rel=1e-12)


def test_every_phi_step_sees_a_fresh_batch():
    class Seen(MLPCritic):
        def score(self, x):
            batches.append(x.detach().clone())
            return super().score(x)

    class Heard(Affine):
        def particles(self, draws, context=None):
            noises.append(draws["noise"].clone())
            return super().particles(draws, context)

    batches: list[torch.Tensor] = []
    noises: list[torch.Tensor] = []
    equation = StandardEquation(
        model=Heard((2,)), divergence=GAN(), auxiliary=Dual(normalised=True), metric=Metric(Seen((2,), width=4))
    )  # over probability q theta's minimum reads the data as well
    state = state_of(equation, phi={"steps": 3})
    train(state, Moons(), rounds=2, batch_size=8, log_every=0, progress=False)
    assert state.samples == 48 and state.round == 2
    data_side, model_side = [b[:8] for b in batches], [b[8:] for b in batches]  # one pass, data first
    expected = [Moons().batch(8 * index, 8, 0).x for index in (0, 1, 2, 2, 3, 4, 5, 5)]  # theta plays on phi's last
    assert len(data_side) == 8 and all(torch.equal(a, b) for a, b in zip(data_side, expected, strict=True))
    assert all(not torch.equal(a, b) for i, a in enumerate(model_side) for b in model_side[:i])
    assert len(noises) == 8  # fresh noise in every step of every round
    assert all(not torch.equal(a, b) for i, a in enumerate(noises) for b in noises[:i])


def test_theta_alone_draws_its_own_batches():
    equation = StandardEquation(model=TabularModel(), divergence=CrossEntropy(), auxiliary=Empirical())
    state, data = state_of(equation, theta={"steps": 2}), Letters()
    train(state, data, rounds=3, batch_size=16, log_every=0, progress=False)
    assert [p.name for p in state.players] == ["theta"] and data.drawn == [0, 1, 2, 3, 4, 5]


def test_lazy_penalty_comes_by_the_players_own_clock():
    seen = []

    class Counted(R1):
        def penalty(self, metric, x_data, x_model, mix):
            seen.append((len(mix), x_model.requires_grad))
            return super().penalty(metric, x_data, x_model, mix)

    state = state_of(plane(penalty=Counted(0.1, every=4)), phi={"steps": 3})
    train(state, Moons(), rounds=4, batch_size=8, log_every=0, progress=False)
    assert seen == [(8, False)] * 3  # of 12 phi-steps


def test_players_that_share_a_parameter_are_refused():
    equation = plane()
    equation.metric.network.register_parameter("stolen", next(equation.model.parameters()))
    with pytest.raises(ConfigError, match="player theta shares a parameter with another player"):
        make_players(equation)


def test_players_refuse_bad_options():
    frozen = plane()
    for parameter in frozen.model.parameters():
        parameter.requires_grad_(False)
    assert [player.name for player in make_players(frozen)] == ["phi"]
    with pytest.raises(ConfigError, match=r"players.phi.ema must lie in \[0, 1\), got 1.0"):
        make_players(plane(), phi={"ema": 1.0})
    with pytest.raises(ConfigError, match="players.theta.steps must be >= 0, got -1"):
        make_players(plane(), theta={"steps": -1})
    for argument in ("rounds", "batch_size"):
        with pytest.raises(ConfigError, match=f"loop.{argument} must be at least 1, got 0"):
            train(TrainState(plane()), Moons(), **{argument: 0})


def test_frozen_parameters_of_a_player_stay():
    equation = plane()
    first = next(equation.model.parameters()).requires_grad_(False)
    before = first.detach().clone()
    train(state_of(equation), Moons(), rounds=2, batch_size=8, log_every=0, progress=False)
    assert torch.equal(first, before)


@pytest.mark.parametrize(
    ("decay", "course"),
    [
        ("constant", lambda t: 1.0),
        ("linear", lambda t: 1 - t / 10),
        ("cosine", lambda t: 0.5 * (1 + math.cos(math.pi * t / 10))),
    ],
)
@pytest.mark.parametrize("warmup", [0, 4])
def test_learning_rates_are_functions_of_the_round(decay, course, warmup):
    player = make_players(plane(), sgd(0.2), theta={"decay": decay, "warmup": warmup})[1]
    for t in (7, 0, 10, 3, 3):  # in any order: nothing is accumulated
        player.set_rate(t, 10)
        rise = min((t + 1) / warmup, 1) if warmup else 1
        assert player.optimizer.param_groups[0]["lr"] == pytest.approx(0.2 * rise * course(t), abs=1e-15)
    player.set_rate(25, 10)
    assert player.optimizer.param_groups[0]["lr"] == pytest.approx(0.2 * course(10), abs=1e-15)


def test_average_is_the_exponential_average_of_the_rounds():
    state = state_of(plane(), theta={"ema": 0.8})
    history = []
    for t in range(1, 6):
        train(state, Moons(), rounds=t, batch_size=16, horizon=5, log_every=0, progress=False)
        history.append([p.detach().clone() for p in state.equation.model.parameters()])
    exact = history[0]
    for row in history[1:]:
        exact = [0.8 * a + 0.2 * p for a, p in zip(exact, row, strict=True)]
    trained = state.trained()
    for a, p, now in zip(trained.model.parameters(), exact, state.equation.model.parameters(), strict=True):
        torch.testing.assert_close(a.detach(), p, rtol=1e-12, atol=1e-14)
        assert not torch.equal(a, now)
    assert trained.metric is state.equation.metric and trained.model is not state.equation.model


# -- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("where", "term"), [("metric", "-beta D*_p(f/beta)"), ("model", "-beta D*_p(f/beta)")])
def test_nan_stops_the_run_and_spares_the_parameters(where, term, fused):
    def adam(parameters):
        return torch.optim.Adam(parameters, lr=1e-3, fused=fused)

    equation = plane()
    state, data = state_of(equation, optimizer=adam), Moons()
    train(state, data, rounds=3, batch_size=16, log_every=0, progress=False)
    with torch.no_grad():
        next(getattr(equation, where).parameters())[0] = math.nan
    before = snapshot(equation)
    with pytest.raises(NonFiniteError) as caught:
        train(state, data, rounds=9, batch_size=16, log_every=0, progress=False)
    message = str(caught.value)
    assert message.startswith(f"{term} of player phi is nan in round 3, step 0 (NaN in ")
    assert f" of the {where}, the first of them 0" in message and message.endswith(
        f"the update was not applied; resume from an earlier checkpoint; {ADVICE}"
    )
    assert state.round == 3
    for key, value in equation.state_dict().items():
        assert torch.equal(value, before[key]) or torch.equal(value.isnan(), before[key].isnan())
        kept = ~before[key].isnan()
        assert torch.equal(value[kept], before[key][kept])


def test_infinite_term_is_named():
    equation = tabular(Jeffreys())  # phi meets its own dual
    with torch.no_grad():
        equation.metric.network.scores[2] = 800.0
    with pytest.raises(NonFiniteError, match=r"-beta D\*_p\(f/beta\) of player phi is -inf in round 0"):
        train(TrainState(equation), Letters(), rounds=2, batch_size=16, progress=False)


class NanData(Letters):
    def batch(self, start, n, seed, device="cpu"):
        batch = super().batch(start, n, seed, device)
        return Particles(torch.full_like(batch.x, math.nan)) if start == 2 * n else batch


def test_nan_in_the_data_is_named():
    with pytest.raises(NonFiniteError, match=r"E_pd_f of player phi is nan in round 2"):
        train(TrainState(tabular(GAN())), NanData(), rounds=9, batch_size=16, progress=False)


def test_a_record_that_cannot_be_represented_does_not_stop_the_run():
    equation = tabular(JensenShannon())
    with torch.no_grad():
        equation.metric.network.scores[0] = 800.0
    state = train(TrainState(equation), Letters(), rounds=3, batch_size=16, log_every=1, progress=False)
    assert state.round == 3 and len(state.history) == 3
    assert state.history[0]["note"].startswith("not representable: ") and "D" in state.history[0]["note"].split()
    assert all(math.isfinite(row["total"]) for row in state.history)


# -- rows -------------------------------------------------------------------------------------------------------------


def test_rows_hold_the_terms_and_figures():
    equation = plane(penalty=R1())
    state = train(TrainState(equation), Moons(), rounds=5, batch_size=16, log_every=2, progress=False)
    assert [row["round"] for row in state.history] == [2.0, 4.0, 5.0]
    row = state.history[-1]
    names = ["round", "samples", "D", "E_q_f", "E_pd_f", "total", "note", "phi_objective", "phi_gradient", "penalty",
             "theta_objective", "theta_gradient", "seconds", "samples_per_second"]  # fmt: skip
    assert list(row) == names and row["samples"] == 80 and row["note"] == ""
    assert row["D"] - row["E_q_f"] + row["E_pd_f"] == pytest.approx(row["total"], abs=1e-12)


class Scaled(Letters):
    loc, scale = torch.tensor([3.0]), torch.tensor([2.0])


def test_terms_in_the_units_of_the_data():
    """x = 3 + 2y: entropies and cross-entropies gain log 2 per coordinate, KL nothing, transport of degree k 2^k."""
    equation = tabular(KL(), Tilted(), alpha=0.5)
    plain, scaled = Letters(), Scaled()
    terms = equation.terms(letters(PD), equation.sample(0))
    a, b = in_user_units(terms, equation, plain), in_user_units(terms, equation, scaled)
    gain = {"H_q": math.log(2), "D": 0.0, "E_q_f": 0.0, "E_pd_f": 0.0, "total": -0.5 * math.log(2)}
    assert a == terms.as_dict() and {k: b[k] - a[k] for k in a} == pytest.approx(gain, abs=1e-12)
    flow = StandardEquation(model=TabularModel(), divergence=CrossEntropy(), auxiliary=Empirical(), beta=2.0)
    terms = flow.terms(letters(PD), None)
    a, b = in_user_units(terms, flow, plain), in_user_units(terms, flow, scaled)
    assert {k: b[k] - a[k] for k in a} == pytest.approx({"D": math.log(2), "total_up_to_const": 2 * math.log(2)})


# -- games ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kl", "jensen_shannon", "gan", "squared_hellinger"])
@pytest.mark.parametrize("normalised", [False])
def test_a_whole_game_ends_at_the_data(name, normalised):
    """Six letters, a table for p and one for f, through the real loop: p = p_d, T = D(p_d, p_d).

    Batches are exact, so the game is deterministic; at rates that fall to zero it ends where the gradients are small.
    Declared tolerance: TV below 1e-3, from a start at 0.19; T within TV^2 / min p_d of its limit, as D is quadratic.
    """
    equation = tabular(F_DIVERGENCES[name](), Dual(normalised))

    def adam(parameters):
        return torch.optim.Adam(parameters, lr=0.1, betas=(0.0, 0.9), fused=True)

    state = state_of(equation, optimizer=adam, phi={"steps": 4, "decay": "linear"}, theta={"decay": "linear"})
    start = total_variation(torch.softmax(equation.model.logits.detach(), 0).numpy(), PD)
    train(state, Letters(), rounds=350, batch_size=16, log_every=350, progress=False)
    p = torch.softmax(equation.model.logits.detach(), 0).numpy()
    assert start > 0.15 and total_variation(p, PD) < 1e-3
    row = state.history[-1]
    identity = equation.divergence.value_at_identity
    assert row["total"] == pytest.approx(identity, abs=1e-3**2 / PD.min() + 1e-5)
    assert row["D"] == pytest.approx(divergence(name, PD, p), abs=1e-2)


@pytest.mark.parametrize("alpha", [0.5])
def test_a_game_with_entropy_ends_at_the_data(alpha):
    """Alpha > 0: at the end T = -alpha H(p_d), and q is the data."""
    equation = tabular(KL(), Tilted(), alpha=alpha)

    def adam(parameters):
        return torch.optim.Adam(parameters, lr=0.1, betas=(0.0, 0.9), fused=True)

    state = state_of(equation, optimizer=adam, phi={"steps": 4, "decay": "linear"}, theta={"decay": "linear"})
    train(state, Letters(), rounds=350, batch_size=16, log_every=350, progress=False)
    assert total_variation(torch.softmax(equation.model.logits.detach(), 0).numpy(), PD) < 1e-3
    assert state.history[-1]["total"] == pytest.approx(-alpha * entropy(PD), abs=1e-4)
    assert state.history[-1]["H_q"] == pytest.approx(entropy(PD), abs=1e-2)


def test_maximum_likelihood_ends_at_the_data():
    equation = StandardEquation(model=TabularModel(), divergence=CrossEntropy(), auxiliary=Empirical(), beta=2.0)
    state = state_of(equation, optimizer=sgd(0.5))
    train(state, Letters(), rounds=400, batch_size=16, log_every=400, progress=False)
    # Gradient descent on a convex function of curvature >= beta min p_d (1 - ...): linear, e^(-0.5 * 2 * 400 / 16).
    assert total_variation(torch.softmax(equation.model.logits.detach(), 0).numpy(), PD) < 1e-6
    assert state.history[-1]["D"] == pytest.approx(entropy(PD), abs=1e-10)


# -- resuming, stopping -----------------------------------------------------------------------------------------------


def game(seed: int = 0) -> TrainState:
    """Dropout, momentum, averages, lazy penalties, decay: everything that has a state."""
    equation = plane(penalty=R1(every=2), dropout=0.2)

    def adam(parameters):
        return torch.optim.Adam(parameters, lr=1e-2, betas=(0.5, 0.9), fused=True)

    return state_of(
        equation, seed, adam, theta={"ema": 0.9, "decay": "cosine"}, phi={"steps": 3, "warmup": 4, "decay": "linear"}
    )


def test_resuming_equals_going_on_bit_for_bit(tmp_path):
    options = {"batch_size": 16, "horizon": 7, "progress": False}
    whole = train(game(), Moons(), rounds=7, log_every=2, **options)
    first = train(game(), Moons(), rounds=3, log_every=0, **options)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = game()
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    torch.manual_seed(99)  # what the caller does with torch's own generator has no part in it
    train(second, Moons(), rounds=7, log_every=3, **options)
    assert (second.round, second.samples) == (whole.round, whole.samples)
    for a, b in ((whole.equation, second.equation), (whole.trained(), second.trained())):
        assert same(a.state_dict(), b.state_dict())
    for a, b in zip(whole.players, second.players, strict=True):
        assert a.steps_taken == b.steps_taken
        for m, n in zip(a.optimizer.state.values(), b.optimizer.state.values(), strict=True):
            assert same(m, n)
    keys = [k for k in whole.history[-1] if "second" not in k]
    assert [whole.history[-1][k] for k in keys] == [second.history[-1][k] for k in keys]


def test_a_seed_is_a_trajectory_and_the_callers_generator_is_left_alone():
    states = []
    for seed, callers in ((0, 1), (0, 2), (1, 1)):
        state = game(seed)
        torch.manual_seed(callers)
        before = torch.random.get_rng_state()
        train(state, Moons(), rounds=2, batch_size=8, log_every=1, progress=False)
        assert torch.equal(before, torch.random.get_rng_state())
        states.append(state.equation.state_dict())
    assert same(states[0], states[1]) and not same(states[0], states[2])


def test_the_generator_of_the_runs_own_device_is_seeded(monkeypatch):
    own = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace(default_generators=own))
    seed_global(3, 7, "phi/0/global", torch.device("cuda:1"))
    assert [g.initial_seed() for g in own] == [1, stream_seed(3, 7, "phi/0/global")]


def test_a_foreign_checkpoint_is_refused():
    saved = game(seed=1).state_dict()
    with pytest.raises(RunDirectoryError, match=r"the checkpoint \(format 3, seed 1, .*\) is not of this run"):
        game(seed=0).load_state_dict(saved)
    other = state_of(StandardEquation(model=Affine((2,)), divergence=CrossEntropy(), auxiliary=Empirical()), seed=1)
    with pytest.raises(RunDirectoryError, match="players .*theta.* is not of this run"):
        other.load_state_dict(saved)
    with pytest.raises(RunDirectoryError, match="format 7"):
        game(seed=1).load_state_dict(saved | {"format": 7})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_round(number):
    handler = signal.getsignal(number)

    def interrupt(index):
        if index == 4:
            signal.raise_signal(number)

    state = train(TrainState(tabular(GAN())), Letters(interrupt), rounds=50, batch_size=16, progress=False)
    whole = train(TrainState(tabular(GAN())), Letters(), rounds=5, horizon=50, batch_size=16, progress=False)
    assert state.round == 5 and same(state.equation.state_dict(), whole.equation.state_dict())
    assert signal.getsignal(number) is handler
    train(state, Letters(), rounds=7, batch_size=16, progress=False)
    assert state.round == 7


def test_a_second_signal_acts_as_usual():
    def interrupt(index):
        if index == 2:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
    try:
        with pytest.raises(KeyboardInterrupt):
            train(TrainState(tabular(GAN())), Letters(interrupt), rounds=50, batch_size=16, progress=False)
    finally:
        signal.signal(signal.SIGINT, before)


def test_measuring_does_not_change_the_state():
    state = train(game(), Moons(), rounds=2, batch_size=8, log_every=0, progress=False)
    before, drawn = snapshot(state.equation), state.samples
    rows = [measure(state, Moons(), 8) for _ in range(2)]
    assert same(before, state.equation.state_dict()) and state.samples == drawn and rows[0]["D"] is not None


def test_every_equation_on_the_line_trains_in_float32():
    """Three rounds of each divergence on real samples move both players and leave finite figures."""
    torch.set_default_dtype(torch.float32)
    for make in F_DIVERGENCES.values():
        for normalised in (False, True):
            torch.manual_seed(0)
            equation = StandardEquation(
                model=Affine((1,)), divergence=make(), auxiliary=Dual(normalised),
                metric=Metric(MLPCritic((1,), width=8)),
            )  # fmt: skip
            before = snapshot(equation)
            state = train(
                TrainState(equation), GaussianMixture1d(), rounds=1, batch_size=32, log_every=1, progress=False
            )
            assert all(not torch.equal(v, before[k]) for k, v in equation.state_dict().items() if "weight" in k)
            assert state.history[0]["note"] == ""


# -- importing --------------------------------------------------------------------------------------------------------

SETTINGS = "(torch.initial_seed(), torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled())"


IMPORTING = f"""
import os, random, signal, torch
torch.manual_seed(5); random.seed(3)
def settings():
    return {SETTINGS}, random.getstate(), torch.get_rng_state().tolist(), signal.getsignal(signal.SIGINT)
for name in ("models", "divergences", "se_framework"):
    child = os.fork()
    if not child:
        before = settings()  # in the fork: torch takes one thread there
        package = __import__(name)
        [getattr(package, part) for part in package.__all__]
        os._exit(settings() != before)
    assert os.waitpid(child, 0)[1] == 0, name
"""


def test_importing_changes_no_setting():
    """Each package in a fork of one interpreter that has torch."""
    done = fresh([sys.executable, "-c", IMPORTING], ROOT)
    assert done.returncode == 0, done.stderr
