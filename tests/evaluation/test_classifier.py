"""The classifier two-sample test: Bayes accuracy, the error by repeats, the p-value under the null."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import binom, kstest

from se_framework.evaluation.classifier import neighbours, told_apart

F64 = torch.float64


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_accuracy_approaches_that_of_bayes():
    """N(0, I) and N(m, I): Phi(|m| / 2), which no classifier exceeds in the mean.

    k neighbours of n points err by no more than the Bayes error times 1 + sqrt(2 / k) (Devroye, Gyorfi and Lugosi, "A
    probabilistic theory of pattern recognition", theorem 5.8 for large n); 4 standard errors besides.
    """
    random, n = draw(0), 2_000
    x, x_new, y, y_new = torch.randn((4, n, 2), generator=random, dtype=F64)
    for shift in (1.0, 2.0):
        bayes = 0.5 * (1 + math.erf(shift / 2 / 2**0.5))
        accuracy, se, p_value = told_apart(x, y + torch.tensor([shift, 0.0]), x_new, y_new + torch.tensor([shift, 0.0]))
        assert se == pytest.approx(math.sqrt(accuracy * (1 - accuracy) / (2 * n)), rel=0.05)
        assert bayes - (1 - bayes) * math.sqrt(2 / neighbours(2 * n)) - 4 * se < accuracy < bayes + 4 * se
        assert p_value < 1e-20


def test_the_p_value_is_that_of_coins():
    x = torch.tensor([[0.0], [0.1], [0.2], [0.3]], dtype=F64)
    accuracy, se, p_value = told_apart(x, x + 9, x, torch.tensor([[9.0], [9.1], [0.0], [0.1]], dtype=F64))
    assert accuracy == 0.75 and p_value == pytest.approx(sum(binom.pmf(k, 8, 0.5) for k in (6, 7, 8)), abs=1e-15)
    assert se == pytest.approx(math.sqrt((0 + 0.25) / (4 * 4)), abs=1e-15)


@pytest.fixture(scope="module")
def under_the_null():
    random = draw(1)
    return torch.tensor(
        [told_apart(*torch.randn((4, 60, 2), generator=random, dtype=F64)) for _ in range(400)], dtype=F64
    )


def test_under_the_null_the_p_value_is_uniform(under_the_null):
    """As far as coins allow: 120 of them have probabilities of 0.073 at most, half of which a uniform is off by.

    The statistic of Kolmogorov and Smirnov of 400 exceeds 1.95 / sqrt(400) once in a thousand. A p-value that is too
    small more often than it says would be wrong: the share below 0.05 is 0.05 at most, by 3.1 standard errors.
    """
    p = under_the_null[:, 2]
    assert kstest(p.numpy(), "uniform").statistic < 1.95 / 20 + 0.073 / 2 + 0.073 / 2
    assert float((p <= 0.05).double().mean()) < 0.05 + 3.1 * math.sqrt(0.05 * 0.95 / 400)
    assert abs(float(under_the_null[:, 0].mean()) - 0.5) < 3.3 * float(under_the_null[:, 0].std()) / 20


def test_the_error_is_the_spread_of_repeats(under_the_null):
    """400 repeats know a deviation to 3.5 %: 20 % and 3.3 of these."""
    found = under_the_null
    assert float(found[:, 1].square().mean().sqrt() / found[:, 0].std()) == pytest.approx(1, abs=0.2 + 3.3 * 0.035)


def test_voters_are_odd():
    assert [neighbours(n) for n in (1, 4, 100, 1000)] == [1, 3, 11, 31]
