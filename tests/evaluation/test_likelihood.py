"""Divergences of known densities: closed forms of Gaussians, errors by repeats, labels, entropies."""

from __future__ import annotations

import math

import pytest
import torch

from se_framework.data import Data, GaussianMixture, TensorData
from se_framework.evaluation.likelihood import mean
from se_framework.evaluation.scores import lacks, scores

F64 = torch.float64
Z = 4.9
BOTH = ("nll", "kl", "reverse_kl")


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(loc: float, scale: float):
    law = torch.distributions.Normal(torch.tensor(loc, dtype=F64), torch.tensor(scale, dtype=F64))
    return lambda x: law.log_prob(x.double()).sum(1)


def kl_of_normals(a: float, s: float, b: float, t: float, d: int) -> float:
    """KL(N(a, s^2) || N(b, t^2)) of d equal coordinates."""
    return d * (math.log(t / s) + (s * s + (a - b) ** 2) / (2 * t * t) - 0.5)


def test_both_divergences_of_gaussians():
    law = GaussianMixture([[0.0, 0.0]], 1.0)
    x = 0.5 + 1.5 * torch.randn((8_000, 2), generator=draw(0), dtype=F64)
    found = scores(law, x, seed=0, model_log_prob=normal(0.5, 1.5), names=BOTH)
    for name, want in (("kl", kl_of_normals(0, 1, 0.5, 1.5, 2)), ("reverse_kl", kl_of_normals(0.5, 1.5, 0, 1, 2))):
        entry = found[name]
        assert abs(entry["value"] - want) < Z * entry["se"] and 0 < entry["se"] < 0.05 and entry["unit"] == "nats"
        assert entry["references"]["perfect"] == 0 and abs(entry["references"]["mixture"]) < 0.05
    assert found["kl"]["n"] == 10_000 and found["reverse_kl"]["n"] == 8_000
    assert found["nll"]["value"] - law.entropy == pytest.approx(found["kl"]["value"], abs=Z * found["nll"]["se"])
    true = scores(law, x, seed=0, model_log_prob=law.log_prob, names=("kl",))["kl"]
    assert (true["value"], true["se"]) == (0, 0)  # terms of one point are subtracted before they are averaged


def test_the_error_of_a_mean_is_the_spread_of_repeats():
    """1,000 repeats know a deviation to 2.3 %."""
    found = [mean(terms) for terms in torch.randn((1_000, 20), generator=draw(1), dtype=F64).exp()]
    values, errors = (torch.tensor([f[i] for f in found], dtype=F64) for i in (0, 1))
    assert float(errors.square().mean().sqrt() / values.std()) == pytest.approx(1, abs=0.2)
    assert math.isnan(mean(torch.zeros(1)).se)


def test_given_labels_the_entropy_is_that_given_labels():
    law = GaussianMixture([[0.0, 0.0], [1.0, 0.0]], [0.5, 2.0], [0.25, 0.75], labels=True)

    def given(x, y):
        return torch.distributions.Normal(law.means[y], law.sigmas[y, None]).log_prob(x.double()).sum(1)

    found = scores(law, law.held_out(50, 1).x, seed=3, model_log_prob=given, names=BOTH)
    assert abs(found["kl"]["value"]) < Z * found["kl"]["se"] and found["kl"]["references"] == {"perfect": 0.0}
    assert "reverse_kl" not in found and "labels" in lacks(law, True, "reverse_kl")


def test_an_entropy_alone_is_enough_for_one_of_them():
    class Uniform(TensorData):
        entropy = 0.0  # of the unit square

    data = Uniform(torch.rand((4_000, 2), generator=draw(2)))
    found = scores(data, torch.rand((50, 2)), seed=0, model_log_prob=lambda x: -torch.ones(len(x)), names=BOTH)
    assert found["kl"]["value"] == 1.0 and "reverse_kl" not in found
    assert "the density of tensor" in lacks(data, True, "reverse_kl")
    table = TensorData(torch.rand(40, 2))
    assert "is not known" in lacks(table, True, "kl") and lacks(table, False, "kl") == "the model has no density"


def test_a_density_that_vanishes_is_infinitely_far():
    law = GaussianMixture([[0.0, 0.0]], 1.0)
    found = scores(law, law.held_out(20, 1).x, seed=0, names=BOTH,
                   model_log_prob=lambda x: torch.where(x[:, 0] > 0, 0.0, -math.inf))  # fmt: skip
    assert found["kl"]["value"] == found["nll"]["value"] == math.inf


def test_units_of_the_file_are_those_of_a_divergence():
    """Rows of N(1000, 25 I), standardised, and a density in model space: KL is of the file's units, as the law's."""
    rows = 1000 + 5 * torch.randn((3_000, 2), generator=draw(3), dtype=F64)

    class Known(TensorData):
        has_log_prob = True

        def log_prob(self, x):
            return normal(1000.0, 5.0)(x)

    data = Known(rows, standardize=True)
    found = scores(data, rows[:50], seed=0, model_log_prob=normal(0.0, 1.0), names=("kl",))["kl"]
    assert abs(found["value"]) < 0.02 and isinstance(data, Data)  # moments of 2,700 rows: some 4 / 5,400
