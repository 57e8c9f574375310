r"""Normalizing flows: models with exact density, sampling and inverse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.base import Model, check_context, checked_at_least
from models.laws import PushForward
from models.networks import Activation, bound_call, mlp


class AffineCouplings:
    r"""The map of a stack of affine couplings at fixed parameters, with an elementwise affine map at the data end.

    From data to latent, the coordinates are held as two halves that take turns, :math:`b\leftarrow b\,e^{s(a)}+t(a)`
    and :math:`a\leftarrow a\,e^{s(b)}+t(b)`. After both turns, for d > 2, a fixed permutation (even positions first)
    forms new halves. Halves need not be equal, so d may be odd.

    The log-scale is :math:`s=c\tanh r`, and a conditioner sees its input clamped to :math:`[-\kappa,\kappa]`. Shift
    and scale are then bounded: far from the data the map is affine of bounded slope, and log-densities stay finite.

    Source: Dinh, Sohl-Dickstein, Bengio, "Density estimation using Real NVP", ICLR 2017, eqs. (4)-(8).

    Args:
        conditioners: networks that return (t, r) side by side, in the order data to latent.
        split: sizes of the halves; coupling i reads half i mod 2 and moves the other.
        log_scale_bound: c.
        input_bound: kappa.
        loc: shift of the affine map at the data end, shape (d,).
        log_scale: log-scale of the affine map at the data end, shape (d,).
        order: the permutation, shape (d,); None to have none.
    """

    def __init__(
        self,
        conditioners: Sequence[Callable[[Tensor], Tensor]],
        split: tuple[int, int],
        log_scale_bound: float,
        input_bound: float,
        loc: Tensor,
        log_scale: Tensor,
        order: Tensor | None,
    ) -> None:
        self.conditioners, self.split = conditioners, split
        self.log_scale_bound, self.input_bound = log_scale_bound, input_bound
        self.loc, self.log_scale, self.order = loc, log_scale, order

    def _shift_and_log_scale(self, i: int, given: Tensor) -> tuple[Tensor, Tensor]:
        """Return t and s of coupling i for the half that it reads, both shaped as the half that it moves."""
        shift, raw = self.conditioners[i](given.clamp(-self.input_bound, self.input_bound)).chunk(2, dim=1)
        return shift, self.log_scale_bound * torch.tanh(raw)

    def _mixes_before(self, i: int) -> bool:
        """Whether the permutation stands before coupling i."""
        return self.order is not None and i % 2 == 0 and i > 0

    def pull(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map data x to latent z, both (N, d); return z and log |det dz/dx|, shape (N,)."""
        halves = list(((x - self.loc) * (-self.log_scale).exp()).split(self.split, dim=1))
        log_scales = []
        for i in range(len(self.conditioners)):
            if self._mixes_before(i):
                halves = list(torch.cat(halves, 1)[:, self.order].split(self.split, dim=1))
            shift, log_scale = self._shift_and_log_scale(i, halves[i % 2])
            halves[1 - i % 2] = torch.addcmul(shift, halves[1 - i % 2], log_scale.exp())
            log_scales.append(log_scale)
        return torch.cat(halves, 1), torch.cat(log_scales, 1).sum(1) - self.log_scale.sum()

    def push(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map latent z to data x, both (N, d); return x and log |det dx/dz|, shape (N,)."""
        inverse_order = None if self.order is None else self.order.argsort()
        halves = list(z.split(self.split, dim=1))
        log_scales = []
        for i in reversed(range(len(self.conditioners))):
            shift, log_scale = self._shift_and_log_scale(i, halves[i % 2])
            halves[1 - i % 2] = (halves[1 - i % 2] - shift) * (-log_scale).exp()
            log_scales.append(log_scale)
            if self._mixes_before(i):
                halves = list(torch.cat(halves, 1)[:, inverse_order].split(self.split, dim=1))
        x = torch.addcmul(self.loc, torch.cat(halves, 1), self.log_scale.exp())
        return x, self.log_scale.sum() - torch.cat(log_scales, 1).sum(1)


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
        input_bound: size at which the input of a conditioner is clamped.

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
        input_bound: float = 20.0,
    ) -> None:
        super().__init__(event_shape)
        checked_at_least("couplings", couplings, 2)
        for name, value in (("log_scale_bound", log_scale_bound), ("input_bound", input_bound)):
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}; the default works for standardised data")
        d = self.dimension
        self.split = (d - d // 2, d // 2)
        self.log_scale_bound, self.input_bound = log_scale_bound, input_bound
        # One network gives shift and log-scale; its last layer starts at zero, so the flow starts at the identity.
        self.conditioners = nn.ModuleList(
            mlp(self.split[i % 2], 2 * self.split[1 - i % 2], width, depth, activation, zero_last=True)
            for i in range(couplings)
        )
        self.loc = nn.Parameter(torch.zeros(d))
        self.log_scale = nn.Parameter(torch.zeros(d))
        order = torch.cat((torch.arange(0, d, 2), torch.arange(1, d, 2)))
        self.register_buffer("_order", order if d > 2 else None, persistent=False)

    def forward(self, context: Tensor | None = None) -> PushForward:
        """Return the law of the flow."""
        check_context(self, context)
        event_shape = self.event_shape
        couplings = AffineCouplings(
            [bound_call(net) for net in self.conditioners],
            self.split,
            self.log_scale_bound,
            self.input_bound,
            self.loc,
            self.log_scale,
            self._order,  # type: ignore[arg-type]
        )

        def push(z: Tensor) -> tuple[Tensor, Tensor]:
            x, ladj = couplings.push(z)
            return x.unflatten(1, event_shape), ladj

        def pull(x: Tensor) -> tuple[Tensor, Tensor]:
            return couplings.pull(x.flatten(1))

        return PushForward(push, (self.dimension,), event_shape, like=self.loc, pull=pull)
