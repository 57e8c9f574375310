r"""Glow: a multi-scale flow of images with invertible 1 x 1 convolutions."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn

from models.arguments import checked_at_least, checked_layers
from models.base import check_context
from models.convolutional import checked_image_shape
from models.glow.level import Level, PresentLevel
from models.glow.mixing import Parametrisation
from models.glow.moves import Coupling, move_of
from models.invertible import Flow
from models.laws import Particles, PushForward


class Glow(Flow):
    r"""Glow: L levels, each a squeeze, K steps of actnorm, 1 x 1 convolution and coupling, and a split.

    A squeeze turns 2 x 2 pixels into channels; a split lets half of the channels leave as noise, under a Gaussian whose
    mean and scale are read off the half that stays. Everything of the last level leaves, under a learnt Gaussian.

    Actnorms are set by the first batch (:meth:`prepare`), once: a run that goes on has them in its checkpoint. Before
    that they are the identity, and the law is one like any other.

    Labels reach the last level's Gaussian, as in the authors' code, and the first hidden layer of every coupling.

    Source: Kingma, Dhariwal, "Glow: generative flow with invertible 1x1 convolutions", NeurIPS 2018, and their code
    for what the paper leaves out: see :class:`models.glow.conditioner.Conditioner`.

    Args:
        event_shape: shape E of one example.
        image_shape: (H, W) or (C, H, W), H and W divisible by :math:`2^L`; None where E itself is such a shape.
        levels: L.
        steps: K.
        width: hidden channels of a coupling's network.
        coupling: ``affine``, with a scale sigmoid(h + 2); ``additive``; or ``spline`` (rational-quadratic).
        mixing: how a 1 x 1 convolution is held, ``lu`` or ``plain``, see :class:`models.glow.mixing.Mixing`.
        bins: of a spline.
        bound: of a spline: it is the identity outside of [-bound, bound].
        classes: number of classes of the context; 0 for an unconditional model.

    Raises:
        ValueError: examples that are no images of that shape, sides that cannot be halved L times, or a hyperparameter
            out of range.
    """

    sources: tuple[str, ...] = ("kingma2018glow",)
    needs_image: ClassVar[bool] = True

    def __init__(
        self,
        event_shape: tuple[int, ...],
        image_shape: tuple[int, ...] | None = None,
        levels: int = 2,
        steps: int = 8,
        width: int = 64,
        coupling: Coupling = "affine",
        mixing: Parametrisation = "lu",
        bins: int = 8,
        bound: float = 5.0,
        classes: int = 0,
    ) -> None:
        super().__init__(event_shape, classes)
        checked_layers("levels", levels, 1)
        checked_layers("steps", steps, 1)
        checked_at_least("width", width, 1)
        if mixing not in get_args(Parametrisation):
            raise ValueError(f"mixing must be one of {', '.join(get_args(Parametrisation))}, got {mixing!r}")
        move = move_of(coupling, bins, bound)
        self.image_shape = shape = checked_image_shape(image_shape, self.event_shape, type(self).__name__)
        if shape[1] % 2**levels or shape[2] % 2**levels:
            most = min((n & -n).bit_length() - 1 for n in shape[1:])
            todo = f"set levels={most} or less" if most else "choose images with even sides"
            raise ValueError(
                f"{type(self).__name__} halves both sides of an image levels={levels} times, and {shape[1]} x "
                f"{shape[2]} pixels can be halved {most} times; {todo}"
            )
        made = []
        for i in range(levels):
            shape = (4 * shape[0], shape[1] // 2, shape[2] // 2)
            made.append(Level(shape, steps, width, move, mixing, classes, i == levels - 1))
            shape = (shape[0] // 2, *shape[1:])
        self.levels = nn.ModuleList(made)

    @classmethod
    def unmakeable(cls, image_shape: tuple[int, ...]) -> str | None:
        """Return why no number of levels suits images of this shape; None where one does."""
        height, width = image_shape[-2:]
        if height % 2 or width % 2:
            return f"{cls.__name__} halves both sides of an image, and {height} x {width} pixels cannot be"
        return None

    def _one_hot(self, context: Tensor | None) -> Tensor | None:
        """Return labels as columns, shape (classes, B)."""
        if context is None or not self.classes:
            return None
        known = torch.arange(self.classes, device=context.device)
        return (known[:, None] == context).to(next(self.parameters()).dtype)

    def forward(self, context: Tensor | None = None) -> PushForward:
        """Return the law of the flow; a conditional one has one row per label."""
        check_context(self, context)
        labels, like, parts = self._one_hot(context), next(self.parameters()), list[Any](self.levels)
        levels = [level.at_present(labels) for level in parts]
        push = partial(_push, levels, self.image_shape, self.event_shape)
        rows = None if context is None else len(context)
        pull = partial(_pull, levels, self.image_shape)
        return PushForward(push, (self.dimension,), self.event_shape, like, pull, rows=rows)

    def prepare(self, batch: Particles) -> None:
        """Set every actnorm so that its channels have mean 0 and variance 1 on the first batch."""
        x, labels = _columns(batch.x.to(next(self.parameters()).dtype), self.image_shape), self._one_hot(batch.context)
        for level in list[Any](self.levels):
            x = level.prepare(squeezed(x), labels)


def _pull(levels: list[PresentLevel], image_shape: tuple[int, int, int], x: Tensor) -> tuple[Tensor, Tensor]:
    r"""Map examples (B, \*E) to noise (B, d) and return the log-determinant, shape (B,)."""
    images, noises, ladj = _columns(x, image_shape), [], x.new_zeros(len(x))
    for level in levels:
        images, noise, more = level.pull(squeezed(images))
        noises.append(noise)
        ladj = ladj + more
    return torch.cat(noises).T, ladj


def _push(
    levels: list[PresentLevel], image_shape: tuple[int, int, int], event_shape: tuple[int, ...], z: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Map noise (B, d) to examples (B, \*E) and return the log-determinant, shape (B,)."""
    noises = z.T.contiguous().split([level.noise_size for level in levels])
    images, ladj = z.new_empty(0, *levels[-1].shape[1:], len(z)), z.new_zeros(len(z))
    for level, noise in zip(reversed(levels), reversed(noises), strict=True):
        squares, more = level.push(images, noise)
        images, ladj = unsqueezed(squares), ladj + more
    return images.permute(3, 0, 1, 2).reshape(len(z), *event_shape), ladj


def _columns(x: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
    r"""Return a view of examples (B, \*E) as images (C, H, W, B)."""
    return x.reshape(len(x), *image_shape).permute(1, 2, 3, 0)


def squeezed(x: Tensor) -> Tensor:
    """Return images (c, H, W, B) with 2 x 2 pixels as channels, (4 c, H / 2, W / 2, B)."""
    c, height, width, batch = x.shape
    squares = x.reshape(c, height // 2, 2, width // 2, 2, batch).permute(0, 2, 4, 1, 3, 5)
    return squares.reshape(4 * c, height // 2, width // 2, batch)


def unsqueezed(x: Tensor) -> Tensor:
    """Invert :func:`squeezed`."""
    channels, height, width, batch = x.shape
    squares = x.reshape(channels // 4, 2, 2, height, width, batch).permute(0, 3, 1, 4, 2, 5)
    return squares.reshape(channels // 4, 2 * height, 2 * width, batch)
