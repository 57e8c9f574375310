"""Building blocks shared by models and critics: perceptrons, and calls of networks at the tensors of a moment."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from models.arguments import checked_at_least, checked_layers

Result = TypeVar("Result")
Activation = Literal["relu", "leaky_relu", "tanh", "silu", "elu", "softplus"]

LEAK = 0.2
"""Slope of a leaky ReLU on the left: that of DCGAN (Radford, Metz, Chintala 2016)."""

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "leaky_relu": partial(F.leaky_relu_, negative_slope=LEAK),
    "tanh": torch.tanh_,
    "silu": F.silu,
    "elu": F.elu,
    "softplus": F.softplus,
}
assert set(_ACTIVATIONS) == set(get_args(Activation))


class Dense(nn.Linear):
    r"""A layer :math:`x\mapsto a(Wx+b)`: an affine map and, in the same call, the nonlinearity after it.

    Where the derivative of the nonlinearity can be told from its value, it overwrites what the affine map has made,
    which nobody else has seen: a second tensor and a second call cost more than a small layer does. What the layer
    returns is not touched again.

    Args:
        inputs: columns of W.
        outputs: rows of W.
        bias: whether there is b.
        activation: a; None for the affine map alone.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True, activation: Activation | None = None) -> None:
        super().__init__(inputs, outputs, bias)
        self.activation = activation

    def affine(self, x: Tensor) -> Tensor:
        """Map (B, inputs) to (B, outputs), in a tensor of its own."""
        return F.linear(x, self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the affine map's values after the nonlinearity."""
        y = self.affine(x)
        return y if self.activation is None else _ACTIVATIONS[self.activation](y)

    def extra_repr(self) -> str:
        """Show the nonlinearity too."""
        return super().extra_repr() + ("" if self.activation is None else f", activation={self.activation}")


def mlp(
    inputs: int,
    outputs: int,
    width: int = 128,
    depth: int = 3,
    activation: Activation = "relu",
    zero_last: bool = False,
    layer: type[Dense] = Dense,
) -> nn.Sequential:
    r"""Build a multilayer perceptron that flattens its input.

    Args:
        inputs: number of coordinates of one example; the input has shape (B, \*E) with prod(E) = inputs.
        outputs: number of outputs; the output has shape (B, outputs).
        width: units of a hidden layer.
        depth: number of hidden layers; 0 gives an affine map.
        activation: nonlinearity after each hidden layer.
        zero_last: start the last layer at zero, so that the network is the zero map at first.
        layer: class of the layers.

    Raises:
        ValueError: a size out of range or an unknown activation.
    """
    sizes = _sizes(inputs, outputs, width, depth, activation)
    layers = [layer(a, b, activation=activation) for a, b in zip(sizes[:-2], sizes[1:-1], strict=True)]
    last = layer(sizes[-2], outputs)
    if zero_last:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(OrderedDict({"0": nn.Flatten(1), **_numbered([*layers, last])}))


def _sizes(inputs: int, outputs: int, width: int, depth: int, activation: Activation) -> list[int]:
    """Return the numbers of units, from the inputs to the outputs.

    Raises:
        ValueError: a size out of range or an unknown activation.
    """
    checked_at_least("width", width, 1)
    checked_layers("depth", depth, 0)
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(_ACTIVATIONS)}, got {activation!r}; choose one")
    return [inputs, *[width] * depth, outputs]


def _numbered(layers: Iterable[nn.Module]) -> dict[str, nn.Module]:
    """Name layers by odd numbers, as the checkpoints of version 0.1 do, where nonlinearities were layers too."""
    return {str(2 * i + 1): layer for i, layer in enumerate(layers)}


class ColumnPerceptron(nn.Module):
    r"""A perceptron on columns, from (inputs, N) to (outputs, N), that starts at the zero map.

    The products are those of :func:`mlp` in the other memory order. It is one module, called as one, and what it is
    made of are weights and not layers: a flow calls a dozen of them, and the calls of their layers would cost a fifth
    of its density. A law hands it the weights that it was made with.

    Args:
        inputs: rows of the input.
        outputs: rows of the output.
        width: units of a hidden layer.
        depth: number of hidden layers; 0 gives an affine map.
        activation: nonlinearity after each hidden layer.

    Raises:
        ValueError: a size out of range or an unknown activation.
    """

    def __init__(self, inputs: int, outputs: int, width: int, depth: int, activation: Activation) -> None:
        super().__init__()
        sizes = _sizes(inputs, outputs, width, depth, activation)
        layers = [nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)]
        nn.init.zeros_(layers[-1].weight)
        nn.init.zeros_(layers[-1].bias)
        for name, layer in _numbered(layers).items():
            self.add_module(name, nn.ParameterDict({"weight": layer.weight, "bias": layer.bias}))
        self.activation = activation

    def weights(self) -> list[tuple[Tensor, Tensor]]:
        """Return weight, (m, n), and bias as a column, (m, 1), of each layer."""
        layers: Iterator[Any] = self.children()
        return [(layer.weight, layer.bias.unsqueeze(1)) for layer in layers]

    def forward(self, x: Tensor, weights: list[tuple[Tensor, Tensor]] | None = None) -> Tensor:
        """Map (inputs, N) to (outputs, N).

        Args:
            x: columns.
            weights: what :meth:`weights` returned at some time; by default what it returns now.
        """
        *hidden, (last, bias) = weights or self.weights()
        bend = _ACTIVATIONS[self.activation]
        for weight, shift in hidden:
            x = bend(torch.addmm(shift, weight, x))
        return torch.addmm(bias, last, x)


class Binding:
    """The parameters and buffers that a module has when this is made, for calls that come later.

    A law calls its network later than it was made. Under ``torch.func.functional_call`` the module has lost the
    substituted tensors by then, and would silently compute with its own. A bound call looks whether the module still
    has the tensors that it had, and if not lends them to it for its duration.

    Args:
        owner: the module.
    """

    def __init__(self, owner: nn.Module) -> None:
        self.owner = owner
        self._parameters = dict(owner.named_parameters(remove_duplicate=False))
        self._buffers = dict(owner.named_buffers(remove_duplicate=False))

    def __call__(self, call: Callable[..., Result]) -> Callable[..., Result]:
        """Return a function that uses the module's tensors, with those that it had; it takes tensors by position."""

        def bound(*arguments: Tensor) -> Result:
            if self._holds():
                return call(*arguments)
            tensors = {f"owner.{name}": t for name, t in (self._parameters | self._buffers).items()}
            return functional_call(_Caller(self.owner), tensors, (call, *arguments))

        return bound

    def _holds(self) -> bool:
        """Whether the module has the same tensors still; what it had no buffers of has none to be looked at."""
        now = self.owner.named_parameters(remove_duplicate=False)
        if not all([self._parameters.get(name) is t for name, t in now]):
            return False
        return not self._buffers or all(
            [self._buffers.get(name) is t for name, t in self.owner.named_buffers(remove_duplicate=False)]
        )


class _Caller(nn.Module):
    """Calls any function of a module, so that ``functional_call`` can put tensors into the module meanwhile."""

    def __init__(self, owner: nn.Module) -> None:
        super().__init__()
        self.owner = owner

    def forward(self, call: Callable[..., Result], *arguments: Tensor) -> Result:
        """Return the function's value."""
        return call(*arguments)


def with_context(x: Tensor, context: Tensor | None, classes: int) -> Tensor:
    r"""Return flattened examples with their one-hot labels appended, shape (B, prod(E) + classes).

    Args:
        x: shape (B, \*E).
        context: labels in 0..classes-1, shape (B,); None appends nothing.
        classes: number of classes.
    """
    if context is None:
        return x.flatten(1)
    one_hot = context[:, None] == torch.arange(classes, device=context.device)  # vmap knows no F.one_hot
    return torch.cat((x.flatten(1), one_hot.to(x.dtype)), dim=1)
