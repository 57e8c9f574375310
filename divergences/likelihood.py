r"""Cross-entropy, the divergence of maximum likelihood."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from divergences import gaussians
from divergences.base import Divergence, WeightedPoints


class CrossEntropy(Divergence):
    r""":math:`\mathrm{CE}(q,p) = -\mathbb E_q\log p = \mathrm{KL}(q\|p) + H(q)`, in nats.

    With q the data it is the negative log-likelihood: its minimum over p is H(p_d), not zero, and for densities it may
    be negative. Linear in q; with an entropy term (alpha > 0) the q-step is
    :math:`q\propto p^{\beta/\alpha}e^{f/\alpha}` (Hu and Xing 2022).
    """

    sources: tuple[str, ...] = ()
    primal_needs = "log_prob"
    entropy_weight = 0.0
    up_to_constant = True

    def integrand(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        """Return -q log p."""
        q = log_q.exp()
        return torch.where(q == 0, 0.0, -q * log_p)

    def between_gaussians(self, q: gaussians.Gaussian, p: gaussians.Gaussian) -> Tensor:
        """Return KL + H."""
        return gaussians.kl(q, p) + gaussians.entropy(q)

    def primal(self, q: WeightedPoints, law: Any, p: WeightedPoints | None) -> Tensor:
        """Return the mean negative log-density of q's particles under the law, shape ()."""
        return -q.mean(law.log_prob(q.x))
