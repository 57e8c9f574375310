r"""Convolutions as products of matrices, on images whose examples lie side by side in memory.

An image batch is held as (c, H, W, B): a channel, or any shift of the image, is then a run of long contiguous rows,
and a convolution is one matrix product beside nine copies. A 3 x 3 kernel with few inputs reads *windows* of its input
(:func:`gather`, then the product); one with few outputs makes the product first and adds shifted images
(:func:`scatter`). So the nine copies are always of the few channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 3
PLACES = SIDE * SIDE
"""Of a kernel."""
INPUT_BOUND = 20.0
"""Size at which what a convolution reads is clamped."""


class Gather(torch.autograd.Function):
    r"""Every pixel's 3 x 3 neighbours: (c, H, W, B) to (3, 3, c, H, W, B), zero where there are none."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        """Copy the padded image nine times, shifted, in one pass."""
        height, width = x.shape[1:3]
        padded = F.pad(x, (0, 0, 1, 1, 1, 1))
        return padded.unfold(1, height, 1).unfold(2, width, 1).permute(1, 2, 0, 4, 5, 3).contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep nothing: the map is linear."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Apply the transpose."""
        return Scatter.apply(gradient)


class Scatter(torch.autograd.Function):
    r"""The transpose of :class:`Gather`: (3, 3, c, H, W, B) to (c, H, W, B)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(windows: Tensor) -> Tensor:
        """Add nine shifted images: along the rows for all three heights at once, then the three."""
        rows = windows[:, 1].clone()
        rows[..., 1:, :] += windows[:, 2, ..., :-1, :]
        rows[..., :-1, :] += windows[:, 0, ..., 1:, :]
        out = rows[1]
        out[:, 1:] += rows[2, :, :-1]
        out[:, :-1] += rows[0, :, 1:]
        return out.contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep nothing: the map is linear."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Apply the transpose."""
        return Gather.apply(gradient)


def gather(x: Tensor) -> Tensor:
    """Return the windows of images (c, H, W, B) and of a channel of ones as columns, (9 (c + 1), H W B).

    Images are clamped to [-:data:`INPUT_BOUND`, :data:`INPUT_BOUND`]: far from the data a network that reads them is
    constant, and what it moves is moved by an affine map. Actnorms keep data well inside.

    The place in the kernel comes first. The ones are zero outside of the image, as everything is: they tell where it
    ends (:func:`with_edge`).
    """
    bounded = F.hardtanh(x, -INPUT_BOUND, INPUT_BOUND)  # a clamp, with a shorter backward pass
    return Gather.apply(torch.cat((bounded, x.new_ones(1, *x.shape[1:])))).flatten(3).flatten(0, 2)


def scatter(columns: Tensor, height: int, width: int) -> Tensor:
    """Return the images (c, H, W, B) that are the sums of shifted ones, given as columns (9 c, H W B)."""
    windows = columns.unflatten(1, (height, width, -1)).unflatten(0, (SIDE, SIDE, -1))
    return Scatter.apply(windows)


def outside(height: int, width: int) -> Tensor:
    """Return which neighbours of a pixel lie outside of the image, as 0 and 1, shape (9, H W)."""
    inside = Gather.apply(torch.ones(1, height, width, 1))
    return 1 - inside.reshape(PLACES, height * width)


def with_edge(kernel: Tensor, edge: Tensor, bias: Tensor) -> Tensor:
    r"""Return the kernel for :func:`gather` of a convolution with a bias and a channel that is 1 outside of the image.

    With o = 1 - i, i the gathered ones (1 at the middle, always): :math:`e\cdot o+b=-e\cdot i+(\sum_je_j+b)i_0`.

    Args:
        kernel: shape (\*K, n, 9, c).
        edge: e, shape (\*K, n, 9).
        bias: b, shape (\*K, n, 1).

    Returns:
        Shape (\*K, n, 9 (c + 1)).
    """
    middle = torch.zeros(PLACES, dtype=edge.dtype, device=edge.device)
    middle[PLACES // 2] = 1
    ones = (edge.sum(-1, keepdim=True) + bias) * middle - edge
    return torch.cat((kernel, ones.unsqueeze(-1)), -1).flatten(-2)
