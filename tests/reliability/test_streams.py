"""Streams that are full, closed or left, and signals at any moment, end no run that is sound."""

from __future__ import annotations

import json
import shlex
import signal

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import se_framework as se
from se_framework.runs.telling import override
from tests.support.commands import EVALUATE, SAMPLE, SHORT, SMALL_SCORES, TRAIN, call

TINY = ["experiment=vanilla_gan", *SHORT, "model.width=4", "metric.network.width=4"]
LEFT = "import os; r, w = os.pipe(); os.close(r); os.dup2(w, {number}); os.close(w)\n"
FULL = "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), {number})\n"
CLOSED = "import os, sys; os.close({number}); sys.{name} = None\n"
SPOILT = [
    pytest.param(how.format(number=number, name=name), id=f"{name}-{word}")
    for word, how in (("left", LEFT), ("full", FULL), ("closed", CLOSED))
    for number, name in ((1, "stdout"), (2, "stderr"))
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run whose name is like an argument."""
    path = tmp_path_factory.mktemp("runs") / "seed=1"
    se.compose(None, TINY).train(se.RunDirectory(path))
    return path


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_run_ends_whole_whatever_becomes_of_its_streams(spoilt, tmp_path):
    done = call([*TRAIN, *TINY, "hydra.run.dir=run"], tmp_path, SMALL_SCORES + spoilt)
    assert done.returncode == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["round"] == 6
    assert len(se.RunDirectory(tmp_path / "run").rows()) == 3


@pytest.mark.parametrize("spoilt", SPOILT[:1])
def test_a_command_writes_before_it_speaks(spoilt, run):
    done = call([*EVALUATE, run.name, "n=50"], run.parent, SMALL_SCORES + spoilt)
    assert done.returncode == 0 and json.loads((run / "eval.json").read_text())["round"] == 6
    assert call([*SAMPLE, run.name, "n=5", "out=x.npy"], run.parent).returncode == 0


AT = """
import os, signal
import {module} as module
def struck(*args, **options):
    os.kill(os.getpid(), signal.{name})
    signal.pause()
module.{function} = struck
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize(
    ("module", "function"),
    [("se_framework.commands.train", "which_run"), ("se_framework.commands.train", "evaluate")],
    ids=["before the first round", "while it is scored"],
)
def test_a_signal_outside_of_rounds_is_one_sentence(name, module, function, tmp_path):
    struck = AT.format(module=module, function=function, name=name)
    done = call([*TRAIN, *TINY, "progress=false", "hydra.run.dir=run"], tmp_path, SMALL_SCORES + struck)
    assert done.returncode == 128 + signal.Signals[name]
    said = done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and done.stderr.count("stopped by") == 1
    if function != "evaluate":
        assert said == f"se-train: stopped by {name}"
    else:
        assert said.startswith(f"se-train: stopped by {name} after the last round")
        assert said.endswith("; go on with: se-train resume=./run")
        assert se.load(tmp_path / "run").state.round == 6


def test_a_terminal_that_goes_away_costs_no_round(tmp_path):
    after = """
import os, signal
from se_framework.training import loop
play = loop.play_round
def struck(state, *args):
    if state.round == 3:
        os.kill(os.getpid(), signal.SIGHUP)
    return play(state, *args)
loop.play_round = struck
"""
    done = call([*TRAIN, *TINY, "loop.rounds=50", "hydra.run.dir=run dir"], tmp_path, after)
    assert done.returncode == 128 + signal.SIGHUP and se.load(tmp_path / "run dir").state.round == 4
    command = done.stderr.rpartition("go on with: ")[2].strip()
    resumed = call([*TRAIN, *shlex.split(command)[1:], "loop.rounds=5"], tmp_path, SMALL_SCORES)
    assert resumed.returncode == 0 and se.load(tmp_path / "run dir").state.round == 5


NAMES = ["plain", "with space", "a,b", "a=b", "it's", 'say "x"', "äöü", "(1)", "[a]", "{b}", "a:b", "~x", "#1", "a;b",
         "$HOME", "back\\slash", "end\\", 'q\\"q', "a&b", "*", "?", "1e3", "null", "a'\"b", "x\ty"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_printed_commands_can_be_pasted(name):
    """The shell takes its quotes off, Hydra its own: what is left is the name."""
    (word,) = shlex.split(override("resume", f"/runs/{name}"))
    read = OverridesParser.create().parse_override(word)
    assert read.key_or_group == "resume" and read.value() == f"/runs/{name}"


def test_a_refused_command_removes_no_directory_of_the_users(tmp_path):
    (tmp_path / "mine" / "empty").mkdir(parents=True)
    for more in ([], ["-m"]):
        where = "hydra.sweep.dir=mine/empty" if more else "hydra.run.dir=mine/empty/run"
        done = call([*TRAIN, *more, *TINY, "divergence=sinkhorn", where], tmp_path)
        assert done.returncode == 1 and (tmp_path / "mine" / "empty").is_dir()
    assert not (tmp_path / "mine" / "empty" / "run").exists()
