r"""R3GAN's networks: residual, without any normalisation, the two of one build.

A stage per resolution, from 4 to 7 pixels (the shorter side, halved as often as it can be) to full: a change of
resolution by the filter [1, 2, 1], a bias-free 1 x 1 convolution where the width changes, and blocks

.. math:: x + W_3\,\phi(W_2\,\phi(W_1x)), \qquad \phi(h)=\text{leaky ReLU}_{0.2}(h+b),

with :math:`W_1,W_3` of 1 x 1 and :math:`W_2` a grouped 3 x 3 convolution at twice the width. Biases stand before
nonlinearities and nowhere else. :math:`W_3` starts at zero and the variances of :math:`W_1,W_2` are divided by the root
of the number of blocks (Fixup: Zhang, Dauphin, Ma, ICLR 2019), which is what takes the place of normalisation. No
example is coupled to another, so gradient penalties on data and on samples hold.

Published for sides of 4 times a power of two, whose first stage is 4 x 4. Others here have the first stage that their
halvings leave: 7 x 7 for 28 pixels. A side that cannot be halved down to 7 is refused.

Source: Huang, Gokaslan, Kuleshov, Tompkin, "The GAN is dead; long live the GAN! A modern GAN baseline", NeurIPS 2024.
CIFAR-10 there: width and most 768, 8 channels of it per group, 2 blocks, latent_dim 64, classes 10, class_dim 64 in the
generator and 768 in the critic: 20.78M and 21.28M parameters.
"""

from __future__ import annotations

from itertools import pairwise
from math import sqrt
from typing import ClassVar, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.arguments import checked_at_least, checked_layers
from models.base import Critic
from models.convolutional import Images, Output, checked_image_shape, halvings
from models.generators import Generator
from models.images.resampling import Bilinear

SLOPE = 0.2
GAIN = sqrt(2 / (1 + SLOPE**2))
"""Of leaky ReLU: what keeps the second moment."""
EXPANSION = 2
"""Width of a block's inside over that of its outside."""


def variance_scaled(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> nn.Conv2d | nn.Linear:
    """Return a layer whose weights are N(0, gain^2 / inputs) and whose bias, where it has one, is zero."""
    with torch.no_grad():
        layer.weight.normal_(0.0, gain / sqrt(layer.weight[0].numel()))
        if layer.bias is not None:
            layer.bias.zero_()
    return layer


class Block(nn.Module):
    """A residual block; see the module.

    Args:
        width: channels outside.
        per_group: of these, channels to a group of the 3 x 3 convolution.
        gain: of the first two convolutions.
    """

    def __init__(self, width: int, per_group: int, gain: float) -> None:
        super().__init__()
        inside = EXPANSION * width
        # The bias of the nonlinearity after it is that of the convolution.
        self.first = variance_scaled(nn.Conv2d(width, inside, 1), gain)
        self.second = variance_scaled(nn.Conv2d(inside, inside, 3, padding=1, groups=width // per_group), gain)
        self.last = variance_scaled(nn.Conv2d(inside, width, 1, bias=False), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        h = F.leaky_relu(self.first(x), SLOPE)
        return x + self.last(F.leaky_relu(self.second(h), SLOPE))


def _resampled(width: int, to: int, up: bool) -> list[nn.Module]:
    """Return the change of resolution, with one of width where that changes: at the lower resolution, for less work."""
    change = [] if to == width else [variance_scaled(nn.Conv2d(width, to, 1, bias=False))]
    return [*change, Bilinear(up)] if up else [Bilinear(up), *change]


class Build:
    """What both networks are made by: sizes, widths and gain.

    Args:
        event_shape: shape E of one example.
        image_shape: (H, W) or (C, H, W); None where E itself is such a shape.
        owner: the network, for messages.
        width: channels at full resolution, doubled at every halving,
        most: up to so many; as many at every resolution where it is ``width``.
        per_group: channels to a group.
        blocks: residual blocks of a stage.

    Attributes:
        image: (C, H, W).
        coarse: height and width of the coarsest stage.
        widths: channels, the coarsest first.

    Raises:
        ValueError: an image whose sides cannot be halved so often, or a hyperparameter out of range.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        image_shape: tuple[int, ...] | None,
        owner: str,
        width: int,
        most: int,
        per_group: int,
        blocks: int,
    ) -> None:
        self.image = _, height, columns = checked_image_shape(image_shape, event_shape, owner)
        steps = halvings(height, columns)
        if height % 2**steps or columns % 2**steps:
            raise ValueError(
                f"{owner} halves its images {steps} times, got sides of {height} and {columns} pixels: use sides that "
                f"are multiples of {2**steps}, or ConvGenerator and ConvCritic, which crop"
            )
        self.coarse = (height >> steps, columns >> steps)
        self.widths = [min(width << k, most) for k in range(steps, -1, -1)]
        checked_at_least("per_group", per_group, 1)
        checked_layers("blocks", blocks, 1)
        for each in self.widths:
            if each < 1 or each % per_group:
                raise ValueError(f"width and most must give multiples of per_group={per_group}, got {each}")
        self._per_group, self._blocks = per_group, blocks
        self._gain = GAIN * (blocks * len(self.widths)) ** -0.25

    def stage(self, width: int) -> list[nn.Module]:
        """Return the blocks of a stage."""
        return [Block(width, self._per_group, self._gain) for _ in range(self._blocks)]


class R3GANGenerator(Generator):
    r"""An implicit law :math:`x=g_\theta(z)`, :math:`z\sim N(0,I)`, that starts from a learned coarse image.

    The basis, a coarse image of every channel, is scaled channel by channel by a linear map of z; stages follow, and a
    1 x 1 convolution to the image. Labels enter as a learned vector beside z.

    Args:
        event_shape: shape E of one example.
        image_shape: (H, W) or (C, H, W); None where E itself is such a shape.
        latent_dim: dimension of z.
        width: channels at full resolution, doubled at every halving,
        most: up to so many.
        per_group: channels of a width to a group of the 3 x 3 convolutions.
        blocks: residual blocks of a stage.
        classes: number of classes of the context; 0 for none.
        class_dim: dimension of a label's vector.
        output: ``"linear"``, as published, or ``"tanh"`` for pixels in [-1, 1].

    Raises:
        ValueError: an image that cannot be halved so often, or a hyperparameter out of range.
    """

    sources: tuple[str, ...] = ("huang2024gan",)
    needs_image: ClassVar[bool] = True

    def __init__(
        self,
        event_shape: tuple[int, ...],
        image_shape: tuple[int, ...] | None = None,
        latent_dim: int = 64,
        width: int = 64,
        most: int = 64,
        per_group: int = 8,
        blocks: int = 1,
        classes: int = 0,
        class_dim: int = 64,
        output: Output = "linear",
    ) -> None:
        super().__init__(event_shape, latent_dim, classes)
        if output not in get_args(Output):
            raise ValueError(f"output must be linear or tanh, got {output!r}; use tanh for pixels in [-1, 1]")
        checked_at_least("class_dim", class_dim, 1)
        build = Build(self.event_shape, image_shape, type(self).__name__, width, most, per_group, blocks)
        first = build.widths[0]
        self.basis = nn.Parameter(torch.randn(first, *build.coarse))
        self.embedding = variance_scaled(nn.Linear(classes, class_dim, bias=False)) if classes else None
        self.scale = variance_scaled(nn.Linear(latent_dim + class_dim * bool(classes), first, bias=False))
        layers = build.stage(first)
        for width_below, here in pairwise(build.widths):
            layers += [*_resampled(width_below, here, up=True), *build.stage(here)]
        layers += [variance_scaled(nn.Conv2d(build.widths[-1], build.image[0], 1, bias=False))]
        self.net = nn.Sequential(*layers, *([nn.Tanh()] if output == "tanh" else []))

    def push(self, z: Tensor, context: Tensor | None) -> Tensor:
        r"""Return the images, shape (N, \*E)."""
        if self.embedding is not None and context is not None:
            z = torch.cat((z, self.embedding.weight.mT[context]), 1)
        images = self.net(self.basis * self.scale(z)[:, :, None, None])
        return images.reshape(-1, *self.event_shape)


class R3GANCritic(Critic):
    r"""The generator turned round: stages from full resolution down, a depthwise convolution of all that is left.

    The depthwise kernel, as large as the coarsest image, leaves one number h of every channel; the score is w . h.
    Labels enter by projection: the score of (x, y) is :math:`Wh(x)\cdot e_y` with :math:`e_y` a learned vector.

    Args:
        event_shape: shape E of one example.
        image_shape: (H, W) or (C, H, W); None where E itself is such a shape.
        width: channels at full resolution, doubled at every halving,
        most: up to so many.
        per_group: channels of a width to a group of the 3 x 3 convolutions.
        blocks: residual blocks of a stage.
        classes: number of classes of the context; 0 for none.
        class_dim: dimension of a label's vector.

    Raises:
        ValueError: an image that cannot be halved so often, or a hyperparameter out of range.
    """

    sources: tuple[str, ...] = ("huang2024gan",)
    has_context: ClassVar[bool] = True
    needs_image: ClassVar[bool] = True
    row_wise: ClassVar[bool] = True

    def __init__(
        self,
        event_shape: tuple[int, ...],
        image_shape: tuple[int, ...] | None = None,
        width: int = 64,
        most: int = 64,
        per_group: int = 8,
        blocks: int = 1,
        classes: int = 0,
        class_dim: int = 64,
    ) -> None:
        super().__init__(event_shape, classes)
        checked_at_least("class_dim", class_dim, 1)
        build = Build(self.event_shape, image_shape, type(self).__name__, width, most, per_group, blocks)
        widths = build.widths[::-1]
        layers: list[nn.Module] = [
            Images(build.image),
            variance_scaled(nn.Conv2d(build.image[0], widths[0], 1, bias=False)),
        ]
        layers += build.stage(widths[0])
        for here, width_below in pairwise(widths):
            layers += [*_resampled(here, width_below, up=False), *build.stage(width_below)]
        last = widths[-1]
        depthwise = nn.Conv2d(last, last, build.coarse, groups=last, bias=False)
        self.features = nn.Sequential(*layers, variance_scaled(depthwise), nn.Flatten(1))
        self.last = variance_scaled(nn.Linear(last, class_dim if classes else 1, bias=False))
        embedding = nn.Linear(classes, class_dim, bias=False) if classes else None
        self.embedding = None if embedding is None else variance_scaled(embedding, 1 / sqrt(class_dim))

    def score(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the scores, shape (B,)."""
        found = self.last(self.features(x))
        if self.embedding is None or context is None:
            return found.squeeze(1)
        return (found * self.embedding.weight.mT[context]).sum(1)
