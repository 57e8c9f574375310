"""An ensemble that goes wrong, and its record: frozen members, rows, checkpoints, commands.

The oracle is the single run, as in ``test_ensemble.py``; of means and deviations torch's own.
"""

import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from se_framework import compose, load
from se_framework.commands import evaluate as eval_command
from se_framework.commands import sample as sample_command
from se_framework.commands import train
from se_framework.config.composing import compose as compose_config
from se_framework.ensemble.members import Ensemble
from se_framework.errors import ConfigError, NonFiniteError
from se_framework.evaluation import evaluate as evaluation
from se_framework.runs.directory import RunDirectory
from se_framework.training.loop import train as play
from se_framework.training.step import play_round
from tests.support.commands import small_scores
from tests.support.comparing import same
from tests.support.ensembles import SMALL, both, distance, poison, rounds, tensors

DEFAULT_DTYPE = torch.float64


def test_a_member_that_fails_is_frozen_and_the_others_go_on():
    """Frozen bit for bit as the failing step saw it, and the others as in a run without it."""
    together, alone = both("vanilla_gan", SMALL)
    rounds(together, alone, 4)
    poison(together.state, 1)
    together.state.scatter()
    before = {name: t.clone() for name, t in tensors(together.members[1].state).items()}
    rounds(together, [alone[0], alone[2]], 6)
    together.state.scatter()
    after = tensors(together.members[1].state)
    assert all(torch.equal(before[n].nan_to_num(7.0), after[n].nan_to_num(7.0)) for n in before)
    frozen = together.members[1].state
    for parameter in frozen.equation.parameters():  # a row would keep the stacks of all members in memory
        assert parameter.untyped_storage().nbytes() == parameter.nbytes
    assert (frozen.round, frozen.samples, frozen.player("phi").steps_taken) == (4, 4 * 16, 4)
    for k in (0, 2):
        assert together.members[k].state.round == 10
        assert distance(together.members[k].state, alone[k].state) < 1e-8
    assert list(together.state.living) == [0, 2]
    assert "member 1 (seed 1) is frozen since round 4: " in together.state.frozen[1]
    assert "weight net.1.weight of the model" in together.state.frozen[1]


def test_a_member_that_fails_in_thetas_step_keeps_phis(monkeypatch):
    """In the midst of a round: phi's step is made, theta's is not, and figures of the others keep their order."""
    together, alone = both("wgan_gp", SMALL)
    rounds(together, alone, 2)
    last = together.state.players[-1]
    evaluate = Ensemble.evaluate

    def spoiled(self, function, inputs):
        loss, (minimum, *rest) = evaluate(self, function, inputs)
        penalised = "penalty/own/mix" in inputs  # only phi's steps have a penalty
        bad = torch.tensor([k == 2 and not penalised for k in self.living])
        return loss, (torch.where(bad, torch.inf, minimum), *rest)

    monkeypatch.setattr(Ensemble, "evaluate", spoiled)
    theta = [p.detach().clone() for p in together.members[2].state.player("theta").parameters]
    figures = play_round(together.state, together.data, 16, 50)
    monkeypatch.undo()
    assert last.name == "theta" and list(together.state.living) == [0, 1] == list(figures)
    for k, single in enumerate(alone[:2]):
        assert figures[k] == pytest.approx(play_round(single.state, single.data, 16, 50)[0], rel=1e-8)
    play_round(alone[2].state, alone[2].data, 16, 50)
    member = together.members[2].state
    assert all(torch.equal(a, b) for a, b in zip(theta, member.player("theta").parameters, strict=True))
    assert member.player("phi").steps_taken == 6 and member.player("theta").steps_taken == 2
    assert (member.round, member.samples) == (2, 6 * 16)  # two batches a round
    for a, b in zip(member.player("phi").parameters, alone[2].state.player("phi").parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
    rounds(together, alone[:2], 3)
    together.state.scatter()
    for k in (0, 1):
        assert distance(together.members[k].state, alone[k].state) < 1e-8


def test_without_members_the_run_ends():
    together, _ = both("vanilla_gan", SMALL, members=2)
    poison(together.state, 0)
    poison(together.state, 1)
    with pytest.raises(NonFiniteError, match="no member is left; member 0 .*member 1"):
        play_round(together.state, together.data, 16, 50)


def test_a_weight_that_overflows_is_found_before_saving(tmp_path):
    together, _ = both("vanilla_gan", SMALL, members=2)
    run = RunDirectory(tmp_path)
    play(together.state, together.data, rounds=2, batch_size=16, log_every=0, run=run, progress=False)
    average = together.members[0].state.player("theta").average
    with torch.no_grad():
        next(average.parameters()).fill_(math.inf)
    play(together.state, together.data, rounds=4, batch_size=16, log_every=1, run=run, progress=False)
    assert list(together.state.living) == [1] and "theta's average of net" in together.state.frozen[0]
    assert run.load_checkpoint()[0]["frozen"].keys() == {0}


def test_a_run_without_members_saves_nothing(tmp_path):
    together, _ = both("vanilla_gan", SMALL, members=2)
    run = RunDirectory(tmp_path)
    play(together.state, together.data, rounds=1, batch_size=16, log_every=0, progress=False)
    for member in together.members:
        with torch.no_grad():
            next(member.state.player("theta").average.parameters()).fill_(math.inf)
    with pytest.raises(NonFiniteError, match="no member is left, nothing was saved; member 0 .*; member 1 "):
        play(together.state, together.data, rounds=2, batch_size=16, log_every=0, run=run, progress=False)
    assert run.load_checkpoint() is None


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
@pytest.mark.parametrize("decay", ["constant", "linear"])
def test_a_finished_ensemble_goes_on_longer_as_single_runs_do(tmp_path, monkeypatch, capsys, decay):
    typed = ["experiment=vanilla_gan", "ensemble.size=2", *RECORD, *SMALL, f"loop.decay={decay}"]
    whole = start(tmp_path / "whole", [*typed, "loop.horizon=3"], monkeypatch)
    cut = start(tmp_path / "cut", [*typed, "loop.rounds=3"], monkeypatch)
    start(cut.path, [f"resume={cut.path}", "loop.rounds=6"], monkeypatch)
    a, b = (run.load_checkpoint()[0] for run in (whole, cut))
    assert same(a, b) and b["round"] == 6
    told = "learning rates end at zero in round 3 (loop.horizon, fixed at first start): later rounds change nothing"
    assert (told in capsys.readouterr().err) == (decay == "linear")


@FLOAT32
def test_a_frozen_member_stays_so_over_a_resume(tmp_path, monkeypatch):
    together = compose("vanilla_gan", [*RECORD, "ensemble.size=3"])
    run = RunDirectory(tmp_path)
    poison(together.state, 2)
    play(together.state, together.data, rounds=4, batch_size=16, log_every=2, run=run, progress=False, horizon=6)
    again = compose("vanilla_gan", [*RECORD, "ensemble.size=3"])
    again.state.load_state_dict(run.load_checkpoint()[0])
    for assembly in (together, again):
        assert list(assembly.state.living) == [0, 1]
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
    small_scores(monkeypatch)
    quick = ["experiment=fgan", "optimizer.lr=0.01", *RECORD]
    run = start(tmp_path / "all", ["ensemble.size=2", "loop.evaluate_every=3", *quick])
    single = start(tmp_path / "one", ["seed=1", *quick], monkeypatch)
    a, b = (load(run.path, member=1, device="cpu"), load(single.path, device="cpu"))
    torch.testing.assert_close(a.sample(50), b.sample(50), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(load(run.path, member=0, device="cpu").sample(50), b.sample(50), rtol=1e-3, atol=1e-3)
    assert [row["round"] for row in a.state.history] == [2, 4, 6] and "member" not in a.state.history[0]
    assert [row["round"] for row in a.state.scores] == [3, 6] and (run.path / "member_scores.csv").exists()
    everything = load(run.path, device="cpu")
    assert torch.equal(everything.members[1].sample(50), a.sample(50))
    with pytest.raises(ConfigError, match=r"an ensemble has 2 members.*members\[k\]"):
        everything.sample(5)
    with pytest.raises(ConfigError, match=r"an ensemble has 2 members.*members\[k\]"):
        everything.equation  # noqa: B018
    out = tmp_path / "x.npy"
    monkeypatch.setattr(sys, "argv", ["se-sample", str(run.path), "member=1", "n=50", f"out={out}", "device=cpu"])
    sample_command.main()
    assert np.array_equal(np.load(out), a.sample(50).numpy())
    monkeypatch.setattr(sys, "argv", ["se-eval", str(run.path), "n=50"])
    with pytest.raises(SystemExit):
        eval_command.main()
    assert "is an ensemble: choose one, member=0 to member=1" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["se-eval", str(run.path), "member=1", "device=cpu"])
    eval_command.main()
    scores = json.loads((run.path / "summary.json").read_text())["scores"]
    name = next(iter(scores))
    assert f"{scores[name]['members']['1']:.5g}" in capsys.readouterr().out
    for member in (2, -1):
        with pytest.raises(ConfigError, match="members 0 to 1"):
            load(run.path, member=member)
    with pytest.raises(ConfigError, match="no ensemble but a single run"):
        load(single.path, member=0)
    values = list(scores[name]["members"].values())
    assert scores[name]["value"] == pytest.approx(np.mean(values))
    assert scores[name]["sd"] == pytest.approx(np.std(values, ddof=1))
    assert {f.name for f in (run.path / "samples").iterdir()} == {"member_0.png", "member_1.png"}


def test_scores_of_an_ensemble_are_of_the_members_that_have_them(monkeypatch):
    """Mean and standard deviation (n - 1) by hand; what one member cannot compute does not take the others' with it."""
    why = {"why": "not finite", "n": 9, "seed": 0}
    of = {
        0: {"nll": why, "w2": {"value": 1.0, "n": 9, "seed": 0, "se": 0.5}, "frechet": why},
        2: {"nll": {"value": 3.0, "n": 9, "seed": 0, "unit": "nats"}, "w2": {"value": 4.0, "n": 9, "seed": 0}},
        3: {"nll": {"value": 7.0, "n": 9, "seed": 0, "unit": "nats"}, "w2": {"value": 1.0, "n": 9, "seed": 0}},
    }
    monkeypatch.setattr(evaluation, "evaluate", of.get)
    ensemble = SimpleNamespace(members={k: k for k in range(4)}, ensemble=SimpleNamespace(living=of))
    found = evaluation.evaluate_members(ensemble)
    assert found["w2"] == {
        "value": 2.0, "sd": pytest.approx(3**0.5), "members": {"0": 1.0, "2": 4.0, "3": 1.0}, "n": 9, "seed": 0,
    }  # fmt: skip
    assert found["nll"] == {
        "value": 5.0, "sd": pytest.approx(8**0.5), "members": {"2": 3.0, "3": 7.0}, "n": 9, "seed": 0, "unit": "nats",
    }  # fmt: skip
    assert found["frechet"] == why
