"""Intervals and tests over seeds, for arrays of any number of repetitions: what compare uses is what is simulated.

Seeds are the repeats, few of them. **Student's t**: a percentile bootstrap of nominal 95 % covers 75, 80 and 89 % at 3,
5 and 10 seeds, for it resamples a spread that is itself too small.

**Which is best?** The best is chosen by the data that then test it. Of k equal objectives the best and the worst
differ by the *range* of k means, whose law is that of the largest of all k (k - 1) / 2 differences (Tukey 1953; Hsu
1996, *Multiple Comparisons*, ch. 4). Tests of the best against k - 1 others, corrected for k - 1, call equals different
too often: 10 % of the time for eight of them, at a level of 5 %. So every pair is tested, two-sided, and Holm's
step-down (1979, *Scand. J. Statist.* 6:65) is taken over all pairs that can be tested: whichever is then looked at, the
chosen best's included, the chance that any two equals are called different is at most the level, however the tests
depend on each other; of two objectives it is the level itself. Hsu's comparisons with the best have fewer to correct
for but answer one-sided (two equals would be told apart at twice the level), and Tukey's range takes one spread for
all, which objectives that sometimes diverge do not have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import binom, stdtr, stdtrit

Array = NDArray[np.float64]
SHARED = 0.5
"""Part of the larger row's seeds that two rows must share to be compared seed by seed."""


@dataclass(frozen=True)
class Mean:
    """Means over seeds.

    Attributes:
        mean: shape (...); nan without a value.
        low: of the interval; nan with less than two values.
        high: of the interval.
        sd: standard deviation over seeds; nan likewise.
        n: values.
    """

    mean: Array
    low: Array
    high: Array
    sd: Array
    n: NDArray[np.int64]


def student(values: Array, level: float = 0.95) -> Mean:
    """Return means with Student's intervals, mean -+ t_{n-1} sd / sqrt(n), over the last axis.

    Args:
        values: shape (..., S); what is not finite is left out.
        level: the probability that an interval covers the mean of Gaussian values.
    """
    kept = np.isfinite(values)
    n = kept.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(kept, values, 0.0).sum(-1) / np.where(n > 0, n, np.nan)
        squares = (np.where(kept, values - mean[..., None], 0.0) ** 2).sum(-1)
        sd = np.sqrt(squares / np.where(n > 1, n - 1, np.nan))
        half = quantile(n - 1, level) * sd / np.sqrt(n)
    return Mean(mean, mean - half, mean + half, sd, n)


def quantile(df: NDArray, level: float) -> Array:
    """Return t with P(|T| <= t) = level, of Student's law; nan without a degree of freedom."""
    return np.where(df > 0, stdtrit(np.where(df > 0, df, 1.0), (1 + level) / 2), np.nan)


@dataclass(frozen=True)
class Pairs:
    """Differences between all rows, entry (i, j) of row j less row i.

    Attributes:
        difference: of means, shape (..., K, K): over shared seeds where :attr:`paired`.
        low: of its own interval, not corrected for the number of pairs.
        high: of its own interval.
        p: two-sided, not corrected; nan where there is no test.
        paired: whether it is of seeds that both have.
    """

    difference: Array
    low: Array
    high: Array
    p: Array
    paired: NDArray[np.bool_]


def pairs(values: Array, level: float = 0.95) -> Pairs:
    """Return the differences between rows and their tests.

    Rows that share seeds (two at least, and half of those of the larger) are compared seed by seed, by the paired t:
    they share data and draws, so their values are not independent. Others by Welch's t (1947, *Biometrika* 34:28), with
    Satterthwaite's degrees of freedom. Differences without any spread, as counts have, are no sample of a Gaussian:
    those count as n equal signs, p = 2^(1 - n) (or one of the binom(n + m, n) orders of unpaired values, from both
    ends), and p = 1 if they are zero.

    Args:
        values: shape (..., K, S): of K rows at S seeds; not finite where a row has none.
        level: of the intervals.
    """
    own = student(values, level)
    found = [_against(values, own, i, level) for i in range(values.shape[-2])]
    return Pairs(*(np.stack(parts, -2) for parts in zip(*found, strict=True)))


def _against(values: Array, own: Mean, i: int, level: float) -> tuple[NDArray, ...]:
    """Return the differences of all rows from row i."""
    at = (..., slice(i, i + 1))
    first = Mean(own.mean[at], own.low[at], own.high[at], own.sd[at], own.n[at])
    with np.errstate(invalid="ignore", divide="ignore"):
        seedwise = values - values[..., i : i + 1, :]  # inf - inf: no value
        shared = student(seedwise, level)
        paired = (shared.n >= 2) & (shared.n >= SHARED * np.maximum(own.n, first.n))
        here, there = first.sd**2 / first.n, own.sd**2 / own.n
        df = (here + there) ** 2 / (here**2 / (first.n - 1) + there**2 / (own.n - 1))
        difference = np.where(paired, shared.mean, own.mean - first.mean)
        error = np.where(paired, shared.sd / np.sqrt(shared.n), np.sqrt(here + there))
        df = np.where(paired, shared.n - 1, df)
        largest = np.nanmax(np.where(np.isfinite(values), np.abs(values), 0.0), -1)
        rounding = 8 * np.finfo(np.float64).eps * np.maximum(largest, largest[..., i : i + 1])
        constant = error <= rounding
        p = 2 * stdtr(np.where(np.isfinite(df), df, 1.0), -np.abs(difference) / error)
        orders = np.where(paired, 2.0 ** (1 - shared.n), np.minimum(2 / binom(own.n + first.n, own.n), 1.0))
        p = np.where(constant, np.where(np.abs(difference) <= rounding, 1.0, orders), p)
        half = np.where(constant, 0.0, quantile(np.where(np.isfinite(df), df, 0.0), level) * error)
    p = np.where(np.isfinite(error), p, np.nan)
    return difference, difference - half, difference + half, p, paired


def holm(p: Array) -> Array:
    """Return p-values corrected by Holm's step-down over the last axis; nan are no tests and stay.

    The i-th smallest of m becomes max over j <= i of min(1, (m + 1 - j) p_(j)).
    """
    order = np.argsort(p, -1)  # nan last
    ranked = np.take_along_axis(p, order, -1)
    tests = np.isfinite(ranked).sum(-1)[..., None]
    steps = np.clip((tests - np.arange(p.shape[-1])) * ranked, None, 1.0)
    found = np.empty_like(steps)
    np.put_along_axis(found, order, np.maximum.accumulate(steps, -1), -1)
    return found


def corrected(p: Array) -> Array:
    """Return the p-values (..., K, K) of all pairs corrected by Holm's step-down, each pair being one test."""
    k = p.shape[-1]
    rows, columns = np.triu_indices(k, 1)
    found = np.full(p.shape, np.nan)
    found[..., rows, columns] = found[..., columns, rows] = holm(p[..., rows, columns])
    return found


def ranks(losses: Array) -> Array:
    """Return ranks from 1, least first, over the last axis: equals share the mean of theirs, nan those at the end."""
    filled = np.where(np.isnan(losses), np.inf, losses)
    less = (filled[..., None, :] < filled[..., :, None]).sum(-1)
    same = (filled[..., None, :] == filled[..., :, None]).sum(-1)
    return less + (same + 1) / 2


def interquartile_mean(values: Array) -> float:
    """Return the mean of the middle half, values at its ends with the share of them that lies within.

    That is n / 4 of n values off either end (Agarwal et al. 2021, *Deep RL at the edge of the statistical precipice*).
    """
    ordered = np.sort(values)
    n = len(ordered)
    weights = np.clip(np.minimum(np.arange(1, n + 1), 0.75 * n) - np.maximum(np.arange(n), 0.25 * n), 0.0, 1.0)
    return float(weights @ ordered / weights.sum())
