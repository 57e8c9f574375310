"""Bad files of configurations: in a folder for ``--config-dir``, and in the directory of a run."""

from __future__ import annotations

import os
import shutil
import zlib

from hypothesis import strategies as st

from tests.support.bad_input import SHORT, Case

KL = "_target_: divergences.KL\n"
ALPHA = "_target_: divergences.Alpha\norder: "
HEAD = "# @package _global_\n"
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)
# What no reader of YAML should take for a mapping of names to values.
NO_MAPPING = [
    "\t_target_: x\n", "_target_: divergences.KL\n\torder: 1\n", "[1, 2]\n", "3\n", "text\n", "null\n", "- a\n- b\n",
    "\0\1\2", b"\xff\xfe\xfa", "_target_: '\u00e9'\n".encode("latin-1"), KL.encode("utf-16"),
    b"PK\x03\x04" + b"\0" * 50,
    "{" * 2000, "[" * 3000 + "]" * 3000, "a: " + "{a: " * 500 + "1" + "}" * 500, "- " * 3000, "a:\n" * 3 + " b",
    "&a [*a]\n", "a: &a {b: *a}\n", "a: *nope\n", BOMB, "!!python/object/apply:os.system ['true']\n", "!foo bar\n",
    "a: !!python/name:os.system\n", "--- 1\n--- 2\n", "a: 1\n--- \nb: 1\n", "%YAML 9.9\n---\na: 1\n", "? [a, b]\n: 1\n",
    "? {a: b}\n: 1\n", "null: 2\n", "~: 2\n", "<<: *x\n", "<<: 3\n", "a: 1\na: 2\n", KL + KL, "'a': 1\n\"a\": 2\n",
    "a: !!set {b}\n", "a: !!omap [b: 1]\n", "a: 'b\n",
    'a: "b\n', "a: {b\n", "a: [b\n", "a: b: c\n", "a: @b\n", "a: `b\n",
    "%\n", "a: |1\nb\n", "x" * 2**21, "#" * 2**21 + "\n",
]  # fmt: skip
# Mappings that are no choice of the group `divergence`.
NO_CHOICE = [
    "", "# only a comment\n", "---\n", "a: 1\n", "1: 2\n", "a b: 2\n", "a.b: 2\n", "_target_:\n", "_target_: 3\n",
    "_target_: [a]\n", "_target_: {a: b}\n", "_target_: nope.Nope\n", "_target_: divergences.Nope\n",
    "_target_: models\n",
    "_target_: models.MLPCritic\n", "_target_: ''\n", "_Target_: divergences.KL\n", f"# @package foo\n{KL}",
    f"# @package _global_\n{KL}", f"# @package a b c\n{KL}", f"# @package\n{KL}", f"# @package a.b\n{KL}",
    f"# @package loop\n{KL}", "defaults: 3\n", "defaults: [nope]\n", "defaults:\n - nope: x\n", "defaults:\n - mine\n",
    "defaults:\n - kl\n - nope\n", f"defaults:\n - override /model: nope\n{KL}",
    f"defaults:\n - override /nope: x\n{KL}",
    "defaults:\n - /divergence: mine\n", "defaults:\n - [a]\n", "defaults:\n - {a: b, c: d}\n", "defaults:\n - 3\n",
    "defaults: {a: b}\n", "defaults:\n - /model: [a, b]\n", "defaults:\n - {}\n", "defaults:\n - /model: 3\n",
    f"defaults:\n - _self_\n - _self_\n{KL}", "defaults:\n - null\n", "defaults: null\n", f"{KL}order: ${{nope}}\n",
    f"{KL}order: ${{\n", f"{KL}order: ???\n", f"{KL}bar: 3\n", f"{ALPHA}.nan\n", f"{ALPHA}2020-01-01\n", f"{ALPHA}x\n",
    f"{ALPHA}!!binary aGVsbG8=\n", f"{ALPHA}[1]\n", f"{ALPHA}{{a: 1}}\n", f"{ALPHA}\n", f"{ALPHA}???\n",
    f"{ALPHA}1:30\n",
    f"{ALPHA}${{oc.env:SE_NOT_SET}}\n", f"{ALPHA}${{order}}\n", f"{ALPHA}${{nope:1}}\n", f"{ALPHA}true\n",
    f"{ALPHA}''\n",
]  # fmt: skip
EXPERIMENTS = [
    KL, "defaults:\n  - fgan\n", f"{HEAD}foo: 1\n", f"{HEAD}loop: 3\n", f"{HEAD}loop: {{roundss: 3}}\n",
    f"{HEAD}seed: [1]\n",
    f"{HEAD}defaults:\n - override /model: nope\n", f"{HEAD}defaults:\n - model: affine\n", f"{HEAD}seed: ${{nope}}\n",
    f"{HEAD}defaults:\n - override model: affine\n", f"{HEAD}defaults:\n - /model: affine\n", f"{HEAD}players: [1]\n",
    f"{HEAD}defaults:\n - experiment: digits\n", f"{HEAD}defaults:\n - /experiment: mine\n", f"{HEAD}model: 3\n",
    f"{HEAD}hydra: 3\n", f"{HEAD}hydra: {{foo: 3}}\n", f"{HEAD}players: {{theta: {{ema: 2}}}}\n", f"{HEAD}plus: 3\n",
    f"{HEAD}divergence: kl\n", f"{HEAD}data: {{path: x.npy}}\n", f"{HEAD}seed: 1\nseed: 2\n",
    f"{HEAD}loop: {{decay: no}}\n",
    f"{HEAD}equation: {{alpha: -1}}\n", f"{HEAD}allow: lipschitz\n", f"{HEAD}\tseed: 3\n",
]  # fmt: skip


def folder(*files):
    """Return a function that writes files, by name, into the folder of the case."""

    def prepare(here, run):
        for name, content in files:
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            (here / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return prepare


def of_config_dir(files, *arguments, names=("mine",), prepare=None):
    """Return a case with a folder of configurations."""
    what = repr(files)[:200] + f" {zlib.crc32(repr(files).encode())}" if not prepare else prepare.__name__ + repr(files)
    return Case("config file", ("--config-dir", "{here}", *SHORT, *arguments), names, prepare or folder(*files), what)


def directory(here, run):
    (here / "divergence" / "mine.yaml").mkdir(parents=True)


def pipe(here, run):
    (here / "divergence").mkdir()
    os.mkfifo(here / "divergence" / "mine.yaml")


def dangling(here, run):
    (here / "divergence").mkdir()
    (here / "divergence" / "mine.yaml").symlink_to("nowhere")


def circle(here, run):
    (here / "divergence").mkdir()
    (here / "divergence" / "mine.yaml").symlink_to("mine.yaml")


def device(here, run):
    (here / "divergence").mkdir()
    (here / "divergence" / "mine.yaml").symlink_to("/dev/zero")


mine = "divergence/mine.yaml"
special = [of_config_dir([], "divergence=mine", prepare=p) for p in (directory, pipe, dangling, circle, device)]
special += [
    of_config_dir([(mine, "defaults:\n - other\n"), ("divergence/other.yaml", "defaults:\n - mine\n")],
    "divergence=mine",
                  names=("circle",)),
    of_config_dir([("divergnce/mine.yaml", KL)], names=("divergnce",)),
    of_config_dir([("Divergence/mine.yaml", KL)], names=("Divergence",)),
    of_config_dir([("divergence/kl.yaml", KL)], names=("divergence/kl.yaml",)),
    of_config_dir([("divergence/mine.yml", KL)], "divergence=mine"), of_config_dir([("mine.yaml", KL)],
    "divergence=mine"),
    of_config_dir([("config.yaml", KL)], names=("config.yaml",)), of_config_dir([("divergence/.yaml", KL)],
    "divergence=.yaml",
                                                                               names=("divergence",)),
    of_config_dir([(mine, KL)], "divergence=MINE", names=("divergence=MINE",)),
    of_config_dir([(mine, KL)], "divergence=min", names=("divergence=min",)),
    of_config_dir([("a/b/mine.yaml", KL)], "a/b=mine", names=("a/b",)),
]  # fmt: skip
# A key of a file in a group stands below that group; one that Hydra puts elsewhere is named alone.
choice_names = (mine, "divergence", "foo", "_target_", "'a'", "order", "loop", "defaults", "circle")
config_files = st.one_of(
    st.sampled_from(NO_MAPPING).map(lambda t: of_config_dir([(mine, t)], "divergence=mine", names=(mine,))),
    st.builds(lambda t, tail: of_config_dir([(mine, t + tail)], "divergence=mine", names=choice_names),
              st.sampled_from(NO_CHOICE), st.sampled_from(["", "# end\n", "\n\n"])),
    st.sampled_from(EXPERIMENTS).map(
        lambda t: of_config_dir([("experiment/mine.yaml", t)], "experiment=mine",
                                names=("experiment/mine", "foo", "loop", "seed", "experiment", "model", "players",
                                "hydra", "plus",
                                       "divergence", "data", "equation", "allow", "device", "circle"))),
    st.sampled_from(special),
)  # fmt: skip

# -- the configuration of a run ---------------------------------------------------------------------------------------

EDITS = [
    ("seed: 0\n", "seed: x\n"), ("seed: 0\n", "seed: ${nope}\n"), ("seed: 0\n", ""), ("seed: 0\n", "seed: [1]\n"),
    ("seed: 0\n", "seed: 0\nseed: 1\n"), ("seed: 0\n", "seed: 0\nfoo: 1\n"), ("seed: 0\n", "seed: 0\n\tfoo: 1\n"),
    ("divergences.JensenShannon", "divergences.Nope"), ("divergences.JensenShannon", "models.MLPCritic"),
    ("models.MLPGenerator", "divergences.KL"), ("models.MLPGenerator", "nope.Nope"), ("width: 128", "width: -1"),
    ("width: 128", "width: x"), ("width: 128", "widthh: 128"), ("rounds: 2", "rounds: {a: 1}"), ("rounds: 2",
    "rounds: 0"),
    ("torch.optim.Adam", "torch.optim.LBFGS"), ("torch.optim.Adam", "os.system"), ("alpha: 0.0", "alpha: -1.0"),
    ("se_framework.data.Ring8", "se_framework.data.Nope"), ("decay: linear", "decay: x"),
    ("lr: 0.001", "lr: .nan"), ("lr: 0.001", "lr: abc"), ("batch_size: 8", "batch_size: 0"), ("labels: false",
    "labels: 3"),
]  # fmt: skip
PLACES = ("model.", "metric.", "optimizer", "data.", "divergence.", "device=")
# A changed width is legal as a configuration: what does not fit then is the checkpoint, and tested with those. The
# device of a run is not that of who samples it.


def damaged(content=None, edit=None, how=None):
    """Return a function that copies the run into the folder of the case and spoils its ``config.yaml``."""

    def prepare(here, run):
        shutil.copytree(run, here / "run")
        file = here / "run" / "config.yaml"
        if edit is not None:
            text = file.read_text()
            assert edit[0] in text, f"{edit[0]!r} is no longer in a run's config.yaml: mend this table"
            file.write_text(text.replace(*edit))
        elif how is not None:
            content_before = file.read_bytes()
            file.unlink()
            how(file, content_before)
        else:
            file.write_bytes(content if isinstance(content, bytes) else content.encode())

    return prepare


def cut(share):
    return lambda file, content: file.write_bytes(content[: int(len(content) * share)])


KINDS = {
    "missing": lambda file, content: None, "directory": lambda file, content: file.mkdir(),
    "pipe": lambda file, content: os.mkfifo(file), "dangling": lambda file, content: file.symlink_to("nowhere"),
    "device": lambda file, content: file.symlink_to("/dev/zero"), "utf-16": lambda file, content: file.write_bytes(
        content.decode().encode("utf-16")),
    "NUL": lambda file, content: file.write_bytes(content.replace(b"0", b"\0")),
    **{f"cut at {share}": cut(share) for share in (0, 0.1, 0.3, 0.5, 0.7, 0.9)},
}  # fmt: skip


def of_run(program, prepare, what, *keys):
    """Return a case with a damaged run; the sentence names the file, or the key in it."""
    arguments = {
        "se-train": ("resume={here}/run",),
        "se-sample": ("{here}/run", "n=3"),
        "se-eval": ("{here}/run", "n=9"),
    }
    return Case("run's config", arguments[program], ("{here}/run", *keys), prepare, what, program)


programs = st.sampled_from(["se-train", "se-sample", "se-eval"])
run_configs = st.one_of(
    st.builds(
        lambda p, t: of_run(p, damaged(t), repr(t)[:99] + str(len(t))), programs, st.sampled_from(["", *NO_MAPPING])
    ),
    st.builds(lambda p, e: of_run(p, damaged(edit=e), repr(e), *PLACES), programs, st.sampled_from(EDITS)),
    st.builds(lambda p, k: of_run(p, damaged(how=KINDS[k]), k), programs, st.sampled_from(sorted(KINDS))),
)
