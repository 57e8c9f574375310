"""The one reader of files that others may have written: regular files, of limited size, and JSON of limited depth.

A run directory may be a stranger's. Its files may be pipes (which hang who opens them), devices (which never end),
links (which lead anywhere), or hold more than memory does. Imports neither torch nor numpy.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

LARGEST_JSON = 2**22
"""Bytes; ours have some thousands."""
LARGEST_NUMBER = 2**53
"""Counters of ours are whole numbers below, which every program reads alike."""
_DEEPEST = 100
"""Levels of JSON; a checkpoint of an ensemble has some thirty."""
T = TypeVar("T")


class UnreadableError(ValueError):
    """A file is not what it should be; the message says why, for a sentence that names the file."""


@contextmanager
def opened(file: Path, largest: int | None = None, links: bool = False) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file and give it with its size in bytes.

    Args:
        file: its path.
        largest: bytes it may have; None for any number.
        links: whether the path may be a symbolic link.

    Raises:
        FileNotFoundError: there is nothing of that name.
        UnreadableError: it is something else than a regular file, may not be read, or is too large.
    """
    try:
        # Without O_NONBLOCK the opening of a pipe waits for a writer.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        link = not links and file.is_symlink()
        raise UnreadableError(
            "it is a symbolic link" if link else getattr(error, "strerror", "") or "no name"
        ) from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise UnreadableError("it is a directory" if stat.S_ISDIR(found.st_mode) else "it is no regular file")
    with os.fdopen(descriptor, "rb") as stream:
        if largest is not None and found.st_size > largest:
            raise UnreadableError(f"it has {found.st_size} bytes, more than the {largest} that are read")
        try:
            yield stream, found.st_size
        except OSError as error:
            raise UnreadableError(error.strerror or "it cannot be read") from error


def read_bytes(file: Path, largest: int, links: bool = False) -> bytes:
    """Return the content of a regular file of at most ``largest`` bytes; raises as :func:`opened` does."""
    with opened(file, largest, links) as (stream, size):
        return stream.read(size)


def read_json(file: Path, largest: int = LARGEST_JSON) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        FileNotFoundError, UnreadableError: see :func:`opened`; it is no JSON, no object, or nested too deep.
    """
    found = parse_json(read_bytes(file, largest))
    if not isinstance(found, dict):
        raise UnreadableError("it holds no names with values")
    return found


def parse_json(content: bytes | str) -> Any:
    """Return what JSON says.

    Raises:
        UnreadableError: it is no JSON, holds numbers that Python does not read, or is nested too deep.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"it is not JSON ({' '.join(str(error).split())[:80]})") from error
    level, depth = [found], 0
    while level:
        depth += 1
        if depth > _DEEPEST:
            raise UnreadableError(f"it is nested deeper than {_DEEPEST} levels")
        parts = [node.values() if isinstance(node, dict) else node for node in level if isinstance(node, (dict, list))]
        level = [node for part in parts for node in part if isinstance(node, (dict, list))]
    return found


def take(node: Any, *path: str, kind: Callable[[Any], T]) -> T:
    """Return what stands in a tree of dicts under a path, as a kind of value: :func:`number`, :func:`count`, ...

    Raises:
        UnreadableError: it is absent, or of another kind; the message names the path.
    """
    for name in path:
        if not isinstance(node, dict) or name not in node:
            raise UnreadableError(f"it lacks {'.'.join(path)}")
        node = node[name]
    try:
        return kind(node)
    except ValueError as error:
        raise UnreadableError(f"{'.'.join(path)} is not {error}, but {shortly(node)}") from error


def same(value: Any, wanted: Any) -> bool:
    """Whether a value of others is what is wanted, type included: a tensor has no answer to ``==``."""
    return type(value) is type(wanted) and bool(value == wanted)


def count(value: Any) -> int:
    """Return a whole number in 0..:data:`LARGEST_NUMBER` - 1; raises ValueError for all else."""
    if type(value) is not int or not 0 <= value < LARGEST_NUMBER:
        raise ValueError("a count")
    return value


def number(value: Any) -> float:
    """Return a number, or its name as a text (``"nan"``); raises ValueError for all else."""
    if type(value) not in (int, float, str):
        raise ValueError("a number")
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise ValueError("a number") from None


def text(value: Any) -> str:
    """Return a text; raises ValueError for all else."""
    if not isinstance(value, str):
        raise ValueError("a text")
    return value


def line(value: Any) -> str:
    """Return a text that can be shown as it is, one printable line of at most 1,000 characters; raises ValueError."""
    if not (found := text(value)).isprintable() or len(found) > 1_000:
        raise ValueError("a text of one line")
    return found


def texts(value: Any) -> list[str]:
    """Return a list of texts; raises ValueError for all else."""
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise ValueError("a list of texts")
    return value


def mapping(value: Any) -> dict[Any, Any]:
    """Return a dict; raises ValueError for all else."""
    if not isinstance(value, dict):
        raise ValueError("a mapping of names")
    return value


def shortly(value: Any) -> str:
    """Return a value in few characters, whatever it is: a number of thousands of digits has no text at all."""
    if isinstance(value, (bool, float, type(None))) or (isinstance(value, int) and abs(value) < 10**20):
        return repr(value)
    return repr(value[:40]) if isinstance(value, str) else f"a {type(value).__name__}"
