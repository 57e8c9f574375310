"""An ensemble against its single runs: weights, batches, noise, gradients, trajectories, failures, files.

The oracle is the single run, which shares no code of the stack: only the order of floating-point sums differs.
"""

import json
import math

import pytest
import torch
from torch import nn

from se_framework import compose, load
from se_framework.commands import evaluate as eval_command
from se_framework.commands import sample as sample_command
from se_framework.commands import train
from se_framework.composing import compose as compose_config
from se_framework.composing import config_dir, groups
from se_framework.data import Digits, Ring8
from se_framework.ensemble import member_config, members_of
from se_framework.ensemble.playing import draw
from se_framework.ensemble.stack import Ensemble
from se_framework.errors import ConfigError, IncompatibleError, NonFiniteError, StepError
from se_framework.legality import ensemble
from se_framework.loop import train as play
from se_framework.run_directory import RunDirectory
from se_framework.step import play_round
from tests.test_checkpoint import same

DEFAULT_DTYPE = torch.float64
K = 3
BASE = ["loop.batch_size=16", "device=cpu", "progress=false", "loop.log_every=0"]
EXPERIMENTS = groups([config_dir()])["experiment"]
REFUSED = {"sinkhorn": "Sinkhorn", "sinkhorn_learned": "Sinkhorn"}
STACKED = [name for name in EXPERIMENTS if name not in REFUSED]


def both(experiment, overrides=(), members=K):
    """Return an ensemble and the single runs that its members are."""
    together = compose(experiment, [*BASE, f"ensemble.size={members}", *overrides])
    alone = [compose(experiment, [*BASE, f"seed={k}", *overrides]) for k in range(members)]
    return together, alone


def rounds(together, alone, count, horizon=50):
    """Play rounds of both."""
    for _ in range(count):
        play_round(together.state, together.data, 16, horizon)
        for single in alone:
            play_round(single.state, single.data, 16, horizon)


def tensors(state):
    """Return weights and buffers, averages and moments of a state by name."""
    found = {}
    for player in state.players:
        found |= {f"{player.name}.{name}": t for name, t in player.module.state_dict().items()}
        if player.average is not None:
            found |= {f"{player.name}.average.{name}": t for name, t in player.average.state_dict().items()}
        for i, p in enumerate(player.parameters):
            moments = player.optimizer.state.get(p, {})
            found |= {f"{player.name}.{i}.{name}": torch.as_tensor(m) for name, m in moments.items()}
    return found


def distance(one, other):
    """Return the largest difference of two states, tensor by tensor, relative to the size of the tensor.

    Of weights to 0.1 at least: one on which the equation does not depend (a bias under ``tilted``) has a gradient of
    pure rounding, 1e-16, which Adam's 1e-8 turns into steps of 1e-8 learning rates; of moments to 1e-6.
    """
    a, b = tensors(one), tensors(other)
    assert list(a) == list(b)
    floor = {name: 1e-6 if name.split(".")[1].isdigit() else 0.1 for name in b}
    scale = {name: max(float(t.abs().max()), floor[name]) for name, t in b.items() if t.numel()}
    return max(float((a[name].double() - b[name].double()).abs().max()) / scale[name] for name in scale)


@pytest.mark.parametrize("experiment", STACKED)
def test_members_follow_their_single_runs(experiment):
    """Every experiment: equal weights at the start bit for bit, 1e-8 after five rounds (rounding 1e-16, amplified)."""
    together, alone = both(experiment)
    for member, single in zip(together.members, alone, strict=True):
        assert distance(member.state, single.state) == 0
    rounds(together, alone, 5)
    together.state.scatter()
    for member, single in zip(together.members, alone, strict=True):
        assert (member.state.round, member.state.batches, member.state.samples) == (5, *_counters(single))
        assert distance(member.state, single.state) < 1e-8
    first, second = (tensors(member.state) for member in together.members[:2])
    assert any(not torch.equal(first[name], second[name]) for name in first)


def _counters(single):
    return single.state.batches, single.state.samples


@pytest.mark.parametrize("experiment", REFUSED)
def test_what_runs_one_problem_at_a_time_is_refused_by_name(experiment, monkeypatch):
    from models import MLPGenerator

    monkeypatch.setattr(MLPGenerator, "forward", None)  # nothing is called, nothing allocated but on the meta device
    with pytest.raises(IncompatibleError, match=f"ensemble of 3 .*{REFUSED[experiment]}.*add ensemble.size=1"):
        compose(experiment, ["ensemble.size=3"])


def test_a_refused_ensemble_has_allocated_nothing(monkeypatch):
    seen = []
    reset = nn.Linear.reset_parameters
    monkeypatch.setattr(nn.Linear, "reset_parameters", lambda self: (seen.append(self.weight.device.type), reset(self)))
    with pytest.raises(IncompatibleError):
        compose("sinkhorn_learned", ["ensemble.size=3"])
    assert set(seen) == {"meta"}


def test_batches_and_noise_are_those_of_the_single_runs_bit_for_bit(monkeypatch):
    from se_framework.ensemble import playing

    seen, apart = [], []
    monkeypatch.setattr(Ensemble, "evaluate", lambda *a: seen.append(a[3]) or 1 / 0)
    together, alone = both("wgan_gp")
    with pytest.raises(StepError):
        play_round(together.state, together.data, 16, 50)
    from se_framework import equation, penalties

    noise = equation.StandardEquation.particles
    mixed = penalties.GradientPenalty.penalty
    monkeypatch.setattr(
        equation.StandardEquation, "particles", lambda e, z, c=None: apart.append({"noise": z}) or noise(e, z, c)
    )
    monkeypatch.setattr(
        penalties.GradientPenalty, "penalty",
        lambda self, f, x, y, mix: apart[-1].update(x=x, mix=mix) or mixed(self, f, x, y, mix),
    )  # fmt: skip
    assert playing
    for k, single in enumerate(alone):
        apart.clear()
        play_round(single.state, single.data, 16, 50)
        for name in ("x", "noise", "mix"):
            assert torch.equal(seen[0][name][k], apart[0][name]), name


@pytest.mark.parametrize("data", [Digits(), Digits(labels=True), Ring8()], ids=["rows", "labels", "sampler"])
def test_batches_of_several_seeds_are_stacked_batches(data):
    seeds = [4, 0, 7]
    for index in (0, 30, 31):
        want = torch.stack([data.batch(40, seed, index) for seed in seeds])
        assert torch.equal(data.batches(40, seeds, index), want)


def test_permutations_are_drawn_once_an_epoch(monkeypatch):
    data, drawn = Digits(), []
    randperm = torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda n, **k: drawn.append(n) or randperm(n, **k))
    for index in range(20):
        data.batches(64, range(5), index)
    assert len(drawn) == 5 * 2  # 20 batches of 64 are more than the 1257 rows


@pytest.mark.parametrize("experiment", ["vanilla_gan", "wgan_gp", "tilted", "flow_gan"])
def test_first_gradients_agree(experiment):
    together, alone = both(experiment)
    gradients = []
    for seat in together.state.players:
        step = seat.step
        seat.step = lambda g, step=step, seat=seat: (gradients.append((seat.name, g)), step(g))
    play_round(together.state, together.data, 16, 50)
    name, first = gradients[0]
    for k, single in enumerate(alone):
        player = single.state.player(name)
        apply = player.apply
        own = []
        player.apply = lambda *a, p=player, apply=apply, own=own: (
            apply(*a), own.append([t.grad.clone() for t in p.parameters]) if not own else None,
        )[0]  # fmt: skip
        play_round(single.state, single.data, 16, 50)
        for a, b in zip([g[k] for g in first], own[0], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("experiment", ["vanilla_gan", "sngan_hinge", "wgan_clip", "mle_flow"])
def test_fifty_rounds_agree(experiment):
    together, alone = both(experiment)
    rounds(together, alone, 50)
    together.state.scatter()
    for member, single in zip(together.members, alone, strict=True):
        assert distance(member.state, single.state) < 1e-8


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
def test_members_of_other_weights_and_rates_follow_theirs(optimizer):
    """Every scalar of the issue, several at once, and a seed common to two of them."""
    columns = {
        "equation.beta": [0.5, 1.0, 2.0, 2.0], "optimizer.lr": [1e-3, 1e-3, 3e-3, 1e-3],
        "players.phi.lr": [2e-3, 1e-3, 1e-3, 1e-3], "metric.penalty.weight": [0.1, 1.0, 1.0, 0.3], "seed": [0, 0, 5, 6],
    }  # fmt: skip
    text = ", ".join(f"{key}: {column}" for key, column in columns.items())
    shared = [f"optimizer={optimizer}", "metric=mlp_r1", "model=mlp_generator"]
    together = compose("vanilla_gan", [*BASE, *shared, f"ensemble.values={{{text}}}"])
    alone = [
        compose("vanilla_gan", [*BASE, *shared, *(f"{key}={column[k]}" for key, column in columns.items())])
        for k in range(4)
    ]
    rounds(together, alone, 20)
    together.state.scatter()
    for member, single in zip(together.members, alone, strict=True):
        assert distance(member.state, single.state) < 1e-8
    assert distance(together.members[0].state, alone[1].state) > 1e-6


def test_alpha_and_weights_of_summands_may_differ():
    cases = [("tilted", "equation.alpha", [0.3, 0.9]), ("flow_gan", "plus.likelihood.weight", [0.01, 1.0])]
    for experiment, key, column in cases:
        together = compose(experiment, [*BASE, f"ensemble.values={{{key}: {column}, seed: [1, 1]}}"])
        alone = [compose(experiment, [*BASE, "seed=1", f"{key}={value}"]) for value in column]
        rounds(together, alone, 5)
        together.state.scatter()
        for member, single in zip(together.members, alone, strict=True):
            assert distance(member.state, single.state) < 1e-8
        assert distance(together.members[0].state, alone[1].state) > 1e-6


def poison(state, k, value=float("nan")):
    """Make one weight of a member's model not finite."""
    with torch.no_grad():
        next(state.members[k].equation.model.parameters()).view(-1)[0] = value


def test_a_member_that_fails_is_frozen_and_the_others_go_on():
    """Frozen bit for bit as the failing step saw it, and the others as in a run without it."""
    together, alone = both("vanilla_gan")
    rounds(together, alone, 4)
    poison(together.state, 1)
    together.state.scatter()
    before = {name: t.clone() for name, t in tensors(together.members[1].state).items()}
    rounds(together, [alone[0], alone[2]], 6)
    together.state.scatter()
    after = tensors(together.members[1].state)
    assert all(torch.equal(before[n].nan_to_num(7.0), after[n].nan_to_num(7.0)) for n in before)
    frozen = together.members[1].state
    assert (frozen.round, frozen.batches, frozen.player("phi").steps_taken) == (4, 4, 4)
    for k in (0, 2):
        assert together.members[k].state.round == 10
        assert distance(together.members[k].state, alone[k].state) < 1e-8
    assert together.state.alive == [0, 2]
    assert "member 1 (seed 1) is frozen since round 4: " in together.state.frozen[1]
    assert "weight net.1.weight of the model" in together.state.frozen[1]


def test_a_member_that_fails_in_thetas_step_keeps_phis(monkeypatch):
    """In the midst of a round: phi's step is made, theta's is not, and figures of the others keep their order."""
    together, alone = both("wgan_gp")
    rounds(together, alone, 2)
    seat = together.state.players[-1]
    evaluate = Ensemble.evaluate

    def spoiled(self, who, function, inputs):
        minimum, *rest = evaluate(self, who, function, inputs)
        bad = torch.tensor([k == 2 and who.name == "theta" for k in self.alive])
        return torch.where(bad, torch.inf, minimum), *rest

    monkeypatch.setattr(Ensemble, "evaluate", spoiled)
    theta = [p.detach().clone() for p in together.members[2].state.player("theta").parameters]
    play_round(together.state, together.data, 16, 50)
    monkeypatch.undo()
    assert seat.name == "theta" and together.state.alive == [0, 1]
    for single in alone[:2]:
        play_round(single.state, single.data, 16, 50)
    play_round(alone[2].state, alone[2].data, 16, 50)
    member = together.members[2].state
    assert all(torch.equal(a, b) for a, b in zip(theta, member.player("theta").parameters, strict=True))
    assert member.player("phi").steps_taken == 6 and member.player("theta").steps_taken == 2
    for a, b in zip(member.player("phi").parameters, alone[2].state.player("phi").parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
    rounds(together, alone[:2], 3)
    together.state.scatter()
    for k in (0, 1):
        assert distance(together.members[k].state, alone[k].state) < 1e-8
    assert {name: len(f) for name, f in together.state.figures.items()} == {"phi": 2, "theta": 2}


def test_without_members_the_run_ends():
    together, _ = both("vanilla_gan", members=2)
    poison(together.state, 0)
    poison(together.state, 1)
    with pytest.raises(NonFiniteError, match="no member is left; member 0 .*member 1"):
        play_round(together.state, together.data, 16, 50)


def test_a_weight_that_overflows_is_found_before_saving(tmp_path):
    together, _ = both("vanilla_gan", members=2)
    run = RunDirectory(tmp_path)
    play(together.state, together.data, rounds=2, batch_size=16, log_every=0, run=run, progress=False)
    average = together.members[0].state.player("theta").average
    with torch.no_grad():
        next(average.parameters()).fill_(math.inf)
    play(together.state, together.data, rounds=4, batch_size=16, log_every=1, run=run, progress=False)
    assert together.state.alive == [1] and "theta's average of net" in together.state.frozen[0]
    assert run.load_checkpoint()[0]["frozen"].keys() == {0}


# -- the record -------------------------------------------------------------------------------------------------------

RECORD = ["loop.rounds=6", "loop.batch_size=16", "loop.log_every=2", "loop.checkpoint_every=2", "device=cpu",
          "progress=false"]  # fmt: skip
FLOAT32 = pytest.mark.usefixtures("float32")


@pytest.fixture
def float32():
    torch.set_default_dtype(torch.float32)


def start(directory, overrides, monkeypatch=None):
    if monkeypatch is not None:
        monkeypatch.setattr(train, "finish", lambda *a: 0.0)
    train.train_run(compose_config(None, overrides), directory, overrides)
    return RunDirectory(directory)


@FLOAT32
def test_resume_is_bit_for_bit(tmp_path, monkeypatch):
    typed = ["experiment=wgan_gp", "ensemble.size=3", *RECORD]
    whole = start(tmp_path / "whole", typed, monkeypatch)
    cut = start(tmp_path / "cut", [*typed, "loop.rounds=3", "loop.horizon=6"], monkeypatch)
    start(tmp_path / "cut", [f"resume={cut.path}", "loop.rounds=6"], monkeypatch)
    a, b = (run.load_checkpoint()[0] for run in (whole, cut))
    assert same(a, b) and a["round"] == 6 and len(a["members"]) == 3
    assert not same(a["members"][0], a["members"][1])
    clock = {"seconds", "samples_per_second"}
    rows = [[{k: v for k, v in row.items() if k not in clock} for row in run.rows()] for run in (whole, cut)]
    assert [row for row in rows[1] if row["round"] != "3"] == rows[0]
    assert (whole.path / "members.csv").read_text().count("\n") == 1 + 3 * 3


@FLOAT32
def test_a_frozen_member_stays_so_over_a_resume(tmp_path, monkeypatch):
    together = compose("vanilla_gan", [*RECORD, "ensemble.size=3"])
    run = RunDirectory(tmp_path)
    poison(together.state, 2)
    play(together.state, together.data, rounds=4, batch_size=16, log_every=2, run=run, progress=False, horizon=6)
    again = compose("vanilla_gan", [*RECORD, "ensemble.size=3"])
    again.state.load_state_dict(run.load_checkpoint()[0])
    for assembly in (together, again):
        assert assembly.state.alive == [0, 1]
        play(assembly.state, assembly.data, rounds=6, batch_size=16, log_every=2, progress=False, horizon=6)
    assert same(_without_nan(together.state.state_dict()), _without_nan(again.state.state_dict()))


def _without_nan(saved):
    saved["members"][2] = None
    return saved


@FLOAT32
def test_rows_are_means_and_members_rows_those_of_single_runs(tmp_path, monkeypatch):
    run = start(tmp_path / "all", ["experiment=vanilla_gan", "ensemble.size=3", *RECORD], monkeypatch)
    singles = [
        start(tmp_path / str(k), ["experiment=vanilla_gan", f"seed={k}", *RECORD], monkeypatch) for k in range(3)
    ]
    for k, single in enumerate(singles):
        rows, _ = run.member_rows(k)
        assert len(rows) == 3
        for own, want in zip(rows, single.rows(), strict=True):
            for name, value in own.items():
                if name != "note":
                    assert float(value) == pytest.approx(float(want[name]), rel=1e-3, abs=1e-5), name
    for i, row in enumerate(run.rows()):
        column = torch.tensor([float(run.member_rows(k)[0][i]["D"]) for k in range(3)], dtype=torch.float64)
        assert float(row["D"]) == pytest.approx(float(column.mean()), rel=1e-12)
        assert float(row["D_sd"]) == pytest.approx(float(column.std()), rel=1e-9)
        assert float(row["members"]) == 3


@FLOAT32
def test_a_member_is_sampled_and_scored_as_its_single_run(tmp_path, monkeypatch, capsys):
    import sys

    import numpy as np

    run = start(tmp_path / "all", ["experiment=vanilla_gan", "ensemble.size=3", *RECORD])
    single = start(tmp_path / "one", ["experiment=vanilla_gan", "seed=2", *RECORD])
    a, b = (load(run.path, member=2, device="cpu"), load(single.path, device="cpu"))
    torch.testing.assert_close(a.sample(50), b.sample(50), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(load(run.path, member=1, device="cpu").sample(50), b.sample(50), rtol=1e-3, atol=1e-3)
    assert len(a.state.history) == 3 and "member" not in a.state.history[0]
    everything = load(run.path, device="cpu")
    assert torch.equal(everything.members[2].sample(50), a.sample(50))
    for name in ("sample", "model", "equation"):
        with pytest.raises(ConfigError, match=r"an ensemble has 3 members.*members\[k\]"):
            getattr(everything, name)(5) if name == "sample" else getattr(everything, name)
    out = tmp_path / "x.npy"
    monkeypatch.setattr(sys, "argv", ["se-sample", str(run.path), "member=2", "n=50", f"out={out}", "device=cpu"])
    sample_command.main()
    assert np.array_equal(np.load(out), a.sample(50).numpy())
    monkeypatch.setattr(sys, "argv", ["se-eval", str(run.path), "n=50"])
    with pytest.raises(SystemExit):
        eval_command.main()
    assert "is an ensemble: choose one, member=0 to member=2" in capsys.readouterr().err
    for member, text in ((3, "members 0 to 2"), (-1, "members 0 to 2")):
        with pytest.raises(ConfigError, match=text):
            load(run.path, member=member)
    with pytest.raises(ConfigError, match="no ensemble but a single run"):
        load(single.path, member=0)
    summary = json.loads((run.path / "summary.json").read_text())
    values = summary["scores"]["w2"]["members"]
    assert values.keys() == {"0", "1", "2"}
    assert summary["scores"]["w2"]["value"] == pytest.approx(sum(values.values()) / 3)
    assert summary["scores"]["w2"]["sd"] == pytest.approx(float(torch.tensor(list(values.values())).double().std()))
    assert {f.name for f in (run.path / "samples").iterdir()} == {f"member_{k}.png" for k in range(3)}


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["ensemble.values={equation.bet: [1, 2]}"], "equation.bet cannot differ.*equation.beta"),
        (["ensemble.values={loop.rounds: [1, 2]}"], "loop.rounds cannot differ between members"),
        (["ensemble.values={equation.beta: [1, 2], seed: [1, 2, 3]}"], "one value per member: equation.beta 2, seed 3"),
        (["ensemble.size=3", "ensemble.values={equation.beta: [1, 2]}"], "equation.beta 2, ensemble.size 3"),
        (["ensemble.values={equation.beta: [1]}"], "with one member is a single run"),
        (["ensemble.values={equation.beta: 1}"], "list of one finite number per member, got 1"),
        (["ensemble.values={equation.beta: [1, big]}"], "list of one finite number per member"),
        (["ensemble.values={equation.beta: [1, -1]}"], "equation.beta must be a finite number >= 0"),
        (["ensemble.values={seed: [1, 1.5]}"], "seed must be a whole number"),
        (["ensemble.values={metric.penalty.weight: [1, 2]}", "metric=mlp"], "no such key"),
        (["ensemble.size=0"], "ensemble.size must be at least 1"),
    ],
)
def test_settings_are_refused_in_one_sentence(overrides, text):
    with pytest.raises(ConfigError, match=text):
        compose("vanilla_gan", overrides)


def test_settings_name_members():
    config = compose_config("vanilla_gan", ["seed=5", "ensemble.values={equation.beta: [0.5, 1, 2]}"])
    assert members_of(config) == 3 and members_of(compose_config("vanilla_gan")) == 1
    assert [member_config(config, k).seed for k in range(3)] == [5, 6, 7]
    assert [member_config(config, k).equation.beta for k in range(3)] == [0.5, 1, 2]
    assert members_of(member_config(config, 0)) == 1


class Coupled(nn.Module):
    """A critic with batch normalisation, or dropout."""

    def __init__(self, event_shape, layer):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 4), layer, nn.Linear(4, 1), nn.Flatten(0))

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize(
    ("layer", "text"), [(nn.BatchNorm1d(4), "batch normalisation"), (nn.Dropout(), "dropout draws on")]
)
def test_networks_that_cannot_be_stacked_are_named(layer, text):
    found = ensemble(4, [Coupled((2,), layer)], data=Ring8())
    assert [v.rule for v in found] == ["ensemble"]
    assert text in found[0].problem and found[0].fix == ("ensemble.size=1",)


def test_an_optimiser_that_couples_entries_is_refused():
    """Adafactor divides by the mean square of a whole tensor."""
    typed = ["optimizer._target_=torch.optim.Adafactor", "~optimizer.betas", "~optimizer.fused"]
    with pytest.raises(IncompatibleError, match="optimiser Adafactor may couple .*Adam.*add ensemble.size=1"):
        compose("vanilla_gan", ["ensemble.size=2", *typed])
    with pytest.raises(IncompatibleError, match="optimiser Adafactor may couple"):
        Ensemble([compose("vanilla_gan", [*typed, "device=cpu"]).state] * 2)


def test_a_part_that_vmap_cannot_run_says_so(monkeypatch):
    from divergences import GAN

    link = GAN.link
    monkeypatch.setattr(GAN, "link", lambda self, v: link(self, v) if float(v.sum()) > -1e9 else v)
    together, _ = both("vanilla_gan", members=2)
    with pytest.raises(StepError, match="player phi, round 0, step 0.*ensemble.size=1"):
        play(together.state, together.data, rounds=1, batch_size=16, progress=False)


def test_the_batch_of_a_member_has_the_labels_of_its_rows():
    data = Digits(labels=True)
    together = compose("digits", [*BASE, "ensemble.size=2", "data.labels=true"])
    batch = draw(together.state, data, 32)
    for k in range(2):
        assert torch.equal(batch["context"][k], data.labels(32, k, 0))
        assert torch.equal(batch["x"][k], data.batch(32, k, 0))
