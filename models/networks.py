"""Building blocks shared by models and critics: perceptrons, and their calls at fixed parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import checked_at_least

Activation = Literal["relu", "leaky_relu", "tanh", "silu", "elu", "softplus"]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),  # the slope of DCGAN (Radford, Metz, Chintala 2016)
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
}
assert set(_ACTIVATIONS) == set(get_args(Activation))


def mlp(
    inputs: int,
    outputs: int,
    width: int = 128,
    depth: int = 3,
    activation: Activation = "relu",
    zero_last: bool = False,
) -> nn.Sequential:
    r"""Build a multilayer perceptron that flattens its input.

    Args:
        inputs: number of coordinates of one example; the input has shape (B, \*E) with prod(E) = inputs.
        outputs: number of outputs; the output has shape (B, outputs).
        width: units of a hidden layer.
        depth: number of hidden layers; 0 gives an affine map.
        activation: nonlinearity after each hidden layer.
        zero_last: start the last layer at zero, so that the network is the zero map at first.

    Raises:
        ValueError: a size out of range or an unknown activation.
    """
    checked_at_least("width", width, 1)
    checked_at_least("depth", depth, 0)
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(_ACTIVATIONS)}, got {activation!r}; choose one")
    layers: list[nn.Module] = [nn.Flatten(1)]
    for _ in range(depth):
        layers += [nn.Linear(inputs, width), _ACTIVATIONS[activation]()]
        inputs = width
    last = nn.Linear(inputs, outputs)
    if zero_last:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def bound_call(net: Iterable[nn.Module]) -> Callable[[Tensor], Tensor]:
    """Return the call of a perceptron, or of some of its layers, with the parameters that it has now.

    A law calls its network later than it was made. Under ``torch.func.functional_call`` the module has lost the
    substituted tensors by then, and would silently compute with its own. (A second ``functional_call`` would do, at
    several times the cost of a small network.)

    Raises:
        ValueError: a layer with parameters that is not linear.
    """
    steps: list[Callable[[Tensor], Tensor]] = []
    for layer in net:
        if isinstance(layer, nn.Linear):
            steps.append(partial(F.linear, weight=layer.weight, bias=layer.bias))
        elif type(layer) is nn.ReLU:
            steps.append(torch.relu)  # the call of a module costs more than that of a small layer
        elif next(layer.parameters(), None) is None:
            steps.append(layer)
        else:
            raise ValueError(f"only linear layers may have parameters here, got {type(layer).__name__}; use mlp(...)")

    def call(x: Tensor) -> Tensor:
        for step in steps:
            x = step(x)
        return x

    return call


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
