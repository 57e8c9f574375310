r"""Convolutions as products of matrices, on images whose examples lie side by side in memory.

An image batch is held as (c, H, W, B): a channel, or any shift of the image, is then a run of long contiguous rows,
and a convolution is one matrix product beside nine copies. A 3 x 3 kernel with few inputs reads *windows* of its input
(:func:`gather`, then the product); one with few outputs makes the product first and adds shifted images
(:func:`scatter`). So the nine copies are always of the few channels: at Glow's sizes on one thread that takes two
thirds of the time of torch's convolutions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SIDE = 3
"""Of a kernel."""


def _shifts(side: int, offset: int) -> tuple[slice, slice]:
    """Return where pixels of a row of that length stand, and where their neighbours at an offset do."""
    return slice(max(0, -offset), side - max(0, offset)), slice(max(0, offset), side - max(0, -offset))


def _pairs(height: int, width: int) -> list[tuple[int, int, tuple[slice, slice], tuple[slice, slice]]]:
    """Return, for each place of a kernel, which pixels have a neighbour there, and where it stands."""
    found = []
    for i in range(SIDE):
        for j in range(SIDE):
            (rows, their_rows), (columns, their_columns) = _shifts(height, i - 1), _shifts(width, j - 1)
            found.append((i, j, (rows, columns), (their_rows, their_columns)))
    return found


class Gather(torch.autograd.Function):
    r"""Every pixel's 3 x 3 neighbours: (c, H, W, B) to (3, 3, c, H, W, B), zero where there are none."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        """Copy the image nine times, shifted."""
        channels, height, width, batch = x.shape
        out = x.new_zeros(SIDE, SIDE, channels, height, width, batch)
        for i, j, (rows, columns), (their_rows, their_columns) in _pairs(height, width):
            out[i, j, :, rows, columns] = x[:, their_rows, their_columns]
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep nothing: the map is linear."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        """Apply the transpose."""
        return Scatter.apply(gradient)  # type: ignore[no-any-return, no-untyped-call]


class Scatter(torch.autograd.Function):
    r"""The transpose of :class:`Gather`: (3, 3, c, H, W, B) to (c, H, W, B)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(windows: Tensor) -> Tensor:
        """Add nine images, shifted."""
        height, width = windows.shape[3:5]
        out = windows[1, 1].clone()
        for i, j, (rows, columns), (their_rows, their_columns) in _pairs(height, width):
            if (i, j) != (1, 1):
                out[:, their_rows, their_columns] += windows[i, j, :, rows, columns]
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep nothing: the map is linear."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        """Apply the transpose."""
        return Gather.apply(gradient)  # type: ignore[no-any-return, no-untyped-call]


def gather(x: Tensor) -> Tensor:
    """Return the windows of images (c, H, W, B) as columns, (9 c, H W B), the place in the kernel first."""
    return Gather.apply(x).flatten(3).flatten(0, 2)  # type: ignore[no-any-return, no-untyped-call]


def scatter(columns: Tensor, height: int, width: int) -> Tensor:
    """Return the images (c, H, W, B) that are the sums of shifted ones, given as columns (9 c, H W B)."""
    windows = columns.unflatten(1, (height, width, -1)).unflatten(0, (SIDE, SIDE, -1))
    return Scatter.apply(windows)  # type: ignore[no-any-return, no-untyped-call]


def outside(height: int, width: int) -> Tensor:
    """Return which neighbours of a pixel lie outside of the image, as 0 and 1, shape (9, H W)."""
    inside = Gather.apply(torch.ones(1, height, width, 1))  # type: ignore[no-untyped-call]
    return 1 - inside.reshape(SIDE * SIDE, height * width)  # type: ignore[no-any-return]
