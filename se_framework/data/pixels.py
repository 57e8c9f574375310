"""Images in memory: a byte per number, floats for the batch only.

User units are the grey values 0..255; model space is [-1, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

from se_framework.data import fingerprint
from se_framework.data.rows import Part, RowData


class PixelData(RowData):
    r"""Images of one shape, stored as bytes.

    Args:
        pixels: shape (N, C, H, W), uint8.
        train_index: which images are trained on, shape (train_size,).
        rest_index: which are held out, shape (rest_size,).
        name: name for tables and file names.
        labels: labels of all images, shape (N,), int64; None for no labels.
        classes: number of classes that the models are given; 0 for no labels.
    """

    loc = 127.5
    scale = 127.5

    def __init__(
        self,
        pixels: Tensor,
        train_index: Tensor,
        rest_index: Tensor,
        name: str,
        labels: Tensor | None = None,
        classes: int = 0,
    ) -> None:
        self.pixels, self.name, self.classes = pixels, name, classes
        self._index: dict[Part, Tensor] = {"train": train_index, "rest": rest_index}
        self.train_size, self.rest_size = len(train_index), len(rest_index)
        self.event_shape = self.image_shape = tuple(pixels.shape[1:])
        if labels is not None:
            self.train_labels, self.rest_labels = labels[train_index], labels[rest_index]

    def rows(self, part: Part, index: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """Return images in [-1, 1], shape (n, C, H, W); they cross to the device as bytes."""
        return in_unit_range(self.pixels[self._index[part][index]], device)

    def _reorder(self, order: Tensor) -> None:
        self._index = self._index | {"train": self._index["train"][order]}
        self.train_labels = None if self.train_labels is None else self.train_labels[order]

    def fingerprint(self) -> str:
        """Return a hash of the images and their labels."""
        labels = [t for t in (self.train_labels, self.rest_labels) if t is not None]
        return fingerprint.of_tensors([self.pixels, self._index["train"], self._index["rest"], *labels])


def in_unit_range(pixels: Tensor, device: torch.device | str) -> Tensor:
    """Return bytes as floats in [-1, 1]; they cross to the device as bytes."""
    x = pixels.to(device, non_blocking=True).to(torch.get_default_dtype())
    # By a tensor, not by a number: CUDA would multiply by the rounded reciprocal of a number.
    return x.sub_(127.5).div_(torch.tensor(127.5, dtype=x.dtype, device=x.device))
