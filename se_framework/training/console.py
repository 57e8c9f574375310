"""What is said on the standard streams: one that is full, closed, absent or left by its reader ends no run."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any


def put(text: str, to: str = "stderr") -> None:
    """Print a line.

    Args:
        text: the line.
        to: ``stdout`` for what was asked for, ``stderr`` for what is said about it.
    """
    stream: Any = getattr(sys, to)
    if stream is None:  # the process was started without
        return
    try:
        print(text, file=stream, flush=True)
    except (OSError, ValueError):
        silence(to)


def silence(name: str) -> None:
    """Let a stream lead nowhere from now on: what it still holds would fail again when the interpreter ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, getattr(sys, name).fileno())
        os.close(nowhere)


def open_streams() -> None:
    """Open standard streams that are closed: else the next file would take their number, and get what is printed."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def is_terminal() -> bool:
    """Whether standard error is a terminal."""
    try:
        return bool(sys.stderr.isatty())
    except (AttributeError, OSError, ValueError):
        return False
