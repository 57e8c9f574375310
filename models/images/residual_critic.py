r"""A residual critic for images; sources: as of :mod:`models.images.residual`."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from models.arguments import checked_at_least
from models.base import Critic
from models.convolutional import Images, checked_image_shape
from models.images.attention import OF_ATTENTION
from models.images.blocks import CriticBlock, Doubled, attended, halvings_of
from models.images.layers import Layers, Start
from models.images.residual import widths_of


class ResidualCritic(Doubled, Critic):
    r"""A residual network on images: one score per example, no example coupled to another.

    Blocks that halve the resolution, blocks that do not (:class:`models.images.blocks.CriticBlock`), ReLU, the **sum**
    h over pixels, and a linear map of it. Labels enter by projection: the score of (x, y) is
    :math:`w\cdot h(x)+b+v_y\cdot h(x)` (Miyato, Koyama 2018).

    Spectral norms bound the slope, but not by one (see :class:`models.spectral.SpectralConv2d`), so ``lipschitz`` stays
    None.

    Args:
        event_shape: shape E of one example.
        image_shape: (H, W) or (C, H, W); None where E itself is such a shape.
        width: channels, times ``multipliers``.
        multipliers: of the width, after each block; None for ones, and as many blocks as bring the shorter side to at
            most 8 pixels, besides the plain ones.
        plain: how many blocks, at the end, keep the resolution.
        classes: number of classes of the context; 0 for none.
        attention: self-attention stands after the first block with the largest height up to this; None for nowhere.
        spectral: divide weights by their spectral norms.
        start: how weights start: ``"xavier"``, ``"normal"`` (deviation 0.02) or ``"orthogonal"``.

    Raises:
        ValueError: no images, or of a size that cannot be halved so often; or a hyperparameter out of range.
    """

    has_context: ClassVar[bool] = True
    needs_image: ClassVar[bool] = True
    row_wise: ClassVar[bool] = True

    def __init__(
        self,
        event_shape: tuple[int, ...],
        image_shape: tuple[int, ...] | None = None,
        width: int = 128,
        multipliers: tuple[int, ...] | None = None,
        plain: int = 2,
        classes: int = 0,
        attention: int | None = None,
        spectral: bool = True,
        start: Start = "xavier",
    ) -> None:
        super().__init__(event_shape, classes)
        checked_at_least("width", width, 1)
        checked_at_least("plain", plain, 0)
        name = type(self).__name__
        channels, height, columns = self.checked(checked_image_shape(image_shape, self.event_shape, name))
        halved = halvings_of(height, columns) if multipliers is None else len(multipliers) - plain
        if halved < 1 or height % 2**halved or columns % 2**halved:
            most = (min(height & -height, columns & -columns)).bit_length() - 1
            given = f"{len(multipliers or ())} multipliers of which {plain} are plain"
            raise ValueError(
                f"{name} halves {height} x {columns} pixels 1 to {most} times, got {given}: "
                f"give {1 + plain} to {most + plain} of them, or metric.network.multipliers=null"
            )
        count = halved + plain
        widths = [channels, *widths_of(width, multipliers, count, name, "metric.network")]
        layers = Layers(spectral, start)
        sides = [height >> min(i + 1, halved) for i in range(count)]
        here = attended(attention, sides, name, "metric.network.attention")
        self.attends = attention is not None
        self.images = Images((channels, height, columns))
        self.blocks = nn.Sequential(
            *(
                CriticBlock(widths[i], widths[i + 1], layers, i < halved, first=i == 0, attention=here == i)
                for i in range(count)
            )
        )
        self.last = layers.linear(widths[-1], 1)
        self.projection = layers.table(classes, widths[-1]) if classes else None

    @property
    def sources(self) -> tuple[str, ...]:
        """Keys of references: what is switched on has its own."""
        of_labels = ("miyato2018cgans",) if self.classes else ()
        return ("miyato2018spectral", *OF_ATTENTION * self.attends, *of_labels)

    def score(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the scores, shape (B,)."""
        h = F.relu(self.blocks(self.images(x))).sum((2, 3))
        scores = self.last(h).squeeze(1)
        if self.projection is None or context is None:
            return scores
        return scores + (self.projection(context) * h).sum(1)
