r"""Named f-divergences that can be infinite: each a generator h, with stable forms where :math:`e^v` would overflow.

Every class states the integral it computes for D(q, p); at the saddle q = p_d. Words and sources:
:mod:`divergences.named`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from divergences import gaussians
from divergences.base import Mover, WeightedPoints
from divergences.bounded import GAN
from divergences.f_divergence import FDivergence
from divergences.gaussians import Gaussian
from divergences.named import LOG2, NamedFDivergence, kl_integrand, log_two_sigmoid, softplus


class KL(NamedFDivergence):
    r""":math:`\mathrm{KL}(q\|p) = \int q\log(q/p)`; h(u) = u log u.

    The dual's integrand under p is :math:`e^v`, whose gradient has the variance of the density ratio, infinite on
    separated laws: who ascends learns v through the GAN's dual, unless the player's own view is another.
    """

    entropy_weight = 1.0
    link_slope = 1.0

    between_gaussians = staticmethod(gaussians.kl)

    def integrand(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        """Return q log(q/p): at any ratio, where the general form ends with e^v in float64."""
        return kl_integrand(log_q, log_p)

    def h(self, u: Tensor) -> Tensor:  # noqa: D102
        return torch.xlogy(u, u)

    def value(self, v: Tensor) -> Tensor:  # noqa: D102
        return v.exp() * v

    def link(self, v: Tensor) -> Tensor:  # noqa: D102
        return 1 + v

    def conjugate(self, v: Tensor) -> Tensor:  # noqa: D102
        return v.exp()

    def view(self, role: Mover) -> FDivergence | None:  # noqa: D102
        return GAN() if role.sign > 0 else None

    def inverse_link(self, t: Tensor) -> Tensor:  # noqa: D102
        return t - 1

    def normaliser(self, t: Tensor, p: WeightedPoints) -> Tensor:
        r"""Return :math:`\log\mathbb E_p e^t - 1` (Donsker and Varadhan 1975)."""
        return p.log_mean_exp(t) - 1


class ReverseKL(NamedFDivergence):
    r""":math:`\mathrm{KL}(p\|q) = \int p\log(p/q)`; h(u) = -log u."""

    supremum = 0.0

    def between_gaussians(self, q: Gaussian, p: Gaussian) -> Tensor:  # noqa: D102
        return gaussians.kl(p, q)

    def integrand(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        """Return p log(p/q)."""
        return kl_integrand(log_p, log_q)

    def h(self, u: Tensor) -> Tensor:  # noqa: D102
        return -torch.log(u)

    def value(self, v: Tensor) -> Tensor:  # noqa: D102
        return -v

    def link(self, v: Tensor) -> Tensor:  # noqa: D102
        return -torch.exp(-v)

    def conjugate(self, v: Tensor) -> Tensor:  # noqa: D102
        return v - 1

    def inverse_link(self, t: Tensor) -> Tensor:  # noqa: D102
        return -torch.log((-t).clamp(min=0))


class Pearson(NamedFDivergence):
    r""":math:`\int (q-p)^2/p`; h(u) = (u - 1)^2. Infinite where q has heavier tails than p.

    The dual's integrand under p is :math:`e^{2v}`: on separated laws it overflows float32 within 20 rounds, so who
    ascends learns v through the GAN's dual, unless the player's own view is another.
    """

    def between_gaussians(self, q: Gaussian, p: Gaussian) -> Tensor:  # noqa: D102
        return torch.expm1(gaussians.log_power(2.0, q, p))

    def h(self, u: Tensor) -> Tensor:  # noqa: D102
        return (u - 1).square()

    def value(self, v: Tensor) -> Tensor:  # noqa: D102
        return torch.expm1(v).square()

    def link(self, v: Tensor) -> Tensor:  # noqa: D102
        return 2 * torch.expm1(v)

    def conjugate(self, v: Tensor) -> Tensor:  # noqa: D102
        return torch.expm1(2 * v)

    def view(self, role: Mover) -> FDivergence | None:  # noqa: D102
        return GAN() if role.sign > 0 else None

    def inverse_link(self, t: Tensor) -> Tensor:  # noqa: D102
        return torch.log1p((t / 2).clamp(min=-1))  # h' starts at -2: below it q* is zero

    def normaliser(self, t: Tensor, p: WeightedPoints) -> Tensor:
        r"""Return the root of :math:`\mathbb E_p(1 + (t - \lambda)/2)_+ = 1`, by sorting.

        Over the k largest scores alone, of mean m and mass W, lambda is m - 2 (1 - W)/W. No subset has more mass than
        the particles with positive part, so the root is the largest of these.
        """
        t, order = t.sort(descending=True)
        weight = torch.full_like(t, 1 / len(t)) if p.log_weights is None else p.log_weights.to(t.dtype).exp()[order]
        mass = weight.cumsum(0)
        least = ((weight * t).cumsum(0) - 2 * (1 - mass)) / mass
        return torch.where(mass > 0, least, -torch.inf).max()


class Neyman(NamedFDivergence):
    r""":math:`\int (q-p)^2/q`; h(u) = (1 - u)^2 / u. Infinite where p has heavier tails than q.

    The dual's integrand under the data is :math:`1 - e^{-2v}`, which overflows on separated laws: who ascends
    learns v through the GAN's dual, unless the player's own view is another.
    """

    supremum = 1.0

    def between_gaussians(self, q: Gaussian, p: Gaussian) -> Tensor:  # noqa: D102
        return torch.expm1(gaussians.log_power(-1.0, q, p))

    def h(self, u: Tensor) -> Tensor:  # noqa: D102
        return (1 - u).square() / u

    def value(self, v: Tensor) -> Tensor:  # noqa: D102
        return (2 * torch.sinh(v / 2)).square()

    def link(self, v: Tensor) -> Tensor:  # noqa: D102
        return -torch.expm1(-2 * v)

    def conjugate(self, v: Tensor) -> Tensor:  # noqa: D102
        return -2 * torch.expm1(-v)

    def view(self, role: Mover) -> FDivergence | None:  # noqa: D102
        return GAN() if role.sign > 0 else None

    def inverse_link(self, t: Tensor) -> Tensor:  # noqa: D102
        return -torch.log1p((-t).clamp(min=-1)) / 2


class Jeffreys(NamedFDivergence):
    r""":math:`\mathrm{KL}(q\|p) + \mathrm{KL}(p\|q)`; h(u) = (u - 1) log u."""

    symmetric = True

    def between_gaussians(self, q: Gaussian, p: Gaussian) -> Tensor:  # noqa: D102
        return gaussians.kl(q, p) + gaussians.kl(p, q)

    def integrand(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        """Return q log(q/p) + p log(p/q)."""
        return kl_integrand(log_q, log_p) + kl_integrand(log_p, log_q)

    def h(self, u: Tensor) -> Tensor:  # noqa: D102
        return (u - 1) * torch.log(u)

    def value(self, v: Tensor) -> Tensor:  # noqa: D102
        return v * torch.expm1(v)

    def link(self, v: Tensor) -> Tensor:  # noqa: D102
        return v - torch.expm1(-v)

    def conjugate(self, v: Tensor) -> Tensor:  # noqa: D102
        return torch.expm1(v) + v

    def inverse_link(self, t: Tensor) -> Tensor:
        """Solve 1 + s - e^-s = t by Newton in y = -s: e^y + y = 1 - t is convex, so from the right it is monotone."""
        c = 1 - t
        y = torch.where(c < 1, c, torch.log(c.clamp(min=1)))
        for _ in range(12):
            y = y - (y.exp() + y - c) / (y.exp() + 1)
        return -y


class SoftenedReverseKL(NamedFDivergence):
    r""":math:`2\,\mathrm{KL}(m\|q)`; h(u) = (1 + u) log((1 + u)/(2u)).

    Its generator loss at critic logit v is :math:`\mathbb E_p\,\mathrm{sp}(-v)` plus a constant: the non-saturating
    loss -log D of Goodfellow et al. 2014. The name is Shannon et al.'s (2020); the conjugate was derived for this
    project.
    """

    sources: tuple[str, ...] = ("goodfellow2014generative",)
    supremum = -LOG2

    def integrand(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        """Return 2 m log(m/q)."""
        return 2 * kl_integrand(torch.logaddexp(log_q, log_p) - LOG2, log_q)

    def h(self, u: Tensor) -> Tensor:  # noqa: D102
        return (1 + u) * (torch.log1p(u) - torch.log(2 * u))

    def value(self, v: Tensor) -> Tensor:  # noqa: D102
        return -(1 + v.exp()) * log_two_sigmoid(v)

    def link(self, v: Tensor) -> Tensor:  # noqa: D102
        return softplus(-v) - LOG2 - torch.exp(-v)

    def conjugate(self, v: Tensor) -> Tensor:  # noqa: D102
        return LOG2 - 1 - softplus(-v)

    def inverse_link(self, t: Tensor) -> Tensor:
        """Solve a - log(1+a) = c, a = e^-s, c = -t - log 2, by Newton from the right of the root (convex in a)."""
        c = (-t - LOG2).clamp(min=0)
        a = c + torch.sqrt(c) * torch.sqrt(c + 2)
        for _ in range(12):
            # At c = 0 the root is a = 0, where the slope a/(1+a) vanishes: the step is taken to be zero there.
            a = a - torch.where(a > 0, (a - torch.log1p(a) - c) * ((1 + a) / a.clamp(min=1e-300)), 0.0)
            a = a.clamp(min=0)
        return -torch.log(a)
