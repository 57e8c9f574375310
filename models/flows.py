r"""Normalizing flows of couplings: models with exact density, sampling and inverse."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.arguments import checked_layers
from models.base import check_context
from models.invertible import Flow
from models.laws import Particles, PushForward
from models.logits import from_logits, to_logits, to_unit
from models.networks import Activation, ColumnPerceptron, with_context
from models.triangular import Triangular, of_gaussian

Support = Literal["real", "unit"]
Move = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Couplings:
    r"""The map of a stack of couplings at fixed parameters, with an elementwise affine map at the data end.

    From data to latent, the coordinates are held as two halves a, b that take turns: each coordinate of b moves along
    an increasing function whose numbers a conditioner reads off a, then the roles change. After both turns, for d > 2,
    a fixed permutation (even positions first) forms new halves. Halves need not be equal, so d may be odd.

    A conditioner sees its input clamped to :math:`[-\kappa,\kappa]`: far from the data it is constant.

    Inside, examples are columns, so that every operation on the numbers of a coupling, shape (numbers, m, N), runs
    along a long contiguous axis; with few numbers per row on the last axis, torch is several times slower.

    Source: Dinh, Sohl-Dickstein, Bengio, "Density estimation using Real NVP", ICLR 2017, eqs. (4)-(8).

    Args:
        conditioners: networks from (inputs, N) to (numbers m, N), in the order data to latent.
        split: sizes of the halves; coupling i reads half i mod 2 and moves the other.
        input_bound: kappa.
        end: the affine map at the data end.
        labels: rows appended to the input of every conditioner, shape (classes, N); None to append nothing.
    """

    def __init__(
        self,
        conditioners: Sequence[Callable[[Tensor], Tensor]],
        split: tuple[int, int],
        input_bound: float,
        end: Triangular,
        labels: Tensor | None = None,
    ) -> None:
        self.conditioners, self.end = conditioners, end
        self.split, self.input_bound, self.labels = split, input_bound, labels

    def _numbers(self, i: int, given: Tensor) -> Tensor:
        """Return the numbers of coupling i for the half (m', N) that it reads, shape (numbers, m, N)."""
        inputs = F.hardtanh(given, -self.input_bound, self.input_bound)
        if self.labels is not None:
            inputs = torch.cat((inputs, self.labels))
        return self.conditioners[i](inputs).unflatten(0, (-1, self.split[1 - i % 2]))

    def _mixes_before(self, i: int) -> bool:
        """Whether the permutation stands before coupling i."""
        return i % 2 == 0 and i > 0 and sum(self.split) > 2

    def pull(self, x: Tensor, move: Move) -> tuple[Tensor, Tensor]:
        """Map data x to latent z, both (N, d), by couplings ``move``; return z and log |det dz/dx|, shape (N,)."""
        halves = list(self.end.pull(x.T).split(self.split))
        slopes = []
        for i in range(len(self.conditioners)):
            if self._mixes_before(i):
                whole = torch.cat(halves)
                halves = [whole[0::2], whole[1::2]]
            halves[1 - i % 2], slope = move(self._numbers(i, halves[i % 2]), halves[1 - i % 2])
            slopes.append(slope)
        return torch.cat(halves).T, torch.cat(slopes).sum(0) - self.end.log_scale.sum()

    def push(self, z: Tensor, move: Move) -> tuple[Tensor, Tensor]:
        """Map latent z to data x, both (N, d), by the inverses ``move``; return x and log |det dx/dz|, shape (N,)."""
        slopes: list[Tensor] = []

        def collected(numbers: Tensor, half: Tensor) -> Tensor:
            half, slope = move(numbers, half)
            slopes.append(slope)
            return half

        return self.carry(z, collected), self.end.log_scale.sum() + torch.cat(slopes).sum(0)

    def carry(self, z: Tensor, move: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Map as :meth:`push` does, without the determinant, which ``move`` then has no part of."""
        halves = list(z.T.contiguous().split(self.split))
        for i in reversed(range(len(self.conditioners))):
            halves[1 - i % 2] = move(self._numbers(i, halves[i % 2]), halves[1 - i % 2])
            if self._mixes_before(i):
                halves = list(interleaved(*halves).split(self.split))
        return self.end.push(torch.cat(halves)).T


def interleaved(even: Tensor, odd: Tensor) -> Tensor:
    """Return the rows, shape (d, N), whose even ones, (d - d // 2, N), and odd ones, (d // 2, N), are given."""
    whole = torch.stack((even[: len(odd)], odd), 1).flatten(0, 1)
    return whole if len(even) == len(odd) else torch.cat((whole, even[len(odd) :]))


class CouplingFlow(Flow):
    r"""A flow :math:`x=g_\theta(z)` of couplings; a subclass writes the increasing function of one coordinate.

    .. math:: \log p_\theta(x)=\log N(g^{-1}(x);0,I)+\log|\det\partial g^{-1}(x)/\partial x|

    Every conditioner reads the label of a conditional flow, so both halves depend on it.

    Args:
        event_shape: shape E of one example, prod(E) >= 2.
        numbers: how many numbers of a conditioner move one coordinate; all zero must give the identity.
        couplings: number of couplings; at least 2, so that both halves move.
        width: units of a hidden layer of a conditioner.
        depth: hidden layers of a conditioner.
        activation: nonlinearity of a conditioner.
        input_bound: size at which the input of a conditioner is clamped.
        support: where the law lives: "real", or "unit" for [-a', 1 + a'] in every coordinate with a' = 1e-6, where
            the flow models :math:`y=\text{logit}(a+(1-2a)x)`.
        classes: number of classes of the context, which enters as a one-hot vector; 0 for an unconditional model.
        whiten: let the affine map at the data end be triangular, and start it so that the first batch is white: the
            flow then starts at the Gaussian fitted to it. Else it is diagonal and starts at the identity.

    Raises:
        ValueError: one-dimensional data, or a hyperparameter out of range.
    """

    smallest_dimension: ClassVar[int] = 2

    def __init__(
        self,
        event_shape: tuple[int, ...],
        numbers: int,
        couplings: int,
        width: int,
        depth: int,
        activation: Activation,
        input_bound: float,
        support: Support,
        classes: int,
        whiten: bool = False,
    ) -> None:
        super().__init__(event_shape, classes)
        checked_layers("couplings", couplings, 2)
        if support not in get_args(Support):
            raise ValueError(f"support must be one of {', '.join(get_args(Support))}, got {support!r}; choose one")
        d = self.dimension
        self.split = (d - d // 2, d // 2)
        self.input_bound, self.support = input_bound, support
        # They start at the zero map, and the flow at the identity.
        self.conditioners = nn.ModuleList(
            ColumnPerceptron(self.split[i % 2] + classes, numbers * self.split[1 - i % 2], width, depth, activation)
            for i in range(couplings)
        )
        self.loc = nn.Parameter(torch.zeros(d))
        self.log_scale = nn.Parameter(torch.zeros(d))
        self.below = nn.Parameter(torch.zeros(d, d)) if whiten else None

    @abstractmethod
    def pull_coordinate(self, numbers: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Move coordinates (m, N) towards the latent end; return them and the log-derivative, both (m, N)."""

    @abstractmethod
    def push_coordinate(self, numbers: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Invert :meth:`pull_coordinate` at the same numbers, shape (numbers, m, N)."""

    def carry_coordinate(self, numbers: Tensor, z: Tensor) -> Tensor:
        """Return the first part of :meth:`push_coordinate`; samples need no more."""
        return self.push_coordinate(numbers, z)[0]

    def prepare(self, batch: Particles) -> None:
        """Whiten the first batch, where that is wanted."""
        if self.below is not None and len(batch.x) > 1:
            x = batch.x.flatten(1)
            fitted = of_gaussian(to_logits(x)[0] if self.support == "unit" else x)
            for mine, its in zip((self.loc, self.log_scale, self.below), fitted, strict=True):
                mine.copy_(its)

    def forward(self, context: Tensor | None = None) -> PushForward:
        """Return the law of the flow; a conditional one has one row per label."""
        check_context(self, context)
        event_shape, unit = self.event_shape, self.support == "unit"
        labels, rows = None, None if context is None else len(context)
        if context is not None:
            labels = with_context(self.loc.new_empty(len(context), 0), context, self.classes).T
        nets: Iterable[Any] = self.conditioners
        conditioners = [partial(net, weights=net.weights()) for net in nets]
        below = None if self.below is None else self.below.tril(-1)
        end = Triangular(self.loc[:, None], self.log_scale[:, None], below)
        couplings = Couplings(conditioners, self.split, self.input_bound, end, labels)

        def push(z: Tensor) -> tuple[Tensor, Tensor]:
            x, ladj = couplings.push(z, self.push_coordinate)
            if unit:
                x, more = from_logits(x)
                ladj = ladj + more
            return x.unflatten(1, event_shape), ladj

        def carry(z: Tensor) -> Tensor:
            x = couplings.carry(z, self.carry_coordinate)
            return (to_unit(x) if unit else x).unflatten(1, event_shape)

        def pull(x: Tensor) -> tuple[Tensor, Tensor]:
            if not unit:
                return couplings.pull(x.flatten(1), self.pull_coordinate)
            y, more = to_logits(x.flatten(1))
            z, ladj = couplings.pull(y, self.pull_coordinate)
            return z, ladj + more

        return PushForward(push, (self.dimension,), event_shape, like=self.loc, pull=pull, carry=carry, rows=rows)


class RealNVP(CouplingFlow):
    r"""Real NVP: affine couplings :math:`b\leftarrow b\,e^{s(a)}+t(a)`; it starts at N(0, I).

    The log-scale is :math:`s=c\tanh r`, and the input of a conditioner is bounded. Shift and scale are then bounded:
    far from the data the map is affine of bounded slope, and log-densities stay finite.

    Source: Dinh, Sohl-Dickstein, Bengio, "Density estimation using Real NVP", ICLR 2017.

    Args:
        event_shape: shape E of one example, prod(E) >= 2.
        couplings: number of couplings; at least 2, so that both halves move.
        width: units of a hidden layer of a conditioner.
        depth: hidden layers of a conditioner.
        activation: nonlinearity of a conditioner.
        log_scale_bound: c, the bound on the log-scale of one coupling.
        input_bound: size at which the input of a conditioner is clamped.
        support: "real", or "unit" for data in the unit cube, see :class:`CouplingFlow`.
        classes: number of classes of the context; 0 for an unconditional model.
        whiten: start at the Gaussian of the first batch, see :class:`CouplingFlow`.

    Raises:
        ValueError: one-dimensional data, or a hyperparameter out of range.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        couplings: int = 12,
        width: int = 64,
        depth: int = 2,
        activation: Activation = "relu",
        log_scale_bound: float = 2.0,
        input_bound: float = 20.0,
        support: Support = "real",
        classes: int = 0,
        whiten: bool = False,
    ) -> None:
        for name, value in (("log_scale_bound", log_scale_bound), ("input_bound", input_bound)):
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}; the default works for standardised data")
        super().__init__(event_shape, 2, couplings, width, depth, activation, input_bound, support, classes, whiten)
        self.log_scale_bound = log_scale_bound

    def pull_coordinate(self, numbers: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return :math:`x e^s+t` and s for numbers (t, r)."""
        shift, raw = numbers.unbind()
        log_scale = self.log_scale_bound * torch.tanh(raw)
        return torch.addcmul(shift, x, log_scale.exp()), log_scale

    def push_coordinate(self, numbers: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return :math:`(z-t)e^{-s}` and -s for numbers (t, r)."""
        shift, raw = numbers.unbind()
        minus = -self.log_scale_bound * torch.tanh(raw)
        return (z - shift) * minus.exp(), minus
