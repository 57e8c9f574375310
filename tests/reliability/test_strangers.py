"""A run directory, a checkpoint or a data file of a stranger runs nothing: every attack proves its payload dormant.

The payloads leave a mark, a file or an imported module. Each that can fire does so in
:func:`test_the_payloads_are_live`, where the same configuration is built as the user's own: so the tests that find no
mark can fail. Whatever is refused is one sentence that names the key or the file.
"""

import contextlib
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf

import models
import se_framework as se
from divergences import FDivergence, Jeffreys
from se_framework.__main__ import main
from se_framework.assembly import assembly_of
from se_framework.commands import evaluate, export, sample, train
from se_framework.config.composing import compose
from se_framework.config.files import LARGEST
from se_framework.config.saved import saved_config
from se_framework.config.trust import Trust, packages, strings
from se_framework.data import ImageFolder
from se_framework.errors import ConfigError, DataError, RunDirectoryError, SEError
from se_framework.pictures.frames import animate
from se_framework.pictures.plots import curves
from se_framework.runs.directory import RunDirectory
from tests.support.runs import unscored

ROOT = Path(__file__).parents[2]
OURS = ("se_framework", "models", "divergences")
SHORT = ["loop.rounds=1", "loop.batch_size=8", "loop.log_every=1", "progress=false", "device=cpu"]
GAME = ["experiment=vanilla_gan", "metric=mlp_r1", "model.width=4", "metric.network.width=4", *SHORT]

# What lies in the stranger's folder, where the user stands: every module marks that it was imported.
LEAVES_A_MARK = "from pathlib import Path\nPath(__file__).with_name(f'mark_{__name__}').touch()\n"
MODULE = f"""
{LEAVES_A_MARK}
import os
from torch import nn, Tensor
from torch.hub import load
from models import Affine
from divergences import Jeffreys

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        Path(os.environ['MARK']).touch()

class Named(Net):
    __module__ = "models"

class Mine(Jeffreys):
    pass

def net():
    return Net()

def h(u: Tensor) -> Tensor:
    return (u - 1).square()
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the directory of a run of ours, with a penalty, a view and a summand: a node for every part there is."""
    where = tmp_path_factory.mktemp("honest") / "run"
    overrides = [*GAME, "divergence@players.theta.view=kl", "+divergence@plus.other.divergence=kl",
                 "+auxiliary@plus.other.auxiliary=dual", "+metric@plus.other.metric=mlp_r1",
                 "plus.other.metric.network.width=4"]  # fmt: skip
    return unscored(where, overrides)


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """Stand in a stranger's folder, as a notebook does: the working directory is on the path."""
    for name in ("evil", "hubconf", "models_evil", "torch_evil", "pykeops", "onnxscript", "tensorboard"):
        (tmp_path / f"{name}.py").write_text(MODULE)
        monkeypatch.delitem(sys.modules, name, raising=False)  # another test may have imported the true one
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins" / "evil_plugin.py").write_text(LEAVES_A_MARK)
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    torch.save([Bomb(tmp_path / "mark_unpickled")], tmp_path / "bomb.pt")
    np.save(tmp_path / "bomb.npy", np.array([Bomb(tmp_path / "mark_unpickled")], dtype=object), allow_pickle=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setattr(torch.hub, "trust_repo", True, raising=False)
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.split(".")[0] not in OURS:
            del sys.modules[name]


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (Path(self.mark),))


def marks(folder):
    """Return what payloads left."""
    return sorted(p.name for p in folder.rglob("mark*"))


def with_nodes(run, where, nodes):
    """Copy a run with other nodes in its configuration: dotted key to node."""
    copy = where / "theirs"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy)
    config = yaml.safe_load((run / "config.yaml").read_text())
    for key, node in nodes.items():
        *parents, leaf = key.split(".")
        place = config
        for name in parents:
            place = place[name]
        place[leaf] = node
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    return copy


def refused(call, folder, *words, error=SEError):
    """Check that a call is refused in one sentence, leaves no mark, and imports nothing from the stranger's folder."""
    before = set(sys.modules)
    with pytest.raises(error) as caught:
        call()
    files = [str(getattr(sys.modules[name], "__file__", "")) for name in set(sys.modules) - before]
    assert not [file for file in files if str(folder) in file] and not marks(folder)
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()
    for word in words:
        assert word in str(caught.value), (word, str(caught.value))


def payload(path, folder):
    """Return a node with arguments under which its target would act."""
    mark = str(folder / "mark")
    arguments = {
        "os.system": {"command": f"touch {mark}"},
        "subprocess.Popen": {"args": ["touch", mark]},
        "importlib.import_module": {"name": "evil"},
        "se_framework.config.build.importlib.import_module": {"name": "evil"},
        "runpy.run_path": {"path_name": "evil.py"},
        "numpy.load": {"file": "bomb.npy", "allow_pickle": True},
        "se_framework.config.build.find": {"path": "evil.h", "key": "k"},
    }
    if path.endswith("hub.load"):
        return {"_target_": path, "repo_or_dir": str(folder), "model": "net", "source": "local"}
    if path.endswith("torch.load"):
        return {"_target_": path, "f": "bomb.pt", "weights_only": False}
    return {"_target_": path} | arguments.get(path, {})


LIVE = (
    "os.system", "importlib.import_module", "runpy.run_path", "numpy.load", "torch.hub.load",
    "torch.load", "divergences.base.torch.hub.load", "se_framework.data.base.torch.load",
    "se_framework.config.build.importlib.import_module", "se_framework.config.build.find",
    "evil.Net", "evil.net", "evil.Mine", "hubconf.net", "models_evil.Net", "torch_evil.Net",
    "evil.load", "tensorboard.Net",
)  # fmt: skip
"""Targets that act when they are built freely."""
DORMANT = (
    "subprocess.Popen", "models.Monkey",  # classes that are no divergence are not called, whoever names them
    "divergences.X.torch.hub.load", "builtins.eval", "builtins.exec", "ctypes.CDLL", "pickle.loads", "torch.jit.load",
    "torch.nn.functional.relu", "torch.nn", "torch.nn.Module.load_state_dict", "torch.optim.lr_scheduler",
    "torch.utils.tensorboard.SummaryWriter", "torch.onnx", "torch.serialization.load", "hydra.utils.instantiate",
    "omegaconf.OmegaConf.load", "se_framework.runs.directory.RunDirectory", "se_framework.training.loop.train",
    "se_framework.Dual.solve", "se_framework.equation.equation.StandardEquation", "models.laws.Particles", "models",
    "divergences.generators.torch", "se_framework.__main__.main", "models.base.nn.Linear", "evil", "a..b", "",
    "__main__.x",
)  # fmt: skip
"""Targets that would not act with the arguments of a file, or would do something else; refused all the same."""


@pytest.fixture
def monkey(monkeypatch):
    """Put a user's class that says it is ours, and is no attribute of the module it names, within reach."""

    class Monkey(models.Affine):
        def __init__(self, event_shape: tuple[int, ...] = (2,)):
            super().__init__(event_shape)
            Path(os.environ["MARK"]).touch()

    Monkey.__module__, Monkey.__qualname__ = "models", "Law"
    monkeypatch.setattr(models, "Monkey", Monkey, raising=False)


@pytest.mark.parametrize("path", LIVE)
def test_the_payloads_are_live(path, run, stranger, monkey):
    """The same nodes in a configuration of the user's own act: what the next test does not find could be there."""
    if path.endswith("hub.load"):
        torch.hub.load(str(stranger), "net", source="local")  # asks nothing of local folders
        assert marks(stranger)
    config = OmegaConf.load(with_nodes(run, stranger, {"divergence": payload(path, stranger)}) / "config.yaml")
    with contextlib.suppress(Exception):  # what the payload returns is no divergence
        assembly_of(config)
    assert marks(stranger)


@pytest.mark.parametrize("path", [*LIVE, *DORMANT])
def test_a_target_that_is_no_part_of_ours_is_refused(path, run, stranger, monkey):
    theirs = with_nodes(run, stranger, {"divergence": payload(path, stranger)})
    refused(lambda: se.load(theirs), stranger, "divergence._target_", repr(path), error=ConfigError)


SLOTS = (
    "model", "divergence", "auxiliary", "data", "optimizer", "metric", "metric.network", "metric.penalty",
    "players.theta.view", "players.phi.view", "plus.other.divergence", "plus.other.auxiliary", "plus.other.metric",
    "plus.other.metric.network", "plus.other.metric.penalty", "model.width", "data.noise", "divergence.h",
    "optimizer.lr", "plus.more.divergence",
)  # fmt: skip


@pytest.mark.soak
@pytest.mark.parametrize("slot", SLOTS)
def test_no_place_in_the_configuration_is_forgotten(slot, run, stranger, soak):
    """``make soak``: every place with every path; ``make test``: they take turns, as one function locates them all."""
    paths = ("os.system", "evil.Net", "divergences.base.torch.hub.load")
    for path in paths if soak else [paths[SLOTS.index(slot) % 3]]:
        refused_there(slot, path, run, stranger)


def refused_there(slot, path, run, stranger):
    """Put a payload into a place and see it refused."""
    nodes = {slot: payload(path, stranger)}
    if slot.startswith("plus.more"):
        nodes = {"plus.more": {"divergence": payload(path, stranger)}}
    if slot == "divergence.h":
        nodes = {"divergence": {"_target_": "divergences.FDivergence", "h": payload(path, stranger)}}
    by_name = slot not in ("model.width", "data.noise", "optimizer.lr")  # their constructors take no object there
    words = [f"{slot}._target_: the run directory names"] * by_name
    refused(lambda: se.load(with_nodes(run, stranger, nodes)), stranger, *words)


@pytest.mark.parametrize(
    "h",
    [
        "evil.h",
        "os.system",
        "torch.hub.load",
        "torch.square",
        "divergences.limits.limit_at_zero",
        "evil",
    ],
)
@pytest.mark.parametrize("slot", ["divergence", "plus.other.divergence", "players.phi.view"])
def test_a_function_by_name_is_refused(h, slot, run, stranger):
    """A parameter annotated Callable takes a dotted path: another way from a text to an object."""
    theirs = with_nodes(run, stranger, {slot: {"_target_": "divergences.FDivergence", "h": h}})
    refused(lambda: se.load(theirs), stranger, f"{slot}.h", repr(h), error=ConfigError)


@pytest.mark.parametrize("extra", ["_partial_", "_args_", "_convert_", "_recursive_"])
def test_hydras_own_keys_mean_nothing(extra, run, stranger):
    node = {"_target_": "models.MLPGenerator", extra: [{"_target_": "os.system", "command": "touch mark"}]}
    refused(lambda: se.load(with_nodes(run, stranger, {"model": node})), stranger, f"model.{extra}")


def test_the_refusal_says_what_to_do(run, stranger):
    cases = {
        "evil.Net": "'evil' is neither ours nor torch: it was not imported; if you know the code of evil and trust it, "
        "add trust=evil",
        "os.system": "nothing permits this: do not use this run directory",
        "torch.hub.load": "is the function load of torch.hub and not a model, critic, divergence,",
        "se_framework.runs.directory.RunDirectory": "is the class RunDirectory of se_framework.runs.directory and not a",  # noqa: E501
        "torch.nn": "is the module torch.nn and not a model",
    }
    for path, words in cases.items():
        refused(lambda p=path: se.load(with_nodes(run, stranger, {"model": payload(p, stranger)})), stranger, words)


# -- what is ours, torch's or trusted is taken ------------------------------------------------------------------------


def test_every_shipped_target_is_accepted():
    found = [
        line.partition("_target_:")[2].partition("#")[0].strip(" }\n").split(",")[0].strip(' "')
        for file in (ROOT / "configs").rglob("*.yaml")
        for line in file.read_text().splitlines()
        if "_target_:" in line and file.parent.name != "tracker"
    ]  # a key of the call: no run keeps it
    assert len(found) > 60
    for path in (
        *found,
        "torch.nn.Linear",
        "torch.optim.lr_scheduler.StepLR",
        "se_framework.Dual",
        "models.base.Model",
    ):
        assert isinstance(Trust().locate(path, "key"), type)


def test_trust_widens_what_a_run_may_name(run, stranger):
    theirs = with_nodes(run, stranger, {"divergence": {"_target_": "evil.Mine"}})
    assert isinstance(se.load(theirs, trust="evil").state.equation.divergence, Jeffreys)
    theirs = with_nodes(run, stranger, {"divergence": {"_target_": "divergences.FDivergence", "h": "evil.h"}})
    assert isinstance(se.load(theirs, trust=("other", "evil")).state.equation.divergence, FDivergence)
    for mark in stranger.rglob("mark*"):
        mark.unlink()
    # A trusted package answers for what it defines, not for what it imported.
    for path, words in (("evil.load", "is the function load of torch.hub"), ("evil.os.system", "of posix"),
                        ("evil.os", "is the module os")):  # fmt: skip
        node = payload("torch.hub.load", stranger) | {"_target_": path}
        refused(lambda n=node: se.load(with_nodes(run, stranger, {"model": n}), trust="evil"), stranger, words)


def test_a_run_grants_itself_nothing(run, stranger):
    theirs = with_nodes(run, stranger, {"trust": ["evil"], "divergence": {"_target_": "evil.Mine"}})
    refused(lambda: se.load(theirs), stranger, "divergence._target_", "add trust=evil")
    assert saved_config(RunDirectory(theirs)).trust == []
    overrides = ["resume=theirs"]
    refused(lambda: train.train_run(compose(None, overrides), theirs, overrides), stranger, "add trust=evil")


@pytest.mark.parametrize("name", ["a.b", "os", "builtins", "torch", "models", "", "1", "[os,evil]", 7])
def test_what_cannot_be_trusted(name):
    with pytest.raises(ConfigError, match="^trust"):
        packages([name] if isinstance(name, int) else name or [""])


def test_trust_as_it_is_typed():
    for typed in ("a,b", "[a,b]", "[a, b]", ["a", "b"], ("a", "b"), OmegaConf.create(["a", "b"])):
        assert packages(typed) == ("a", "b")
    assert packages(None) == packages([]) == ()
    for override in ("trust=a", "trust=[a]"):
        assert packages(compose(None, [override]).trust) == ("a",)


def test_what_the_user_composes_is_the_users_own(run, stranger):
    own = strings(OmegaConf.create({"divergence": {"_target_": "evil.Mine", "h": [1]}, "plus": None}))
    assert own == {("divergence._target_", "evil.Mine")}
    assert Trust(own=own).locate("evil.Mine", "divergence._target_").__name__ == "Mine"
    with pytest.raises(ConfigError, match="model._target_: .*'evil.Mine'"):
        Trust(own=own).locate("evil.Mine", "model._target_")


# -- the commands -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [sample, evaluate, export], ids=["se-sample", "se-eval", "se-export"])
def test_the_commands_refuse_and_permit(command, run, stranger, monkeypatch, capsys):
    theirs = with_nodes(run, stranger, {"divergence": {"_target_": "evil.Mine"}})
    monkeypatch.setattr(sys, "argv", ["x", str(theirs)])
    with pytest.raises(SystemExit) as left:
        command.main()
    said = capsys.readouterr().err
    assert left.value.code == 1 and said.count("\n") == 1 and "add trust=evil" in said
    assert not marks(stranger) and "" not in sys.path and str(stranger) not in sys.path
    monkeypatch.setattr(sys, "argv", ["x", str(theirs), *(["n=50"] if command is not export else []), "trust=evil"])
    command.main()
    assert "mark_evil" in marks(stranger)


def process(arguments, folder, module="se_framework"):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MARK": str(folder / "mark")}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_a_strangers_folder_is_no_place_to_import_from(tmp_path_factory, stranger, monkeypatch):
    """Packages that others look for (geomloss for pykeops), Hydra's plug-ins: none is taken from here."""
    overrides = ["experiment=gmmn", "data=ring8", "model.width=4", "divergence=sinkhorn", *SHORT]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with monkeypatch.context() as patch:
        patch.chdir(elsewhere)
        patch.setattr(train, "finish", lambda *_: 0.0)
        train.train_run(compose(None, overrides), elsewhere / "run", overrides)
    shutil.copytree(elsewhere / "run", stranger / "theirs")
    done = process(["theirs", "n=50"], stranger, "se_framework.commands.evaluate")
    assert done.returncode == 0 and "held_out_value" in done.stdout, done.stderr  # geomloss was asked
    assert not marks(stranger)


def test_se_train_keeps_the_working_directory_for_the_users_own_modules(run, stranger, monkeypatch):
    shutil.copytree(run, stranger / "theirs")
    monkeypatch.setattr(train, "train_run", lambda *_: train.Outcome("dry run", None, stranger))
    for arguments, wanted in (([], True), (["resume=theirs"], False), (["resume=theirs", "trust=evil"], True)):
        monkeypatch.setattr(sys, "argv", ["se-train", *arguments])
        monkeypatch.setattr(sys, "path", list(sys.path))
        main()
        assert "" not in sys.path and (str(stranger) in sys.path) is wanted


def test_se_train_resumes_a_strangers_run_only_with_trust(run, stranger, monkeypatch):
    theirs = with_nodes(run, stranger, {"divergence": {"_target_": "evil.Mine"}, "trust": ["evil"]})
    done = process(["resume=theirs", "loop.rounds=2"], stranger)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "add trust=evil" in done.stderr, done.stderr
    assert not marks(stranger)
    done = process(["resume=theirs", "trust=evil", "dry_run=true"], stranger)
    assert done.returncode == 0 and "Mine" in done.stdout, done.stderr
    assert marks(stranger) == ["mark_evil"]  # of all that lies there

    monkeypatch.setattr(train, "finish", lambda *_: 0.0)
    overrides = ["resume=theirs", "loop.rounds=2", "trust=evil"]
    train.train_run(compose(None, overrides), theirs, overrides)
    kept = yaml.safe_load((theirs / "config.yaml").read_text())
    assert kept["trust"] == [] and kept["loop"]["rounds"] == 2


# -- the configuration as a file --------------------------------------------------------------------------------------

BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(4)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: !!python/object/apply:os.system ['touch mark']\n", "holds the YAML tag"),
        ("model: !!python/name:os.system\n", "holds the YAML tag"),
        ("device: ${oc.env:HOME}\n", "line 1, holds an interpolation"),
        ("data: {path: '${mark:x}'}\n", "holds an interpolation"),
        ("${mark:x}: 1\n", "holds an interpolation"),
        (BOMB, "line 1, holds a YAML reference"),
        ("model: " + "[" * 200 + "]" * 200, "nested deeper than"),
        ("x" * (LARGEST + 1), f"more than the {LARGEST}"),
        ("- 1\n", "must hold KEY: VALUE pairs"),
        ("7\n", "must hold KEY: VALUE pairs"),
        ("", "is empty"),
        ("a: [\n", "is not YAML"),
        (b"\xff\xfe\x00", "is not text in UTF-8"),
        ("seed: " + "9" * 5000, "is not YAML that we read"),
        ("equation: {}\n", "has no value"),
        ("mischief: 1\n", "unknown key 'mischief'"),
        ("seed: x\n", "seed must be a whole number"),
    ],
)
def test_a_configuration_that_is_more_than_data(text, words, tmp_path, monkeypatch):
    called = []
    OmegaConf.register_new_resolver("mark", lambda x: called.append(x), replace=True)
    file = tmp_path / "config.yaml"
    file.write_bytes(text) if isinstance(text, bytes) else file.write_text(text)
    tracemalloc.start()
    try:
        refused(lambda: se.load(tmp_path), tmp_path, words)
        # Parsed YAML takes some hundred bytes a character; the alias bomb, 100,000 nodes, takes 1e8.
        assert tracemalloc.get_traced_memory()[1] < 2e7
    finally:
        tracemalloc.stop()
        OmegaConf.clear_resolver("mark")
    assert not called


def test_what_the_user_interpolates_is_kept_as_its_value(tmp_path, monkeypatch):
    monkeypatch.setenv("SCORE", "w2")
    monkeypatch.setattr(train, "finish", lambda *_: 0.0)
    overrides = [*GAME, "model.width=${metric.network.width}", "score=${oc.env:SCORE}", "trust=mine"]
    train.train_run(compose(None, overrides), tmp_path / "run", overrides)
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (
        kept["model"]["width"] == kept["metric"]["network"]["width"] == 4
        and kept["score"] == "w2"
        and kept["trust"] == []
    )
    se.load(tmp_path / "run")


@pytest.mark.parametrize("what", ["config.yaml", "checkpoints", "checkpoints/last.pt", ".eval.json.1.tmp", "frames"])
def test_links_lead_nowhere(what, run, tmp_path):
    """A run directory is written and tidied, and through a link somebody else's files would be."""
    theirs, outside = tmp_path / "theirs", tmp_path / "outside"
    shutil.copytree(run, theirs)
    outside.mkdir()
    target = outside / "target"
    if (theirs / what).exists():
        shutil.move(theirs / what, target)
    (theirs / what).symlink_to(target)
    refused(lambda: se.load(theirs), tmp_path, str(theirs / what), "symbolic link out of the run directory",
            error=RunDirectoryError)  # fmt: skip


def test_links_that_stay_and_a_linked_run_are_fine(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "config.yaml").rename(tmp_path / "run" / "real.yaml")
    (tmp_path / "run" / "config.yaml").symlink_to("real.yaml")
    (tmp_path / "alias").symlink_to(tmp_path / "run")
    assert se.load(tmp_path / "alias").state.round == 1


# -- pictures ---------------------------------------------------------------------------------------------------------


def test_an_image_folder_decodes_images_only(tmp_path):
    from PIL import Image

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    huge = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 1, 0, 0, 0, 0))
        + chunk(b"IEND", b"")
    )
    mark = tmp_path / "mark"
    postscript = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({mark}) (w) file closefile\nshowpage\n".encode()
    bad = {
        "huge.png": huge,
        "post.png": postscript,
        "pickle.png": pickle.dumps(Bomb(mark)),
        "torch.jpg": pickle.dumps(Bomb(mark)),
    }
    for name, content in bad.items():
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        for i in range(5):
            Image.new("L", (4, 4), 9 * i).save(folder / f"z{i}.png")
        (folder / name).write_bytes(content)
        tracemalloc.start()
        words = "pixels that are read" if name == "huge.png" else "cannot be read as an image"
        refused(lambda f=folder: ImageFolder(f, size=4), tmp_path, name, words, error=DataError)
        assert tracemalloc.get_traced_memory()[1] < 2e7
        tracemalloc.stop()
        (folder / name).unlink()
        (folder / name).symlink_to("/etc/passwd")
        with pytest.warns(UserWarning, match="1 symbolic links in .* are not read"):
            assert len(ImageFolder(folder, size=4).pixels) == 5


@pytest.mark.parametrize("what", ["post", "pickle", "large"])
def test_frames_of_a_stranger_are_pictures_or_refused(what, tmp_path):
    from PIL import Image

    frames = tmp_path / "frames"
    frames.mkdir()
    if what == "large":
        Image.new("1", (4096, 1025)).save(frames / "1.png")
    else:
        content = (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
            if what == "post"
            else pickle.dumps(Bomb(tmp_path / "mark"))
        )
        (frames / "1.png").write_bytes(content)
    refused(lambda: animate(frames, tmp_path / "frames.gif"), tmp_path, "1.png", "remove it", error=RunDirectoryError)


def test_a_matplotlibrc_does_not_start_latex(tmp_path, monkeypatch):
    import matplotlib

    asked = []
    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)
    monkeypatch.setattr("matplotlib.texmanager.TexManager._run_checked_subprocess", lambda *a, **k: asked.append(a))
    (tmp_path / "metrics.csv").write_text("round,D\n1,0.5\n2,0.25\n")
    curves(tmp_path / "metrics.csv", tmp_path / "curves.png", note="a note")
    assert (tmp_path / "curves.png").stat().st_size > 1000 and not asked
