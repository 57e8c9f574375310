"""Reading arrays from files that others wrote: numbers only, nothing is ever unpickled."""

from __future__ import annotations

import csv
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from se_framework.data.guards import refuse_bombs
from se_framework.data.torch_files import read_tensor
from se_framework.errors import DataError, nearest

EXTENSIONS = (".npy", ".npz", ".pt", ".csv")
# float32 holds every integer of 16 bits; wider ones need float64.
_NARROW = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.float16, torch.bfloat16, torch.float32)
# The types of whole numbers that torch can index, join and compare.
_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def read_array(path: str | Path, key: str | None = None, option: str = "data.path") -> Tensor:
    """Read one array of numbers.

    Args:
        path: a .npy, .npz, .pt (one tensor) or .csv file (commas, at most one header line); ``~`` is expanded.
        key: name of the array in an .npz file; may be None when the file holds one.
        option: the option that named the file, for messages.

    Returns:
        The array as stored, as a tensor.

    Raises:
        DataError: the file is missing, of another kind, unreadable, or would have to be unpickled.
    """
    file, extension = _existing(path, option)
    if key is not None and extension != ".npz":
        raise DataError(f"data.key is {key!r} but {str(file)!r} is no .npz and holds one array; set data.key to null")
    what = f"{option}: {str(file)!r}"
    try:
        if extension == ".csv":
            return _read_csv(file, what)
        if extension == ".pt":
            return read_tensor(file, what)
        refuse_bombs(file, what)
        return _read_numpy(file, key, what)
    except OSError as error:
        raise DataError(f"{option}: {str(file)!r} cannot be read ({error})") from error
    except MemoryError as error:
        raise DataError(f"{what} does not fit into memory; read it row by row with data=array_streamed") from error


def map_array(path: str | Path) -> np.ndarray:
    """Return the array of a .npy file mapped into memory: its values are read where they are used.

    Raises:
        DataError: the file is missing, no .npy file, damaged, or holds Python objects.
    """
    file, extension = _existing(path, "data.path")
    what = f"data.path: {str(file)!r}"
    if extension != ".npy":
        raise DataError(
            f"{what} cannot be read row by row, only .npy files can: write it by numpy.save, or take it into memory "
            "with data=array"
        )
    try:
        return np.lib.format.open_memmap(file, mode="r")
    except OSError as error:
        raise DataError(f"{what} cannot be read ({error})") from error
    except ValueError as error:
        if "Python objects" in str(error):
            raise DataError(
                f"{what} holds Python objects, which are never unpickled; give an array of numbers"
            ) from error
        raise DataError(f"{what} is not a readable .npy file ({_first_line(error)}); write it again") from error


def as_floats(rows: Tensor) -> Tensor:
    """Return numbers as float32 where that holds every value of their type, else as float64."""
    return rows.to(torch.float32 if rows.dtype in _NARROW else torch.float64)


def as_numbers(rows: Tensor, what: str) -> Tensor:
    """Return floats as :func:`as_floats` does, and whole numbers and booleans as whole numbers of at most 64 bits.

    Args:
        rows: real numbers of any type.
        what: how an error names them.

    Raises:
        DataError: an unsigned number does not fit into int64.
    """
    if rows.is_floating_point():
        return as_floats(rows)
    if rows.dtype in _WHOLE:
        return rows
    whole = rows.to(torch.int64)
    if rows.dtype == torch.uint64 and bool((whole < 0).any()):
        raise DataError(f"{what} holds whole numbers of 2^63 and more; give them as floats, or standardise them")
    return whole


def _existing(path: str | Path, option: str) -> tuple[Path, str]:
    """Return a file that exists and is not empty, and its extension."""
    file = Path(path).expanduser()
    extension = file.suffix.lower()
    if not file.exists():
        raise DataError(f"{option}: no file {str(file)!r} (seen from {str(Path.cwd())!r}); give an existing file")
    if not file.is_file():
        raise DataError(f"{option}: {str(file)!r} is not a file; give one of {', '.join(EXTENSIONS)}")
    if extension not in EXTENSIONS:
        found = f"{extension} files" if extension else "a file without extension"
        raise DataError(f"{option}: cannot read {found} ({str(file)!r}); use {', '.join(EXTENSIONS)}")
    if file.stat().st_size == 0:
        raise DataError(f"{option}: {str(file)!r} is empty; give a file with at least 4 rows")
    return file, extension


def as_tensor(array: np.ndarray, what: str) -> Tensor:
    """Return a tensor with the values of a numeric array, whatever its byte order and strides.

    Args:
        array: any array.
        what: how an error names it.

    Raises:
        DataError: the array holds objects, text, records or dates.
    """
    if np.ma.is_masked(array):
        raise DataError(f"{what} has {np.ma.count_masked(array)} masked values; fill them, or leave out their rows")
    if array.dtype.kind not in "biufc":
        kind = "Python objects" if array.dtype.kind == "O" else f"values of type {array.dtype}"
        raise DataError(f"{what} holds {kind}; give an array of real numbers")
    if array.dtype.kind in "fc" and array.dtype.itemsize > (8 if array.dtype.kind == "f" else 16):
        array = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _read_numpy(file: Path, key: str | None, what: str) -> Tensor:
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return as_tensor(loaded, what)
        with loaded as archive:
            names = list(archive.files)
            if not names:
                raise DataError(f"{what} holds no array; give a file with at least 4 rows")
            if key is None and len(names) > 1:
                choose = "choose one with data.key" if what.startswith("data.path") else "give a file with one array"
                raise DataError(f"{what} holds {len(names)} arrays ({', '.join(names)}); {choose}")
            if key is not None and key not in names:
                raise DataError(f"data.key: no array {key!r} in {str(file)!r}; {nearest(key, names)}")
            return as_tensor(archive[names[0] if key is None else key], what)
    except DataError:
        raise
    except (ValueError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        if "allow_pickle" in str(error) or "pickled" in str(error):
            message = f"{what} holds Python objects, which are never unpickled; give an array of numbers"
        else:
            message = f"{what} is not a readable {file.suffix} file ({_first_line(error)}); write it again"
        raise DataError(message) from error


def _read_csv(file: Path, what: str) -> Tensor:
    rows: list[list[float]] = []
    seen_line, header_seen = False, False
    first: list[str] = []
    plain = 0
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                header = not seen_line and not any(_is_number(cell) for cell in cells)
                seen_line = True
                if header:
                    header_seen = True
                    continue
                first = first or cells
                plain += all(cell.strip().isdecimal() for cell in cells)
                rows.append(_numbers_of(cells, reader.line_num, what))
                if len(rows[-1]) != len(rows[0]):
                    raise DataError(
                        f"{what} has {len(rows[-1])} columns in line {reader.line_num} and {len(rows[0])} before; "
                        "give every row the same number of columns"
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        message = f"{what} is not a text table ({_first_line(error)}); write numbers separated by commas"
        raise DataError(message) from error
    if len(rows) > 1 and plain == 1 and not header_seen and _like_names(first):
        raise DataError(
            f"{what} begins with {','.join(first)[:40]!r} and no other line has whole numbers alone: take it out if it "
            f"names the columns, write {float(first[0])} for {first[0].strip()} if it is a row"
        )
    return torch.tensor(rows, dtype=torch.float64)


def _numbers_of(cells: Sequence[str], line: int, what: str) -> list[float]:
    if not all(map(_is_number, cells)):
        column = next(i for i, cell in enumerate(cells) if not _is_number(cell))
        found = repr(cells[column][:40]) if cells[column].strip() else "an empty cell"
        raise DataError(
            f"{what} has {found} in line {line}, column {column + 1}; only the first line may hold words, "
            "all other cells must be numbers separated by commas"
        )
    return [float(cell) for cell in cells]


def _like_names(cells: Sequence[str]) -> bool:
    """Whether cells may name columns: whole numbers that count up, as 0,1,2 or 2019,2020."""
    if len(cells) < 2 or not all(cell.strip().isdecimal() for cell in cells):
        return False
    return all(int(b) == int(a) + 1 for a, b in zip(cells, cells[1:], strict=False))


def _is_number(cell: str) -> bool:
    """Whether a cell is a number as files have them: Python would read 2020_01_01, and digits of every script."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell and cell.isascii()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
