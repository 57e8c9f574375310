"""Reading arrays from files that others wrote: numbers only, nothing is ever unpickled."""

from __future__ import annotations

import csv
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from se_framework.data.formats import check_dtype, read_npy, read_npz, read_pt
from se_framework.errors import DataError

EXTENSIONS = (".npy", ".npz", ".pt", ".csv")
DAMAGED = (
    ValueError, EOFError, KeyError, SyntaxError, RuntimeError, NotImplementedError, OverflowError, RecursionError,
    zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip
"""What the readers of a file raise that holds something else, or part of it."""


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
    file = Path(path).expanduser()
    extension = file.suffix.lower()
    if not file.exists():
        raise DataError(f"{option}: no file {str(file)!r} (seen from {str(Path.cwd())!r}); give an existing file")
    if not file.is_file():
        raise DataError(f"{option}: {str(file)!r} is not a file; give one of {', '.join(EXTENSIONS)}")
    if extension not in EXTENSIONS:
        found = f"{extension} files" if extension else "a file without extension"
        raise DataError(f"{option}: cannot read {found} ({str(file)!r}); use {', '.join(EXTENSIONS)}")
    if key is not None and extension != ".npz":
        raise DataError(f"data.key is {key!r} but {str(file)!r} is no .npz and holds one array; set data.key to null")
    if file.stat().st_size == 0:
        raise DataError(f"{option}: {str(file)!r} is empty; give a file with at least 4 rows")
    what = f"{option}: {str(file)!r}"
    try:
        if extension == ".csv":
            return _read_csv(file, what)
        if extension == ".pt":
            return _read_torch(file, what)
        return _read_numpy(file, key, what)
    except OSError as error:
        raise DataError(f"{option}: {str(file)!r} cannot be read ({error})") from error
    except MemoryError as error:
        raise DataError(f"{option}: {str(file)!r} does not fit into the memory of this machine") from error


def as_tensor(array: np.ndarray, what: str) -> Tensor:
    """Return a tensor with the values of a numeric array, whatever its byte order and strides.

    Args:
        array: any array.
        what: how an error names it.

    Raises:
        DataError: the array holds objects, text, records or dates.
    """
    check_dtype(array.dtype, what)
    if array.dtype.kind in "fc" and array.dtype.itemsize > (8 if array.dtype.kind == "f" else 16):
        array = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _read_numpy(file: Path, key: str | None, what: str) -> Tensor:
    try:
        with file.open("rb") as stream:
            zipped = stream.read(4) == b"PK\x03\x04"
        # An archive without members begins otherwise; numpy too looks at the content, not at the name.
        zipped = zipped or file.suffix.lower() == ".npz"
        return as_tensor(read_npz(file, key, what) if zipped else read_npy(file, what), what)
    except DataError:
        raise
    except (*DAMAGED, TypeError) as error:
        message = f"{what} is not a readable {file.suffix} file ({_first_line(error)}); write it again"
        raise DataError(message) from error


def _read_torch(file: Path, what: str) -> Tensor:
    try:
        return read_pt(file)
    except DAMAGED as error:
        raise DataError(
            f"{what} holds no plain tensor or is damaged ({_first_line(error)}), and nothing else is unpickled; "
            "write it by torch.save(tensor, path)"
        ) from error


def _read_csv(file: Path, what: str) -> Tensor:
    rows: list[list[float]] = []
    seen_line = False
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                header = not seen_line and not any(_is_number(cell) for cell in cells)
                seen_line = True
                if header:
                    continue
                rows.append(_numbers_of(cells, reader.line_num, what))
                if len(rows[-1]) != len(rows[0]):
                    raise DataError(
                        f"{what} has {len(rows[-1])} columns in line {reader.line_num} and {len(rows[0])} before; "
                        "give every row the same number of columns"
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        message = f"{what} is not a text table ({_first_line(error)}); write numbers separated by commas"
        raise DataError(message) from error
    return torch.tensor(rows, dtype=torch.float64)


def _numbers_of(cells: Sequence[str], line: int, what: str) -> list[float]:
    try:
        return [float(cell) for cell in cells]
    except ValueError:
        column = next(i for i, cell in enumerate(cells) if not _is_number(cell))
        found = repr(cells[column][:40]) if cells[column].strip() else "an empty cell"
        raise DataError(
            f"{what} has {found} in line {line}, column {column + 1}; only the first line may hold words, "
            "all other cells must be numbers separated by commas"
        ) from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
