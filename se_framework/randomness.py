"""Every random number of a run as a function of (seed, round, purpose).

Nothing is drawn from a stream whose position depends on history, so resuming a run, logging more often or evaluating
in between cannot change a trajectory. Draws are made for the global batch; a process of a larger job takes its rows.
Noise is drawn on the device that uses it: a GPU draws other numbers than a CPU.
"""

from __future__ import annotations

import hashlib

import torch


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
        torch.get_device_module(device).manual_seed(number)


def generator(seed: int, position: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator on ``device``, seeded by :func:`stream_seed`."""
    return torch.Generator(device=device).manual_seed(stream_seed(seed, position, purpose))
