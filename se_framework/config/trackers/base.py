"""The contract of a tracker: four calls, and what a run is told of as it begins."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from se_framework.errors import ConfigError, RunDirectoryError
from se_framework.runs.files import make_folder

Status = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class Tracked:
    """A run as a tracker is told of it.

    Attributes:
        id: 16 hexadecimal digits, the same whenever the run goes on.
        name: the last two names of its directory.
        group: those of the sweep that it is a job of; None for a run of its own.
        directory: of the run.
        settings: the resolved configuration by dotted key: numbers, texts, lists, None.
        resumed: whether this tracker was told of the run before.
    """

    id: str
    name: str
    group: str | None
    directory: Path
    settings: Mapping[str, Any]
    resumed: bool

    def simple(self) -> dict[str, bool | int | float | str]:
        """Return the settings with lists and None as texts."""
        kinds = (bool, int, float, str)
        return {key: value if isinstance(value, kinds) else str(value) for key, value in self.settings.items()}

    def folder(self, name: str, written_into: bool = True) -> Path:
        """Return a folder of the run's directory for files of the tracker, made where it is absent.

        Args:
            name: of the folder.
            written_into: whether what is in it already will be written to, and not only new names beside it.

        Raises:
            RunDirectoryError: it, or what will be written to, leads elsewhere: the directory may be a stranger's.
        """
        folder = self.directory / name
        if folder.is_symlink():
            raise RunDirectoryError(f"{folder} is a symbolic link: remove it")
        make_folder(folder)
        home = folder.resolve()
        for entry in folder.rglob("*") if written_into else ():
            if entry.is_symlink() and not Path(os.path.realpath(entry)).is_relative_to(home):
                raise RunDirectoryError(f"{entry} leads out of {folder}: remove it")
        return folder


class Tracker:
    """Base of trackers: what a run tells, in the order in which it happens, each round once.

    The constructor's arguments are the keys of its YAML. It refuses what is wrong with them, a missing library
    included, and opens nothing: that is for :meth:`begin`. Whatever a method raises is told once, and the run goes on
    without the tracker. A round comes once only: a run that goes on does not tell again what it has told.
    """

    def begin(self, run: Tracked) -> None:
        """Open what the run is kept in, or go on with it."""
        raise NotImplementedError

    def figures(self, round: int, figures: Mapping[str, float]) -> None:
        """Keep figures of a round.

        Args:
            round: rounds completed.
            figures: by name: columns of ``metrics.csv`` as they are, those of ``scores.csv`` as ``scores/NAME``, the
                scores at the end as ``summary/NAME``. They may be infinite or NaN.
        """
        raise NotImplementedError

    def picture(self, round: int, name: str, file: Path) -> None:
        """Keep a picture of a round: a PNG file, by the name of its kind, e.g. ``frames``, ``samples/member_0``."""

    def end(self, round: int, status: Status) -> None:
        """Close: finished, stopped by a signal (the run may go on), or failed."""


def required(module: str, choice: str) -> Any:
    """Import the library of a choice, an extra of the same name.

    Raises:
        ConfigError: it is absent; the message names the extra.
    """
    top = module.partition(".")[0]
    try:
        found = importlib.util.find_spec(top)
        if found is None or found.origin is None:  # a folder of that name, as trackers leave, is no library
            raise ModuleNotFoundError(f"No module named {top!r}")
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"tracker={choice} needs the package {choice} ({error}): pip install 'se-framework[{choice}]'"
        ) from error
