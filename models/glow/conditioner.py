r"""The networks of Glow's couplings, of all steps of a level, and convolutions that start at zero."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.glow.mixing import LOG_SCALE_FACTOR, set_by
from models.glow.windows import SIDE, gather, outside, scatter

PLACES = SIDE * SIDE
SPREAD = 0.05
"""Standard deviation of hidden weights at the start, as in the authors' code."""


class Weights(NamedTuple):
    """The networks of all steps at fixed parameters, their normalisations multiplied in; or that of one, without K.

    Attributes:
        first: kernels, shape (K, w, 9 a).
        first_map: what the first layer adds at each pixel, shape (K, w, H W, 1), by label (K, w, H W, B) if there are.
        middle: shape (K, w, w).
        middle_bias: shape (K, w, 1).
        last: kernels, shape (K, 9 n, w).
        last_map: what the last layer adds at each pixel, shape (K, n, H W, 1).
    """

    first: Tensor
    first_map: Tensor
    middle: Tensor
    middle_bias: Tensor
    last: Tensor
    last_map: Tensor


class Conditioner(nn.Module):
    r"""For each of K steps a network: 3 x 3 convolution, 1 x 1, 3 x 3, ReLU between, the last zero at the start.

    What the paper leaves out and its authors' code has is here: a hidden convolution has no bias but an actnorm; the
    padding of a 3 x 3 convolution is told by one more input channel, 1 outside of the image and 0 inside; the last
    convolution's outputs are multiplied by :math:`e^{3l}`. None of this costs anything by the pixel: the scales are
    multiplied into the kernels, and the channel of the padding is a map that is added.

    The numbers that the network returns are ordered by what they are (all shifts, then all scales), where that code
    interleaves them. It is the order of the rows of a learnt kernel that starts at zero: the same law, trained alike.

    Labels add a vector per class to the first hidden layer; it starts at zero.

    Args:
        steps: K.
        inputs: channels read, a.
        outputs: channels returned, n.
        width: w.
        size: H and W.
        offset: added to the numbers, shape (n,): what the network returns at the start.
        classes: number of classes of the context.
    """

    def __init__(
        self, steps: int, inputs: int, outputs: int, width: int, size: tuple[int, int], offset: Tensor, classes: int
    ) -> None:
        super().__init__()
        self.size = size
        self.first = nn.Parameter(SPREAD * torch.randn(steps, width, PLACES * inputs))
        self.first_edge = nn.Parameter(SPREAD * torch.randn(steps, width, PLACES))
        self.middle = nn.Parameter(SPREAD * torch.randn(steps, width, width))
        self.bias = nn.Parameter(torch.zeros(2, steps, width, 1))
        self.log_scale = nn.Parameter(torch.zeros(2, steps, width, 1))
        self.last = nn.Parameter(torch.zeros(steps, PLACES, outputs, width))
        self.last_edge = nn.Parameter(torch.zeros(steps, outputs, PLACES))
        self.last_bias = nn.Parameter(torch.zeros(steps, outputs, 1))
        self.last_log_scale = nn.Parameter(torch.zeros(steps, outputs, 1))
        self.of_label = nn.Parameter(torch.zeros(steps, width, classes)) if classes else None
        self.register_buffer("outside", outside(*size), persistent=False)
        self.register_buffer("offset", offset[:, None], persistent=False)

    def at_present(self, labels: Tensor | None = None) -> Weights:
        """Return the networks at the present parameters.

        Args:
            labels: one-hot columns, shape (classes, B); None without.
        """
        scale, out = (LOG_SCALE_FACTOR * self.log_scale).exp(), (LOG_SCALE_FACTOR * self.last_log_scale).exp()
        bias, edge = scale * self.bias, self.get_buffer("outside")
        first_map = (torch.matmul(scale[0] * self.first_edge, edge) + bias[0]).unsqueeze(3)
        if self.of_label is not None and labels is not None:
            first_map = first_map + (self.of_label @ labels).unsqueeze(2)
        # The last layer adds shifted images: the neighbour that it reads stands on the other side.
        last_map = out * (torch.matmul(self.last_edge, edge.flip(0)) + self.last_bias) + self.get_buffer("offset")
        last = (self.last * out.unsqueeze(1)).flatten(1, 2)
        return Weights(scale[0] * self.first, first_map, scale[1] * self.middle, bias[1], last, last_map.unsqueeze(3))

    def prepare(self, k: int, a: Tensor) -> None:
        """Set the hidden actnorms of step k by a batch, images (a, H, W, B), one after the other."""
        edge = self.first_edge[k] @ self.get_buffer("outside")
        h = (self.first[k] @ gather(a)).unflatten(1, (edge.shape[1], -1)) + edge.unsqueeze(2)
        set_by(h.flatten(1), self.bias[0, k], self.log_scale[0, k])
        h = torch.relu((LOG_SCALE_FACTOR * self.log_scale[0, k]).exp() * (h.flatten(1) + self.bias[0, k]))
        set_by(self.middle[k] @ h, self.bias[1, k], self.log_scale[1, k])


def numbers_of(net: Weights, a: Tensor) -> Tensor:
    """Return what a network says of images (a, H, W, B), shape (n, H, W, B).

    Args:
        net: of one step: a row of each field.
        a: what it reads.
    """
    height, width = a.shape[1:3]
    h = (net.first @ gather(a)).unflatten(1, (height * width, -1))
    h = (h + net.first_map).relu_().flatten(1)  # h is a view: to add in place would cost a copy of its gradient
    h = torch.addmm(net.middle_bias, net.middle, h).relu_()
    out = scatter(net.last @ h, height, width)
    return (out.flatten(1, 2) + net.last_map).unflatten(1, (height, width))


class ZeroConvolution(nn.Module):
    r"""A 3 x 3 convolution that starts at zero: :math:`e^{3l}(Kx+b)`, padding told as in :class:`Conditioner`.

    Args:
        inputs: channels read; 0 for a map that depends on the padding alone.
        outputs: channels returned, n.
        size: H and W.
    """

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.zeros(outputs, PLACES * inputs)) if inputs else None
        self.edge = nn.Parameter(torch.zeros(outputs, PLACES))
        self.bias = nn.Parameter(torch.zeros(outputs, 1))
        self.log_scale = nn.Parameter(torch.zeros(outputs, 1))
        self.register_buffer("outside", outside(*size), persistent=False)

    def at_present(self) -> tuple[Tensor | None, Tensor]:
        """Return the kernel, (n, 9 a), and the map that is added, (n, H W, 1), at the present parameters."""
        scale = (LOG_SCALE_FACTOR * self.log_scale).exp()
        added = scale * (self.edge @ self.get_buffer("outside") + self.bias)
        return None if self.weight is None else scale * self.weight, added.unsqueeze(2)
