r"""Cross-entropy, the divergence of maximum likelihood."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from divergences.base import Divergence, WeightedPoints


class CrossEntropy(Divergence):
    r""":math:`\mathrm{CE}(q,p) = -\mathbb E_q\log p = \mathrm{KL}(q\|p) + H(q)`, in nats.

    With q the data it is the negative log-likelihood: its minimum over p is H(p_d), not zero, and for densities it may
    be negative. Linear in q; with an entropy term (alpha > 0) the q-step is
    :math:`q\propto p^{\beta/\alpha}e^{f/\alpha}` (Hu and Xing 2022).
    """

    primal_needs = "log_prob"
    entropy_weight = 0.0
    up_to_constant = True

    def primal(self, q: WeightedPoints, law: Any, p: WeightedPoints | None) -> Tensor:
        """Return the mean negative log-density of q's particles under the law, shape ()."""
        return -q.mean(law.log_prob(q.x))
