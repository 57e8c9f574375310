"""Transport scores against closed forms, enumeration and the dual.

Sampling tests compare within 4.9 standard errors (false alarm: once in a million seeds); seeds are fixed.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from se_framework.data import GaussianMixture, TensorData
from se_framework.evaluation.scores import scores
from se_framework.evaluation.transport import (
    _on_a_line,
    potentials,
    sliced_w2,
    sliced_w2_and_error,
    unit_directions,
    w2,
    w2_and_error,
)

Z = 4.9
F64 = torch.float64


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal_quantiles(n: int) -> torch.Tensor:
    return torch.special.ndtri((torch.arange(n, dtype=F64) + 0.5) / n)[:, None]


@pytest.mark.parametrize(("shift", "scale"), [(1.5, 1.0), (0.0, 2.0), (-1.0, 0.5)])
def test_w2_of_gaussians_on_the_line(shift, scale):
    # W2^2 = (difference of means)^2 + (difference of deviations)^2; quantiles stand for the law up to O(1/n).
    x = normal_quantiles(20_000)
    assert w2(x, x * scale + shift) == pytest.approx(math.hypot(shift, scale - 1), abs=1e-3)


def test_w2_is_invariant_to_order_and_exact():
    x = torch.randn((300, 4), generator=draw(0), dtype=F64)
    shift = torch.tensor([3.0, 0.0, -4.0, 0.0], dtype=F64)
    # A translation is its own optimal map.
    assert w2(x, (x + shift)[torch.randperm(300, generator=draw(1))]) == pytest.approx(5, abs=1e-12)
    a, b = x[:6], x[6:12]
    best = min(float((a - b[list(p)]).square().sum(1).mean().sqrt()) for p in itertools.permutations(range(6)))
    assert w2(a, b) == pytest.approx(best, abs=1e-12)
    # One coordinate through the sort and, padded by zeros, through the assignment.
    pad = torch.zeros(100, 1, dtype=F64)
    line = w2(x[:100, :1], x[100:200, 1:2])
    assert w2(torch.cat([x[:100, :1], pad], 1), torch.cat([x[100:200, 1:2], pad], 1)) == pytest.approx(line, abs=1e-12)


def test_sliced_w2_of_a_shift():
    x = torch.randn((500, 3), generator=draw(0), dtype=F64)
    shift = torch.tensor([1.0, -2.0, 2.0], dtype=F64)
    directions = unit_directions(4_000, 3, draw(1))
    assert torch.allclose(directions.norm(dim=1), torch.ones(4_000, dtype=F64))
    square = (directions @ shift).square()
    found = sliced_w2(x, (x + shift).flip(0), directions)
    assert found == pytest.approx(float(square.mean().sqrt()), abs=1e-12)
    # E (theta . s)^2 = |s|^2 / d.
    assert abs(found**2 - 3.0) < Z * float(square.std()) / 4_000**0.5
    # The same points in another order, and so the same projections up to the order of three products and two sums:
    # each is off by five roundings of its terms, none larger than the norm of the point.
    assert sliced_w2(x, x.flip(0), directions) <= 2 * 5 * 2.0**-53 * float(x.norm(dim=1).max())


def repeats(dim, apart, count=60, n=100):
    """Pairs of clouds, one of which is the other law's shifted and stretched (W2 > 0, potentials not constant)."""
    for seed in range(count):
        x, y = torch.randn((2, n, dim), generator=draw(seed), dtype=F64)
        yield x, apart + 2 * y


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_the_standard_error_of_transport_is_the_spread_of_repeats(dim):
    """60 repeats: their standard deviation is known to 1/sqrt(2 x 59) = 9 %, so 30 % at 3.3 of these."""
    directions = unit_directions(20, dim, draw(1))
    for measure in (w2_and_error, lambda x, y: sliced_w2_and_error(x, y, directions)):
        found = torch.tensor([measure(x, y) for x, y in repeats(dim, 1.0)], dtype=F64)
        assert float(found[:, 1].mean() / found[:, 0].std()) == pytest.approx(1, abs=0.3)


def test_the_potentials_behind_an_error_are_a_certificate_of_the_optimum():
    """Weak duality: any pair with u_k + v_j <= c_kj bounds the cost from below; theirs meets it, on a line too."""
    for dim in (1, 2):
        x, y = torch.randn((2, 60, dim), generator=draw(3), dtype=F64)
        cost = torch.cdist(x, y).square()
        if dim == 1:
            _, phi, psi = (t.squeeze(0) for t in _on_a_line(x.T, y.T))
        else:
            phi, psi = potentials(cost, torch.as_tensor(linear_sum_assignment(cost.numpy())[1]))
        assert float((phi[:, None] + psi - cost).max()) < 1e-10  # rounding of sixty steps of order ten
        assert float(phi.mean() + psi.mean()) == pytest.approx(w2(x, y) ** 2, abs=1e-12)


def test_perfect_samplers_stand_within_the_spread_of_the_reference():
    """Heavy outliers, three in a hundred: six perfect samples are told apart by luck alone, and the entry says so."""
    law = GaussianMixture([[0.0, 0.0], [12.0, 0.0]], 0.5, [0.97, 0.03])
    for seed in range(3):
        found = scores(law, law.batch(0, 500, 100 + seed).x, seed=seed, names=("w2",))["w2"]
        known = found["references"]
        spread = (known["real_vs_real_sd"] ** 2 + found["se"] ** 2) ** 0.5
        assert found["se"] > 0 and known["real_vs_real_sd"] > 0 and found["unit"] == "unit of the data"
        assert abs(found["value"] - known["real_vs_real"]) < Z * spread


def test_transport_in_user_units():
    rows = 1000 + 5 * torch.randn((4_000, 2), generator=draw(0), dtype=F64)
    data = TensorData(rows, standardize=True)
    found = scores(data, data.to_user(data.rest) + torch.tensor([30.0, 40.0]), seed=0, names=("w2", "sliced_w2"))
    assert found["w2"]["value"] == pytest.approx(50, abs=1e-6) and found["w2"]["n"] == 400
    assert 0 < found["w2"]["references"]["real_vs_real"] < 5
    assert 0 < found["sliced_w2"]["references"]["real_vs_real"] < 2
    assert found["sliced_w2"]["value"] == pytest.approx(50 / 2**0.5, rel=0.05)


def test_unequal_sizes_refused():
    for function in (w2, lambda x, y: sliced_w2(x, y, unit_directions(2, 2, draw(0)))):
        with pytest.raises(ValueError, match=r"equal shape expected, got \(3, 2\) and \(4, 2\)"):
            function(torch.zeros(3, 2), torch.zeros(4, 2))
