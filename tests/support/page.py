"""The page ``docs/prototyping.md``: its files and commands, run in an empty folder, and the figures they print."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.commands import EVALUATE, ROOT, SMALL_SCORES, TRAIN
from tests.support.commands import call as run_command

PAGE = (ROOT / "docs" / "prototyping.md").read_text()
SECTIONS = {int(part[0]): part for part in re.split(r"^## (?=\d\.)", PAGE.partition("## When")[0], flags=re.M)[1:]}
COMMANDS = {"se-train": TRAIN, "se-eval": EVALUATE, "python": [sys.executable]}
NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"


class Fit(NamedTuple):
    """What a section's run found, or its page says.

    Attributes:
        figures: of the last command that prints numbers alone.
        value: the value of the equation on held-out data, None where it is not shown.
        error: its standard error, None where it has none.
    """

    figures: list[float]
    value: float | None
    error: float | None


def files_of(number: int) -> dict[str, str]:
    """Return the files of a section by name: the fenced blocks that begin with a comment naming a path."""
    return dict(re.findall(r"```(?:python|yaml)\n# (\S+\.(?:py|yaml))\n(.*?)```", SECTIONS[number], flags=re.S))


def commands_of(number: int) -> Iterator[tuple[str, list[str]]]:
    """Yield every command of a section with the lines that the page shows below it."""
    for block in re.findall(r"```console\n(.*?)```", SECTIONS[number], flags=re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, *shown = part.splitlines()
            yield command, shown


def call(command: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the page in a folder; the one that trains with further overrides, if any."""
    name, *arguments = shlex.split(command)
    arguments += more if "hydra.run.dir=run" in arguments else ()
    quick = ["device=cpu", "progress=false"] if name == "se-train" else []
    return run_command([*COMMANDS[name], *arguments, *quick], folder, SMALL_SCORES)


def masked(line: str) -> str:
    """Return a line without its numbers."""
    return re.sub(NUMBER, "#", line)


def numbers(line: str) -> list[float]:
    """Return the numbers of a line."""
    return [float(word) for word in re.findall(NUMBER, line)]


def fit(outputs: Iterable[str]) -> Fit:
    """Read a Fit out of the lines of all commands."""
    lines = list(outputs)
    alone = [numbers(line) for line in lines if re.fullmatch(rf"{NUMBER}( {NUMBER})*", line) and "." in line]
    held_out = [line for line in lines if line.startswith("held_out_value")]
    value = error = None
    if held_out:
        value, *others = numbers(held_out[-1])
        error = others[0] if "+-" in held_out[-1] else None
    return Fit(alone[-1], value, error)


def page_of(number: int) -> Fit:
    """Return what the page says of a section's run."""
    return fit(line for command, shown in commands_of(number) if "check.py" not in command for line in shown)


def write(number: int, folder: Path) -> None:
    """Write the files of a section into a folder."""
    for name, text in files_of(number).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def play(number: int, folder: Path, *more: str) -> Fit:
    """Write the files of a section into an empty folder, run its commands there and return what they found.

    What they print must be what the page prints, numbers aside, unless a script checks itself: its numbers are the
    page's. A refused command must leave nothing behind. ``more`` are overrides that the page's run does not have.
    """
    write(number, folder)
    lines = []
    for command, shown in commands_of(number):
        before = set(folder.rglob("*"))
        done = call(command, folder, *more)
        refused = bool(shown) and shown[-1].startswith("se-train: ") and " all in " not in shown[-1]
        assert done.returncode == int(refused), (command, done.stderr)
        printed = (done.stderr if refused else done.stdout).splitlines()
        for line in shown:
            assert line == "..." or masked(line) in map(masked, printed), (command, line, printed)
        if "check.py" in command:
            assert [numbers(line) for line in printed] == [pytest.approx(numbers(line), abs=1e-8) for line in shown]
        elif refused:
            assert len(printed) == 1
            assert {p for p in set(folder.rglob("*")) - before if "__pycache__" not in p.parts} == set()
        else:
            lines += printed
    assert (folder / "run" / "summary.json").exists() and (folder / "run" / "samples.png").exists()
    return fit(lines)


def load(number: int, name: str) -> dict[str, Any]:
    """Return the namespace of a file of the page."""
    space = {"__name__": "page"}
    exec(compile(files_of(number)[name], name, "exec"), space)  # noqa: S102
    return space


def row_of(number: int) -> list[str]:
    """Return the cells of a section's row in the tables on top."""
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| [{number}]"))
    return [cell.strip() for cell in row.strip("| ").split("|")]


def code_lines(text: str) -> int:
    """Count the lines that hold code: no blank ones, comments or docstrings."""
    tree = ast.parse(text)
    documented = [n for n in ast.walk(tree) if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef))]
    docs = [n.body[0] for n in documented if ast.get_docstring(n) is not None]
    dropped = {line for doc in docs for line in range(doc.lineno, (doc.end_lineno or doc.lineno) + 1)}
    lines = enumerate(text.splitlines(), 1)
    return sum(bool(line.strip()) and not line.strip().startswith("#") and i not in dropped for i, line in lines)
