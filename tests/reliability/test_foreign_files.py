"""Data files, checkpoints and links of a stranger: read, or refused in one sentence; nothing of them runs or grows."""

import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors import safe_open

import se_framework as se
from se_framework.commands import train
from se_framework.commands.export import _export
from se_framework.config.composing import compose
from se_framework.data import ArrayData
from se_framework.errors import DataError, RunDirectoryError, SEError
from se_framework.runs.directory import RunDirectory
from tests.support.runs import unscored

TINY = ["experiment=wgan_gp", "data=moons", "model.width=4", "metric.network.width=4", "loop.rounds=2",
        "loop.batch_size=8", "progress=false", "device=cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of our own to be tampered with."""
    return unscored(tmp_path_factory.mktemp("run") / "run", TINY)


@pytest.fixture
def sentinel(tmp_path, monkeypatch):
    """The trace that the payloads leave, in the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "trace"


def tampered(finished, folder, key, value):
    """Return a copy of the run whose configuration has another value."""
    import shutil

    shutil.copytree(finished, folder)
    config = OmegaConf.load(folder / "config.yaml")
    OmegaConf.update(config, key, value, merge=False, force_add=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
    return folder


class Payload:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch trace",)


def pickles():
    """Yield pickles in every wrapping torch and numpy know."""
    plain = pickle.dumps(Payload())
    yield "pickle", plain
    for name, zipped in (("torch", True), ("torch_legacy", False)):
        buffer = io.BytesIO()
        torch.save({"x": Payload()}, buffer, _use_new_zipfile_serialization=zipped)
        yield name, buffer.getvalue()
    buffer = io.BytesIO()
    np.save(buffer, np.array([Payload()], dtype=object), allow_pickle=True)
    yield "npy", buffer.getvalue()
    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([Payload()], dtype=object))
    yield "npz", buffer.getvalue()


@pytest.mark.parametrize("extension", ["npy", "npz", "pt", "csv", "pkl", "png", "safetensors"])
@pytest.mark.parametrize("kind, content", list(pickles()), ids=lambda v: v if isinstance(v, str) else "")
def test_pickles_under_every_extension_stay_closed(kind, content, extension, tmp_path, sentinel):
    (tmp_path / f"data.{extension}").write_bytes(content)
    with pytest.raises(DataError):
        ArrayData(tmp_path / f"data.{extension}")
    assert not sentinel.exists()


@pytest.mark.parametrize("kind, content", list(pickles()), ids=lambda v: v if isinstance(v, str) else "")
def test_a_pickle_in_the_place_of_a_checkpoint_stays_closed(kind, content, finished, tmp_path, sentinel):
    run = tampered(finished, tmp_path / "run", "seed", 0)
    for file in RunDirectory(run).checkpoints():
        file.write_bytes(content)
    with pytest.raises(RunDirectoryError, match="no checkpoint in .* can be read"):
        se.load(run)
    assert not sentinel.exists()


def test_a_checkpoint_that_does_not_fit_is_refused_in_words(finished, tmp_path):
    from se_framework.runs.checkpoint import decode, encode

    run = tampered(finished, tmp_path / "run", "seed", 0)
    file = RunDirectory(run).checkpoints()[0]
    state = decode(file.read_bytes())
    weights = state["equation"]
    for spoil in (
        lambda: weights.update({next(iter(weights)): torch.zeros(99, 99)}),
        lambda: state["players"].update(theta=3),
        lambda: state.update(players=[]),
    ):
        spoil()
        file.write_bytes(encode(state))
        with pytest.raises(RunDirectoryError, match="the checkpoint"):
            se.load(run)


def zipped(**members):
    """Return an archive of members, compressed where they are zeros without end."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            with archive.open(name.replace("_", "."), "w", force_zip64=True) as stream:
                for part in content:
                    stream.write(part)
    return buffer.getvalue()


def saved(tensor):
    """Return the bytes that torch saves."""
    buffer = io.BytesIO()
    torch.save(tensor, buffer)
    return buffer.getvalue()


def sparse():
    """Return a tensor whose dense form would take terabytes."""
    return torch.sparse_coo_tensor([[0], [0]], [1.0], (10**6, 10**6), check_invariants=True)


def pickled(content):
    """Return an archive as torch makes them around a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x/data.pkl", content)
        archive.writestr("x/version", b"3")
    return buffer.getvalue()


def deflated():
    """Return torch's archive with its members compressed."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved(torch.zeros(2**22)))) as plain,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for member in plain.infolist():
            archive.writestr(member.filename, plain.read(member))
    return buffer.getvalue()


CLAIM = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
NPY = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(CLAIM) + 1) + CLAIM + b"\n" + b"\0" * 64
LONG = b"{'descr': '<f8', 'fortran_order': False, 'shape': (4,), " + b" " * 2**22 + b"}\n"
BOMBS = {
    "claims.npy": lambda: NPY,
    "header.npy": lambda: b"\x93NUMPY\x02\x00" + struct.pack("<I", len(LONG)) + LONG + b"\0" * 32,
    "inner.npz": lambda: zipped(x_npy=[NPY]),
    "zeros.npz": lambda: zipped(x_npy=(b"\0" * 2**20 for _ in range(1100))),
    "strides.pt": lambda: saved(torch.zeros(1).expand(10**12)),
    "sparse.pt": lambda: saved(sparse()),
    "bytes.pt": lambda: pickled(b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR."),
    "large.pt": lambda: pickled(b"N" * 2**17 + b"."),
    "deflated.pt": deflated,
}
"""Files that are small and claim, or unfold to, far more."""


@pytest.mark.parametrize("name", BOMBS)
def test_files_that_claim_more_than_they_hold(name, tmp_path):
    (tmp_path / name).write_bytes(BOMBS[name]())
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as refused:
            ArrayData(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()
    assert name in str(refused.value) and "\n" not in str(refused.value)


def test_names_in_an_archive_lead_nowhere(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        buffer = io.BytesIO()
        np.save(buffer, np.arange(20.0).reshape(10, 2))
        archive.writestr("../../escaped.npy", buffer.getvalue())
    assert ArrayData(tmp_path / "a.npz", key="../../escaped").train_size == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz"]  # nothing is ever extracted


@pytest.mark.parametrize("name", ["metrics.csv", "scores.csv", ".lock"])
def test_links_in_a_run_directory_are_not_written_through(name, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "finish", lambda *a: 0.0)
    run = tampered(finished, tmp_path / "run", "seed", 0)
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(precious)
    typed = [f"resume={run}", "loop.rounds=4", "loop.log_every=1", "loop.evaluate_every=1"]
    monkeypatch.setattr("se_framework.evaluation.evaluate.score_row", lambda assembly, state: {"to_minimise": 0.0})
    try:
        train.train_run(compose(None, typed), run, typed)
    except RunDirectoryError as error:
        assert "is a symbolic link out of the run directory" in str(error)  # noqa: PT017
    assert precious.read_text() == "precious"


def test_exported_weights_are_safetensors_and_load_elsewhere(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _export([str(finished), "out=w.safetensors"])
    assert "tensors of round 2 in w.safetensors" in capsys.readouterr().out
    assembly = se.load(finished)
    with safe_open("w.safetensors", framework="pt") as file:
        names = set(file.keys())
        model = {n.removeprefix("model."): file.get_tensor(n) for n in names if n.startswith("model.")}
        metadata = file.metadata()
    assert all(torch.equal(model[n], t) for n, t in assembly.model.state_dict().items())
    assert {n.split(".")[0] for n in names} == {"model", "metric"}
    assert metadata["round"] == "2" and OmegaConf.create(metadata["config"]).model.width == 4
    assert json.loads(metadata["versions"])["torch"]
    for arguments, message in (
        ([str(finished), "out=w.pt"], "must end in .safetensors"),
        ([str(finished), "out=no/w.safetensors"], "the directory no does not exist"),
        ([str(finished), "output=x"], "unknown key 'output'"),
        ([str(Path("nowhere"))], "is not a run directory"),
    ):
        with pytest.raises(SEError, match=message):
            _export(arguments)
