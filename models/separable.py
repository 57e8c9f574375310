r"""A critic of pairs that is a scalar product: all pairs of K x and K y cost K passes of each of its two networks."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from models.arguments import checked_at_least
from models.base import Critic
from models.laws import Source
from models.networks import Activation, mlp


class SeparableCritic(Critic):
    r"""Scores :math:`v(x, y) = g(x)\cdot h(y)` of pairs, with two perceptrons of as many outputs.

    Source: van den Oord, Li, Vinyals, "Representation learning with contrastive predictive coding", 2018, section 2.2;
    "separable" in Poole et al. 2019, section 3.

    Args:
        event_shape: (d,), of x and y behind each other.
        first: coordinates of x; None for what the data says.
        outputs: of g and of h.
        width: units of a hidden layer.
        depth: number of hidden layers.
        activation: nonlinearity.
        reference: the product of the margins, of data that come in pairs; it says where x ends.

    Raises:
        ValueError: nothing says where x ends, or x or y has no coordinate.
    """

    row_wise: ClassVar[bool] = True
    needs_pairs: ClassVar[bool] = True

    def __init__(
        self,
        event_shape: tuple[int, ...],
        first: int | None = None,
        outputs: int = 32,
        width: int = 256,
        depth: int = 2,
        activation: Activation = "relu",
        reference: Source | None = None,
    ) -> None:
        super().__init__(event_shape)
        first = getattr(reference, "first", None) if first is None else first
        if first is None or len(self.event_shape) != 1 or not 0 < first < self.dimension:
            raise ValueError(
                f"first is {first} and an example has the shape {self.event_shape}: a separable critic scores rows "
                "(x, y), so give the number of coordinates of x, or data that come in pairs"
            )
        checked_at_least("outputs", outputs, 1)
        self.first = first
        self.g = mlp(first, outputs, width, depth, activation)
        self.h = mlp(self.dimension - first, outputs, width, depth, activation)

    def score(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the scalar products, shape (B,)."""
        return (self.g(x[:, : self.first]) * self.h(x[:, self.first :])).sum(1)

    def on_pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the scores of x of these points beside y of those, (A, d) and (K, d) to (A, K)."""
        return self.g(x[:, : self.first]) @ self.h(y[:, self.first :]).T
