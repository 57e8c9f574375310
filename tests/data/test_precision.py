"""Shift and scale: samples and scores follow the data, to the digits that its numbers have; else refused by name."""

import numpy as np
import pytest
import torch

import se_framework as se
from se_framework.data import TensorData
from se_framework.data.columns import few_valued, told
from se_framework.data.files import StreamedArray
from se_framework.errors import DataError
from tests.support.composing import compose

F64 = torch.float64
SHORT = ["model.width=8", "model.couplings=2", "loop.rounds=2", "loop.log_every=0", "progress=false", "device=cpu"]


def rows(n=60, d=2):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=F64)


@pytest.mark.parametrize(
    "shift, scale", [(0.0, 1.0), (1.7e9, 60.0), (-1e12, 3.0), (5.0, 1e-14), (0.0, 1e-100), (0.0, 1e140)]
)
def test_what_the_model_sees_does_not_depend_on_the_units(shift, scale):
    x = rows()
    plain = TensorData(x, standardize=True)
    if abs(shift) * torch.finfo(F64).eps > 1e-3 * scale:
        with pytest.raises(DataError, match=r"column 1 lies around 5 with a standard deviation of .*e-\d\d"):
            TensorData(x * scale + shift, standardize=True)
        return
    moved = TensorData(x * scale + shift, standardize=True)
    # Of every number eps * |shift| is lost, in standard deviations; float64 sums add a few eps.
    lost = 4 * torch.finfo(F64).eps * (abs(shift) / scale + 10)
    assert torch.allclose(moved.train, plain.train, rtol=0, atol=max(lost, 1e-14))


def test_samples_keep_the_digits_of_data_far_from_the_origin():
    far, near = (TensorData(60 * rows(200) + shift, standardize=True) for shift in (1.7e9, 0.0))
    drawn, plain = (compose("mle_flow", SHORT, data=data).sample(300) for data in (far, near))
    assert (drawn.dtype, plain.dtype) == (F64, torch.float32)
    assert len(torch.unique(drawn[:, 0])) == 300
    # The same model draws: of far samples 1.7e9 eps is lost, of near ones 200 float32 eps.
    assert torch.allclose(drawn - 1.7e9, plain.double(), rtol=0, atol=1e-4)
    found = {
        name: compose("mle_flow", SHORT, data=d).scores(200)["w2"]["value"]
        for name, d in (("far", far), ("near", near))
    }
    assert found["far"] == pytest.approx(found["near"], rel=1e-5)


def test_float64_data_that_float32_does_not_resolve_are_refused_unless_standardised(tmp_path):
    x = 60 * rows() + 1.7e9
    with pytest.raises(DataError, match=r"column 1 lies around 1.7e\+09 .* float32 does not resolve: set data.stand"):
        TensorData(x)
    np.save(tmp_path / "x.npy", x.numpy())
    with pytest.raises(DataError, match="float32 does not resolve: set data.standardize=true"):
        StreamedArray(tmp_path / "x.npy", standardize=False)
    assert TensorData(x, standardize=True).train.std() > 0.9
    assert TensorData(60 * rows() + 1e3).train_size  # 1e3 eps is far below 60e-3


@pytest.mark.parametrize("streamed", [False, True])
def test_whole_numbers_that_float64_does_not_resolve_are_refused_not_called_constant(tmp_path, streamed):
    whole = torch.stack([torch.arange(40), 2**60 + torch.arange(40)], 1)
    np.save(tmp_path / "x.npy", whole.numpy())

    def data(x):
        np.save(tmp_path / "x.npy", x.numpy())
        return StreamedArray(tmp_path / "x.npy") if streamed else TensorData(x, standardize=True)

    with pytest.raises(DataError, match=r"column 2 lies around 1.15292e\+18 .* float64 does not resolve: subtract"):
        data(whole)
    coarse = data(torch.stack([torch.arange(40), 2**60 + 2**40 * torch.arange(40)], 1))  # far apart: nothing is lost
    assert float(coarse.rows("train", torch.arange(coarse.train_size))[:, 1].std(correction=0)) == pytest.approx(1)
    held = data(torch.full((40, 1), 2**60 + 1))
    assert not held.rows("train", torch.arange(5)).any()  # constant is constant


def test_a_standard_deviation_that_underflows_is_refused():
    with pytest.raises(DataError, match="column 3 has a standard deviation of .* underflows float64; rescale"):
        TensorData(torch.cat([rows(), 1e-170 * rows(d=1)], 1), standardize=True)


def test_columns_with_few_values_are_named():
    two = (rows(100, 1) > 0).double()
    data = TensorData(torch.cat([rows(100), two], 1), standardize=True)
    assert few_valued(data) == {2: 2}
    assert "column 3 (2 values) of tensor: few different values, so a density is unbounded" in told(data)
    assert told(TensorData(rows(100), standardize=True)) is None
    assert told(TensorData(two[:15], standardize=True)) is None  # too few rows to tell
    assert told(se.data.Digits()) is None
