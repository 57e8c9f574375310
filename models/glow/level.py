r"""One level of Glow: K steps at one resolution, and the law of the half that leaves at its end."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.glow.conditioner import Conditioner, Weights, ZeroConvolution, numbers_of
from models.glow.mixing import Mixed, Mixing, Parametrisation
from models.glow.moves import Move
from models.glow.windows import gather

LOG_SCALE_BOUND = 4.0
"""Of the half that leaves: its scale lies between e^-4 and e^4, where the authors' is unbounded."""
Carry = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]


class Level(nn.Module):
    r"""K steps of actnorm, 1 x 1 convolution and coupling; then a half z of the channels leaves, unless it is the last.

    That half is :math:`z=\mu+e^{s}\varepsilon`, :math:`\varepsilon\sim N(0,I)`, with mu and s by a convolution of the
    half that stays; at the last level everything leaves, and mu and s are a learnt map and a vector per class.

    Args:
        shape: (C, H, W), C even.
        steps: K.
        width: hidden channels of a coupling.
        move: how a coupling moves a channel.
        parametrisation: of the 1 x 1 convolutions.
        classes: number of classes of the context.
        last: whether nothing stays.
    """

    def __init__(
        self, shape: tuple[int, int, int], steps: int, width: int, move: Move, parametrisation: Parametrisation,
        classes: int, last: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        channels, *size = shape
        self.shape, self.move, self.last = shape, move, last
        half = channels // 2
        offset = torch.tensor(move.start).repeat_interleave(half)
        self.mixing = Mixing(steps, channels, parametrisation)
        self.conditioner = Conditioner(steps, half, len(offset), width, (size[0], size[1]), offset, classes)
        leaves = channels if last else half
        self.prior = ZeroConvolution(0 if last else half, 2 * leaves)
        self.of_label = nn.Parameter(torch.zeros(2 * leaves, classes)) if classes and last else None

    def at_present(self, labels: Tensor | None) -> PresentLevel:
        """Return the level's maps at the present parameters.

        Args:
            labels: one-hot columns, shape (classes, B); None without.
        """
        added = None
        if self.of_label is not None and labels is not None:
            added = (self.of_label @ labels).unsqueeze(1)
        mixed, nets = self.mixing.at_present(), self.conditioner.at_present(labels).unbind()
        return PresentLevel(self.shape, self.move, mixed, nets, self.prior.at_present(), added, self.last)

    def prepare(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Set every actnorm by a batch of images (C, H, W, B), one after the other, and return the half that stays."""
        for k in range(len(self.mixing.bias)):
            self.mixing.prepare(k, x.flatten(1))
            now = self.at_present(labels)
            self.conditioner.prepare(k, now.mix(k, x)[: len(x) // 2])
            x = self.at_present(labels).pull_step(k, x)[0]
        return x[: len(x) // 2]


class PresentLevel:
    """The maps of a level at fixed parameters.

    Args:
        shape: (C, H, W).
        move: of the couplings.
        mixed: actnorms and 1 x 1 convolutions.
        nets: the networks of the couplings.
        kernel: of the prior, (n, 9 (a + 1)); a = 0 where nothing stays.
        added: what the prior has added by example, (n, 1, B); None for nothing.
        last: whether nothing stays.
    """

    def __init__(
        self, shape: tuple[int, int, int], move: Move, mixed: Mixed, nets: list[Weights], kernel: Tensor,
        added: Tensor | None, last: bool,
    ) -> None:  # fmt: skip
        self.shape, self.move, self.mixed, self.nets = shape, move, mixed, nets
        self.kernel, self.added, self.last = kernel, added, last
        # Rows of a stack, once: each would be a node of the graph, whose backward pass fills a stack with zeros.
        self._matrices, self._shifts = mixed.matrices.unbind(), mixed.shifts.unbind()

    @property
    def noise_size(self) -> int:
        """How many numbers of noise an example has here."""
        return len(self.kernel) // 2 * self.shape[1] * self.shape[2]

    def mix(self, k: int, x: Tensor) -> Tensor:
        """Return actnorm and 1 x 1 convolution of step k at images (C, H, W, B)."""
        return torch.addmm(self._shifts[k], self._matrices[k], x.flatten(1)).unflatten(1, x.shape[1:])

    def _coupled(self, k: int, x: Tensor, carry: Carry) -> tuple[Tensor, Tensor | None]:
        """Return images whose second half of channels has been moved, and the log-slopes."""
        a, b = x.chunk(2)
        numbers = numbers_of(self.nets[k], a)
        b, slopes = carry(numbers.unflatten(0, (self.move.numbers, len(a))).flatten(2), b.flatten(1))
        return torch.cat((a, b.unflatten(1, x.shape[1:]))), slopes

    def pull_step(self, k: int, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return step k of images (C, H, W, B), and the coupling's log-slopes."""
        return self._coupled(k, self.mix(k, x), self.move.pull)

    def pull(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map images (C, H, W, B) to what stays, the noise that leaves, (n, B), and the log-determinant, (B,)."""
        batch, ladj = x.shape[3], self._volume(x)
        for k in range(len(self.nets)):
            x, slopes = self.pull_step(k, x)
            ladj = ladj if slopes is None else ladj + self._by_pixel(slopes, batch).sum((0, 1))
        stays, leaves = (x[:0], x) if self.last else x.chunk(2)
        loc, log_scale = self._prior(stays, batch)
        noise = (self._by_pixel(leaves.flatten(1), batch) - loc) * (-log_scale).exp()
        return stays, noise.flatten(0, 1), ladj - log_scale.sum((0, 1))

    def push(self, stays: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Invert :meth:`pull`: return the images and the log-determinant of this direction."""
        batch = noise.shape[1]
        loc, log_scale = self._prior(stays, batch)
        z = noise.unflatten(0, (-1, self.shape[1] * self.shape[2]))
        x = torch.addcmul(loc, z, log_scale.exp()).unflatten(1, self.shape[1:])
        x = x if self.last else torch.cat((stays, x))
        ladj = log_scale.sum((0, 1)) - self._volume(x)
        for k, inverse in reversed(list(enumerate(self.mixed.inverses().unbind()))):
            x, slopes = self._coupled(k, x, self.move.push)
            ladj = ladj if slopes is None else ladj + self._by_pixel(slopes, batch).sum((0, 1))
            x = torch.addmm(-self.mixed.biases[k], inverse, x.flatten(1)).unflatten(1, x.shape[1:])
        return x, ladj

    def _by_pixel(self, columns: Tensor, batch: int) -> Tensor:
        """Return columns (n, H W B) with the examples on an axis of their own, (n, H W, B)."""
        return columns.unflatten(1, (self.shape[1] * self.shape[2], batch))

    def _volume(self, x: Tensor) -> Tensor:
        """Return the log-determinant of all linear parts, a number."""
        return (self.shape[1] * self.shape[2] * self.mixed.log_det).to(x.dtype)

    def _prior(self, stays: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        """Return mean and log-scale of what leaves, each (n, H W, B)."""
        said = self._by_pixel(self.kernel @ gather(stays), batch)
        if self.added is not None:
            said = said + self.added
        loc, raw = said.chunk(2)
        return loc, LOG_SCALE_BOUND * torch.tanh(raw / LOG_SCALE_BOUND)
