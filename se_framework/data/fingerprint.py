"""What data is, in one line: a hash by which a resumed run knows that it reads what it was started with.

Up to :data:`LIMIT` bytes every byte is hashed (SHA-256, about 1 GiB/s). Of more, blocks of one MiB at evenly spaced
places are hashed, the first and the last bytes among them, and the sizes of all: half a second whatever the size. A
change that misses every block and keeps the sizes is then not seen; a file written anew is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from se_framework.errors import DataError

BLOCK = 2**20
LIMIT = 512 * BLOCK
"""Bytes hashed at most."""


def of_text(text: str) -> str:
    """Return the fingerprint of a description."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:32]}"


Stamp = tuple[int, int, int]
"""By which a file that was changed or replaced is known: its number, size, and time of change."""


def stamps(files: Sequence[Path]) -> list[Stamp | None]:
    """Return the stamps of files, to be taken before they are read; None of a file that cannot be looked at."""
    return [_stamp(file) for file in files]


def _stamp(file: Path) -> Stamp | None:
    try:
        found = file.stat()
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def of_files(files: Sequence[Path], names: Sequence[str] = (), read: Sequence[Stamp | None] | None = None) -> str:
    """Return the fingerprint of files by their bytes, wherever they lie.

    Args:
        files: in a fixed order.
        names: what else counts, e.g. the names of the files where they say something (a class).
        read: their stamps before they were read: what is hashed shall be what was read.

    Raises:
        DataError: a file cannot be read, or is not what was read.
    """
    found = _of_files(files, names)
    for file, before in zip(files, read or (), strict=read is not None):
        if before != _stamp(file):
            raise DataError(f"data.path: {str(file)!r} was changed while it was read: start again")
    return found


def _of_files(files: Sequence[Path], names: Sequence[str]) -> str:
    try:
        sizes = [file.stat().st_size for file in files]

        def read(index: int, start: int, stop: int) -> bytes:
            with open(files[index], "rb") as file:
                file.seek(start)
                return file.read(stop - start)

        return _of_pieces(sizes, read, names)
    except OSError as error:
        raise DataError(f"data.path: {str(error.filename)!r} cannot be read ({error.strerror})") from error


def of_tensors(tensors: Sequence[Tensor]) -> str:
    """Return the fingerprint of tensors by shape, type and values."""
    arrays = [np.ascontiguousarray(tensor.detach().cpu().numpy()) for tensor in tensors]
    described = [f"{array.dtype.str}{array.shape}" for array in arrays]
    flat = [array.reshape(-1).view(np.uint8) for array in arrays]
    return _of_pieces([len(f) for f in flat], lambda index, start, stop: flat[index][start:stop].data, described)


def _of_pieces(
    sizes: Sequence[int], read: Callable[[int, int, int], bytes | memoryview], described: Sequence[str]
) -> str:
    """Hash the sizes, the descriptions, and the bytes of all pieces laid end to end, or blocks of them."""
    digest = hashlib.sha256(repr((list(sizes), list(described))).encode())
    ends = np.cumsum(sizes, dtype=np.int64)
    whole = int(ends[-1]) if len(ends) else 0
    for start, stop in _blocks(whole):
        while start < stop:
            index = int(np.searchsorted(ends, start, side="right"))
            offset = int(ends[index]) - sizes[index]
            end = min(stop, int(ends[index]))
            digest.update(read(index, start - offset, end - offset))
            start = end
    return f"sha256{'' if whole <= LIMIT else '-of-blocks'}:{digest.hexdigest()[:32]}"


def _blocks(whole: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop): all of ``whole`` bytes in blocks, or LIMIT / BLOCK evenly spaced blocks of more."""
    if whole <= LIMIT:
        yield from ((start, min(start + BLOCK, whole)) for start in range(0, whole, BLOCK))
    else:
        count = LIMIT // BLOCK
        yield from ((s, s + BLOCK) for s in ((whole - BLOCK) * i // (count - 1) for i in range(count)))
