"""What the user is told: on streams that may be closed, full or absent, and as commands that can be pasted."""

from __future__ import annotations

import errno
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from se_framework.errors import printable

PLAIN = re.compile(r"(?=.*/)[A-Za-z0-9_./-]+", re.ASCII)
"""Values that Hydra's grammar takes as they are, as texts: paths of the simplest kind."""


class Tolerant:
    """A text stream whose failures end nothing: what nobody reads, or what finds no room, is not written.

    Args:
        stream: any, or None.
        own: whether it is the process's standard stream: after a failure its descriptor leads nowhere, so that what
            is left in buffers fails no more.
    """

    def __init__(self, stream: Any, own: bool = False) -> None:
        self.stream, self.own = stream, own

    def write(self, text: str) -> int:
        """Write what can be written, and return the length of the text."""
        try:
            self.stream.write(text)
        except UnicodeEncodeError as error:
            self.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        except (OSError, ValueError, AttributeError) as error:
            self._lost(error)
        return len(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        try:
            self.stream.flush()
        except (OSError, ValueError, AttributeError) as error:
            self._lost(error)

    def isatty(self) -> bool:
        """Return whether it is a terminal; a stream that does not say is none."""
        try:
            return bool(self.stream.isatty())
        except (OSError, ValueError, AttributeError):
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _lost(self, error: Exception) -> None:
        if not self.own:
            return
        try:
            number = self.stream.fileno()
        except (OSError, ValueError, AttributeError):
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
        if number == 1 and isinstance(error, OSError) and error.errno != errno.EPIPE:
            say(f"standard output cannot be written ({error.strerror}): what is printed is lost, the command goes on")


def open_streams() -> None:
    """Open the descriptors 0, 1 and 2 where they are closed: else the next file would take their place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)


def tolerate_streams() -> None:
    """Let a standard stream that fails, or is absent, end no command."""
    open_streams()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, Tolerant):
            setattr(sys, name, Tolerant(stream, own=True))


def say(sentence: str, command: str = "se-train") -> None:
    """Tell the user a sentence on standard error, if anybody reads that."""
    stream = Tolerant(sys.stderr)
    stream.write(f"{command}: {printable(sentence)}\n")
    stream.flush()


def override(key: str, value: object) -> str:
    """Return ``KEY=VALUE`` as a word that the shell hands on whole and Hydra's grammar reads as the text it is.

    A relative path is given as one, lest its name means something (``auto``).
    """
    text = str(value)
    if isinstance(value, Path) and not text.startswith(("/", ".")):
        text = f"./{text}"
    return shlex.quote(f"{key}={hydra_text(text)}")


def hydra_text(text: str) -> str:
    r"""Return a text as a value of Hydra's grammar: in double quotes where it would not be read as it stands.

    In quotes, backslashes are literal save before a quote, where half of them is taken, and before ``${``, which begins
    an interpolation unless one stands before it.
    """
    if PLAIN.fullmatch(text):
        return text
    inner = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    inner = re.sub(r'(\\*)"', r'\1\1\\"', inner)
    inner = re.sub(r"(\\+)$", r"\1\1", inner)
    return f'"{inner}"'


def word(path: Path) -> str:
    """Return a path as a word of a command that takes ``RUN_DIR KEY=VALUE``, which shall not read it as a key."""
    text = str(path)
    return shlex.quote(text if text.startswith(("/", "./", "../")) else f"./{text}")
