"""Files that claim more than they hold: refused by their tables of contents, before anything is allocated."""

from __future__ import annotations

import math
import pickletools
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from se_framework.errors import DataError

SMALL = 2**30
"""Bytes that any file may unfold to."""
WRITE = "torch.save(tensor, path)"
RATIO = 100
"""How many times its size a larger file may unfold: numbers drawn at random shrink by less than 2, sparse ones by 20;
only constants shrink more."""


LARGEST_PICKLE = 2**16
"""Bytes of the pickle in a .pt file: that of one tensor has about two hundred."""
PICKLED = ("torch", "torch._utils", "torch.storage", "torch.serialization", "collections")
"""Modules a tensor's pickle names. torch's own reader also knows ``bytearray``, which takes any length there is."""


def refuse_bombs(file: Path, what: str) -> None:
    """Refuse an .npy, .npz or .pt file that would unfold to far more than it is.

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
        if file.suffix.lower() == ".pt":
            raise DataError(f"{what} holds no plain tensor or is damaged; write it by {WRITE} (torch 1.6 or later)")
        return
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        total = sum(member.file_size for member in members)
        if total > limit or (file.suffix.lower() == ".pt" and total > size):  # torch compresses nothing
            raise DataError(f"{what} has {size} bytes and would unfold to {total}; write it again without compression")
        if file.suffix.lower() == ".pt":
            _check_pickle(archive, what)
        else:
            for member in members:
                if member.filename.endswith(".npy"):
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


def _check_pickle(archive: zipfile.ZipFile, what: str) -> None:
    """Refuse a .pt file whose pickle is none of a tensor, by reading its instructions without following them."""
    for member in archive.infolist():
        if not member.filename.endswith("/data.pkl"):
            continue
        try:
            content = archive.read(member) if member.file_size <= LARGEST_PICKLE else b""
            named = [argument for code, argument, _ in pickletools.genops(content) if "GLOBAL" in code.name]
        except ValueError as error:
            raise DataError(f"{what} holds no plain tensor or is damaged; write it by {WRITE}") from error
        if not all(isinstance(name, str) and name.partition(" ")[0] in PICKLED for name in named):
            raise DataError(f"{what} holds more than a tensor, and nothing else is unpickled; write it by {WRITE}")
