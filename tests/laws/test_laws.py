"""Particles and weighted laws: finite alphabets and quadrature rules."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.laws import Particles, Weighted
from models.tabular import TabularCritic

F64 = torch.float64


# --- finite alphabets and particles ------------------------------------------------------------------------------


def test_tabular_critic_looks_up_scores():
    critic = TabularCritic(letters=4).double()
    with torch.no_grad():
        critic.scores.copy_(torch.tensor([3.0, 1.0, 4.0, 1.5]))
    assert critic(torch.tensor([[2.0], [0.0], [3.0]], dtype=F64)).tolist() == [4.0, 3.0, 1.5]
    assert critic(torch.tensor([[-1.0], [0.5], [4.0]], dtype=F64)).isnan().all()


def test_weighted_log_prob_and_sampling():
    points = torch.tensor([[0.0, 1.0], [2.0, 0.0], [5.0, 5.0]], dtype=F64)
    weights = torch.tensor([0.2, 0.7, 0.1], dtype=F64)
    law = Weighted(points, weights.log())
    query = torch.cat((points.flip(0), points.new_tensor([[0.0, 0.0]])))
    torch.testing.assert_close(law.log_prob(query).exp(), torch.tensor([0.1, 0.7, 0.2, 0.0], dtype=F64))
    sample = law.sample((20000,), generator=torch.Generator().manual_seed(0))
    frequency = (sample[:, None] == points).all(-1).to(F64).mean(0)
    error = (weights * (1 - weights) / 20000).sqrt()
    assert ((frequency - weights).abs() < 3.6 * error).all()  # 1e-3 for three two-sided comparisons
    density = torch.tensor([-1.0, -2.0, -3.0], dtype=F64)
    rule = Weighted(points, weights.log(), density).particles(law.noise(0))
    assert torch.equal(rule.log_prob, density) and torch.equal(rule.log_weights, weights.log())


def test_expectations_over_particles_agree_with_numpy():
    rng = np.random.default_rng(0)
    values, weights = 300 * rng.normal(size=9), rng.dirichlet(np.ones(9))
    x, v = torch.zeros(9, 1, dtype=F64), torch.tensor(values)
    top = values.max()
    for log_weights, w in ((None, np.full(9, 1 / 9)), (torch.tensor(weights).log(), weights)):
        particles = Particles(x, log_weights)
        assert particles.mean(v).item() == pytest.approx(np.average(values, weights=w), rel=1e-12)
        expected = top + np.log(np.sum(w * np.exp(values - top)))
        assert particles.log_mean_exp(v).item() == pytest.approx(expected, rel=1e-12)
        assert particles.double().mean(v.float()).dtype == torch.float32


@pytest.mark.parametrize("infinite", [torch.inf, -torch.inf])
def test_infinite_values_count_only_where_there_is_weight(infinite):
    logits = torch.tensor([0.3, -torch.inf, 1.0], dtype=F64, requires_grad=True)
    particles = Particles(torch.zeros(3, 1, dtype=F64), logits.log_softmax(0))
    values = torch.tensor([1.0, infinite, 2.0], dtype=F64)
    w = particles.log_weights.detach().exp().numpy()
    finite = np.array([1.0, 0.0, 2.0])
    assert particles.mean(values).item() == pytest.approx(np.sum(w * finite))
    assert particles.log_mean_exp(values).item() == pytest.approx(np.log(np.sum(w[[0, 2]] * np.exp([1.0, 2.0]))))
    for total in (particles.mean(values), particles.log_mean_exp(values)):
        assert torch.autograd.grad(total, logits, retain_graph=True)[0].isfinite().all()
    assert particles.mean(values.flip(0).roll(1)).item() == infinite
    uniform = Particles(torch.zeros(3, 1, dtype=F64))
    assert uniform.mean(values).item() == infinite
    assert uniform.log_mean_exp(values).item() == (
        torch.inf if infinite > 0 else pytest.approx(np.log(np.exp([1.0, 2.0]).sum() / 3))
    )
