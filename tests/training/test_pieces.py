"""A batch cut into pieces: the step of the whole to rounding, or refused, or said to be another one.

float64 and plain descent; 1e-12 stands for rounding: the spacing 2e-16 times the terms of the sums (some hundreds),
over a few steps whose slopes are of size one.
"""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

from divergences import GAN, KL, CrossEntropy, EnergyDistance, Surrogate, Wasserstein1
from models import (
    Affine,
    ConvCritic,
    GaussianMixture,
    MLPCritic,
    MLPGenerator,
    RealNVP,
    ResidualGenerator,
    StridedCritic,
)
from models.laws import Particles
from se_framework import R1, GradientPenalty, Metric, StandardEquation, TrainState
from se_framework.data import Data
from se_framework.describe import player_line
from se_framework.equation.auxiliary import Dual, Empirical, OrthogonalWeights
from se_framework.equation.penalties import Penalty
from se_framework.errors import ConfigError, IncompatibleError
from se_framework.training.draws import data_of, draw_step, step_stream
from se_framework.training.execution import Execution
from se_framework.training.loop import train
from se_framework.training.objective import objective
from se_framework.training.pieces import cut, gathered
from se_framework.training.players import make_players
from se_framework.training.step import play_round
from tests.support.comparing import same
from tests.support.composing import compose

DEFAULT_DTYPE = torch.float64
N = 12


class Labelled(Data):
    """A fixed cloud with labels, in order, without end."""

    name, classes = "labelled rows", 0

    def __init__(self, shape=(2,), classes=0) -> None:
        self.event_shape, self.classes = shape, classes
        self.x = torch.randn(60, *shape, generator=torch.Generator().manual_seed(1))

    def batch(self, start, n, seed, device="cpu"):
        rows = (start + torch.arange(n)) % len(self.x)
        return Particles(self.x[rows], context=rows % self.classes if self.classes else None)

    def held_out(self, n, seed=0, device="cpu"):
        return self.batch(0, n, seed)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.5)


def equation_of(classes=0, penalty=None, divergence=None, critic=None, model=None, **more):
    torch.manual_seed(0)
    critic = critic or MLPCritic((2,), width=8, activation="silu", classes=classes)
    model = model or MLPGenerator((2,), latent_dim=3, width=8, activation="silu", classes=classes)
    more.setdefault("auxiliary", Dual())
    return StandardEquation(model=model, divergence=divergence or GAN(), metric=Metric(critic, penalty), **more)


def state_of(equation, pieces, execution=None):
    names = [role.name for role in equation.roles()]
    players = make_players(equation, sgd, **{name: {"accumulate": pieces, "steps": 2} for name in names})
    return TrainState(equation, players, **({} if execution is None else {"execution": execution}))


GAMES = {
    "dual": lambda: (equation_of(), Labelled()),
    "labels, R1 and R2": lambda: (equation_of(3, R1(1.0, fake=True)), Labelled(classes=3)),
    "lazy gradient penalty": lambda: (
        equation_of(penalty=GradientPenalty(10.0, every=2), divergence=Wasserstein1()), Labelled()
    ),
    "surrogate": lambda: (equation_of(divergence=Surrogate("hinge")), Labelled()),
    "likelihood": lambda: (
        StandardEquation(model=RealNVP((2,), couplings=2, width=8), divergence=CrossEntropy(), auxiliary=Empirical()),
        Labelled(),
    ),
    "convolutions": lambda: (
        equation_of(penalty=R1(), critic=ConvCritic((4, 4), width=4, spectral=True), model=MLPGenerator((4, 4))),
        Labelled((4, 4)),
    ),
    "sum": lambda: (with_orthogonal(), Labelled()),
}  # fmt: skip


def with_orthogonal():
    model = MLPGenerator((2,), latent_dim=3, width=8)
    return equation_of(
        model=model, plus={"weights": (0.1, StandardEquation(model=model, auxiliary=OrthogonalWeights()))}
    )


@pytest.mark.parametrize(("name", "pieces"), [*((name, 3) for name in GAMES), ("dual", 12)])
def test_accumulated_steps_are_those_of_the_whole_batch(name, pieces):
    equation, data = GAMES[name]()
    whole, cutting = state_of(equation, 1), state_of(copy.deepcopy(equation), pieces)
    before = [p.detach().clone() for p in equation.parameters()]
    for _ in range(3):
        rows = [play_round(state, data, N, 3) for state in (whole, cutting)]
    assert rows[0][0].keys() == rows[1][0].keys()
    for key, value in rows[0][0].items():  # what is recorded is of the whole batch too
        assert rows[1][0][key] == pytest.approx(value, rel=1e-12, abs=1e-12), key
    moved = [not torch.equal(old, new) for old, new in zip(before, whole.equation.parameters(), strict=True)]
    assert sum(moved) >= len(moved) - 1  # a shift of the critic may change nothing
    for a, b in zip(whole.equation.parameters(), cutting.equation.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_pieces_are_of_the_draws_of_the_whole_batch():
    equation, data = GAMES["labels, R1 and R2"]()
    batch = data.batch(0, N, 0)
    draws = draw_step(equation, ("own",), batch, step_stream(0, 1, "phi", 0, batch.x))
    pieces = list(cut(draws, 4, "phi"))
    assert {"x", "context", "model/noise", "penalty/own/mix"} == set(draws) and len(pieces) == 4
    for purpose, drawn in draws.items():
        assert all(len(piece[purpose]) == 3 for piece in pieces)
        assert torch.equal(torch.cat([piece[purpose] for piece in pieces]), drawn)


def ghosts():
    torch.manual_seed(0)
    model = ResidualGenerator((8, 8), latent_dim=3, width=3)
    return StandardEquation(
        model=model, divergence=GAN(), auxiliary=Dual(), metric=Metric(StridedCritic((8, 8), width=4))
    )


def test_batch_normalisation_sees_each_piece_alone_and_the_dry_run_says_so():
    equation, data = ghosts(), Labelled((8, 8))
    for k, name in enumerate(("phi", "theta")):
        player = state_of(copy.deepcopy(equation), 3).players[k]
        own = player.role
        twin = equation_like(player, own)
        batch = data.batch(0, N, 0)
        draws = draw_step(twin, (), batch, step_stream(0, 1, name, 0, batch.x))
        gathered(player, partial(objective, twin, player, ()), draws)
        want = [torch.zeros_like(p) for p in player.parameters]
        for piece in cut(draws, 3, name):
            p = twin.particles(piece)
            value = twin.scalar(data_of(piece), p) if k == 0 else twin.minimum(data_of(piece), p)
            loss = -value if k == 0 else value
            for total, g in zip(want, torch.autograd.grad(loss, player.parameters), strict=True):
                total += g / 3
        got = [p.grad for p in player.parameters]
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
        loss, _ = objective(twin, player, (), draws)
        off = [g - w for g, w in zip(got, torch.autograd.grad(loss, player.parameters), strict=True)]
        assert max(float(t.abs().max()) for t in off) > 1e-4  # that of the whole batch is another gradient
        assert "in 3 pieces of a batch, each with batch statistics of its own (ghost batches)" in player_line(
            player, twin
        )
    plain = state_of(equation_of(), 3)
    assert "2 steps a round in 3 pieces of a batch, " in player_line(plain.players[0], plain.equation)
    assert "pieces" not in player_line(state_of(equation_of(), 1).players[0], plain.equation)


def equation_like(player, role):
    """Return the equation whose parts a player moves."""
    equation = ghosts()
    part = {"theta": "model", "phi": "metric"}[role.name]
    setattr(equation, part, player.module)
    return equation


def test_a_resumed_run_has_the_same_bits(tmp_path):
    data = Labelled((8, 8))
    once = state_of(ghosts(), 3)
    train(once, data, rounds=4, batch_size=N, log_every=0, progress=False)
    half = state_of(ghosts(), 3)
    train(half, data, rounds=2, horizon=4, batch_size=N, log_every=0, progress=False)
    torch.save(half.state_dict(), tmp_path / "state.pt")
    rest = state_of(ghosts(), 3)
    rest.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    train(rest, data, rounds=4, batch_size=N, log_every=0, progress=False)
    assert same(once.state_dict(), rest.state_dict())


def test_compiled_steps_are_prepared_on_a_piece():
    equation, data = GAMES["dual"]()
    seen: list[int] = []

    def backend(graph, inputs):
        seen.extend(t.shape[0] for t in inputs if torch.is_tensor(t) and t.ndim == 2 and t.shape[1] == 2)
        return graph.forward

    plain = state_of(copy.deepcopy(equation), 3)
    fast = state_of(equation, 3, Execution(compiled=True, backend=backend))
    for _ in range(2):
        play_round(plain, data, N, 2), play_round(fast, data, N, 2)
    assert fast.execution.news == [] and 4 in seen and N not in seen
    for a, b in zip(plain.equation.parameters(), fast.equation.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


# --- refusals --------------------------------------------------------------------------------------------------------


class Largest(Penalty):
    """The largest score: no mean."""

    per_example = False

    def penalty(self, metric, x_data, x_model, mix):
        return metric(x_data).max()


CASES = {
    "log-mean-exp": (lambda: equation_of(divergence=KL(), auxiliary=Dual(normalised=True)), "phi", "Dual under KL"),
    "clouds": (
        lambda: StandardEquation(model=Affine((2,)), divergence=EnergyDistance(), auxiliary=Empirical()),
        "theta", "Empirical under EnergyDistance",
    ),
    "weights": (lambda: equation_of(model=GaussianMixture((2,))), "theta", "GaussianMixture has weighted particles"),
    "penalty": (lambda: equation_of(penalty=Largest(1.0)), "phi", "Largest is no mean over examples"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_no_mean_is_refused_with_the_override(name):
    make, player, reason = CASES[name]
    with pytest.raises(IncompatibleError, match=f"{reason}.*: add players.{player}.accumulate=1$"):
        make_players(make(), sgd, **{player: {"accumulate": 2}})
    make_players(make(), sgd, **{player: {"accumulate": 1}})


def test_a_penalty_that_is_no_mean_does_not_hinder_the_model():
    make_players(equation_of(penalty=Largest(1.0)), sgd, theta={"accumulate": 2})


def test_pieces_are_equal():
    state = state_of(equation_of(), 5)
    with pytest.raises(ConfigError, match=r"accumulate=5 does not divide the batch of 12 examples: .*=1, or .*size=10"):
        train(state, Labelled(), rounds=1, batch_size=N, progress=False)
    with pytest.raises(ConfigError, match="players.theta.accumulate must be at least 1, got 0"):
        make_players(equation_of(), theta={"accumulate": 0})


def test_what_is_not_drawn_for_each_example_is_not_cut():
    with pytest.raises(ConfigError, match=r"theta.accumulate=2: model/noise is not drawn once for each of 4.*\(0,\)"):
        next(cut({"x": torch.zeros(4, 2), "model/noise": torch.zeros(0)}, 2, "theta"))


STAGE = ["stages=[{rounds: 1, auxiliary: {_target_: se_framework.Dual, normalised: true}}]"]


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["players.theta.accumulate=3"], ConfigError, "players.theta.accumulate=3 does not divide the batch of 256"),
        (["players.phi.accumulate=0"], ConfigError, "players.phi.accumulate must be at least 1"),
        (["players.phi.accumulate=2", "auxiliary=dual_probability"], IncompatibleError, "add players.phi.accumulate=1"),
        (["players.theta.accumulate=2", "ensemble.size=2"], IncompatibleError, "add ensemble.size=1"),
        (
            [*STAGE, "players.phi.accumulate=4"],
            IncompatibleError, "add players.phi.accumulate=1",
        ),
    ],
)  # fmt: skip
def test_the_configuration_is_refused_before_anything_is_allocated(words, error, message):
    with pytest.raises(error, match=message):
        compose("digits", [*words, "progress=false", "device=cpu"])


def test_the_configuration_reaches_the_players():
    assembly = compose(
        "digits", ["players.theta.accumulate=4", "model.width=4", "metric.network.width=4", "device=cpu"]
    )
    assert {p.name: p.pieces for p in assembly.state.players} == {"phi": 1, "theta": 4}
