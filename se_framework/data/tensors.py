"""Data that is a tensor: in memory, in a file, or the bundled digits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.laws import Particles
from se_framework.data import fingerprint
from se_framework.data.base import Data, image_shape_of, point_type
from se_framework.data.datasets import StreamedData
from se_framework.data.moments import Finite, exact, moments_of, refuse_coarse
from se_framework.data.readers import as_floats, as_numbers, as_tensor, read_array
from se_framework.data.rows import MIN_ROWS, SPLIT_SEED, Part, RowData, check_labels, split
from se_framework.data.sampler import Blocks
from se_framework.errors import DataError
from se_framework.randomness import generator

_LEVELS = 17  # values of a pixel of scikit-learn's digits


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

    Attributes:
        train: training rows in model space, shape (train_size, \*E), in the type in which they are stored.
        rest: held-out rows in model space.

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
    ) -> None:
        rows = check_rows(x, "the data")
        given = exact(rows)
        rows = as_floats(rows) if standardize else as_numbers(rows, "the data")
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
        self._set(rows[train_index], rows[rest_index], loc, scale, name, image_shape)

    def _set(
        self,
        train: Tensor,
        rest: Tensor,
        loc: Tensor | float,
        scale: Tensor | float,
        name: str,
        image_shape: tuple[int, ...] | None,
    ) -> None:
        self.name, self.loc, self.scale = name, loc, scale
        self.event_shape = tuple(train.shape[1:])
        self.train_size, self.rest_size = len(train), len(rest)
        self.train, self.rest = self.to_model(train), self.to_model(rest)
        size = torch.Size(self.event_shape).numel()
        if image_shape is not None and torch.Size(image_shape).numel() != size:
            raise DataError(f"data.image_shape {tuple(image_shape)} must hold {size} numbers, the size of one point")
        self.image_shape = tuple(image_shape) if image_shape is not None else image_shape_of(self.event_shape)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the points of a batch."""
        return point_type(self.train)

    def rows(self, part: Part, index: Tensor, device: torch.device | str = "cpu") -> Tensor:
        r"""Return rows of ``train`` or ``rest``, shape (n, \*E)."""
        stored = self.train if part == "train" else self.rest
        return stored[index].to(device, self.dtype, non_blocking=True)

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
    ) -> None:
        self._files = [Path(p).expanduser() for p in (path, labels) if p is not None]
        self._stamps = fingerprint.stamps(self._files)
        rows = check_rows(read_array(path, key), f"data.path: {str(path)!r}")
        classes = None
        if labels is not None:
            classes = check_labels(read_array(labels, option="data.labels"), len(rows), f"data.labels: {str(labels)!r}")
        super().__init__(
            rows, held_out_fraction, standardize, name=Path(path).stem, labels=classes[0] if classes else None
        )

    @property
    def origin(self) -> str:
        """How a message names the data."""
        return f"data.path: {str(self._files[0])!r}"

    def fingerprint(self) -> str:
        """Return a hash of the bytes of the files."""
        return fingerprint.of_files(self._files, read=self._stamps)


class Digits(TensorData):
    """The 1,797 handwritten digits of 8 x 8 pixels bundled with scikit-learn: pixels 0..16, model space [-1, 1].

    The split is 70/30, stratified, the same always.

    Args:
        labels: give the models the digit as a label; ``train_labels`` and ``rest_labels`` are known either way.

    Attributes:
        train_labels: labels of the training rows, shape (1257,).
        rest_labels: labels of the held-out rows, shape (540,).
    """

    train_labels: Tensor
    rest_labels: Tensor

    def __init__(self, labels: bool = False) -> None:
        train, rest, self.train_labels, self.rest_labels = _split_digits()
        self.classes = 10 if labels else 0
        self._set(train, rest, 8.0, 8.0, "digits", (8, 8))


class DequantizedDigits(TensorData):
    r"""The digits as a law with a density: :math:`(x+u)/17`, x in 0..16 a pixel, :math:`u\sim U[0,1)` fresh per epoch.

    Without u, pixels lie on 17 values and the likelihood of a flow is unbounded. The split is that of :class:`Digits`;
    held-out rows carry one fixed draw of u, so likelihoods of different models and seeds compare.

    Source: Uria, Murray, Larochelle, "RNADE", NIPS 2013, section 6.1.

    Attributes:
        train: training rows without noise, x / 17, shape (1257, 64).
        train_labels: labels of the training rows, shape (1257,).
        rest_labels: labels of the held-out rows, shape (540,).

    Args:
        labels: give the digit as class label to the models.
    """

    train_labels: Tensor
    rest_labels: Tensor

    def __init__(self, labels: bool = False) -> None:
        train, rest, self.train_labels, self.rest_labels = _split_digits()
        self.classes = 10 if labels else 0
        noise = _uniform(rest.shape, generator(SPLIT_SEED, 0, "dequantize/held_out"))
        self._set(train / _LEVELS, rest / _LEVELS + noise, 0.0, 1.0, "digits_dequantized", (8, 8))
        self._noise = Blocks(lambda n, draw: _uniform((n, *self.event_shape), draw), "dequantize")

    def batch(self, start: int, n: int, seed: int, device: torch.device | str = "cpu") -> Particles:
        """Return rows with noise of their own in every epoch, shape (n, 64), with their labels."""
        chosen = self._chosen(start, n, seed)
        rows = self.train[chosen] + self._noise.rows(start, n, seed).x
        return Particles(rows.to(device, self.dtype, non_blocking=True), context=self._context("train", chosen, device))

    def validation(self, n: int, device: torch.device | str = "cpu") -> Particles:
        """Return the validation rows with one fixed draw of the noise, shape (m, 64)."""
        found = super().validation(n, device)
        noise = _uniform(found.x.shape, generator(SPLIT_SEED, 0, "dequantize/validation"))
        return replace(found, x=found.x + noise.to(found.x))

    def batches(self, start: int, n: int, seeds: Sequence[int], device: torch.device | str = "cpu") -> Particles:
        """Return ``batch(start, n, seed)`` of several seeds, stacked."""
        self._noise.keep(len(seeds))
        return super().batches(start, n, seeds, device)


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


def _split_digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return pixels 0..16 in float64 and labels: training rows, held-out rows, training labels, held-out labels."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    train, rest, *labels = train_test_split(x, y, test_size=0.3, stratify=y, random_state=SPLIT_SEED)
    return tuple(torch.as_tensor(part) for part in (train, rest, *labels))  # type: ignore[return-value]


def _uniform(shape: Sequence[int], draw: torch.Generator) -> Tensor:
    """Draw the noise that fills the step between two pixel values, in float64."""
    return torch.rand(shape, generator=draw, dtype=torch.float64) / _LEVELS
