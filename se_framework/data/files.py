"""Files of which a batch reads its own rows: arrays larger than the memory, folders of images."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from se_framework.data import fingerprint
from se_framework.data.images import files_of, kept
from se_framework.data.moments import Finite, Moments, chunks, exact, refuse_coarse
from se_framework.data.pixels import in_unit_range
from se_framework.data.readers import as_numbers, read_array
from se_framework.data.rows import MIN_ROWS, SPLIT_SEED, check_labels, split
from se_framework.data.sources import ImageFiles, MappedRows, ReadableFiles, Request
from se_framework.data.streamed import MANY, StreamedRows, each


class StreamedArray(StreamedRows):
    """The rows of a .npy file that need not fit in memory: the file is mapped, and a batch reads its own rows.

    The file is read once from end to end at every start, for NaN, and for mean and standard deviation.

    Args:
        path: the file; ``~`` is expanded.
        workers: processes that read ahead; 0 reads in this process.
        standardize: bring every feature to mean 0 and standard deviation 1 (undone in samples and scores).
        held_out_fraction: share of the rows that is never trained on.
        labels: a second file with one label in 0..K-1 per row of the first, in the same order; None for no labels.

    Raises:
        DataError: a file is missing or malformed; the message says where.
    """

    def __init__(
        self,
        path: str | Path,
        workers: int = 0,
        standardize: bool = True,
        held_out_fraction: float = 0.1,
        labels: str | Path | None = None,
    ) -> None:
        self._files = [Path(p).expanduser() for p in (path, labels) if p is not None]
        self._stamps = fingerprint.stamps(self._files)
        source = MappedRows(path, floats=standardize)
        super().__init__(source, held_out_fraction, workers)
        self.name = source.path.stem
        if labels is not None:
            found = read_array(labels, option="data.labels")
            numbers, self.classes = check_labels(found, len(source), f"data.labels: {str(labels)!r}")
            self.train_labels, self.rest_labels = numbers[self._index["train"]], numbers[self._index["rest"]]
        self._look_through(source, standardize)

    @property
    def origin(self) -> str:
        """How a message names the data."""
        return f"data.path: {str(self._files[0])!r}"

    def fingerprint(self) -> str:
        """Return a hash of the bytes of the files."""
        return fingerprint.of_files(self._files, read=self._stamps)

    def _look_through(self, source: MappedRows, standardize: bool) -> None:
        finite, moments = Finite(), Moments()
        held = torch.zeros(len(source), dtype=torch.bool)
        held[self._index["rest"]] = True
        for start, stop in chunks(len(source), self.event_shape):
            stored = source.stored(slice(start, stop))
            x = exact(stored if source.floats else as_numbers(stored, source.name))
            if x.is_floating_point():
                finite.add(x, start)
            moments.add(x[~held[start:stop]])
        finite.refuse(source.name, len(source))
        if standardize:
            self.loc, self.scale = moments.result()
        elif not source.whole and source.stored(slice(0, 1)).dtype == torch.float64 != self.dtype:
            refuse_coarse(*moments.result(), self.dtype, "set data.standardize=true")


class StreamedImages(StreamedRows):
    """A folder of images, as :class:`se_framework.data.images.ImageFolder` reads it, decoded when needed.

    A file that is no image is named when its turn comes; ``skip_broken`` finds them all at the start.

    Args:
        path: the folder; ``~`` is expanded.
        workers: processes that decode ahead; 0 decodes in this process.
        size: height and width of the images.
        grey: one channel of grey values in place of three of colour.
        labels: give the models the sub-folder of an image as its label.
        held_out_fraction: share of the images that is never trained on.
        skip_broken: decode every file once at every start, and leave out, with a warning, what is no image.

    Attributes:
        class_names: names of the sub-folders with images, in the order of the labels; empty for a flat folder.
        skipped: the files left out, relative to the folder.

    Raises:
        DataError: the folder cannot be read, or there are fewer than four images.
    """

    loc = 127.5
    scale = 127.5

    def __init__(
        self,
        path: str | Path,
        workers: int = 0,
        size: int = 64,
        grey: bool = False,
        labels: bool = False,
        held_out_fraction: float = 0.1,
        skip_broken: bool = False,
    ) -> None:
        split(MIN_ROWS, held_out_fraction)  # a share out of range is refused before thousands of files are read
        folder, files = files_of(path, size, labels)
        stamps = fingerprint.stamps([folder / file for file in files])
        readable = [True] * len(files)
        if skip_broken:
            pieces = torch.arange(len(files)).split(MANY // 4)
            requests = (Request(SPLIT_SEED, ((0, piece.numpy()),)) for piece in pieces)
            looked = list(each(ReadableFiles(folder, files, size, grey), requests, workers))
            readable = torch.cat([x for x, _ in looked]).tolist()
        self.images = found = kept(folder, files, readable, labels, stamps)
        super().__init__(ImageFiles(folder, found.files, size, grey), held_out_fraction, workers)
        self.name, self.class_names, self.skipped = found.name, found.class_names, found.skipped
        self.image_shape = self.event_shape
        if found.labels is not None:
            self.classes = len(self.class_names)
            self.train_labels, self.rest_labels = found.labels[self._index["train"]], found.labels[self._index["rest"]]

    def in_model_space(self, stored: Tensor, device: torch.device | str) -> Tensor:
        """Return images in [-1, 1]; they cross to the device as bytes."""
        return in_unit_range(stored, device)

    @property
    def origin(self) -> str:
        """How a message names the data."""
        return f"data.path: {str(self.images.folder)!r}"

    def fingerprint(self) -> str:
        """Return a hash of the names and bytes of the image files."""
        return self.images.fingerprint()
