r"""Named f-divergences that are bounded, whatever the two laws.

Every class states the integral it computes for D(q, p); at the saddle q = p_d. Words and sources:
:mod:`divergences.named`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from divergences import gaussians
from divergences.gaussians import Gaussian
from divergences.named import LOG2, NamedFDivergence, log_two_sigmoid, softplus


class JensenShannon(NamedFDivergence):
    r""":math:`\tfrac12\mathrm{KL}(q\|m) + \tfrac12\mathrm{KL}(p\|m)`; h(u) = (u log u - (1+u) log((1+u)/2)) / 2.

    The row "JS" of f-GAN's tables is twice this.
    """

    sources: tuple[str, ...] = ("lin1991divergence", "nowozin2016fgan")
    symmetric = True
    supremum = LOG2 / 2
    link_slope = 0.5

    def h(self, u: Tensor) -> Tensor:  # noqa: D102
        return (torch.xlogy(u, u) - (1 + u) * torch.log((1 + u) / 2)) / 2

    def value(self, v: Tensor) -> Tensor:  # noqa: D102
        x = v.clamp(-1, 1) / 2  # near 0 the two terms cancel to second order
        near = x.exp() * (x * x.sinh() - x.cosh() * torch.log1p(2 * (x / 2).sinh().square()))
        return torch.where(v.abs() < 1, near, (v.exp() * log_two_sigmoid(v) + log_two_sigmoid(-v)) / 2)

    def link(self, v: Tensor) -> Tensor:  # noqa: D102
        return log_two_sigmoid(v) / 2

    def conjugate(self, v: Tensor) -> Tensor:  # noqa: D102
        return -log_two_sigmoid(-v) / 2

    def inverse_link(self, t: Tensor) -> Tensor:  # noqa: D102
        return 2 * t - torch.log((2 - torch.exp(2 * t)).clamp(min=0))


class GAN(NamedFDivergence):
    r""":math:`2\,\mathrm{JSD}(q, p) - \log 4`, the value of the original game; h(u) = u log u - (1+u) log(1+u).

    The critic's loss is binary cross-entropy with logit v (Goodfellow et al. 2014, eq. 1 and Theorem 1).
    """

    sources: tuple[str, ...] = ("goodfellow2014generative",)
    symmetric = True
    supremum = 0.0
    link_slope = 1.0
    value_at_identity = -2 * LOG2

    def h(self, u: Tensor) -> Tensor:  # noqa: D102
        return torch.xlogy(u, u) - (1 + u) * torch.log1p(u)

    def value(self, v: Tensor) -> Tensor:  # noqa: D102
        w = v.clamp(max=40)  # e^v sp(-v) -> 1, and is 1 in float64 from v = 40 on, where e^v may overflow
        return -(w.exp() * softplus(-w) + softplus(v))

    def link(self, v: Tensor) -> Tensor:  # noqa: D102
        return logsigmoid(v)

    def conjugate(self, v: Tensor) -> Tensor:  # noqa: D102
        return softplus(v)

    def inverse_link(self, t: Tensor) -> Tensor:  # noqa: D102
        return -torch.log(torch.expm1((-t).clamp(min=0)))


class SquaredHellinger(NamedFDivergence):
    r""":math:`\int(\sqrt q - \sqrt p)^2`; h(u) = (sqrt(u) - 1)^2."""

    sources: tuple[str, ...] = ("nowozin2016fgan",)
    symmetric = True
    supremum = 1.0

    def between_gaussians(self, q: Gaussian, p: Gaussian) -> Tensor:  # noqa: D102
        return -2 * torch.expm1(gaussians.log_power(0.5, q, p))

    def h(self, u: Tensor) -> Tensor:  # noqa: D102
        return (torch.sqrt(u) - 1).square()

    def value(self, v: Tensor) -> Tensor:  # noqa: D102
        return torch.expm1(v / 2).square()

    def link(self, v: Tensor) -> Tensor:  # noqa: D102
        return -torch.expm1(-v / 2)

    def conjugate(self, v: Tensor) -> Tensor:  # noqa: D102
        return torch.expm1(v / 2)

    def inverse_link(self, t: Tensor) -> Tensor:  # noqa: D102
        return -2 * torch.log1p((-t).clamp(min=-1))


class LeCam(NamedFDivergence):
    r""":math:`\int (q-p)^2/(q+p)`, at most 2; h(u) = (u - 1)^2/(u + 1) (Le Cam 1986, p. 47).

    With :math:`\tau = \tanh(v/2)` the link is :math:`\tau(2-\tau)` and the conjugate :math:`\tau(2+\tau)`.
    """

    sources: tuple[str, ...] = ("lecam1986asymptotic",)
    symmetric = True
    supremum = 1.0
    link_slope = 32 / 27  # at u = 1/2

    def h(self, u: Tensor) -> Tensor:  # noqa: D102
        return (u - 1) * ((u - 1) / (u + 1))

    def value(self, v: Tensor) -> Tensor:  # noqa: D102
        return torch.expm1(v) * torch.tanh(v / 2)

    def link(self, v: Tensor) -> Tensor:  # noqa: D102
        tau = torch.tanh(v / 2)
        return tau * (2 - tau)

    def conjugate(self, v: Tensor) -> Tensor:  # noqa: D102
        tau = torch.tanh(v / 2)
        return tau * (2 + tau)

    def inverse_link(self, t: Tensor) -> Tensor:  # noqa: D102
        rest = torch.sqrt((1 - t).clamp(0, 4))  # 1 - tau: h' runs from -3 to 1
        return torch.log((2 - rest) / rest)
