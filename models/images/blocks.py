r"""Residual blocks that double and halve the resolution, and which sides they can make.

Sources: He, Zhang, Ren, Sun, "Identity mappings in deep residual networks", ECCV 2016; as generator and critic: Miyato,
Kataoka, Koyama, Yoshida, "Spectral normalization for generative adversarial networks", ICLR 2018, appendix B.
"""

from __future__ import annotations

from math import sqrt

from torch import Tensor, nn
from torch.nn import functional as F

from models.convolutional import halvings
from models.images.attention import SelfAttention
from models.images.conditional import norm_of
from models.images.layers import Layers

BRANCH = sqrt(2.0)
"""Xavier's gain of the convolutions between nonlinearities; that of shortcuts and last layers is one."""


class DoublingBlock(nn.Module):
    """Norm, ReLU, doubling, convolution, norm, ReLU, convolution; a doubled 1 x 1 convolution is the shortcut.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        layers: how convolutions are made.
        classes: number of classes that the norms read, 0 for none.
        condition: size of the vectors that the norms read, 0 for none.
        attention: whether self-attention follows.
    """

    def __init__(
        self, inputs: int, outputs: int, layers: Layers, classes: int = 0, condition: int = 0, attention: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = norm_of(inputs, layers, classes, condition)
        self.conv1 = layers.conv(inputs, outputs, resample="double", gain=BRANCH)
        self.norm2 = norm_of(outputs, layers, classes, condition)
        self.conv2 = layers.conv(outputs, outputs, gain=BRANCH)
        self.shortcut = layers.conv(inputs, outputs, 1, resample="double")
        self.attention = SelfAttention(outputs, layers) if attention else None

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, 2 H, 2 W)."""
        h = self.norm2(self.conv1(self.norm1(x, condition)), condition)
        h = self.conv2(h) + self.shortcut(x)
        return h if self.attention is None else self.attention(h)


class CriticBlock(nn.Module):
    """ReLU, convolution, ReLU, convolution, and halving if wanted; the shortcut is the identity where it can be.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        layers: how convolutions are made.
        halve: whether the resolution is halved.
        first: the input is the image, which no ReLU cuts.
        attention: whether self-attention follows.
    """

    def __init__(
        self, inputs: int, outputs: int, layers: Layers, halve: bool, first: bool = False, attention: bool = False
    ) -> None:
        super().__init__()
        self.first = first
        self.conv1 = layers.conv(inputs, outputs, gain=BRANCH)
        self.conv2 = layers.conv(outputs, outputs, resample="halve" if halve else None, gain=BRANCH)
        other = halve or inputs != outputs
        self.shortcut = layers.conv(inputs, outputs, 1, resample="halve" if halve else None) if other else None
        self.attention = SelfAttention(outputs, layers) if attention else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H', W')."""
        h = self.conv1(x if self.first else F.relu(x))
        h = self.conv2(F.relu(h)) + (x if self.shortcut is None else self.shortcut(x))
        return h if self.attention is None else self.attention(h)


class Doubled:
    """Mixed into networks for images whose sides are 4 to 7 pixels doubled several times."""

    @classmethod
    def unmakeable(cls, image_shape: tuple[int, ...]) -> str | None:
        """Return why the network is not for images of shape (C, H, W) or (H, W); None where it is."""
        height, width = image_shape[-2:]
        k = halvings(height, width)
        if min(height, width) >= 8 and height % 2**k == 0 and width % 2**k == 0:
            return None
        larger = " x ".join(str(max(8, -(-side // 2**k) * 2**k)) for side in (height, width))
        return (
            f"{cls.__name__} is for sides of 4, 5, 6 or 7 times a power of two from 8 on, and the images have "
            f"{height} x {width} pixels (resized to {larger} they would fit)"
        )

    @classmethod
    def checked(cls, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the shape of an image.

        Raises:
            ValueError: the network is not for it.
        """
        reason = cls.unmakeable(shape)
        if reason is not None:
            raise ValueError(f"{reason}: choose model=conv_generator or metric=conv, which crop")
        return shape


def halvings_of(height: int, width: int) -> int:
    """Return how often a critic halves the resolution: until the shorter side is at most 8, at least once."""
    k, side = 1, min(height, width) // 2
    while side > 8:
        k, side = k + 1, side // 2
    return k


def attended(attention: int | None, sides: list[int], owner: str, key: str) -> int | None:
    """Return the number of the block after which attention is put: the first with the largest even height up to it.

    Args:
        attention: the height; None for nowhere.
        sides: the height after each block.
        owner: name of the network, for messages.
        key: of its part of the configuration.

    Raises:
        ValueError: no block has such an output.
    """
    if attention is None:
        return None
    even = [side for side in sides if side % 2 == 0]
    small = [side for side in even if side <= attention]
    if not small:
        has = f"heights {', '.join(map(str, dict.fromkeys(even)))}" if even else "no even height"
        raise ValueError(
            f"{owner} has, after its blocks, {has} at which attention can stand, got attention = {attention}: "
            f"{key}={min(even) if even else 'null'}"
        )
    return sides.index(max(small))
