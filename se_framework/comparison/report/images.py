"""Pictures of a run inside the page: PNG files of anybody, decoded by one decoder, reduced to a budget of bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from se_framework.pictures.frames import LARGEST, PIXELS
from se_framework.reading import UnreadableError, read_bytes

if TYPE_CHECKING:
    from PIL import Image

COLOURS = (256, 64, 32)
"""Palettes that are tried until a picture fits."""
SMALLEST = 160
"""Pixels of width below which a picture shows nothing."""


def data_uri(file: Path, budget: int, width: int) -> str:
    """Return a picture as an address that holds it; one that has not changed since is not decoded again.

    Args:
        file: a PNG.
        budget: bytes of the result: fewer colours, then a smaller size, until it fits or is of the smallest.
        width: pixels at most.

    Raises:
        UnreadableError: it is no PNG, or too large to be one of ours.
    """
    try:
        found = file.stat(follow_symlinks=False)
    except OSError as error:
        raise UnreadableError(error.strerror or "it cannot be read") from error
    return _encoded(file, (found.st_mtime_ns, found.st_size), budget, width)


@lru_cache(maxsize=1024)
def _encoded(file: Path, seen: tuple[int, int], budget: int, width: int) -> str:
    from PIL import Image

    try:
        content = read_bytes(file, LARGEST)
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.width * image.height > PIXELS:
                raise UnreadableError(f"it has {image.width} x {image.height} pixels")
            picture = image.convert("RGB")
    except UnreadableError:
        raise
    except Exception as error:  # noqa: BLE001  the file may be anybody's
        raise UnreadableError(f"it is no picture ({' '.join(str(error).split())[:80]})") from error
    if picture.width > width:
        picture = _narrowed(picture, width)
    while True:
        for colours in COLOURS:
            buffer = io.BytesIO()
            small = picture.quantize(colours, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            small.save(buffer, format="PNG", optimize=True)
            if len(buffer.getvalue()) * 4 // 3 <= budget:
                break
        else:
            if picture.width > SMALLEST:
                picture = _narrowed(picture, max(SMALLEST, int(0.7 * picture.width)))
                continue
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _narrowed(picture: Image.Image, width: int) -> Image.Image:
    """Return a picture of another width and the same shape."""
    from PIL.Image import Resampling

    return picture.resize((width, max(1, round(picture.height * width / picture.width))), Resampling.BOX)


def spread(items: Sequence[tuple[int, Path]], most: int) -> list[tuple[int, Path]]:
    """Return at most ``most`` of them, the first and the last among these, evenly between."""
    if len(items) <= most:
        return list(items)
    if most < 2:
        return [items[-1]]
    return [items[round(k * (len(items) - 1) / (most - 1))] for k in range(most)]
