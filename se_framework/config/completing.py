"""Completion in a shell is Hydra's; here it learns of the user's own folder of configurations. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

FLAGS, FOLDER = ("--shell-completion", "-sc"), ("--config-dir", "-cd")


def with_folder(words: Sequence[str], line: str) -> list[str]:
    """Return the words of a call by which a shell asks what could stand next, with the folder that its line names.

    Args:
        words: of the call, ``-sc query=bash``; others are returned as they are.
        line: what the user has typed so far, as the shell hands it over in ``COMP_LINE``.
    """
    typed = line.split()
    if any(word in FLAGS for word in words) and not any(word in FOLDER for word in words):
        for flag, folder in zip(typed, typed[1:], strict=False):
            if flag in FOLDER and Path(folder).expanduser().is_dir():
                return [*words, "--config-dir", str(Path(folder).expanduser())]
    return list(words)
