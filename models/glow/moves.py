r"""How a coupling moves a channel, given the numbers that its network has read off the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor

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


LEAST_SCALE = 1e-3
"""Of an affine coupling: the inverse multiplies by at most its reciprocal."""


class Affine(Move):
    r"""The map :math:`(x+t)\,s`, :math:`s=\epsilon+(1-\epsilon)\,\text{sigmoid}(h)`, a slope below 1; h = 2 at first.

    The authors' code has :math:`\epsilon=0`; with :data:`LEAST_SCALE` the inverse is bounded as well, so that samples
    do not overflow.
    """

    start = (0.0, 2.0)

    @staticmethod
    def _scale(numbers: Tensor) -> Tensor:
        return numbers[1].sigmoid() * (1 - LEAST_SCALE) + LEAST_SCALE

    def pull(self, numbers: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (x + t) s."""
        scale = self._scale(numbers)
        return (x + numbers[0]) * scale, scale.log()

    def push(self, numbers: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return z / s - t."""
        scale = self._scale(numbers)
        return z / scale - numbers[0], -scale.log()


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
