"""A number that is not finite, planted anywhere, is caught in its round, named, dumped, and met again."""

from __future__ import annotations

import copy
import json
import math
import os
from dataclasses import replace

import pytest
import torch
from torch import nn

import se_framework as se
from divergences import GAN, Sinkhorn
from models import MLPCritic, MLPGenerator
from models.laws import Particles
from se_framework.commands.train import train_run
from se_framework.config.composing import compose, config_dir, groups
from se_framework.data import Moons
from se_framework.equation.auxiliary import Dual, Empirical
from se_framework.equation.equation import StandardEquation
from se_framework.equation.metric import Metric
from se_framework.equation.penalties import R1
from se_framework.errors import DataError, NonFiniteError, RunDirectoryError, StepError
from se_framework.runs.directory import RunDirectory
from se_framework.training.failure import replay
from se_framework.training.loop import train
from se_framework.training.players import make_players
from se_framework.training.state import TrainState
from se_framework.training.step import play_round
from tests.support.commands import TRAIN, call
from tests.support.smaller import smaller

NAN, INF = math.nan, math.inf
SMALL = ["loop.batch_size=16", "device=cpu", "progress=false", "model.width=8"]


def snapshot(state):
    """Return a copy of the state, learning rates apart: they are set by the round."""
    saved = copy.deepcopy(state.state_dict())
    for player in saved["players"].values():
        for group in player["optimizer"]["param_groups"]:
            del group["lr"]
    return saved


def same(a, b):
    """Compare nested states bit for bit; NaN equals NaN."""
    if isinstance(a, torch.Tensor):
        return torch.equal(torch.isnan(a), torch.isnan(b)) and torch.equal(a.nan_to_num(7), b.nan_to_num(7))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or a != a and b != b


def of_model(saved):
    """Return the model's tensors of a saved state, but for what a forward pass of another player's step counts."""
    counted = ("running_mean", "running_var", "num_batches_tracked")
    return {
        name: t for name, t in saved["equation"].items() if name.startswith("model.") and not name.endswith(counted)
    }


def spoil(value, bad=NAN):
    """Return a tensor with one bad entry, on the graph of the others."""
    mask = torch.zeros(value.shape, dtype=torch.bool)
    mask.reshape(-1)[value.numel() // 2] = True
    return torch.where(mask, bad, value)


def plane(penalty=None, d=None, network=None, clip=None, auxiliary=None):
    torch.manual_seed(0)
    return StandardEquation(
        model=MLPGenerator((2,), latent_dim=3, width=8), divergence=d or GAN(), auxiliary=auxiliary or Dual(),
        metric=Metric(network or MLPCritic((2,), width=8), penalty, clip),
    )  # fmt: skip


def state_of(equation, optimizer=None, **players):
    return TrainState(equation, make_players(equation, optimizer, **players))


def fails(state, data=None, batch_size=16, **more):
    """Play until the failure and return the record of its step."""
    with pytest.raises(NonFiniteError) as caught:
        train(state, data or Moons(), rounds=20, batch_size=batch_size, log_every=0, progress=False, **more)
    record = caught.value.record
    for part in (record.term, f"of player {record.player} is", f"in round {record.round}, step {record.step} ("):
        assert part in str(caught.value)
    assert record.source in str(caught.value) and "\n" not in str(caught.value)
    assert not math.isfinite(record.value)
    return record


# -- everything that can be planted, in every experiment -----------------------------------------------------------


def batch_row(state, data, patch, bad):
    batch = data.batch

    def planted(*args, **named):
        p = batch(*args, **named)
        return replace(p, x=spoil(p.x, bad))

    patch.setattr(data, "batch", planted)
    return "rows of the batch of data"


def weight_of_the_model(state, data, patch, bad):
    if state.player("theta") is None:
        return None
    # A row of a table of labels is met in the round that draws its label.
    name, weight = next((n, w) for n, w in state.equation.model.named_parameters() if not n.startswith("shared"))
    weight.data.copy_(spoil(weight.data, bad))
    return f"entries of weight {name} of the model"


def weight_of_the_metric(state, data, patch, bad):
    if state.equation.metric is None:
        return None
    name, weight = list(state.equation.metric.named_parameters())[-1]
    weight.data.copy_(spoil(weight.data, bad))
    return f"entries of weight {name} of the metric"


def samples(state, data, patch, bad):
    particles = state.equation.particles
    if not state.equation.uses_samples:
        return None

    def planted(*args):
        p = particles(*args)
        return replace(p, x=spoil(p.x, bad))

    patch.setattr(state.equation, "particles", planted)
    return "rows of the model's samples"


def log_density(state, data, patch, bad):
    particles, equation = state.equation.particles, state.equation
    if not (equation.auxiliary.needs_density(equation.divergence) and equation.uses_samples):
        return None

    def planted(*args):
        p = particles(*args)
        return replace(p, log_prob=spoil(p.log_prob, bad))

    patch.setattr(state.equation, "particles", planted)
    return "rows of the model's log-density of its samples"


def minimum(state, data, patch, bad):
    part = state.equation.auxiliary
    before = part.minimum
    patch.setattr(part, "minimum", lambda *a: before(*a) + bad)
    return f"{part.minimum_name}"


def divergence(state, data, patch, bad):
    d = state.equation.divergence
    if not state.equation.auxiliary.evaluates_primal:
        return None
    primal = d.primal
    patch.setattr(d, "primal", lambda *a: primal(*a) + bad)
    return f"{state.equation.auxiliary.minimum_name}"


def f_on_data(state, data, patch, bad):
    if not state.equation.auxiliary.has_scores:
        return None
    f = state.equation.f
    patch.setattr(state.equation, "f", lambda *a: spoil(f(*a), bad))
    return "rows of f on data, where the metric gives "


def summand(state, data, patch, bad):
    for name, _, other in state.equation.summands():
        before = other.auxiliary.minimum
        patch.setattr(other.auxiliary, "minimum", lambda *a, before=before: before(*a) + bad)
        return f"{other.auxiliary.minimum_name} of plus.{name}"
    return None


def penalty(state, data, patch, bad):
    for metric in state.players[0].penalised.values():
        before = metric.penalty.penalty
        patch.setattr(metric.penalty, "penalty", lambda *a, before=before: before(*a) + bad)
        return "the penalty is "
    return None


def _filled(player):
    return [p for p in player.parameters if p.numel()]  # an affine map of the line has an empty one


def gradient_of_theta(state, data, patch, bad):
    player = state.player("theta")
    if player is None:
        return None
    handle = _filled(player)[-1].register_hook(lambda g: spoil(g, bad))
    patch.callback(handle.remove)
    return "entries of the gradient of theta's "


def gradient_of_phi(state, data, patch, bad):
    player = state.player("phi")
    if player is None:
        return None
    handle = _filled(player)[0].register_hook(lambda g: spoil(g, bad))
    patch.callback(handle.remove)
    return "entries of the gradient of phi's "


PLANTS = [
    batch_row, weight_of_the_model, weight_of_the_metric, samples, log_density, minimum, divergence, f_on_data, summand,
    penalty, gradient_of_theta, gradient_of_phi,
]  # fmt: skip
PLAYER = {gradient_of_theta: "theta"}
TERM = {gradient_of_theta: "gradient", gradient_of_phi: "gradient", penalty: "penalty", f_on_data: "E_pd_f"}


class Patch(pytest.MonkeyPatch):
    """Undoes what a plant did, handles of hooks included."""

    def callback(self, undo):
        self.undo_more = undo

    def undo(self):
        getattr(self, "undo_more", lambda: None)()
        super().undo()


@pytest.mark.parametrize("experiment", groups([config_dir()])["experiment"])
def test_everything_planted_is_caught_in_its_round_and_named(experiment):
    config = compose(experiment, [*(o for o in SMALL if not o.startswith("model.")), "stages=[]", *smaller(experiment)])
    if "width" in config.model:
        config.model.width = 8
    assembly = se.assembly.assembly_of(config)
    state, data = assembly.state, assembly.data
    for player in state.players:
        player.steps = min(player.steps, 2)
    train(state, data, rounds=2, batch_size=16, horizon=20, log_every=0, progress=False)
    start, rates, caught = copy.deepcopy(state.state_dict()), [player.base_lr for player in state.players], 0
    for number, plant in enumerate(PLANTS):
        patch, bad = Patch(), (NAN, INF)[number % 2]
        expected = plant(state, data, patch, bad)
        if expected is None:
            continue
        planted = snapshot(state)
        record = fails(state, data)
        patch.undo()
        assert expected in record.source, (plant.__name__, record)
        assert record.player == PLAYER.get(plant, state.players[0].name) and record.round == 2, plant.__name__
        assert record.term == TERM.get(plant, record.term), (plant.__name__, record)
        assert state.round == 2
        if record.player == state.players[0].name and record.step == 0:  # nobody has moved before
            assert same(snapshot(state), planted), plant.__name__
        else:
            found = snapshot(state)
            assert same(found["players"]["theta"], planted["players"]["theta"]), plant.__name__
            assert same(of_model(found), of_model(planted)), plant.__name__
        for player, rate in zip(state.players, rates, strict=True):
            player.base_lr = rate
            player.optimizer.zero_grad()
        state.load_state_dict(copy.deepcopy(start))
        caught += 1
    assert caught >= 5


# -- the state at failure is what the failing step saw -------------------------------------------------------------


class Bad(Moons):
    """Batches of given indices, counted in batches of their size, hold a NaN."""

    def __init__(self, *indices):
        super().__init__()
        self.indices = indices

    def batch(self, start, n, seed, device="cpu"):
        x = super().batch(start, n, seed, device).x
        return Particles(spoil(x) if start // n in self.indices else x)


OPTIMIZERS = {
    "adam_fused": lambda p: torch.optim.Adam(p, lr=1e-2, betas=(0.5, 0.9), fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, fused=False),
    "adamw_fused": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1, fused=True),
    "sgd_fused": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-2),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rounds", [0, 2])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_the_state_at_failure_is_what_the_step_saw(optimizer, rounds, step):
    """Of three phi-steps one has a bad batch: the later two and theta, on good batches, must not move."""
    options = {"phi": {"steps": 3}, "theta": {"ema": 0.9}}
    state = state_of(plane(R1(every=2)), OPTIMIZERS[optimizer], **options)
    twin = state_of(plane(R1(every=2)), OPTIMIZERS[optimizer], **options)
    record = fails(state, Bad(3 * rounds + step))
    assert (record.player, record.round, record.step) == ("phi", rounds, step)
    assert record.start == 16 * (3 * rounds + step)
    if rounds:
        train(twin, Moons(), rounds=rounds, horizon=20, batch_size=16, log_every=0, progress=False)
    average = snapshot(twin)["players"]["theta"]["average"]
    twin.players[0].steps, twin.players[1].steps = step, 0
    play_round(twin, Moons(), 16, 20)
    found, expected = snapshot(state), snapshot(twin)
    expected["round"], expected["players"]["theta"]["average"] = rounds, average  # the twin's round was completed
    for part in expected:
        assert same(found[part], expected[part]), part


def test_theta_fails_after_phi_has_moved():
    state, twin = state_of(plane()), state_of(plane())
    handle = state.players[1].parameters[0].register_hook(spoil)
    record = fails(state)
    handle.remove()
    assert (record.player, record.term, record.start) == ("theta", "gradient", 0)
    assert record.source == "NaN in 1 of 24 entries of the gradient of theta's net.1.weight, the first of them 12"
    twin.players[1].steps = 0
    play_round(twin, Moons(), 16, 20)
    twin.round = 0
    assert same(snapshot(state), snapshot(twin)) and state.samples == 16


def test_a_lazy_penalty_is_caught_in_the_round_it_is_due():
    class Broken(R1):
        def penalty(self, *args):
            return super().penalty(*args) + (NAN if state.round else 0)

    state = state_of(plane(Broken(0.1, every=3)))
    record = fails(state)
    assert (record.round, record.term, record.source) == (3, "penalty", "the penalty is nan")
    assert math.isfinite(record.terms["E_pd_f"])


def test_clipping_does_not_hide_an_infinite_weight():
    state = state_of(plane(clip=0.1))
    weight = state.players[0].parameters[0]
    weight.data[0, 0] = INF
    before = snapshot(state)
    assert "inf in 1 of" in fails(state).source
    assert weight[0, 0] == INF and same(snapshot(state)["equation"], before["equation"])


def batch_norm():
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0))


def test_running_statistics_are_put_back():
    state = state_of(plane(network=batch_norm()))
    train(state, Moons(), rounds=2, batch_size=16, log_every=0, progress=False)
    before = snapshot(state)
    assert fails(state, Bad(2)).source.startswith("NaN in 1 of 16 rows of the batch of data")
    assert same(snapshot(state), before)
    handle = state.players[0].parameters[0].register_hook(spoil)
    assert "of the gradient of phi's" in fails(state).source  # found after the forward passes
    handle.remove()
    assert same(snapshot(state), before)


class Overflow(torch.optim.SGD):
    """An optimiser whose third step overflows."""

    taken = 0

    def step(self, closure=None):
        self.taken += 1
        if self.taken == 3:
            with torch.no_grad():
                self.param_groups[0]["params"][1].fill_(INF)


def test_an_update_that_overflows_is_never_saved_and_met_in_the_next_step(tmp_path):
    def fresh():
        return state_of(plane(), optimizer=lambda p: Overflow(p, lr=0.1), phi={"steps": 1})

    record = fails(fresh(), run=RunDirectory(tmp_path / "a"))
    assert (record.player, record.round, record.step) == ("theta", 2, 0)  # phi's third step is in round 2
    assert record.source == "inf in 8 of 8 entries of weight network.net.1.bias of the metric, the first of them 0"
    run = RunDirectory(tmp_path / "b")
    run.make()
    state = fresh()
    state.players[1].steps = 0
    with pytest.raises(NonFiniteError, match="entries of phi's network.net.1.bias, .* after 3 rounds: not saved"):
        train(state, Moons(), rounds=3, batch_size=16, run=run, checkpoint_every=1, progress=False)
    assert [path.stem for path in run.checkpoints()] == ["round_00000002", "round_00000001"]


SAID = {
    "average": "average of network.0.weight",
    "moment": "optimiser's exp_avg_sq of network.0.weight",
    "buffer": "spare",
}


@pytest.mark.parametrize("what", SAID)
def test_a_checkpoint_holds_nothing_that_is_not_finite(what, tmp_path):
    """What no term of a round reads is looked at before it is saved."""
    network = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1), nn.Flatten(0))
    network.register_buffer("spare", torch.ones(3))
    state = state_of(plane(network=network), OPTIMIZERS["adam"], phi={"ema": 0.9})
    train(state, Moons(), rounds=1, batch_size=16, progress=False)
    phi = state.players[0]
    tensors = {
        "average": next(phi.average.module.parameters()).data,
        "moment": phi.optimizer.state[phi.parameters[0]]["exp_avg_sq"],
        "buffer": network.spare,
    }
    tensors[what].view(-1)[1] = INF
    run = RunDirectory(tmp_path)
    with pytest.raises(NonFiniteError, match=f"entries of phi's .*{SAID[what]}.* after 2 rounds: not saved"):
        train(state, Moons(), rounds=2, batch_size=16, run=run, log_every=0, progress=False)
    assert not run.checkpoints()


def test_a_gradient_whose_norm_overflows_is_told_from_one_that_holds_inf():
    state = state_of(plane())
    handle = state.players[0].parameters[0].register_hook(lambda g: torch.full_like(g, 1e30))
    source = fails(state).source
    handle.remove()
    assert source == "no entry of the gradient, the largest is 1e+30, but their norm overflows"


# -- exceptions ----------------------------------------------------------------------------------------------------


def test_any_exception_of_a_part_says_whose_step_it_was():
    class Broken(MLPCritic):
        def score(self, x):
            if state.round == 2:
                raise RuntimeError("no\n  luck")
            return super().score(x)

    state = state_of(plane(network=Broken((2,), width=8)))
    with pytest.raises(StepError, match=r"^player phi, round 2, step 0: RuntimeError: no luck$") as caught:
        train(state, Moons(), rounds=5, batch_size=16, log_every=0, progress=False)
    assert isinstance(caught.value.__cause__, RuntimeError) and state.samples == 2 * 16
    assert (caught.value.record.player, caught.value.record.term) == ("phi", "")


def test_data_speaks_for_itself():
    class Broken(Moons):
        def batch(self, *args, **kwargs):
            raise DataError("the disk is gone")

    with pytest.raises(DataError, match="^the disk is gone$"):
        train(state_of(plane()), Broken(), rounds=5, progress=False)


def test_an_exception_after_a_bad_number_is_its_consequence():
    """Phi's step meets NaN, which only the end of the round would show; theta's step raises before."""

    class Broken(MLPGenerator):
        def forward(self, context=None):
            if torch.is_grad_enabled():
                raise RuntimeError("no luck")
            return super().forward(context)

    equation = plane()
    equation.model.__class__ = Broken
    record = fails(state_of(equation), Bad(0))
    assert (record.player, record.step) == ("phi", 0) and record.source.startswith(
        "NaN in 1 of 16 rows of the batch of data"
    )


def test_a_part_that_refuses_what_is_not_finite_fails_for_that_reason(tmp_path):
    """geomloss' wrapper raises on NaN; it is the batch that is reported."""

    def fresh():
        equation = StandardEquation(model=plane().model, divergence=Sinkhorn(), auxiliary=Empirical())
        return state_of(equation)

    record = fails(fresh(), Bad(1), run=RunDirectory(tmp_path))
    assert (record.player, record.round, record.term) == ("theta", 1, "beta D(p_d, p)")
    assert record.source.startswith("NaN in 1 of 16 rows of the batch of data, the first of them 8; ")
    assert replay(fresh(), RunDirectory(tmp_path)).record.source == record.source


# -- dump, replay, resume ------------------------------------------------------------------------------------------


def test_a_dump_is_the_step_and_replays_to_the_same_bits(tmp_path):
    run = RunDirectory(tmp_path)

    def fresh():
        network = nn.Sequential(nn.Dropout(0.3), MLPCritic((2,), width=8))  # draws on torch's own generator
        return state_of(plane(R1(), network=network), phi={"steps": 2})

    class Steep(Bad):
        def batch(self, start, n, seed, device="cpu"):
            x = Moons.batch(self, start, n, seed, device).x
            return Particles(x * 1e30 if start // n in self.indices else x)

    state = fresh()
    record = fails(state, Steep(11), run=run, checkpoint_every=2)
    assert [p.stem for p in run.checkpoints()] == ["round_00000004", "round_00000002"]
    assert (record.round, record.step, record.term) == (5, 1, "gradient")
    saved = run.load_state(run.failure / "step")
    assert same(saved["state"], state.state_dict()) and saved["samples"].shape == (16, 2)
    assert torch.equal(saved["x"], Moons().batch(11 * 16, 16, 0).x * 1e30) and saved["context"] is None
    report = json.loads((run.failure / "failure.json").read_text(), parse_constant=pytest.fail)
    assert report["player"] == "phi" and report["value"] == repr(record.value)
    assert report["random_streams"] == ["phi/1/global", "phi/1/noise", "phi/1/mix"]
    for _ in range(2):  # the batch comes from the dump, not from the data
        again = replay(fresh(), run)
        assert same(dict(again.record.terms), dict(record.terms)) and again.record.source == record.source
    assert record.terms["E_pd_f"] < -1e20  # finite, before the gradient, equal to the bit


def test_a_failure_that_does_not_occur_again_is_said(tmp_path):
    class Broken(R1):
        def penalty(self, *args):
            return super().penalty(*args) + NAN

    run = RunDirectory(tmp_path)
    with pytest.raises(RunDirectoryError, match="holds no failure"):
        replay(state_of(plane()), run)
    fails(state_of(plane(Broken())), run=run)
    with pytest.raises(RunDirectoryError, match=r"\(penalty, player phi, round 0, step 0\) does not occur again"):
        replay(state_of(plane(R1())), run)


@pytest.fixture
def diverging(tmp_path):
    """A run of the command line that overflows in its fifth round: Pearson's own dual for phi, the seed by trial."""
    overrides = [
        "experiment=vanilla_gan", "divergence=pearson", "divergence@players.phi.view=pearson", "optimizer.lr=1e-2",
        "loop.batch_size=32", "loop.rounds=300", "loop.log_every=1", "loop.checkpoint_every=3", "progress=false",
        "device=cpu", "seed=1",
    ]  # fmt: skip
    with pytest.raises(NonFiniteError) as caught:
        train_run(compose(None, overrides), tmp_path / "run", overrides)
    return tmp_path / "run", caught.value


def test_resuming_a_failed_run_meets_the_failure_again(diverging):
    path, error = diverging
    run = RunDirectory(path)
    assert error.record.term == "-beta D*_p(f/beta)" and "where the metric gives" in error.record.source
    assert "the update was not applied; lower the learning rate, penalise" in str(error)
    assert f"the step is in {path / 'failure'}, to be played again by se_framework.reproduce(" in str(error)
    stood = [(p.name, p.read_bytes()) for p in run.checkpoints()]
    before, rows = run.load_state(run.failure / "step"), [r["D"] for r in run.rows()]
    assert stood and all(p <= f"round_{error.record.round:08d}" for p, _ in stood)
    done = call([*TRAIN, f"resume={path}"], path.parent)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == f"se-train: {error}"
    assert [(p.name, p.read_bytes()) for p in run.checkpoints()] == stood
    assert same(run.load_state(run.failure / "step"), before) and [r["D"] for r in run.rows()] == rows


def test_reproduce_returns_the_same_failure(diverging):
    path, error = diverging
    threads = torch.get_num_threads()
    again = se.reproduce(path)
    assert same(dict(again.record.terms), dict(error.record.terms))
    assert again.record.place == error.record.place and again.record.source == error.record.source
    assert torch.get_num_threads() == threads


def test_a_report_that_anybody_may_have_written_is_refused_in_a_line(diverging, monkeypatch):
    """Found in spoilt runs: texts are shown as they are, and a million threads end the process."""
    run, asked, threads = diverging[0], [], torch.get_num_threads()
    file = run / "failure" / "failure.json"
    whole = json.loads(file.read_text())
    for name, value in (
        ("player", "phi\n\nand more"),
        ("term", "E" * 5000),
        ("source", "\x1b[2J"),
        ("player", "nobody"),
    ):
        file.write_text(json.dumps(whole | {name: value}))
        with pytest.raises(RunDirectoryError) as caught:
            se.reproduce(run)
        assert str(caught.value).isprintable() and len(str(caught.value)) < 500
    file.write_text(json.dumps(whole | {"threads": 10**6}))
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    se.reproduce(run)
    assert asked and max(asked) <= max(threads, os.cpu_count())
