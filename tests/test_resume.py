"""A run that was killed and resumed is the run that was not: bit for bit, for every experiment."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from se_framework.composing import config_dir, groups
from se_framework.errors import RunDirectoryError
from se_framework.run_directory import RunDirectory

ROOT = Path(__file__).parent.parent
CLOCK = {"seconds", "samples_per_second"}

# One process imports torch once and forks a child per run, so that SIGKILL hits a real process.
DRIVER = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from se_framework import loop
from se_framework.commands import train
from se_framework.composing import compose

train.finish = lambda assembly, run: 0.0
experiment, root = sys.argv[1], Path(sys.argv[2])
short = ["loop.rounds=7", "loop.batch_size=24", "loop.log_every=1", "loop.checkpoint_every=3", "progress=false"]
short += ["device=cpu"]

def child(directory, overrides, kill_at=None):
    pid = os.fork()
    if pid == 0:
        play = loop.play_round
        def killed(state, *rest):
            if state.round == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return play(state, *rest)
        loop.play_round = killed
        train.train_run(compose(None, overrides), directory, overrides)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

assert child(root / "whole", [f"experiment={experiment}", *short]) == 0
assert child(root / "cut", [f"experiment={experiment}", *short], kill_at=5) == -signal.SIGKILL
assert child(root / "cut", [f"resume={root / 'cut'}"]) == 0
assert child(root / "early", [f"experiment={experiment}", *short], kill_at=1) == -signal.SIGKILL
assert child(root / "early", [f"resume={root / 'early'}", "loop.log_every=1", "loop.checkpoint_every=1"]) == 0
"""


def rows(run):
    """Return the metrics without the clock."""
    with open(run / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k not in CLOCK} for row in csv.DictReader(file)]


def same(a, b):
    """Compare two states of plain containers and tensors, bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("experiment", groups([config_dir()])["experiment"])
def test_kill_and_resume_equals_uninterrupted(experiment, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DRIVER, experiment, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    whole = torch.load(tmp_path / "whole" / "checkpoints" / "round_00000007.pt", weights_only=True)
    assert whole["round"] == 7 and [int(r["round"]) for r in rows(tmp_path / "whole")] == list(range(1, 8))
    for name in ("cut", "early"):
        other = torch.load(tmp_path / name / "checkpoints" / "round_00000007.pt", weights_only=True)
        assert same(whole, other), name
        assert rows(tmp_path / "whole") == rows(tmp_path / name), name
    before = torch.load(sorted((tmp_path / "whole" / "checkpoints").glob("*.pt"))[0], weights_only=True)
    assert not same(before["players"], whole["players"])  # the comparison can fail


def test_a_signal_outside_the_round_still_leaves_a_checkpoint(tmp_path, monkeypatch):
    """Between the read of the signal and the loop's next test nothing may leave without saving."""
    from se_framework import compose, loop

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
    assert [p.name for p in run.checkpoints()] == ["round_00000003.pt", "round_00000002.pt"]
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
    run.truncate_rows(3)
    assert [(int(r["round"]), float(r["D"])) for r in run.rows()] == [(k, k / 3) for k in (1, 2, 3)]


def test_the_command_typed_again_beside_resume_is_no_drift(tmp_path, monkeypatch):
    """The saved run holds a fixed horizon and an absolute path: the same command, typed again, asks for no change."""
    from omegaconf import OmegaConf

    from se_framework.commands.train import resumed_config, settle
    from se_framework.composing import compose
    from se_framework.errors import ConfigError

    monkeypatch.chdir(tmp_path)
    typed = ["experiment=fgan", "data=array", "data.path=rows.npy", "model=affine"]
    run = RunDirectory(tmp_path)
    run.write_config(OmegaConf.to_yaml(settle(compose(None, typed))))
    again = [*typed, f'resume="{tmp_path}"', "loop.rounds=9000"]
    resumed = resumed_config(compose(None, again), run, again)
    assert (resumed.loop.rounds, resumed.loop.horizon) == (9000, 6000)
    assert resumed.data.path == str(tmp_path / "rows.npy")
    for change in ("loop.horizon=7000", "data.path=other.npy", "divergence=gan"):
        with pytest.raises(ConfigError, match=f"would change the run .*{change.split('=')[0].split('.')[0]}"):
            resumed_config(compose(None, [*again, change]), run, [*again, change])
