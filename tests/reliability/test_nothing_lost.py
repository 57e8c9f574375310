"""A run never loses work: what is kept can be read, what is refused changes nothing, and nobody need listen."""

import csv
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from se_framework.assembly import Assembly
from se_framework.commands import entry, train
from se_framework.commands.going_on import command_to_go_on
from se_framework.commands.leftovers import no_empty_directories
from se_framework.config.command_line import check_writable
from se_framework.config.composing import compose, compose_all
from se_framework.data import ArrayData, StreamedArray
from se_framework.errors import ConfigError, DataError, NonFiniteError, RunDirectoryError, SEError
from se_framework.runs import files, sweeps
from se_framework.runs.directory import RunDirectory
from se_framework.runs.lock import locked
from se_framework.runs.versions import commit_of
from tests.support.commands import SHORT, TRAIN, call, start
from tests.support.runs import unscored

TINY = ["experiment=fgan", "data=moons", "model=affine", "metric.network.width=4", "loop.rounds=4", "loop.batch_size=8",
        "loop.log_every=1", "loop.checkpoint_every=2", "progress=false", "device=cpu"]  # fmt: skip


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """Work in an empty folder, with scores that take no time."""
    monkeypatch.chdir(tmp_path)
    scores = {"w2": {"value": 0.0, "n": 1, "seed": 0, "better": "lower"}}
    monkeypatch.setattr(train, "evaluate", lambda assembly: scores)
    monkeypatch.setattr("se_framework.evaluation.evaluate.evaluate", lambda assembly: scores)
    monkeypatch.setattr(Assembly, "plot", lambda *a, **k: None)
    monkeypatch.setattr(train, "curves", lambda *a, **k: None)


def se_train(directory, *typed, job=None):
    """Do what the command does."""
    return train.train_run(compose(None, typed), directory, typed, job)


def content(folder):
    """Return every file and folder below one, with the hash of what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        for path in folder.rglob("*")
    }


# -- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", [lambda f: f.write_bytes(f.read_bytes()[:-9]), lambda f: f.write_bytes(b"")])
def test_only_checkpoints_that_can_be_read_count_as_kept(tmp_path, spoil):
    """The newest two are spoilt; the run goes on from round 25 under a shorter memory, and is killed at any moment."""
    run = RunDirectory(tmp_path, keep_last=3)
    for k in range(5, 41, 5):
        run.save_checkpoint({"round": k, "x": torch.ones(10)}, k)
    for path in run.checkpoints()[:2]:
        spoil(path)
    again = RunDirectory(tmp_path, keep_last=2)
    for k in range(31, 35):
        assert again.load_checkpoint()[0]["round"] == k - 1
        again.save_checkpoint({"round": k, "x": torch.ones(10)}, k)
        sound = [int(p.stem[6:]) for p in again.checkpoints()]
        assert sound == [k, k - 1]  # the spoilt ones are gone, and have pushed nothing out


def test_a_best_checkpoint_that_is_spoilt_makes_room_for_the_next(tmp_path):
    run = RunDirectory(tmp_path, keep_last=1, keep_best=1)
    for k, loss in ((1, 0.1), (2, 0.2), (3, 0.9), (4, 0.9)):
        run.append_scores({"round": float(k), "to_minimise": loss})
        run.save_checkpoint({"round": k}, k)
        if k == 1:
            run.checkpoints()[0].write_bytes(b"")
    assert [int(p.stem[6:]) for p in run.checkpoints()] == [4, 2]


def test_a_checkpoint_that_the_system_withholds_is_neither_counted_nor_dropped(tmp_path, monkeypatch):
    run = RunDirectory(tmp_path, keep_last=1)
    run.save_checkpoint({"round": 1}, 1)
    held, stat = run.checkpoints()[0], type(tmp_path).stat
    monkeypatch.setattr(
        type(tmp_path), "stat", lambda p, **k: (_ for _ in ()).throw(PermissionError()) if p == held else stat(p, **k)
    )
    run.save_checkpoint({"round": 2}, 2)
    monkeypatch.undo()
    assert [int(p.stem[6:]) for p in run.checkpoints()] == [2, 1]


def test_every_new_name_is_durable_before_a_checkpoint_promises_it(tmp_path, monkeypatch):
    """A power cut keeps of a directory what it held when it was last synced."""
    durable, sync = {}, os.fsync

    def fsync(number):
        sync(number)
        place = os.readlink(f"/proc/self/fd/{number}")
        if os.path.isdir(place):
            durable[place] = {*os.listdir(place)}

    monkeypatch.setattr(os, "fsync", fsync)
    run = RunDirectory(tmp_path / "a" / "b" / "run")
    run.start("", torch.device("cpu"))
    run.append_row({"round": 1.0, "D": 0.0})
    run.append_scores({"round": 1.0, "to_minimise": 0.0})
    path = run.save_checkpoint({"round": 1}, 1)
    with files.growing(tmp_path / "samples.npy") as file:
        file.write(b"0")
    for place in (
        path,
        run.metrics_file,
        run.scores_file,
        run.config_file,
        *path.parents[:4],
        tmp_path / "samples.npy",
    ):
        assert place.name in durable[str(place.parent)], place


# -- what is refused --------------------------------------------------------------------------------------------------

REFUSED = {
    "drift": (["equation.beta=2"], lambda run: None, "would change the run"),
    "a key that is not there": (["resume_allow=[optimiser]"], lambda run: None, "the run has no key"),
    "other data": ([], lambda run: _edit(run / "data.json", "fingerprint", "sha256:0"), "is not the data"),
    "a record that cannot be read": ([], lambda run: (run / "data.json").write_text("{"), "cannot be read"),
    "a model that does not fit": (["model=realnvp", "resume_allow=[model]"], lambda run: None, "does not fit"),
    "data that does not fit": (["data=digits", "resume_allow=[data]"], lambda run: None, "does not fit"),
    "another seed": (["seed=3", "resume_allow=[seed]"], lambda run: None, "is not of this run"),
    "no checkpoints": ([], lambda run: shutil.rmtree(run / "checkpoints"), "its checkpoints are gone: put them back"),
    "no checkpoint": ([], lambda run: [p.unlink() for p in (run / "checkpoints").iterdir()], "checkpoints are gone"),
    "spoilt ones": ([], lambda run: [p.write_bytes(b"") for p in (run / "checkpoints").iterdir()], "can be read"),
    "a callback that fails": (
        ["resume_allow=[callbacks]", "+callbacks.a={_target_: se_framework.Callback, b: 1}"],
        lambda run: None,
        "unknown",
    ),
    "a game without its metric": (["metric=none", "resume_allow=[metric]"], lambda run: None, "needs a metric f_phi"),
    "no such score": (["score=none"], lambda run: None, "no such score"),
}  # fmt: skip


def _edit(file, key, value):
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run that was killed in round 4, with a checkpoint of round 4 and rows beyond it."""
    path = tmp_path_factory.mktemp("killed") / "run"
    run = RunDirectory(unscored(path, TINY))
    run.append_row(run.rows()[-1] | {"round": 5.0})
    return path


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_resume_leaves_every_byte(name, killed, tmp_path, quick):
    typed, spoil, message = REFUSED[name]
    run = shutil.copytree(killed, tmp_path / "run")
    spoil(run)
    before = content(tmp_path)
    with pytest.raises(SEError, match=message):
        se_train(run, f"resume={run}", "loop.rounds=6", *typed)
    assert content(tmp_path) == before


def test_a_run_in_use_is_refused_and_left_alone(killed, tmp_path, quick):
    run = shutil.copytree(killed, tmp_path / "run")
    holder = "import sys; from pathlib import Path; from se_framework.runs.lock import locked\n"
    holder += "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    before = content(run)
    with subprocess.Popen([sys.executable, "-c", holder, str(run)], stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout.readline() == "held\n"
        within = content(run)
        with pytest.raises(RunDirectoryError, match=f"in use by process {other.pid}"):
            se_train(run, f"resume={run}", "loop.rounds=6")
        assert content(run) == within
        other.stdin.close()
    assert content(run) == before  # the lock itself has gone with its holder


def test_a_lock_leaves_the_file_as_it_was(tmp_path):
    (tmp_path / ".lock").write_text("process 1 on elsewhere")
    with locked(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()
    assert (tmp_path / ".lock").read_text() == "process 1 on elsewhere"


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again(killed, tmp_path, quick):
    run = shutil.copytree(killed, tmp_path / "run")
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    table = RunDirectory(run)
    table.rewind(2)  # a checkpoint is due in round 2, whose row is written before it
    assert [row["round"] for row in table.rows()] == ["1", "2"]
    assert se_train(run, f"resume={run}").status == "finished"
    assert [row["round"] for row in table.rows()] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("typed", [["data=ring8"], ["divergence=hinge"], ["+divergence@plus.a.divergence=kl"]])
def test_tables_keep_their_columns_whatever_a_resumed_run_changes(typed, killed, tmp_path, quick):
    """Every row has as many cells as the header, and a value stands under its own name."""
    run = shutil.copytree(killed, tmp_path / "run")
    key = typed[0].lstrip("+").partition("=")[0].partition("@")[2].partition(".")[0] or typed[0].partition("=")[0]
    try:
        se_train(run, f"resume={run}", "loop.rounds=6", "loop.evaluate_every=1", f"resume_allow=[{key}]", *typed)
    except SEError:
        assert content(run) == content(killed)
    for table in run.glob("*.csv"):
        with open(table, newline="") as file:
            header, *rows = list(csv.reader(file))
        assert rows and {len(row) for row in rows} == {len(header)}
        assert [row[header.index("round")] for row in rows] == sorted({row[header.index("round")] for row in rows})


def test_a_permitted_change_may_take_a_part_away(killed, tmp_path, quick):
    """Mappings become nothing, and the other way round, in whatever order their keys come."""
    from se_framework.config.resuming import resumed_config

    run = RunDirectory(tmp_path / "run")
    for old, new in (("mlp_r1", "mlp"), ("mlp", "mlp_r1")):
        typed = ["experiment=fgan", f"metric={old}"]
        run.path.mkdir(exist_ok=True)
        run.write_config(OmegaConf.to_yaml(compose(None, typed), resolve=True))
        again = [f"resume={run.path}", f"metric={new}", "resume_allow=[metric]"]
        found = resumed_config(compose(None, again), run, again)
        assert found.metric == compose(None, [f"metric={new}"]).metric


def test_a_run_that_cannot_be_read_breaks_resume_auto_for_nobody(tmp_path, quick):
    mine = tmp_path / "outputs" / "2026-01-01" / "1"
    se_train(mine, *TINY)
    for number, text in enumerate((f"seed: 0x{'f' * 6000}", "loop: {rounds: 0x" + "f" * 6000 + "}", "[" * 5000)):
        folder = tmp_path / "outputs" / "2026-01-02" / str(number)
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(text)
    (tmp_path / "outputs" / "2026-01-02" / "gone").mkdir()
    (tmp_path / "outputs" / "2026-01-02" / "gone" / "config.yaml").symlink_to("nowhere")
    assert se_train(tmp_path / "new", *TINY, "resume=auto").directory == mine


# -- the user's directories -------------------------------------------------------------------------------------------


def test_only_directories_made_by_the_command_are_removed(tmp_path):
    mine, job = tmp_path / "mine" / "empty", tmp_path / "mine" / "empty" / "new" / "sweep"
    mine.mkdir(parents=True)
    check_writable(job)
    with no_empty_directories(job):
        (job / "0").mkdir(parents=True)
    assert mine.is_dir() and not list(mine.iterdir())
    with no_empty_directories(job):
        (job / "0").mkdir(parents=True)
        (job / "0" / "result.json").touch()
    assert (job / "0" / "result.json").exists()


def test_a_refused_command_leaves_empty_directories(tmp_path):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    done = call([*TRAIN, *SHORT, "loop.batch_size=9999", "data=digits", f"hydra.run.dir={folder}/c"], tmp_path)
    assert done.returncode == 1 and content(tmp_path) == {"a": None, "a/b": None}, done.stderr


def test_a_directory_is_made_though_others_remove_the_empty_ones_above(tmp_path, monkeypatch):
    mkdir, left = type(tmp_path).mkdir, [5]

    def disturbed(path, *rest, **more):
        if path.name == "run" and left[0]:
            left[0] -= 1
            path.parent.rmdir()
        return mkdir(path, *rest, **more)

    monkeypatch.setattr(type(tmp_path), "mkdir", disturbed)
    files.make_folder(tmp_path / "outputs" / "run")
    assert (tmp_path / "outputs" / "run").is_dir() and left == [0]


# -- sweeps -----------------------------------------------------------------------------------------------------------


def table(folder):
    """Return the rows of a sweep's table as lists, the header first."""
    with open(folder / "results.csv", newline="") as file:
        return list(csv.reader(file))


def test_a_finished_row_is_never_lost(tmp_path):
    sweeps.record_job(tmp_path / "0", 0, ["seed=0"], "finished", 0.5)
    for status in ("running", "failed", "stopped"):
        sweeps.record_job(tmp_path / "0", 0, ["seed=7"], status, error="refused")
        assert table(tmp_path)[1][:4] == ["0", "finished", "0.5", "0"]
    sweeps.record_job(tmp_path / "0", 0, ["seed=0"], "skipped", 0.5)
    assert table(tmp_path)[1][1] == "skipped"


def test_a_job_whose_process_is_killed_has_its_row(tmp_path):
    sweeps.record_job(tmp_path / "0", 0, ["seed=0"], "finished", 0.5)
    sweeps.record_job(tmp_path / "1", 1, ["seed=1"], "running")
    assert table(tmp_path)[2][1] == "running"
    (said,) = sweeps.finish(tmp_path)
    assert "job 1 was killed" in said and f"hydra.sweep.dir={tmp_path}" in said
    assert [row[1] for row in table(tmp_path)[1:]] == ["finished", "killed"] and not sweeps.finish(tmp_path)


def test_columns_of_a_sweep_are_unique(tmp_path):
    sweeps.record_job(tmp_path / "0", 0, ["score=w2", "run=3", "seed=1"], "finished", 0.5)
    header, row = table(tmp_path)
    assert header == ["job", "status", "score", "typed.score", "typed.run", "seed", "run", "error"]
    assert row[2:4] == ["0.5", "w2"]


def test_two_sweeps_share_no_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr(entry, "_hydra_main", lambda: seen.append(str(compose_all([]).hydra.sweep.dir)))
    monkeypatch.setattr(sweeps, "name_now", iter(["multirun/d/1", "multirun/d/1", "multirun/d/2"]).__next__)
    (tmp_path / "multirun" / "d" / "1").mkdir(parents=True)
    with pytest.raises(RunDirectoryError, match="File exists"):
        entry.sweep([])
    (tmp_path / "multirun" / "d" / "1").rmdir()
    entry.sweep([])
    entry.sweep([])
    assert seen == ["multirun/d/1", "multirun/d/2"] and [str(p.name) for p in tmp_path.glob("*/*")] == ["d"]
    with locked(tmp_path, name=sweeps.LOCK):
        holder = start([*TRAIN, "-m", "seed=0,1", f"hydra.sweep.dir={tmp_path}"], tmp_path).wait()
    assert holder.returncode == 1 and "is in use by process" in holder.stderr, holder.stderr


# -- going on ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a b='c', é", "${x}\"'"])
def test_the_command_to_go_on_goes_on_and_names_what_must_be_trusted(name, tmp_path, monkeypatch, quick):
    (tmp_path / "minepart.py").write_text("from models import Affine\nclass Mine(Affine):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(train, "finish", lambda *a: 0.0)
    run = tmp_path / name
    typed = [*TINY, "model._target_=minepart.Mine"]
    se_train(run, *typed)
    from se_framework.assembly import assembly_of

    told = command_to_go_on(RunDirectory(run), assembly_of(compose(None, typed)))
    command, *again = shlex.split(told)
    assert command == "se-train" and again[1:] == ["trust=minepart"]
    assert se_train(run, *again, "loop.rounds=5").directory == run
    plain = assembly_of(compose(None, TINY))
    assert "trust" not in command_to_go_on(RunDirectory(run), plain)


# -- provenance -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ArrayData, StreamedArray])
def test_a_file_replaced_after_it_was_read_has_no_fingerprint(kind, tmp_path):
    file = tmp_path / "x.npy"
    np.save(file, np.random.default_rng(0).random((50, 2)))
    data = kind(file)
    data.fingerprint()
    np.save(tmp_path / "y.npy", np.random.default_rng(1).random((50, 2)))
    os.replace(tmp_path / "y.npy", file)
    with pytest.raises(DataError, match="x.npy' was changed while it was read: start again"):
        data.fingerprint()


def test_the_commit_is_that_of_the_repository_that_keeps_the_code(tmp_path):
    """An environment below a repository that does not keep it has no commit."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "a.py").touch()
    subprocess.run([*git, "add", "a.py"], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "b.py").touch()
    assert commit_of(tmp_path / ".venv" / "b.py") == {"commit": None}
    assert len(commit_of(tmp_path / "a.py")["commit"]) == 40 and commit_of(tmp_path / "a.py")["uncommitted_changes"]


def test_a_failure_is_told_where_its_dump_finds_no_room(tmp_path, quick, monkeypatch):
    full = RunDirectoryError("failure cannot be written (No space left on device): make room")
    monkeypatch.setattr(RunDirectory, "save_state", lambda *a: (_ for _ in ()).throw(full))
    with pytest.raises(NonFiniteError, match="the step is not kept, failure cannot be written .No space left"):
        se_train(tmp_path / "run", *TINY, "optimizer=sgd", "optimizer.lr=1e300", "loop.rounds=50")


def test_a_name_no_directory_can_have_is_refused_before_anything_is_made(tmp_path):
    (tmp_path / "file").touch()
    for name in ("file/x", "a" * 300, "a\0b"):
        with pytest.raises(ConfigError, match="cannot be the directory of a run or sweep"):
            check_writable(tmp_path / "new" / name if name != "file/x" else tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_member_that_fails_can_be_played_again(tmp_path, quick, monkeypatch):
    """Its step is kept though the others go on; that of a run of one member says which."""
    import se_framework as se
    from tests.support.ensembles import poison

    config = compose(None, [*TINY, "ensemble.size=3"])
    assembly, run = se.assembly.assembly_of(config), RunDirectory(tmp_path / "run")
    assembly.start(run)
    poison(assembly.state, 1)
    assembly.train(run)
    assert list(assembly.state.living) == [0, 2]
    assert sorted(p.name for p in run.failure.iterdir()) == ["member_1"]
    failure = se.reproduce(run.path, member=1)
    assert failure.record.place.startswith("player phi, round 0") and "of the model" in failure.record.source
    with pytest.raises(RunDirectoryError, match="choose one, member=1"):
        se.reproduce(run.path)
    with pytest.raises(RunDirectoryError, match="member 0 of .* holds no failure"):
        se.reproduce(run.path, member=0)
