"""What a bad input is, how it is put in, and what must come out: code 1, one sentence with the key, nothing left."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed

from tests.support.commands import call

ROOT = Path(__file__).parents[2]
MODULES = {
    "se-train": "se_framework", "se-sample": "se_framework.commands.sample", "se-eval": "se_framework.commands.evaluate"
}  # fmt: skip
SHORT = ("loop.rounds=1", "loop.batch_size=2", "loop.log_every=0", "device=cpu", "progress=false", "dry_run=true")
"""What a bad run would do if it were not refused: nothing but print its equation."""
LIMIT = 150
"""Seconds after which a refusal counts as a hang: it takes about one on an idle machine, and others may be at work."""
SILENT = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
"""Warnings that Python shows to nobody by default."""


@dataclass(frozen=True)
class Case:
    """One bad input, bad by construction.

    Attributes:
        family: kind of input, for the figures.
        arguments: of the command; ``{here}`` is the folder of the case, ``{run}`` that of a finished run.
        names: what the sentence must contain one of: the key, the file, or the group it is about.
        prepare: writes the files of the case into a folder, given the folder of a finished run.
        files: what tells two prepared cases apart.
        program: which command.
    """

    family: str
    arguments: tuple[str, ...]
    names: tuple[str, ...]
    prepare: Callable[[Path, Path], None] | None = None
    files: str = ""
    program: str = "se-train"

    def __repr__(self) -> str:
        return f"{self.family}: {self.program} {' '.join(map(ascii, self.arguments))} {self.files}"[:400]


class Hang(BaseException):
    """Not an Exception: nothing that catches those may hide it."""


def draw(strategy, count, seed):
    """Return ``count`` different cases, the same for the same seed (and version of hypothesis)."""
    found: dict[str, Case] = {}

    @hypothesis_seed(seed)
    @settings(max_examples=20 * count, phases=[Phase.generate], database=None, deadline=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(strategy)
    def collect(case):
        if len(found) < count:
            found.setdefault(repr((case.program, case.arguments, case.files)), case)

    collect()
    return list(found.values())


def listing(folder):
    """Return what lies in a folder, with sizes."""
    return sorted((str(p.relative_to(folder)), p.lstat().st_size) for p in folder.rglob("*") if not p.is_dir())


def attempt(case, folder, run, as_process=False):
    """Put a case in and return what is wrong with the answer (None: nothing) and its seconds."""
    here, cwd = folder / "here", folder / "work"
    here.mkdir(parents=True)
    cwd.mkdir()
    if case.prepare is not None:
        case.prepare(here, run)
    arguments = [a.replace("{here}", str(here)).replace("{run}", str(run)) for a in case.arguments]
    before = listing(here), listing(run)
    started = time.monotonic()
    code, stdout, stderr, noise = (process if as_process else in_process)(case.program, arguments, cwd)
    seconds = time.monotonic() - started
    names = [n.replace("{here}", str(here)).replace("{run}", str(run)) for n in case.names]
    names += [" ".join(n.split()) for n in names if n.strip()]  # a sentence has single spaces
    left = sorted(str(p.relative_to(cwd)) for p in cwd.rglob("*"))
    for wrong, what in (
        (code != 1, f"exit code {code}"),
        (bool(noise), f"noise {noise}"),
        ("Traceback" in stderr + stdout, "a traceback"),
        (not stderr.endswith("\n") or len(stderr.splitlines()) != 1, f"{len(stderr.splitlines())} lines"),
        (not stderr.startswith(f"{case.program}: "), "no name of the program"),
        (bool(stdout), f"output {stdout[:100]!r}"),
        (not any(name in stderr for name in names), f"none of {names}"),
        (len(stderr.partition(": ")[2].strip()) < 10, "no sentence"),
        (bool(left), f"left {left[:3]}"),
        ((listing(here), listing(run)) != before, "changed the user's files"),
    ):
        if wrong:
            return f"{what} from {case}\n    {stderr[-700:]}", seconds
    return None, seconds


def in_process(program, arguments, cwd, limit=LIMIT):
    """Return code, stdout, stderr and noise of a command's entry function, called as the console script calls it."""
    from se_framework import __main__ as train
    from se_framework.commands import evaluate, sample

    entry = {"se-train": train.main, "se-sample": sample.main, "se-eval": evaluate.main}[program]
    out, err = io.StringIO(), io.StringIO()
    path = list(sys.path)

    def alarm(*_):
        raise Hang(f"still running after {limit} s")

    GlobalHydra.instance().clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setattr(sys, "argv", [program, *arguments])
        before = signal.signal(signal.SIGALRM, alarm)
        signal.setitimer(signal.ITIMER_REAL, limit)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    code = exit_code(entry)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            sys.path[:] = path
    noise = [str(w.message)[:200] for w in caught if not issubclass(w.category, SILENT)]
    return code, out.getvalue(), err.getvalue(), noise


def exit_code(entry):
    """Return what a process with this entry function would exit with; a traceback goes where Python prints it."""
    try:
        entry()
    except SystemExit as error:
        return 0 if error.code is None else error.code
    except Hang as error:
        return str(error)
    except BaseException:  # noqa: BLE001  whatever it is, it would be the user's traceback
        traceback.print_exc()
        return "traceback"
    return 0


def process(program, arguments, cwd):
    """Return code, stdout and stderr of a command as a process of its own, and no noise: it is in stderr."""
    try:
        done = call([sys.executable, "-m", MODULES[program], *arguments], cwd)
    except TimeoutError as error:
        return str(error), "", "", []
    return done.returncode, done.stdout, done.stderr, []
