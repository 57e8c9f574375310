"""Arguments of the commands that take a run: the run directory, then ``key=value`` split at the first ``=``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from se_framework.errors import ConfigError, SEError, nearest

if TYPE_CHECKING:
    from se_framework.assembly import Assembly


def packages(text: str) -> tuple[str, ...]:
    """Return the names in PACKAGE,... or [PACKAGE,...]."""
    return tuple(name.strip() for name in text.strip("[]").split(",") if name.strip())


OF_A_RUN: dict[str, Callable[[str], Any]] = {"device": str, "checkpoint": str, "trust": packages, "member": int}
"""Arguments of every command that loads a run."""
OF_A_RUN_HELP = """
  device=cpu                  auto: cuda where there is one
  checkpoint=last|best|ROUND  of those that were kept
  trust=PACKAGE,...           packages whose code the run may use besides ours and torch
  member=K                    of an ensemble, from 0"""


def load_run(run_dir: Path, values: dict[str, Any]) -> Assembly:
    """Return the objects of a run as the arguments of :data:`OF_A_RUN` want them."""
    from se_framework.assembly import EnsembleAssembly
    from se_framework.notebook import load

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
        if not equals:
            raise ConfigError(f"{argument!r} is not KEY=VALUE: {usage}")
        if key not in known:
            raise ConfigError(f"unknown key {key!r}: {nearest(key, known)}")
        try:
            values[key] = known[key](text)
        except ValueError as error:
            raise ConfigError(f"{key} must be a whole number, got {text!r}") from error
        if key == "n" and values[key] < 1:
            raise ConfigError(f"n must be at least 1, got {text}")
    return Path(arguments[0]).expanduser(), values


def run_command(name: str, usage: str, body: Callable[[list[str]], None]) -> None:
    """Run a command: ``--help`` prints its usage, an error of ours is one sentence and exit code 1."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in ("--help", "-h"):
        print(usage)
        return
    try:
        body(arguments)
    except SEError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"{name}: {error}", file=sys.stderr)
        raise SystemExit(1) from None
