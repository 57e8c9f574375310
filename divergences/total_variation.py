r"""Total variation: the f-divergence whose generator :math:`h(u) = |u-1|/2` has a kink, hence no canonical critic."""

from __future__ import annotations

import torch
from torch import Tensor

from divergences import gaussians
from divergences.base import Divergence, InnerSolution, WeightedPoints


class TotalVariation(Divergence):
    r""":math:`\mathrm{TV}(q,p) = \tfrac12\int|q-p| = \max_{|g|\le 1/2}\mathbb E_q g - \mathbb E_p g`.

    h' is -1/2 below u = 1 and 1/2 above: a link h'(e^v) would have no gradient. The critic's output enters by the
    bounded link :math:`f = \beta\tanh(v)/2` (f-GAN's), which covers the domain :math:`[-1/2, 1/2]` where
    :math:`h^*(t) = t`: so :math:`D^*_p(t) = \mathbb E_p t`, attained at q* = p with D = 0.

    The optimal f is :math:`\mathrm{sign}(p_d - p)/2`: v has that sign, |v| grows without limit, and no log-ratio can be
    read from it.

    Over probability q the dual is :math:`\mathbb E_p\max(t, \sup t - 1)`, the supremum over p's particles and the data.
    The link never spans more than one, so this is :math:`\mathbb E_p t` too, and the multiplier 0 attains it.
    """

    sources: tuple[str, ...] = ("nowozin2016fgan",)
    has_dual = True
    critic_reads = "sign"
    link_slope = 0.5
    symmetric = True

    between_gaussians = staticmethod(gaussians.total_variation)

    def integrand(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        """Return |q - p|/2."""
        return (log_q.exp() - log_p.exp()).abs() / 2

    def link(self, v: Tensor) -> Tensor:
        """Return tanh(v)/2."""
        return torch.tanh(v) / 2

    def conjugate(self, v: Tensor) -> Tensor:
        """Return the link itself: h*(t) = t on [-1/2, 1/2]."""
        return self.link(v)

    def value(self, v: Tensor) -> Tensor:
        """Return 0: q* = p."""
        return torch.zeros_like(v)

    def log_tilt(self, v: Tensor) -> Tensor:
        """Return 0: q* = p."""
        return torch.zeros_like(v)

    def inner_normalised(self, v: Tensor, p: WeightedPoints, v_data: Tensor | None = None) -> InnerSolution:
        """Return the unnormalised solution: q* = p has mass one already, and no mass gains by moving to the data."""
        return self.inner(v, p)
