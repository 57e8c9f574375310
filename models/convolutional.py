r"""Small convolutional networks for images: a generator and a critic.

Both work on images of any height and width from 4, and follow the same ladder of resolutions: halved (rounding up in
the generator, down in the critic) until the shorter side is 4 to 7 pixels, at least once, with the channels doubled
each time from ``width`` at full resolution. Examples come and go as (B, \*E), E being the image or its flat vector.

Source: Radford, Metz, Chintala, "Unsupervised representation learning with deep convolutional generative adversarial
networks", ICLR 2016; with the stride-1 convolution at full resolution of Miyato et al., "Spectral normalization for
generative adversarial networks", ICLR 2018, table 3.
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd, prod
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from models.arguments import checked_at_least, checked_event_shape
from models.base import Critic
from models.generators import Generator
from models.networks import with_context
from models.spectral import SpectralConv2d, SpectralLinear

Output = Literal["linear", "tanh"]


def checked_image_shape(
    image_shape: tuple[int, ...] | None, event_shape: tuple[int, ...], owner: str
) -> tuple[int, int, int]:
    """Return (C, H, W) of the images that examples of shape E are.

    Args:
        image_shape: (H, W) or (C, H, W); None where E itself is such a shape.
        event_shape: E; the same shape (axes of length one apart), or its flat vector.
        owner: name of the network, for messages.

    Raises:
        ValueError: no shape of an image, one of another size or order of axes than E, or a side shorter than 4.
    """
    shape = checked_event_shape(event_shape if image_shape is None else image_shape, owner)
    if len(shape) not in (2, 3):
        raise ValueError(
            f"{owner} is for images, got image_shape {image_shape} for examples of shape {tuple(event_shape)}; "
            "pass image_shape (H, W) or (C, H, W), or choose another network for this data"
        )
    long_axes = [tuple(n for n in axes if n > 1) for axes in (shape, event_shape)]
    if prod(shape) != prod(event_shape) or (len(event_shape) > 1 and long_axes[0] != long_axes[1]):
        raise ValueError(
            f"{owner}: examples of shape {tuple(event_shape)} are no images of shape {shape}; they must have that "
            "shape (channels first) or be flat"
        )
    channels, height, width = (1, *shape) if len(shape) == 2 else shape
    if min(height, width) < 4:
        raise ValueError(f"{owner} needs images of at least 4 x 4 pixels, got {height} x {width}; use a perceptron")
    return channels, height, width


def halvings(height: int, width: int) -> int:
    """Return how often the resolution is halved: until the shorter side is below 8, at least once."""
    return max(1, (min(height, width) // 4).bit_length() - 1)


class Images(nn.Unflatten):
    """Examples of any shape as images of one shape, on which convolutions are fastest.

    Each pixel's channels lie side by side in memory, which a convolution keeps to its output and which takes a tenth
    to a quarter less time on a CPU. Weights keep the usual order: a fused optimiser walks through weight, gradient and
    moments in the order of memory, and is silently wrong when a checkpoint brings the moments back in another.
    """

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        super().__init__(1, image_shape)

    def forward(self, x: Tensor) -> Tensor:
        r"""Map (B, \*E) to (B, C, H, W)."""
        images = x.reshape(len(x), *self.unflattened_size)
        try:
            return images.contiguous(memory_format=torch.channels_last)
        except RuntimeError:  # vmap knows one order of memory, and says so
            return images


class ConvGenerator(Generator):
    r"""An implicit law :math:`x=g_\theta(z)`, :math:`z\sim N(0,I)`, with g a transposed-convolutional network.

    A linear map to the coarsest resolution, then blocks of group normalisation, ReLU and a transposed convolution
    (4 x 4, stride 2) that doubles it, and a 3 x 3 convolution at the end. The coarsest sides are H and W divided by
    the power of two and rounded up; what the doublings have too much is cropped at the bottom and on the right.

    Group normalisation in the place of DCGAN's batch normalisation keeps particles independent of each other.

    Args:
        event_shape: shape E of one example.
        image_shape: (H, W) or (C, H, W); None where E itself is such a shape.
        latent_dim: dimension of z.
        width: channels at full resolution.
        classes: number of classes of the context, which enters as a one-hot vector beside z; 0 for none.
        output: ``"linear"``, or ``"tanh"`` for pixels in [-1, 1].

    Raises:
        ValueError: examples that are no images of that shape, or a hyperparameter out of range.
    """

    sources: tuple[str, ...] = ("radford2016unsupervised", "miyato2018spectral")
    needs_image: ClassVar[bool] = True

    def __init__(
        self,
        event_shape: tuple[int, ...],
        image_shape: tuple[int, ...] | None = None,
        latent_dim: int = 64,
        width: int = 32,
        classes: int = 0,
        output: Output = "linear",
    ) -> None:
        super().__init__(event_shape, latent_dim, classes)
        checked_at_least("width", width, 1)
        if output not in get_args(Output):
            raise ValueError(f"output must be linear or tanh, got {output!r}; use tanh for pixels in [-1, 1]")
        self.image_shape = channels, height, columns = checked_image_shape(
            image_shape, self.event_shape, type(self).__name__
        )
        doublings = halvings(height, columns)
        coarse = (width << doublings, -(-height >> doublings), -(-columns >> doublings))
        layers: list[nn.Module] = [nn.Linear(latent_dim + classes, prod(coarse)), Images(coarse)]
        for i in range(doublings, 0, -1):
            layers += [*_normalised(width << i), nn.ConvTranspose2d(width << i, width << i - 1, 4, 2, 1, bias=False)]
        layers += [*_normalised(width), nn.Conv2d(width, channels, 3, padding=1)]
        self.net = nn.Sequential(*layers, *([nn.Tanh()] if output == "tanh" else []))

    def push(self, z: Tensor, context: Tensor | None) -> Tensor:
        r"""Return the images, shape (N, \*E)."""
        _, height, columns = self.image_shape
        images = self.net(with_context(z, context, self.classes))[..., :height, :columns]
        return images.reshape(-1, *self.event_shape)


def _normalised(channels: int) -> tuple[nn.Module, nn.Module]:
    """Return group normalisation (up to 8 groups) and ReLU, not in place: hooks see what a layer has returned."""
    return nn.GroupNorm(gcd(8, channels), channels), nn.ReLU()


class ConvCritic(Critic):
    r"""A convolutional network on images: one score per example, no example coupled to another.

    A 3 x 3 convolution at full resolution, then convolutions (4 x 4, stride 2) that halve it, each followed by leaky
    ReLU (0.2), and a linear map h -> w . h + b of all that is left. Labels enter by projection: the score of (x, y) is
    :math:`w\cdot h(x)+b+v_y\cdot h(x)` (Miyato, Koyama, "cGANs with projection discriminator", ICLR 2018).

    There is no batch normalisation, which would couple the examples and void gradient penalties.

    Args:
        event_shape: shape E of one example.
        image_shape: (H, W) or (C, H, W); None where E itself is such a shape.
        width: channels at full resolution.
        classes: number of classes of the context; 0 for none.
        spectral: divide kernels (reshaped to matrices) and last weights by their spectral norms (Miyato et al. 2018).
            That bounds the slope, but not by one: see :class:`models.spectral.SpectralConv2d`. So ``lipschitz``
            stays None.

    Raises:
        ValueError: examples that are no images of that shape, or a hyperparameter out of range.
    """

    sources: tuple[str, ...] = ("radford2016unsupervised", "miyato2018spectral")
    has_context: ClassVar[bool] = True
    needs_image: ClassVar[bool] = True
    row_wise: ClassVar[bool] = True

    def __init__(
        self,
        event_shape: tuple[int, ...],
        image_shape: tuple[int, ...] | None = None,
        width: int = 32,
        classes: int = 0,
        spectral: bool = False,
    ) -> None:
        super().__init__(event_shape, classes)
        checked_at_least("width", width, 1)
        self.image_shape = channels, height, columns = checked_image_shape(
            image_shape, self.event_shape, type(self).__name__
        )
        conv: Callable[..., nn.Module] = SpectralConv2d if spectral else nn.Conv2d
        linear: Callable[..., nn.Module] = SpectralLinear if spectral else nn.Linear
        steps = halvings(height, columns)
        layers: list[nn.Module] = [Images(self.image_shape), conv(channels, width, 3, 1, 1), nn.LeakyReLU(0.2)]
        for i in range(steps):
            # A side n becomes n // 2; with padding one the patches reach the last row of an odd side too.
            layers += [conv(width << i, width << i + 1, 4, 2, 1), nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers, nn.Flatten(1))
        size = (width << steps) * (height >> steps) * (columns >> steps)
        self.last = linear(size, 1)
        self.projection = linear(size, classes, bias=False) if classes else None

    def score(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the scores, shape (B,)."""
        h = self.features(x)
        scores = self.last(h).squeeze(1)
        if self.projection is None or context is None:
            return scores
        return scores + self.projection(h).gather(1, context[:, None]).squeeze(1)
