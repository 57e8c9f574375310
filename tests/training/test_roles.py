"""Who moves: every part with trainable parameters has a player, which trains, is recorded, saved and resumed."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from divergences import GAN, KL, CrossEntropy, EnergyDistance
from models import Affine, GaussianMixture, MLPCritic, MLPEmbedding, TabularCritic, TabularModel
from se_framework import R1, Metric, StandardEquation, TrainState
from se_framework.data import Moons
from se_framework.equation.auxiliary import Dual, Embedded, Empirical
from se_framework.errors import ConfigError
from se_framework.runs.directory import RunDirectory
from se_framework.training.loop import train
from se_framework.training.players import make_players
from se_framework.training.step import play_round
from tests.support.comparing import same
from tests.support.parts import Anchored, Latent, Posterior, Rows, Shifted, Tuned

DEFAULT_DTYPE = torch.float64
PD = torch.tensor([5, 2, 3, 2, 1, 3], dtype=torch.float64) / 16
LETTERS = Rows(torch.repeat_interleave(torch.arange(6.0, dtype=torch.float64), (16 * PD).long())[:, None])


def sgd(lr):
    return lambda parameters: torch.optim.SGD(parameters, lr=lr)


def state_of(equation, optimizer=None, **players):
    return TrainState(equation, make_players(equation, optimizer, **players))


def play(state, data, rounds, batch_size=16, **more):
    return train(state, data, rounds=rounds, batch_size=batch_size, progress=False, **{"log_every": 0, **more})


def everybody():
    """An equation of four players: phi, D, q and theta."""
    torch.manual_seed(0)
    return StandardEquation(
        model=Affine((2,)), divergence=Shifted(), auxiliary=Anchored(), metric=Metric(MLPCritic((2,), width=8))
    )


def frozen(module):
    return module.requires_grad_(False)


# -- who there is -----------------------------------------------------------------------------------------------------


def test_every_part_with_parameters_has_a_role_in_the_order_of_the_game():
    equation = everybody()
    roles = equation.roles()
    assert [(role.name, role.sign) for role in roles] == [("phi", 1), ("D", 1), ("q", -1), ("theta", -1)]
    parts = {"phi": equation.metric, "D": equation.divergence, "q": equation.auxiliary, "theta": equation.model}
    assert all(role.module is parts[role.name] for role in roles)
    assert [role.moves_samples for role in roles] == [False, False, False, True]
    assert [role.moves_f_data for role in roles] == [True, True, False, False]
    assert [role.fresh for role in roles] == [True, True, True, False]  # theta plays on the last batch of the others
    held = {id(p) for p in equation.parameters()}
    players = make_players(equation)
    assert {id(p) for player in players for p in player.parameters} == held
    assert sum(len(player.parameters) for player in players) == len(held)


@pytest.mark.parametrize("part", ["model", "metric", "auxiliary", "divergence"])
def test_a_part_without_trainable_parameters_has_none(part):
    equation = everybody()
    frozen(getattr(equation, part))
    names = {"model": "theta", "metric": "phi", "auxiliary": "q", "divergence": "D"}
    assert [role.name for role in equation.roles()] == [n for n in ("phi", "D", "q", "theta") if n != names[part]]
    before = copy.deepcopy(getattr(equation, part).state_dict())
    play(state_of(equation), Moons(), 2)
    assert same(before, getattr(equation, part).state_dict())


def test_alone_theta_draws_batches_of_its_own():
    equation = StandardEquation(model=Affine((1,)), divergence=CrossEntropy(), auxiliary=Empirical())
    (role,) = equation.roles()
    assert role.name == "theta" and role.fresh


def test_parts_of_one_kind_in_a_sum_are_one_players():
    model = TabularModel()

    def summand(d):
        return {"model": model, "divergence": d, "auxiliary": Anchored(), "metric": Metric(TabularCritic())}

    other = StandardEquation(**summand(Shifted()))
    equation = StandardEquation(**summand(Shifted()), plus={"more": (0.5, other)})
    roles = {role.name: role for role in equation.roles()}
    assert list(roles) == ["phi", "D", "q", "theta"]
    for name in ("phi", "D", "q"):
        assert list(roles[name].parts) == ["own", "more"]
    shared = Shifted()  # one D that two summands hold is one part
    other = StandardEquation(**summand(shared))
    equation = StandardEquation(**summand(shared), plus={"more": (0.5, other)})
    assert {role.name: list(role.parts) for role in equation.roles()}["D"] == ["own"]
    assert len(make_players(equation)[1].parameters) == 1


def test_divergences_of_a_sum_that_move_in_opposite_directions_are_refused():
    model = Affine((2,))
    other = StandardEquation(model=model, divergence=Tuned(), auxiliary=Empirical())
    equation = StandardEquation(
        model=model, divergence=Shifted(), auxiliary=Dual(), metric=Metric(MLPCritic((2,), width=4)),
        plus={"more": (1.0, other)},
    )  # fmt: skip
    with pytest.raises(ConfigError, match="must all ascend or all descend: .* alike in Shifted and Tuned"):
        equation.roles()


def test_unknown_players_are_refused_with_those_that_there_are():
    with pytest.raises(ConfigError, match=r"players.r: there is no such player; known: D, phi, q, theta"):
        make_players(everybody(), r={"steps": 2})
    with pytest.raises(ConfigError, match=r"players.tetha: there is no such player; did you mean 'theta'\?"):
        make_players(everybody(), tetha={"steps": 2})
    assert [p.name for p in make_players(everybody(), q={"steps": 2})][2] == "q"
    plain = StandardEquation(model=Affine((1,)), divergence=CrossEntropy(), auxiliary=Empirical())
    assert [p.name for p in make_players(plain, q={"steps": 2}, D={"steps": 0})] == ["theta"]  # others are passed over


def test_a_parameter_that_belongs_to_no_player_is_refused_by_its_name():
    equation = everybody()
    equation.register_parameter("stray", nn.Parameter(torch.zeros(2)))
    with pytest.raises(ConfigError, match="parameter stray belongs to no player and would never be trained"):
        make_players(equation)
    equation.stray.requires_grad_(False)
    assert len(make_players(equation)) == 4
    with pytest.raises(ConfigError, match="parameter phi's view.c belongs to no player"):
        make_players(everybody(), phi={"view": Shifted()})


def test_a_parameter_of_a_summands_view_is_refused_too():
    """Nobody asked for that view: the summand's divergence brings it, and a player that looks through it."""

    class Viewed(KL):
        def view(self, role):
            return Shifted() if role.name == "phi" else None

    model = Affine((2,))
    more = StandardEquation(model=model, divergence=Viewed(), auxiliary=Dual(), metric=Metric(MLPCritic((2,), width=4)))
    own = {"divergence": GAN(), "auxiliary": Dual(), "metric": Metric(MLPCritic((2,), width=4))}
    with pytest.raises(ConfigError, match="parameter phi's view.c belongs to no player"):
        make_players(StandardEquation(model=model, **own, plus={"more": (1.0, more)}))


def test_a_penalty_with_a_parameter_moves_with_its_metric():
    from se_framework import R1

    class Learned(R1):
        def __init__(self):
            super().__init__()
            self.log_weight = nn.Parameter(torch.zeros(()))

    equation = StandardEquation(
        model=Affine((2,)), divergence=GAN(), auxiliary=Dual(), metric=Metric(MLPCritic((2,), width=4), Learned())
    )
    phi = make_players(equation)[0]
    assert any(p is equation.metric.penalty.log_weight for p in phi.parameters)


# -- they train, each to an optimum that is known ---------------------------------------------------------------------


def test_a_parameter_in_a_divergence_ascends():
    """At a fixed critic the best shift is -log E_p e^v, and the scalar Donsker-Varadhan's: by sums over the letters."""
    equation = StandardEquation(
        model=TabularModel(), divergence=Shifted(), auxiliary=Dual(), metric=Metric(TabularCritic())
    )
    v = torch.tensor([0.5, -1.0, 0.3, 1.2, -0.4, 0.1])
    with torch.no_grad():
        equation.metric.network.scores.copy_(v)
    frozen(equation.metric), frozen(equation.model)
    state = state_of(equation, sgd(0.5))
    assert [player.name for player in state.players] == ["D"] and state.players[0].view is None
    play(state, LETTERS, 60, log_every=60)
    p = equation.model.logits.softmax(0)
    best = -float((p * v.exp()).sum().log())
    # The scalar c - e^(c - best) has curvature one at its maximum: steps of 1/2 halve the distance, 2^-60.
    assert float(equation.divergence.c.detach()) == pytest.approx(best, abs=1e-14)
    row = state.history[-1]
    assert row["total"] == pytest.approx(float((PD * v).sum()) + best, abs=1e-13)
    assert row["D_objective"] == pytest.approx(row["total"], abs=1e-13) and abs(row["D_gradient"]) < 1e-13


def test_a_parameter_in_a_divergence_may_descend():
    equation = StandardEquation(model=Affine((2,)), divergence=Tuned(), auxiliary=Empirical())
    state = state_of(equation, sgd(0.25))
    assert [(p.name, p.role.sign) for p in state.players] == [("D", -1), ("theta", -1)]
    play(state, Moons(), 60)
    assert float(equation.divergence.c.detach()) == pytest.approx(3.0, abs=1e-14)  # the distance halves: 3 / 2^60


def test_an_auxiliary_with_parameters_descends_beside_theta():
    """A linear-Gaussian latent variable: posterior and bound at the optimum are those of N(loc, 2) in closed form."""
    x = 1.5 + torch.linspace(-2, 2, 32, dtype=torch.float64)[:, None]
    equation = StandardEquation(model=Latent(), auxiliary=Posterior())
    state = state_of(equation, sgd(0.1), q={"steps": 2})
    assert [player.name for player in state.players] == ["q", "theta"]
    play(state, Rows(x), 1000, 32, log_every=1000)
    # In (a, b, loc) the bound is a quadratic of curvature 0.4 to 9 here: at rate 0.1 what is left is below 0.96^1000.
    loc, q = float(equation.model.loc.detach()), equation.auxiliary
    exact = float(-torch.distributions.Normal(x.mean(), math.sqrt(2.0)).log_prob(x).mean())
    assert loc == pytest.approx(float(x.mean()), abs=1e-9)
    found = [float(t.detach()) for t in (q.a, q.b, q.s)]
    assert found == pytest.approx([0.5, -loc / 2, math.log(0.5) / 2], abs=1e-9)
    assert state.history[-1]["total"] == pytest.approx(exact, abs=1e-12)
    assert {"q_objective", "q_gradient", "theta_objective", "theta_gradient"} <= set(state.history[-1])


def test_without_a_model_that_moves_the_metric_alone_trains():
    """phi reads the data's log-ratio to a fixed law: KL of the letters, by sums."""
    equation = StandardEquation(
        model=frozen(TabularModel()), divergence=KL(), auxiliary=Dual(), metric=Metric(TabularCritic())
    )
    state = state_of(equation, sgd(2.0))
    assert [player.name for player in state.players] == ["phi"]
    play(state, LETTERS, 400, log_every=400)
    p = equation.model.logits.softmax(0)
    exact = float((PD * (PD / p).log()).sum())
    assert state.history[-1]["total"] == pytest.approx(exact, abs=1e-9)


class Fixed(nn.Module):
    """A critic without parameters: v = -|x|^2/2."""

    def forward(self, x):
        return -x.square().sum(1) / 2


def test_a_metric_without_parameters_is_no_player():
    equation = StandardEquation(model=Affine((2,)), divergence=KL(), auxiliary=Dual(), metric=Metric(Fixed()))
    assert [player.name for player in make_players(equation)] == ["theta"]
    before = copy.deepcopy(equation.model.state_dict())
    state = play(state_of(equation), Moons(), 3, log_every=1)
    assert state.round == 3 and not same(before, equation.model.state_dict())
    assert "phi_objective" not in state.history[-1] and "penalty" not in state.history[-1]


@pytest.mark.parametrize("mover", ["phi", "D", "q", "theta"])
def test_a_player_moves_its_own_part_only_and_its_gradient_is_that_of_the_scalar(mover):
    equation, data = everybody(), Moons()
    state = state_of(equation, sgd(0.1), **{name: {"steps": int(name == mover)} for name in ("phi", "D", "q", "theta")})
    before = copy.deepcopy(equation)
    play_round(state, data, 16, 10)
    part = {"phi": "metric", "D": "divergence", "q": "auxiliary", "theta": "model"}[mover]
    for name in ("metric", "divergence", "auxiliary", "model"):
        assert same(getattr(before, name).state_dict(), getattr(equation, name).state_dict()) is (name != part)
    from se_framework.training.draws import draw_batch, draw_step, step_stream

    batch = draw_batch(data, 0, 16, 0, before)
    draws = draw_step(before, (), batch, step_stream(0, 0, mover, 0, batch.x))
    scalar = before.scalar(batch, before.particles(draws))
    sign = 1 if mover in ("phi", "D") else -1
    own = list(getattr(before, part).parameters())
    for old, new, slope in zip(
        own, getattr(equation, part).parameters(), torch.autograd.grad(scalar, own), strict=True
    ):
        torch.testing.assert_close(new.detach(), old.detach() + sign * 0.1 * slope, rtol=1e-12, atol=1e-14)


# -- recorded, averaged, saved, resumed -------------------------------------------------------------------------------


def adam(parameters):
    return torch.optim.Adam(parameters, lr=1e-2, betas=(0.5, 0.9), fused=True)


def four():
    """A game of four with everything that has a state: moments, averages, several steps, decay."""
    options = {"phi": {"steps": 2}, "D": {"ema": 0.8}, "q": {"ema": 0.9, "decay": "cosine"}, "theta": {"ema": 0.7}}
    return state_of(everybody(), adam, **options)


def test_every_player_is_recorded():
    state = play(four(), Moons(), 2, log_every=1)
    for name in ("phi", "D", "q", "theta"):
        assert {f"{name}_objective", f"{name}_gradient"} <= set(state.history[-1])
    # five batches a round: two of phi's, one of D's, one of q's; theta plays on q's
    assert state.samples == 2 * 4 * 16
    assert [player.steps_taken for player in state.players] == [4, 2, 2, 2]


def test_the_recorded_penalty_is_that_of_the_metric_beside_a_divergence_that_moves():
    """Half the mean squared slope at the examples of phi's step, by hand; D, which moves after phi, adds none."""
    equation = everybody()
    equation.metric.penalty = R1(1.0)
    state = state_of(equation, sgd(0.0))
    play(state, Moons(), 1, log_every=1)
    x = Moons().batch(0, 16, 0).x.requires_grad_()
    (slope,) = torch.autograd.grad(equation.metric(x).sum(), x)
    assert state.history[-1]["penalty"] == pytest.approx(float(slope.square().sum(1).mean()) / 2, rel=1e-12)
    plain = state_of(everybody(), sgd(0.0))
    assert play(plain, Moons(), 1, log_every=1).history[-1]["penalty"] == 0


def test_a_game_of_four_resumes_to_the_same_bits(tmp_path):
    options = {"batch_size": 16, "horizon": 6, "progress": False, "log_every": 1}
    whole = train(four(), Moons(), rounds=6, **options)
    first, run = four(), RunDirectory(tmp_path)
    train(first, Moons(), rounds=3, run=run, **options)
    second = four()
    second.load_state_dict(run.load_checkpoint()[0])
    train(second, Moons(), rounds=6, **options)
    assert same(whole.state_dict(), second.state_dict())
    saved = whole.state_dict()
    assert list(saved["players"]) == ["phi", "D", "q", "theta"]
    assert {"divergence.c", "auxiliary.c", "metric.network.net.1.weight"} <= set(saved["equation"])
    clock = ("seconds", "samples_per_second")
    rows = [[{k: v for k, v in row.items() if k not in clock} for row in s.history] for s in (whole, second)]
    assert rows[0][3:] == rows[1]


def test_the_trained_equation_holds_every_average():
    state = play(four(), Moons(), 3)
    trained, equation = state.trained(), state.equation
    assert trained.metric is equation.metric  # it has no average
    for name in ("model", "divergence", "auxiliary"):
        mine, own = getattr(trained, name), getattr(equation, name)
        assert mine is not own and not same(mine.state_dict(), own.state_dict())
    averages = [player.averaged for player in state.players[1:]]
    assert averages == [trained.divergence, trained.auxiliary, trained.model]
    embedded = StandardEquation(
        model=GaussianMixture((2,), components=2), divergence=EnergyDistance(), auxiliary=Embedded(),
        metric=Metric(MLPEmbedding((2,), outputs=2, width=4)),
    )  # fmt: skip
    assert [role.name for role in embedded.roles()] == ["phi", "theta"]


def test_what_a_run_had_beside_today_is_refused(tmp_path):
    saved = four().state_dict()
    plain = state_of(
        StandardEquation(model=Affine((2,)), divergence=KL(), auxiliary=Dual(), metric=Metric(MLPCritic((2,), width=8)))
    )
    from se_framework.errors import RunDirectoryError

    with pytest.raises(
        RunDirectoryError, match=r"players \['D', 'phi', 'q', 'theta'\]\) is not of this run .*'phi', 't"
    ):
        plain.load_state_dict(saved)
    stray = saved | {"equation": {k: v for k, v in saved["equation"].items() if k != "divergence.c"}}
    with pytest.raises(RunDirectoryError, match="does not fit the configuration: it lacks divergence.c"):
        four().load_state_dict(stray)
    more = saved | {"equation": saved["equation"] | {"divergence.d": torch.zeros(())}}
    with pytest.raises(RunDirectoryError, match="does not fit the configuration: it holds divergence.d"):
        four().load_state_dict(more)
