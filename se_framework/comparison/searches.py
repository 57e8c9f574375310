r"""What the best of n trials comes to: chosen by validation, judged on held-out rows.

Of N trials of an objective n are drawn without replacement, the one with the least validation loss is chosen, and its
held-out score is reported. With trials in the order of their validation losses, the r-th is chosen with probability

.. math:: w_r = \binom{N - r}{n - 1} \Big/ \binom{N}{n},

and the expected score is their weighted mean: an unbiased estimate of what a new search of n independent trials comes
to, being the mean of one such search over all subsets (a U-statistic; Tang, Lee, Xin, Liu, Yu, Lin 2020, *Showing your
work doesn't always work*, ACL, eq. 4). Dodge, Gururangan, Card, Schwartz, Smith 2019, *Show your work*, EMNLP, eq. 7,
draw with replacement, :math:`w_r = ((N-r+1)/N)^n - ((N-r)/N)^n`: trials may repeat, so the choice is among fewer than
n, and it says too little of a search, the more so the nearer n is to N.

Both take the trials as independent draws of one law: those of random search are, those of an adaptive sampler are not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from se_framework.comparison.statistics import Array


@dataclass(frozen=True)
class Expected:
    """The best of n trials.

    Attributes:
        n: trials of a search.
        mean: of the held-out score of the one that is chosen, over searches that choose one with a score.
        sd: of that score over searches: the luck of a search, and no error of the mean.
        with_replacement: the mean by Dodge et al., which is biased towards fewer trials.
        lost: the probability that no trial of a search can be chosen, or that the chosen one has no score.
    """

    n: int
    mean: float | None
    sd: float | None
    with_replacement: float | None
    lost: float


def curve(validation: Array, scores: Array, most: int | None = None) -> list[Expected]:
    """Return the best of 1, 2, ..., ``most`` trials.

    Args:
        validation: loss of each trial over validation rows, shape (N,); not finite where it has none: such a trial is
            drawn like any other, and chosen only where all of a search are such.
        scores: over held-out rows, shape (N,); not finite where there is none.
        most: n at most; None for N.
    """
    losses = np.where(np.isfinite(validation), validation, np.inf)
    scores = np.where(np.isfinite(losses), scores, np.nan)  # what cannot be chosen has no say
    many = len(losses)
    last = many if most is None else min(most, many)
    return [
        _expected(n, tied(without(many, n), losses), tied(replaced(many, n), losses), scores)
        for n in range(1, last + 1)
    ]


def without(many: int, n: int) -> Array:
    """Return the probability that the r-th best of so many trials is the best of n drawn without replacement."""
    r = np.arange(1, many)
    return np.cumprod(np.concatenate([[n / many], np.maximum(many - r - n + 1, 0) / (many - r)]))  # of neighbours


def replaced(many: int, n: int) -> Array:
    """Return the same for n drawn with replacement."""
    left = np.arange(many, -1, -1) / many
    return left[:-1] ** n - left[1:] ** n


def tied(weights: Array, losses: Array) -> Array:
    """Return weights of ranks as weights of trials; those of equal loss share theirs, as if ties were drawn for."""
    _, group, sizes = np.unique(losses, return_inverse=True, return_counts=True)
    shared = np.add.reduceat(weights, np.cumsum(sizes) - sizes) / sizes
    return shared[group]


def _expected(n: int, weights: Array, repeated: Array, scores: Array) -> Expected:
    mean, kept = _mean(weights, scores)
    biased, _ = _mean(repeated, scores)
    if mean is None:
        return Expected(n, None, None, None, 1.0)
    known = np.isfinite(scores)
    square = float(weights[known] @ (scores[known] - mean) ** 2) / kept
    return Expected(n, mean, square**0.5, biased, max(0.0, 1.0 - kept))


def _mean(weights: Array, scores: Array) -> tuple[float | None, float]:
    """Return the mean of the scores that are there, and the weight that they have."""
    known = np.isfinite(scores)
    kept = float(weights[known].sum())
    return (float(weights[known] @ scores[known]) / kept if kept > 0 else None), kept
