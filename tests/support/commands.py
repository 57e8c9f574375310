"""The commands as a user starts them: processes of their own, forked where torch is imported already."""

from __future__ import annotations

import atexit
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRAIN = [sys.executable, "-m", "se_framework"]
SAMPLE = [sys.executable, "-m", "se_framework.commands.sample"]
EVALUATE = [sys.executable, "-m", "se_framework.commands.evaluate"]
VERIFY = [sys.executable, "-m", "se_framework.commands.verify"]
SHORT = ["data=ring8", "loop.rounds=6", "loop.batch_size=32", "loop.log_every=2", "device=cpu"]
PATIENCE = 900.0
"""Seconds to wait for what must happen: far more than it takes on an idle machine, so that a busy one passes too."""


SPENT: list[float] = []
"""Processor seconds of every command so far."""
SMALL_SCORES = """
import pytest
from tests.support.commands import small_scores
small_scores(pytest.MonkeyPatch())
"""
"""What :func:`start` may do first, see :func:`small_scores`."""


def environment(**more: str) -> dict[str, str]:
    """Return the variables of a command: those of the tests, the checkout on the path, one thread."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"} | more


def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: it did not come true; the message says what was waited for.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.01)


def small_scores(patch: pytest.MonkeyPatch, drawn: bool = False) -> None:
    """Let the end of a run be quick, for tests of anything else: scores on few points, curves of two columns.

    Beside the scores stands a mixture of two Gaussians. Pictures are laid out, and written blank unless they shall be
    ``drawn``.
    """
    from matplotlib.figure import Figure
    from PIL import Image

    from se_framework.pictures import plots

    if not drawn:
        patch.setattr(Figure, "savefig", lambda _, file, **__: Image.new("L", (8, 8)).save(file, "PNG"))

    columns = plots._columns
    patch.setattr(plots, "_columns", lambda file: dict(list(columns(file).items())[:2]))
    for name, size in {"ASSIGNMENT_POINTS": 50, "POINTS": 1_000, "PAIRS": 50, "DIRECTIONS": 20}.items():
        patch.setattr(f"se_framework.evaluation.scores.{name}", size)
    for name, few in {"ROWS": 200, "COMPONENTS_LOW": (1, 2), "COMPONENTS": (1, 2), "DRAWN": 1_000}.items():
        patch.setattr(f"se_framework.evaluation.mixture.{name}", few)


@cache
def server() -> str:
    """Start the process that forks (one for all tests of this process) and return the path of its socket."""
    folder, owner = tempfile.mkdtemp(prefix="se-tests-"), os.getpid()
    path = f"{folder}/socket"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.server", path], cwd=ROOT, env=environment(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None

    def end() -> None:
        if os.getpid() != owner:  # a fork of this process that leaves by way of its handlers
            return
        process.stdin.close()
        process.wait()
        shutil.rmtree(folder)

    atexit.register(end)
    assert process.stdout.readline() == "ready\n", "the process that forks did not start"
    return path


class Running:
    """A process that was forked for a command; its standard output and error are read from files."""

    def __init__(self, asked: dict[str, object], cwd: Path | str, variables: dict[str, str]) -> None:
        self.session = bool(asked["session"])
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(server())
        files = [tempfile.NamedTemporaryFile(delete=False) for _ in range(2)]
        self.out, self.err = (Path(file.name) for file in files)
        for file in files:
            file.close()
        asked = {
            **asked,
            "cwd": str(cwd),
            "environment": variables,
            "out": str(self.out),
            "err": str(self.err),
        }
        self.stream = self.connection.makefile("rw")
        self.stream.write(json.dumps(asked) + "\n")
        self.stream.flush()
        self.pid = int(self.stream.readline())

    def send_signal(self, number: int) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def wait(self, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Wait for the end and return what :func:`subprocess.run` would; after ``timeout`` seconds it is killed."""
        self.connection.settimeout(timeout)
        try:
            code, seconds = self.stream.readline().split()
        except TimeoutError:
            (os.killpg if self.session else os.kill)(self.pid, signal.SIGKILL)
            said = self.err.read_text(errors="replace")[-2000:]
            raise TimeoutError(f"a command ran for more than {timeout:.0f} s: {said}") from None
        finally:
            self.stream.close(), self.connection.close()
        SPENT.append(float(seconds))
        out, err = (file.read_text(errors="replace") for file in (self.out, self.err))
        self.out.unlink(), self.err.unlink()
        return subprocess.CompletedProcess([], int(code), out, err)


def start(command: Sequence[object], cwd: Path | str, first: str = "", session: bool = False, **more: str) -> Running:
    """Start ``[sys.executable, ...]`` and return the running process.

    Args:
        command: as for :mod:`subprocess`: the interpreter with ``-m MODULE``, ``-c CODE`` or a file, and arguments.
        cwd: the working directory.
        first: Python code that the process executes first.
        session: the process leads a group of its own.
        more: environment variables.
    """
    interpreter, option, *arguments = map(str, command)
    assert interpreter == sys.executable, command
    kind = {"-m": "module", "-c": "code"}.get(option, "file")
    what = option if kind == "file" else arguments.pop(0)
    asked = {kind: what, "arguments": arguments, "first": first, "session": session}
    return Running(asked, cwd, environment(**more))


def call(command: Sequence[object], cwd: Path | str, first: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """Run ``[sys.executable, ...]`` and return the finished process; arguments as for :func:`start`."""
    return start(command, cwd, first, **more).wait()


def script(code: str, *arguments: object, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    """Run Python code, as ``python -c`` would, in the root of the repository and return the finished process."""
    return start([sys.executable, "-c", code, *arguments], ROOT).wait(timeout)


def fresh(command: Sequence[object], cwd: Path | str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command in an interpreter of its own: for tests of what is imported, from where, and how quickly."""
    return subprocess.run(
        [str(c) for c in command], cwd=cwd, env=environment(**more), capture_output=True, text=True, timeout=PATIENCE
    )


def timed(command: Sequence[object], cwd: Path | str) -> tuple[subprocess.CompletedProcess[str], float]:
    """Return the finished process and its processor seconds: wall time would measure the machine's other work."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = fresh(command, cwd)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return process, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
