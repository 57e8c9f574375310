r"""Are samples copies of training rows?

* ``memorised``: the share S of samples whose nearest row, of N training and M held-out ones in model space, is a
  training row. Rows of both kinds are of one law, so for samples that depend on neither the mean of S is N / (N + M),
  whatever their law; copies have 1. The error is that of a draw of the split: with :math:`w_j` the share of samples
  whose nearest row is j,

  .. math:: \mathrm{se}^2=\frac{NM}{(N+M)(N+M-1)}\sum_j\Bigl(w_j-\frac1{N+M}\Bigr)^2

  (the variance of a sum over N rows without replacement), exact where nothing was learnt by heart.
* ``nearest_train``: the mean distance to the nearest training row, in user units; that of held-out rows is its
  reference ``real``. Below it samples are copies, not better.
"""

from __future__ import annotations

import torch
from torch import Tensor

from se_framework.randomness import generator

BLOCK = 2**24
"""Distances that are in memory at once."""


def nearest(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance to the nearest row and its index, both (n,), from points (n, k) and rows (m, k)."""
    centre = rows.mean(0)  # the expanded square, which is quick, keeps its digits around the origin
    parts = (points - centre).split(max(1, BLOCK // len(rows)))
    index = torch.cat([torch.cdist(part, rows - centre).argmin(1) for part in parts])
    return (points - rows[index]).norm(dim=1), index


def share_of_training(points: Tensor, train: Tensor, held_out: Tensor) -> tuple[float, float]:
    """Return the share of samples that are nearer to a training row than to all held-out ones, and its error.

    Args:
        points: samples, shape (n, k).
        train: shape (N, k).
        held_out: shape (M, k).
    """
    n, count, total = len(points), len(train), len(train) + len(held_out)
    # Of rows at one distance, as columns of few values have them, the first is taken: their order is by chance.
    order = torch.randperm(total, generator=generator(0, 0, "scores/memorised"))
    index = order[nearest(points, torch.cat([train, held_out])[order])[1]]
    weight = torch.bincount(index, minlength=total).double() / n
    spread = (weight - 1 / total).square().sum() * count * (total - count) / (total * (total - 1))
    return float(weight[:count].sum()), float(spread.sqrt())
