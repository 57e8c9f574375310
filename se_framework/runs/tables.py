"""Tables of a run as they are read: typed where something depends on them, of limited size, whoever wrote them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from se_framework.errors import RunDirectoryError
from se_framework.reading import LARGEST_NUMBER, UnreadableError, opened, read_bytes, shortly

LARGEST = 2**27
"""Bytes of a table."""
MOST_CELLS = 2**22
"""Cells of a table: 200,000 rows of twenty columns, some 0.5 GB in memory."""
MOST_COLUMNS = 1000
_LONGEST_LINE = 2**20


def table(file: Path, counts: Sequence[str] = ("round",), numbers: Sequence[str] = ()) -> Iterator[dict[str, str]]:
    """Yield a table's rows as text; a line cut short by a kill is left out.

    Args:
        file: of comma-separated values, the first line names the columns.
        counts: columns that must be there and hold whole numbers from 0.
        numbers: columns that must be there and hold numbers.

    Raises:
        FileNotFoundError: there is none.
        UnreadableError: it is no regular file, too large, no table, or has other columns or values.
    """
    content = read_bytes(file, LARGEST)
    whole = content[: content.rfind(b"\n") + 1]
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(whole), "utf-8", "replace", newline=""))
    try:
        columns = next(reader, [])
        if not whole:
            return
        if len(columns) > MOST_COLUMNS or len(set(columns)) < len(columns):
            raise UnreadableError(f"it has {len(columns)} columns, some of one name or more than {MOST_COLUMNS}")
        for name in (*counts, *numbers):
            if name not in columns:
                listed = ", ".join(columns)
                raise UnreadableError(f"it has no column '{name}' (columns: {listed[:80]})")
        cells = 0
        for line in reader:
            if len(line) != len(columns):
                continue
            cells += len(line)
            if cells > MOST_CELLS:
                raise UnreadableError(f"it has more than {MOST_CELLS} cells")
            row = dict(zip(columns, line, strict=True))
            for name in (*counts, *numbers):
                if not (_is_count if name in counts else _is_number)(row[name]):
                    kind = "a whole number" if name in counts else "a number"
                    raise UnreadableError(f"line {reader.line_num} has {shortly(row[name])} for {name}, not {kind}")
            yield row
    except csv.Error as error:
        raise UnreadableError(f"line {reader.line_num} is none of a table ({error})") from error


def rows_of(file: Path, counts: Sequence[str] = ("round",), numbers: Sequence[str] = ()) -> Iterator[dict[str, str]]:
    """Yield the rows of a run's table, see :func:`table`; none where there is no such file.

    Raises:
        RunDirectoryError: it is no table of a run.
    """
    try:
        yield from table(file, counts, numbers)
    except FileNotFoundError:
        return
    except UnreadableError as error:
        raise RunDirectoryError(f"{file} is no table of a run: {error}; put it back, or remove it") from error


def columns_of(file: Path) -> list[str] | None:
    """Return the columns of a run's table, None where there is no such file or nothing in it.

    Raises:
        RunDirectoryError: it is no table.
    """
    try:
        with opened(file) as (stream, _):
            line = stream.readline(_LONGEST_LINE).decode("utf-8", "replace")
        return next(csv.reader([line]), None) or None
    except FileNotFoundError:
        return None
    except (UnreadableError, csv.Error) as error:
        raise RunDirectoryError(f"{file} is no table of a run: {error}; put it back, or remove it") from error


def _is_count(cell: str) -> bool:
    return _is_number(cell) and 0 <= float(cell) < LARGEST_NUMBER and float(cell).is_integer()


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
