r"""Scores through a kernel on pairs: squared MMD and energy distance, unbiased, with errors that hold at q = p too.

With equal numbers of points, :math:`D=\overline{k(x,x')}+\overline{k(y,y')}-2\overline{k(x,y)}`, means over pairs of
different points (U-statistics: Gretton et al., "A kernel two-sample test", JMLR 2012, lemma 6; the energy distance is
:math:`k=-|x-y|`, Szekely and Rizzo 2004). The value is negative at times, as its mean at q = p is zero. Its variance
has two orders (Hoeffding 1948): with :math:`w` the witness,

.. math:: \tfrac4n\mathrm{var}\,w(x)+\tfrac4n\mathrm{var}\,w(y)
    +\tfrac2{n(n-1)}\bigl(\mathbb E\tilde k(x,x')^2+\mathbb E\tilde k(y,y')^2\bigr)
    +\tfrac4{n^2}\mathbb E\tilde k(x,y)^2

where :math:`\tilde k` is k less its means given either point. The first vanishes where q = p; there the second is the
whole. The witness is itself a mean over the sample, whose noise counts the second order twice: it is taken off once.
The error is never less than the second order, so at q = p it is on the safe side: 1.0 of the spread of repeats in the
median, 1.2 in the root mean square.
"""

from __future__ import annotations

import torch
from torch import Tensor

from se_framework.evaluation.pair import Figure, Pair, distance

LADDER = (2.0, 1.0, 0.5, 0.25, 0.125)
"""Bandwidths, in medians of the distance between two real points; each is half of the one before."""
KERNEL = "mean of exp(-d^2/2b^2), b = (1/8, 1/4, 1/2, 1, 2) x {:.3g}"
"""The number is the median distance between training rows."""


def mmd(pair: Pair) -> Figure:
    r"""Return the unbiased squared MMD with the mean of Gaussian kernels :math:`e^{-d^2/2b^2}` of five bandwidths."""
    xx, yy, yx = pair.distances
    value, se = statistic(*(gaussian(d, pair.bandwidth) for d in (xx, yy, yx)))
    return Figure(value, se, pair.pairs, {"kernel": KERNEL.format(pair.bandwidth)})


def energy(pair: Pair) -> Figure:
    r"""Return :math:`2E|X-Y|-E|X-X'|-E|Y-Y'|`, unbiased, in user units."""
    x, y = pair.few()
    value, se = statistic(-distance(x, x), -distance(y, y), -distance(y, x))
    return Figure(value, se, pair.pairs)


def gaussian(distances: Tensor, bandwidth: float) -> Tensor:
    """Return the mean over the ladder of Gaussian kernels, elementwise."""
    k = (-0.5 * (distances / (LADDER[0] * bandwidth)).square()).exp_()
    total = k.clone()
    for _ in LADDER[1:]:
        k = k.square().square_()  # half the bandwidth: the fourth power
        total += k
    return total / len(LADDER)


def statistic(xx: Tensor, yy: Tensor, yx: Tensor) -> tuple[float, float]:
    """Return the U-statistic and its standard error from kernel matrices, all of shape (n, n).

    Args:
        xx: among the samples; the diagonal does not count.
        yy: among real points.
        yx: from real points to samples.
    """
    n = len(xx)
    within_x, within_y = (without_diagonal(k).sum(1) / (n - 1) for k in (xx, yy))
    across_x, across_y = yx.mean(0), yx.mean(1)
    value = within_x.mean() + within_y.mean() - 2 * yx.mean()
    witness = 4 * ((within_x - across_x).var() + (within_y - across_y).var()) / n
    second = (
        sum(
            2 * without_diagonal(k - m[:, None] - m + m.mean()).square().sum() / (n * (n - 1)) ** 2
            for k, m in ((xx, within_x), (yy, within_y))
        )
        + 4 * (yx - across_x - across_y[:, None] + yx.mean()).square().mean() / n**2
    )
    return float(value), float(torch.maximum(witness - second, second).sqrt())


def without_diagonal(k: Tensor) -> Tensor:
    """Return a matrix with zeros on its diagonal."""
    return k - torch.diag(k.diagonal())


def median_distance(rows: Tensor) -> float:
    """Return the median distance between two different rows, (n, k); 1 where more than half of them coincide."""
    found = torch.pdist(rows)
    return (float(found.median()) or 1.0) if len(found) else 1.0
