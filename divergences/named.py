r"""Named f-divergences: the class they have in common, and forms that neither cancel nor overflow.

:math:`m = (q+p)/2`, sp is softplus, :math:`\sigma` the logistic function. Generators follow Nowozin, Cseke, Tomioka
2016 (f-GAN), Tables 1 and 2; where the integrals printed there disagree with the generators (Pearson, JS), the
generator holds.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import logsigmoid

from divergences.base import WeightedPoints
from divergences.f_divergence import FDivergence
from divergences.roots import multiplier

LOG2 = math.log(2.0)


def softplus(x: Tensor) -> Tensor:
    r"""Return :math:`\log(1 + e^x)`, exact at both ends: in float64 it is x from 40 on (torch switches at 20)."""
    return functional.softplus(x, threshold=40.0)


def log_two_sigmoid(v: Tensor) -> Tensor:
    r"""Return :math:`\log(2\sigma(v)) = \log 2 - \mathrm{sp}(-v)`, without cancellation near v = 0."""
    near = torch.log1p(torch.tanh(v.clamp(-1, 1) / 2))
    return torch.where(v.abs() < 1, near, LOG2 + logsigmoid(v))


def kl_integrand(log_q: Tensor, log_p: Tensor) -> Tensor:
    """Return q log(q/p) at log-densities, elementwise: 0 where q = 0, inf where p = 0 alone."""
    q = log_q.exp()
    return torch.where(q == 0, 0.0, q * (log_q.clamp(min=-1e300) - log_p))


class NamedFDivergence(FDivergence):
    """An f-divergence whose generator is the method ``h`` of the class."""

    def __init__(self) -> None:
        super().__init__(self.h, self.value_at_identity, self.supremum)

    def slope(self, s: Tensor) -> Tensor:  # noqa: D102
        return self.link(s)

    @torch.no_grad()
    def normaliser(self, t: Tensor, p: WeightedPoints) -> Tensor:
        """Search with the inverse link in closed form."""
        return multiplier(lambda x: p.mean(self.inverse_link(t - x).exp()).log(), self.link, t, p)
