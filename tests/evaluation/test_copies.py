"""Copies of training rows: planted ones are found, fresh samples are not, whatever their law; errors by repeats."""

from __future__ import annotations

import pytest
import torch

from se_framework.data import Moons, TensorData
from se_framework.evaluation.copies import nearest, share_of_training
from se_framework.evaluation.scores import lacks, scores

F64 = torch.float64
SMALL = ("memorised", "nearest_train")


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def table(rows=400, seed=0, **more):
    return TensorData(5 + 3 * torch.randn((rows, 3), generator=draw(seed), dtype=F64), standardize=True, **more)


def test_nearest_rows_by_brute_force_far_from_the_origin():
    x, rows = torch.randn((2, 40, 3), generator=draw(1), dtype=F64) + 1e6
    distance, index = nearest(x, rows)
    want = (x[:, None] - rows).norm(dim=2).min(1)
    assert torch.equal(index, want.indices) and torch.allclose(distance, want.values, rtol=1e-12, atol=0)
    assert nearest(rows[:5], rows)[0].tolist() == [0.0] * 5


def test_the_share_by_hand():
    train, apart = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[10.0]])
    share, se = share_of_training(torch.tensor([[0.1], [0.2], [9.0], [1.1]]), train, apart)
    weights = torch.tensor([0.5, 0.25, 0.0, 0.25])  # in what place a row stands does not matter
    assert share == 0.75
    assert se == pytest.approx(float(3 * 1 / (4 * 3) * (weights - 0.25).square().sum()) ** 0.5, abs=1e-15)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_fresh_samples_have_the_share_of_rows_and_its_error(scale):
    """Of the law or another one: N / (N + M). 500 repeats: 3.3 errors of the mean; a deviation to 3.2 %, and 20 %."""
    random, found = draw(2), []
    for _ in range(500):
        rows = torch.randn((60, 2), generator=random, dtype=F64)
        found.append(share_of_training(scale * torch.randn((50, 2), generator=random, dtype=F64), rows[:45], rows[45:]))
    values, errors = torch.tensor(found, dtype=F64).T
    assert abs(float(values.mean()) - 0.75) < 3.3 * float(values.std()) / 500**0.5
    assert float(errors.square().mean().sqrt() / values.std()) == pytest.approx(1, abs=0.2 + 3.3 * 0.032)


def test_planted_copies_are_found():
    data = table(400)
    fresh = data.to_user(torch.randn((300, 3), generator=draw(3), dtype=F64))
    copies = data.to_user(data.train[:300]) + 0.01
    mixed = torch.cat([fresh[:150], copies[:150]])
    entries = [scores(data, x, seed=0, names=SMALL) for x in (fresh, mixed, copies)]
    perfect = entries[0]["memorised"]["references"]["perfect"]
    assert perfect == 0.9 and entries[0]["memorised"]["rows"] == 360
    away = [(e["memorised"]["value"] - perfect) / e["memorised"]["se"] for e in entries]
    assert abs(away[0]) < 3.3 < away[2] and entries[2]["memorised"]["value"] == 1.0
    means = [e["nearest_train"]["value"] for e in entries]
    real = entries[0]["nearest_train"]["references"]
    assert means[2] < 0.02 < means[1] < means[0] and real["real"] > 0.2 and real["mixture"] > 0.2
    assert abs(means[0] - real["mixture"]) < 0.3 * means[0]


def test_rows_at_one_distance_are_taken_by_chance():
    """A column of two values: every sample coincides with rows of both kinds, and the share is that of rows."""
    rows = (torch.arange(400) % 2).double()[:, None].expand(400, 2).contiguous()
    random = torch.randperm(400, generator=draw(4))
    x = (torch.arange(2) % 2).double()[:, None].expand(2, 2)
    shares = torch.tensor([
        share_of_training(x, torch.cat([rows[random[i:]], rows[random[:i]]])[:360],
                          torch.cat([rows[random[i:]], rows[random[:i]]])[360:])[0]
        for i in range(0, 400, 4)
    ])  # fmt: skip
    assert 0.5 < float(shares.mean()) < 1.0  # in the order of the rows it would be 1 always


def test_rows_that_never_end_cannot_be_learnt_by_heart():
    assert "never gives a row twice" in lacks(Moons(), False, "memorised")
    whole = TensorData(torch.arange(60).view(20, 3))
    assert "whole numbers" in lacks(whole, False, "memorised")
