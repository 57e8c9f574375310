"""Building blocks shared by models and critics: perceptrons, and their calls at fixed parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.module import _has_any_global_hook

from models.arguments import checked_at_least, checked_layers

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
    linear: Callable[[int, int], nn.Linear] = nn.Linear,
) -> Perceptron:
    r"""Build a multilayer perceptron that flattens its input.

    Args:
        inputs: number of coordinates of one example; the input has shape (B, \*E) with prod(E) = inputs.
        outputs: number of outputs; the output has shape (B, outputs).
        width: units of a hidden layer.
        depth: number of hidden layers; 0 gives an affine map.
        activation: nonlinearity after each hidden layer.
        zero_last: start the last layer at zero, so that the network is the zero map at first.
        linear: makes an affine layer from its numbers of inputs and outputs.

    Raises:
        ValueError: a size out of range or an unknown activation.
    """
    checked_at_least("width", width, 1)
    checked_layers("depth", depth, 0)
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(_ACTIVATIONS)}, got {activation!r}; choose one")
    layers: list[nn.Module] = [nn.Flatten(1)]
    for _ in range(depth):
        layers += [linear(inputs, width), _ACTIVATIONS[activation]()]
        inputs = width
    last = linear(inputs, outputs)
    if zero_last:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return Perceptron(*layers, last)


class Perceptron(nn.Sequential):
    """Layers one after the other, as torch's own class calls them, in less time and memory.

    A module's call costs more than a small layer, and what a linear layer has just made nobody else reads, nor does
    its backward pass: the activation after it makes no second tensor. Where somebody listens to a layer all are called
    as modules.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of the last layer."""
        layers = list(self)
        return super().forward(x) if _listened_to(layers) else _chain(layers, _on_rows)(x)


def bound_call(net: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the call of a network with the parameters and buffers that it has now.

    A law calls its network later than it was made. Under ``torch.func.functional_call`` the module has lost the
    substituted tensors by then, and would silently compute with its own. Any network is bound by a second
    ``functional_call``, about 0.1 ms per call; a perceptron, which is hardly slower than that, without one.
    """
    layers = list(net) if isinstance(net, nn.Sequential) else [net]
    if all([_is_plain(layer) for layer in layers]) and not _listened_to(layers):
        return _chain(layers, _on_rows)
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    return lambda x: functional_call(net, tensors, (x,))


def bound_columns(net: nn.Sequential) -> Callable[[Tensor], Tensor]:
    """Return the same call of a perceptron of :func:`mlp` on columns: from (inputs, N) to (outputs, N).

    The products are the same in the other memory order; no copy is made, and no layer is called as a module (hooks on
    them are not heard).
    """
    return _chain(list(net)[1:], lambda layer: partial(torch.addmm, layer.bias[:, None], layer.weight))


def _chain(
    layers: Iterable[nn.Module], linear: Callable[[nn.Linear], Callable[[Tensor], Tensor]]
) -> Callable[[Tensor], Tensor]:
    """Return the call of layers one after the other, torch's linear ones bound by ``linear``."""
    steps: list[Callable[[Tensor], Tensor]] = []
    after_linear = False
    for layer in layers:
        kind = type(layer)
        if kind is nn.Linear:
            steps.append(linear(layer))  # type: ignore[arg-type]
        elif kind is nn.Flatten:
            steps.append(layer.forward)
        elif kind is nn.ReLU and after_linear:
            steps.append(torch.relu_)
        elif isinstance(layer, nn.LeakyReLU) and kind is nn.LeakyReLU and after_linear and layer.negative_slope > 0:
            steps.append(partial(F.leaky_relu_, negative_slope=layer.negative_slope))
        else:
            steps.append(layer)
        after_linear = kind is nn.Linear

    def call(x: Tensor) -> Tensor:
        for step in steps:
            x = step(x)
        return x

    return call


def _on_rows(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    return partial(F.linear, weight=layer.weight, bias=layer.bias)


# Of torch's layers: the affine one, whose tensors are bound, and some that have none (looking takes longer than these).
_PLAIN = {nn.Linear, nn.Flatten, nn.Unflatten, nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.SiLU, nn.ELU, nn.Softplus}


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer is torch's linear layer (not one derived from it), or has no tensors."""
    return type(layer) in _PLAIN or not any(True for _ in (*layer.parameters(), *layer.buffers()))


def _listened_to(layers: Iterable[nn.Module]) -> bool:
    """Whether a hook waits for the call of a layer."""
    return _has_any_global_hook() or any(
        [bool(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks) for m in layers]
    )


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
