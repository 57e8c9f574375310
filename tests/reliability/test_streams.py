"""Streams that are full, closed or left, and signals at any moment, end no sound run; commands can be pasted."""

import shlex
import signal
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from se_framework.commands.arguments import Parser
from se_framework.runs.directory import RunDirectory
from se_framework.runs.telling import override, word
from tests.support.commands import EVALUATE, SHORT, SMALL_SCORES, TRAIN, call, start, until

STREAMS = {
    "a reader that leaves": "import os; r, w = os.pipe(); os.close(r); os.dup2(w, 1); os.dup2(w, 2)",
    "full": "import os; f = os.open('/dev/full', os.O_WRONLY); os.dup2(f, 1); os.dup2(f, 2)",
    "closed": "import os; os.close(0); os.close(1); os.close(2)",
    "absent": "import os, sys; os.close(2); sys.stderr = sys.stdout = None",
    "without isatty": "import sys\nclass S:\n def write(self, t): pass\nsys.stderr = S()",
}


@pytest.mark.parametrize("kind", STREAMS)
def test_no_stream_ends_a_run(kind, tmp_path):
    first = SMALL_SCORES + STREAMS[kind]
    done = call([*TRAIN, *SHORT, "data=moons", "hydra.run.dir=run"], tmp_path, first)
    assert done.returncode == 0 and (tmp_path / "run" / "summary.json").exists()
    assert RunDirectory(tmp_path / "run").load_checkpoint()[0]["round"] == 6
    if kind == "a reader that leaves":
        done = call([*EVALUATE, "run", "n=100"], tmp_path, first)
        assert done.returncode == 0 and (tmp_path / "run" / "eval.json").exists()


def test_a_terminal_that_hangs_up_loses_no_round(tmp_path):
    process = start([*TRAIN, *SHORT, "loop.rounds=100000", "loop.checkpoint_every=0", "hydra.run.dir=run"], tmp_path)
    until(lambda: (tmp_path / "run" / "metrics.csv").exists(), "the first row")
    process.send_signal(signal.SIGHUP)
    done = process.wait()
    assert done.returncode == 128 + signal.SIGHUP and "go on with: se-train resume=./run" in done.stderr
    assert RunDirectory(tmp_path / "run").load_checkpoint()[0]["round"] > 0


EARLY = "import os, signal, threading\n"
EARLY += "from se_framework.config import composing\n"
EARLY += "composing.prepare_imports = lambda: os.kill(os.getpid(), signal.{})\n"
LATE = "import os, signal\nfrom se_framework.commands import train\n"
LATE += "train.evaluate = lambda assembly: os.kill(os.getpid(), signal.{})\n"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("moment", ["before the run", "while it is scored"])
def test_a_signal_outside_of_rounds_is_one_sentence(name, moment, tmp_path):
    first = (EARLY if moment == "before the run" else LATE).format(name)
    done = call([*TRAIN, *SHORT, "progress=false", "hydra.run.dir=run"], tmp_path, first)
    assert done.returncode == 128 + getattr(signal, name) and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"se-train: stopped by {name}") and done.stderr.count("stopped") == 1
    if moment != "before the run":
        assert "go on with: se-train resume=./run" in done.stderr


NAMES = [
    "a b", "a'b", 'a"b', "a,b", "a=b", "é", "日本", "a(b)", "[x]", "{y}", "~a", "a\\", 'a\\"b', "$HOME", "${now:%Y}",
    "a$", "`ls`", "a;b&c|d", "*?", "#x", "a:b@c%d", "auto", "null", "123", "true", "-x", "--x=y", " a ", "a!b", "a\nb",
    "x='y' \"z\"", "\\${a}", "''", "resume=z",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_printed_command_can_be_pasted(name, tmp_path):
    for path in (name, f"{tmp_path}/{name}"):
        (key_value,) = shlex.split(override("resume", path))
        assert shlex.split(override("resume", Path(path)))[0] != "resume=auto"
        value = OverridesParser.create().parse_override(key_value).value()
        assert OmegaConf.create({"resume": value}).resume == path
        (typed,) = shlex.split(word(path))
        assert not typed.startswith("-") and typed.startswith(("/", "./")) and typed.endswith(name)


def test_a_directory_may_be_called_like_an_argument():
    parser = Parser("se-sample", "Draw samples.")
    found = parser.read(["seed=1", "checkpoint=best", "--device", "cpu"])
    assert (found.run_dir, found.checkpoint, found.device) == (Path("seed=1"), "best", "cpu")
