r"""What a growing generator and critic have in common: the canvas, the fade of a resolution, which stage may follow."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.arguments import checked_at_least
from models.convolutional import checked_image_shape
from models.images.resampling import doubled, halved


class Canvas:
    """Images of any square size on the middle of a canvas of side 4 * 2^k, and the resolutions below it.

    Args:
        event_shape: shape E of one example.
        image_shape: (H, W) or (C, H, W); None where E itself is such a shape.
        resolution: the present one, None for full.
        fade: examples over which it comes in; 0 for at once.
        owner: the network, for messages.

    Raises:
        ValueError: an image that is not square, a resolution that is no 4 * 2^k up to full, or nothing to fade from.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        image_shape: tuple[int, ...] | None,
        resolution: int | None,
        fade: int,
        owner: str,
    ) -> None:
        self.image = _, side, width = checked_image_shape(image_shape, event_shape, owner)
        if side != width:
            raise ValueError(
                f"{owner} grows square images, got {side} x {width} pixels: crop them, or use ConvGenerator"
            )
        self.full = 4
        while self.full < side:
            self.full *= 2
        sides = [4 << k for k in range(self.full.bit_length() - 2)]
        self.resolution = self.full if resolution is None else resolution
        if self.resolution not in sides:
            raise ValueError(
                f"resolution must be one of {', '.join(map(str, sides))} for images of {side} x {side} pixels, got "
                f"{resolution}"
            )
        checked_at_least("fade", fade, 0)
        if fade and self.resolution == 4:
            raise ValueError(f"fade={fade} brings resolution 4 in, and there is none below: leave fade=0 there")
        self._before = (self.full - side) // 2
        self._after = self.full - side - self._before
        self._factor = self.full // self.resolution
        self.sides = [s for s in sides if s <= self.resolution]

    def averaged(self, x: Tensor) -> Tensor:
        r"""Return examples, shape (B, \*E), at the present resolution r, shape (B, C, r, r).

        The canvas around an image repeats its border: so squares that the generator cut at the border are averaged to
        the value they had.
        """
        images = x.reshape(len(x), *self.image)
        if self.image[1] != self.full:
            sides = (self._before, self._after, self._before, self._after)
            images = F.pad(images, sides, mode="replicate")
        return halved(images, self._factor)

    def spread(self, images: Tensor) -> Tensor:
        """Return images of the present resolution, shape (B, C, r, r), as images of the data's size."""
        side, start = self.image[1], self._before
        return doubled(images, self._factor)[..., start : start + side, start : start + side]


class Fade(nn.Module):
    r"""How far a resolution has come in: alpha, from 0 where it is first told to 1 after so many examples more.

    Args:
        samples: how many.
    """

    alpha: Tensor
    start: Tensor

    def __init__(self, samples: int) -> None:
        super().__init__()
        self.samples = samples
        self.register_buffer("alpha", torch.zeros(()))
        self.register_buffer("start", torch.tensor(-1))

    def at(self, samples: int) -> None:
        """Set alpha by the examples seen, counted from the first call on; nothing waits for a device."""
        self.start.copy_(torch.where(self.start < 0, samples, self.start))
        self.alpha.copy_(((samples - self.start) / self.samples).clamp(0, 1))

    def forward(self, old: Tensor, new: Tensor) -> Tensor:
        """Return (1 - alpha) old + alpha new."""
        return torch.lerp(old, new, self.alpha.to(new.dtype))


def check_grows(here: nn.Module, before: nn.Module) -> None:
    """Refuse a stage that shrinks, leaves a resolution out, or fades in what is there.

    Raises:
        ValueError: see above.
    """
    r, old = (getattr(part, "resolution", None) for part in (here, before))
    if r is None or old is None or r == 2 * old:
        return
    name = type(here).__name__
    if r < old:
        raise ValueError(f"{name} of resolution {r} follows one of {old}: a stage cannot shrink; set resolution={old}")
    if r > old:
        raise ValueError(f"{name} of resolution {r} follows one of {old}: put a stage of resolution={2 * old} between")
    if getattr(here, "fades", False) and not getattr(before, "fades", False):
        raise ValueError(f"{name} fades resolution {r} in, which the stage before has already: set fade=0")


def fades_of(resolution: int, fade: int) -> nn.ModuleDict:
    """Return the fade by its resolution, so that no other stage takes it over; empty where there is none."""
    return nn.ModuleDict({str(resolution): Fade(fade)} if fade else {})


def channels(side: int, base: int, most: int) -> int:
    """Return the channels at a resolution: base / (side / 2), at most ``most``, at least one; at side 2 of nothing."""
    return max(1, min(2 * base // side, most))
