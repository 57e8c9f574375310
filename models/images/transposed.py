r"""A generator of transposed convolutions and a critic of strided ones, with batch normalisation.

Source: Radford, Metz, Chintala, "Unsupervised representation learning with deep convolutional generative adversarial
networks", ICLR 2016: sizes, normalisation and start (N(0, 0.02)). :mod:`models.convolutional` has the same ladder with
group normalisation, which couples no examples.
"""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.arguments import checked_at_least
from models.base import Critic
from models.convolutional import Images, Output, checked_image_shape, halvings
from models.images.layers import small
from models.images.normalised import NormalisedGenerator
from models.networks import LEAK, with_context

Normalisation = Literal["batch", "none"]
Beginning = Literal["normal", "torch"]


class TransposedGenerator(NormalisedGenerator):
    r"""An implicit law :math:`x=g_\theta(z)`, :math:`z\sim N(0,I)`: transposed convolutions, each doubling.

    The first makes the coarsest sides (H and W divided by a power of two, 4 to 7 pixels) of z; those that follow are
    4 x 4 of stride 2. Batch normalisation and ReLU stand between; there are no biases. Sides are rounded up, and what
    is too much is cropped at the bottom and on the right.

    Args:
        event_shape: shape E of one example.
        image_shape: (H, W) or (C, H, W); None where E itself is such a shape.
        latent_dim: dimension of z.
        width: channels at half resolution, doubled at every halving.
        classes: number of classes of the context, which enters as a one-hot vector beside z; 0 for none.
        start: ``"normal"`` (deviation 0.02) or ``"torch"``: how weights start.
        output: ``"tanh"`` for pixels in [-1, 1], or ``"linear"``.

    Raises:
        ValueError: examples that are no images of that shape, or a hyperparameter out of range.
    """

    sources: tuple[str, ...] = ("radford2016unsupervised",)
    needs_image: ClassVar[bool] = True

    def __init__(
        self,
        event_shape: tuple[int, ...],
        image_shape: tuple[int, ...] | None = None,
        latent_dim: int = 100,
        width: int = 64,
        classes: int = 0,
        start: Beginning = "normal",
        output: Output = "tanh",
    ) -> None:
        super().__init__(event_shape, latent_dim, classes)
        checked_at_least("width", width, 1)
        if output not in get_args(Output):
            raise ValueError(f"output must be linear or tanh, got {output!r}; use tanh for pixels in [-1, 1]")
        self.image_shape = channels, height, columns = checked_image_shape(
            image_shape, self.event_shape, type(self).__name__
        )
        k = halvings(height, columns)
        coarse, widths = (-(-height >> k), -(-columns >> k)), [width << i for i in reversed(range(k))]
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent_dim + classes, widths[0], coarse, bias=False)]
        for inputs, outputs in zip(widths, [*widths[1:], channels], strict=True):
            layers += [nn.BatchNorm2d(inputs), nn.ReLU(), nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)]
        self.net = nn.Sequential(*layers, *([nn.Tanh()] if output == "tanh" else []))
        begin(self, start)

    def push(self, z: Tensor, context: Tensor | None) -> Tensor:
        r"""Return the images, shape (N, \*E)."""
        _, height, columns = self.image_shape
        points = with_context(z, context, self.classes)[:, :, None, None]
        images = self.net(points.contiguous(memory_format=torch.channels_last))[..., :height, :columns]
        return images.reshape(-1, *self.event_shape)


class StridedCritic(Critic):
    r"""Strided convolutions on images: one score per example.

    Convolutions (4 x 4, stride 2) that halve the resolution until the shorter side is 4 to 7 pixels, with leaky ReLU
    (0.2), and one as large as what is left. Labels enter by projection, as in :class:`models.convolutional.ConvCritic`.

    With batch normalisation (all but the first and last layer, as published) the examples of a batch are **coupled**:
    penalties on single examples are refused (``allow=[batch_coupled]`` takes the responsibility), and data and samples
    are scored in passes of their own. ``norm="none"`` couples nothing.

    Args:
        event_shape: shape E of one example.
        image_shape: (H, W) or (C, H, W); None where E itself is such a shape.
        width: channels at half resolution, doubled at every halving.
        norm: ``"batch"`` or ``"none"``; without it hidden convolutions have biases.
        classes: number of classes of the context; 0 for none.
        start: ``"normal"`` (deviation 0.02) or ``"torch"``: how weights start.

    Raises:
        ValueError: examples that are no images of that shape, or a hyperparameter out of range.
    """

    sources: tuple[str, ...] = ("radford2016unsupervised",)
    has_context: ClassVar[bool] = True
    needs_image: ClassVar[bool] = True

    def __init__(
        self,
        event_shape: tuple[int, ...],
        image_shape: tuple[int, ...] | None = None,
        width: int = 64,
        norm: Normalisation = "batch",
        classes: int = 0,
        start: Beginning = "normal",
    ) -> None:
        super().__init__(event_shape, classes)
        checked_at_least("width", width, 1)
        if norm not in get_args(Normalisation):
            raise ValueError(f"norm must be batch or none, got {norm!r}; batch is as published")
        shape = channels, height, columns = checked_image_shape(image_shape, self.event_shape, type(self).__name__)
        k = halvings(height, columns)
        self.coupled = norm == "batch" and k > 1  # the first and the last layer have no norm
        layers: list[nn.Module] = [Images(shape), nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(LEAK)]
        for i in range(k - 1):
            inputs, outputs = width << i, width << i + 1
            layers.append(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=not self.coupled))
            layers += [*([nn.BatchNorm2d(outputs)] if self.coupled else []), nn.LeakyReLU(LEAK)]
        self.features = nn.Sequential(*layers, nn.Flatten(1))
        size = (width << k - 1) * (height >> k) * (columns >> k)
        self.last = nn.Linear(size, 1, bias=False)
        self.projection = nn.Embedding(classes, size) if classes else None
        begin(self, start)

    @property
    def row_wise(self) -> bool:  # type: ignore[override]
        """Whether no example's score depends on the others."""
        return not self.coupled

    def score(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the scores, shape (B,)."""
        h = self.features(x)
        scores = self.last(h).squeeze(1)
        if self.projection is None or context is None:
            return scores
        return scores + (F.embedding(context, self.projection.weight) * h).sum(1)


@torch.no_grad()
def begin(network: nn.Module, start: Beginning) -> None:
    """Let weights start at N(0, 0.02), scales of norms about one, biases at zero; or as torch does.

    Raises:
        ValueError: no such start.
    """
    if start not in get_args(Beginning):
        raise ValueError(f"start must be normal or torch, got {start!r}; normal is as published")
    if start == "torch":
        return
    for name, parameter in network.named_parameters():
        if parameter.is_meta:
            continue
        if parameter.ndim > 1:
            small(parameter)
        elif name.endswith("bias"):
            parameter.zero_()
        else:
            nn.init.normal_(parameter, 1.0, 0.02)
