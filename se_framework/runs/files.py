"""Files that a kill, a full disk or a reader at the wrong moment cannot spoil.

A file appears whole or not at all: it is written beside its place, fsynced and renamed. A table grows by whole lines.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from se_framework.errors import RunDirectoryError
from se_framework.reading import UnreadableError, opened
from se_framework.runs.tables import columns_of, rows_of

PATIENCE = 100
"""Attempts to make a directory while others remove the empty ones above it."""


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn what the system refuses into one sentence that names the file."""
    try:
        yield
    except RunDirectoryError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunDirectoryError(f"{path} cannot be written ({reason}): make room, or allow writing there") from error


def format_cell(value: float | str) -> str:
    """Return a cell that reads back to the same number; whole numbers without a point."""
    if isinstance(value, str):
        return value
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))


def as_json(content: Any) -> bytes:
    """Return content as JSON that every reader accepts: what is not finite is a text, "NaN", "Infinity", "-Infinity".

    Python's ``float`` and JavaScript's ``Number`` read these texts.
    """
    return (json.dumps(_finite(content), indent=2, allow_nan=False) + "\n").encode()


def _finite(node: Any) -> Any:
    """Return a node of JSON without numbers that JSON does not have."""
    if isinstance(node, dict):
        return {key: _finite(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_finite(value) for value in node]
    if isinstance(node, float) and not math.isfinite(node):
        return "NaN" if math.isnan(node) else "Infinity" if node > 0 else "-Infinity"
    return node


def write_atomically(path: Path, content: bytes | bytearray) -> None:
    """Write a file that is either the old one or the new one, whatever kills the process.

    Raises:
        RunDirectoryError: the disk is full, or the directory may not be written to; the old file stands.
    """
    with growing(path) as file:
        file.write(content)


def _sync_entries(folder: Path) -> None:
    """Have the system write a directory's list of names: without it a power cut takes files that were synced."""
    try:
        held = os.open(folder, os.O_RDONLY)
    except PermissionError:  # it may be written to, not listed: there is nothing to be asked of
        return
    try:
        os.fsync(held)
    finally:
        os.close(held)


def make_folder(path: Path, new: bool = False) -> None:
    """Make a directory and what is missing above it, each of them durable in the directory that holds it.

    Args:
        path: of the directory.
        new: refuse one that is there.

    Raises:
        RunDirectoryError: it cannot be made.
    """
    with told(path):
        for attempt in range(PATIENCE):
            try:
                for folder in (*reversed(path.absolute().parents), path):
                    if not folder.is_dir() or (new and folder is path):
                        folder.mkdir(exist_ok=not new or folder is not path)
                        _sync_entries(folder.parent)
                return
            except FileNotFoundError:  # another process has removed an empty directory above before we were in it
                if attempt == PATIENCE - 1:
                    raise


@contextmanager
def growing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that is written piece by piece and appears under its name when it is whole, whatever kills us.

    Raises:
        RunDirectoryError: the disk is full, or the directory may not be written to; the old file stands.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with told(path):
        try:
            with open(temporary, "wb", opener=_no_link) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_entries(path.parent)


def append_row(file: Path, row: dict[str, float | str]) -> None:
    """Append a row to a table. A column that the table has not is added to it, with ``nan`` in the rows before.

    Raises:
        RunDirectoryError: the disk is full, or the directory may not be written to.
    """
    columns = columns_of(file)
    with told(file):
        new = columns is None
        if columns is not None and not set(row) <= set(columns):
            columns += [name for name in row if name not in columns]
            write_atomically(file, _text(columns, read_rows(file)))
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        if columns is None:
            columns = list(row)
            writer.writerow(columns)
        writer.writerow([format_cell(row.get(name, math.nan)) for name in columns])
        with open(file, "a", newline="", encoding="utf-8", opener=_no_link) as stream:
            stream.write(text.getvalue())
        if new:
            _sync_entries(file.parent)


def _text(columns: list[str], rows: list[dict[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="nan")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _no_link(path: str, flags: int) -> int:
    """Open a file, but not through a link: in a stranger's directory it may lead anywhere."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def read_rows(file: Path, counts: Sequence[str] = ("round",), numbers: Sequence[str] = ()) -> list[dict[str, str]]:
    """Return a table's rows as text, see :func:`se_framework.runs.tables.rows_of`."""
    return list(rows_of(file, counts, numbers))


def rows_up_to(file: Path, last_round: int) -> bytes | None:
    """Return a table without its rows of later rounds and without a line cut short; None if no row is left.

    A header goes with the last row: a line cut short may be all there was of it.
    """
    rows = [row for row in read_rows(file) if float(row["round"]) <= last_round]
    return _text(list(rows[0]), rows) if rows else None


def make_durable(file: Path) -> None:
    """Have the system write what it still holds of a file, if there is one."""
    try:
        with opened(file) as (stream, _):
            os.fsync(stream.fileno())
    except FileNotFoundError:
        return
    except UnreadableError as error:
        raise RunDirectoryError(f"{file} cannot be kept: {error}; remove it") from error
