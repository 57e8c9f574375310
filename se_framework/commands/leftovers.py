"""Empty directories that a command has made and not used are removed; those of the user stay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def no_empty_directories(directory: Path) -> Iterator[None]:
    """Remove, at the end, the empty directories that were not there at the start: below, at and above a directory.

    Args:
        directory: of a run or sweep. Directories that others have made meanwhile are empty for a moment only, and who
            makes one makes it again (:func:`~se_framework.runs.files.make_folder`).
    """
    absent = [folder for folder in (directory, *directory.parents) if not _there(folder)]
    before = {*_folders(directory)}
    try:
        yield
    finally:
        for folder in (*({*_folders(directory)} - before), *absent):
            with suppress(OSError, ValueError):
                folder.rmdir()  # refused where something is in it


def _there(folder: Path) -> bool:
    try:
        return folder.exists()
    except (OSError, ValueError):  # no directory can have that name: none is made
        return True


def _folders(directory: Path) -> list[Path]:
    try:
        return [entry for entry in directory.iterdir() if entry.is_dir() and not entry.is_symlink()]
    except (OSError, ValueError):
        return []
