"""The bias of a minimum over particles, by enumeration of every sample of two letters, and its jackknife."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from divergences import KL, CrossEntropy, JensenShannon
from models import Particles, TabularModel
from se_framework import Dual, Tilted
from se_framework.equation.auxiliary import InnerProblem
from se_framework.equation.roles import Role

DEFAULT_DTYPE = torch.float64
SHARE = 0.4  # of the second letter
SCORES = torch.tensor([0.7, -0.6])
THETA = Role("theta", {}, torch.nn.Identity(), -1, moves_samples=True)
CASES = {
    "tilted kl": (lambda jackknife: Tilted(jackknife), KL(), 0.6),
    "tilted cross-entropy": (lambda jackknife: Tilted(jackknife), CrossEntropy(), 0.6),
    "dual kl": (lambda jackknife: Dual(True, jackknife), KL(), 0.0),
    "dual jensen_shannon": (lambda jackknife: Dual(True, jackknife), JensenShannon(), 0.0),
}
case = pytest.mark.parametrize("name", CASES)


def problem_of(letters, divergence, alpha, log_weights=None):
    """The inner problem at particles of the two letters, with p's log-probabilities."""
    p = Particles(letters[:, None].double(), log_weights, torch.tensor([1 - SHARE, SHARE]).log()[letters])
    scores = SCORES[letters]
    return InnerProblem(scores, scores[:1], p, p, TabularModel(letters=2), divergence, alpha, 0.8)


def expected(auxiliary, divergence, alpha, n, role):
    """E of the minimum over samples of n letters: a function of how often the second is at even and at odd places."""
    half, total = n // 2, 0.0
    weights = stats.binom.pmf(range(half + 1), half, SHARE)
    for even, a in enumerate(weights):
        for odd, b in enumerate(weights[: even + 1]):  # the halves may be exchanged
            letters = torch.zeros(n, dtype=torch.int64)
            letters[0 : 2 * even : 2] = 1
            letters[1 : 2 * odd : 2] = 1
            total += (1 + (odd < even)) * a * b * float(auxiliary.minimum(problem_of(letters, divergence, alpha), role))
    return total


def exact(auxiliary, divergence, alpha):
    weights = torch.tensor([1 - SHARE, SHARE]).log()
    return float(auxiliary.minimum(problem_of(torch.arange(2), divergence, alpha, weights), THETA))


@case
def test_the_jackknife_takes_the_term_in_one_over_n(name):
    """Twice the particles: half the bias, and with the jackknife a quarter, up to terms that are one order less."""
    make, divergence, alpha = CASES[name]
    bias = {}
    for jackknife, rate in ((False, 2), (True, 4)):
        want = exact(make(jackknife), divergence, alpha)
        few, many = (expected(make(jackknife), divergence, alpha, n, THETA) - want for n in (16, 32))
        assert few / many == pytest.approx(rate, rel=0.25), (few, many)
        bias[jackknife] = abs(few)
    assert bias[True] < 0.2 * bias[False]


@case
def test_the_record_is_that_of_the_particles_own_q(name):
    make, divergence, alpha = CASES[name]
    letters = torch.tensor([0, 1, 1, 0, 0, 1, 0])
    problem, one, other = problem_of(letters, divergence, alpha), make(True), make(False)
    assert float(one.minimum(problem)) == float(other.minimum(problem)) == float(one.solve(problem).minimum)
    assert float(one.minimum(problem, THETA)) != float(other.minimum(problem, THETA))
    alone = problem_of(letters[:1], divergence, alpha)
    assert float(one.minimum(alone, THETA)) == float(other.minimum(alone, THETA))  # nothing to leave out


def test_weighted_particles_have_no_such_bias():
    for make, divergence, alpha in CASES.values():
        assert exact(make(True), divergence, alpha) == exact(make(False), divergence, alpha)


def test_a_mean_has_no_bias_to_take():
    with pytest.raises(ValueError, match="is a mean and has no bias: leave jackknife out"):
        Dual(jackknife=True)
