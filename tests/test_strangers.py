"""What a stranger's run directory or data file may do: be read, or be refused in one sentence. Nothing of it runs."""

import io
import json
import os
import pickle
import struct
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors import safe_open

import se_framework as se
from se_framework import build as building
from se_framework.commands import train
from se_framework.commands.arguments import packages
from se_framework.commands.export import _export
from se_framework.composing import compose
from se_framework.data import ArrayData
from se_framework.errors import ConfigError, DataError, RunDirectoryError, SEError
from se_framework.run_directory import RunDirectory
from se_framework.trust import strangers

TINY = ["experiment=wgan_gp", "data=moons", "model.width=4", "metric.network.width=4", "loop.rounds=2",
        "loop.batch_size=8", "progress=false", "device=cpu"]  # fmt: skip

EVIL = """
from pathlib import Path
Path({sentinel!r}).write_text("imported")
import torch
from models import Affine
def run(*a, **k):
    Path({sentinel!r}).write_text("called")
class Net(torch.nn.Module):
    x = 1
    def __init__(self, *a, **k):
        Path({sentinel!r}).write_text("built")
class Disguised(Affine):
    pass
Disguised.__module__ = "models"
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of our own to be tampered with."""
    path = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "finish", lambda *a: 0.0)
        train.train_run(compose(None, TINY), path, TINY)
    return path


@pytest.fixture
def sentinel(tmp_path, monkeypatch):
    """Modules in the working directory that leave a trace when they are imported; the path of the trace."""
    trace = tmp_path / "trace"
    for name in ("evil", "hubconf", "torch_evil", "models_evil", "se_framework_evil"):
        (tmp_path / f"{name}.py").write_text(EVIL.format(sentinel=str(trace)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield trace
    for name in set(sys.modules) - before:
        if name.split(".")[0].endswith("evil") or name == "hubconf":
            del sys.modules[name]


def tampered(finished, folder, key, value):
    """Return a copy of the run whose configuration has another value."""
    import shutil

    shutil.copytree(finished, folder)
    config = OmegaConf.load(folder / "config.yaml")
    OmegaConf.update(config, key, value, merge=False, force_add=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
    return folder


NAMES = [
    "os.system", "subprocess.Popen", "builtins.eval", "builtins.exec", "importlib.import_module", "ctypes.CDLL",
    "torch.hub.load", "torch.load", "torch.jit.load", "torch.utils.cpp_extension.load_inline", "torch.compile",
    "divergences.generators.torch.hub.load", "se_framework.data.base.torch.load", "models.base.nn.init.normal_",
    "se_framework.run_directory.RunDirectory", "se_framework.commands.train.os.system", "se_framework.files.os.replace",
    "se_framework.composing.compose", "se_framework.errors.SEError", "divergences.base.abstractmethod",
    "torch.nn.functional.relu", "torch.Tensor", "torch.package.PackageImporter", "torch.utils.data.DataLoader",
    "evil.run", "evil.Net", "torch_evil.Net", "models_evil.Net", "se_framework_evil.run", "hubconf.run",
]  # fmt: skip
PLACES = [
    "model", "metric", "metric.network", "metric.penalty", "divergence", "auxiliary", "data", "optimizer",
    "players.theta.view", "plus.more.divergence",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_no_part_of_the_equation_are_refused_and_not_called(name, finished, tmp_path, sentinel):
    run = tampered(finished, tmp_path / "run", "model", {"_target_": name, "command": f"touch {sentinel}"})
    with pytest.raises(ConfigError) as refused:
        se.load(run)
    said = str(refused.value)
    assert "\n" not in said and said.startswith("model._target_: ") and ("was not called" in said or "exist" in said)
    assert not sentinel.exists()
    assert not [module for module in sys.modules if "evil" in module or module == "hubconf"]


@pytest.mark.parametrize("place", PLACES)
def test_every_place_passes_the_gate(place, finished, tmp_path, sentinel):
    run = tampered(finished, tmp_path / "run", place, {"_target_": "evil.run"})
    with pytest.raises(ConfigError, match=rf"^{place}._target_: 'evil.run'.* trust=\[evil\]"):
        se.load(run)
    assert not sentinel.exists()


def test_functions_named_as_arguments_pass_the_gate(finished, tmp_path, sentinel):
    for name in ("os.system", "torch.hub.load", "evil.run", "divergences.generators.torch.load"):
        node = {"_target_": "divergences.FDivergence", "h": name}
        run = tampered(finished, tmp_path / f"run_{name}", "divergence", node)
        with pytest.raises(ConfigError, match=r"^divergence.h: .* was not called"):
            se.load(run)
    assert not sentinel.exists()


@pytest.mark.parametrize("extra", [{"_args_": ["touch x"]}, {"_partial_": True}, {"_convert_": "all"}])
def test_hydras_own_keys_mean_nothing(extra, finished, tmp_path, sentinel):
    run = tampered(finished, tmp_path / "run", "model", {"_target_": "models.Affine", **extra})
    with pytest.raises(ConfigError, match="unknown key 'model._"):
        se.load(run)


def test_what_a_user_trusts_is_built_and_nothing_else(finished, tmp_path, sentinel):
    run = tampered(finished, tmp_path / "run", "metric.network", {"_target_": "evil.Net"})
    with strangers(["evil"]):
        building.build({"_target_": "evil.Net"}, "metric.network")
    assert sentinel.read_text() == "built"
    for path in ("evil.torch.hub.load", "evil.Path", "torch_evil.Net", "os.system"):
        with pytest.raises(ConfigError, match="was not called"), strangers(["evil"]):
            building.locate(path, "key")
    with pytest.raises(ConfigError, match=r"trust=\[other,evil\]"):
        se.load(run, trust=["other"])


def test_a_class_that_lies_about_its_module_is_refused(sentinel):
    import evil

    evil_class = evil.Disguised
    assert evil_class.__module__ == "models"
    import models

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "Smuggled", evil_class, raising=False)
        with pytest.raises(ConfigError, match="was not called"), strangers():
            building.locate("models.Smuggled", "model._target_")


def test_a_run_grants_itself_nothing(finished, tmp_path, sentinel, monkeypatch):
    run = tampered(finished, tmp_path / "run", "metric.network", {"_target_": "evil.Net"})
    config = OmegaConf.load(run / "config.yaml")
    config.trust = ["evil"]
    (run / "config.yaml").write_text(OmegaConf.to_yaml(config))
    with pytest.raises(ConfigError, match="was not called"):
        se.load(run)
    typed = [f"resume={run}"]
    with pytest.raises(ConfigError, match="was not called"):
        train.train_run(compose(None, typed), run, typed)
    assert not sentinel.exists()
    typed += ["trust=[evil]"]
    with pytest.raises((SEError, AttributeError)) as failed:  # it is no critic
        train.train_run(compose(None, typed), run, typed)
    assert "was not called" not in str(failed.value) and sentinel.exists()
    assert OmegaConf.load(finished / "config.yaml").trust == []


def test_what_the_user_types_again_is_the_users_own(finished, tmp_path, sentinel):
    """The same key with the same name; the stranger's other names stay refused."""
    with strangers(typed={"divergence.h": "evil.run", "model._target_": "evil.Net"}):
        assert building.locate("evil.run", "divergence.h") and building.locate("evil.Net", "model._target_")
        for key in ("model._target_", "divergence.g"):
            with pytest.raises(ConfigError, match="was not called"):
                building.locate("evil.run", key)


def test_every_shipped_choice_passes_the_gate():
    """A run of ours needs no trust, whatever it chose."""
    from se_framework.composing import config_dir

    for file in config_dir().rglob("*.yaml"):
        nodes = [OmegaConf.to_container(OmegaConf.load(file), resolve=False)]
        while nodes:
            node = nodes.pop()
            if isinstance(node, dict):
                nodes += node.values()
                if "_target_" in node:
                    with strangers():
                        building.locate(node["_target_"], file.name)


@pytest.mark.parametrize(
    "text, message",
    [
        ("model: !!python/object/apply:os.system ['touch trace']", "cannot be read"),
        ("model: !!python/name:os.system ''", "cannot be read"),
        ("seed: ${oc.env:HOME}", "a run keeps no interpolations"),
        ("model: {_target_: models.Affine, x: '${oc.decode:1}'}", "a run keeps no interpolations"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "refers to parts of itself"),
        ("[" * 5000, "cannot be read"),
        ("x: " + "y" * 2**20, "too large"),
        ("- 1", "must be a mapping"),
        ("\x00\x01", "cannot be read"),
        ("evil: 1", "unknown key 'evil'"),
    ],
)
def test_configurations_that_are_none_of_ours(text, message, tmp_path, sentinel):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(text)
    with pytest.raises(SEError, match=message):
        se.load(run)
    assert not sentinel.exists()


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
    from se_framework.checkpoint import decode, encode

    run = tampered(finished, tmp_path / "run", "seed", 0)
    file = RunDirectory(run).checkpoints()[0]
    state = decode(file.read_bytes())
    weights = state["players"]["theta"]["module"]
    for spoil in (
        lambda: weights.update({next(iter(weights)): torch.zeros(99, 99)}),
        lambda: state["players"].update(theta=3),
        lambda: state.update(players=[]),
    ):
        spoil()
        file.write_bytes(encode(state))
        with pytest.raises(RunDirectoryError, match="the checkpoint"):
            se.load(run)


def bombs():
    """Yield files that are small and claim, or unfold to, far more."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + b"\0" * 64
    yield "claims.npy", npy
    huge = b"{'descr': '<f8', 'fortran_order': False, 'shape': (4,), " + b" " * 2**22 + b"}\n"
    yield "header.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", len(huge)) + huge + b"\0" * 32
    for name, content in (("inner.npz", npy), ("zeros.npz", None)):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            if content is not None:
                archive.writestr("x.npy", content)
            else:
                with archive.open("x.npy", "w", force_zip64=True) as stream:
                    for _ in range(1100):
                        stream.write(b"\0" * 2**20)
        yield name, buffer.getvalue()
    buffer = io.BytesIO()
    torch.save(torch.zeros(1).expand(10**12), buffer)
    yield "strides.pt", buffer.getvalue()
    buffer = io.BytesIO()
    torch.save(torch.sparse_coo_tensor([[0], [0]], [1.0], (10**6, 10**6)), buffer)
    yield "sparse.pt", buffer.getvalue()
    inner = io.BytesIO()
    torch.save(torch.zeros(2**22), inner)
    buffer = io.BytesIO()
    with zipfile.ZipFile(inner) as plain, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in plain.infolist():
            archive.writestr(member.filename, plain.read(member))
    yield "deflated.pt", buffer.getvalue()


@pytest.mark.parametrize("name, content", list(bombs()), ids=lambda v: v if isinstance(v, str) else "")
def test_files_that_claim_more_than_they_hold(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
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
    monkeypatch.setattr(train, "score_row", lambda assembly: {"to_minimise": 0.0})
    try:
        train.train_run(compose(None, typed), run, typed)
    except RunDirectoryError as error:
        assert "cannot be written" in str(error)  # noqa: PT017
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
    assert packages("[a, b]") == packages("a,b") == ("a", "b")
