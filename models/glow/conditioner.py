r"""The networks of Glow's couplings, of all steps of a level, and convolutions that start at zero."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.glow.mixing import LOG_SCALE_FACTOR, set_by
from models.glow.windows import PLACES, gather, outside, scatter, with_edge

SPREAD = 0.05
"""Standard deviation of hidden weights at the start, as in the authors' code."""


class Weights(NamedTuple):
    """The networks of all steps at fixed parameters, their normalisations multiplied in; or that of one, without K.

    Biases are columns of the kernels: the input and the first hidden layer have a channel of ones. So every layer is
    one product of matrices, and nothing is added to what it makes.

    Attributes:
        first: kernels, shape (K, w + 1, 9 (a + 1)).
        of_label: what the first hidden layer has added by example, shape (K, w + 1, 1, B); None without labels.
        middle: shape (K, w, w + 1).
        last: kernels, shape (K, 9 n, w).
        last_map: what the last layer adds at each pixel, shape (K, n, H W, 1).
    """

    first: Tensor
    of_label: Tensor | None
    middle: Tensor
    last: Tensor
    last_map: Tensor

    def unbind(self) -> list[Weights]:
        """Return the networks one by one."""
        steps = len(self.first)
        parts = [[None] * steps if part is None else part.unbind() for part in self]
        return [Weights(*row) for row in zip(*parts, strict=True)]


class Conditioner(nn.Module):
    r"""For each of K steps a network: 3 x 3 convolution, 1 x 1, 3 x 3, ReLU between, the last zero at the start.

    What the paper leaves out and its authors' code has is here: a hidden convolution has no bias but an actnorm; the
    padding of a 3 x 3 convolution is told by one more input channel, 1 outside of the image and 0 inside; the last
    convolution's outputs are multiplied by :math:`e^{3l}`. None of this costs anything by the pixel: the scales are
    multiplied into the kernels, and biases and the channel of the padding are columns of them, or a map that is added.

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
        self.first = nn.Parameter(SPREAD * torch.randn(steps, width, PLACES, inputs))
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
        first = scale[0] * with_edge(self.first, self.first_edge, self.bias[0])
        ones = torch.zeros_like(first[:, :1])
        ones[..., -1 - PLACES // 2 * (first.shape[2] // PLACES)] = 1  # at the middle of the kernel's last channel
        added = None
        if self.of_label is not None and labels is not None:
            added = torch.nn.functional.pad(self.of_label @ labels, (0, 0, 0, 1)).unsqueeze(2)
        # The last layer adds shifted images: the neighbour that it reads stands on the other side.
        edge = self.get_buffer("outside").flip(0)
        last_map = out * (self.last_edge @ edge + self.last_bias) + self.get_buffer("offset")
        return Weights(
            torch.cat((first, ones), 1),
            added,
            scale[1] * torch.cat((self.middle, self.bias[1]), 2),
            (self.last * out.unsqueeze(1)).flatten(1, 2),
            last_map.unsqueeze(3),
        )

    def prepare(self, k: int, a: Tensor) -> None:
        """Set the hidden actnorms of step k by a batch, images (a, H, W, B), one after the other."""
        h = with_edge(self.first[k], self.first_edge[k], 0 * self.bias[0, k]) @ gather(a)
        set_by(h, self.bias[0, k], self.log_scale[0, k])
        h = torch.relu((LOG_SCALE_FACTOR * self.log_scale[0, k]).exp() * (h + self.bias[0, k]))
        set_by(self.middle[k] @ h, self.bias[1, k], self.log_scale[1, k])


def numbers_of(net: Weights, a: Tensor) -> Tensor:
    """Return what a network says of images (a, H, W, B), shape (n, H, W, B).

    Args:
        net: of one step.
        a: what it reads.
    """
    height, width, batch = a.shape[1:]
    h = net.first @ gather(a)
    if net.of_label is not None:
        h = (h.unflatten(1, (height * width, batch)) + net.of_label).flatten(1)
    h = (net.middle @ h.relu_()).relu_()
    out = scatter(net.last @ h, height, width)
    return (out.flatten(1, 2) + net.last_map).unflatten(1, (height, width))


class ZeroConvolution(nn.Module):
    r"""A 3 x 3 convolution that starts at zero: :math:`e^{3l}(Kx+b)`, padding told as in :class:`Conditioner`.

    Args:
        inputs: channels read, a; 0 for a map that depends on the padding alone.
        outputs: channels returned, n.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, PLACES, inputs)) if inputs else None
        self.edge = nn.Parameter(torch.zeros(outputs, PLACES))
        self.bias = nn.Parameter(torch.zeros(outputs, 1))
        self.log_scale = nn.Parameter(torch.zeros(outputs, 1))

    def at_present(self) -> Tensor:
        """Return the kernel at the present parameters, for :func:`models.glow.windows.gather`, (n, 9 (a + 1))."""
        scale = (LOG_SCALE_FACTOR * self.log_scale).exp()
        weight = self.edge.new_empty(len(self.edge), PLACES, 0) if self.weight is None else self.weight
        return scale * with_edge(weight, self.edge, self.bias)
