"""``D.estimate`` and ``D.bound``: values, standard errors and biases as declared.

Randomised tests draw a fixed number of repetitions and compare means and variances by their own standard errors.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal

import divergences as d
from divergences.exact import Points
from tests.support.cases import DIVERGENCES, DUAL_DIVERGENCES, INSTALLED, NAMED_F_DIVERGENCES
from tests.support.oracles import EPS, z_score

DEFAULT_DTYPE = torch.float64
SAMPLED = [name for name, make in INSTALLED.items() if make().primal_needs == "samples"]


def samples(n=40, m=30, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, generator=g), 1 + torch.randn(m, 1, generator=g)


# -- from samples -----------------------------------------------------------------------------------------------------


def test_the_jackknife_of_kernels_is_twice_the_witness():
    x, y = samples()
    found = d.EnergyDistance().estimate(x, y)
    a, b = x.numpy(), y.numpy()
    xx, xy, yy = np.abs(a - a.T), np.abs(a - b.T), np.abs(b - b.T)
    assert float(found.value) == pytest.approx(2 * xy.mean() - xx.mean() - yy.mean(), abs=64 * EPS)
    influences = 2 * (xy.mean(1) - xx.mean(1)), 2 * (xy.mean(0) - yy.mean(0))
    want = math.sqrt(sum(phi.var() / len(phi) for phi in influences))
    assert float(found.standard_error) == pytest.approx(want, rel=1e-10) and found.bias == "+O(1/n)"


@pytest.mark.parametrize("name", ["energy", "energy_unbiased", "mmd", "mmd_laplacian"])
def test_value_and_standard_error_over_repeated_samples(name):
    """Unbiased ones centre on D; the mean squared standard error is the variance, to 1/n and the noise of 400 draws."""
    D, repetitions, n = DIVERGENCES[name](), 400, 100
    found = [D.estimate(*samples(n, n, seed)) for seed in range(repetitions)]
    values = np.array([float(e.value) for e in found])
    error = values.std() / math.sqrt(repetitions)
    if name == "mmd_laplacian":  # no closed form of its kernel: the value is that of a fine rule
        nodes = torch.arange(-8, 9, 0.02)
        law = [Normal(torch.tensor(m), torch.tensor(1.0)).log_prob(nodes) for m in (0.0, 1.0)]
        weights = [d.exact.Points(nodes[:, None], w - torch.logsumexp(w, 0)) for w in law]
        exact, rule = float(D.exact(*weights)), 1e-4
    else:
        exact, rule = float(D.exact(*(Normal(torch.tensor(m), torch.tensor(1.0)) for m in (0.0, 1.0)))), 0.0
    # The V-statistic's: (E k(X, X) - E k(X, X')) / n from either sample, X - X' normal with variance two.
    spread = {
        "energy": 2 / math.sqrt(math.pi),
        "mmd": 1 - np.mean([(1 + 2 / b**2) ** -0.5 for b in d.MMD().bandwidths]),
    }
    bias = 0.0 if D.sample_bias == "0" else 2 * spread[name] / n
    assert abs(values.mean() - exact - bias) <= z_score(2) * error + rule
    squared = np.array([float(e.standard_error) ** 2 for e in found])
    # The sample variance of near-normal values has relative deviation sqrt(2/400) = 0.07; second-order terms give 1/n.
    assert squared.mean() == pytest.approx(values.var(), rel=z_score(2) * math.sqrt(2 / repetitions) + 4 / n)


def test_the_standard_error_of_sinkhorn_covers():
    D, repetitions = d.Sinkhorn(blur=0.5), 60
    found = [D.estimate(*samples(60, 60, seed)) for seed in range(repetitions)]
    values = np.array([float(e.value) for e in found])
    squared = np.mean([float(e.standard_error) ** 2 for e in found])
    assert squared == pytest.approx(values.var(), rel=z_score() * math.sqrt(2 / repetitions) + 0.1)


def test_weights_are_normalised_and_count():
    x, y = samples()
    w = torch.rand(40) + 0.1
    plain, weighted = d.EnergyDistance().estimate(x, y), d.EnergyDistance().estimate(x, y, weights_x=5 * w)
    again = d.EnergyDistance().estimate(x, y, weights_x=w)
    assert float(weighted.value) == pytest.approx(float(again.value), abs=64 * EPS) != float(plain.value)
    same = d.EnergyDistance().estimate(x, y, torch.full((40,), 3.0), torch.full((30,), 2.0))
    assert float(same.standard_error) == pytest.approx(float(plain.standard_error), rel=1e-12)


@pytest.mark.parametrize("name", SAMPLED)
def test_every_primal_from_samples_has_an_estimate(name):
    D = DIVERGENCES[name]()
    x, y = samples(12, 10)
    found = D.estimate(x.requires_grad_(), y)
    points = d.exact.Points(x.detach()), d.exact.Points(y)
    assert float(found.value) == pytest.approx(float(D.primal(points[0], None, points[1]).detach()), rel=1e-10)
    assert 0 < float(found.standard_error) < math.inf and not found.value.requires_grad
    assert found.bias == (D.sample_bias or "unknown")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kl", "KL cannot be estimated from samples alone: .*no density ratio: use `bound`"),
        ("wasserstein1", "Wasserstein1 cannot be .*use `bound` with a critic's outputs, or `exact`"),
        ("cross_entropy", "it needs the model's log_prob: use `primal` with the law"),
        ("surrogate", "Surrogate cannot be .*there is no D of two samples"),
    ],
)
def test_what_cannot_be_estimated_says_what_can(name, message):
    with pytest.raises(NotImplementedError, match=message):
        DIVERGENCES[name]().estimate(*samples())


def test_bad_weights_are_refused():
    x, y = samples()
    for weights in (torch.ones(3), torch.zeros(40), torch.full((40,), math.nan)):
        with pytest.raises(ValueError, match=r"one positive weight per point, shape \(40,\), for x"):
            d.EnergyDistance().estimate(x, y, weights)


# -- from critic outputs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [0.5, 1.0])
def test_a_bound_that_is_no_mean_is_biased(order):
    """Renyi's conjugate is log E_p e^(a v): by the delta method its error is that of the mean over the mean."""
    D, (v, w) = d.Renyi(order), (0.5 - s[:, 0] for s in samples())
    found, e = D.bound(v, w), np.exp(order * w.numpy())
    assert float(found.value) == pytest.approx(D.link(v).numpy().mean() - math.log(e.mean()), rel=1e-12)
    error = math.sqrt(D.link(v).numpy().var() / 40 + (e / e.mean()).var() / 30)
    assert float(found.standard_error) == pytest.approx(error, rel=1e-9) and found.bias == "+O(1/n)"


@pytest.mark.parametrize("name", [n for n, make in DUAL_DIVERGENCES.items() if make().additive_dual])
def test_bound_is_the_difference_of_means(name):
    D = DUAL_DIVERGENCES[name]()
    v, w = (0.5 - s[:, 0] for s in samples())
    found = D.bound(v, w)
    a, b = D.link(v).numpy(), D.conjugate(w).numpy()
    assert float(found.value) == pytest.approx(a.mean() - b.mean(), rel=1e-12)
    assert float(found.standard_error) == pytest.approx(math.sqrt(a.var() / 40 + b.var() / 30), rel=1e-10)
    assert found.bias == "0" and found.value.dtype == D.bound(v.float(), w.float()).value.dtype == torch.float64


def test_donsker_varadhan():
    v, w = (0.5 - s[:, 0] for s in samples())
    found = d.KL().bound(v, w, normalised=True)
    e = np.exp(w.numpy())
    assert float(found.value) == pytest.approx(v.numpy().mean() - math.log(e.mean()), rel=1e-12)
    error = math.sqrt(v.numpy().var() / 40 + (e / e.mean()).var() / 30)  # by the delta method
    assert float(found.standard_error) == pytest.approx(error, rel=1e-9) and found.bias == "+O(1/n)"


@pytest.mark.parametrize("name", [n for n in NAMED_F_DIVERGENCES if n not in ("neyman", "alpha_-1", "alpha_3")])
def test_the_bound_at_the_log_ratio_covers_the_value(name):
    """N(0, 1) against N(1, 1), v = 1/2 - x: both bounds have D inside their standard errors, and below it elsewhere."""
    D = NAMED_F_DIVERGENCES[name]()
    exact = float(D.exact(Normal(torch.tensor(0.0), torch.tensor(1.0)), Normal(torch.tensor(1.0), torch.tensor(1.0))))
    x, y = samples(20000, 20000, 3)
    for normalised in (False, True):
        found = D.bound(0.5 - x[:, 0], 0.5 - y[:, 0], normalised)
        assert abs(float(found.value) - exact) <= z_score(2) * float(found.standard_error)
        worse = D.bound(0.5 * (0.5 - x[:, 0]), 0.5 * (0.5 - y[:, 0]), normalised)
        assert float(worse.value) < exact - 2 * float(worse.standard_error)


@pytest.mark.parametrize(
    ("attempt", "error", "message"),
    [
        (lambda v: d.CrossEntropy().bound(v, v), NotImplementedError, "CrossEntropy has no dual bound: use `estimate`"),
        (lambda v: d.Surrogate("hinge").bound(v, v), NotImplementedError, "Surrogate has no dual bound: it is a surr"),
        (lambda v: d.KL().bound(v[:, None], v), ValueError, r"shape \(N,\), got v_data of shape \(4, 1\)"),
        (lambda v: d.KL().bound(v, v[:0]), ValueError, r"got v_model of shape \(0,\)"),
        (
            lambda v: NoNormalised().bound(v, v, True),
            NotImplementedError,
            "no dual over probability q",
        ),
    ],
)
def test_what_has_no_bound(attempt, error, message):
    with pytest.raises(error, match=message):
        attempt(torch.zeros(4))


class NoNormalised(d.TotalVariation):
    has_normalised_dual = False


@pytest.mark.parametrize("name", [name for name in SAMPLED if not getattr(INSTALLED[name](), "unbiased", False)])
@pytest.mark.parametrize("weighted", ["q", "p"])
def test_masses_beside_a_cloud_without_any_are_those_of_copies(name, weighted):
    """Masses 1/2, 1/4 and 1/4 are those of four points of which two are the same; the other cloud has equal ones."""
    D, g = INSTALLED[name](), torch.Generator().manual_seed(2)
    x, y = torch.randn(3, 1, generator=g), 1 + torch.randn(4, 1, generator=g)
    clouds = [Points(x, torch.tensor([0.5, 0.25, 0.25]).log()), Points(x[[0, 0, 1, 2]], None), Points(x, None)]
    pairs = [(one, Points(y, None)) if weighted == "q" else (Points(y, None), one) for one in clouds]
    by_mass, by_copies, equal = (float(D.primal(q, None, p)) for q, p in pairs)
    assert by_mass == pytest.approx(by_copies, rel=1e-10) and abs(equal - by_copies) > 1e-3 * abs(by_copies)


def test_a_caller_without_gradients_is_given_the_same():
    """The error is a derivative, which is taken whatever the caller records."""
    x, y = samples()
    for ask in (
        lambda: d.EnergyDistance().estimate(x, y),
        lambda: d.KL().bound(x[:, 0], y[:, 0]),
        lambda: d.KL().bound(x[:, 0], y[:, 0], normalised=True),
    ):
        with torch.no_grad():
            found = ask()
        assert found == ask() and not found.value.requires_grad and not found.standard_error.requires_grad
