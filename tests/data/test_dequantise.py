"""Columns that take few values: named, and filled with uniform noise as wide as the step between the values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from se_framework.data import ArrayData, DequantizedDigits, TensorData
from se_framework.data.columns import few_valued, steps, told
from se_framework.errors import DataError
from tests.support.oracles import z_score

DEFAULT_DTYPE = torch.float64
VALUES = torch.tensor([-3.0, -1.0, 4.0])  # least step 2
ROWS = 900


def assert_uniform(share, comparisons):
    """Assert that the first two moments of shares are those of U[0, 1): variances 1/12 and 4/45."""
    for moment, mean, variance in ((share, 1 / 2, 1 / 12), (share.square(), 1 / 3, 4 / 45)):
        assert abs(moment.mean() - mean) < z_score(comparisons) * (variance / len(share)) ** 0.5


@pytest.fixture(scope="module")
def table():
    """A column of a density, one of three values, one that never changes."""
    draw = torch.Generator().manual_seed(3)
    continuous = 5 + 7 * torch.randn(ROWS, generator=draw, dtype=torch.float64)
    discrete = VALUES[torch.randint(3, (ROWS,), generator=draw)].double()
    return torch.stack([continuous, discrete, torch.full((ROWS,), 2.0, dtype=torch.float64)], 1)


@pytest.mark.parametrize("standardize", [False, True])
def test_noise_fills_the_step_and_nothing_else(table, standardize):
    plain, data = (
        TensorData(table, standardize=standardize),
        TensorData(table, standardize=standardize, dequantise=True),
    )
    data = data.with_validation(0.2)
    plain = plain.with_validation(0.2)
    for with_noise, without in (
        (data.batch(30, 600, 5).x, plain.batch(30, 600, 5).x),
        (data.held_out(ROWS).x, plain.held_out(ROWS).x),
        (data.validation(ROWS).x, plain.validation(ROWS).x),
    ):
        noisy, still = data.to_user(with_noise), plain.to_user(without)
        assert torch.equal(noisy[:, [0, 2]], still[:, [0, 2]])
        share = (noisy[:, 1] - still[:, 1]) / 2  # uniform on [0, 1), up to rounding of the standardisation
        assert share.min() > -1e-12 and share.max() < 1 + 1e-12
        assert_uniform(share, comparisons=6)


def test_noise_is_fresh_in_every_epoch_and_fixed_where_nothing_is_trained(table):
    data = TensorData(table, dequantise=True).with_validation(0.2)
    n = data.train_size
    first, second = data.batch(0, n, 0).x, data.batch(n, n, 0).x
    assert torch.equal(first[:, 0].sort()[0], second[:, 0].sort()[0])
    assert not torch.isin(first[:, 1], second[:, 1]).any()
    assert torch.equal(data.held_out(50).x, data.held_out(50).x) and torch.equal(
        data.validation(9).x, data.validation(9).x
    )
    cut = torch.cat([data.batch(start, 7, 4).x for start in range(0, 7 * 9, 7)])
    assert torch.equal(cut, data.batch(0, 63, 4).x)
    assert torch.equal(data.batches(5, 40, [4, 9]).x, torch.stack([data.batch(5, 40, seed).x for seed in (4, 9)]))


def test_the_warning_names_the_columns_and_the_override_ends_it(table, tmp_path):
    plain = TensorData(table)
    assert few_valued(plain) == {1: 3, 2: 1}
    assert "column 2 (3 values), 3 (1 value)" in told(plain) and "data.dequantise=true" in told(plain)
    assert few_valued(TensorData(table, dequantise=True)) == {2: 1}  # a constant has no step: leave it out
    np.save(tmp_path / "table.npy", table[:, :2].numpy())
    assert told(ArrayData(tmp_path / "table.npy", dequantise=True)) is None
    whole = TensorData(table[:, 1:2].to(torch.int64), dequantise=True)
    assert whole.batch(0, 5, 0).x.is_floating_point() and told(whole) is None


def test_a_value_that_is_rare_may_be_the_nearest():
    """One row in 12,001, behind those that a warning looks at."""
    rows = torch.cat([torch.tensor([0.0, 1.0]).repeat(6_000), torch.tensor([0.75])])[:, None]
    assert steps(rows).tolist() == [0.25]


def test_where_no_column_takes_few_values_it_is_refused(table):
    with pytest.raises(DataError, match="no column takes few values"):
        TensorData(table[:, :1], dequantise=True)


def test_the_digits_are_pixels_and_noise():
    data = DequantizedDigits()
    levels = 17 * data.batch(0, data.train_size, 1).x
    assert torch.equal(levels.floor().flatten().unique(), torch.arange(17.0))
    assert_uniform((levels - levels.floor()).flatten(), comparisons=2)
