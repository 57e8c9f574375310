r"""Embeddings: a free perceptron, bounded or not, one that is 1-Lipschitz by construction, and projections."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from models.base import Embedding
from models.critics import GroupSortLayers, OrthonormalLinear
from models.networks import Activation, mlp


class GroupSortEmbedding(Embedding):
    r"""A 1-Lipschitz embedding, :math:`\|e(x)-e(y)\|\le\|x-y\|`: orthonormal weights and GroupSort of size two.

    Source: Anil, Lucas, Grosse, "Sorting out Lipschitz function approximation", ICML 2019.

    Args:
        event_shape: shape E of one example.
        outputs: k.
        width: units of a hidden layer; even.
        depth: number of hidden layers.

    Raises:
        ValueError: an odd width.
    """

    sources: tuple[str, ...] = ("anil2019sorting", "trockman2021orthogonalizing")
    lipschitz: ClassVar[float | None] = 1.0
    row_wise: ClassVar[bool] = True

    def __init__(self, event_shape: tuple[int, ...], outputs: int = 16, width: int = 128, depth: int = 3) -> None:
        super().__init__(event_shape, outputs)
        self.layers = GroupSortLayers(self.dimension, outputs, width, depth)

    def embed(self, x: Tensor) -> Tensor:
        """Return the output of the network, shape (B, k)."""
        return self.layers(x.flatten(1))


class Projection(Embedding):
    r"""Orthonormal coordinates :math:`e(x)=Wx+b`, :math:`WW^\top=I`: for k = 1 the projection onto one direction.

    Under ``auxiliary=embedded`` phi turns W to where D is largest: for k = 1 *max-sliced* distances (Deshpande et al.,
    "Max-sliced Wasserstein distance and its use for GANs", CVPR 2019, eq. 5).

    Args:
        event_shape: shape E of one example.
        outputs: k, at most the number of coordinates.

    Raises:
        ValueError: more outputs than coordinates.
    """

    sources: tuple[str, ...] = ("deshpande2019max",)
    lipschitz: ClassVar[float | None] = 1.0
    row_wise: ClassVar[bool] = True

    def __init__(self, event_shape: tuple[int, ...], outputs: int = 1) -> None:
        super().__init__(event_shape, outputs)
        if outputs > self.dimension:
            raise ValueError(
                f"Projection takes outputs <= {self.dimension}, the coordinates of {event_shape}, got {outputs}"
            )
        self.layer = OrthonormalLinear(self.dimension, outputs)

    def embed(self, x: Tensor) -> Tensor:
        """Return the coordinates, shape (B, k)."""
        return self.layer(x.flatten(1))


class MLPEmbedding(Embedding):
    r"""A multilayer perceptron on the flattened example, by default with values in the cube :math:`[-1,1]^k`.

    An adversary that maximises a distance between embeddings can scale a free one without end; in the cube no
    distance exceeds :math:`2\sqrt k`.

    Args:
        event_shape: shape E of one example.
        outputs: k.
        width: units of a hidden layer.
        depth: number of hidden layers.
        activation: nonlinearity; by default leaky ReLU, whose gradient vanishes nowhere.
        bounded: pass every coordinate through tanh.
    """

    sources: tuple[str, ...] = ()
    row_wise: ClassVar[bool] = True

    def __init__(
        self,
        event_shape: tuple[int, ...],
        outputs: int = 16,
        width: int = 128,
        depth: int = 3,
        activation: Activation = "leaky_relu",
        bounded: bool = True,
    ) -> None:
        super().__init__(event_shape, outputs)
        self.bounded = bounded
        self.net = mlp(self.dimension, outputs, width, depth, activation)

    def embed(self, x: Tensor) -> Tensor:
        """Return the output of the perceptron, shape (B, k)."""
        points = self.net(x)
        return points.tanh() if self.bounded else points
