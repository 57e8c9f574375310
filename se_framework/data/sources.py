"""Rows that are read when they are needed: of a Dataset, of a .npy file, of image files.

A source answers the same in the main process and in a worker, on the first run and on a resumed one: what it returns
is a function of (row, seed, epoch).
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from se_framework.data.images import read_image
from se_framework.data.readers import as_floats, as_numbers, as_tensor, map_array
from se_framework.errors import DataError
from se_framework.randomness import stream_seed

Stored = tuple[Tensor, Tensor | None]
r"""Rows as they are stored, shape (n, \*E), on the CPU, and their labels, shape (n,), where the source has some."""


@dataclass(frozen=True)
class Request:
    """Which rows: pairs (epoch, rows), read in this order."""

    seed: int
    parts: tuple[tuple[int, np.ndarray], ...]


class Source(ABC):
    """Rows by number, the same whoever reads them.

    Attributes:
        name: how an error names the data.
        event_shape: E, the shape of one row.
        whole: whether rows are whole numbers or booleans.
    """

    name: str
    event_shape: tuple[int, ...]
    whole: bool = False

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def gather(self, rows: np.ndarray, seed: int, epoch: int) -> Stored:
        r"""Return rows as a function of (rows, seed, epoch), shape (n, \*E).

        Raises:
            DataError: a row cannot be read; the message names it.
        """

    def read(self, request: Request) -> Stored:
        """Return the rows of a request."""
        found = [self.gather(rows, request.seed, epoch) for epoch, rows in request.parts]
        if len(found) == 1:
            return found[0]
        labels = [y for _, y in found if y is not None]
        return torch.cat([x for x, _ in found]), torch.cat(labels) if labels else None


class DatasetRows(Source):
    """The items of a map-style Dataset: tensors of one shape, or tuples that begin with one.

    Around every item torch's CPU generator, numpy's and Python's are seeded by (seed, epoch, row), so an augmentation
    that draws on them is fresh in every epoch and the same in every process; the caller's generators are put back.

    Args:
        dataset: has ``__len__`` and ``__getitem__``.
        classes: number K of classes where items are pairs (tensor, label in 0..K-1); 0 leaves labels out.

    Raises:
        DataError: the Dataset is empty, its first item is no tensor, or is another one when read again under the
            same seed.
    """

    def __init__(self, dataset: Any, classes: int = 0) -> None:
        self.dataset, self.classes, self.name = dataset, classes, type(dataset).__name__
        if not len(dataset):
            raise DataError(f"the {self.name} is empty; give at least 4 rows")
        with fixed_randomness():
            _seed_all(stream_seed(0, 0, "row 0"))
            first = self._item(0)[0]
        self._shape, self._dtype = first.shape, first.dtype
        self.event_shape, self.whole = tuple(first.shape) or (1,), not first.is_floating_point()
        if first.is_complex():
            raise DataError(f"the {self.name} holds complex numbers; give real ones, e.g. as two columns")
        zero = np.zeros(1, np.int64)
        if not torch.equal(self.gather(zero, 0, 0)[0], self.gather(zero, 0, 0)[0]):
            raise DataError(
                f"item 0 of the {self.name} is another one when read again under the same seed, so no run could be "
                "resumed: draw random numbers from torch's, numpy's or random's own functions, not from a generator "
                "that the Dataset keeps"
            )

    def __len__(self) -> int:
        """Return the length of the Dataset."""
        return len(self.dataset)

    def gather(self, rows: np.ndarray, seed: int, epoch: int) -> Stored:
        """Return items, each under its own seed."""
        points: list[Tensor] = []
        labels: list[int] = []
        with fixed_randomness():
            for row in rows.tolist():
                _seed_all(stream_seed(seed, epoch, f"row {row}"))
                point, label = self._item(row)
                if (point.shape, point.dtype) != (self._shape, self._dtype):
                    raise DataError(
                        f"item {row} of the {self.name} has shape {tuple(point.shape)} and type {point.dtype}, item 0 "
                        f"{tuple(self._shape)} and {self._dtype}; give all items one shape and type"
                    )
                points.append(point)
                labels.append(label)
        x = torch.stack(points).view(-1, *self.event_shape)
        broken = (~torch.isfinite(x.flatten(1)).all(1)).nonzero()
        if len(broken):
            raise DataError(
                f"item {rows[int(broken[0])]} of the {self.name} has NaN or infinite values; remove or fill them"
            )
        return x, torch.tensor(labels) if self.classes else None

    def _item(self, row: int) -> tuple[Tensor, int]:
        try:
            item = self.dataset[row]
        except Exception as error:  # noqa: BLE001  a user's Dataset may raise anything
            reason = (str(error).splitlines() or [""])[0][:160]
            raise DataError(
                f"item {row} of the {self.name} cannot be read ({type(error).__name__}: {reason}); mend the Dataset"
            ) from error
        parts = item if isinstance(item, tuple | list) and item else [item]
        if not isinstance(parts[0], Tensor):
            raise DataError(
                f"item {row} of the {self.name} is a {type(parts[0]).__name__}; its items must be tensors, "
                "or tuples that begin with one (e.g. transform=ToTensor())"
            )
        return parts[0].detach().cpu(), self._label(row, parts) if self.classes else 0

    def _label(self, row: int, parts: Sequence[Any]) -> int:
        label = parts[1] if len(parts) > 1 else None
        try:
            number = int(label)  # type: ignore[arg-type]
            if number == label and 0 <= number < self.classes:
                return number
        except (TypeError, ValueError):
            pass
        raise DataError(
            f"item {row} of the {self.name} has the label {label!r}, data.classes is {self.classes}; items must be "
            f"pairs (tensor, label in 0..{self.classes - 1})"
        )


class MappedRows(Source):
    """The rows of a .npy file, of which only those asked for are read.

    The file is mapped anew for every batch (60 microseconds), so that its pages (64 KiB around a row) do not pile up.

    Args:
        path: the file; ``~`` is expanded.
        floats: give whole numbers and booleans as floats, too.

    Raises:
        DataError: there is no such file, or it is no .npy file of numbers.
    """

    def __init__(self, path: str | Path, floats: bool) -> None:
        self.path, self.name = Path(path).expanduser(), f"data.path: {str(path)!r}"
        array = map_array(self.path)
        self._layout = array.shape, array.dtype
        if array.ndim == 0:
            raise DataError(f"{self.name} is a single number; give an array of shape (rows, ...)")
        if not array.size:
            raise DataError(f"{self.name} is empty (shape {array.shape}); give at least 4 rows")
        first = as_tensor(array[:1], self.name)
        if first.is_complex():
            raise DataError(f"{self.name} holds complex numbers; give real ones, e.g. as two columns")
        self.event_shape = tuple(first.shape[1:]) or (1,)
        self.floats, self.whole = floats, not (floats or first.is_floating_point())

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._layout[0][0]

    def stored(self, rows: np.ndarray | slice) -> Tensor:
        """Return rows in the type of the file, in the byte order of this machine."""
        array = map_array(self.path)
        if (array.shape, array.dtype) != self._layout:
            raise DataError(f"{self.name} was replaced by an array of shape {array.shape} while it was read; restart")
        return as_tensor(array[rows], self.name).view(-1, *self.event_shape)

    def gather(self, rows: np.ndarray | slice, seed: int = 0, epoch: int = 0) -> Stored:
        """Return rows as floats of 32 or 64 bits, or as whole numbers; they are the same under every seed."""
        x = self.stored(rows)
        return as_floats(x) if self.floats else as_numbers(x, self.name), None


class ImageFiles(Source):
    """Image files, decoded to bytes (C, size, size); see :class:`se_framework.data.images.ImageFolder`."""

    def __init__(self, folder: Path, files: Sequence[Path], size: int, grey: bool) -> None:
        self.folder, self.files, self.size, self.grey = folder, files, size, grey
        self.name, self.event_shape = str(folder), (1 if grey else 3, size, size)

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.files)

    def gather(self, rows: np.ndarray, seed: int = 0, epoch: int = 0) -> Stored:
        """Return images as uint8; they are the same under every seed."""
        x = torch.empty((len(rows), *self.event_shape), dtype=torch.uint8)
        for i, row in enumerate(rows.tolist()):
            x[i] = torch.from_numpy(read_image(self.folder / self.files[row], self.size, self.grey))
        return x, None


class ReadableFiles(ImageFiles):
    """Whether image files can be decoded: a boolean for every row in place of its image."""

    def gather(self, rows: np.ndarray, seed: int = 0, epoch: int = 0) -> Stored:
        """Return booleans, shape (n,)."""
        return torch.tensor([self._readable(row) for row in rows.tolist()]), None

    def _readable(self, row: int) -> bool:
        try:
            read_image(self.folder / self.files[row], self.size, self.grey)
        except DataError:
            return False
        return True


@contextmanager
def fixed_randomness() -> Iterator[None]:
    """Put the global generators of torch (CPU), numpy and Python back at the end, and compute on one thread.

    Sums of large tensors depend on the number of threads, and workers have one.
    """
    threads = torch.get_num_threads()
    states = torch.random.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        if threads > 1:
            torch.set_num_threads(1)
        yield
    finally:
        if threads > 1:
            torch.set_num_threads(threads)
        torch.random.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def _seed_all(seed: int) -> None:
    # torch.manual_seed would reset the generators of CUDA, too, which nobody puts back.
    torch.random.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
