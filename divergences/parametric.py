r"""f-divergences with a parameter: the weighted Jensen-Shannon divergence and the alpha (Cressie-Read) family.

Both have :math:`h(1) = h'(1) = 0`, so that closed forms of h(e^v) cancel to second order near v = 0; there it is taken
as :math:`h(e^v) = \int_0^v e^s \ell(s)\,ds`, whose integrand keeps one sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from divergences import gaussians
from divergences.base import Mover
from divergences.bounded import GAN
from divergences.f_divergence import FDivergence
from divergences.named import NamedFDivergence, kl_integrand, softplus

RULE = [((1 + float(x)) / 2, float(w) / 2) for x, w in zip(*leggauss(8), strict=True)]
"""Gauss-Legendre nodes and weights on [0, 1]: error 2e-23 |c|^16 on e^(c s)."""
LARGEST_ORDER = 30.0
"""|order| of :class:`Alpha` up to which e^(order v) is a float32 for |v| <= 2.9."""


def integrate(link: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
    r"""Return :math:`\int_0^v e^s\ell(s)\,ds`, to rounding where the link is smooth on the scale of v."""
    return v * torch.stack([w * (s * v).exp() * link(s * v) for s, w in RULE]).sum(0)


def log_mixture(rest: float, weight: float, v: Tensor) -> Tensor:
    r"""Return :math:`\log(1 - w + w e^v)`, 1 - w given, without cancellation near v = 0 and without overflow."""
    near = torch.log1p(weight * torch.expm1(v.clamp(-1, 1)))
    log_rest = math.log(rest) if rest < weight else math.log1p(-weight)  # each of 1 - w, w may hold the other's digits
    far = log_rest + softplus(v + math.log(weight / rest))
    return torch.where(v.abs() < 1, near, far)


class WeightedJensenShannon(NamedFDivergence):
    r""":math:`\pi\,\mathrm{KL}(q\|m) + (1-\pi)\,\mathrm{KL}(p\|m)`, :math:`m = \pi q + (1-\pi)p`.

    :math:`h(u) = \pi u\log u - (1-\pi+\pi u)\log(1-\pi+\pi u)`; :math:`\pi = 1/2` is Jensen-Shannon, and divided by
    :math:`\pi` or :math:`1-\pi` it tends to KL(q||p) or KL(p||q) as that weight vanishes.

    Args:
        weight: :math:`\pi`, the weight of q, in (0, 1).

    Raises:
        ValueError: the weight is not inside (0, 1).
    """

    sources: tuple[str, ...] = ("lin1991divergence", "nowozin2016fgan")

    def __init__(self, weight: float) -> None:
        if not 0 < weight < 1:
            raise ValueError(f"weighted Jensen-Shannon takes a weight of q in (0, 1), got {weight:g}")
        self.weight = float(weight)
        self.supremum = -self.weight * math.log(self.weight)
        self.symmetric = self.weight == 0.5
        self.link_slope = self.weight
        super().__init__()

    def extra_repr(self) -> str:
        """Show the weight."""
        return f"weight={self.weight:g}"

    def h(self, u: Tensor) -> Tensor:  # noqa: D102
        m = 1 - self.weight + self.weight * u
        return self.weight * torch.xlogy(u, u) - torch.xlogy(m, m)

    def value(self, v: Tensor) -> Tensor:  # noqa: D102
        near = integrate(self.link, v.clamp(-1, 1))
        return torch.where(v.abs() < 1, near, v.exp() * self.link(v) - self.conjugate(v))

    def link(self, v: Tensor) -> Tensor:  # noqa: D102
        return -self.weight * log_mixture(self.weight, 1 - self.weight, -v)

    def conjugate(self, v: Tensor) -> Tensor:  # noqa: D102
        return (1 - self.weight) * log_mixture(1 - self.weight, self.weight, v)

    def inverse_link(self, t: Tensor) -> Tensor:  # noqa: D102
        x = t / self.weight
        return x - torch.log1p((self.weight / (self.weight - 1) * torch.expm1(x)).clamp(min=-1))


def phi(c: float, v: Tensor) -> Tensor:
    r"""Return :math:`\int_0^v e^{cs}ds = (e^{cv} - 1)/c`, v at c = 0."""
    return torch.expm1(c * v) / c if c else v


class Alpha(NamedFDivergence):
    r""":math:`\left(\int q^a p^{1-a} - 1\right)/(a(a-1))` (Cressie and Read 1984; Amari's alpha is 2a - 1).

    :math:`h(u) = (u^a - 1 - a(u-1))/(a(a-1))`. With :math:`\varphi(c, v) = (e^{cv}-1)/c` the link is
    :math:`\varphi(a-1, v)` and the conjugate :math:`\varphi(a, v)`, smooth in a through the limits KL(q||p) at a = 1
    and KL(p||q) at a = 0. Other orders: 2 is half of Pearson, -1 half of Neyman, 1/2 twice the squared Hellinger. The
    order 1 - a exchanges q and p. Infinite for a > 1 where q's tails are too heavy for p's, for a < 0 where p's are for
    q's.

    Args:
        order: a, at most 30 in size: beyond, :math:`e^{av}` is no float32 for log-ratios of three.

    Raises:
        ValueError: the order is out of range.
    """

    sources: tuple[str, ...] = ("cressie1984multinomial",)

    def __init__(self, order: float) -> None:
        if not abs(order) <= LARGEST_ORDER:
            raise ValueError(f"alpha takes an order of size up to {LARGEST_ORDER:g}, got {order:g}")
        self.order = float(order)
        self.supremum = 1 / (1 - self.order) if self.order < 1 else math.inf
        self.symmetric = self.order == 0.5
        self.link_slope = 1.0 if self.order == 1 else None
        super().__init__()

    def extra_repr(self) -> str:
        """Show the order."""
        return f"order={self.order:g}"

    def between_gaussians(self, q: gaussians.Gaussian, p: gaussians.Gaussian) -> Tensor:  # noqa: D102
        return gaussians.alpha(self.order, q, p)

    def integrand(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        r"""Return :math:`(q^ap^{1-a}-aq-(1-a)p)/(a(a-1))`, at any ratio.

        As :math:`p\,h_a(e^v)`, and :math:`q\,h_{1-a}(e^{-v})` for v > 0, whose forms do not cancel however near a is to
        0 or 1; where a power of the ratio would overflow, directly.
        """
        a, q, p = self.order, log_q.exp(), log_p.exp()
        if a in (0, 1):
            return kl_integrand(log_q, log_p) - q + p if a else kl_integrand(log_p, log_q) - p + q
        # 0 to a negative power is inf, but 0 beside no mass of the other.
        outside = (q == 0) & (p == 0) & ((log_q == -torch.inf) | (log_p == -torch.inf))
        v = torch.where(outside, 0.0, log_q) - torch.where(outside, 0.0, log_p)
        direct = v.isinf() | (a * v > 500) & (v < 0) | ((a - 1) * v > 500) & (v > 0)
        w = torch.where(direct, 0.0, v)
        stable = torch.where(w > 0, q * self._h(1 - a, -w.clamp(min=0)), p * self._h(a, w.clamp(max=0)))
        logs = torch.where(outside | ~direct, -torch.inf, a * log_q + (1 - a) * log_p)
        return torch.where(direct, (logs.exp() - a * q - (1 - a) * p) / (a * (a - 1)), stable)

    def view(self, role: Mover) -> FDivergence | None:
        """Return the GAN's dual from orders 1 (KL) and -1 (half of Neyman) on, to who ascends, as those do."""
        return GAN() if role.sign > 0 and abs(self.order) >= 1 else None

    def h(self, u: Tensor) -> Tensor:  # noqa: D102
        v = torch.log(u)
        at_zero = 1 / self.order if self.order > 0 else math.inf
        return torch.where(u > 0, u * phi(self.order - 1, v) - phi(self.order, v), at_zero)

    def value(self, v: Tensor) -> Tensor:
        r"""Return :math:`h(e^v) = v^2 \exp[0, v, av]`, a divided difference of the exponential.

        For v > 0 as :math:`e^v h_{1-a}(e^{-v})`, in which only the leading exponential can overflow.
        """
        down, up = self._h(self.order, v.clamp(max=0)), self._h(1 - self.order, -v.clamp(min=0))
        return torch.where(v > 0, v.clamp(min=0).exp() * up, down)

    @classmethod
    def _h(cls, a: float, v: Tensor) -> Tensor:
        """Return h(e^v) at order a for v <= 0."""
        reach = 1 / max(1.0, abs(a), abs(1 - a))
        near = integrate(lambda s: phi(a - 1, s), v.clamp(min=-reach))
        return torch.where(v > -reach, near, cls._fall(a, v))

    @staticmethod
    def _fall(a: float, v: Tensor) -> Tensor:
        """Return h(e^v) for v <= 0, where it is first-order differences over the widest pair of 0, v and av."""
        if a > 1:
            return (v.exp() * phi(a - 1, v) - phi(1.0, v)) / a
        if a < 0:
            return (phi(a, v) - phi(1.0, v)) / (a - 1)
        return (a * v).exp() * phi(1 - a, v) - phi(a, v)

    def link(self, v: Tensor) -> Tensor:  # noqa: D102
        return phi(self.order - 1, v)

    def conjugate(self, v: Tensor) -> Tensor:  # noqa: D102
        return phi(self.order, v)

    def inverse_link(self, t: Tensor) -> Tensor:  # noqa: D102
        b = self.order - 1
        return torch.log1p((b * t).clamp(min=-1)) / b if b else t
