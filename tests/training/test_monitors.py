"""Monitors: each planted pathology warns once, healthy runs never; trajectories stay, and a look costs little."""

from __future__ import annotations

import copy
import csv
import io
import statistics
import time

import pytest
import torch
from torch import nn

import se_framework as se
from divergences import GAN, KL, ReverseKL, SoftenedReverseKL, Wasserstein1
from models import GroupSortCritic, MLPCritic, MLPGenerator
from models.laws import Particles
from se_framework.api import restore
from se_framework.assembly import Assembly
from se_framework.config.composing import compose, config_dir, groups
from se_framework.data import Moons, as_data
from se_framework.equation.auxiliary import Dual
from se_framework.equation.equation import StandardEquation
from se_framework.equation.metric import Metric
from se_framework.equation.penalties import R1
from se_framework.runs.directory import RunDirectory
from se_framework.training import monitors
from se_framework.training.loop import train
from se_framework.training.monitors import START, warnings_in, watch
from se_framework.training.players import make_players
from se_framework.training.progress import Progress
from se_framework.training.state import TrainState
from tests.support.comparing import same
from tests.support.parts import Plain
from tests.support.smaller import smaller

FROZEN, COLLAPSED, SATURATED = "frozen terms", "collapsed samples", "saturated critic"
FIGHTS = "a penalty that fights the metric"


def game(network=None, d=None, penalty=None, allow=(), model=None, **players):
    torch.manual_seed(0)
    equation = StandardEquation(
        model=model or MLPGenerator((2,), latent_dim=3, width=16), divergence=d or GAN(), auxiliary=Dual(), allow=allow,
        metric=Metric(network or MLPCritic((2,), width=32), penalty),
    )  # fmt: skip
    return TrainState(equation, make_players(equation, lambda p: torch.optim.Adam(p, lr=1e-2, fused=True), **players))


def play(state, rounds, data=None, log_every=20, **more):
    """Train, and return the names of the warnings."""
    train(state, data or Moons(), rounds=rounds, batch_size=32, log_every=log_every, progress=False, **more)
    return [text.partition(" in round")[0] for text in warnings_in(state.history)]


# -- planted pathologies -------------------------------------------------------------------------------------------


class Constant(nn.Module):
    """A critic whose units are dead: no output depends on its input."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return torch.relu(-self.bias.square() - x.square().sum(1)) + 0 * x[:, 0]


def test_a_frozen_critic_warns_once_after_five_rows(capsys):
    state = game(Constant())
    assert play(state, 300) == [FROZEN]
    text = warnings_in(state.history)[0]
    assert text.startswith("frozen terms in round 100: E_q_f = ") and "since round 20, on fresh draws" in text
    assert "phi_gradient = 0" in text and "look for dead units" in text
    notes = [row["note"] for row in state.history]
    assert [bool(note) for note in notes] == [False] * 4 + [True] + [False] * 10
    said = capsys.readouterr().err
    assert said.count("WARNING, frozen terms in round 100") == 1 and said.count("WARNING") == 1


def test_a_summand_is_frozen_where_its_metric_learns_and_only_there():
    """A metric without parameters is a constant by choice; one with some, whose means stand still, is not."""
    torch.manual_seed(0)
    model = MLPGenerator((2,), latent_dim=3, width=4)

    def summand(network):
        return {"model": model, "divergence": KL(), "auxiliary": Dual(), "metric": Metric(network)}

    plus = {
        "plain": (1.0, StandardEquation(**summand(Plain((2,))))),
        "dead": (1.0, StandardEquation(**summand(Constant()))),
    }
    state = TrainState(StandardEquation(**summand(MLPCritic((2,), width=4)), plus=plus))
    rows = [{"round": float(t), "E_q_f": t, "phi_gradient": t, "plain/E_q_f": 1.0, "dead/D": 0.0} for t in range(5)]
    assert not list(monitors.frozen(state, rows))
    (found,) = monitors.frozen(state, [row | {"dead/E_q_f": 1.0} for row in rows])
    assert found.text.startswith("dead/E_q_f = 1 to the last bit since round 0")


def test_at_rest_nothing_is_frozen():
    """Learning rates of zero, as after the end of a decay, are no pathology."""
    state = game(Constant(), theta={"decay": "linear"}, phi={"decay": "linear"})
    assert play(state, 300, horizon=1) == []


class Point(MLPGenerator):
    """A generator that maps all noise to one place, or to two."""

    places = 1

    def __init__(self):
        super().__init__((2,), latent_dim=3, width=16)

    def forward(self, context=None):
        law = super().forward(context)
        push = law.push

        def few(z):
            place = (z[:, :1] > 0).to(z.dtype) if self.places == 2 else torch.zeros_like(z[:, :1])
            return push(torch.zeros_like(z)) + 3 * place

        law.push = few
        return law


@pytest.mark.parametrize("places", [1, 2])
def test_a_generator_of_one_or_two_points_is_collapsed(places):
    model = Point()
    model.places = places
    state = game(model=model, penalty=R1(1.0))
    assert play(state, 140) == [COLLAPSED]
    text = warnings_in(state.history)[0]
    assert (
        text.startswith(f"collapsed samples in round {START}: two samples are ") and "nearest neighbours 0 and" in text
    )


def test_concentrated_data_is_no_collapse():
    """Two clouds as thin as 1e-6 of their distance, and a law that has learned them."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(500, 2, generator=generator) * 1e-6 + torch.randint(2, (500, 1), generator=generator)
    y = torch.randn(64, 2, generator=generator) * 1e-6 + torch.randint(2, (64, 1), generator=generator)
    assert not list(monitors.collapsed(rows[:64], y))
    assert not list(monitors.collapsed(rows[:64] * 0, y * 0))  # data that is one point
    assert [found.name for found in monitors.collapsed(rows[:64], y.round())] == [COLLAPSED]
    assert [found.name for found in monitors.collapsed(rows[:64], y * 5e-3)] == [COLLAPSED]  # by the mean alone


def far(n=500):
    """Data that a generator which starts at zero never meets."""
    return as_data(torch.randn(n, 2, generator=torch.Generator().manual_seed(1)) * 0.3 + 20)


def test_a_critic_trained_alone_on_disjoint_supports_saturates():
    """The sigmoid of v at samples, theta's slope, falls below 1e-4 once v is below -9.2; at v = 0 it is one half."""
    state = game(theta={"optimizer": lambda p: torch.optim.SGD(p, lr=1e-9)})
    assert play(state, 400, far()) == [SATURATED]
    text = warnings_in(state.history)[0]
    reads = float(text.split("reads ")[1].split(" on samples")[0])
    assert reads < -9 and "players.theta.view=softened_reverse_kl" in text


@pytest.mark.parametrize(
    ("d", "network"),
    [(ReverseKL(), None), (Wasserstein1(), GroupSortCritic((2,), width=16)), (KL(), GroupSortCritic((2,), width=16))],
)
def test_a_slope_that_does_not_vanish_or_a_potential_is_not_saturated(d, network):
    """Reverse KL's slope in v is one everywhere; so is that of W1."""
    state = game(network, d, theta={"optimizer": lambda p: torch.optim.SGD(p, lr=1e-9)})
    data = far() if not isinstance(d, KL) else Moons()
    assert SATURATED not in play(state, START + 4, data, log_every=4)


def test_theta_is_judged_through_its_own_view():
    """The view of the non-saturating game has slope one where v is low."""
    theta = {"optimizer": lambda p: torch.optim.SGD(p, lr=1e-9), "view": SoftenedReverseKL()}
    assert play(game(theta=theta), 400, far()) == []


class Plane(nn.Module):
    """v = w (x_1 - 10): far above zero on far data, far below on samples around zero."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(5.0))

    def forward(self, x):
        return self.w * (x[:, 0] - 10)


class Noised(Dual):
    """The dual of scores with noise that it draws for itself; its loss is given to players by their roles alone."""

    def draws(self, n, stream):
        return {"kick": stream.normal("kick", (n,))}

    def minimum(self, problem, role=None):
        assert role is not None
        return super().minimum(problem._replace(v=problem.v + 1e-3 * problem.draws["kick"]), role)


@pytest.mark.parametrize("view", [None, SoftenedReverseKL()])
def test_a_summand_that_draws_is_looked_at_with_its_own_draws_through_its_own_view(view):
    """The GAN of a sum is as saturated as alone; the view that theta has of W1 is none of the GAN's."""
    model = MLPGenerator((2,), latent_dim=3, width=16)
    gan = StandardEquation(model=model, divergence=GAN(), auxiliary=Noised(), metric=Metric(Plane()))
    w1 = {"divergence": Wasserstein1(), "auxiliary": Dual(), "metric": Metric(GroupSortCritic((2,), width=8))}
    equation = StandardEquation(model=model, **w1, plus={"gan": (1.0, gan)})
    state = TrainState(equation, make_players(equation, theta={"view": view}), round=START)
    row = {"round": float(START)}
    (text,) = watch(state, far(), row)
    assert text.startswith(SATURATED) and "the metric of plus.gan reads -" in text


def coupled():
    norm = nn.BatchNorm1d(16, track_running_stats=False)
    return nn.Sequential(nn.Linear(2, 16), norm, nn.LeakyReLU(0.2), nn.Linear(16, 1), nn.Flatten(0))


def test_a_penalty_that_fights_batch_normalisation_warns_once_with_both_slopes():
    state = game(coupled(), penalty=R1(1.0), allow=["batch_coupled"])
    assert play(state, 100) == [FIGHTS]
    text = warnings_in(state.history)[0]
    seen, own = (float(text.split(before)[1].split(after)[0]) for before, after in
                 (("slopes of ", ", the"), ("own are ", ":")))  # fmt: skip
    assert text.startswith(f"{FIGHTS} in round 20: R1 sees") and seen < 0.9 * own
    # by definition: the Jacobian of the batch's scores, its column sums and its diagonal
    metric, x = state.equation.metric, Moons().batch(192, 64, 0).x
    jacobian = torch.autograd.functional.jacobian(metric, x)
    sums, diagonal = jacobian.sum(0).norm(dim=1)[:8], torch.stack([jacobian[i, i].norm() for i in range(8)])
    found = next(monitors.coupled(metric, Particles(x))).text
    assert f"sees slopes of {float(sums.mean()):.2g}, the examples' own are {float(diagonal.mean()):.2g}:" in found


def test_batch_normalisation_without_a_penalty_and_a_penalty_without_it_are_fine():
    assert play(game(coupled()), 40) == []
    assert play(game(penalty=R1(1.0)), 40) == []


# -- once, recorded, resumed ---------------------------------------------------------------------------------------


def test_a_resumed_run_does_not_warn_again_and_has_the_same_rows(tmp_path, capsys):
    overrides = ["experiment=vanilla_gan", "loop.batch_size=16", "loop.log_every=2", "loop.checkpoint_every=5",
                 "loop.horizon=40", "progress=false", "device=cpu", "data=moons", "metric=mlp",
                 "metric.network._target_=tests.training.test_monitors.Constant", "~metric.network.width",
                 "~metric.network.depth", "~metric.network.activation"]  # fmt: skip
    runs = {}
    for name, stops in (("whole", [40]), ("cut", [15, 40])):
        runs[name] = RunDirectory(tmp_path / name)
        runs[name].path.mkdir()
        for stop in stops:
            assembly = se.assembly.assembly_of(compose(None, [*overrides, f"loop.rounds={stop}"]))
            restore(assembly, runs[name])
            runs[name].rewind(assembly.state.round)
            assembly.train(runs[name])
    err = capsys.readouterr().err
    assert err.count("WARNING, frozen terms in round 10:") == 2 and err.count("WARNING") == 2  # one for each run
    notes = {name: {r["round"]: r["note"] for r in run.rows()} for name, run in runs.items()}
    assert notes["whole"]["10"] == notes["cut"]["10"] != "" and sum(map(bool, notes["cut"].values())) == 1
    assert warnings_in(assembly.state.history) == [notes["cut"]["10"].removeprefix("WARNING, ")]


def test_the_summary_lists_the_warnings(tmp_path, monkeypatch):
    import json

    from se_framework.commands import train as command

    monkeypatch.setattr(command, "evaluate", lambda assembly: {"w2": {"value": 0.0, "n": 1, "seed": 0}})
    monkeypatch.setattr(Assembly, "plot", lambda *a, **k: None)
    monkeypatch.setattr(command, "curves", lambda *a, **k: None)
    overrides = ["score=w2", "loop.rounds=2", "loop.log_every=1", "loop.batch_size=16", "progress=false", "device=cpu"]
    monkeypatch.setattr(monitors, "findings", lambda *a: iter([monitors.Finding("a thing", "1, and a hint")]))
    command.train_run(compose(None, overrides), tmp_path / "run", overrides)
    found = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert found["warnings"] == ["a thing in round 1: 1, and a hint"]


def test_two_warnings_and_a_note_share_a_row(monkeypatch):
    pair = [monitors.Finding("one", "1"), monitors.Finding("two", "2"), monitors.Finding("two", "again")]
    monkeypatch.setattr(monitors, "findings", lambda *a: iter(pair))
    state, row = game(), {"round": 0.0, "note": "not representable: D"}
    assert watch(state, Moons(), row) == ["one in round 0: 1", "two in round 0: 2"]
    text = io.StringIO()
    csv.writer(text).writerow([row["note"]])
    assert next(csv.reader([text.getvalue()])) == [row["note"]] and row["note"].startswith("not representable: D | ")
    state.history.append(row)
    assert watch(state, Moons(), {"round": 1.0, "note": ""}) == [] and len(warnings_in([row])) == 2


def test_a_monitor_that_cannot_look_says_so_once_and_does_not_stop_the_run():
    class Whole(MLPCritic):
        row_wise = False

        def score(self, x):
            if len(x) != 32:
                raise RuntimeError("whole batches only")
            return super().score(x)

    state = game(Whole((2,), width=8))
    play(state, START + 20)
    (said,) = warnings_in(state.history)
    assert said == f"unwatched since round {START}: a monitor met RuntimeError: whole batches only"
    assert state.round == START + 20


def test_watching_changes_no_trajectory():
    """Dropout draws on torch's generator, batch normalisation keeps statistics: neither may notice."""

    def network():
        return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 1),
                             nn.Flatten(0))  # fmt: skip

    state = game(network())
    play(state, START)
    before, hidden = copy.deepcopy(state.state_dict()), torch.random.get_rng_state()
    with torch.random.fork_rng():
        watch(state, Moons(), {"round": 1.0})
    assert torch.equal(hidden, torch.random.get_rng_state())
    assert same(before, state.state_dict())
    often, seldom = game(network()), game(network())
    play(often, START + 10, log_every=5)
    play(seldom, START + 10, log_every=START + 10)
    for a, b in zip(often.equation.parameters(), seldom.equation.parameters(), strict=True):
        assert torch.equal(a, b)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_warning_stands_above_the_bar(monkeypatch):
    """On a terminal the bar is taken away, the line is written, and the bar is drawn again: nothing shares a line."""
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with Progress(10) as bar:
        bar.advance(1)
        bar.say("WARNING, this")
        bar.advance(1)
    lines = screen.getvalue().split("\n")
    assert any(line.rpartition("\r")[2] == "se-train: WARNING, this" for line in lines)


# -- healthy runs, and the cost ------------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize("experiment", groups([config_dir()])["experiment"])
def test_no_healthy_run_is_warned(experiment, soak, monkeypatch):
    """Every experiment as shipped, logged often: the rounds in which a game is furthest from its end.

    ``make test`` lets samples and critic be judged after 40 rounds, which asks more of a healthy run than 100.
    """
    config = compose(
        experiment, ["device=cpu", "progress=false", "loop.picture_every=0", "stages=[]", *smaller(experiment, soak)]
    )
    config.loop.horizon = config.loop.rounds
    config.loop.rounds, config.loop.log_every = (1500, 50) if soak else (42, 7)
    if not soak:
        monkeypatch.setattr(monitors, "START", 40)
        config.loop.batch_size, config.players.phi.steps = 16, 1
        if "width" in config.model:
            config.model.width = 32
    assembly = se.assembly.assembly_of(config)
    assembly.train()
    assert warnings_in(assembly.state.history) == []


@pytest.mark.soak
def test_monitors_cost_less_than_a_percent_of_a_round(soak, record):
    """The default experiment at its own batch size and log_every: rounds and looks alternate, medians are compared."""
    count = 200 if soak else 12
    assembly = se.compose(None, ["device=cpu", "progress=false", "loop.log_every=0"])
    every = compose(None, []).loop.log_every
    assembly.config.loop.rounds = START
    assembly.train()
    rounds, looks = [], []
    for _ in range(count):
        assembly.config.loop.rounds += 1
        for seconds, what in (
            (rounds, assembly.train),
            (looks, lambda: watch(assembly.state, assembly.data, {"round": 1.0})),
        ):
            start = time.process_time()
            what()
            seconds.append(time.process_time() - start)
    share = statistics.median(looks) / every / statistics.median(rounds)
    record("monitors", {"round_ms": 1e3 * statistics.median(rounds), "look_ms": 1e3 * statistics.median(looks),
                        "log_every": every, "share_of_a_round": share})  # fmt: skip
    assert share < 0.01
