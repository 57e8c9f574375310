r"""How a coupling moves a channel, given the numbers that its network has read off the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from models.splines import checked_spline, pull_spline, push_spline

Coupling = Literal["affine", "additive", "spline"]


class Move(ABC):
    """An increasing function of one number, with parameters; all are elementwise.

    Attributes:
        numbers: how many parameters there are.
        start: what they are at the start.
    """

    start: tuple[float, ...]

    @property
    def numbers(self) -> int:
        """How many parameters there are."""
        return len(self.start)

    @abstractmethod
    def pull(self, numbers: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Move x, shape (m, N), towards the latent end by numbers (n, m, N); also return the log-slopes if not 0."""

    @abstractmethod
    def push(self, numbers: Tensor, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """Invert :meth:`pull`; also return the log-slopes of the inverse."""


class Additive(Move):
    """The shift x + t, of slope 1 (Dinh, Krueger, Bengio, "NICE", ICLR workshop 2015)."""

    start = (0.0,)

    def pull(self, numbers: Tensor, x: Tensor) -> tuple[Tensor, None]:
        """Return x + t."""
        return x + numbers[0], None

    def push(self, numbers: Tensor, z: Tensor) -> tuple[Tensor, None]:
        """Return z - t."""
        return z - numbers[0], None


class Affine(Move):
    r"""The map :math:`(x+t)\,\text{sigmoid}(h)`, h = 2 at the start: a slope in (0, 1) (the code of Glow)."""

    start = (0.0, 2.0)

    def pull(self, numbers: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (x + t) sigmoid(h)."""
        return (x + numbers[0]) * numbers[1].sigmoid(), F.logsigmoid(numbers[1])

    def push(self, numbers: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return z / sigmoid(h) - t."""
        return z / numbers[1].sigmoid() - numbers[0], -F.logsigmoid(numbers[1])


class Spline(Move):
    """A monotone rational-quadratic spline on [-B, B] with K bins; it starts at the identity.

    Source: Durkan, Bekasov, Murray, Papamakarios, "Neural spline flows", NeurIPS 2019.
    """

    def __init__(self, bins: int, bound: float) -> None:
        checked_spline(bins, bound)
        self.start, self.bound = (0.0,) * (3 * bins - 1), bound

    def pull(self, numbers: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate the spline."""
        return pull_spline(numbers, x, self.bound)

    def push(self, numbers: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Invert the spline."""
        return push_spline(numbers, z, self.bound)


def move_of(coupling: Coupling, bins: int, bound: float) -> Move:
    """Return the move of that name.

    Raises:
        ValueError: there is none, or bins or bound are out of range.
    """
    made = {"affine": Affine, "additive": Additive, "spline": lambda: Spline(bins, bound)}
    if coupling not in made:
        raise ValueError(f"coupling must be one of {', '.join(made)}, got {coupling!r}; choose one")
    return made[coupling]()


def sum_by_example(values: Tensor, batch: int) -> Tensor:
    """Return the sums over all but the last axis of columns (m, N), N = places times batch, shape (B,)."""
    return torch.sum(values.reshape(-1, batch), 0)
