r"""The Fisher integral probability metric, with its inner maximum in closed form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from divergences.base import Divergence, WeightedPoints
from divergences.clouds import clouds, common_type, root, standardised


class FisherIPM(Divergence):
    r"""The largest difference of means of an affine function whose second moment is at most one.

    .. math::
        D(q,p) = \max_{w,c}\;\{\mathbb E_q\,w\cdot x - \mathbb E_p\,w\cdot x :\;
                 \tfrac12\mathbb E_q(w\cdot x+c)^2 + \tfrac12\mathbb E_p(w\cdot x+c)^2 \le 1\}
               = \sqrt{\delta^\top M^{-1}\delta},

    :math:`\delta = \mathbb E_q x-\mathbb E_p x`, M the covariance of (q + p)/2 (Mroueh and Sercu, "Fisher GAN", 2017,
    eq. 5 and 6, with a constant among the functions: it changes no difference of means, and with the best one,
    :math:`-w\cdot(\mathbb E_qx+\mathbb E_px)/2`, D does not depend on where the origin is). Between 0 and 2, without
    unit. In an embedding that phi learns (``auxiliary=embedded``) it is the Fisher IPM over the functions that are
    affine in the embedding: their discriminator, whose constraint holds exactly here, by elimination of its last layer,
    in place of their augmented Lagrangian, and theta's slope is that of D itself. Over all functions it is
    :math:`\sqrt{\int(q-p)^2/\tfrac{q+p}2}`, the root of twice the triangular discrimination (their theorem 1). D is
    blind to affine maps of the embedding, so the embedding needs no bound.

    With k coordinates, samples of N points a side put about :math:`2k/N` into :math:`D^2` where q = p: keep k far below
    the batch size. Time O(N k^2).

    Args:
        ridge: rho; M is replaced by :math:`M+\rho\,\tfrac{\mathrm{tr}M}k I` (their gamma, in units of M), which makes
            directions without spread solvable and D smaller, never larger. At 0 M must be regular.

    Raises:
        ValueError: a negative ridge; at use, as in every primal on clouds.
    """

    sources: tuple[str, ...] = ("mroueh2017fisher",)
    primal_needs = "samples"
    symmetric = True
    bounded_in_scale = True
    convex_in_q = False  # a root; its square is convex
    unit = "1"

    def __init__(self, ridge: float = 1e-3) -> None:
        super().__init__()
        if not 0 <= ridge < float("inf"):
            raise ValueError(f"FisherIPM takes a finite ridge >= 0, got {ridge}")
        self.ridge = ridge

    def extra_repr(self) -> str:
        """Show the ridge."""
        return f"ridge={self.ridge:g}"

    def rescaled(self, scale: float) -> Divergence:
        """Return itself: no argument is a length."""
        return self

    def primal(self, q: WeightedPoints, law: Any, p: WeightedPoints | None) -> Tensor:
        """Return D(q, p), shape (), from both particle clouds; where the means agree its slope is taken as zero."""
        x, y, a, b = clouds("FisherIPM", q, p)
        x, y, _ = standardised(x, y)
        m_x, m_y = a @ x, b @ y
        delta, middle = m_x - m_y, (m_x + m_y) / 2
        x, y = x - middle, y - middle
        moment = ((a[:, None] * x).mT @ x + (b[:, None] * y).mT @ y) / 2
        k = x.shape[1]
        eye = torch.eye(k, dtype=x.dtype, device=x.device)
        size = moment.trace() / k
        size = torch.where(size == 0, 1.0, size)  # all points in one place: D is zero whatever M is taken for
        # The variant without an error check, which would wait for a GPU; a singular moment gives no finite number.
        square = delta @ torch.linalg.solve_ex(moment + self.ridge * size * eye, delta)[0]
        value = root(square)
        return value.to(common_type(q, p))
