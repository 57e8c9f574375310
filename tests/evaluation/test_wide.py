"""Gaussians of one covariance as references of wide rows: by scipy's own densities, and on laws that they fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from se_framework.data import TensorData
from se_framework.evaluation import densities, wide

D = 6


def rows_of(n, means, seed):
    """Rows of a mixture whose components share one covariance."""
    draw = np.random.default_rng(seed)
    root = np.random.default_rng(9).standard_normal((D, D)) / D**0.5 + np.eye(D)
    return means[draw.integers(len(means), size=n)] + draw.standard_normal((n, D)) @ root.T


def test_the_density_is_scipys():
    draw = np.random.default_rng(1)
    within = np.cov(draw.standard_normal((50, D)).T)
    law = wide.Tied(np.array([0.2, 0.5, 0.3]), draw.standard_normal((3, D)), within)
    rows, shrink = draw.standard_normal((20, D)) * 3, 0.35
    covariance = within.copy()
    for i in range(D):
        for j in range(D):
            covariance[i, j] *= 1 if i == j else 1 - shrink
        covariance[i, i] += wide.FLOOR * np.trace(within) / D
    found = [
        np.log(w) + multivariate_normal(m, covariance).logpdf(rows) for w, m in zip(law.weights, law.means, strict=True)
    ]
    assert law.nll(rows, shrink) == pytest.approx(-logsumexp(found, axis=0).mean(), rel=1e-12)


def test_components_share_the_covariance_within_them():
    means = np.array([np.full(D, 20.0), np.full(D, -20.0), np.array([20.0, -20.0] * (D // 2))])
    rows = rows_of(300, means, 2)
    law = wide.tied(rows, 3)
    nearest = np.argmin(((rows[:, None] - means) ** 2).sum(2), 1)  # far apart: every share is 0 or 1
    centred = np.concatenate([rows[nearest == k] - rows[nearest == k].mean(0) for k in range(3)])
    assert np.allclose(law.within, centred.T @ centred / 300, atol=1e-9)
    assert sorted(np.round(law.weights * 300, 6)) == sorted(np.bincount(nearest))
    alone = wide.tied(rows, 1)
    assert np.allclose(alone.within, np.cov(rows.T, bias=True)) and np.allclose(alone.means[0], rows.mean(0))


def test_a_mixture_of_modes_is_told_from_a_gaussian(monkeypatch):
    monkeypatch.setattr(densities, "MOST_COLUMNS", D - 1)
    monkeypatch.setattr(wide, "COMPONENTS", (2, 3))
    means = np.array([np.full(D, 8.0), np.full(D, -8.0), np.zeros(D)])
    rows = torch.as_tensor(rows_of(2_000, means, 3))
    found = densities.of_rows(TensorData(rows, standardize=True), 10_000, 0)
    known = densities.of_rows(TensorData(rows), 10_000, 0)
    assert found.keys() == {"gaussian", "mixture"}
    # The same rows in other units, which the ridges of EM and floor are shares of: the same law but for those.
    assert all(found[name] == pytest.approx(known[name], abs=0.05) for name in found)
    assert found["mixture"] < found["gaussian"] - 0.2


def test_rows_that_are_too_wide_or_too_few_have_no_reference(monkeypatch):
    rows = torch.as_tensor(rows_of(100, np.zeros((1, D)), 4))
    monkeypatch.setattr(densities, "MOST_COLUMNS", 2)
    assert densities.of_rows(TensorData(rows[:7]), 100, 0) == {}
    monkeypatch.setattr(densities, "WIDEST", D - 1)
    assert densities.of_rows(TensorData(rows), 100, 0) == {}
