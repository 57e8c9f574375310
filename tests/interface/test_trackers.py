"""What any tracker is told, by one of the tests' own: everything once, whatever becomes of the run or the tracker."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shlex
import shutil
import signal
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import se_framework as se
from se_framework import __main__ as command
from se_framework.errors import CallbackError, ConfigError
from tests.support.trackers import FLOW, SHORT, Snapshot, chosen, heard, rounds

FIXED = {"w2": 1.5, "to_minimise": 1.5}


def blank(state, data, file):
    """Draw nothing into a picture."""
    file.parent.mkdir(exist_ok=True, parents=True)
    Image.new("L", (4, 4)).save(file)


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Scores at once, those of the end as well; the command line in an empty directory."""
    monkeypatch.setattr("se_framework.evaluation.evaluate.score_row", lambda *_: dict(FIXED))
    monkeypatch.setattr("se_framework.commands.train.evaluate", lambda _: {"w2": {"value": 2.5, "n": 1, "seed": 0}})
    monkeypatch.setattr("se_framework.assembly.frame", blank)
    monkeypatch.setattr("se_framework.assembly.picture", lambda _, __, file, **___: blank(None, None, file))
    monkeypatch.setattr("se_framework.commands.train.curves", lambda _, file, **__: blank(None, None, file))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)

    def type_in(*words):
        monkeypatch.setattr(sys, "argv", ["se-train", *map(str, words)])
        command.main()

    return type_in


def train(path, *words, callbacks=(), experiment="mle_flow"):
    assembly = se.compose(experiment, [*FLOW, *words])
    assembly.train(se.RunDirectory(path), callbacks)
    return assembly


def leaves(node, key=""):
    """Yield the values of a tree by dotted key."""
    if isinstance(node, dict) and node:
        for name, value in node.items():
            yield from leaves(value, f"{key}.{name}" if key else name)
    else:
        yield key, node


def table(file):
    """Return the numbers of a table, by round."""
    with open(file, newline="") as lines:
        rows = list(csv.DictReader(lines))
    return [{k: float(v) for k, v in row.items() if k != "note" and v} for row in rows]


# -- what it is told --------------------------------------------------------------------------------------------------


def test_a_tracker_hears_settings_rows_scores_pictures_and_the_end(tmp_path, quick):
    run, told = tmp_path / "here" / "run", tmp_path / "told"
    train(run, *chosen("Recorder", told), "loop.picture_every=3", "loop.evaluate_every=3")
    ((_, begun),) = heard(told, "begin")
    kept = yaml.safe_load((run / "config.yaml").read_text())
    ours = ("resume", "resume_allow", "trust", "dry_run", "cite", "tracker")
    assert begun["settings"] == {key: v for key, v in leaves(kept) if key.split(".")[0] not in ours}
    assert begun["settings"]["loop.horizon"] == 6, "choices that were left to us are made"
    assert begun["name"] == "here/run" and begun["group"] == "None" and begun["directory"] == str(run)
    assert re.fullmatch("[0-9a-f]{16}", begun["id"]) and begun["resumed"] is False
    kinds = [(c[0], c[1], "scores" in str(c)) for c in heard(told)[1:]]
    figures = [(t, s) for kind, t, s in kinds if kind == "figures"]
    assert figures == [(1, 0), (2, 0), (3, 0), (3, 1), (4, 0), (5, 0), (6, 0), (6, 1)]
    assert heard(told, "picture") == [["picture", t, "frames", "89504e47"] for t in (0, 3, 6)]
    assert heard(told)[-1] == ["end", 6, "finished"] and kinds[0][0] == "picture"


def test_figures_are_the_cells_of_the_tables(tmp_path, quick):
    """Penalties and gradient norms as well: whatever a row holds that is a number."""
    run, told = tmp_path / "run", tmp_path / "told"
    words = [*SHORT, "loop.rounds=3", *chosen("Recorder", told), "loop.evaluate_every=3"]
    se.compose("wgan_gp", words).train(se.RunDirectory(run))
    told_rows = [{"round": float(t), **figures} for _, t, figures in heard(told, "figures") if "total" in figures]
    assert told_rows == table(run / "metrics.csv")
    assert {"D", "E_q_f", "E_pd_f", "penalty", "phi_gradient", "theta_gradient"} <= set(told_rows[0])
    (scores,) = [f for _, _, f in heard(told, "figures") if "total" not in f]
    assert scores == {f"scores/{key}": value for key, value in FIXED.items()}


def test_the_command_tells_the_scores_and_pictures_of_the_end(tmp_path, quick):
    told = tmp_path / "told"
    quick("experiment=mle_flow", *FLOW, *chosen("Recorder", told), "hydra.run.dir=run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["scores"]
    (last,) = [f for _, t, f in heard(told, "figures") if any(name.startswith("summary/") for name in f)]
    assert last == {f"summary/{name}": entry["value"] for name, entry in summary.items()} == {"summary/w2": 2.5}
    assert [c[1:3] for c in heard(told, "picture")] == [[6, "curves"], [6, "samples"]]
    assert [c[0] for c in heard(told)].count("begin") == 1 and heard(told)[-1] == ["end", 6, "finished"]


def test_a_dry_run_is_not_followed(tmp_path, quick, capsys):
    quick("experiment=mle_flow", *FLOW, *chosen("Recorder", tmp_path / "told"), "dry_run=true")
    assert not (tmp_path / "told").exists() and "total" not in capsys.readouterr().err


def test_members_are_followed_as_means_and_deviations(tmp_path, quick):
    run, told = tmp_path / "run", tmp_path / "told"
    words = [*SHORT, "loop.rounds=2", "ensemble.size=2", "loop.picture_every=2", "loop.evaluate_every=2"]
    se.compose("wgan_gp", [*words, *chosen("Recorder", told)]).train(se.RunDirectory(run))
    told_rows = [{"round": float(t), **figures} for _, t, figures in heard(told, "figures") if "total" in figures]
    assert told_rows == table(run / "metrics.csv") and {"D", "D_sd", "total_sd", "members"} <= set(told_rows[0])
    assert [c[1:3] for c in heard(told, "picture")] == [[t, f"frames/member_{k}"] for t in (0, 2) for k in (0, 1)]
    scores = [f for _, _, f in heard(told, "figures") if "scores/w2" in f]
    assert scores == [{"scores/w2": 1.5, "scores/w2_sd": 0.0, "scores/to_minimise": 1.5, "scores/to_minimise_sd": 0.0}]


def test_every_job_of_a_sweep_is_a_run_of_one_group(tmp_path, quick, monkeypatch):
    monkeypatch.setenv("SE_SWEEP_DIR", "")  # set by the sweep; put back at the end
    words = ["-m", "experiment=mle_flow", *FLOW, "seed=0,1", "hydra.sweep.dir=grid", "loop.rounds=2"]
    quick(*words, *chosen("Recorder", "grid/${seed}/told"))
    begun = [heard(tmp_path / "grid" / str(k) / "told", "begin")[0][1] for k in (0, 1)]
    assert [one["name"] for one in begun] == ["grid/0", "grid/1"] and begun[0]["id"] != begun[1]["id"]
    assert {one["group"] for one in begun} == {f"{tmp_path.name}/grid"}
    assert [one["settings"]["seed"] for one in begun] == [0, 1]
    for k in (0, 1):
        assert heard(tmp_path / "grid" / str(k) / "told")[-1] == ["end", 2, "finished"]


def test_a_choice_of_ones_own_is_a_file(tmp_path, quick):
    (tmp_path / "conf" / "tracker").mkdir(parents=True)
    (tmp_path / "conf" / "tracker" / "diary.yaml").write_text(
        f"_target_: tests.support.trackers.Recorder\nfile: {tmp_path / 'told'}\n"
    )
    words = ["--config-dir", "conf", "experiment=mle_flow", *FLOW, "hydra.run.dir=run", "tracker=diary"]
    quick(*words)
    assert rounds(tmp_path / "told") == [1, 2, 3, 4, 5, 6]


# -- how it ends ------------------------------------------------------------------------------------------------------


def test_a_run_that_is_stopped_goes_on_with_its_tracker_by_the_printed_command(tmp_path, quick, capsys, monkeypatch):
    told = tmp_path / "told"
    stop = Snapshot(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    typed = [*chosen("Recorder", told)]
    with monkeypatch.context() as patch:
        patch.setattr("se_framework.assembly.callbacks_of", lambda *_: [stop])
        with pytest.raises(SystemExit, match="143"):
            quick("experiment=mle_flow", *FLOW, *typed, "hydra.run.dir=run")
    assert heard(told)[-1][::2] == ["end", "stopped"] and heard(told)[-1][1] in (3, 4)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "go on with: " in line]
    quick(*shlex.split(line.partition("go on with: ")[2])[1:])
    assert rounds(told) == [1, 2, 3, 4, 5, 6] and heard(told)[-1] == ["end", 6, "finished"]
    begun = [one for _, one in heard(told, "begin")]
    assert begun[0]["id"] == begun[1]["id"] and [one["resumed"] for one in begun] == [False, True]


def test_a_run_that_fails_is_told_as_failed(tmp_path, quick):
    def fail():
        raise RuntimeError("no luck")

    with pytest.raises(CallbackError):
        train(tmp_path / "run", *chosen("Recorder", tmp_path / "told"), callbacks=[Snapshot(4, fail)])
    assert heard(tmp_path / "told")[-1] == ["end", 4, "failed"]


# -- nothing of it reaches the run ------------------------------------------------------------------------------------


def weights(assembly):
    return [p.detach().clone() for p in assembly.state.equation.parameters()]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The weights of a run that nobody follows, and its rows less the clock."""
    path = tmp_path_factory.mktemp("alone") / "run"
    return weights(train(path)), [{k: v for k, v in row.items() if "second" not in k} for row in table_of(path)]


def table_of(path):
    return table(path / "metrics.csv")


@pytest.mark.parametrize("method", ["begin", "figures", "picture", "end"])
@pytest.mark.parametrize("leaves", [False, True])
def test_a_tracker_that_fails_is_left_off_with_one_warning(tmp_path, quick, alone, capsys, method, leaves):
    told = tmp_path / "told"
    broken = chosen("Broken", told, f"+tracker.method={method}", f"+tracker.leaves={str(leaves).lower()}")
    assembly = train(tmp_path / "run", *broken, "loop.picture_every=3")
    warned = [line for line in capsys.readouterr().err.splitlines() if "tracker" in line]
    error = "SystemExit: 1" if leaves else "RuntimeError: no line"
    assert warned == [
        f"se-train: WARNING, the tracker Broken failed and hears no more of this run, which goes on ({error})"
    ]
    assert [c[0] for c in heard(told)].count(method) == 1 and heard(told)[-1][0] == method
    assert all(torch.equal(one, other) for one, other in zip(weights(assembly), alone[0], strict=True))
    assert assembly.state.round == 6 and len(se.load(tmp_path / "run").state.history) == 6


def test_the_bits_are_the_same_with_and_without(tmp_path, quick, alone):
    """And so are the global generators, on which a user's own data or network may draw."""
    states = []
    for more in ([], chosen("Meddler", tmp_path / "told")):
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        assembly = train(tmp_path / f"run{len(states)}", *more, "loop.picture_every=2")
        states.append((random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()))
    assert states[0] == states[1] and len(heard(tmp_path / "told")) == 12
    assert all(torch.equal(one, other) for one, other in zip(weights(assembly), alone[0], strict=True))
    rows = [{k: v for k, v in row.items() if "second" not in k} for row in table_of(tmp_path / "run1")]
    assert rows == alone[1]


def test_a_record_that_cannot_be_written_ends_the_tracker_alone(tmp_path, quick, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tracker.json").mkdir()
    assembly = train(tmp_path / "run", *chosen("Recorder", tmp_path / "told"))
    assert assembly.state.round == 6 and "the tracker Recorder failed" in capsys.readouterr().err


# -- a run that goes on -----------------------------------------------------------------------------------------------


def killed(tmp_path, told, at=5):
    """Leave a run as a kill in the row of round 5 does: rows up to there, the checkpoint of round 4."""
    run, snapshot = tmp_path / "run", tmp_path / "snapshot"

    def copy():
        shutil.copytree(run, snapshot), shutil.copy(told, tmp_path / "told_then")

    # The follower is told before the callbacks of the call: what it heard of the row is recorded.
    train(run, *chosen("Recorder", told), callbacks=[Snapshot(at, copy)])
    shutil.rmtree(run), snapshot.rename(run), shutil.move(tmp_path / "told_then", told)
    assert [file.stem for file in se.RunDirectory(run).checkpoints()][0] == "round_00000004"
    return run


def test_rounds_that_are_played_again_are_not_told_again(tmp_path, quick):
    told = tmp_path / "told"
    run = killed(tmp_path, told)
    assert rounds(told) == [1, 2, 3, 4, 5]
    quick("resume=run", *chosen("Recorder", told))
    assert rounds(told) == [1, 2, 3, 4, 5, 6] and heard(told)[-1] == ["end", 6, "finished"]
    values = [figures["D"] for _, _, figures in heard(told, "figures") if "D" in figures]
    assert values == [row["D"] for row in table_of(run)]
    begun = [one for _, one in heard(told, "begin")]
    assert begun[0]["id"] == begun[1]["id"] and begun[1]["resumed"] is True


def test_what_was_played_without_the_tracker_is_told_when_it_comes(tmp_path, quick):
    told = tmp_path / "told"
    quick("experiment=mle_flow", *FLOW, "hydra.run.dir=run", "loop.rounds=2", "loop.horizon=6", "loop.evaluate_every=1")
    quick("resume=run", "loop.rounds=4", *chosen("Recorder", told))
    quick("resume=run", "loop.rounds=5")
    quick("resume=run", "loop.rounds=6", *chosen("Recorder", told))
    assert rounds(told) == [1, 2, 3, 4, 5, 6] and rounds(told, "scores/w2") == [1, 2, 3, 4, 5, 6]
    assert rounds(told, "summary/w2") == [4, 6]
    quick("resume=run", *chosen("Recorder", told))
    assert rounds(told) == [1, 2, 3, 4, 5, 6], "a finished run that is finished again tells nothing new"
    assert heard(told)[-1] == ["end", 6, "finished"]


def test_another_course_another_choice_or_another_place_is_another_run_of_the_tracker(tmp_path, quick):
    """What it had been told of the course that was left would stand among the rows of the new one."""
    told = tmp_path / "told"
    run = killed(tmp_path, told)
    shutil.copytree(run, tmp_path / "copy")
    first = heard(told, "begin")[0][1]["id"]
    for where, words, name in [
        ("run", ["optimizer.lr=1e-4", "resume_allow=[optimizer]"], "course"),
        ("run", ["+tracker.marks=b"], "choice"),
        ("copy", [], "place"),
    ]:
        shutil.copytree(tmp_path / where, tmp_path / "spare")
        quick(f"resume={where}", *words, *chosen("Recorder", told))
        last = [call for call in heard(told)[[c[0] for c in heard(told)[::-1]].index("begin") * -1 - 1 :]]
        assert last[0][1]["id"] != first and last[0][1]["resumed"] is False, name
        assert [c[1] for c in last if c[0] == "figures" and "D" in c[2]] == [1, 2, 3, 4, 5, 6], name
        shutil.rmtree(tmp_path / where), (tmp_path / "spare").rename(tmp_path / where)


# -- strangers --------------------------------------------------------------------------------------------------------


def test_a_run_does_not_keep_its_tracker(tmp_path, quick):
    """Nor what stands in its address: a directory is handed on."""
    train(tmp_path / "run", *chosen("Recorder", tmp_path / "http_me_secret_host"))
    kept = (tmp_path / "run" / "config.yaml").read_text()
    assert yaml.safe_load(kept)["tracker"] == {} and "secret" not in kept
    assert not any(b"secret" in file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file())


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "tests.support.trackers.Recorder", "file": "mark"},
        {"_target_": "se_framework.config.trackers.WandB", "project": "x", "mode": "online"},
        {"_target_": "se_framework.config.trackers.MLflow", "uri": "http://127.0.0.1:9"},
    ],
)
def test_a_strangers_run_does_not_say_who_is_told(tmp_path, quick, monkeypatch, node):
    """Not even with trust in its code: who follows a run is typed by who runs it."""
    made = []
    monkeypatch.setattr("se_framework.config.trackers.base.required", lambda *_: made.append(1))
    train(tmp_path / "run", "loop.rounds=2", "loop.horizon=6")
    file = tmp_path / "run" / "config.yaml"

    def named():
        text = file.read_text()
        assert "tracker: {}" in text
        file.write_text(text.replace("tracker: {}", f"tracker: {json.dumps(node)}"))

    named()
    quick("resume=run", "loop.rounds=3", "trust=tests")
    named()  # again: the run that went on has written its own
    loaded = se.load(tmp_path / "run", trust="tests")
    loaded.config.loop.rounds = 4
    loaded.train(se.RunDirectory(tmp_path / "run"))
    assert loaded.state.round == 4 and not made and not (tmp_path / "mark").exists()
    assert not (tmp_path / "run" / "tracker.json").exists()


RECORDS = {
    "empty": "", "no JSON": "{", "a list": "[]", "nothing": "{}", "deep": "[" * 5000,
    "text for a round": '{"nonce": "%s", "id": "%s", "heard": {"rows": "6"}}',
    "negative": '{"nonce": "%s", "id": "%s", "heard": {"rows": -1}}',
    "id of another": '{"nonce": "%s", "id": "0123456789abcdef", "heard": {"rows": 6}}',
    "nonce of another": '{"nonce": "0123", "id": "%s", "heard": {"rows": 6}}',
    "a link out": None,
}  # fmt: skip


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_that_is_not_ours_says_nothing(tmp_path, quick, kind):
    told, run, text = tmp_path / "told", tmp_path / "run", RECORDS[kind]
    train(run, *chosen("Recorder", tmp_path / "before"), "loop.rounds=2", "loop.horizon=6")
    own, file = json.loads((run / "tracker.json").read_text()), run / "tracker.json"
    if text is None:
        file.rename(run / "checkpoints" / "moved.json"), file.symlink_to("checkpoints/moved.json")
    else:
        file.write_text(text % tuple([own["nonce"], own["id"]][kind.startswith("nonce") :][: text.count("%s")]))
    quick("resume=run", "loop.rounds=3", *chosen("Recorder", told))
    ((_, begun),) = heard(told, "begin")
    assert begun["id"] != own["id"] and begun["resumed"] is False and rounds(told) == [1, 2, 3]


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tracker=tensorbord"], "tracker=tensorbord: no such choice; did you mean 'tensorboard'"),
        (["tracker=wandb", "tracker.projct=x"], "unknown key 'tracker.projct': did you mean 'tracker.project'"),
        (["tracker=wandb", "+tracker.projct=x"], "unknown key 'tracker.projct': did you mean 'project'"),
        (["tracker=wandb", "tracker.mode=onlin"], "tracker.mode must be one of 'offline', 'online', got 'onlin'"),
        (["tracker=mlflow", "tracker.uri=3"], "tracker.uri must be a text or null, got 3"),
        (["+tracker._target_=models.Affine"], "tracker._target_ must be a Tracker, got an Affine"),
        (["+tracker.project=x"], "tracker must be a choice of its group or a mapping with _target_"),
        (["stages=[{rounds: 2, tracker: wandb}]"], "a tracker follows the whole run: choose it outside of stages"),
    ],
)
def test_what_is_mistyped_is_refused_before_anything_is_written(tmp_path, quick, capsys, words, message):
    with pytest.raises(SystemExit):
        quick("experiment=mle_flow", "data=ring8", "device=cpu", "hydra.run.dir=run", *words)
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
@pytest.mark.parametrize("folder", [False, True])
def test_a_missing_library_is_named_with_its_extra(tmp_path, quick, capsys, monkeypatch, name, folder):
    """A folder of its name, such as the library leaves where it works, is taken for none."""
    monkeypatch.setattr(sys, "path", [p for p in sys.path if "site-packages" not in p])
    monkeypatch.delitem(sys.modules, name, raising=False)
    if folder:
        (tmp_path / name).mkdir()
    with pytest.raises(SystemExit):
        quick("experiment=mle_flow", *FLOW, "hydra.run.dir=run", f"tracker={name}")
    said = capsys.readouterr().err.strip().splitlines()
    wanted = f"se-train: tracker={name} needs the package {name} (No module named '{name}'): pip install"
    assert said == [f"{wanted} 'se-framework[{name}]'"] and not (tmp_path / "run").exists()


def test_a_run_without_a_directory_is_not_followed(tmp_path):
    with pytest.raises(ConfigError, match="tracker: a run without a directory is not followed: give one"):
        se.compose("mle_flow", [*FLOW, *chosen("Recorder", tmp_path / "told")]).train()
    assert not (tmp_path / "told").exists()


def test_a_folder_that_leads_out_of_the_run_is_not_written_to(tmp_path):
    from se_framework.config.trackers import Tracked
    from se_framework.errors import RunDirectoryError

    run = Tracked("0", "a/run", None, tmp_path / "run", {"a": None, "b": [1], "c": True}, False)
    (tmp_path / "elsewhere").mkdir(), (tmp_path / "run").mkdir()
    folder = run.folder("store")
    (folder / "inner").mkdir()
    (folder / "inner" / "fine").symlink_to("../inner")
    assert run.folder("store") == folder and run.simple() == {"a": "None", "b": "[1]", "c": True}
    for target in (tmp_path / "elsewhere", "../../../elsewhere"):
        (folder / "inner" / "bad").symlink_to(target)
        with pytest.raises(RunDirectoryError, match="leads out of"):
            run.folder("store")
        assert run.folder("store", written_into=False) == folder
        (folder / "inner" / "bad").unlink()
    (tmp_path / "run" / "other").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunDirectoryError, match="is a symbolic link"):
        run.folder("other")
