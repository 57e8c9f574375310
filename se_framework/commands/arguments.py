"""Arguments of the commands that take a run: the run directory, then ``key=value`` split at the first ``=``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from se_framework.config.composing import find_own_modules, prepare_imports
from se_framework.errors import ConfigError, SEError, nearest

if TYPE_CHECKING:
    from se_framework.assembly import Assembly

LARGEST_N = 10**8


OF_A_RUN: dict[str, Callable[[str], Any]] = {"device": str, "checkpoint": str, "trust": str, "member": int}
"""Arguments of every command that loads a run."""
OF_A_RUN_HELP = """
  device=cpu                  auto: cuda where there is one
  checkpoint=last|best|ROUND  of those that were kept
  trust=PACKAGE,...           packages whose code the run may use besides ours and torch
  member=K                    of an ensemble, from 0"""


def load_run(run_dir: Path, values: dict[str, Any]) -> Assembly:
    """Return the objects of a run as the arguments of :data:`OF_A_RUN` want them."""
    if values.get("trust"):
        find_own_modules()
    from se_framework.api import load
    from se_framework.assembly import EnsembleAssembly

    assembly = load(run_dir, **{name: values[name] for name in OF_A_RUN if name in values})
    if isinstance(assembly, EnsembleAssembly):
        raise ConfigError(f"{run_dir} is an ensemble: choose one, member=0 to member={len(assembly.members) - 1}")
    return assembly


def parse(arguments: list[str], known: dict[str, Callable[[str], Any]], usage: str) -> tuple[Path, dict[str, Any]]:
    """Return the run directory and the typed values.

    Raises:
        ConfigError: no run directory, an unknown key, or a value of the wrong type.
    """
    if not arguments:
        raise ConfigError(f"a run directory is needed: {usage}")
    values: dict[str, Any] = {}
    for argument in arguments[1:]:
        key, equals, text = argument.partition("=")
        if not equals or not key:
            raise ConfigError(f"{argument!r} is not KEY=VALUE: {usage}")
        if key not in known:
            raise ConfigError(f"unknown key {key!r}: {nearest(key, known)}")
        try:
            values[key] = known[key](text)
        except ValueError as error:
            raise ConfigError(f"{key} must be a whole number, got {text!r}") from error
        if key == "n" and not 1 <= values[key] <= LARGEST_N:
            raise ConfigError(f"n must lie in 1..{LARGEST_N}, got {text}: draw more with other seeds")
    return expanded(arguments[0], "the run directory"), values


def expanded(text: str, what: str) -> Path:
    """Return the path that a user typed, ``~`` written out.

    Raises:
        ConfigError: no file can have that name.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{what} {text!r} is no path here: {' '.join(str(error).split())[:80]}") from error
    if "\0" in text:
        raise ConfigError(f"{what} {text!r} is no path here: it holds a NUL")
    return path


def run_command(name: str, usage: str, body: Callable[[list[str]], None]) -> None:
    """Run a command: ``--help`` prints its usage, an error of ours is one sentence and exit code 1."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in ("--help", "-h"):
        print(usage)
        return
    try:
        prepare_imports()
        body(arguments)
    except SEError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(1) from None
