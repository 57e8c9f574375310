"""Densities of digits that stand beside a likelihood."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch

from se_framework.data import DequantizedDigits
from se_framework.evaluation import densities
from se_framework.evaluation.scores import scores

F64 = torch.float64


@pytest.fixture
def few_densities(monkeypatch):
    for name, value in {"MARGINS": (3e-3,), "COMPONENTS": (5,), "LOGIT_RIDGES": (0.3,), "DRAWS": 1}.items():
        monkeypatch.setattr(densities, name, value)
    monkeypatch.setattr(densities, "_found", OrderedDict())
    return densities.references(DequantizedDigits())


def test_reference_densities_of_digits(few_densities):
    found = few_densities
    assert set(found) == {"gaussian", "gaussian_logit", "mixture", "mixture_logit"}
    assert found["mixture"] < found["gaussian"] < 0 and found["mixture_logit"] < found["gaussian_logit"] < -75
    # The Gaussian of logits by hand: moments, Cholesky, change of variables.
    data = DequantizedDigits()
    train, rest = data.batch(0, 1257, 0).x.double(), data.rest

    def logit(x):
        return torch.logit(3e-3 + (1 - 6e-3) * x)

    y = logit(train)
    covariance = torch.cov(y.T, correction=0) + 0.3 * torch.eye(64, dtype=F64)
    normal = torch.distributions.MultivariateNormal(y.mean(0), covariance)
    x = rest.clone().requires_grad_()
    slope = torch.autograd.grad(logit(x).sum(), x)[0]
    log_p = normal.log_prob(logit(rest)) + slope.log().sum(1)
    assert found["gaussian_logit"] == pytest.approx(-float(log_p.mean()), abs=1e-6)


def test_likelihood_of_digits_stands_beside_its_references(few_densities):
    data = DequantizedDigits()
    entry = scores(data, data.held_out(50).x, seed=0, model_log_prob=lambda x: torch.zeros(len(x)))["nll"]
    # The uniform law on the cube has density one.
    assert entry["value"] == 0 and entry["n"] == 540 and entry["references"] == few_densities
