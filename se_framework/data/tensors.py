"""Data that is a tensor, in memory or in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.laws import Particles
from se_framework.data import fingerprint
from se_framework.data.base import Data, image_shape_of, point_type
from se_framework.data.columns import steps
from se_framework.data.datasets import StreamedData
from se_framework.data.moments import Finite, exact, moments_of, refuse_coarse
from se_framework.data.readers import as_floats, as_numbers, as_tensor, read_array
from se_framework.data.rows import MIN_ROWS, SPLIT_SEED, Part, RowData, check_labels, split
from se_framework.data.sampler import Blocks
from se_framework.errors import DataError
from se_framework.randomness import generator


class TensorData(RowData):
    r"""Rows of a tensor, split once and for all into training and held-out rows.

    Args:
        x: points in user units, shape (N, \*E), a tensor or an array; (N,) is read as (N, 1). Integers and booleans
            come as int64, unless they are standardised.
        held_out_fraction: share of the rows that is never trained on, in (0, 1); at least one row.
        standardize: bring every feature to mean 0 and standard deviation 1 over the training rows; ``to_user`` undoes
            it. A feature that is constant over the training rows is only shifted.
        name: name for tables and file names.
        image_shape: (H, W) or (C, H, W) if points are images; E itself is taken when it has two or three dimensions
            that fit.
        labels: one whole number in 0..K-1 per row, shape (N,), K >= 2, for models that read a class; split like the
            rows.
        dequantise: add uniform noise to every column that takes few values, as wide as the least step between them,
            fresh in every epoch and fixed for held-out rows: without it a density is unbounded there. The mean
            log-density of such rows, plus the log of the steps, is a lower bound of the log-probability of the values
            (Theis, van den Oord, Bethge, "A note on the evaluation of generative models", ICLR 2016, eq. 4). Samples
            carry the noise too.

    Attributes:
        train: training rows in model space, shape (train_size, \*E), in the type in which they are stored, no noise.
        rest: held-out rows in model space.
        steps: width of the noise in model space, shape (\*E); None without noise.

    Raises:
        DataError: the values are not real finite numbers, there are fewer than four rows, or the labels do not fit.
    """

    def __init__(
        self,
        x: Tensor | np.ndarray,
        held_out_fraction: float = 0.1,
        standardize: bool = False,
        name: str = "tensor",
        image_shape: tuple[int, ...] | None = None,
        labels: Tensor | np.ndarray | None = None,
        dequantise: bool = False,
    ) -> None:
        rows = check_rows(x, "the data")
        given = exact(rows)
        rows = as_floats(rows) if standardize or dequantise else as_numbers(rows, "the data")
        train_index, rest_index = split(len(rows), held_out_fraction)
        if labels is not None:
            checked, self.classes = check_labels(labels, len(rows), "data.labels")
            self.train_labels, self.rest_labels = checked[train_index], checked[rest_index]
        loc: Tensor | float = 0.0
        scale: Tensor | float = 1.0
        if standardize:
            loc, scale = moments_of(given, rest_index)
        elif rows.dtype == torch.float64 and point_type(rows) != torch.float64:
            refuse_coarse(*moments_of(rows, rest_index), point_type(rows), "set data.standardize=true")
        train = rows[train_index]
        self._set(train, rows[rest_index], loc, scale, name, image_shape, steps(train) if dequantise else None)

    def _set(
        self,
        train: Tensor,
        rest: Tensor,
        loc: Tensor | float,
        scale: Tensor | float,
        name: str,
        image_shape: tuple[int, ...] | None,
        widths: Tensor | None = None,
    ) -> None:
        self.name, self.loc, self.scale = name, loc, scale
        self.event_shape = tuple(train.shape[1:])
        self.train_size, self.rest_size = len(train), len(rest)
        self.train, self.rest = self.to_model(train), self.to_model(rest)  # before any transform: noise comes first
        self.steps = None if widths is None else widths / scale
        if self.steps is not None:
            self.rest = self.rest + self._uniform(self.rest_size, generator(SPLIT_SEED, 0, "dequantize/held_out"))
        self._added = Blocks(self._uniform, "dequantize")
        size = torch.Size(self.event_shape).numel()
        if image_shape is not None and torch.Size(image_shape).numel() != size:
            raise DataError(f"data.image_shape {tuple(image_shape)} must hold {size} numbers, the size of one point")
        self.image_shape = tuple(image_shape) if image_shape is not None else image_shape_of(self.event_shape)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the points of a batch."""
        return point_type(self.train)

    @property
    def level_width(self) -> Tensor | None:  # type: ignore[override]
        """Width of the noise in user units, where every coordinate carries some."""
        return None if self.steps is None or not bool((self.steps > 0).all()) else self.steps * self.scale

    def rows(self, part: Part, index: Tensor, device: torch.device | str = "cpu") -> Tensor:
        r"""Return rows of ``train`` or ``rest``, shape (n, \*E)."""
        stored = self.train if part == "train" else self.rest
        return stored[index].to(device, self.dtype, non_blocking=True)

    def batches(self, start: int, n: int, seeds: Sequence[int], device: torch.device | str = "cpu") -> Particles:
        r"""Return ``batch(start, n, seed)`` of several seeds, stacked."""
        self._added.keep(len(seeds))
        return super().batches(start, n, seeds, device)

    def validation(self, n: int, device: torch.device | str = "cpu") -> Particles:
        r"""Return the validation rows with one fixed draw of the noise, shape (m, \*E)."""
        if self.steps is None or not self.validation_size:
            return super().validation(n, device)
        index = self.train_size + torch.arange(min(n, self.validation_size))
        noise = self._uniform(len(index), generator(SPLIT_SEED, 0, "dequantize/validation"))
        return self.points("train", index, device, noise)

    def _noise(self, start: int, n: int, seed: int) -> Tensor | None:
        return None if self.steps is None else self._added.rows(start, n, seed).x

    def _uniform(self, n: int, draw: torch.Generator) -> Tensor:
        r"""Draw the noise that fills the steps between values, shape (n, \*E), in float64."""
        assert self.steps is not None
        return torch.rand((n, *self.event_shape), generator=draw, dtype=torch.float64) * self.steps

    def _reorder(self, order: Tensor) -> None:
        self.train = self.train[order]
        self.train_labels = None if self.train_labels is None else self.train_labels[order]

    def fingerprint(self) -> str:
        """Return a hash of the rows and their labels."""
        labels = [t for t in (self.train_labels, self.rest_labels) if t is not None]
        return fingerprint.of_tensors([self.train, self.rest, *labels])


class ArrayData(TensorData):
    """Rows of a file: .npy, .npz, .pt (one tensor) or .csv. Nothing is unpickled.

    Args:
        path: the file; ``~`` is expanded.
        standardize: bring every feature to mean 0 and standard deviation 1 (undone in samples and scores).
        key: name of the array in an .npz file with several.
        held_out_fraction: share of the rows that is never trained on.
        labels: a second file with one label in 0..K-1 per row of the first, in the same order; None for no labels.
        dequantise: add uniform noise to columns that take few values, see :class:`TensorData`.

    Raises:
        DataError: a file is missing or malformed; the message says where.
    """

    def __init__(
        self,
        path: str | Path,
        standardize: bool = True,
        key: str | None = None,
        held_out_fraction: float = 0.1,
        labels: str | Path | None = None,
        dequantise: bool = False,
    ) -> None:
        self._files = [Path(p).expanduser() for p in (path, labels) if p is not None]
        self._stamps = fingerprint.stamps(self._files)
        rows = check_rows(read_array(path, key), f"data.path: {str(path)!r}")
        classes = None
        if labels is not None:
            classes = check_labels(read_array(labels, option="data.labels"), len(rows), f"data.labels: {str(labels)!r}")
        super().__init__(
            rows,
            held_out_fraction,
            standardize,
            name=Path(path).stem,
            labels=classes[0] if classes else None,
            dequantise=dequantise,
        )

    @property
    def origin(self) -> str:
        """How a message names the data."""
        return f"data.path: {str(self._files[0])!r}"

    def fingerprint(self) -> str:
        """Return a hash of the bytes of the files."""
        return fingerprint.of_files(self._files, read=self._stamps)


def as_data(source: Any, workers: int = 0) -> Data:
    """Return ``source`` as :class:`Data`.

    Args:
        source: a Data, a tensor, an array, or a map-style torch Dataset whose items are tensors, or tuples that begin
            with one (the rest, such as a label, is left out). A Dataset is read item by item in every epoch, so that
            what is random in it stays random; a TensorDataset is its first tensor.
        workers: processes that read the items of a Dataset ahead.

    Raises:
        DataError: the source is anything else, or its rows are malformed.
    """
    if isinstance(source, Data):
        return source
    if isinstance(source, Tensor | np.ndarray):
        return TensorData(source)
    if isinstance(source, torch.utils.data.DataLoader):
        raise DataError(
            "data is a DataLoader, whose batches follow no seed of ours: give its dataset, loader.dataset, and "
            f"loop.batch_size={source.batch_size}, workers={source.num_workers}"
        )
    if isinstance(source, torch.utils.data.IterableDataset):
        raise DataError(
            "data is an IterableDataset, whose items have no numbers, so a run could not be resumed: write a Sampler "
            "with draw(n, generator) for what is made, or a Dataset with __len__ and __getitem__ for what is stored"
        )
    if isinstance(source, torch.utils.data.TensorDataset):
        return TensorData(source.tensors[0])
    if isinstance(source, torch.utils.data.Dataset) and hasattr(source, "__len__"):
        return StreamedData(source, workers)
    raise DataError(
        f"data is a {type(source).__name__}; give a Data, a tensor or array of shape (rows, ...), "
        "or a torch Dataset with a length whose items are tensors"
    )


def check_rows(x: Tensor | np.ndarray, what: str) -> Tensor:
    r"""Return x as finite real rows (N, \*E) with N >= 4, floats in float32 or float64.

    Args:
        x: a tensor or an array.
        what: how an error names it.

    Raises:
        DataError: see the messages.
    """
    if isinstance(x, Tensor) and (x.layout is not torch.strided or x.is_nested):
        kind = "nested tensor; give padded rows" if x.is_nested else "sparse tensor; give x.to_dense()"
        raise DataError(f"{what} is a {kind}")
    if isinstance(x, Tensor) and hasattr(x, "get_mask"):
        raise DataError(f"{what} is a masked tensor; give x.to_tensor(VALUE), or leave out its rows")
    rows = as_tensor(x, what) if isinstance(x, np.ndarray) else x.detach().cpu()
    if rows.numel() == 0:
        raise DataError(f"{what} is empty (shape {tuple(rows.shape)}); give at least {MIN_ROWS} rows")
    if rows.ndim == 0:
        raise DataError(f"{what} is a single number; give an array of shape (rows, ...)")
    if rows.is_complex():
        raise DataError(f"{what} holds complex numbers; give real ones, e.g. real and imaginary parts as two columns")
    rows = as_floats(rows) if rows.is_floating_point() else rows
    rows = rows[:, None] if rows.ndim == 1 else rows
    if len(rows) < MIN_ROWS:
        raise DataError(f"{what} has {len(rows)} rows of shape {tuple(rows.shape[1:])}; give at least {MIN_ROWS} rows")
    if rows.is_floating_point():
        finite = Finite()
        finite.add(rows, 0)
        finite.refuse(what, len(rows))
    return rows
