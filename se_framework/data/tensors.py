"""Data that is a tensor: in memory, in a file, or the bundled digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from se_framework.data.base import Data
from se_framework.data.readers import as_tensor, read_array
from se_framework.data.rows import MIN_ROWS, SPLIT_SEED, Part, RowData, check_labels, split
from se_framework.errors import DataError
from se_framework.randomness import generator

_NARROW = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.float16, torch.bfloat16, torch.float32)
_LEVELS = 17  # values of a pixel of scikit-learn's digits


class TensorData(RowData):
    r"""Rows of a tensor, split once and for all into training and held-out rows.

    Args:
        x: points in user units, shape (N, \*E), a tensor or an array; (N,) is read as (N, 1). Integers and booleans
            become floats.
        held_out_fraction: share of the rows that is never trained on, in (0, 1); at least one row.
        standardize: bring every feature to mean 0 and standard deviation 1 over the training rows; ``to_user`` undoes
            it. A feature that is constant over the training rows is only shifted.
        name: name for tables and file names.
        image_shape: (H, W) or (C, H, W) if points are images; E itself is taken when it has two or three dimensions
            that fit.
        labels: one whole number in 0..K-1 per row, shape (N,), K >= 2, for models that read a class; split like the
            rows.

    Attributes:
        train: training rows in model space, shape (train_size, \*E).
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
        train_index, rest_index = split(len(rows), held_out_fraction)
        if labels is not None:
            checked, self.classes = check_labels(labels, len(rows), "data.labels")
            self.train_labels, self.rest_labels = checked[train_index], checked[rest_index]
        train, rest = rows[train_index], rows[rest_index]
        loc: Tensor | float = 0.0
        scale: Tensor | float = 1.0
        if standardize:
            loc, scale = _moments(train)
        self._set(train, rest, loc, scale, name, image_shape)

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
        self.image_shape = tuple(image_shape) if image_shape is not None else _image_shape(self.event_shape)

    def rows(
        self, part: Part, index: Tensor, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> Tensor:
        r"""Return rows of ``train`` or ``rest``, shape (n, \*E)."""
        stored = self.train if part == "train" else self.rest
        return stored[index].to(device, dtype or torch.get_default_dtype())


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
        rows = check_rows(read_array(path, key), f"data.path: {str(path)!r}")
        classes = None
        if labels is not None:
            classes = check_labels(read_array(labels, option="data.labels"), len(rows), f"data.labels: {str(labels)!r}")
        super().__init__(
            rows, held_out_fraction, standardize, name=Path(path).stem, labels=classes[0] if classes else None
        )


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
    r"""The digits as a law with a density: :math:`(x+u)/17`, x in 0..16 a pixel, :math:`u\sim U[0,1)` fresh per batch.

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
        noise = _uniform(rest, SPLIT_SEED, 0, "dequantize/held_out")
        self._set(train / _LEVELS, rest / _LEVELS + noise, 0.0, 1.0, "digits_dequantized", (8, 8))

    def batch(
        self, n: int, seed: int, index: int, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return batch ``index`` with its own noise, shape (n, 64)."""
        rows = super().batch(n, seed, index, dtype=torch.float64)
        return (rows + _uniform(rows, seed, index, "dequantize")).to(device, dtype or torch.get_default_dtype())


def as_data(source: Any) -> Data:
    """Return ``source`` as :class:`Data`.

    Args:
        source: a Data, a tensor, an array, or a map-style torch Dataset whose items are tensors, or tuples that begin
            with one (the rest, such as a label, is left out).

    Raises:
        DataError: the source is anything else, or its rows are malformed.
    """
    if isinstance(source, Data):
        return source
    if isinstance(source, Tensor | np.ndarray):
        return TensorData(source)
    if isinstance(source, torch.utils.data.TensorDataset):
        return TensorData(source.tensors[0])
    if isinstance(source, torch.utils.data.Dataset) and hasattr(source, "__len__"):
        return TensorData(_stack(source))
    raise DataError(
        f"data is a {type(source).__name__}; give a Data, a tensor or array of shape (rows, ...), "
        "or a torch Dataset with a length whose items are tensors"
    )


def check_rows(x: Tensor | np.ndarray, what: str) -> Tensor:
    r"""Return x as finite real rows (N, \*E) with N >= 4, in float32 or float64 (integers without loss).

    Args:
        x: a tensor or an array.
        what: how an error names it.

    Raises:
        DataError: see the messages.
    """
    rows = as_tensor(x, what) if isinstance(x, np.ndarray) else x.detach().cpu()
    if rows.numel() == 0:
        raise DataError(f"{what} is empty (shape {tuple(rows.shape)}); give at least {MIN_ROWS} rows")
    if rows.ndim == 0:
        raise DataError(f"{what} is a single number; give an array of shape (rows, ...)")
    if rows.is_complex():
        raise DataError(f"{what} holds complex numbers; give real ones, e.g. real and imaginary parts as two columns")
    # float32 holds every integer of 16 bits; wider ones need float64.
    rows = rows.to(torch.float32 if rows.dtype in _NARROW else torch.float64)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if len(rows) < MIN_ROWS:
        raise DataError(f"{what} has {len(rows)} rows of shape {tuple(rows.shape[1:])}; give at least {MIN_ROWS} rows")
    bad = ~torch.isfinite(rows.flatten(1))
    if bool(bad.any()):
        first = int(bad.any(1).to(torch.uint8).argmax())
        raise DataError(
            f"{what} has {int(bad.sum())} NaN or infinite values, the first in row {first + 1} of {len(rows)}; "
            "remove or fill them"
        )
    return rows


def _moments(train: Tensor) -> tuple[Tensor, Tensor]:
    # Two passes in float64: E[x^2] - E[x]^2 in float32 would lose a spread of 5 around 1000.
    low, high = train.amin(0).double(), train.amax(0).double()
    loc = train.mean(0, dtype=torch.float64)
    scale = (train.double() - loc).square().mean(0).sqrt()
    # The rounded mean of a constant column leaves a spread of about 1e-16 that must not be blown up to 1.
    constant = (low == high) | (scale == 0)
    loc, scale = torch.where(constant, low, loc), torch.where(constant, 1.0, scale)
    if not bool((torch.isfinite(loc) & torch.isfinite(scale)).all()):
        raise DataError("the data is too large to standardise in float64 (its variance overflows); rescale the file")
    return loc, scale


def _split_digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return pixels 0..16 in float64 and labels: training rows, held-out rows, training labels, held-out labels."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    train, rest, *labels = train_test_split(x, y, test_size=0.3, stratify=y, random_state=SPLIT_SEED)
    return tuple(torch.as_tensor(part) for part in (train, rest, *labels))  # type: ignore[return-value]


def _uniform(rows: Tensor, seed: int, index: int, purpose: str) -> Tensor:
    """Draw the noise that fills the step between two pixel values, of the shape of ``rows``."""
    return torch.rand(rows.shape, generator=generator(seed, index, purpose), dtype=torch.float64) / _LEVELS


def _image_shape(event_shape: tuple[int, ...]) -> tuple[int, ...] | None:
    if len(event_shape) == 2 and min(event_shape) > 1:
        return event_shape
    if len(event_shape) == 3 and event_shape[0] in (1, 3):
        return event_shape
    return None


def _stack(source: Any) -> Tensor:
    rows: list[Tensor] = []
    for i in range(len(source)):
        item = source[i]
        if isinstance(item, tuple | list) and item:
            item = item[0]
        if not isinstance(item, Tensor):
            raise DataError(
                f"item {i} of the {type(source).__name__} is a {type(item).__name__}; its items must be tensors, "
                "or tuples that begin with one (e.g. transform=ToTensor())"
            )
        if rows and item.shape != rows[0].shape:
            raise DataError(
                f"item {i} of the {type(source).__name__} has shape {tuple(item.shape)} and item 0 "
                f"{tuple(rows[0].shape)}; give all items one shape"
            )
        rows.append(item)
    if not rows:
        raise DataError(f"the {type(source).__name__} is empty; give at least {MIN_ROWS} rows")
    return torch.stack(rows)
