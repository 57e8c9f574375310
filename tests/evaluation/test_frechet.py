"""Frechet distance against closed forms, and its references on the digits.

Sampling tests compare within 4.9 standard errors (false alarm: once in a million seeds); seeds are fixed.
"""

from __future__ import annotations

import math

import pytest
import torch

from se_framework.data import Digits
from se_framework.errors import NonFiniteError
from se_framework.evaluation import frechet as fr
from se_framework.evaluation.copies import nearest
from se_framework.evaluation.scores import scores

F64 = torch.float64


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_frechet_closed_forms():
    eye = torch.eye(3, dtype=F64)
    zero = torch.zeros(3, dtype=F64)
    shift = torch.tensor([1.0, 2.0, -2.0], dtype=F64)
    assert fr.gaussian_frechet(zero, eye, shift, eye) == pytest.approx(9, abs=1e-12)
    # Covariances that commute: the sum of squared differences of deviations; zeros are allowed.
    a, b = torch.tensor([4.0, 0.0, 1.0], dtype=F64), torch.tensor([1.0, 9.0, 0.0], dtype=F64)
    assert fr.gaussian_frechet(zero, a.diag(), zero, b.diag()) == pytest.approx(1 + 9 + 1, abs=1e-12)
    turn = torch.linalg.qr(torch.randn((3, 3), generator=draw(0), dtype=F64))[0]
    turned = fr.gaussian_frechet(zero, turn @ a.diag() @ turn.T, zero, turn @ b.diag() @ turn.T)
    assert turned == pytest.approx(11, abs=1e-6)
    assert fr.gaussian_frechet(shift, a.diag(), shift, a.diag()) == pytest.approx(0, abs=1e-12)


def test_frechet_of_covariances_that_do_not_commute():
    # In two dimensions tr (S1 S2)^(1/2) = sqrt(tr(S1 S2) + 2 sqrt(det S1 det S2)).
    s1 = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=F64)
    s2 = torch.tensor([[1.0, -0.5], [-0.5, 0.5]], dtype=F64)
    cross = math.sqrt(float((s1 @ s2).trace()) + 2 * math.sqrt(float(s1.det() * s2.det())))
    zero = torch.zeros(2, dtype=F64)
    expected = float(s1.trace() + s2.trace()) - 2 * cross
    assert fr.gaussian_frechet(zero, s1, zero, s2) == pytest.approx(expected, abs=1e-12)
    # Samples are carried to exactly these moments, so their distance is the closed form, without sampling error.
    z = torch.randn((500, 2), generator=draw(0), dtype=F64)
    z = (z - z.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(z.T))).T
    x, y = (z @ torch.linalg.cholesky(s).T for s in (s1, s2))
    assert fr.frechet_distance(x + 3, y) == pytest.approx(expected + 18, abs=1e-10)


def test_frechet_refuses():
    with pytest.raises(ValueError, match="at least 2 points, got 1"):
        fr.frechet_distance(torch.zeros(1, 2), torch.zeros(5, 2))
    with pytest.raises(NonFiniteError, match="no Frechet distance"):
        fr.frechet_distance(torch.full((5, 2), math.nan), torch.zeros(5, 2))


@pytest.fixture(scope="module")
def digits():
    return Digits()


def test_digit_references(digits):
    everything, few = (
        scores(digits, digits.to_user(digits.batch(0, n, 1).x.double()), seed=0, names=("frechet",))["frechet"]
        for n in (1257, 200)
    )
    assert everything["accuracy"] == digits.features.accuracy >= 0.97
    known = everything["references"]
    assert all(few["references"][name] > known[name] for name in known)  # few points' covariance is further away
    assert 0 < known["real_vs_real"] < known["gaussian_mixture"] < known["gaussian"]
    assert everything["value"] == pytest.approx(known["real_vs_real"], abs=1e-9)  # the training digits themselves
    found = scores(digits, digits.to_user(digits.rest), seed=0, names=("frechet",))["frechet"]
    assert found["value"] == pytest.approx(0, abs=1e-6) and found["n"] == 540
    assert digits.features(digits.to_user(digits.rest[:5])).shape == (5, 64)


def test_nearest_training_digits(digits):
    train = digits.to_user(digits.train)
    found = scores(digits, train, seed=0, names=("nearest_train",))["nearest_train"]
    assert found["value"] == 0 and found["references"]["real"] > 10 and found["rows"] == 1257
    assert nearest(train[:9] + 0.1, train)[1].tolist() == list(range(9))


def test_the_error_of_a_frechet_distance_is_the_spread_of_repeats():
    """100 repeats: their deviation is known to 7 %, so 20 % and thrice that."""
    root = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [0.0, 0.0, 1.5]], dtype=F64)
    random, found = draw(0), []
    for _ in range(100):
        x, y = torch.randn((2, 200, 3), generator=random, dtype=F64)
        x = x @ root.T + 0.5
        found.append([fr.frechet_distance(x, y), fr.frechet_error(x, y)])
    values, errors = torch.tensor(found, dtype=F64).T
    assert float(errors.square().mean().sqrt() / values.std()) == pytest.approx(1, abs=0.2 + 3 * 0.07)


def test_the_error_of_a_frechet_distance_of_features_that_never_vary():
    x, y = torch.randn((2, 50, 3), generator=draw(1), dtype=F64)
    plain = fr.frechet_error(x[:, :2], y[:, :2] + 1)
    x[:, 2] = y[:, 2] = 0.0
    assert fr.frechet_error(x, torch.cat([y[:, :2] + 1, y[:, 2:]], 1)) == pytest.approx(plain, rel=1e-9)
