r"""Critics: a free perceptron, and one that is 1-Lipschitz by construction."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.arguments import checked_at_least, checked_layers
from models.base import Critic
from models.networks import LEAK, Activation, Dense, mlp, with_context

LEFT_SLOPES = {"relu": 0.0, "leaky_relu": LEAK}
"""Slope on the left of nonlinearities whose slope on the right is one, and whose value has the sign of its argument."""


def _rectified(net: nn.Module) -> list[Dense]:
    """Return the layers of a perceptron of :func:`mlp` with such nonlinearities; none of another network."""
    flatten, *others = net.children() if isinstance(net, nn.Sequential) else (net,)
    layers = [layer for layer in others if type(layer) is Dense]
    known = [layer.activation in LEFT_SLOPES for layer in layers[:-1]]
    whole = type(flatten) is nn.Flatten and 0 < len(layers) == len(others)
    return layers if whole and all(known) and layers[-1].activation is None else []


class MLPCritic(Critic):
    r"""A multilayer perceptron on the flattened example.

    Args:
        event_shape: shape E of one example.
        width: units of a hidden layer.
        depth: number of hidden layers.
        activation: nonlinearity; by default leaky ReLU, whose gradient vanishes nowhere.
        classes: number of classes of the context, which enters as a one-hot vector; 0 for none.
    """

    sources: tuple[str, ...] = ()
    has_context: ClassVar[bool] = True
    row_wise: ClassVar[bool] = True

    def __init__(
        self,
        event_shape: tuple[int, ...],
        width: int = 128,
        depth: int = 3,
        activation: Activation = "leaky_relu",
        classes: int = 0,
    ) -> None:
        super().__init__(event_shape, classes)
        self.net = mlp(self.dimension + classes, 1, width, depth, activation)

    def score(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the output of the perceptron, shape (B,)."""
        return self.net(with_context(x, context, self.classes)).squeeze(1)

    def gradient(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        r"""Return :math:`\nabla_x v`, shape (B, \*E), differentiable in the parameters.

        Between kinks :math:`\nabla v = W_1^\top D_1 W_2^\top D_2\dots w` with the slopes D of the activations, which do
        not move with the weights where those are piecewise linear: one pass without a graph finds them, and the
        product is differentiated once. Differentiating the scores twice costs half as much again, for zeros.
        """
        layers = _rectified(self.net)
        if not layers:
            return torch.func.grad(lambda points: self.score(points, context).sum())(x)
        *hidden, last = layers
        with torch.no_grad():
            h, slopes = with_context(x, context, self.classes), []
            for layer in hidden:
                h = layer(h)
                slopes.append(h.sign().clamp(min=LEFT_SLOPES[str(layer.activation)]))
        gradient = last.weight.expand(len(x), -1)
        for layer, diagonal in zip(reversed(hidden), reversed(slopes), strict=True):
            gradient = (gradient * diagonal) @ layer.weight
        return gradient[:, : self.dimension].reshape(x.shape)


class OrthonormalLinear(nn.Module):
    r"""An affine map :math:`x\mapsto Wx+b` whose weight is (semi-)orthonormal for every value of its parameters.

    The taller of W and its transpose is the Cayley transform of free blocks U (n, n) and V (m-n, n),

    .. math:: Q=\begin{pmatrix}(I+A)^{-1}(I-A)\\ -2V(I+A)^{-1}\end{pmatrix},\qquad A=U-U^\top+V^\top V,

    which satisfies :math:`Q^\top Q=I` exactly. The symmetric part of I + A is at least I, so the solve is never
    singular; unlike orthonormalisation by iteration there is no tolerance, and no state besides the parameters.

    Source: Trockman, Kolter, "Orthogonalizing convolutional layers with the Cayley transform", ICLR 2021.

    Args:
        inputs: columns of W.
        outputs: rows of W. Rows are orthonormal if outputs <= inputs, columns if outputs >= inputs.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.wide = outputs < inputs
        columns, rows = sorted((inputs, outputs))
        self.columns = columns
        self.square: nn.Parameter | None = None  # U; a number has no skew part
        self.tall: nn.Parameter | None = None  # V; a square weight has none
        if columns > 1:
            self.square = nn.Parameter(torch.randn(columns, columns) / columns**0.5)
        if rows > columns:
            self.tall = nn.Parameter(torch.randn(rows - columns, columns) / (rows - columns) ** 0.5)
        self.bias = nn.Parameter((2 * torch.rand(outputs) - 1) / inputs**0.5)

    def weight(self) -> Tensor:
        """Return W, shape (outputs, inputs)."""
        identity = matrix = torch.eye(self.columns, dtype=self.bias.dtype, device=self.bias.device)
        if self.square is not None:
            matrix = matrix + self.square - self.square.mT
        if self.tall is not None:
            matrix = matrix + self.tall.mT @ self.tall
        inverse = torch.linalg.inv_ex(matrix)[0]  # the variant without an error check, which would wait for a GPU
        q = 2 * inverse - identity  # = (I+A)^-1 (I-A)
        if self.tall is not None:
            q = torch.cat((q, -2 * self.tall @ inverse))
        return q.mT if self.wide else q

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs) to (B, outputs)."""
        return F.linear(x, self.weight(), self.bias)


def group_sort(x: Tensor) -> Tensor:
    """Sort pairs of units (i, i + n/2): a permutation at each point, so it preserves every gradient norm.

    Source: Anil, Lucas, Grosse, "Sorting out Lipschitz function approximation", ICML 2019 (there: MaxMin).

    Args:
        x: shape (B, n) with n even.
    """
    first, second = x.chunk(2, dim=-1)
    # Not maximum and minimum: their gradients are slow on CPU, and split at ties, which shrinks the norm.
    excess = F.relu(first - second)
    return torch.cat((second + excess, first - excess), dim=-1)


class GroupSortLayers(nn.ModuleList):
    r"""A perceptron of orthonormal affine maps with GroupSort between them: 1-Lipschitz for the Euclidean norm.

    Source: Anil, Lucas, Grosse, "Sorting out Lipschitz function approximation", ICML 2019.

    Args:
        inputs: coordinates of one example.
        outputs: coordinates of its image.
        width: units of a hidden layer; even.
        depth: number of hidden layers.

    Raises:
        ValueError: an odd width.
    """

    def __init__(self, inputs: int, outputs: int, width: int, depth: int) -> None:
        checked_at_least("width", width, 2)
        checked_layers("depth", depth, 1)
        if width % 2:
            raise ValueError(f"GroupSort sorts pairs of units, so width must be even, got {width}; add one")
        sizes = [inputs, *[width] * depth, outputs]
        super().__init__(OrthonormalLinear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs) to (B, outputs)."""
        first, *others = self
        h = first(x)
        for layer in others:
            h = layer(group_sort(h))
        return h


class GroupSortCritic(Critic):
    r"""A 1-Lipschitz network: orthonormal weights and GroupSort of size two.

    Every layer is 1-Lipschitz for the Euclidean norm, so :math:`|f(x)-f(y)|\le\|x-y\|` for all parameters. Weights
    with orthonormal rows and sorting preserve the norm of a gradient, so :math:`\|\nabla f\|=1` almost everywhere
    if width <= prod(E); a first layer that widens has orthonormal columns, and the norm is at most one.

    Source: Anil, Lucas, Grosse, "Sorting out Lipschitz function approximation", ICML 2019.

    Args:
        event_shape: shape E of one example.
        width: units of a hidden layer; even.
        depth: number of hidden layers.

    Raises:
        ValueError: an odd width.
    """

    sources: tuple[str, ...] = ("anil2019sorting", "trockman2021orthogonalizing")
    lipschitz: ClassVar[float | None] = 1.0
    row_wise: ClassVar[bool] = True

    def __init__(self, event_shape: tuple[int, ...], width: int = 128, depth: int = 3) -> None:
        super().__init__(event_shape)
        self.layers = GroupSortLayers(self.dimension, 1, width, depth)

    def score(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the output of the network, shape (B,)."""
        return self.layers(x.flatten(1)).squeeze(1)
