"""Laws that are sampled without end: one sequence of points per seed, however it is cut into batches."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from models.laws import Particles
from se_framework.data.base import Data, at_least_one, point_type
from se_framework.randomness import generator

BLOCK = 1024
"""Rows drawn at once: few enough that a block costs little more than a batch of 256, whose price is its calls to torch,
and enough that a batch of thousands is not dear by many blocks."""

Draw = Callable[[int, torch.Generator], Tensor | Particles]


class Blocks:
    r"""The endless sequence of rows that a drawing function and a seed fix.

    Rows bB to (b+1)B - 1, with B = :data:`BLOCK`, are drawn together from the stream (seed, b, purpose). So a row does
    not depend on the batch it is asked for in, and batches in order draw every block once: the last two are kept.

    Args:
        draw: draws n points with a generator, shape (n, \*E), as a tensor or as Particles with a context.
        purpose: names the stream.
    """

    def __init__(self, draw: Draw, purpose: str) -> None:
        self._draw, self._purpose, self._size = draw, purpose, 2
        self._blocks: OrderedDict[tuple[int, int], Particles] = OrderedDict()

    def keep(self, seeds: int) -> None:
        """Keep the last two blocks of each of so many seeds."""
        self._size = max(self._size, 2 * seeds)

    def rows(self, start: int, n: int, seed: int) -> Particles:
        r"""Return rows start .. start + n - 1 as they were drawn, shape (n, \*E): a view where one block holds them.

        Raises:
            DataError: n is not positive.
        """
        at_least_one(n)
        pieces = []
        for number in range(start // BLOCK, (start + n - 1) // BLOCK + 1):
            first, last = max(start - number * BLOCK, 0), min(start + n - number * BLOCK, BLOCK)
            block = self._block(seed, number)
            pieces.append((block.x[first:last], None if block.context is None else block.context[first:last]))
        if len(pieces) == 1:
            return Particles(pieces[0][0], context=pieces[0][1])
        contexts = [c for _, c in pieces if c is not None]
        return Particles(torch.cat([x for x, _ in pieces]), context=torch.cat(contexts) if contexts else None)

    def _block(self, seed: int, number: int) -> Particles:
        key = (seed, number)
        if key not in self._blocks:
            found = self._draw(BLOCK, generator(seed, number, self._purpose))
            self._blocks[key] = found if isinstance(found, Particles) else Particles(found)
            while len(self._blocks) > self._size:
                self._blocks.popitem(last=False)
        return self._blocks[key]


class Sampler(Data):
    """A law that can be sampled without end: a subclass sets ``event_shape`` and writes :meth:`draw`."""

    @abstractmethod
    def draw(self, n: int, generator: torch.Generator) -> Tensor | Particles:
        r"""Draw n points in model space with the given CPU generator.

        Returns:
            Points of shape (n, \*E), in float64 or integers; ``Particles(x, context=labels)`` where they have labels,
            or any other context, one row of it per point.
        """

    @property
    def dtype(self) -> torch.dtype:
        """Type of the points of a batch."""
        found = self.draw(1, generator(0, 0, "dtype"))
        return point_type(found.x if isinstance(found, Particles) else found)

    def batch(self, start: int, n: int, seed: int, device: torch.device | str = "cpu") -> Particles:
        r"""Return rows start .. start + n - 1 of the seed's sequence, shape (n, \*E), with their context."""
        return _batch(self._rows.rows(start, n, seed), device)

    def batches(self, start: int, n: int, seeds: Sequence[int], device: torch.device | str = "cpu") -> Particles:
        r"""Return ``batch(start, n, seed)`` of several seeds, stacked."""
        self._rows.keep(len(seeds))
        return super().batches(start, n, seeds, device)

    def held_out(self, n: int, seed: int = 0, device: torch.device | str = "cpu") -> Particles:
        r"""Draw n fresh points from a stream that no batch uses, shape (n, \*E)."""
        found = self.draw(n, generator(seed, 0, "held_out"))
        return _batch(found if isinstance(found, Particles) else Particles(found), device)

    def with_validation(self, fraction: float) -> Sampler:
        """Return itself: fresh points are validation points."""
        return self

    def validation(self, n: int, device: torch.device | str = "cpu") -> Particles:
        r"""Draw n points from a stream that neither a batch nor a held-out draw uses, shape (n, \*E)."""
        found = self.draw(n, generator(0, 0, "validation"))
        return _batch(found if isinstance(found, Particles) else Particles(found), device)

    @cached_property
    def _rows(self) -> Blocks:
        return Blocks(self.draw, "data")


def _batch(drawn: Particles, device: torch.device | str) -> Particles:
    """Return a copy on the device, in the type of a batch: nobody can write into what is kept."""
    # float64 before the cast: runs in float32 and in float64 see the same points.
    x = drawn.x.to(device, point_type(drawn.x), non_blocking=True, copy=True)
    return Particles(x, context=None if drawn.context is None else drawn.context.to(device, copy=True))
