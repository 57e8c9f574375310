r"""Push-forward models: an affine map of Gaussian noise (with density), and an implicit perceptron."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from math import erf, inf, log, sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.arguments import checked_at_least
from models.base import Model, Stream, check_context
from models.laws import Particles, PushForward
from models.networks import Activation, Binding, mlp, with_context


class Truncated(PushForward):
    r"""The law of :math:`g(z)` whose coordinates of z are normal within [-t, t]: :func:`truncated` draws them.

    Args:
        push: g.
        latent_shape: shape of z.
        event_shape: E.
        like: a parameter that fixes dtype and device of the noise.
        bound: t.
    """

    normal_noise = False

    def __init__(
        self,
        push: Callable[[Tensor], Tensor],
        latent_shape: tuple[int, ...],
        event_shape: tuple[int, ...],
        like: Tensor,
        bound: float,
    ) -> None:
        super().__init__(push, latent_shape, event_shape, like)
        self.bound = bound

    def noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        r"""Draw n latent points z, shape (n, \*Z)."""
        return truncated((n, *self.latent_shape), self.bound, self.like, generator)


def truncated(shape: tuple[int, ...], bound: float, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    r"""Draw independent normal numbers within [-t, t] by the inverse of their distribution function.

    .. math:: z=\sqrt2\,\mathrm{erf}^{-1}\big((2u-1)\,\mathrm{erf}(t/\sqrt2)\big),\qquad u\sim U[0,1)

    So one number is made of one, and fewer are the first of more; numbers beyond t drawn again, as in the paper, have
    this law too (Brock, Donahue, Simonyan, ICLR 2019, section 3.1).

    Args:
        shape: of what is drawn.
        bound: t > 0.
        like: a tensor of the wanted type and device.
        generator: on that device.
    """
    u = torch.rand(shape, generator=generator, dtype=like.dtype, device=like.device)
    return (sqrt(2) * torch.erfinv((2 * u - 1) * erf(bound / sqrt(2)))).clamp(-bound, bound)


class Affine(Model):
    r"""The normal law :math:`x=\mu+Lz`, :math:`z\sim N(0,I)`, L lower triangular with positive diagonal.

    It starts at :math:`\mu=0`, :math:`L=sI` with s = ``init_scale`` above one, over-dispersed for standardised data:
    :math:`\chi^2(p_d\|p)=\int p_d^2/p-1` is infinite once the variance of p is below half that of the data, and a
    sample from a narrow model carries no gradient that says so.

    Args:
        event_shape: shape E of one example, d = prod(E).
        init_scale: s.

    Raises:
        ValueError: ``init_scale`` is not positive.
    """

    sources: tuple[str, ...] = ()
    has_log_prob: ClassVar[bool] = True
    has_rsample: ClassVar[bool] = True

    def __init__(self, event_shape: tuple[int, ...], init_scale: float = 2.0) -> None:
        super().__init__(event_shape)
        if not 0 < init_scale < float("inf"):
            raise ValueError(f"init_scale must be positive and finite, got {init_scale}; use 2.0 for standardised data")
        self.loc = nn.Parameter(torch.zeros(self.dimension))
        self.log_diagonal = nn.Parameter(torch.full((self.dimension,), log(init_scale)))
        rows, columns = torch.tril_indices(self.dimension, self.dimension, -1)
        self.below = nn.Parameter(torch.zeros(len(rows)))
        self.register_buffer("_flat_index", rows * self.dimension + columns, persistent=False)

    def scale_tril(self) -> Tensor:
        """Return L, shape (d, d)."""
        d = self.dimension
        below = self.below.new_zeros(d * d).scatter(0, self.get_buffer("_flat_index"), self.below)
        return below.reshape(d, d) + torch.diag(self.log_diagonal.exp())

    def forward(self, context: Tensor | None = None) -> PushForward:
        r"""Return :math:`N(\mu, LL^\top)`."""
        check_context(self, context)
        loc, scale, log_det = self.loc, self.scale_tril(), self.log_diagonal.sum()

        def push(z: Tensor) -> tuple[Tensor, Tensor]:
            return (loc + z @ scale.mT).unflatten(1, self.event_shape), log_det.expand(len(z))

        def pull(x: Tensor) -> tuple[Tensor, Tensor]:
            z = torch.linalg.solve_triangular(scale, (x.flatten(1) - loc).mT, upper=False).mT
            return z, -log_det.expand(len(x))

        return PushForward(push, (self.dimension,), self.event_shape, like=loc, pull=pull)


class Generator(Model):
    r"""An implicit law :math:`x=g_\theta(z)`, :math:`z\sim N(0,I)`, with a network for g; base of our generators.

    A subclass writes :meth:`push`. Drawing noise and carrying it at once need no law to be made; a subclass with a law
    of its own (``forward``) is asked for that.

    Samples may be drawn at a ``truncation`` t: z within [-t, t] in every coordinate, which at small t gives up variety
    for samples that are more like the data (Brock, Donahue, Simonyan, ICLR 2019, section 3.1).

    Args:
        event_shape: shape E of one example.
        latent_dim: dimension of z.
        classes: number of classes of the context; 0 for an unconditional model.
    """

    has_log_prob: ClassVar[bool] = False
    has_rsample: ClassVar[bool] = True
    has_context: ClassVar[bool] = True
    sampling: ClassVar[frozenset[str]] = frozenset({"truncation"})

    def __init__(self, event_shape: tuple[int, ...], latent_dim: int, classes: int = 0) -> None:
        super().__init__(event_shape, classes)
        checked_at_least("latent_dim", latent_dim, 1)
        self.latent_dim = latent_dim

    @abstractmethod
    def push(self, z: Tensor, context: Tensor | None) -> Tensor:
        r"""Return :math:`g_\theta(z)`, shape (N, \*E), of latent points, shape (N, latent_dim), and their labels."""

    def forward(self, context: Tensor | None = None) -> PushForward:
        r"""Return the law of :math:`g_\theta(z)`; it has no ``log_prob``."""
        check_context(self, context)
        push = Binding(self)(lambda z: self.push(z, context))
        return PushForward(push, (self.latent_dim,), self.event_shape, like=next(self.parameters()))

    def at_sampling(self, context: Tensor | None = None, truncation: float = inf, **settings: float) -> PushForward:
        """Return the law at a truncation; infinity is the model itself.

        Raises:
            ValueError: not a positive number, another setting, or a law of the subclass's own.
        """
        super().at_sampling(context, **settings)
        law = self(context)
        if truncation == inf:
            return law
        if not truncation > 0:
            raise ValueError(f"truncation must be a positive number, got {truncation}; infinity is the model")
        if type(self).forward is not Generator.forward:
            raise ValueError(f"{type(self).__name__} has a law of its own, which has no truncation; leave it out")
        push: Any = law.push
        return Truncated(push, law.latent_shape, law.event_shape, law.like, truncation)

    def draws(self, n: int, stream: Stream, context: Tensor | None = None) -> dict[str, Tensor]:
        """Draw latent points, shape (n, latent_dim), as the law does."""
        if type(self).forward is not Generator.forward:
            return super().draws(n, stream, context)
        check_context(self, context)
        like = next(self.parameters())
        noise = torch.randn((n, self.latent_dim), generator=stream("noise"), dtype=like.dtype, device=like.device)
        return {"noise": noise}

    def particles(self, draws: dict[str, Tensor], context: Tensor | None = None) -> Particles:
        """Carry latent points to particles of equal weight, with their labels."""
        if type(self).forward is not Generator.forward:
            return super().particles(draws, context)
        check_context(self, context)
        return Particles(self.push(draws["noise"], context), context=context)


class MLPGenerator(Generator):
    r"""An implicit law :math:`x=g_\theta(z)`, :math:`z\sim N(0,I)`, with g a multilayer perceptron.

    Source: Goodfellow et al., "Generative adversarial nets", NIPS 2014.

    Args:
        event_shape: shape E of one example.
        latent_dim: dimension of z.
        width: units of a hidden layer.
        depth: number of hidden layers.
        activation: nonlinearity.
        classes: number of classes of the context, which enters as a one-hot vector; 0 for an unconditional model.
    """

    sources: tuple[str, ...] = ("goodfellow2014generative",)

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent_dim: int = 16,
        width: int = 128,
        depth: int = 3,
        activation: Activation = "relu",
        classes: int = 0,
    ) -> None:
        super().__init__(event_shape, latent_dim, classes)
        self.net = mlp(latent_dim + classes, self.dimension, width, depth, activation)

    def push(self, z: Tensor, context: Tensor | None) -> Tensor:
        r"""Return the output of the perceptron, shape (N, \*E)."""
        x = self.net(with_context(z, context, self.classes))
        return x if len(self.event_shape) == 1 else x.unflatten(1, self.event_shape)
