"""TensorBoard, Weights & Biases and MLflow, read back by readers that are not ours: what they hold are the tables.

Each is skipped where the library is absent. The run is the same for all: two calls, of which the second goes on.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import sqlite3
import struct
from collections import defaultdict

import numpy as np
import pytest
from PIL import Image

import se_framework as se
from se_framework.config.composing import compose as compose_config
from tests.support.trackers import FLOW

WORDS = [*FLOW, "loop.evaluate_every=2", "loop.picture_every=2", "loop.horizon=6"]


def draw(state, data, file):
    """Draw the round into a picture: a grey value."""
    file.parent.mkdir(exist_ok=True, parents=True)
    Image.new("RGB", (4, 6), (int(file.stem), 7, 9)).save(file)


@pytest.fixture
def tracked(monkeypatch, tmp_path):
    """Return a function that trains four rounds, goes on to six, and returns the directory of the run."""
    monkeypatch.setattr(
        "se_framework.evaluation.evaluate.score_row", lambda *_: {"w2": float("inf"), "to_minimise": 1.5}
    )
    monkeypatch.setattr("se_framework.assembly.frame", draw)
    monkeypatch.chdir(tmp_path)

    def train(*words):
        run = se.RunDirectory(tmp_path / "sweep of mine" / "3")
        run.make()
        (run.path / "result.json").write_text("{}")  # as that of a job of a sweep
        se.compose("mle_flow", [*WORDS, *words, "loop.rounds=4"]).train(run)
        going_on = se.load(run.path)
        going_on.config.loop.rounds, going_on.config.tracker = 6, compose_config("mle_flow", words).tracker
        going_on.train(run)
        return run.path

    return train


def tables(path):
    """Return the (round, value) pairs of every column of the tables, by the name that a tracker gives it."""
    found = defaultdict(list)
    for name, prefix, left_out in (("metrics", "", {"round", "note"}), ("scores", "scores/", {"round", "samples"})):
        with open(path / f"{name}.csv", newline="") as file:
            for row in csv.DictReader(file):
                for key, value in row.items():
                    if key not in left_out and value:
                        found[prefix + key].append((int(float(row["round"])), float(value)))
    return dict(found)


def closely(found, wanted, spacing):
    """Hold figures against those of the tables: float32 has 2^-24 of rounding, float64 is as written."""
    assert found.keys() == wanted.keys()
    for name, pairs in wanted.items():
        assert [t for t, _ in found[name]] == [t for t, _ in pairs], name
        np.testing.assert_allclose([v for _, v in found[name]], [v for _, v in pairs], rtol=spacing, err_msg=name)


def test_tensorboard(tracked, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

    path = tracked("tracker=tensorboard")
    read = EventAccumulator(str(path / "tensorboard"), {"scalars": 0, "images": 0, "tensors": 0}).Reload()
    found = {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    closely(found, tables(path), 2.0**-24)
    (images,) = [read.Images(tag) for tag in read.Tags()["images"]]
    shown = [np.asarray(Image.open(io.BytesIO(e.encoded_image_string)))[0, 0] for e in images]
    assert [e.step for e in images] == [0, 2, 4, 6] and [tuple(p) for p in shown] == [(t, 7, 9) for t in (0, 2, 4, 6)]
    status = [e.tensor_proto.string_val[0] for e in read.Tensors("status/text_summary")]
    assert status == [b"finished", b"finished"] and "config/text_summary" in read.Tags()["tensors"]
    told = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    settings = plugin_data_pb2.HParamsPluginData.FromString(told).session_start_info.hparams
    assert settings["loop.rounds"].number_value == 4 and settings["model._target_"].string_value.startswith("models.")
    ended = plugin_data_pb2.HParamsPluginData.FromString(
        read.SummaryMetadata("_hparams_/session_end_info").plugin_data.content
    )
    assert ended.session_end_info.status == api_pb2.STATUS_SUCCESS


def test_tensorboard_elsewhere_has_a_folder_for_each_run(tracked, tmp_path):
    pytest.importorskip("tensorboard")
    path = tracked("tracker=tensorboard", f"tracker.directory='{tmp_path / 'all'}'")
    (folder,) = (tmp_path / "all" / "sweep of mine").iterdir()
    assert folder.name.startswith("3-") and len(list(folder.iterdir())) == 2 and not (path / "tensorboard").exists()


def test_mlflow(tracked, tmp_path):
    """SQLite is read by Python's own reader."""
    pytest.importorskip("mlflow")
    path = tracked("tracker=mlflow", "tracker.project=mine")
    base = sqlite3.connect(path / "mlflow" / "mlflow.db")
    ((run, status, name),) = base.execute("select run_uuid, status, name from runs").fetchall()
    assert (status, name) == ("FINISHED", "sweep of mine/3")
    tags = dict(base.execute("select key, value from tags").fetchall())
    assert tags["group"] == f"{tmp_path.name}/sweep of mine" and len(tags["se_id"]) == 16
    assert ("mine",) in base.execute("select name from experiments").fetchall()
    found = defaultdict(list)
    for key, value, step in base.execute("select key, value, step from metrics order by key, step"):
        found[key].append((step, value))
    wanted = tables(path)
    assert {v for _, v in found["scores/w2"]} == {1.7976931348623157e308}, "MLflow's infinity"
    found["scores/w2"] = wanted["scores/w2"]
    closely(dict(found), wanted, 0)
    params = dict(base.execute("select key, value from params").fetchall())
    assert params["loop.rounds"] == "4" and params["seed"] == "0" and params["data._target_"].startswith("se_framework")
    kept = sorted((path / "mlflow" / "artifacts" / run / "artifacts" / "frames").iterdir())
    assert [f.name for f in kept] == [f"{t:08d}.png" for t in (0, 2, 4, 6)]
    assert not (tmp_path / "mlruns").exists() and not (path / "mlruns").exists()


def test_a_strangers_mlflow_store_does_not_say_where_pictures_go(tmp_path, tracked, capsys, monkeypatch):
    pytest.importorskip("mlflow")
    path = tracked("tracker=mlflow")
    shutil.rmtree(path / "frames")
    elsewhere = (tmp_path / "elsewhere").as_uri()
    with sqlite3.connect(path / "mlflow" / "mlflow.db") as base:
        base.execute("update runs set artifact_uri = ?", (f"{elsewhere}/x/artifacts",))
    going_on = se.load(path)
    going_on.config.loop.rounds, going_on.config.tracker = 8, compose_config(None, ["tracker=mlflow"]).tracker
    going_on.train(se.RunDirectory(path))
    assert going_on.state.round == 8 and not (tmp_path / "elsewhere").exists()
    assert "the tracker MLflow failed" in capsys.readouterr().err


def log_records(content):
    """Yield the records of a log in LevelDB's format, as W&B's files are: blocks of 32 KiB after seven bytes.

    A record, or a piece of one, is a checksum, a length, whether it is the whole (1), the first, a middle or the last
    piece (2, 3, 4), and its bytes; what is left of a block that has no room for another head is filled with zeros.
    """
    at, pieces = 7, b""
    assert content[:4] == b":W&B"
    while at < len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        pieces += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield pieces
            pieces = b""


def test_wandb(tracked, monkeypatch, tmp_path):
    """Offline: the log that ``wandb sync`` would send."""
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    path = tracked("tracker=wandb", "tracker.project=mine")
    found, settings, images, ends, ids = defaultdict(list), {}, [], [], set()
    for file in sorted(path.glob("wandb/offline-run-*/run-*.wandb")):
        for data in log_records(file.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                assert record.run.project == "mine" and record.run.run_group == f"{tmp_path.name}/sweep of mine"
                ids.add(record.run.run_id)
                settings |= {item.key: item.value_json for item in record.run.config.update}
            elif kind == "exit":
                ends.append(record.exit.exit_code)
            elif kind == "history":
                row = {(item.key or "/".join(item.nested_key)): item.value_json for item in record.history.item}
                step = int(float(row["_step"]))
                images += [step] if any(key.startswith("frames") for key in row) else []
                for key, value in row.items():
                    if not key.startswith(("_", "frames", "round")):
                        found[key].append((step, float(value.strip('"').replace("Infinity", "inf"))))
    closely(dict(found), tables(path), 0)
    assert images == [0, 2, 4, 6] and ends == [0, 0] and len(ids) == 1
    assert settings["seed"] == "0" and settings["model._target_"].startswith('"models.')


@pytest.mark.parametrize(("name", "made"), [("WANDB_ERROR_REPORTING", "WandB"), ("MLFLOW_DISABLE_TELEMETRY", "MLflow")])
def test_the_makers_are_told_nothing_unless_the_user_wants_it(name, made, monkeypatch):
    """Seen by the system calls of wandb 0.31: offline it asks for the address of its makers, and not with this."""
    from se_framework.config import trackers

    monkeypatch.setattr(f"se_framework.config.trackers.{made.lower()}.required", lambda *_: None)
    monkeypatch.setenv(name, "x")
    monkeypatch.delenv(name)  # put back at the end
    getattr(trackers, made)()
    assert os.environ[name] == {"WandB": "false", "MLflow": "true"}[made]
    monkeypatch.setenv(name, "own")
    getattr(trackers, made)()
    assert os.environ[name] == "own"


def test_wandb_takes_no_address_from_the_run_directory(tmp_path):
    pytest.importorskip("wandb")
    from se_framework.config.trackers import Tracked, WandB
    from se_framework.errors import RunDirectoryError

    for name in ("wandb", ".wandb"):
        run = Tracked("0" * 16, "a/b", None, tmp_path / name, {}, False)
        (run.directory / name).mkdir(parents=True)
        (run.directory / name / "settings").write_text("[default]\nbase_url = http://127.0.0.1:9\n")
        with pytest.raises(RunDirectoryError, match="would say where to send"):
            WandB().begin(run)
