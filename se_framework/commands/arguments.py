"""The commands that take runs: ``COMMAND RUN_DIR KEY=VALUE ...``, read by argparse (``--KEY VALUE`` does as well)."""

from __future__ import annotations

import argparse
import os
import re
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from se_framework.config.composing import find_own_modules, prepare_imports
from se_framework.errors import ConfigError, SEError, nearest
from se_framework.runs.telling import say, tolerate_streams
from se_framework.training.interrupts import signals_told

if TYPE_CHECKING:
    from se_framework.assembly import Assembly

LARGEST_N = 10**8


class Parser(argparse.ArgumentParser):
    """Takes the arguments that every command of a run has; :meth:`add` adds its own.

    Args:
        name: of the command.
        does: what it does, for ``--help``.
        several: how the directories are called of a command that takes several (``run_dirs``) and loads none of them.
    """

    def __init__(self, name: str, does: str, several: str = "") -> None:
        raw = argparse.RawDescriptionHelpFormatter
        self.several, shown = several, f"{several}..." if several else "RUN_DIR"
        same = "KEY=VALUE, --KEY=VALUE and --KEY VALUE are the same"
        super().__init__(name, f"{name} {shown} [KEY=VALUE ...]", does, same, allow_abbrev=False, formatter_class=raw)
        self.keys: list[str] = []
        if several:
            help_ = "directories of runs, sweeps, ensembles, or folders of those"
            self.add_argument("run_dirs", type=existing_name, nargs="+", metavar=several, help=help_)
            return
        self.add_argument("run_dir", type=existing_name, metavar="RUN_DIR", help="the directory of a run")
        self.add("device", None, "cpu, cuda, ... (default: cuda where there is one)")
        self.add("checkpoint", "last", "best, or the round of one that was kept")
        self.add("trust", None, "packages whose code the run may use besides ours and torch, with commas between them")
        self.add("member", None, "of an ensemble, from 0", whole)

    def add(self, key: str, default: Any, says: str, kind: Callable[[str], Any] = str) -> None:
        """Add an argument ``KEY=VALUE``."""
        self.keys.append(key)
        said = says if default is None else f"{says} (default: {default})"
        self.add_argument(f"--{key}", type=kind, default=default, metavar="VALUE", help=said)

    def read(self, words: list[str]) -> Namespace:
        """Return the arguments of a command line.

        Raises:
            ConfigError: no run directory, an unknown key, or a value that does not fit.
        """
        keyed = [self._keyed(word) for word in words[1:]]  # a directory may be called a=b
        parse = self.parse_known_intermixed_args if self.several else self.parse_known_args
        found, others = parse([*words[:1], *keyed])
        for word in others:
            key, equals, _ = word.removeprefix("--").partition("=")
            if equals or word.startswith("--"):
                raise ConfigError(f"unknown key {key!r}: {nearest(key, self.keys)}")
            raise ConfigError(f"{word!r} is not KEY=VALUE: {self.usage}")
        return found

    def _keyed(self, word: str) -> str:
        """Return ``KEY=VALUE`` as a flag; where several directories are taken, not what is one of that name."""
        if self.several and word.partition("=")[0] not in self.keys and Path(word).is_dir():
            return word
        return re.sub(r"^(?=[A-Za-z]\w*=)", "--", word)

    def error(self, message: str) -> NoReturn:
        """Refuse in one sentence, in the place of a usage text."""
        if f"required: {self.several or 'RUN_DIR'}" in message:
            message = f"a run directory is needed: {self.usage}"
        message = re.sub(r"^argument --(\w+): (?=must)", r"\1 ", message)
        raise ConfigError(re.sub(r"^argument (--)?", "", message))


def whole(text: str) -> int:
    """Return a whole number, which may be written as 1e7."""
    try:
        return int(text)
    except ValueError:
        if re.fullmatch(r"\d+(\.\d*)?[eE]\+?\d{1,2}", text) and float(text).is_integer():
            return int(float(text))  # 1e7
        raise ArgumentTypeError(f"must be a whole number, got {text!r}") from None


def count(text: str) -> int:
    """Return how many, for ``n``."""
    if not 1 <= whole(text) <= LARGEST_N:
        raise ArgumentTypeError(f"must lie in 1..{LARGEST_N}, got {text}: draw more with other seeds")
    return whole(text)


def existing_name(text: str) -> Path:
    """Return the path that a user typed, ``~`` written out; a file of that name could exist."""
    try:
        if "\0" in text:
            raise ValueError("it holds a NUL")
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise ArgumentTypeError(f"{text!r} is no path here: {' '.join(str(error).split())[:80]}") from error
    return path


def file_to_write(*endings: str) -> Callable[[str], Path]:
    """Return what reads the name of a file that a command writes, with one of these endings."""

    def read(text: str) -> Path:
        path = existing_name(text)
        if path.suffix not in endings:
            raise ArgumentTypeError(f"{path} must end in {' or '.join(endings)}")
        if not path.parent.is_dir():
            raise ArgumentTypeError(f"{path}: the directory {path.parent} does not exist")
        if path.is_dir():
            raise ArgumentTypeError(f"{path} is a directory: name a file in it")
        return path

    return read


def load_run(arguments: Namespace) -> Assembly:
    """Return the objects of a run as the arguments want them."""
    if arguments.trust:
        find_own_modules()
    from se_framework.api import load
    from se_framework.assembly import EnsembleAssembly

    of_a_run = {key: getattr(arguments, key) for key in ("device", "checkpoint", "member")}
    assembly = load(arguments.run_dir, trust=arguments.trust or (), **of_a_run)
    if isinstance(assembly, EnsembleAssembly):
        many = len(assembly.members)
        raise ConfigError(f"{arguments.run_dir} is an ensemble: choose one, member=0 to member={many - 1}")
    return assembly


def load_judge(arguments: Namespace) -> Assembly | None:
    """Return the objects of the run that ``metric=`` names, by the same rules of trust; None without one."""
    if arguments.metric is None:
        return None
    from se_framework.api import load
    from se_framework.assembly import EnsembleAssembly

    judge = load(arguments.metric, device=arguments.device, trust=arguments.trust or ())
    if isinstance(judge, EnsembleAssembly):
        raise ConfigError(f"metric={arguments.metric} is an ensemble: its members disagree; name a single run")
    return judge


def run_command(name: str, body: Callable[[list[str]], None]) -> None:
    """Run a command on the words after its name; an error of ours, or a signal, is one sentence."""
    tolerate_streams()
    with signals_told(name):
        try:
            prepare_imports()
            body(sys.argv[1:])
        except SEError as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            say(" ".join(str(error).split()), name)
            raise SystemExit(1) from None
