r"""Changes of resolution by two: bilinear with the filter [1, 2, 1], nearest, and their opposites.

The bilinear pair is that of Karras et al., "Analyzing and improving the image quality of StyleGAN", CVPR 2020, as
R3GAN uses it: images are zero beyond their border. Up, pixel 2i + 1 is pixel i and pixel 2i the mean of i - 1 and i;
down, pixel i is (1, 2, 1)/4 of 2i - 1, 2i, 2i + 1, per axis.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FILTER = (1.0, 2.0, 1.0)


class Bilinear(nn.Module):
    """Twice, or half, the resolution by the filter [1, 2, 1]; no parameter.

    Args:
        up: twice; else half, of even sides.
    """

    kernel: Tensor

    def __init__(self, up: bool) -> None:
        super().__init__()
        self.up = up
        line = torch.tensor(FILTER) / 4
        self.register_buffer("kernel", torch.outer(line, line)[None, None] * (4 if up else 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2H, 2W), or to (B, C, H/2, W/2)."""
        channels = x.shape[1]
        weight = self.kernel.expand(channels, 1, 3, 3)
        if self.up:
            return F.conv_transpose2d(x, weight, stride=2, groups=channels)[..., :-1, :-1]
        return F.conv2d(x, weight, stride=2, padding=1, groups=channels)


def doubled(x: Tensor, factor: int = 2) -> Tensor:
    """Return images with each pixel repeated, shape (B, C, factor H, factor W)."""
    return x if factor == 1 else F.interpolate(x, scale_factor=factor, mode="nearest")


def halved(x: Tensor, factor: int = 2) -> Tensor:
    """Return the means of squares of pixels, shape (B, C, H/factor, W/factor)."""
    return x if factor == 1 else F.avg_pool2d(x, factor)
