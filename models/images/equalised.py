r"""Layers of Karras et al.'s growing networks: an equalised learning rate, normalised pixels, a batch's deviation.

Source: Karras, Aila, Laine, Lehtinen, "Progressive growing of GANs for improved quality, stability, and variation",
ICLR 2018, section 4 (normalisation), section 3 (deviation) and appendix A.
"""

from __future__ import annotations

from math import sqrt
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2
TINY = 1e-8
"""Added to means of squares before a root."""
GROUP = 4
"""Examples of a group of :class:`Deviation`."""


class EqualisedLinear(nn.Linear):
    r"""An affine map :math:`x\mapsto cWx+b`: W of N(0, 1), He's constant :math:`c=g/\sqrt{\text{inputs}}` outside.

    Adam moves each weight by about its rate, whatever its scale: with c in the weights, as usual, layers of many inputs
    would move faster than their size; outside of them all learn at one speed.

    Args:
        inputs: coordinates in.
        outputs: coordinates out.
        gain: g; sqrt 2 before leaky ReLU.
        bias: whether there is a b.
    """

    def __init__(self, inputs: int, outputs: int, gain: float = sqrt(2), bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias)
        _start(self)
        self.factor = gain / sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs) to (B, outputs)."""
        return F.linear(x, self.weight * self.factor, self.bias)


class EqualisedConv2d(nn.Conv2d):
    r"""A convolution with the same constant, inputs being those of one output: channels times kernel, size kept.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: side of the kernel; odd.
        gain: g; sqrt 2 before leaky ReLU.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, gain: float = sqrt(2)) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        _start(self)
        self.factor = gain / sqrt(inputs * kernel**2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, outputs, H, W)."""
        return F.conv2d(x, self.weight * self.factor, self.bias, padding=self.padding)


def _start(layer: nn.Linear | nn.Conv2d) -> None:
    with torch.no_grad():
        layer.weight.normal_()
        if layer.bias is not None:
            layer.bias.zero_()


def activated(x: Tensor) -> Tensor:
    """Return leaky ReLU of slope 0.2."""
    return F.leaky_relu(x, SLOPE)


def normalised(x: Tensor) -> Tensor:
    r"""Divide by the root of the mean square over axis 1: channels of a pixel, or coordinates of a latent point."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + TINY)


class Deviation(nn.Module):
    r"""One more channel, constant over pixels: the standard deviation over groups of examples, averaged.

    Examples i, i + M, i + 2M, ... of N are a group, of which there are M = N / 4. The channel holds the mean over
    channels and pixels of :math:`\sqrt{\mathrm{var}+10^{-8}}`, the variance being over the group. Where 4 does not
    divide N, groups are as large as a divisor of N allows (training refuses such a batch: ``Critic.batch_multiple``).
    """

    couples_by: ClassVar[str] = "the deviation of a group"
    """By what one example's score depends on others of its batch."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C + 1, H, W)."""
        n, _, height, width = x.shape
        group = next(g for g in range(min(GROUP, n), 0, -1) if n % g == 0)
        grouped = x.reshape(group, n // group, -1)
        deviation = (grouped.var(0, correction=0) + TINY).sqrt().mean(1)
        return torch.cat((x, deviation.repeat(group)[:, None, None, None].expand(n, 1, height, width)), 1)
