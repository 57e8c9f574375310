r"""Normalizing flows: models with exact density, sampling and inverse."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from models.base import Model, checked_at_least
from models.laws import PushForward
from models.networks import Activation, bound_call, mlp


class AffineCouplings(nn.Module):
    r"""A stack of affine couplings from latent to data, with an elementwise affine map at the data end.

    The coordinates are held as two halves that take turns: :math:`b \leftarrow b\,e^{s(a)}+t(a)`, then
    :math:`a \leftarrow a\,e^{s(b)}+t(b)`. After each turn of both, for d > 2, a fixed permutation (even positions
    first) forms new halves; halves of any size do, so d may be odd. The log-scale is :math:`s=c\tanh(r/c)`, and the
    conditioner sees :math:`\kappa\tanh(\cdot/\kappa)` of its input, so shift and scale are bounded: a point far from
    the data is mapped by an affine map of bounded slope and its log-density stays finite.

    Source: Dinh, Sohl-Dickstein, Bengio, "Density estimation using Real NVP", ICLR 2017, eqs. (4)-(8).

    Args:
        dimension: d.
        couplings: number of couplings.
        width: units of a hidden layer of a conditioner.
        depth: hidden layers of a conditioner.
        activation: nonlinearity of a conditioner.
        log_scale_bound: c.
        input_bound: kappa.
    """

    def __init__(
        self,
        dimension: int,
        couplings: int,
        width: int,
        depth: int,
        activation: Activation,
        log_scale_bound: float,
        input_bound: float,
    ) -> None:
        super().__init__()
        self.split = (dimension - dimension // 2, dimension // 2)
        self.log_scale_bound, self.input_bound = log_scale_bound, input_bound
        # One network gives shift and log-scale; its last layer starts at zero, so the flow starts at the identity.
        self.conditioners = nn.ModuleList(
            mlp(self.split[i % 2], 2 * self.split[1 - i % 2], width, depth, activation, zero_last=True)
            for i in range(couplings)
        )
        self.loc = nn.Parameter(torch.zeros(dimension))
        self.log_scale = nn.Parameter(torch.zeros(dimension))
        order = torch.cat((torch.arange(0, dimension, 2), torch.arange(1, dimension, 2)))
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("inverse_order", order.argsort(), persistent=False)

    def shift_and_log_scale(self, i: int, given: Tensor) -> tuple[Tensor, Tensor]:
        """Return t and s of coupling i for the half that it reads, both shaped as the half that it moves."""
        shift, raw = self.conditioners[i](self.input_bound * torch.tanh(given / self.input_bound)).chunk(2, dim=1)
        return shift, self.log_scale_bound * torch.tanh(raw / self.log_scale_bound)

    def mixes_after(self, i: int) -> bool:
        """Whether the permutation follows coupling i; for d = 2 it would be the identity."""
        return sum(self.split) > 2 and i % 2 == 1 and i + 1 < len(self.conditioners)

    def forward(self, x: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """Map z to x, or x to z for the inverse.

        Args:
            x: shape (N, d).
            inverse: the direction.

        Returns:
            The image, shape (N, d), and log |det| of the map taken, shape (N,).
        """
        return self._pull(x) if inverse else self._push(x)

    def _push(self, z: Tensor) -> tuple[Tensor, Tensor]:
        ladj = self.log_scale.sum().expand(len(z))
        halves = list(z.split(self.split, dim=1))
        for i in range(len(self.conditioners)):
            given, moved = i % 2, 1 - i % 2
            shift, log_scale = self.shift_and_log_scale(i, halves[given])
            halves[moved] = halves[moved] * log_scale.exp() + shift
            ladj = ladj + log_scale.sum(1)
            if self.mixes_after(i):
                halves = list(torch.cat(halves, 1)[:, self.get_buffer("order")].split(self.split, dim=1))
        return torch.cat(halves, 1) * self.log_scale.exp() + self.loc, ladj

    def _pull(self, x: Tensor) -> tuple[Tensor, Tensor]:
        ladj = -self.log_scale.sum().expand(len(x))
        halves = list(((x - self.loc) * (-self.log_scale).exp()).split(self.split, dim=1))
        for i in reversed(range(len(self.conditioners))):
            if self.mixes_after(i):
                halves = list(torch.cat(halves, 1)[:, self.get_buffer("inverse_order")].split(self.split, dim=1))
            given, moved = i % 2, 1 - i % 2
            shift, log_scale = self.shift_and_log_scale(i, halves[given])
            halves[moved] = (halves[moved] - shift) * (-log_scale).exp()
            ladj = ladj - log_scale.sum(1)
        return torch.cat(halves, 1), ladj


class RealNVP(Model):
    r"""Real NVP: :math:`x=g_\theta(z)` by affine couplings; it starts at N(0, I).

    .. math:: \log p_\theta(x)=\log N(g^{-1}(x);0,I)+\log|\det\partial g^{-1}(x)/\partial x|

    Source: Dinh, Sohl-Dickstein, Bengio, "Density estimation using Real NVP", ICLR 2017.

    Args:
        event_shape: shape E of one example, prod(E) >= 2.
        couplings: number of couplings; at least 2, so that both halves move.
        width: units of a hidden layer of a conditioner.
        depth: hidden layers of a conditioner.
        activation: nonlinearity of a conditioner.
        log_scale_bound: bound on the log-scale of one coupling.
        input_bound: scale beyond which a conditioner no longer tells inputs apart.

    Raises:
        ValueError: one-dimensional data, or a hyperparameter out of range.
    """

    has_log_prob: ClassVar[bool] = True
    has_rsample: ClassVar[bool] = True
    smallest_dimension: ClassVar[int] = 2

    def __init__(
        self,
        event_shape: tuple[int, ...],
        couplings: int = 12,
        width: int = 64,
        depth: int = 2,
        activation: Activation = "relu",
        log_scale_bound: float = 2.0,
        input_bound: float = 10.0,
    ) -> None:
        super().__init__(event_shape)
        checked_at_least("couplings", couplings, 2)
        for name, value in (("log_scale_bound", log_scale_bound), ("input_bound", input_bound)):
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}; the default works for standardised data")
        self.flow = AffineCouplings(self.dimension, couplings, width, depth, activation, log_scale_bound, input_bound)

    def forward(self, context: Tensor | None = None) -> PushForward:
        """Return the law of the flow."""
        flow, event_shape = bound_call(self.flow), self.event_shape

        def push(z: Tensor) -> tuple[Tensor, Tensor]:
            x, ladj = flow(z)
            return x.unflatten(1, event_shape), ladj

        def pull(x: Tensor) -> tuple[Tensor, Tensor]:
            return flow(x.flatten(1), inverse=True)

        return PushForward(push, (self.dimension,), event_shape, like=self.flow.loc, pull=pull)
