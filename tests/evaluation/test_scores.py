"""Scores as they are told: likelihood in user units, functions of the seed, refusals.

Sampling tests compare within 4.9 standard errors (false alarm: once in a million seeds); seeds are fixed.
"""

from __future__ import annotations

import math

import pytest
import torch

from se_framework.data import GaussianMixture, GaussianMixture1d, Moons, Ring8, TensorData
from se_framework.errors import DataError, NonFiniteError
from se_framework.evaluation.scores import scores

Z = 4.9
F64 = torch.float64


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_nll_of_the_truth_is_the_entropy():
    law = GaussianMixture1d()
    nll = scores(law, law.held_out(50, 1).x, seed=3, model_log_prob=law.log_prob, names=("nll",))["nll"]
    assert nll["n"] == 10_000 and nll["seed"] == 3 and nll["better"] == "lower"
    assert abs(nll["value"] - law.entropy) < Z * nll["se"]
    assert nll["references"]["entropy"] == law.entropy
    law_of_mixture = nll["references"]["mixture"]
    assert (
        law.entropy < law_of_mixture < law.entropy + 0.03
    )  # about (3 K - 1) / (2 x 2,000) nats for K = 4, thrice over


def test_the_nll_given_labels_stands_beside_the_entropy_given_labels():
    """H(x | y) = sum_k w_k log(2 pi e sigma_k^2) in the plane, by the law's own density of each component."""
    law = GaussianMixture([[0.0, 0.0], [1.0, 0.0]], [0.5, 2.0], [0.25, 0.75], labels=True)

    def given(x, y):
        normal = torch.distributions.Normal(law.means[y], law.sigmas[y, None])
        return normal.log_prob(x.double()).sum(1)

    nll = scores(law, law.held_out(50, 1).x, seed=3, model_log_prob=given, names=("nll",))["nll"]
    want = 0.25 * math.log(2 * math.pi * math.e * 0.25) + 0.75 * math.log(2 * math.pi * math.e * 4)
    assert nll["references"] == {"entropy": pytest.approx(want, abs=1e-12)}
    assert abs(nll["value"] - want) < Z * nll["se"]
    plain = GaussianMixture([[0.0, 0.0], [1.0, 0.0]], [0.5, 2.0], [0.25, 0.75])
    assert plain.entropy > want + 0.05  # of x alone, which the labels tell more about


def test_nll_in_user_units():
    rows = 1000 + 5 * torch.randn((500, 2), generator=draw(0), dtype=F64)
    data = TensorData(rows, standardize=True)
    standard = torch.distributions.Normal(0.0, 1.0)
    nll = scores(data, rows[:50], seed=0, model_log_prob=lambda z: standard.log_prob(z).sum(1), names=("nll",))["nll"]
    direct = torch.distributions.Normal(data.loc, data.scale).log_prob(data.to_user(data.rest)).sum(1)
    assert nll["value"] == pytest.approx(-float(direct.mean()), abs=1e-5)
    assert nll["se"] == pytest.approx(float(direct.std()) / 50**0.5, rel=1e-4)


def test_scores_are_a_function_of_the_seed():
    law = Moons()
    x = law.held_out(300, 9).x
    state = torch.random.get_rng_state()
    one = scores(law, x, seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert one == scores(law, x, seed=1) != scores(law, x, seed=2)
    for entry in one.values():
        assert {"value", "n", "seed", "better"} <= set(entry) and entry["better"] in ("lower", "higher", "nearer")


def test_scores_refuse():
    law = Ring8()
    with pytest.raises(DataError, match=r"samples of ring8 need shape \(n, 2\) with n >= 2, got \(5, 3\)"):
        scores(law, torch.zeros(5, 3), seed=0)
    with pytest.raises(NonFiniteError, match="1 of 5 samples hold NaN"):
        scores(law, torch.tensor([[0.0, 1.0]] * 4 + [[0.0, math.nan]]), seed=0)
    with pytest.raises(ValueError, match=r"one number per point: \(10000,\), got \(10000, 2\)"):
        scores(law, law.held_out(5).x, seed=0, model_log_prob=lambda x: x, names=("nll",))
