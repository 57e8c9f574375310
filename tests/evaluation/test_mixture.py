"""The bar: a known mixture is found again, in any units; it is fitted once; references are computed once."""

from __future__ import annotations

import pytest
import torch

from se_framework.data import GaussianMixture, Ring8, TensorData
from se_framework.evaluation import judged, mixture
from se_framework.evaluation.mixture import best
from se_framework.evaluation.scores import scores

F64 = torch.float64
FAST = ("w2", "mmd", "energy")


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def of(data):
    return best(data, data.reference_rows(mixture.ROWS))


@pytest.mark.parametrize("more", [{}, {"dequantise": True}], ids=["plain", "dequantised"])
def test_rows_that_laws_are_fitted_to_are_no_held_out_ones(more):
    rows = torch.arange(400.0)[:, None].expand(400, 2).clone()
    rows[:, 1] = rows[:, 0] % 4
    data = TensorData(rows, labels=torch.arange(400) % 3, **more).with_validation(0.25)
    every, few = data.reference_rows(10_000), data.reference_rows(50)
    numbers = every.x[:, 0].round().long()
    assert sorted(numbers.tolist()) == sorted(set(range(400)) - set(data.rest[:, 0].round().long().tolist()))
    assert torch.equal(every.context, numbers % 3) and torch.equal(few.context, few.x[:, 0].round().long() % 3)
    assert len(few.x) == 50 and torch.equal(few.x, data.reference_rows(50).x)
    noise = every.x[:, 1] % 1
    assert bool((noise > 0).any()) == bool(more)
    law = Ring8()
    assert torch.equal(law.reference_rows(30).x, law.batch(0, 30, 0).x)


def test_a_mixture_of_two_is_found_again():
    """Its divergence from the law is about its free numbers over 2n: 11 / 4,000 for two components, 23 for four.

    Three times the latter are allowed; samples have the law's moments within 4.9 standard errors of 10,000.
    """
    law = GaussianMixture([[0.0, 0.0], [6.0, 0.0]], 1.0, [0.7, 0.3])
    found = of(law)
    assert found.components in (2, 4) and found.rows == 2_000 and found.has_log_prob
    x = law.held_out(5_000, 3).x.double()
    ratio = law.log_prob(x) - found.log_prob(x)
    assert abs(float(ratio.mean())) < 3 * 23 / 4_000 + 4.9 * float(ratio.std()) / 5_000**0.5
    drawn = found.sample(10_000)
    fitted = law.reference_rows(2_000).x.double()
    for a, b in ((drawn.mean(0), fitted.mean(0)), (drawn.std(0), fitted.std(0))):
        assert bool(((a - b).abs() < 4.9 * drawn.std(0) / 100).all())
    assert torch.equal(found.sample(5), drawn[:5])


def test_units_do_not_matter():
    """A table in other units, standardised: the same mixture, its samples and density carried over."""
    rows = torch.randn((500, 2), generator=draw(0), dtype=F64) @ torch.tensor([[1.0, 0.5], [0.0, 0.4]], dtype=F64)
    units, shift = torch.tensor([1e3, 1e-2], dtype=F64), torch.tensor([5e4, 3.0], dtype=F64)
    one, other = of(TensorData(rows, standardize=True)), of(TensorData(rows * units + shift, standardize=True))
    assert one.components == other.components
    # Rows are float32 in model space: 6e-8 of numbers of order one, amplified by EM's convergence at 1e-3 per step.
    assert torch.allclose(one.sample(200) * units + shift, other.sample(200), rtol=0, atol=float(1e-3 * units.max()))
    x = rows[:50]
    assert torch.allclose(one.log_prob(x), other.log_prob(x * units + shift) + units.log().sum(), atol=1e-3)


def test_many_coordinates_are_reduced():
    basis = torch.randn((3, 200), generator=draw(1), dtype=F64)
    data = TensorData(torch.randn((400, 3), generator=draw(2), dtype=F64) @ basis)
    found = of(data)
    assert not found.has_log_prob and found.sample(7).shape == (7, 200)
    # Three directions vary; samples lie in their span up to the ridge, 1/640 in 64 directions.
    off = found.sample(1000) - found.sample(1000) @ torch.linalg.pinv(basis) @ basis
    assert float(off.square().sum(1).mean()) < 64 / 640 * 1.5
    image = TensorData(torch.rand((60, 3, 8, 8), generator=draw(3)))
    assert of(image).sample(2).shape == (2, 3, 8, 8)


def test_there_is_no_mixture_of_what_has_none():
    assert of(TensorData(torch.zeros(50, 2))) is None
    assert of(TensorData(torch.arange(100).view(50, 2))) is None
    assert of(TensorData(torch.rand(12, 2))) is None
    few = TensorData(torch.randn((60, 2), generator=draw(4)))
    found = scores(few, torch.randn((30, 2), generator=draw(5)), seed=0)
    assert found["w2"]["value"] > 0 and "it needs 12 samples" in found["coverage"]["why"]
    assert found["coverage"]["n"] == 30 and "mixture" in found["w2"]["references"]


def test_a_mixture_is_fitted_once_and_references_are_computed_once(monkeypatch):
    fits, pairs = [], []
    fit, pair = mixture._fit, judged.Judged._real_pairs
    monkeypatch.setattr(mixture, "_found", type(mixture._found)())
    monkeypatch.setattr(judged, "_references", type(judged._references)())
    monkeypatch.setattr(mixture, "_fit", lambda *a: fits.append(1) or fit(*a))
    monkeypatch.setattr(judged.Judged, "_real_pairs", lambda self: pairs.append(1) or pair(self))
    rows = torch.randn((300, 2), generator=draw(6), dtype=F64)
    first = scores(TensorData(rows), rows[:30] + 1, seed=0, names=FAST)
    again = scores(TensorData(rows.clone()), rows[30:60] + 2, seed=0, names=FAST[:2])  # another run of the same data
    assert (len(fits), len(pairs)) == (1, 1)
    assert again["mmd"]["references"] == first["mmd"]["references"]
    again["mmd"]["references"]["real_vs_real"] = 0.0  # what was given away is a copy
    assert scores(TensorData(rows), rows[:30], seed=0, names=FAST)["mmd"]["references"] == first["mmd"]["references"]
    scores(TensorData(rows), rows[:30], seed=1, names=FAST)
    scores(TensorData(rows + 1), rows[:30], seed=0, names=FAST)
    assert (len(fits), len(pairs)) == (2, 3)


def test_references_are_of_the_same_code_and_size():
    law = Ring8()
    found = scores(law, law.batch(0, 300, 5).x, seed=2, names=FAST)
    for name in FAST:
        known = found[name]["references"]
        assert set(known) == {"real_vs_real", "real_vs_real_sd", "mixture"} and found[name]["n"] == 300
        assert abs(found[name]["value"] - known["real_vs_real"]) < 4.9 * (known["real_vs_real_sd"] + found[name]["se"])
    mix = scores(law, of(law).sample(300), seed=2, names=FAST)
    # The same samples, of which another order is taken; one pair fewer of a thousand would move these by far more.
    assert mix["energy"]["value"] == pytest.approx(found["energy"]["references"]["mixture"], abs=1e-12)
    assert mix["mmd"]["value"] == pytest.approx(found["mmd"]["references"]["mixture"], abs=1e-12)
