"""The best of n of N trials: against enumeration of every search, and in closed form."""

from __future__ import annotations

from itertools import combinations, product
from math import comb

import numpy as np
import pytest

from se_framework.comparison.searches import curve, replaced, without

NAN, INF = np.nan, np.inf
# The best by validation is not the best by score; two are tied, two cannot be chosen, one was chosen without a score.
VALIDATION = np.array([0.3, 0.1, 0.2, 0.2, NAN, 0.5, INF, 0.15])
SCORES = np.array([1.0, 9.0, 2.0, 4.0, -7.0, 3.0, -8.0, NAN])


def enumerated(searches):
    """Mean, spread and loss of what searches choose: those of equal validation with equal chance."""
    values, weights, lost, every = [], [], 0.0, 0
    for search in searches:
        every += 1
        losses = [VALIDATION[i] if np.isfinite(VALIDATION[i]) else INF for i in search]
        tied = [i for i, own in zip(search, losses, strict=True) if own == min(losses)]
        for i in tied:
            if min(losses) < INF and np.isfinite(SCORES[i]):
                values.append(SCORES[i])
                weights.append(1 / len(tied))
            else:
                lost += 1 / len(tied)
    if not values:
        return None, None, 1.0
    mean = np.average(values, weights=weights)
    return mean, np.average((np.array(values) - mean) ** 2, weights=weights) ** 0.5, lost / every


def test_without_replacement_every_subset_is_a_search():
    found = curve(VALIDATION, SCORES)
    assert [at.n for at in found] == list(range(1, 9))
    for at in found:
        mean, sd, lost = enumerated(combinations(range(8), at.n))
        # sums of 8 products of doubles against sums of at most 70: some hundred roundings of numbers below 10
        np.testing.assert_allclose([at.mean, at.sd, at.lost], [mean, sd, lost], rtol=1e-12, atol=1e-13)
    assert found[-1].mean == 9.0 and found[-1].sd == 0.0  # chosen by validation, though its score is the worst


def test_with_replacement_every_word_is_a_search():
    for at in curve(VALIDATION, SCORES, most=4):
        mean, _, _ = enumerated(product(range(8), repeat=at.n))
        np.testing.assert_allclose(at.with_replacement, mean, rtol=1e-12)


@pytest.mark.parametrize("many", [1, 2, 5, 40])
def test_of_uniform_trials_the_estimate_is_the_closed_form(many):
    """E of the r-th of N uniform numbers is r/(N+1), that of the least of n is 1/(n+1).

    An unbiased estimate, being linear in the ordered trials, gives the second from the first; with replacement it
    gives more, for n > 1.
    """
    ordered = np.arange(1, many + 1) / (many + 1)
    for at in curve(ordered, ordered):
        np.testing.assert_allclose(at.mean, 1 / (at.n + 1), rtol=1e-12)  # 40 terms of one sign
        if 1 < at.n:
            assert at.with_replacement > at.mean * (1 + 1e-9)
    np.testing.assert_allclose(curve(ordered, ordered)[0].with_replacement, 0.5, rtol=1e-12)


def test_weights_are_probabilities_whatever_the_size():
    for many in (1, 3, 60, 500):
        for n in {1, min(2, many), many // 2 or 1, many}:
            for weights in (without(many, n), replaced(many, n)):
                assert (weights >= 0).all() and (np.diff(weights) <= 1e-15).all()
                np.testing.assert_allclose(weights.sum(), 1, rtol=1e-12)  # 500 products of 500 factors at most
            exact = [comb(many - r, n - 1) / comb(many, n) for r in range(1, many + 1)]
            np.testing.assert_allclose(without(many, n), exact, rtol=4 * many * 2.3e-16, atol=1e-300)


def test_the_order_of_trials_is_nothing():
    draw = np.random.default_rng(0)
    order = draw.permutation(8)
    for one, other in zip(curve(VALIDATION, SCORES), curve(VALIDATION[order], SCORES[order]), strict=True):
        np.testing.assert_allclose([one.mean, one.sd, one.lost], [other.mean, other.sd, other.lost], rtol=1e-12)


def test_trials_that_cannot_be_chosen_have_no_value():
    for validation, scores in (([NAN, INF], [1.0, 2.0]), ([0.1, 0.2], [NAN, NAN])):
        for at in curve(np.array(validation), np.array(scores)):
            assert (at.mean, at.sd, at.with_replacement, at.lost) == (None, None, None, 1.0)
    assert curve(np.array([]), np.array([])) == []
