"""Every random number of a run as a function of (seed, round, purpose).

Nothing is drawn from a stream whose position depends on history, so resuming a run, logging more often or evaluating
in between cannot change a trajectory. Draws are made for the global batch; a process of a larger job takes its rows.
Noise is drawn on the device that uses it: a GPU draws other numbers than a CPU.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


def stream_seed(seed: int, position: int, purpose: str) -> int:
    """Hash (seed, position, purpose) to a 63-bit seed; distinct triples give independent streams.

    Args:
        seed: the seed of the run.
        position: the round, or the index of a batch.
        purpose: what is drawn, e.g. ``"phi/0/noise"``.
    """
    digest = hashlib.blake2b(f"{seed}|{position}|{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_global(seed: int, position: int, purpose: str, device: torch.device) -> None:
    """Seed torch's own generators, on which networks may draw (dropout): the CPU's and that of ``device``.

    ``torch.manual_seed`` seeds every device there could be, at a hundred times the time.
    """
    number = stream_seed(seed, position, purpose)
    torch.default_generator.manual_seed(number)
    if device.type != "cpu":
        module = torch.get_device_module(device)
        # A module's own ``manual_seed`` seeds the current device, which need not be the one that a run is on.
        own = getattr(module, "default_generators", ())
        (own[device.index or 0] if own else module).manual_seed(number)


def generator(seed: int, position: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator on ``device``, seeded by :func:`stream_seed`."""
    return torch.Generator(device=device).manual_seed(stream_seed(seed, position, purpose))


@dataclass(frozen=True)
class Stream:
    """The random numbers of one step: a generator for each purpose, all functions of (seed, position, name, purpose).

    Attributes:
        seed: the seed of the run.
        position: the round.
        name: of the step, e.g. ``"phi/0"``.
        device: where the numbers are drawn.
        dtype: of the numbers.
    """

    seed: int
    position: int
    name: str
    device: torch.device | str = "cpu"
    dtype: torch.dtype | None = None

    def __call__(self, purpose: str) -> torch.Generator:
        """Return a fresh generator for a purpose."""
        return generator(self.seed, self.position, f"{self.name}/{purpose}", self.device)

    def below(self, name: str) -> Stream:
        """Return a stream whose purposes differ from all of this one's."""
        return Stream(self.seed, self.position, f"{self.name}/{name}", self.device, self.dtype)

    def uniform(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """Draw numbers in [0, 1)."""
        return torch.rand(shape, generator=self(purpose), dtype=self.dtype, device=self.device)

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """Draw standard normal numbers."""
        return torch.randn(shape, generator=self(purpose), dtype=self.dtype, device=self.device)
