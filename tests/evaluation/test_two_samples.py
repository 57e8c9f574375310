"""The two-sample test by the critic: its p-values are uniform where laws are equal, at any number of points."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy import stats

import se_framework as se
from se_framework.evaluation import two_samples
from se_framework.evaluation.evaluate import evaluate
from se_framework.evaluation.two_samples import p_value, two_sample_test
from tests.support.oracles import FALSE_ALARM

DEFAULT_DTYPE = torch.float64


def test_p_values_are_the_share_of_all_deals():
    """Six points, 20 deals: of 20,000 random ones the share is that of enumeration up to its binomial error."""
    x, y = torch.tensor([0.9, 0.2, 0.7]), torch.tensor([0.1, 0.8, -0.5])
    both = torch.cat([x, y])
    exact = sum(float(both[list(i)].sum()) >= float(x.sum()) - 1e-12 for i in itertools.combinations(range(6), 3)) / 20
    draws = torch.tensor([p_value(x, y, seed) for seed in range(20)])
    error = (exact * (1 - exact) / (20 * two_samples.DEALS)) ** 0.5
    assert abs(draws.mean() - exact) < stats.norm.isf(FALSE_ALARM / 2) * error + 1 / two_samples.DEALS


def test_p_values_are_uniform_where_laws_are_equal(monkeypatch):
    monkeypatch.setattr(two_samples, "DEALS", 99)
    draw = torch.Generator().manual_seed(0)
    found = [p_value(torch.randn(9, generator=draw), torch.randn(14, generator=draw), k) for k in range(400)]
    counts = torch.tensor(found).mul(100).round().histc(10, 0.5, 100.5)
    assert stats.chisquare(counts.numpy()).pvalue > FALSE_ALARM


def test_points_that_are_all_alike_tell_nothing():
    assert p_value(torch.full((5,), 0.1), torch.full((7,), 0.1), 0) == 1.0


@pytest.mark.parametrize(("information", "low", "high"), [(1e-9, 0.02, 1.0), (2.0, 0.0, 0.002)])
def test_a_trained_critic_tells_laws_apart_that_differ(information, low, high):
    words = [f"data.information={information}", "data.dimension=2", "loop.rounds=60", "loop.batch_size=256",
             "metric.network.width=16", "optimizer.lr=3e-3", "device=cpu", "progress=false"]  # fmt: skip
    assembly = se.compose("density_ratio", words)
    assembly.train()
    found = evaluate(assembly, n=1_000, names=("held_out_value",))
    assert low <= found["two_sample"]["value"] <= high and found["two_sample"]["n"] == 2_000
    assert "p-value of equal laws" in found["two_sample"]["bound"]


def test_there_is_none_without_a_second_law():
    learnt = ["device=cpu", "model=mlp_generator", "model.width=4"]
    assert two_sample_test(se.compose("density_ratio", learnt), 50, 0) is None  # its laws are not both given
