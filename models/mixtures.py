r"""Mixtures of Gaussians: exact density, and particles that are differentiable in the weights too."""

from __future__ import annotations

from math import log
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from models.arguments import checked_at_least
from models.base import Model, check_context
from models.laws import Particles, WithoutLatents, as_points, standard_normal_log_prob


class MixtureLaw(WithoutLatents, Distribution):
    r"""The law :math:`\sum_k w_k\,N(\mu_k,\mathrm{diag}(s_k^2))` through particles stratified over its components.

    Of n particles, component k carries :math:`n_k`, equal up to one, at :math:`x_i=\mu_k+s_kz_i` with weight
    :math:`w_k/n_k`. As the components' shares are fixed,

    .. math:: \mathbb E\sum_i\frac{w_{k(i)}}{n_{k(i)}}\,g(x_i)=\sum_k w_k\,\mathbb E_{N_k}g=\mathbb E_p g

    exactly, and so for the derivatives in means, scales and weights: the draw depends on no parameter, and the weights
    sum to one identically. Equal-weight samples (:meth:`sample`) choose a component at random, which has no derivative
    in the weights; hence ``has_rsample`` is False.

    The price: the variance is up to K times that of shares :math:`n_k\propto w_k`, reached when one component has all
    the weight; in return a component of small weight is seen as sharply as any other.

    Args:
        log_weights: log w_k, normalised, shape (K,).
        loc: means, shape (K, d).
        scale: deviations, shape (K, d), positive.
        event_shape: shape E of one example, d = prod(E).
    """

    arg_constraints: dict[str, Any] = {}
    has_rsample = False

    def __init__(self, log_weights: Tensor, loc: Tensor, scale: Tensor, event_shape: tuple[int, ...]) -> None:
        super().__init__(event_shape=torch.Size(event_shape), validate_args=False)
        self.log_weights, self.loc, self.scale = log_weights, loc, scale

    def noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw z, shape (max(n, K), d): a component without a particle would be missing from every expectation."""
        components, d = self.loc.shape
        return torch.randn((max(n, components), d), generator=generator, dtype=self.loc.dtype, device=self.loc.device)

    def particles(self, noise: Tensor) -> Particles:
        """Carry z to particles with their weights and log-density; particle i belongs to component i mod K."""
        n, components = len(noise), len(self.loc)
        k = torch.arange(n, device=noise.device) % components
        shares = torch.tensor([(n - 1 - j) // components + 1 for j in range(components)], device=noise.device)
        x = (self.loc[k] + self.scale[k] * noise).unflatten(1, self.event_shape)
        return Particles(x, (self.log_weights - shares.to(self.log_weights.dtype).log())[k], self.log_prob(x))

    @torch.no_grad()
    def sample(  # type: ignore[override]  # torch.distributions has no generator argument
        self, sample_shape: torch.Size | tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        r"""Draw independent samples of equal weight, without a graph, shape (\*sample_shape, \*E)."""
        n = torch.Size(sample_shape).numel()
        k = torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=generator)
        z = torch.randn((n, self.loc.shape[1]), generator=generator, dtype=self.loc.dtype, device=self.loc.device)
        return (self.loc[k] + self.scale[k] * z).reshape(*sample_shape, *self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        r"""Return :math:`\log\sum_k w_kN(x;\mu_k,\mathrm{diag}(s_k^2))`, shape (\*B,) for points (\*B, \*E).

        It goes through an array (N, K, d).

        Raises:
            ValueError: the points have another shape.
        """
        points = as_points(value, self.event_shape, self.loc)
        z = (points.flatten(1)[:, None] - self.loc) / self.scale
        log_normal = standard_normal_log_prob(z.flatten(0, 1)).unflatten(0, z.shape[:2]) - self.scale.log().sum(1)
        found = torch.logsumexp(self.log_weights + log_normal, dim=1)
        return found.reshape(value.shape[: value.ndim - len(self.event_shape)])


class GaussianMixture(Model):
    r"""A mixture of K Gaussians :math:`\sum_k w_k\,N(\mu_k,\mathrm{diag}(s_k^2))`; every parameter is learned.

    It starts with equal weights, deviations s = ``init_scale`` and means drawn from :math:`N(0,s^2I)`, so that the
    whole has deviation :math:`\sqrt2\,s`: wider than standardised data at s = 1.

    Deviations stay above ``min_scale``, :math:`s=s_{\min}+e^r`: the likelihood of a mixture is unbounded where a
    component shrinks onto one example.

    Args:
        event_shape: shape E of one example, d = prod(E).
        components: K.
        init_scale: s.
        min_scale: lower bound on a deviation, below ``init_scale``.

    Raises:
        ValueError: no component, or scales out of order.
    """

    sources: tuple[str, ...] = ()
    has_log_prob: ClassVar[bool] = True
    has_rsample: ClassVar[bool] = False

    def __init__(
        self, event_shape: tuple[int, ...], components: int = 8, init_scale: float = 1.0, min_scale: float = 0.01
    ) -> None:
        super().__init__(event_shape)
        checked_at_least("components", components, 1)
        if not 0 < min_scale < init_scale < float("inf"):
            raise ValueError(
                f"0 < min_scale < init_scale is needed, got min_scale={min_scale}, init_scale={init_scale}; "
                "0.01 and 1.0 work for standardised data"
            )
        self.min_scale = min_scale
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(init_scale * torch.randn(components, self.dimension))
        self.log_excess = nn.Parameter(torch.full((components, self.dimension), log(init_scale - min_scale)))

    def forward(self, context: Tensor | None = None) -> MixtureLaw:
        """Return the mixture at the current parameters."""
        check_context(self, context)
        scale = self.min_scale + self.log_excess.exp()
        return MixtureLaw(self.logits.log_softmax(0), self.loc, scale, self.event_shape)
