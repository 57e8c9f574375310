r"""A generator and a critic that grow: of one resolution at a time, inside events of full size.

A run grows by its ``stages``: each names the resolution r of both networks, how many examples a fade takes, rounds and
batch size. Layers of one name have one shape in all of them, so a stage takes over what the one before had; what is new
starts afresh, and so does the optimiser of a player whose layers have changed (published: Adam's moments are reset at
every change of phase).

Every event has full size. Full is the least 4 * 2^k not below the image's side; images of another size (28: full is 32)
are its middle, and the critic puts their border around them again. The generator of resolution r repeats its pixels up
to full size; the critic averages squares of full size down to r x r, which gives back what was repeated.

A fade brings a resolution in smoothly, alpha rising from 0 to 1 by the examples seen since the stage began:

    samples   (1 - alpha) doubled(image of r/2) + alpha (image of r)
    reals     (1 - alpha) doubled(halved(real at r)) + alpha (real at r)      :meth:`GrowingGenerator.seen`
    critic    (1 - alpha) (what it reads at r/2) + alpha (what its layers of r make)

The reals are faded where they are drawn, by the model, which says what its family can look like, and not by a first map
of the critic on reals and samples alike. That would be exact at alpha 0 and 1, and for the averaging, which changes no
sample; but a fade is no projection: details of a sample, which carry alpha already, would carry alpha^2 and those of
reals alpha, and the generator would have to make details 1/alpha too large.

Source: Karras, Aila, Laine, Lehtinen, "Progressive growing of GANs for improved quality, stability, and variation",
ICLR 2018, section 2, figure 2 and appendix A. At 1024 pixels (base 8192, most 512) the layers of all resolutions
have 23.08M and 23.09M parameters.
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.arguments import checked_at_least
from models.base import Critic
from models.convolutional import Images
from models.generators import Generator
from models.images.equalised import GROUP, Deviation, EqualisedConv2d, EqualisedLinear, activated, normalised
from models.images.resampling import doubled, halved
from models.images.stages import Canvas, channels, check_grows, fades_of
from models.laws import Particles
from models.networks import with_context


class GrowingGenerator(Generator):
    r"""An implicit law :math:`x=g_\theta(z)`, :math:`z\sim N(0,I)`, of images of one resolution at full size.

    A dense map to 4 x 4, then for each resolution twice: leaky ReLU of an equalised 3 x 3 convolution, each pixel's
    channels divided by their root mean square; pixels are doubled before the first. A latent point is divided likewise.

    Args:
        event_shape: shape E of one example.
        image_shape: (H, W) or (C, H, W), square; None where E itself is such a shape.
        latent_dim: dimension of z.
        base: channels at resolution r are 2 base / r,
        most: at most so many.
        resolution: r, one of 4, 8, ... up to full; None for full.
        fade: examples over which r comes in; 0 for at once.
        classes: number of classes of the context, which enters as a one-hot vector beside z; 0 for none.

    Raises:
        ValueError: an image that is not square, a resolution there is none of, or a hyperparameter out of range.
    """

    sources: tuple[str, ...] = ("karras2018progressive",)
    needs_image: ClassVar[bool] = True

    def __init__(
        self,
        event_shape: tuple[int, ...],
        image_shape: tuple[int, ...] | None = None,
        latent_dim: int = 64,
        base: int = 512,
        most: int = 64,
        resolution: int | None = None,
        fade: int = 0,
        classes: int = 0,
    ) -> None:
        super().__init__(event_shape, latent_dim, classes)
        checked_at_least("base", base, 1)
        checked_at_least("most", most, 1)
        self._canvas = canvas = Canvas(self.event_shape, image_shape, resolution, fade, type(self).__name__)
        self.resolution, self.fades = canvas.resolution, bool(fade)
        width = {side: channels(side, base, most) for side in canvas.sides}
        self.first = EqualisedLinear(latent_dim + classes, 16 * width[4], gain=sqrt(2) / 4, bias=False)
        self.bias = nn.Parameter(torch.zeros(width[4]))
        self.images = Images((width[4], 4, 4))
        self.blocks = nn.ModuleDict()
        for side in canvas.sides:
            convolutions = [EqualisedConv2d(width[side], width[side])]
            if side > 4:
                convolutions.insert(0, EqualisedConv2d(width[side // 2], width[side]))
            self.blocks[str(side)] = nn.Sequential(*convolutions)
        shown = [self.resolution // 2] * self.fades + [self.resolution]
        self.to_image = nn.ModuleDict({str(s): EqualisedConv2d(width[s], canvas.image[0], 1, gain=1.0) for s in shown})
        self.fade = fades_of(self.resolution, fade)

    def check_follows(self, before: nn.Module) -> None:
        """Refuse a stage that shrinks, leaves a resolution out, or fades in what is there."""
        check_grows(self, before)

    def push(self, z: Tensor, context: Tensor | None) -> Tensor:
        r"""Return the images, shape (N, \*E)."""
        h = self.images(self.first(normalised(with_context(z, context, self.classes)))) + self.bias[:, None, None]
        h, old = normalised(activated(h)), None
        for side, block in zip(self._canvas.sides, self.blocks.values(), strict=True):
            if side > 4:
                if side == self.resolution and self.fades:
                    old = doubled(self.to_image[str(side // 2)](h))
                h = doubled(h)
            for convolution in block.children():
                h = normalised(activated(convolution(h)))
        images = self.to_image[str(self.resolution)](h)
        if old is not None:
            images = self.fade[str(self.resolution)](old, images)
        return self._canvas.spread(images).reshape(-1, *self.event_shape)

    def seen(self, batch: Particles) -> Particles:
        """Return data at the present resolution, faded as samples are."""
        if self.resolution == self._canvas.full and not self.fades:
            return batch
        images = self._canvas.averaged(batch.x)
        for fade in self.fade.values():
            images = fade(doubled(halved(images)), images)
        return replace(batch, x=self._canvas.spread(images).reshape(batch.x.shape))


class GrowingCritic(Critic):
    r"""The generator turned round, without normalisation, and with the deviation of groups of 4 examples at 4 x 4.

    For each resolution two equalised 3 x 3 convolutions with leaky ReLU and the averages of squares of pixels; at 4 x 4
    a channel of deviations (:class:`models.images.equalised.Deviation`), a convolution and two dense maps. Labels enter
    by projection of the last hidden layer.

    The deviation couples the examples of a batch: a penalty on each example's gradient is then that of the batch's sum,
    as published, and ``allow=[batch_coupled]`` says so.

    Args:
        event_shape: shape E of one example.
        image_shape: (H, W) or (C, H, W), square; None where E itself is such a shape.
        base: channels at resolution r are 2 base / r,
        most: at most so many.
        resolution: r, one of 4, 8, ... up to full; None for full.
        fade: examples over which r comes in; 0 for at once.
        classes: number of classes of the context; 0 for none.
        deviation: whether there is the channel of deviations.

    Raises:
        ValueError: an image that is not square, a resolution there is none of, or a hyperparameter out of range.
    """

    sources: tuple[str, ...] = ("karras2018progressive",)
    has_context: ClassVar[bool] = True
    needs_image: ClassVar[bool] = True

    def __init__(
        self,
        event_shape: tuple[int, ...],
        image_shape: tuple[int, ...] | None = None,
        base: int = 512,
        most: int = 64,
        resolution: int | None = None,
        fade: int = 0,
        classes: int = 0,
        deviation: bool = True,
    ) -> None:
        super().__init__(event_shape, classes)
        checked_at_least("base", base, 1)
        checked_at_least("most", most, 1)
        self._canvas = canvas = Canvas(self.event_shape, image_shape, resolution, fade, type(self).__name__)
        self.resolution, self.fades = canvas.resolution, bool(fade)
        width = {side: channels(side, base, most) for side in (2, *canvas.sides)}
        read = [self.resolution // 2] * self.fades + [self.resolution]
        self.images = Images((canvas.image[0], self.resolution, self.resolution))
        self.from_image = nn.ModuleDict({str(s): EqualisedConv2d(canvas.image[0], width[s], 1) for s in read})
        self.blocks = nn.ModuleDict()
        for side in canvas.sides[:0:-1]:
            pair = [EqualisedConv2d(width[side], width[side]), EqualisedConv2d(width[side], width[side // 2])]
            self.blocks[str(side)] = nn.Sequential(*pair)
        self.deviation = Deviation() if deviation else None
        self.batch_multiple = GROUP if deviation else 1  # type: ignore[misc]  # of the instance
        self.convolution = EqualisedConv2d(width[4] + deviation, width[4])
        self.dense = EqualisedLinear(16 * width[4], width[2])
        self.last = EqualisedLinear(width[2], 1, gain=1.0)
        self.projection = EqualisedLinear(width[2], classes, gain=1.0, bias=False) if classes else None
        self.fade = fades_of(self.resolution, fade)

    def check_follows(self, before: nn.Module) -> None:
        """Refuse a stage that shrinks, leaves a resolution out, or fades in what is there."""
        check_grows(self, before)

    def score(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the scores, shape (B,)."""
        images = self.images(self._canvas.averaged(x))
        h = activated(self.from_image[str(self.resolution)](images))
        for side, block in self.blocks.items():
            for convolution in block.children():
                h = activated(convolution(h))
            h = halved(h)
            for fade in self.fade.values() if side == str(self.resolution) else ():
                h = fade(activated(self.from_image[str(self.resolution // 2)](halved(images))), h)
        h = h if self.deviation is None else self.deviation(h)
        h = activated(self.dense(activated(self.convolution(h)).flatten(1)))
        scores = self.last(h).squeeze(1)
        if self.projection is None or context is None:
            return scores
        return scores + self.projection(h).gather(1, context[:, None]).squeeze(1)
