"""Files that claim more than they hold: refused by their tables of contents, before anything is allocated."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from se_framework.errors import DataError

SMALL = 2**30
"""Bytes that any file may unfold to."""
RATIO = 100
"""How many times its size a larger file may unfold: numbers drawn at random shrink by less than 2, sparse ones by 20;
only constants shrink more."""


def refuse_bombs(file: Path, what: str) -> None:
    """Refuse an .npy or .npz file that would unfold to far more than it is.

    Args:
        file: an existing file.
        what: how an error names it.

    Raises:
        DataError: see above.
    """
    size, limit = file.stat().st_size, max(SMALL, RATIO * file.stat().st_size)
    if file.suffix.lower() == ".npy":
        with file.open("rb") as stream:
            _check_header(stream, size, what)
        return
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        total = sum(member.file_size for member in members)
        if total > limit:
            raise DataError(f"{what} has {size} bytes and would unfold to {total}; write it again without compression")
        for member in members:  # numpy looks at what a member holds, not at its name
            with archive.open(member) as stream:
                _check_header(stream, member.file_size, what)


def _check_header(stream: IO[bytes], size: int, what: str) -> None:
    """Refuse an array whose header claims more bytes than there are; other damage is left to numpy to name."""
    try:
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(stream)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile):
        return
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > size and not dtype.hasobject:
        raise DataError(f"{what} claims an array of shape {shape}, {claimed} bytes, and has {size}; write it again")
