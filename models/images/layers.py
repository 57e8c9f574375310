r"""Layers of image networks: affine maps with a stated start, that may be divided by their spectral norm or resample.

A convolution that doubles or halves the resolution is one operation. Nearest-neighbour doubling and a 3 x 3 convolution
are together a transposed convolution with a 4 x 4 kernel, a 3 x 3 convolution and the mean of 2 x 2 pixels a 4 x 4
convolution of stride 2: the same functions, borders included, with 4/9 of the products.

Sources of the starts: Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks",
AISTATS 2010 (xavier); Radford, Metz, Chintala, ICLR 2016 (normal, N(0, 0.02)); Saxe, McClelland, Ganguli, "Exact
solutions to the nonlinear dynamics of learning in deep linear neural networks", ICLR 2014 (orthogonal).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.spectral import SpectralNormalised

Start = Literal["xavier", "normal", "orthogonal"]
Resample = Literal["double", "halve"]
Initial = Callable[[Tensor], Any]
"""Fills a weight."""


class Conv(nn.Conv2d):
    r"""A convolution of odd kernel that keeps the resolution, or doubles or halves it.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        kernel: side of the kernel, 3 or 1.
        bias: whether there is one; it starts at zero.
        resample: ``"double"``: pixels are repeated before; ``"halve"``: means of 2 x 2 pixels are taken after.
        initial: fills the weight; None for torch's own start.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        bias: bool = True,
        resample: Resample | None = None,
        initial: Initial | None = None,
    ) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
        self.resample = resample
        begin(self, initial)

    def matrix(self) -> Tensor:
        """Return the kernel that is used, shape (outputs, inputs, k, k)."""
        return self.weight

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H', W')."""
        weight = self.matrix()
        if self.resample is None:
            return F.conv2d(x, weight, self.bias, padding=self.padding)
        if self.kernel_size == (1, 1):  # commutes with both, and is cheapest on the fewer pixels
            if self.resample == "halve":
                return F.conv2d(F.avg_pool2d(x, 2), weight, self.bias)
            return F.interpolate(F.conv2d(x, weight, self.bias), scale_factor=2)
        if self.resample == "halve":
            return F.conv2d(x, spread(weight) / 4, self.bias, stride=2, padding=1)
        return F.conv_transpose2d(x, spread(weight.flip(2, 3)).transpose(0, 1), self.bias, stride=2, padding=1)


def spread(weight: Tensor) -> Tensor:
    """Return a 3 x 3 kernel, shape (m, n, 3, 3), convolved with 2 x 2 ones, shape (m, n, 4, 4)."""
    padded = F.pad(weight, (1, 1, 1, 1))
    rows = padded[..., 1:, :] + padded[..., :-1, :]
    return rows[..., 1:] + rows[..., :-1]


class Linear(nn.Linear):
    """An affine map with a stated start; the bias starts at zero.

    Args:
        inputs: columns of the matrix.
        outputs: rows of the matrix.
        bias: whether there is one.
        initial: fills the matrix; None for torch's own start.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True, initial: Initial | None = None) -> None:
        super().__init__(inputs, outputs, bias)
        begin(self, initial)

    def matrix(self) -> Tensor:
        """Return the matrix that is used, shape (outputs, inputs)."""
        return self.weight

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs) to (B, outputs)."""
        return F.linear(x, self.matrix(), self.bias)


class Table(nn.Embedding):
    """One vector for each class.

    Args:
        classes: number of classes.
        size: of a vector.
        initial: fills the table; None for N(0, 1).
    """

    def __init__(self, classes: int, size: int, initial: Initial | None = None) -> None:
        super().__init__(classes, size)
        begin(self, initial)

    def matrix(self) -> Tensor:
        """Return the table that is used, shape (classes, size)."""
        return self.weight

    def forward(self, context: Tensor) -> Tensor:
        """Return the vectors of labels, shape (B, size)."""
        return F.embedding(context, self.matrix())


class SpectralConv(SpectralNormalised, Conv):
    """:class:`Conv` whose kernel, as the matrix (outputs, inputs k k), is divided by its spectral norm."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.attach_u()

    def matrix(self) -> Tensor:
        """Return the kernel over its norm."""
        return self.weight / self.sigma()


class SpectralLinear(SpectralNormalised, Linear):
    """:class:`Linear` whose matrix is divided by its spectral norm."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.attach_u()

    def matrix(self) -> Tensor:
        """Return the matrix over its norm."""
        return self.weight / self.sigma()


class SpectralTable(SpectralNormalised, Table):
    """:class:`Table` divided by its spectral norm."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.attach_u()

    def matrix(self) -> Tensor:
        """Return the table over its norm."""
        return self.weight / self.sigma()


@dataclass(frozen=True)
class Layers:
    """What the layers of one network have in common.

    Spectral norms need no epsilon here: those of the sources guard the vectors of a power iteration, which
    :meth:`models.spectral.SpectralNormalised.settle` scales before they can vanish.

    Attributes:
        spectral: weights are divided by their spectral norms.
        start: how weights start.

    Raises:
        ValueError: no such start.
    """

    spectral: bool = False
    start: Start = "xavier"

    def __post_init__(self) -> None:
        if self.start not in get_args(Start):
            raise ValueError(f"start must be one of {', '.join(get_args(Start))}, got {self.start!r}; choose one")

    def initial(self, gain: float = 1.0) -> Initial:
        """Return what fills a weight; a gain is Xavier's alone."""
        if self.start == "orthogonal":
            return nn.init.orthogonal_
        return partial(nn.init.xavier_uniform_, gain=gain) if self.start == "xavier" else small

    def conv(
        self, inputs: int, outputs: int, kernel: int = 3, bias: bool = True, resample: Resample | None = None,
        gain: float = 1.0,
    ) -> Conv:  # fmt: skip
        """Return a convolution."""
        kind = SpectralConv if self.spectral else Conv
        return kind(inputs, outputs, kernel, bias, resample, self.initial(gain))

    def linear(self, inputs: int, outputs: int, bias: bool = True) -> Linear:
        """Return an affine map."""
        return (SpectralLinear if self.spectral else Linear)(inputs, outputs, bias, self.initial())

    def table(self, classes: int, size: int) -> Table:
        """Return a vector for each class."""
        return (SpectralTable if self.spectral else Table)(classes, size, self.initial())

    def embedding(self, classes: int, size: int) -> Table:
        """Return a vector for each class that other layers read: never spectral; N(0, 1) under Xavier."""
        return Table(classes, size, None if self.start == "xavier" else self.initial())

    def offsets(self, classes: int, size: int) -> Table:
        """Return a vector for each class that is added to what is there without classes: never spectral, Xavier's 0."""
        return Table(classes, size, nn.init.zeros_ if self.start == "xavier" else self.initial())


small: Initial = partial(nn.init.normal_, std=0.02)
"""N(0, 0.02): in deviations, as DCGAN's."""


@torch.no_grad()
def begin(layer: nn.Conv2d | nn.Linear | nn.Embedding, initial: Initial | None) -> None:
    """Let a layer's weight start as stated and its bias at zero; on the meta device there is nothing to fill."""
    if initial is None or layer.weight.is_meta:
        return
    initial(layer.weight)
    bias = getattr(layer, "bias", None)
    if bias is not None:
        bias.zero_()
