r"""A residual generator for images.

Sources: Miyato et al. 2018 (unconditional, 32 x 32, width 256); labels by class-conditional norms: Miyato, Koyama,
"cGANs with projection discriminator", ICLR 2018; self-attention: Zhang et al., ICML 2019; a shared embedding, a part of
z for each block, spectral norms and orthogonal starts: Brock, Donahue, Simonyan, ICLR 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar, get_args

import torch
from torch import Tensor, nn

from models.arguments import checked_at_least
from models.convolutional import Images, Output, checked_image_shape, halvings
from models.images.attention import OF_ATTENTION
from models.images.blocks import Doubled, DoublingBlock, attended
from models.images.conditional import Norm
from models.images.layers import Layers, Start
from models.images.normalised import NormalisedGenerator


class ResidualGenerator(Doubled, NormalisedGenerator):
    r"""An implicit law :math:`x=g_\theta(z)`, :math:`z\sim N(0,I)`, with a residual network for g.

    A linear map of z to sides of 4 to 7 pixels; blocks that double them (:class:`models.images.blocks.DoublingBlock`);
    norm, ReLU and a 3 x 3 convolution. Norms are batch normalisation: while it trains particles are coupled, which
    expectations over them may be; samples are drawn by the running figures.

    Labels enter by the norms: a scale and shift for each class, or, with ``shared``, maps of one embedding. With
    ``skip`` z is cut into one part for the linear map and one for each block, whose norms read it beside the label.

    Args:
        event_shape: shape E of one example.
        image_shape: (H, W) or (C, H, W); None where E itself is such a shape.
        latent_dim: dimension of z.
        width: channels, times ``multipliers``.
        multipliers: of the width, before the first block and after each; None for ones.
        classes: number of classes of the context; 0 for none.
        shared: size of the embedding of a class that all norms read; 0 for a scale and shift for each class.
        skip: give each block its part of z.
        attention: self-attention stands after the block with the largest height up to this; None for nowhere.
        spectral: divide weights by their spectral norms (not the embedding).
        start: how weights start: ``"xavier"``, ``"normal"`` (deviation 0.02) or ``"orthogonal"``.
        output: ``"tanh"`` for pixels in [-1, 1], or ``"linear"``.

    Raises:
        ValueError: no images, or of a size that doublings do not make; or a hyperparameter out of range.
    """

    needs_image: ClassVar[bool] = True

    def __init__(
        self,
        event_shape: tuple[int, ...],
        image_shape: tuple[int, ...] | None = None,
        latent_dim: int = 128,
        width: int = 256,
        multipliers: tuple[int, ...] | None = None,
        classes: int = 0,
        shared: int = 0,
        skip: bool = False,
        attention: int | None = None,
        spectral: bool = False,
        start: Start = "xavier",
        output: Output = "tanh",
    ) -> None:
        super().__init__(event_shape, latent_dim, classes)
        checked_at_least("width", width, 1)
        checked_at_least("shared", shared, 0)
        if output not in get_args(Output):
            raise ValueError(f"output must be linear or tanh, got {output!r}; use tanh for pixels in [-1, 1]")
        name = type(self).__name__
        channels, height, columns = self.checked(checked_image_shape(image_shape, self.event_shape, name))
        blocks = halvings(height, columns)
        widths = widths_of(width, multipliers, blocks + 1, f"{name} for {height} x {columns} pixels", "model")
        if skip and latent_dim % (blocks + 1):
            raise ValueError(
                f"skip cuts z into {blocks + 1} equal parts, got latent_dim = {latent_dim}: "
                f"model.latent_dim={max(1, round(latent_dim / (blocks + 1))) * (blocks + 1)}"
            )
        if shared and not classes:
            raise ValueError(
                f"shared = {shared} is the size of an embedding of labels, and the data has none: data.labels=true, or "
                "model.shared=0"
            )
        if skip and classes and not shared:
            raise ValueError("skip gives the norms vectors, so labels need an embedding: model.shared=128")
        layers = Layers(spectral, start)
        self.part = latent_dim // (blocks + 1) if skip else latent_dim
        self.skip, coarse = skip, (widths[0], height >> blocks, columns >> blocks)
        self.shared = layers.embedding(classes, shared) if classes and shared else None
        condition = (shared if self.shared is not None else 0) + (self.part if skip else 0)
        self.first = nn.Sequential(layers.linear(self.part, prod(coarse)), Images(coarse))
        here = attended(attention, [height >> (blocks - 1 - i) for i in range(blocks)], name, "model.attention")
        self.blocks = nn.ModuleList(
            DoublingBlock(widths[i], widths[i + 1], layers, classes, condition, here == i) for i in range(blocks)
        )
        self.attends = attention is not None
        last: list[nn.Module] = [Norm(widths[-1]), layers.conv(widths[-1], channels)]
        self.last = nn.Sequential(*last, *([nn.Tanh()] if output == "tanh" else []))

    @property
    def sources(self) -> tuple[str, ...]:
        """Keys of references: what is switched on has its own."""
        return ("miyato2018spectral", *OF_ATTENTION * self.attends, *("brock2019large",) * self.skip)

    def push(self, z: Tensor, context: Tensor | None) -> Tensor:
        r"""Return the images, shape (N, \*E)."""
        parts = z.split(self.part, dim=1)
        condition = context if self.shared is None or context is None else self.shared(context)
        h = self.first(parts[0])
        for block, own in zip(self.blocks, parts[1:] if self.skip else [None] * len(self.blocks), strict=True):
            given = condition
            if own is not None:
                given = own if condition is None else torch.cat((condition, own), dim=1)
            h = block(h, given)
        return self.last(h).reshape(-1, *self.event_shape)


def widths_of(width: int, multipliers: Sequence[int] | None, count: int, owner: str, key: str) -> list[int]:
    """Return the channels at ``count`` places.

    Args:
        width: channels at multiplier one.
        multipliers: one for each place; None for ones.
        count: how many there must be.
        owner: name of the network with its size, for messages.
        key: of its part of the configuration.

    Raises:
        ValueError: another number of multipliers, or one below one.
    """
    if multipliers is None:
        return [width] * count
    if len(multipliers) != count or min(multipliers) < 1:
        ones = ",".join("1" * count)
        raise ValueError(
            f"{owner} needs {count} multipliers, each at least 1, got {list(multipliers)}: "
            f"{key}.multipliers=[{ones}], or null for ones"
        )
    return [width * m for m in multipliers]
