"""Sweeps: a table of results, finished jobs skipped on a rerun, failed ones in nobody's way, under two launchers."""

import csv
import json
import signal
import subprocess
import sys
import threading

import pytest

from se_framework.errors import RunDirectoryError
from se_framework.runs.lock import locked
from se_framework.runs.sweeps import record_job
from tests.support.commands import ROOT, SHORT, SMALL_SCORES, TRAIN, call, start, until

SWEEP = [
    *TRAIN,
    "-m",
    "experiment=fgan",
    *SHORT,
    "data=moons",
    "model=affine",
    "progress=false",
    "hydra.sweep.dir=sweep",
]


def results(folder):
    """Return the table of a sweep."""
    with open(folder / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.soak
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_sweep_goes_on_and_a_failed_job_stops_nothing(tmp_path, launcher, soak):
    """The second job is refused; a rerun trains only what was not finished.

    joblib's processes import torch each and know nothing of small scores: ``make soak`` alone plays them.
    """
    if launcher == "joblib" and not soak:
        pytest.skip("in make soak only")
    several = as_many = [] if launcher == "basic" else ["hydra.launcher.n_jobs=2"]
    first = call([*SWEEP, "seed=0,1", "optimizer.lr=1e-3,abc", f"hydra/launcher={launcher}", *several], tmp_path,
                 SMALL_SCORES)  # fmt: skip
    assert first.returncode == 1 and "optimizer.lr must be a number" in first.stderr, first.stderr
    assert "Traceback" not in first.stderr
    found = results(tmp_path / "sweep")
    assert [row["status"] for row in found] == ["finished", "failed", "finished", "failed"]
    assert [(row["seed"], row["optimizer.lr"]) for row in found] == [
        ("0", "0.001"),
        ("0", "abc"),
        ("1", "0.001"),
        ("1", "abc"),
    ]
    assert float(found[0]["score"]) == float(found[0]["w2"]) and found[1]["score"] == ""
    assert "optimizer.lr must be a number or Tensor, got 'abc'" in found[1]["error"]
    assert found[2]["run"] == str(tmp_path / "sweep" / "2")
    assert [file.name for file in (tmp_path / "sweep" / "1").iterdir()] == ["result.json"]

    (tmp_path / "sweep" / "2" / "summary.json").unlink()  # as if it had been killed before its end
    trained = (tmp_path / "sweep" / "0" / "samples.png").stat().st_mtime_ns
    same = [*SWEEP, "seed=0,1,2", "optimizer.lr=1e-3", f"hydra/launcher={launcher}", "resume=auto", *as_many]
    again = call([*same, "hydra.sweep.dir=second"], tmp_path, SMALL_SCORES)
    assert again.returncode == 0, again.stderr
    found = results(tmp_path / "second")
    assert [row["status"] for row in found] == ["skipped", "finished", "finished"]
    assert [row["run"] for row in found] == [str(tmp_path / name) for name in ("sweep/0", "sweep/2", "second/2")]
    assert (tmp_path / "sweep" / "0" / "samples.png").stat().st_mtime_ns == trained
    assert f"restored round_{6:08d}" in again.stderr  # it went on where its rounds ended


def test_a_rerun_into_the_same_folder_needs_no_key(tmp_path):
    command = [*SWEEP, "seed=0"]
    assert call(command, tmp_path, SMALL_SCORES).returncode == 0
    again = call(command, tmp_path, SMALL_SCORES)
    assert again.returncode == 0 and again.stderr.count("skipped") == 1, again.stderr
    assert [row["status"] for row in results(tmp_path / "sweep")] == ["skipped"]


def test_a_signal_ends_the_sweep_and_a_rerun_goes_on(tmp_path):
    command = [*SWEEP, "seed=0,1", "loop.rounds=200000", "loop.log_every=10"]
    process = start(command, tmp_path, SMALL_SCORES)
    until(lambda: (tmp_path / "sweep" / "0" / "metrics.csv").exists(), "the first row")
    process.send_signal(signal.SIGTERM)
    done = process.wait()
    said = done.stderr
    assert done.returncode == 143 and "go on with: se-train" in said, said
    assert [row["status"] for row in results(tmp_path / "sweep")] == ["stopped"]
    reached = int(said.split("stopped after round ")[1].split()[0])
    again = call(
        [*SWEEP, "seed=0", f"loop.rounds={reached + 3}", "loop.horizon=200000", "loop.log_every=10"],
        tmp_path,
        SMALL_SCORES,
    )
    assert again.returncode == 0 and f"restored round_{reached:08d}" in again.stderr, again.stderr


def test_resume_of_one_run_cannot_be_swept(tmp_path):
    process = call([*TRAIN, "-m", "seed=0,1", "resume=somewhere"], tmp_path, SMALL_SCORES)
    assert process.returncode == 1 and "a sweep goes on with resume=auto" in process.stderr
    assert not list(tmp_path.iterdir())


SLOW = """
import sys, time
from pathlib import Path
from se_framework.runs import sweeps
make = sweeps.table
def slowly(results):
    made = make(results)
    print("read", flush=True)
    time.sleep(1.5)
    return made
sweeps.table = slowly
sweeps.record_job(Path(sys.argv[1]) / "0", 0, ["seed=0"], "finished", 0.0)
"""


def test_jobs_that_end_together_are_all_in_the_table(tmp_path):
    """One has read the others' results and not yet written the table when the next one ends."""
    with subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT) as first:
        assert first.stdout is not None and first.stdout.readline() == b"read\n"
        record_job(tmp_path / "1", 1, ["seed=1"], "finished", 1 / 3)
    rows = results(tmp_path)
    assert [(int(row["job"]), float(row["score"])) for row in rows] == [(0, 0.0), (1, 1 / 3)]


def test_a_lock_refuses_or_waits_and_is_given_back(tmp_path):
    script = "import sys; from pathlib import Path; from se_framework.runs.lock import locked\n"
    script += "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    with locked(tmp_path):
        pass  # and given back: the next one is held by another process
    command, pipe = [sys.executable, "-c", script, str(tmp_path)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT, text=True) as other:
        assert other.stdin is not None and other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(RunDirectoryError, match=f"is in use by process {other.pid} on "), locked(tmp_path):
            pass
        let_go = []
        threading.Timer(0.3, lambda: (let_go.append(True), other.stdin.close())).start()
        with locked(tmp_path, wait=True):
            assert let_go


def test_the_record_is_plain_json(tmp_path):
    record_job(tmp_path / "3", 3, ["+plus.a.weight=1", "model=affine"], "failed", error="because")
    found = json.loads((tmp_path / "3" / "result.json").read_text())
    assert found["status"] == "failed" and results(tmp_path)[0]["plus.a.weight"] == "1"
