"""Data: exact densities, batches as pure functions, units, files.

Sampling tests compare with exact values within 4.9 standard errors: a two-sided normal test raises a false alarm once
in a million seeds. Seeds are fixed, so a test that passes once passes always.
"""

from __future__ import annotations

import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from se_framework.data import (
    ArrayData,
    Data,
    DequantizedDigits,
    Digits,
    GaussianMixture,
    GaussianMixture1d,
    Gaussians8,
    Moons,
    Ring8,
    Sampler,
    TensorData,
    as_data,
)
from se_framework.data.base import epoch_slices
from se_framework.errors import DataError

Z = 4.9
F64 = torch.float64


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


def plane(low: float, high: float, step: float) -> torch.Tensor:
    line = torch.arange(low, high, step, dtype=F64)
    return torch.cartesian_prod(line, line)


# -- toy laws ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("law", "half", "step", "entropy"),
    [(Ring8(), 2.25, 0.01, -2.906727), (Gaussians8(), 6.0, 0.05, 2.831880), (Moons(), 3.5, 0.025, 1.007585)],
    ids=["ring8", "gaussians8", "moons"],
)
def test_density_integrates_to_one_and_entropy(law, half, step, entropy):
    # The trapezoidal rule on the whole plane converges exponentially; steps are at most half a standard deviation.
    mass = total = 0.0
    for part in plane(-half, half, step).split(100_000):
        log_p = law.log_prob(part)
        mass += float(log_p.exp().sum()) * step**2
        total -= float(torch.where(log_p > -700, log_p.exp() * log_p, 0.0).sum()) * step**2
    assert mass == pytest.approx(1, abs=1e-8)
    assert total == pytest.approx(entropy, abs=1e-6)
    assert law.entropy == pytest.approx(total, abs=1e-7)


def test_one_dimensional_mixture():
    law = GaussianMixture1d()
    assert law.event_shape == (1,) and law.kind == "curve" and law.mode_sigma is None
    x = torch.linspace(-14, 18, 400_001, dtype=F64)
    log_p = law.log_prob(x[:, None])
    width = float(x[1] - x[0])
    p = log_p.exp()
    assert float(p.sum()) * width == pytest.approx(1, abs=1e-10)
    assert law.entropy == pytest.approx(-float((p * log_p).sum()) * width, abs=1e-8)
    # Moments of the mixture by hand: mean -.33 + 1.34, second moment .33 (1 + .0625) + .67 (4 + 2).
    assert float((p * x).sum()) * width == pytest.approx(1.01, abs=1e-9)
    assert float((p * x**2).sum()) * width == pytest.approx(0.33 * 1.0625 + 0.67 * 6, abs=1e-9)


@pytest.mark.parametrize("law", [Ring8(), Gaussians8(), GaussianMixture1d(), Moons()], ids=lambda law: law.name)
def test_sampler_agrees_with_density(law):
    torch.set_default_dtype(F64)
    x = law.held_out(50_000, seed=3).x
    # E[-log p] is the entropy; it is finite only if the samples lie where the density says.
    surprise = -law.log_prob(x)
    assert abs(float(surprise.mean()) - law.entropy) < Z * float(surprise.std()) / 50_000**0.5
    # Mean and covariance against quadrature over the density: independent of the sampler.
    if law.event_shape == (1,):
        grid, cell = torch.linspace(-8, 12, 40_001, dtype=F64)[:, None], 20 / 40_000
    else:
        step = 0.01 if law.name == "ring8" else 0.04
        grid, cell = plane(-5.6, 5.6, step) if step > 0.01 else plane(-2.25, 2.25, step), step**2
    mass = torch.cat([law.log_prob(part).exp() for part in grid.split(100_000)]) * cell
    for moment in (lambda t: t[:, 0], lambda t: t[:, -1], lambda t: t[:, 0] ** 2, lambda t: t[:, 0] * t[:, -1]):
        exact = float((mass * moment(grid)).sum())
        assert abs(float(moment(x).mean()) - exact) < Z * float(moment(x).std()) / 50_000**0.5


def test_moons_density_against_dense_quadrature():
    # A million midpoints along the arcs, at points near, inside, on the axis of and far from the moons.
    law = Moons(noise=0.1)
    t = (torch.arange(1_000_000, dtype=F64) + 0.5) * math.pi / 1_000_000
    upper = torch.stack([t.cos(), t.sin()], 1)
    arcs = torch.cat([upper, torch.tensor([1.0, 0.5], dtype=F64) - upper])
    chosen = [[0, 0], [0, 1], [-1, 0], [1, 0.5], [0.5, 0.25], [0, -3], [9, 9], [-40, 1e-3], [2, -0.4]]
    points = torch.tensor(chosen, dtype=F64)
    for point, value in zip(points, law.log_prob(points), strict=True):
        direct = torch.logsumexp(-0.5 * (arcs - point).square().sum(1) / 0.01, 0) - math.log(2e6 * 2 * math.pi * 0.01)
        assert float(value) == pytest.approx(float(direct), rel=1e-9, abs=1e-9)


def test_mixture_parameters():
    law = GaussianMixture([[0.0, 0.0], [3.0, 0.0]], [0.5, 1.0], [1, 3])
    assert law.weights.tolist() == [0.25, 0.75] and law.mode_sigma is None and law.modes.shape == (2, 2)
    assert GaussianMixture([0.0], 1.0).entropy == pytest.approx(0.5 * math.log(2 * math.pi * math.e), abs=1e-12)
    assert GaussianMixture(torch.zeros(1, 5), 1.0).entropy is None
    assert GaussianMixture(torch.zeros(2, 3, 4), 1.0).held_out(7).x.shape == (7, 3, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 1.0), "data.means is empty"),
        (([0.0, 1.0], [1.0, 1.0, 1.0]), "data.sigmas holds 3 numbers for 2 centres"),
        (([0.0], -1.0), "data.sigmas must be positive"),
        (([0.0, 1.0], 1.0, [1.0]), "data.weights holds 1 numbers"),
        (([0.0, 1.0], 1.0, [-1.0, 2.0]), "data.weights must be non-negative"),
        (([0.0, math.nan], 1.0), "data.means holds NaN"),
        (([[0.0], [1.0, 2.0]], 1.0), "rows of equal length"),
    ],
)
def test_mixture_refuses(arguments, message):
    with pytest.raises(DataError, match=message):
        GaussianMixture(*arguments)


def test_moons_refuse_no_noise():
    with pytest.raises(DataError, match="data.noise must be a positive"):
        Moons(0.0)


# -- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [Ring8(), TensorData(torch.arange(50.0))], ids=["sampler", "tensor"])
def test_batch_is_a_pure_function(data):
    first = data.batch(35, 7, 1).x
    for start in (0, 2000, 4500, 21):
        data.batch(start, 7, 1)
    data.held_out(3)
    torch.rand(10)
    assert torch.equal(first, data.batch(35, 7, 1).x)
    assert first.shape == (7, *data.event_shape) and first.dtype == data.dtype == torch.get_default_dtype()
    assert not torch.equal(first, data.batch(35, 7, 2).x) and not torch.equal(first, data.batch(42, 7, 1).x)
    # What was given away cannot change what comes later.
    data.batch(35, 7, 1).x.zero_()
    assert torch.equal(first, data.batch(35, 7, 1).x)
    # The same points at another precision.
    torch.set_default_dtype(F64)
    assert data.batch(35, 7, 1).x.dtype == data.dtype == F64 and torch.equal(data.batch(35, 7, 1).x.float(), first)


def test_held_out_is_independent_of_batches():
    law = Ring8()
    assert not torch.equal(law.held_out(9, 0).x, law.batch(0, 9, 0).x)
    assert torch.equal(law.held_out(9, 4).x, law.held_out(9, 4).x)


@pytest.mark.parametrize("n", [1, 7, 10, 45])
def test_epoch_covers_every_row_once(n):
    data = TensorData(torch.arange(50))  # 45 training rows
    drawn = torch.cat([data.batch(n * i, n, 3).x for i in range(2 * 45)]).flatten()
    for epoch in range(2 * n):
        assert sorted(drawn[45 * epoch : 45 * (epoch + 1)].tolist()) == sorted(data.train.flatten().tolist())
    if n > 1:
        assert not torch.equal(drawn[:45], drawn[45:90])


def test_split_is_fixed_and_disjoint():
    x = torch.arange(50)
    one, two = TensorData(x), TensorData(x)
    assert torch.equal(one.train, two.train) and torch.equal(one.rest, two.rest)
    assert sorted(torch.cat([one.train, one.rest]).flatten().tolist()) == x.tolist()
    assert one.held_out(1000).x.shape == (5, 1) and one.held_out(3).x.shape == (3, 1)
    assert len(TensorData(torch.arange(4), held_out_fraction=0.01).rest) == 1
    one.held_out(5).x.zero_()
    assert torch.equal(one.rest, two.rest)


def test_batch_larger_than_the_data():
    with pytest.raises(DataError, match="loop.batch_size is 46 but the data has 45 training rows"):
        TensorData(torch.arange(50)).batch(0, 46, 0)
    with pytest.raises(DataError, match="loop.batch_size is 0"):
        epoch_slices(0, 0, 45)
    with pytest.raises(DataError, match="loop.batch_size must be at least 1, got 0"):
        Ring8().batch(0, 0, 0)


# -- tensors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_standardize_far_from_zero(dtype):
    draw = torch.Generator().manual_seed(0)
    x = (1000 + 5 * torch.randn(5000, 3, generator=draw, dtype=F64)).to(dtype)
    data = TensorData(x, standardize=True)
    assert torch.allclose(data.train.mean(0, dtype=F64), torch.zeros(3, dtype=F64), atol=1e-6)
    assert torch.allclose(data.train.double().std(0, unbiased=False), torch.ones(3, dtype=F64), atol=1e-6)
    back = data.to_user(data.train)
    known = {tuple(row) for row in x.tolist()}
    # float32 holds 1000 to 6e-5: the round trip may move a value by one such step.
    nearest = torch.cdist(back[:200].double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist").min(1).values
    assert float(nearest.max()) < (2e-4 if dtype == torch.float32 else 1e-11) and len(known) == 5000
    assert torch.allclose(data.to_model(back), data.train, atol=2e-5)
    assert data.log_scale == pytest.approx(float(data.scale.log().sum()))
    # Standard error of the standard deviation is 5 / sqrt(2 * 4500).
    assert torch.allclose(data.scale, torch.full((3,), 5.0, dtype=F64), atol=Z * 5 / 9000**0.5)


def test_log_scale_is_the_change_of_variables():
    data = TensorData(torch.randn(100, 2) * torch.tensor([2.0, 0.5]) + 7, standardize=True)
    normal = torch.distributions.Normal(data.loc, data.scale)
    z = torch.randn(5, 2, dtype=F64)
    inner = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    assert torch.allclose(normal.log_prob(data.to_user(z)).sum(1), inner - data.log_scale)
    assert Ring8().log_scale == 0


def test_constant_feature_is_only_shifted():
    x = torch.randn(100, 2)
    x[:, 1] = 0.1
    data = TensorData(x, standardize=True)
    assert float(data.scale[1]) == 1 and (data.train[:, 1] == 0).all()


@pytest.mark.parametrize(
    ("x", "shape", "kind"),
    [
        (torch.arange(9), (1,), "curve"),
        (torch.rand(9, 2), (2,), "points"),
        (torch.rand(9, 5), (5,), "table"),
        (torch.rand(9, 4, 3), (4, 3), "image"),
        (torch.rand(9, 3, 4, 4), (3, 4, 4), "image"),
        (np.arange(18, dtype=">i2").reshape(9, 2), (2,), "points"),
        (np.random.default_rng(0).random((9, 2)) > 0.5, (2,), "points"),
        (np.asfortranarray(np.ones((9, 3), np.float16)), (3,), "table"),
    ],
)
def test_shapes_and_kinds(x, shape, kind):
    data = TensorData(x)
    assert data.event_shape == shape and data.kind == kind
    assert data.batch(0, 2, 0).x.shape == (2, *shape) and data.batch(0, 2, 0).x.dtype == data.dtype
    with pytest.raises(NotImplementedError, match="density of tensor is not known"):
        data.log_prob(data.rest)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.rand(3, 2), "has 3 rows"),
        (torch.rand(0, 2), "is empty"),
        (torch.tensor(1.0), "is a single number"),
        (torch.rand(9, 2, dtype=torch.complex64), "complex numbers"),
        (torch.tensor([1.0, 2.0, math.nan, math.inf, 3.0]), "has 2 NaN or infinite values, the first in row 3"),
        (np.array([1, "a", None, 2], dtype=object), "holds Python objects"),
        (np.array(["a", "b", "c", "d"]), "holds values of type <U1"),
    ],
)
def test_malformed_rows(x, message):
    with pytest.raises(DataError, match=message):
        TensorData(x)


def test_tensor_options_refused():
    with pytest.raises(DataError, match="data.held_out_fraction must lie between 0 and 1"):
        TensorData(torch.rand(9, 2), held_out_fraction=1.0)
    with pytest.raises(DataError, match=r"data.image_shape \(2, 2\) must hold 9 numbers"):
        TensorData(torch.rand(9, 9), image_shape=(2, 2))
    with pytest.raises(DataError, match="too large to standardise"):
        TensorData(torch.tensor([1e300, -1e300, 1.0, 2.0, 3.0, 1e300], dtype=F64), standardize=True)


class Pairs(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def test_as_data():
    law = Ring8()
    x = torch.rand(9, 2)
    assert as_data(law) is law
    same = [x, x.numpy(), torch.utils.data.TensorDataset(x, torch.zeros(9)), Pairs(list(x)), Pairs([(r, 0) for r in x])]
    for source in same:
        data = as_data(source)
        assert isinstance(data, Data) and torch.equal(data.batch(8, 8, 0).x, TensorData(x).batch(8, 8, 0).x)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([[1.0, 2.0]], "data is a list; give a Data"),
        (Pairs([]), "the Pairs is empty"),
        (Pairs(["a"] * 5), "item 0 of the Pairs is a str"),
    ],
)
def test_as_data_refuses(source, message):
    with pytest.raises(DataError, match=message):
        as_data(source)


def test_digits(digits):
    assert digits.train_size == 1257 and digits.held_out(9999).x.shape == (540, 64)
    assert digits.kind == "image" and digits.image_shape == (8, 8) and digits.event_shape == (64,)
    assert float(digits.train.min()) == -1 and float(digits.train.max()) == 1
    pixels = digits.to_user(digits.train)
    assert float(pixels.min()) == 0 and float(pixels.max()) == 16
    assert digits.log_scale == pytest.approx(64 * math.log(8))
    # Stratified: every class has its share of the held-out rows within one image.
    share = torch.bincount(torch.cat([digits.train_labels, digits.rest_labels])) * 540 / 1797
    assert float((torch.bincount(digits.rest_labels) - share).abs().max()) <= 1


def digits_order(digits, epoch):
    """Return where in an epoch of the digits each training row comes."""
    place = {tuple(row): i for i, row in enumerate(digits.batch(epoch * 1257, 1257, 3).x.tolist())}
    return torch.tensor([place[tuple(row)] for row in digits.train.tolist()])


def test_dequantized_digits(digits):
    torch.set_default_dtype(F64)
    data, epoch = DequantizedDigits(), 1257
    assert data.train_size == 1257 and data.kind == "image" and data.event_shape == (64,) and data.log_scale == 0
    assert torch.equal(data.train_labels, digits.train_labels) and torch.equal(data.rest_labels, digits.rest_labels)
    x = data.batch(2 * epoch, epoch, 3).x
    assert 0 <= float(x.min()) and float(x.max()) < 1 and x.dtype == data.dtype == F64
    # The pixels are those of the digits in the same order, the noise is uniform and independent of them.
    pixels = digits.to_user(digits.batch(2 * epoch, epoch, 3).x)
    noise = 17 * x - pixels
    assert 0 <= float(noise.min()) + 1e-13 and float(noise.max()) < 1 + 1e-13
    assert torch.equal((17 * x + 1e-12).floor(), pixels)
    count = noise.numel()
    assert abs(float(noise.mean()) - 0.5) < Z / (12 * count) ** 0.5
    assert abs(float(noise.var()) - 1 / 12) < Z / (180 * count) ** 0.5
    assert abs(float(torch.corrcoef(torch.stack([noise.flatten(), pixels.flatten()]))[0, 1])) < Z / count**0.5
    # A pure function of (start, n, seed); a row has its own noise in every epoch, a held-out row always the same.
    data.batch(0, 5, 0)
    assert torch.equal(data.batch(2 * epoch, epoch, 3).x, x)
    other = 17 * data.batch(3 * epoch, epoch, 3).x - digits.to_user(digits.batch(3 * epoch, epoch, 3).x)
    assert abs(float(torch.corrcoef(torch.stack([noise.flatten(), other.flatten()]))[0, 1])) < Z / count**0.5
    same_rows = (data.batch(k * epoch, epoch, 3).x[digits_order(digits, k)] for k in (2, 3))
    first, second = (17 * rows - digits.to_user(digits.train) for rows in same_rows)
    assert abs(float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])) < Z / count**0.5
    rest = data.held_out(9999, 1).x
    assert torch.equal(rest, DequantizedDigits().held_out(9999, 2).x) and rest.shape == (540, 64)
    assert torch.equal((17 * rest + 1e-12).floor(), digits.to_user(digits.rest))


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", ["npy", "npz", "pt", "csv"])
@pytest.mark.parametrize("standardize", [True, False])
def test_files_round_trip(tmp_path, monkeypatch, extension, standardize):
    x = np.random.default_rng(0).normal(1000, 5, (200, 3))
    file = tmp_path / f"rows.{extension}"
    if extension == "npy":
        np.save(file, x)
    elif extension == "npz":
        np.savez(file, x=x)
    elif extension == "pt":
        torch.save(torch.as_tensor(x), file)
    else:
        np.savetxt(file, x, delimiter=",", header="a,b,c", comments="", fmt="%.17g")
    monkeypatch.setenv("HOME", str(tmp_path))
    data = ArrayData(f"~/rows.{extension}", standardize=standardize)
    assert data.name == "rows" and data.train_size == 180
    rows = torch.cat([data.to_user(data.train), data.to_user(data.rest)])
    assert torch.allclose(rows.sort(0).values, torch.as_tensor(x).sort(0).values, rtol=0, atol=1e-10)
    assert torch.allclose(data.train.mean(0), torch.zeros(3, dtype=F64), atol=1e-10) is standardize


def test_npz_with_several_arrays(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, train=np.arange(8.0), test=np.arange(9.0))
    assert ArrayData(file, key="train").event_shape == (1,)
    with pytest.raises(DataError, match=r"data.path: .* holds 2 arrays \(train, test\); choose one with data.key"):
        ArrayData(file)
    with pytest.raises(DataError, match="data.key: no array 'trian' .* did you mean 'train'"):
        ArrayData(file, key="trian")


def test_csv_header_and_marks(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("\ufeff1,2\n3,4\n\n5,6\n7,8\n", encoding="utf-8")
    assert ArrayData(file, standardize=False, held_out_fraction=0.25).train_size == 3
    file.write_text(",a\n0,1\n1,2\n2,3\n3,4e-3\n")
    assert ArrayData(file, standardize=False).event_shape == (2,)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


def _write(path, content):
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content)
    elif path.suffix == ".npy":
        np.save(path, content, allow_pickle=True)
    elif path.suffix == ".npz":
        np.savez(path, **content)
    else:
        torch.save(content, path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", None, "no file '.*a.npy'"),
        ("a.xlsx", b"1", "cannot read .xlsx files .* use .npy, .npz, .pt, .csv"),
        ("a", b"1", "cannot read a file without extension"),
        ("a.npy", b"", "a.npy' is empty"),
        ("a.npy", b"garbage", "not a readable .npy file|never unpickled"),
        ("a.npz", b"garbage", "not a readable .npz file|never unpickled"),
        ("a.npz", b"PK\x03\x04garbage", "not a readable .npz file"),
        ("a.npz", {}, "holds no array|not a readable"),
        ("a.npy", np.array([Bomb()] * 5, dtype=object), "holds Python objects, which are never unpickled"),
        ("a.npy", pickle.dumps([1, 2]), "holds Python objects, which are never unpickled"),
        ("a.npz", {"x": np.array([Bomb()] * 5, dtype=object)}, "holds Python objects, which are never unpickled"),
        ("a.npy", np.array(["x"] * 5), "holds values of type <U1"),
        ("a.npy", np.ones((5, 2)) * 1j, "holds complex numbers"),
        ("a.npy", np.array(3.0), "is a single number"),
        ("a.npy", np.zeros((0, 3)), "is empty"),
        ("a.npy", np.zeros((3, 3)), "has 3 rows"),
        ("a.npy", np.array([0, 1, np.nan, 2, np.inf]), "has 2 NaN or infinite values, the first in row 3 of 5"),
        ("a.pt", [Bomb()], "nothing else is unpickled"),
        ("a.pt", b"garbage", "holds no plain tensor or is damaged"),
        ("a.pt", {"x": torch.zeros(5)}, "holds a dict; it must hold one tensor"),
        ("a.csv", "a,b\n", "is empty"),
        ("a.csv", "a,b\n1,2\n3,x\n", "has 'x' in line 3, column 2"),
        ("a.csv", "a,b\nc,d\n1,2\n", "has 'c' in line 2, column 1"),
        ("a.csv", "1,a\n1,2\n", "has 'a' in line 1, column 2"),
        ("a.csv", "1,2\n3,\n", "has an empty cell in line 2, column 2"),
        ("a.csv", "1,2\n3,4,5\n", "has 3 columns in line 2 and 2 before"),
        ("a.csv", b"\xff\xfe1\x00", "is not a text table"),
    ],
)
def test_malformed_files(tmp_path, name, content, message):
    if content is not None:
        _write(tmp_path / name, content)
    with pytest.raises(DataError, match=f"^data.path: .*({message})") as caught:
        ArrayData(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_folder_and_key_refused(tmp_path):
    (tmp_path / "a.npy").mkdir()
    with pytest.raises(DataError, match="is not a file"):
        ArrayData(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.zeros(9))
    with pytest.raises(DataError, match="data.key is 'x' but .* is no .npz"):
        ArrayData(tmp_path / "b.npy", key="x")


# -- imports ----------------------------------------------------------------------------------------------------------


def test_import_is_light():
    code = (
        "import sys, torch; state = torch.random.get_rng_state(); import se_framework.data, "
        "se_framework.evaluation.scores, se_framework.evaluation.frechet; "
        "assert torch.equal(state, torch.random.get_rng_state()); "
        "print([m for m in ('sklearn', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_own_sampler_needs_only_draw():
    class Cube(Sampler):
        event_shape = (3,)

        def draw(self, n, generator):
            return torch.rand((n, 3), generator=generator, dtype=F64)

    assert Cube().batch(0, 5, 0).x.shape == (5, 3) and Cube().kind == "table" and Cube().entropy is None
    assert "sampler" in repr(Cube())
