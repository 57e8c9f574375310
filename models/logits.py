r"""Between the unit cube and the real space: :math:`y=\text{logit}(a+(1-2a)x)`, with log-determinants."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor
from torch.nn import functional as F

MARGIN = 1e-6
"""a in y = logit(a + (1-2a) x): how far the interval of ``support="unit"`` reaches beyond [0, 1]."""


def to_logits(x: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return :math:`y=\log(p/q)`, p = a + (1-2a) x, q = 1 - p, and :math:`\log|\det\partial y/\partial x|` per row.

    The logarithm of the determinant is :math:`\sum_i\log((1-2a)/(p_iq_i))`. It is -inf, the density zero, for rows
    outside the support.

    Args:
        x: shape (N, d).
    """
    gain = 1 - 2 * MARGIN
    p, q = MARGIN + gain * x, MARGIN + gain * (1 - x)  # q by its own sum: 1 - p would lose it in float32
    inside = (p > 0) & (q > 0)
    # The safe value keeps NaN out of the gradient of the rows outside.
    log_p, log_q = (torch.where(inside, part, 0.5).log() for part in (p, q))
    ladj = torch.where(inside, log(gain) - log_p - log_q, -torch.inf)
    return log_p - log_q, ladj.sum(1)


def from_logits(y: Tensor) -> tuple[Tensor, Tensor]:
    r"""Invert :func:`to_logits`: from y, (N, d), to x and :math:`\log|\det\partial x/\partial y|`, shape (N,)."""
    ladj = F.logsigmoid(y) + F.logsigmoid(-y) - log(1 - 2 * MARGIN)
    return to_unit(y), ladj.sum(1)


def to_unit(y: Tensor) -> Tensor:
    """Return the first part of :func:`from_logits`."""
    return (torch.sigmoid(y) - MARGIN) / (1 - 2 * MARGIN)
