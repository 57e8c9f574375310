r"""Autoregressive flows: every coordinate moves by numbers that are read off the coordinates before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.arguments import checked_layers
from models.base import check_context
from models.invertible import WithEnd
from models.laws import PushForward
from models.networks import Activation, ColumnPerceptron, with_context

Direction = Literal["density", "sampling"]


class MaskedPerceptron(ColumnPerceptron):
    r"""A perceptron from d coordinates to n numbers of each, those of a coordinate read off the ones before it.

    Every unit has a degree. A coordinate's is its place in the order, 1 to d; a hidden unit's says how many coordinates
    it may read, spread evenly over 1 to d - 1 (from 0 where there are labels); labels have 0. A weight is kept where
    the degree does not fall, and at the outputs where it rises: so output i reads no input of degree i or more, and the
    Jacobian is strictly triangular, whatever the weights.

    Source: Germain, Gregor, Murray, Larochelle, "MADE: masked autoencoder for distribution estimation", ICML 2015,
    eqs. (12), (13); with fixed degrees in the place of random ones.

    Args:
        d: number of coordinates.
        numbers: n; output (j, i) is number j of coordinate i.
        reverse: whether the order is from the last coordinate to the first.
        width: units of a hidden layer.
        depth: number of hidden layers; 0 gives an affine map.
        activation: nonlinearity after each hidden layer.
        classes: labels, one-hot rows behind the coordinates.
    """

    def __init__(
        self, d: int, numbers: int, reverse: bool, width: int, depth: int, activation: Activation, classes: int = 0
    ) -> None:
        super().__init__(d + classes, numbers * d, width, depth, activation)
        order = torch.arange(1, d + 1)
        order = order.flip(0) if reverse else order
        least = 0 if classes else 1
        hidden = least + torch.arange(width) * (d - least) // width
        degrees = [torch.cat((order, torch.zeros(classes, dtype=order.dtype))), *[hidden] * depth]
        for i, (before, after) in enumerate(zip(degrees, degrees[1:], strict=False)):
            self.register_buffer(
                f"mask_{i}", (after[:, None] >= before).to(torch.get_default_dtype()), persistent=False
            )
        last = (order.repeat(numbers)[:, None] > degrees[-1]).to(torch.get_default_dtype())
        self.register_buffer(f"mask_{depth}", last, persistent=False)

    def weights(self) -> list[tuple[Tensor, Tensor]]:
        """Return masked weight, (m, n), and bias as a column, (m, 1), of each layer."""
        return [(weight * self.get_buffer(f"mask_{i}"), bias) for i, (weight, bias) in enumerate(super().weights())]


class Stack:
    r"""K autoregressive maps at fixed parameters, one after the other, of columns (d, N).

    Forward, :math:`y_i=x_i\,e^{s_i(x_{<i})}+t_i(x_{<i})`, takes one pass of each network. Backward, x is found from y
    by d passes: :math:`x\leftarrow(y-t(x))e^{-s(x)}` has one more coordinate right every time, in the order.

    Args:
        nets: networks from (d + classes, N) to (2 d, N), shifts before log-scales.
        log_scale_bound: c; the log-scale is c tanh(r / 2) of what the network says, r.
        input_bound: size at which the input of a network is clamped.
        labels: one-hot columns, (classes, N); None without.
    """

    def __init__(
        self, nets: Sequence[Callable[[Tensor], Tensor]], log_scale_bound: float, input_bound: float,
        labels: Tensor | None,
    ) -> None:  # fmt: skip
        self.nets, self.labels = nets, labels
        self.log_scale_bound, self.input_bound = log_scale_bound, input_bound

    def _numbers(self, k: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return shift and log-scale, both (d, N), of map k at x."""
        inputs = F.hardtanh(x, -self.input_bound, self.input_bound)
        if self.labels is not None:
            inputs = torch.cat((inputs, self.labels))
        shift, raw = self.nets[k](inputs).chunk(2)
        # c tanh(r / 2) = 2 c sigmoid(r) - c: on a CPU a sigmoid takes a third of the time of a tanh.
        return shift, torch.sigmoid(raw) * (2 * self.log_scale_bound) - self.log_scale_bound

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y and the log-determinant dy/dx, shape (N,)."""
        log_scales = []
        for k in range(len(self.nets)):
            shift, log_scale = self._numbers(k, x)
            x = torch.addcmul(shift, x, log_scale.exp())
            log_scales.append(log_scale)
        return x, torch.cat(log_scales).sum(0)

    def backward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return x and the log-determinant dx/dy, shape (N,)."""
        log_scales = []
        for k in reversed(range(len(self.nets))):
            x = y
            for _ in range(len(y)):
                shift, log_scale = self._numbers(k, x)
                x = (y - shift) * (-log_scale).exp()
            y = x
            log_scales.append(log_scale)
        return y, -torch.cat(log_scales).sum(0)


class AutoregressiveFlow(WithEnd):
    r"""A masked autoregressive flow, or its inverse; it starts at N(0, I).

    K maps :math:`y_i=x_i\,e^{s_i(x_{<i})}+t_i(x_{<i})` follow each other, s and t by one masked network each; the order
    of the coordinates is reversed from map to map. Their Jacobian is triangular: its determinant is exact.

    ``direction`` says what takes one pass of the networks; the other way takes d passes, one for each coordinate.

    * ``density``: the maps lead from data to noise (MAF). Densities are fast and samples slow: for maximum likelihood.
    * ``sampling``: they lead from noise to data (IAF). Samples and *their* densities are fast; the density of data is
      slow: for objectives that look at the model's own samples.

    With the same weights one is the inverse of the other, up to the affine map at the data end.

    Source: Papamakarios, Pavlakou, Murray, "Masked autoregressive flow for density estimation", NIPS 2017; Kingma et
    al., "Improved variational inference with inverse autoregressive flow", NIPS 2016. In the place of their batch
    normalisation the affine map at the data end starts at what whitens the first batch (``whiten``).

    Args:
        event_shape: shape E of one example, prod(E) >= 2.
        direction: ``density`` or ``sampling``.
        layers: K.
        width: units of a hidden layer of a network.
        depth: hidden layers of a network.
        activation: nonlinearity of a network.
        log_scale_bound: c: the log-scale of one map is c tanh(r / 2) of what its network says, r.
        input_bound: size at which the input of a network is clamped.
        classes: number of classes of the context; 0 for an unconditional model.
        whiten: start at the Gaussian of the first batch.

    Raises:
        ValueError: one-dimensional data, or a hyperparameter out of range.
    """

    sources: tuple[str, ...] = ("papamakarios2017masked", "kingma2016improved", "germain2015made")
    smallest_dimension: ClassVar[int] = 2

    def __init__(
        self,
        event_shape: tuple[int, ...],
        direction: Direction = "density",
        layers: int = 5,
        width: int = 64,
        depth: int = 2,
        activation: Activation = "relu",
        log_scale_bound: float = 2.0,
        input_bound: float = 20.0,
        classes: int = 0,
        whiten: bool = False,
    ) -> None:
        for name, value in (("log_scale_bound", log_scale_bound), ("input_bound", input_bound)):
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}; the default works for standardised data")
        if direction not in get_args(Direction):
            raise ValueError(f"direction must be density or sampling, got {direction!r}; it says which way is fast")
        super().__init__(event_shape, classes)
        checked_layers("layers", layers, 1)
        self.direction, self.log_scale_bound, self.input_bound = direction, log_scale_bound, input_bound
        self.nets = nn.ModuleList(
            MaskedPerceptron(self.dimension, 2, i % 2 == 1, width, depth, activation, classes) for i in range(layers)
        )
        self.add_end(whiten)

    def forward(self, context: Tensor | None = None) -> PushForward:
        """Return the law of the flow; a conditional one has one row per label."""
        check_context(self, context)
        labels, rows = None, None if context is None else len(context)
        if context is not None:
            labels = with_context(self.loc.new_empty(len(context), 0), context, self.classes).T
        nets = [partial(net, weights=net.weights()) for net in list[Any](self.nets)]
        stack, end = Stack(nets, self.log_scale_bound, self.input_bound, labels), self.end()
        ways = (stack.forward, stack.backward)
        inward, outward = ways if self.direction == "density" else ways[::-1]

        def pull(x: Tensor) -> tuple[Tensor, Tensor]:
            z, ladj = inward(end.pull(x.flatten(1).T))
            return z.T, ladj - end.log_scale.sum()

        def push(z: Tensor) -> tuple[Tensor, Tensor]:
            x, ladj = outward(z.T.contiguous())
            return end.push(x).T.unflatten(1, self.event_shape), ladj + end.log_scale.sum()

        return PushForward(push, (self.dimension,), self.event_shape, self.loc, pull, rows=rows)
