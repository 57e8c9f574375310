r"""Laws: what a model returns when it is called, in the vocabulary of ``torch.distributions``.

A law :math:`p` is used through *particles*: points :math:`x_i` with weights :math:`w_i`, so that
:math:`\mathbb E_p g \approx \sum_i w_i g(x_i)`. A sampler yields particles of equal weight whose positions depend on
the parameters (reparameterisation); a finite alphabet or a quadrature rule yields fixed points whose *weights* depend
on them. Everything that takes an expectation is written once, for both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from math import inf, log, pi, prod
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution


@dataclass(frozen=True)
class Particles:
    r"""Weighted points that stand for a law.

    Attributes:
        x: points, shape (N, \*E).
        log_weights: log w_i, shape (N,), normalised; None for equal weights 1/N.
        log_prob: log-density of the law at the points, shape (N,); None where the law has no density.
        context: label of each point, shape (N,), int64; None without labels. Points with labels stand for the joint
            law of both.
        latent: latent variables z of each point, shape (N, \*Z); None where the law has none, or they do not matter.
    """

    x: Tensor
    log_weights: Tensor | None = None
    log_prob: Tensor | None = None
    context: Tensor | None = None
    latent: Tensor | None = None

    def mean(self, values: Tensor) -> Tensor:
        r"""Return :math:`\sum_i w_i g_i` for values g of shape (N,)."""
        if values.shape != self.x.shape[:1]:
            raise ValueError(
                f"one value per particle expected, shape {tuple(self.x.shape[:1])}, got {tuple(values.shape)}; "
                "reduce the values to one number per particle first"
            )
        if self.log_weights is None:
            return values.mean()
        # A letter of weight zero must not turn an infinite value into NaN, neither here nor in the gradient.
        weights = self.log_weights.to(values.dtype).exp()
        return (weights * torch.where(weights == 0, 0.0, values)).sum()

    def log_mean_exp(self, values: Tensor) -> Tensor:
        r"""Return :math:`\log\sum_i w_i e^{g_i}` for values g of shape (N,), without overflow."""
        if self.log_weights is None:
            return torch.logsumexp(values, 0) - log(len(values))
        log_weights = self.log_weights.to(values.dtype)
        return torch.logsumexp(torch.where(log_weights == -torch.inf, 0.0, values) + log_weights, 0)

    def detach(self) -> Particles:
        """Return the same particles without a graph."""
        return self._each(Tensor.detach)

    def rows(self, index: Tensor | slice) -> Particles:
        """Return the particles at some rows, each with all that belongs to it.

        Args:
            index: which rows, and in which order: a slice, or numbers of shape (M,).

        Raises:
            ValueError: the particles have weights, which would no longer sum to one.
        """
        if self.log_weights is not None:
            raise ValueError(
                "weighted particles are not a sample, so some of their rows do not stand for the law: take them all, "
                "or draw a sample of the law"
            )
        return self._each(lambda part: part[index])

    def double(self) -> Particles:
        """Return the particles with weights and log-density in float64 (points and latents keep their type)."""
        return replace(
            self,
            log_weights=None if self.log_weights is None else self.log_weights.double(),
            log_prob=None if self.log_prob is None else self.log_prob.double(),
        )

    def _each(self, change: Callable[[Tensor], Tensor]) -> Particles:
        """Return particles each of whose tensors is changed, whatever fields there are."""
        parts: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, part in parts.items():
            parts[name] = None if part is None else change(part)
        return Particles(**parts)


class Source(Protocol):
    """Where the points of a given law come from: what data gives as its ``reference``."""

    def draw(self, n: int, generator: torch.Generator, held_out: bool = False) -> Tensor:
        r"""Draw independent points in model space, shape (m, \*E), on the CPU.

        Args:
            n: how many; of held-out rows at most as many as there are, m <= n, each once.
            generator: on the CPU.
            held_out: whether from rows that no training step sees.
        """


def as_points(value: Tensor, event_shape: tuple[int, ...], like: Tensor, rows: int | None = None) -> Tensor:
    r"""Return the points that a density is asked at as rows (N, \*E), in the type of the law's parameters.

    As in ``torch.distributions``, any shape may stand before E: the log-densities have that shape.

    Args:
        value: points, shape (\*B, \*E).
        event_shape: E.
        like: a parameter.
        rows: how many there must be, shape (rows, \*E), where the law has one row per label.

    Raises:
        ValueError: the points have another shape, or are complex.
    """
    event = tuple(event_shape)
    fits = value.ndim >= len(event) and tuple(value.shape[value.ndim - len(event) :]) == event
    if not fits or value.is_complex() or (rows is not None and value.shape != (rows, *event)):
        wanted = f"({'n' if rows is None else rows}, {', '.join(map(str, event))})"
        kind = "complex points" if value.is_complex() else "points"
        raise ValueError(f"log_prob needs real points of shape {wanted}, got {kind} of shape {tuple(value.shape)}")
    return value.reshape(-1, *event).to(like.dtype)


class WithoutLatents:
    """Mixed into a law of points alone: its joint density with latent variables is its density."""

    log_prob: Callable[[Tensor], Tensor]

    def log_joint(self, p: Particles) -> Tensor:
        """Return the log-density at the particles' points, shape (N,)."""
        return self.log_prob(p.x)


class PushForward(WithoutLatents, Distribution):
    r"""The law of :math:`x = g(z)`, :math:`z\sim N(0, I)`: a generator, or a flow when g has an inverse.

    Args:
        push: g, from (N, \*Z) to (N, \*E); for a flow it returns ``(x, ladj)`` with
            :math:`\text{ladj} = \log|\det \partial g/\partial z|` of shape (N,).
        latent_shape: Z.
        event_shape: E.
        like: a parameter that fixes dtype and device of the noise.
        pull: the inverse, from (N, \*E) to ``(z, ladj)`` with ladj of the *inverse*; None for an implicit law.
        rows: number of labels, where the law is of one point per label; else None.
        carry: g alone, from (N, \*Z) to (N, \*E), where it costs less than ``push``; None to take that of ``push``.
    """

    arg_constraints: dict[str, Any] = {}
    has_rsample = True
    normal_noise = True  # what ``noise`` draws is N(0, I), and ``particles`` carries any point of that space

    def __init__(
        self,
        push: Callable[[Tensor], Tensor] | Callable[[Tensor], tuple[Tensor, Tensor]],
        latent_shape: tuple[int, ...],
        event_shape: tuple[int, ...],
        like: Tensor,
        pull: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
        carry: Callable[[Tensor], Tensor] | None = None,
        rows: int | None = None,
    ) -> None:
        super().__init__(event_shape=torch.Size(event_shape), validate_args=False)
        self.push, self.pull, self.latent_shape, self.like = push, pull, tuple(latent_shape), like
        self._carry, self._rows = carry, rows

    def tempered(self, temperature: float) -> PushForward:
        r"""Return the law of :math:`g(Tz)`, z ~ N(0, I): at T < 1 the samples are nearer to those of z = 0.

        Source: Kingma, Dhariwal, "Glow", NeurIPS 2018, section 6 (their sampling at reduced temperature).

        Args:
            temperature: T.

        Raises:
            NotImplementedError: the law is implicit.
            ValueError: not a positive number.
        """
        if not 0 < temperature < inf:
            raise ValueError(f"temperature must be a positive number, got {temperature}; 1 is the model itself")
        if self.pull is None:
            raise NotImplementedError("this law is implicit: only a flow has a temperature")
        push, pull, carry, log_t = self.push, self.pull, self._carry, prod(self.latent_shape) * log(temperature)

        def cooled(z: Tensor) -> tuple[Tensor, Tensor]:
            x, ladj = push(temperature * z)
            return x, ladj + log_t

        def heated(x: Tensor) -> tuple[Tensor, Tensor]:
            z, ladj = pull(x)
            return z / temperature, ladj - log_t

        less = None if carry is None else lambda z: carry(temperature * z)
        return PushForward(cooled, self.latent_shape, self.event_shape, self.like, heated, less, self._rows)

    def noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n latent points z, shape (n, *Z)."""
        return torch.randn((n, *self.latent_shape), generator=generator, dtype=self.like.dtype, device=self.like.device)

    def particles(self, noise: Tensor) -> Particles:
        """Carry latent points to particles of equal weight, with their log-density where the law has one."""
        if self.pull is None:
            return Particles(self.push(noise))  # type: ignore[arg-type]
        x, ladj = self.push(noise)
        return Particles(x, log_prob=standard_normal_log_prob(noise) - ladj)

    def rsample(  # type: ignore[override]  # torch.distributions has no generator argument
        self, sample_shape: torch.Size | tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        r"""Draw reparameterised samples, shape (\*sample_shape, \*E)."""
        noise = self.noise(torch.Size(sample_shape).numel(), generator)
        x = self.particles(noise).x if self._carry is None else self._carry(noise)
        return x.reshape(*sample_shape, *self.event_shape)

    def sample(  # type: ignore[override]  # torch.distributions has no generator argument
        self, sample_shape: torch.Size | tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw samples without a graph."""
        with torch.no_grad():
            return self.rsample(sample_shape, generator)

    def log_prob(self, value: Tensor) -> Tensor:
        r"""Return :math:`\log p(x) = \log N(g^{-1}(x)) + \log|\det \partial g^{-1}/\partial x|`, shape (\*B,).

        Args:
            value: points, shape (\*B, \*E); of a conditional law one row per label.

        Raises:
            NotImplementedError: the law is implicit.
            ValueError: the points have another shape.
        """
        if self.pull is None:
            raise NotImplementedError("this law is implicit: its generator has no inverse, so it has no log_prob")
        points = as_points(value, self.event_shape, self.like, self._rows)
        z, ladj = self.pull(points)
        return (standard_normal_log_prob(z) + ladj).reshape(value.shape[: value.ndim - len(self.event_shape)])


class Weighted(WithoutLatents, Distribution):
    r"""Fixed points with weights: a finite alphabet, or a quadrature rule for a law with a density.

    Args:
        points: shape (N, \*E).
        log_weights: normalised log-weights, shape (N,).
        log_density: log-density at the points with respect to the measure that entropies refer to, shape (N,); by
            default the log-weights (counting measure). For a quadrature rule pass the true log-density.
    """

    arg_constraints: dict[str, Any] = {}
    has_rsample = False

    def __init__(self, points: Tensor, log_weights: Tensor, log_density: Tensor | None = None) -> None:
        super().__init__(event_shape=points.shape[1:], validate_args=False)
        self.points, self.log_weights = points, log_weights
        self.log_density = log_weights if log_density is None else log_density

    def noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return an empty draw: the particles of this law are not random."""
        return self.points.new_empty((0,))

    def particles(self, noise: Tensor) -> Particles:
        """Return all points with their weights."""
        return Particles(self.points, self.log_weights, self.log_density)

    def sample(  # type: ignore[override]  # torch.distributions has no generator argument
        self, sample_shape: torch.Size | tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        r"""Draw points by weight, shape (\*sample_shape, \*E)."""
        n = torch.Size(sample_shape).numel()
        index = torch.multinomial(self.log_weights.detach().exp(), n, replacement=True, generator=generator)
        return self.points[index].reshape(*sample_shape, *self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        r"""Return the log-density at points of the rule, shape (\*B,) for (\*B, \*E); -inf elsewhere.

        Raises:
            ValueError: the points have another shape.
        """
        points = as_points(value, self.event_shape, self.points)
        hit = (points.flatten(1)[:, None] == self.points.flatten(1)[None]).all(-1)
        found = torch.where(hit.any(1), self.log_density[hit.to(torch.uint8).argmax(1)], -torch.inf)
        return found.reshape(value.shape[: value.ndim - len(self.event_shape)])


def standard_normal_log_prob(z: Tensor) -> Tensor:
    r"""Return :math:`\log N(z; 0, I)` per row of z, shape (N,)."""
    z = z.flatten(1)
    return -0.5 * (z.square() + log(2 * pi)).sum(1)
