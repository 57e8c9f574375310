"""Images from a folder, and how a file becomes the bytes of an image."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from se_framework.data import fingerprint
from se_framework.data.pixels import PixelData
from se_framework.data.rows import MIN_ROWS, split
from se_framework.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")
LARGEST = 16384
"""Pixels on a side: an image of that size takes 0.8 GB."""
LONGEST = 2**16
"""Pixels on a side of a file: Pillow keeps a pointer for every line, 2.7 GB for 80 million lines of one pixel."""
# Pillow's other readers are never tried, whatever a file holds.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")


class ImageFolder(PixelData):
    r"""The images of a folder and its sub-folders: png, jpg, bmp, webp, gif (the first frame).

    Every image is turned as its EXIF data say, laid on white where it is transparent, scaled so that its shorter side
    has ``size`` pixels (bicubic, antialiased), and cut to the square in its middle. Hidden files and symbolic links
    are not read.

    Args:
        path: the folder; ``~`` is expanded.
        size: height and width of the images.
        grey: one channel of grey values (ITU-R 601 luma) in place of three of colour.
        labels: give the models the sub-folder of an image as its label: its place among the names of sub-folders, as
            sorted text ("10" before "2").
        held_out_fraction: share of the images that is never trained on.
        skip_broken: leave out, with a warning, what cannot be read as an image, in place of refusing the folder.

    Attributes:
        class_names: names of the sub-folders with images, in the order of the labels; empty for a flat folder.
        skipped: the files left out, relative to the folder.

    Raises:
        DataError: the folder or a file in it cannot be read, or there are fewer than four images.
    """

    def __init__(
        self,
        path: str | Path,
        size: int = 64,
        grey: bool = False,
        labels: bool = False,
        held_out_fraction: float = 0.1,
        skip_broken: bool = False,
    ) -> None:
        split(MIN_ROWS, held_out_fraction)  # a share out of range is refused before thousands of files are read
        folder, files = files_of(path, size, labels)
        stamps = fingerprint.stamps([folder / file for file in files])
        pixels = torch.empty((len(files), 1 if grey else 3, size, size), dtype=torch.uint8)
        readable, count = [False] * len(files), 0
        for number, file in enumerate(files):
            try:
                pixels[count] = torch.from_numpy(read_image(folder / file, size, grey))
            except DataError:
                if not skip_broken:
                    raise
            else:
                readable[number], count = True, count + 1
        self.images = found = kept(folder, files, readable, labels, stamps)
        self.class_names, self.skipped = found.class_names, found.skipped
        train, rest = split(len(found.files), held_out_fraction)
        classes = 0 if found.labels is None else len(found.class_names)
        super().__init__(pixels[: len(found.files)], train, rest, found.name, found.labels, classes)

    @property
    def origin(self) -> str:
        """How a message names the data."""
        return f"data.path: {str(self.images.folder)!r}"

    def fingerprint(self) -> str:
        """Return a hash of the names and bytes of the image files."""
        return self.images.fingerprint()


@dataclass(frozen=True)
class Images:
    """The image files of a folder.

    Attributes:
        folder, files, skipped: where they are; relative to it, sorted by name; those left out.
        class_names: names of the sub-folders with images, in the order of the labels; empty for a flat folder.
        labels: the class of every file, shape (N,), int64; None where none were asked for.
        stamps: of the files, before they were read.
    """

    folder: Path
    files: tuple[Path, ...]
    skipped: tuple[str, ...]
    class_names: tuple[str, ...]
    labels: Tensor | None
    stamps: tuple[fingerprint.Stamp | None, ...] = ()

    @property
    def name(self) -> str:
        """Return the name of the folder."""
        return self.folder.resolve().name or "images"

    def fingerprint(self) -> str:
        """Return a hash of the names and bytes of the files."""
        files = [self.folder / file for file in self.files]
        return fingerprint.of_files(files, [file.as_posix() for file in self.files], self.stamps)


def kept(
    folder: Path,
    files: Sequence[Path],
    readable: Sequence[bool],
    labels: bool,
    stamps: Sequence[fingerprint.Stamp | None],
) -> Images:
    """Return the files that can be read, with a warning of those that cannot, and their classes.

    Raises:
        DataError: fewer than four images, or labels were asked for and there are no classes.
    """
    read = tuple(file for file, good in zip(files, readable, strict=True) if good)
    skipped = tuple(str(file) for file, good in zip(files, readable, strict=True) if not good)
    if len(read) < MIN_ROWS:
        count = f"{len(read) or 'no'} image{'' if len(read) == 1 else 's'}"
        raise DataError(f"data.path: {str(folder)!r} holds {count}; give at least {MIN_ROWS}")
    if skipped:
        warnings.warn(
            f"data.path: {len(skipped)} of {len(files)} files in {str(folder)!r} are no readable images and left "
            f"out, the first is {skipped[0]!r}",
            stacklevel=3,
        )
    # A folder without sub-folders has no classes; a loose file beside sub-folders belongs to none of them.
    owners = [file.parts[0] if len(file.parts) > 1 else "" for file in read]
    names = tuple(sorted(set(owners) - {""}))
    numbers = _class_numbers(folder, read, owners, names) if labels else None
    chosen = tuple(stamp for stamp, good in zip(stamps, readable, strict=True) if good)
    return Images(folder, read, skipped, names, numbers, chosen)


def read_image(file: Path, size: int | None, grey: bool) -> np.ndarray:
    """Return an image file as bytes (C, H, W); see :func:`to_pixels`.

    Raises:
        DataError: the file is no image, damaged, or larger than ``PIL.Image.MAX_IMAGE_PIXELS``; the message names it.
    """
    from PIL import Image, ImageOps

    remedy = "remove it, or leave out what cannot be read with data.skip_broken=true"
    if file.suffix.lower() not in EXTENSIONS:
        raise DataError(f"data.path: {str(file)!r} is no image ({', '.join(EXTENSIONS)}); {remedy}")
    try:
        with warnings.catch_warnings():
            # Pillow warns of one such image and raises at twice its limit: neither is decoded.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=_FORMATS) as image:
                if max(image.size) > LONGEST:
                    raise Image.DecompressionBombError
                _scale_key(image, file)
                return to_pixels(ImageOps.exif_transpose(image), size, grey)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"data.path: {str(file)!r} has more than the {Image.MAX_IMAGE_PIXELS} pixels that are read, or more than "
            f"{LONGEST} on a side; scale it down, "
            f"or {remedy}"
        ) from error
    except Exception as error:  # noqa: BLE001  a damaged file may raise anything in a decoder
        reason = (str(error).splitlines() or [""])[0].replace(repr(str(file)), "it")[:120] or type(error).__name__
        raise DataError(f"data.path: {str(file)!r} cannot be read as an image ({reason}); {remedy}") from error


def _scale_key(image: Image, file: Path) -> None:
    """Bring the transparent colour of a PNG file to eight bits, as its pixels come: Pillow leaves it in the file's."""
    key = image.info.get("transparency")
    if image.format != "PNG" or not isinstance(key, (int, tuple)):
        return
    with file.open("rb") as stream:
        depth = stream.read(25)[24]
    if isinstance(key, int) and image.mode in ("1", "L") and depth < 8:
        image.info["transparency"] = key * 255 // (2**depth - 1)
    elif isinstance(key, tuple) and depth == 16:
        image.info["transparency"] = tuple(value >> 8 for value in key)


def to_pixels(image: Image, size: int | None, grey: bool) -> np.ndarray:
    """Return an image of Pillow's as bytes.

    Args:
        image: any mode; transparent parts become white, 16 bits become 8 by v / 257, rounded.
        size: side of the square; None keeps height and width.
        grey: one channel, else three.

    Returns:
        An array (C, H, W), uint8, C = 1 or 3.
    """
    from PIL import Image, ImageOps

    if image.mode.startswith("I"):
        # Sixteen bits of grey, which Pillow would clip at 255.
        deep = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
        key = image.info.get("transparency")
        small = ((deep + 128) // 257).astype(np.uint8)
        image = Image.fromarray(np.where(deep == key, np.uint8(255), small) if isinstance(key, int) else small)
    elif image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        colour = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colour.size, "white"), colour)
    image = image.convert("L" if grey else "RGB")
    if size is not None:
        # Pillow's filters widen with the factor of a reduction: no aliasing.
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    array = np.array(image)
    return array[None] if grey else array.transpose(2, 0, 1)


def files_of(path: str | Path, size: int, labels: bool = False) -> tuple[Path, list[Path]]:
    """Return a folder and the regular files below it that are not hidden, relative to it, sorted by name.

    Symbolic links are not read, with a warning; where labels are wanted, a class of nothing else is refused.

    Raises:
        DataError: see above; there is no such folder, or nothing in it.
    """
    if not 1 <= size <= LARGEST:
        raise DataError(f"data.size must lie in 1..{LARGEST} pixels, got {size}")
    folder = Path(path).expanduser()
    if not folder.exists():
        raise DataError(
            f"data.path: no folder {str(folder)!r} (seen from {str(Path.cwd())!r}); give an existing folder of images"
        )
    if not folder.is_dir():
        raise DataError(
            f"data.path: {str(folder)!r} is not a folder; give a folder of images (data=array reads a file of numbers)"
        )
    found: list[Path] = []
    links: list[Path] = []

    def visit(where: Path) -> None:
        with os.scandir(where) as entries:
            for entry in sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name):
                # Symbolic links, pipes and devices are neither.
                if entry.is_dir(follow_symlinks=False):
                    visit(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    found.append(Path(entry.path).relative_to(folder))
                elif entry.is_symlink():
                    links.append(Path(entry.path).relative_to(folder))

    try:
        visit(folder)
    except OSError as error:
        raise DataError(f"data.path: {str(folder)!r} cannot be read ({error}); make it readable") from error
    if not found:
        raise DataError(
            f"data.path: {str(folder)!r} is empty (hidden files and symbolic links are not read); give a folder with "
            f"at least {MIN_ROWS} images ({', '.join(EXTENSIONS)})"
        )
    if links:
        classes = {link.parts[0] for link in links if len(link.parts) > 1 or (folder / link).is_dir()}
        lost = sorted(classes - {file.parts[0] for file in found})
        if lost and labels and any(len(file.parts) > 1 for file in found):
            raise DataError(
                f"data.labels is true and of the class {lost[0]!r} in {str(folder)!r} there are symbolic links alone, "
                "which are not read; copy its files there, or take the class out"
            )
        warnings.warn(
            f"data.path: {len(links)} symbolic links in {str(folder)!r} are not read, the first is {str(links[0])!r}",
            stacklevel=3,
        )
    return folder, found


def _class_numbers(folder: Path, files: Sequence[Path], owners: Sequence[str], names: Sequence[str]) -> Tensor:
    loose = next((file for file, owner in zip(files, owners, strict=True) if not owner), None)
    if loose is not None:
        raise DataError(
            f"data.labels is true but {str(folder / loose)!r} lies in no sub-folder; put every image into the "
            "sub-folder of its class, or set data.labels=false"
        )
    if len(names) < 2:
        raise DataError(
            f"data.labels is true but {str(folder)!r} has one sub-folder of images ({names[0]}); give at least two, or "
            "set data.labels=false"
        )
    place = {name: i for i, name in enumerate(names)}
    return torch.tensor([place[owner] for owner in owners])
