"""A run that was killed and resumed is the run that was not: bit for bit, for every experiment."""

import json
import os
import signal

import pytest
import torch

from se_framework.commands import train
from se_framework.config.composing import compose, config_dir, groups
from se_framework.errors import RunDirectoryError
from se_framework.runs.directory import RunDirectory
from tests.support.runs import play
from tests.support.smaller import smaller

EVERY_WAY = """
experiment, root = sys.argv[1], Path(sys.argv[2])
evaluation.score_row = lambda assembly, state: {"to_minimise": 0.0, "w2": 0.0}
typed = [f"experiment={experiment}", *SHORT, *sys.argv[4:]]
KILLED = -signal.SIGKILL

assert child(root / "whole", typed) == 0
assert child(root / "cut", typed, kill_at=5) == KILLED  # between two checkpoints
assert child(root / "cut", [f"resume={root / 'cut'}"]) == 0
assert not differences(root / "whole", root / "cut"), differences(root / "whole", root / "cut")
assert [int(r["round"]) for r in rows(root / "cut")] == list(range(1, 8))
last, before = (RunDirectory(root / "whole").load_checkpoint(which=w)[0] for w in ("7", "6"))
assert not same(last["equation"], before["equation"])  # the comparison can fail
if sys.argv[3] == "cut":
    sys.exit()
assert child(root / "early", typed, kill_at=1) == KILLED  # before the first, so from round 0; other intervals
others = ["loop.log_every=2", "loop.checkpoint_every=1", "loop.evaluate_every=2", "loop.keep_best=1"]
assert child(root / "early", [f"resume={root / 'early'}", *others]) == 0
assert child(root / "late", [*typed, "loop.checkpoint_every=6"], kill_at=6) == KILLED  # on the last round
assert child(root / "late", [*typed, f"resume={root / 'late'}"]) == 0
assert child(root / "late", [*typed, f"resume={root / 'late'}"]) == 0  # after the end
assert child(root / "longer", [*typed, "loop.rounds=5"]) == 0
assert child(root / "longer", [f"resume={root / 'longer'}", "loop.rounds=7"]) == 0
assert child(root / "straight", [*typed, "loop.horizon=5"]) == 0
for name in ("early", "late"):
    assert not differences(root / "whole", root / name), (name, differences(root / "whole", root / name))
assert not differences(root / "straight", root / "longer"), differences(root / "straight", root / "longer")
assert len(rows(root / "early")) == 4
assert [int(r["round"]) for r in rows(root / "early", "scores.csv")] == [2, 4, 6]
"""
MANY_WAYS = ("wgan_gp", "sinkhorn")
"""A game of two with a penalty, one player alone: what only the loop does is tried with these."""


@pytest.mark.soak
@pytest.mark.parametrize("experiment", groups([config_dir()])["experiment"])
def test_every_way_of_resuming_equals_the_uninterrupted_run(experiment, tmp_path, soak):
    """Every experiment cut between two checkpoints; the other ways with two of them, in ``make soak`` with all."""
    done = play(
        EVERY_WAY, experiment, tmp_path, "all" if soak or experiment in MANY_WAYS else "cut", *smaller(experiment, soak)
    )
    assert done.returncode == 0, done.stderr


ON_GPU = """
typed = [*(k for k in SHORT if k != "device=cpu"), f"experiment={sys.argv[1]}", "device=cuda", "deterministic=true"]
root = Path(sys.argv[2])
train.finish = lambda *_: 0.0
def go(directory, overrides, kill_at=None):
    played = loop.play_round
    def stopped(state, *rest):
        if state.round == kill_at:
            raise ZeroDivisionError
        return played(state, *rest)
    loop.play_round = stopped
    try:
        train.train_run(compose(None, overrides), directory, overrides)
    except ZeroDivisionError:
        pass
    loop.play_round = played
go(root / "whole", typed)
go(root / "cut", typed, kill_at=5)
go(root / "cut", [f"resume={root / 'cut'}"])
assert not differences(root / "whole", root / "cut"), differences(root / "whole", root / "cut")
"""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("experiment", groups([config_dir()])["experiment"])
def test_on_a_gpu_a_deterministic_run_goes_on_bit_for_bit(experiment, tmp_path):
    done = play(ON_GPU, experiment, tmp_path)
    assert done.returncode == 0, done.stderr


def test_deterministic_is_what_the_configuration_says(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "finish", lambda *a: 0.0)
    seen = []
    monkeypatch.setattr(
        train, "assembly_of", lambda c, **_: seen.append(torch.are_deterministic_algorithms_enabled()) or 1 / 0
    )
    for wanted in ("true", "false"):
        with pytest.raises(ZeroDivisionError):
            train.train_run(compose(None, [f"deterministic={wanted}"]), tmp_path / wanted, [])
    assert seen == [True, False]


def test_a_signal_outside_the_round_still_leaves_a_checkpoint(tmp_path, monkeypatch):
    """Between the read of the signal and the loop's next test nothing may leave without saving."""
    from se_framework import compose
    from se_framework.training import loop

    measure = loop.measure
    monkeypatch.setattr(loop, "measure", lambda *a: (signal.raise_signal(signal.SIGINT), measure(*a))[1])
    assembly = compose("vanilla_gan", ["loop.rounds=50", "loop.log_every=5", "loop.batch_size=8", "progress=false"])
    run = RunDirectory(tmp_path)
    state = assembly.train(run)
    assert state.stopped_by == signal.SIGINT and state.round == 6
    assert run.load_checkpoint()[0]["round"] == state.round


def test_a_truncated_checkpoint_gives_way_to_the_one_before(tmp_path):
    run = RunDirectory(tmp_path)
    for k in (1, 2, 3):
        run.save_checkpoint({"round": k, "x": torch.ones(1000)}, k)
    assert [p.name for p in run.checkpoints()] == ["round_00000003.safetensors", "round_00000002.safetensors"]
    run.checkpoints()[0].write_bytes(run.checkpoints()[0].read_bytes()[:500])
    assert run.load_checkpoint()[0]["round"] == 2
    run.checkpoints()[1].write_bytes(b"")
    with pytest.raises(RunDirectoryError, match="no checkpoint in .* can be read .*round_00000003"):
        run.load_checkpoint()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    run = RunDirectory(tmp_path)
    run.write_json("summary.json", {"a": 1})
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        run.write_json("summary.json", {"a": 2})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_rows_of_rounds_to_be_played_again_and_torn_lines_are_dropped(tmp_path):
    run = RunDirectory(tmp_path)
    for k in range(1, 6):
        run.append_row({"round": float(k), "D": k / 3, "note": ""})
    with open(run.metrics_file, "a") as file:
        file.write("6,0.")
    run.rewind(3)
    assert [(int(r["round"]), float(r["D"])) for r in run.rows()] == [(k, k / 3) for k in (1, 2, 3)]


def test_the_command_typed_again_beside_resume_is_no_drift(tmp_path, monkeypatch):
    """The saved run holds a fixed horizon and an absolute path: the same command, typed again, asks for no change."""
    from omegaconf import OmegaConf

    from se_framework.config.composing import compose
    from se_framework.config.resuming import resumed_config, with_choices
    from se_framework.errors import ConfigError

    monkeypatch.chdir(tmp_path)
    typed = ["experiment=fgan", "data=array", "data.path=rows.npy", "model=affine"]
    run = RunDirectory(tmp_path)
    run.write_config(OmegaConf.to_yaml(with_choices(compose(None, typed), {"loop.horizon": 6000})))
    again = [*typed, f'resume="{tmp_path}"', "loop.rounds=9000"]
    resumed = resumed_config(compose(None, again), run, again)
    assert (resumed.loop.rounds, resumed.loop.horizon) == (9000, 6000)
    assert resumed.data.path == str(tmp_path / "rows.npy")
    for change in ("loop.horizon=7000", "data.path=other.npy", "divergence=gan"):
        with pytest.raises(ConfigError, match=f"would change the run .*{change.split('=')[0].split('.')[0]}"):
            resumed_config(compose(None, [*again, change]), run, [*again, change])
