r"""Scores where the modes of the law are known: which are met, how often, and how closely.

* ``modes``, ``high_quality``: a sample is of high quality within three standard deviations of its nearest centre; a
  mode is captured if it is the nearest centre of a sample of high quality (Metz et al., "Unrolled GANs", 2017).
* ``mode_kl``: :math:`\sum_k\hat w_k\log(\hat w_k/w_k)` of the shares of samples by their nearest centre against the
  modes' own, in nats: the reverse Kullback-Leibler divergence of mode counts. A perfect sample of n has
  :math:`\sum_k\mathbb E\frac{c}{n}\log\frac{c}{nw_k}`, c binomial, about (K - 1)/2n. Its variance has two orders,
  :math:`\frac1n(\sum_kw'_k\log^2(w'_k/w_k)-\mathrm{KL}^2)` (delta method) and :math:`\frac{K-1}{2n^2}` (chi-square with
  K - 1 degrees of freedom over 2n), the whole where shares are true. The first, of empirical shares, counts the second
  twice, which is taken off once.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from se_framework.data.base import Data
from se_framework.evaluation.transport import EXACT

QUALITY_SIGMAS = 3.0
# Beyond this many standard deviations between centres, other components add less than 1e-10 to a ball of three.
_SEPARATED_SIGMAS = 10.0


def modes(samples: Tensor, centres: Tensor, sigma: float) -> tuple[int, float]:
    r"""Count captured modes and the share of samples of high quality.

    Args:
        samples: shape (n, \*E).
        centres: shape (K, \*E).
        sigma: standard deviation common to the components.

    Returns:
        The number of captured modes, and the share in [0, 1].
    """
    nearest = torch.cdist(samples.double().flatten(1), centres.double().flatten(1), compute_mode=EXACT).min(1)
    good = nearest.values <= QUALITY_SIGMAS * sigma
    return len(nearest.indices[good].unique()), float(good.double().mean())


def perfect_quality(data: Data) -> float | None:
    """Return the share of high quality of the law itself, where its centres are far apart; else None."""
    assert data.modes is not None and data.mode_sigma is not None
    flat = data.modes.double().flatten(1)
    if len(flat) > 1 and float(torch.pdist(flat).min()) < _SEPARATED_SIGMAS * data.mode_sigma:
        return None
    # The chi-square law with d degrees of freedom at 3^2; 0.98889 in the plane.
    half = torch.tensor([flat.shape[1] / 2, QUALITY_SIGMAS**2 / 2], dtype=torch.float64)
    return float(torch.special.gammainc(half[0], half[1]))


def counts(samples: Tensor, centres: Tensor) -> Tensor:
    """Return how many samples are nearest to each centre, shape (K,)."""
    distances = torch.cdist(samples.double().flatten(1), centres.double().flatten(1), compute_mode=EXACT)
    return torch.bincount(distances.argmin(1), minlength=len(centres))


def mode_kl(found: Tensor, weights: Tensor) -> tuple[float, float]:
    """Return the divergence of counts, (K,), from the modes' shares, (K,), and its standard error."""
    share, n = found.double() / found.sum(), float(found.sum())
    log_ratio = torch.where(share > 0, share.log() - weights.double().log(), 0.0)  # inf where a share should be none
    value = (share * log_ratio).sum()
    first = (share * log_ratio.square()).sum() - value.square()
    second = (int((weights > 0).sum()) - 1) / (2 * n)
    return float(value), float(((first - second).clamp(min=second) / n).sqrt())


def perfect_mode_kl(n: int, weights: Tensor) -> float:
    """Return the mean of the divergence over samples of n of the law itself, exactly."""
    from scipy.stats import binom

    count = np.arange(1, n + 1)
    terms = [(binom.pmf(count, n, w) * count / n * np.log(count / (n * w))).sum() for w in weights.tolist() if w > 0]
    return float(sum(terms))
