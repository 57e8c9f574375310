r"""Self-attention between the pixels of an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.images.layers import Layers

OF_ATTENTION = ("zhang2019self",)
"""Keys of references."""


class SelfAttention(nn.Module):
    r"""The map :math:`x\mapsto x+\gamma\,o(A\,v(x))` with :math:`A=\mathrm{softmax}(q(x)^\top k(x))` over pixels.

    q, k, v and o are 1 x 1 convolutions without bias, with C/8, C/8, C/2 and C channels; k and v are halved by the
    maximum of 2 x 2 pixels, so A is of shape (H W, H W / 4) for each image. gamma, a number, starts at zero.

    The products are written out: torch's fused attention has no second derivative, which gradient penalties need.

    Source: Zhang, Goodfellow, Metaxas, Odena, "Self-attention generative adversarial networks", ICML 2019, section 3,
    with the sizes and the pooling of the authors' code.

    Args:
        channels: C.
        layers: how the convolutions are made.
    """

    def __init__(self, channels: int, layers: Layers) -> None:
        super().__init__()
        few, half = max(1, channels // 8), max(1, channels // 2)
        self.query = layers.conv(channels, few, 1, bias=False)
        self.key = layers.conv(channels, few, 1, bias=False)
        self.value = layers.conv(channels, half, 1, bias=False)
        self.out = layers.conv(half, channels, 1, bias=False)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape; H and W are even."""
        query = self.query(x).flatten(2)
        key, value = (F.max_pool2d(part(x), 2).flatten(2) for part in (self.key, self.value))
        weights = torch.bmm(query.mT, key).softmax(2)
        seen = torch.bmm(value, weights.mT).unflatten(2, x.shape[2:])
        return torch.addcmul(x, self.scale, self.out(seen))
