r"""A divergence between pairs: which of two points is the example, and which the particle?"""

from __future__ import annotations

import torch
from torch import Tensor

from divergences.base import Divergence, Mover
from divergences.named import LOG2, log_two_sigmoid


class PairedJensenShannon(Divergence):
    r"""The Jensen-Shannon divergence of a pair and the pair turned round.

    .. math::
        D(q,p) = \mathrm{JSD}(q\otimes p \,\|\, p\otimes q)
               = \max_v\;\mathbb E_{x\sim q,\,y\sim p}\log 2\sigma\bigl(v(x)-v(y)\bigr),
        \qquad v = \log\frac qp + \text{const}

    (the pairing loss of Jolicoeur-Martineau, "The relativistic discriminator", ICLR 2019, and of Huang et al., "The GAN
    is dead; long live the GAN!", NeurIPS 2024, plus log 2). Turning the pair round exchanges the two laws and the sign
    of v(x) - v(y), so one half of a JSD equals the other and is all of it. In nats, between 0 and log 2.

    *It is a D of the equation.* For a fixed v the mean is linear in q, so D is convex in q, and at
    :math:`f=\beta\,\mathbb E_{y\sim p}\log2\sigma(v(\cdot)-v(y))` the minimum over probability q is zero, attained at
    :math:`q\propto p\,e^v`: there v is the best critic of D(q, p), elsewhere f is a bound of D from below. The scalar
    is then E_pd f alone. Its f looks at p, so ``auxiliary=paired`` writes the same scalar as minimum + E_pd v. At the
    best v the slope in p at fixed v is that of D (the envelope theorem).

    Args:
        swapped: who moves the samples has a loss of its own, :math:`-\mathbb E\log2\sigma(v(y)-v(x))`, which does not
            fade where the critic is sure (Huang et al. 2024): the other players keep theirs. That is no saddle of one
            scalar, and at the best critic no slope of an f-divergence between pairs.
    """

    sources: tuple[str, ...] = ("jolicoeurmartineau2019relativistic", "huang2024gan")
    has_paired_dual = True
    critic_reads = "log_ratio"
    has_normalised_dual = False
    additive_dual = False

    def __init__(self, swapped: bool = False) -> None:
        super().__init__()
        self.swapped = self.surrogate = swapped  # type: ignore[misc]  # of the instance
        self.symmetric = not swapped

    def extra_repr(self) -> str:
        """Show whether the samples have a loss of their own."""
        return "swapped, a surrogate" if self.swapped else ""

    def paired(self, gap: Tensor, role: Mover | None = None) -> Tensor:
        """Return log 2 sigmoid(gap); swapped, to who moves the samples, minus that of -gap."""
        if self.swapped and role is not None and role.moves_samples:
            return -log_two_sigmoid(-gap)
        return log_two_sigmoid(gap)

    def between_letters(self, points: Tensor, log_q: Tensor, log_p: Tensor) -> Tensor:
        """Return D of two laws on K letters from their log-masses, shape (K,), by all K^2 pairs."""
        here = log_q[:, None] + log_p
        mass, turned = here.exp(), here.mT
        ratio = here.clamp(min=-1e300) + LOG2 - torch.logaddexp(here, turned).clamp(min=-1e300)
        return torch.where(mass == 0, 0.0, mass * ratio).sum()
