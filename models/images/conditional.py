r"""Batch normalisation and ReLU: alone, with a scale and shift for each class, or with those of a vector.

All three are one module with the nonlinearity, which overwrites what nobody has seen. While a network trains, means and
variances are those of the batch, so particles are coupled; in evaluation they are the running figures.

Sources: Ioffe, Szegedy, "Batch normalization", ICML 2015; per class: Dumoulin, Shlens, Kudlur, "A learned
representation for artistic style", ICLR 2017; by a vector: Brock, Donahue, Simonyan, "Large scale GAN training for high
fidelity natural image synthesis", ICLR 2019, appendix B.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.images.layers import Layers, Linear, Table


class Norm(nn.BatchNorm2d):
    """Batch normalisation with a scale and shift for each channel, then ReLU."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Map (B, C, H, W) to the same shape; the condition is not looked at."""
        return torch.relu_(super().forward(x))


class ConditionalNorm(nn.Module):
    r"""Batch normalisation with scale :math:`1+g(c)` and shift :math:`s(c)`, then ReLU.

    The one belongs to the scale and not to g: g starts small, and without it the block passes nothing on.

    Args:
        channels: C.
        gain: g, from conditions to (B, C).
        shift: s, likewise.
    """

    def __init__(self, channels: int, gain: Linear | Table, shift: Linear | Table) -> None:
        super().__init__()
        self.gain, self.shift = gain, shift
        self.norm = nn.BatchNorm2d(channels, affine=False)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Map (B, C, H, W) to the same shape.

        Args:
            x: the images.
            condition: labels, shape (B,), or vectors, shape (B, k).
        """
        scale, shift = (part(condition)[:, :, None, None] for part in (self.gain, self.shift))
        return torch.relu_(torch.addcmul(shift, 1 + scale, self.norm(x)))


def norm_of(channels: int, layers: Layers, classes: int = 0, inputs: int = 0) -> Norm | ConditionalNorm:
    """Return the normalisation of a block.

    Args:
        channels: C.
        layers: how the maps of conditions are made.
        classes: number of classes, whose labels are the condition; 0 for none.
        inputs: size of the vectors that are the condition; 0 for none.
    """
    if inputs:
        return ConditionalNorm(channels, *(layers.linear(inputs, channels, bias=False) for _ in range(2)))
    if not classes:
        return Norm(channels)
    gain, shift = (layers.offsets(classes, channels) for _ in range(2))
    return ConditionalNorm(channels, gain, shift)
