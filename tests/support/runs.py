"""Runs in processes of their own: a child is forked per run, so signals hit real ones.

A test writes a script that starts with ``from tests.support.runs import *`` and hands it to :func:`play`.
"""

import csv
import json
import os
import signal
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

from se_framework.commands import train
from se_framework.config.composing import compose
from se_framework.errors import SEError
from se_framework.evaluation import evaluate as evaluation
from se_framework.runs import files
from se_framework.runs.directory import RunDirectory
from se_framework.training import loop
from tests.support import commands
from tests.support.comparing import same

CLOCK = {"seconds", "samples_per_second"}
SHORT = ["loop.rounds=7", "loop.batch_size=24", "loop.log_every=1", "loop.checkpoint_every=3", "progress=false",
         "device=cpu", "loop.picture_every=0", "stages=[]"]  # fmt: skip


def unscored(path, typed):
    """Train what was typed in a directory of this process, without scores and pictures at its end; return the path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "finish", lambda *_: 0.0)
        train.train_run(compose(None, typed), path, typed)
    return path


def play(script, *arguments, timeout=300):
    """Run a script in a process of its own and return the finished process."""
    return commands.script("from tests.support.runs import *\n" + script, *arguments, timeout=timeout)


@cache
def composed(*overrides):
    """Return a configuration, or None if it is refused. Made once here, before the fork: each child has its own."""
    try:
        return compose(None, overrides)
    except SEError:
        return None


def start(directory, overrides, prepare=None):
    """Fork a child that trains, without the pictures and scores of the end, and return its process number.

    Args:
        directory: of the run.
        overrides: as typed.
        prepare: called in the child first: it may plant a fault.
    """
    config = composed(*overrides)
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        train.finish = lambda *_: 0.0
        if prepare:
            prepare()
        train.train_run(config or compose(None, overrides), Path(directory), overrides)
        code = 0
    except SEError as error:
        print(f"refused: {error}", file=sys.stderr, flush=True)
    except SystemExit as end:
        code = end.code
    finally:
        os._exit(code)


def wait(pid):
    """Return a child's exit code, or minus the number of the signal that killed it."""
    status = os.waitpid(pid, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def child(directory, overrides, kill_at=None, prepare=None):
    """Train in a child, killed (SIGKILL) before a round is played, and return what :func:`wait` does."""

    def plant():
        played = loop.play_round

        def killed(state, *rest):
            if state.round == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return played(state, *rest)

        loop.play_round = killed
        if prepare:
            prepare()

    return wait(start(directory, overrides, plant))


def rows(run, table="metrics.csv"):
    """Return a table without the clock."""
    with open(Path(run) / table, newline="") as file:
        return [{k: v for k, v in row.items() if k not in CLOCK} for row in csv.DictReader(file)]


def differences(a, b):
    """Return in what two runs differ: in the state after their last round, or in a row of a round both logged."""
    first, second = (RunDirectory(run).load_checkpoint()[0] for run in (a, b))
    found = [] if same(first, second) else [f"states of rounds {first['round']} and {second['round']}"]
    logged = [{row["round"]: row for row in rows(run)} for run in (a, b)]
    found += [f"row {t}" for t in logged[0] if t in logged[1] and logged[0][t] != logged[1][t]]
    for run in (a, b):
        numbers = [int(row["round"]) for row in rows(run)]
        found += [f"{Path(run).name} has rows {numbers}"] * (numbers != sorted(set(numbers)))
    return found


__all__ = [
    "Path", "RunDirectory", "child", "compose", "differences", "evaluation", "files", "json", "loop", "os", "rows",
    "same", "signal", "start", "sys", "torch", "train", "wait", "SHORT",
]  # fmt: skip


KILLED = """
root, typed, kills = Path(sys.argv[1]), sys.argv[2].split("\\n"), [int(k) for k in sys.argv[3].split(",")]
assert child(root / "whole", typed) == 0
for k in kills:
    cut = root / f"cut{k}"
    assert child(cut, typed, kill_at=k) == -signal.SIGKILL
    assert child(cut, [f"resume={cut}"]) == 0
    assert not differences(root / "whole", cut), (k, differences(root / "whole", cut))
    assert rows(cut) == rows(root / "whole")
"""
"""What plays a run that is killed before stated rounds, resumes it, and compares: root, what was typed, rounds."""
