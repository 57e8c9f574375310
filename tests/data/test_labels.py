"""Labels follow their rows: over the ends of epochs, in chosen held-out rows, in files and in mixtures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from se_framework.data import (
    ArrayData,
    Checkerboard,
    Digits,
    GaussianMixture,
    Gaussians8,
    Grid25,
    Ring8,
    SwissRoll,
    TensorData,
    as_data,
)
from se_framework.errors import DataError

F64 = torch.float64
DEFAULT_DTYPE = F64


def marked(**options) -> TensorData:
    """Fifty rows from which the label can be read: row r has label r mod 3."""
    rows = torch.arange(50)
    return TensorData(torch.stack([rows, rows * 0], 1), labels=rows % 3, **options)


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("n", [1, 7, 10, 45])
def test_labels_follow_rows_over_epochs(n, standardize):
    data = marked(standardize=standardize)  # 45 training rows
    assert data.classes == 3
    crossings = 0
    for index in range(2 * 45):
        batch = data.batch(n * index, n, 3)
        x, found = data.to_user(batch.x)[:, 0].round().long(), batch.context
        assert found.dtype == torch.int64 and found.shape == (n,) and torch.equal(found, x % 3)
        crossings += (index * n) // 45 != ((index + 1) * n - 1) // 45
    assert crossings > 0 or 45 % n == 0
    # Asked for out of order, and of new objects, labels are the same: a pure function of (start, n, seed).
    alone = marked(standardize=standardize)
    assert torch.equal(alone.batch(31, n, 3).context, data.batch(31, n, 3).context)
    # A label that is written over is written in a copy.
    data.batch(31, n, 3).context.fill_(7)
    assert torch.equal(alone.batch(31, n, 3).context, data.batch(31, n, 3).context)
    several = data.batches(31, n, [3, 5])
    for k, seed in enumerate((3, 5)):
        assert torch.equal(several.context[k], data.batch(31, n, seed).context)
        assert torch.equal(several.x[k], data.batch(31, n, seed).x)


def test_held_out_labels_follow_the_chosen_rows():
    data = marked(held_out_fraction=0.4)
    for n in (1, 6, 19, 20, 99):
        for seed in (0, 1):
            rest = data.held_out(n, seed)
            assert torch.equal(rest.context, rest.x[:, 0] % 3) and len(rest.x) == min(n, 20)
    assert not torch.equal(data.held_out(6, 0).x, data.held_out(6, 1).x)
    assert torch.equal(data.held_out(6, 1).context, data.held_out(6, 1).context)


def test_no_labels_where_none_are_given():
    x = torch.rand(9, 2)
    plain = [TensorData(x), Digits(), Ring8(), Grid25(), Checkerboard(), SwissRoll(), GaussianMixture([0.0, 1.0], 1.0)]
    # The second tensor of a TensorDataset is left out.
    plain.append(as_data(torch.utils.data.TensorDataset(x, torch.arange(9) % 2)))
    for data in plain:
        assert data.classes == 0 and data.batch(0, 3, 0).context is None and data.held_out(3).context is None, data
        assert data.batches(0, 3, [0, 1]).context is None, data


def test_labels_do_not_change_the_points():
    for one, two in ((Ring8(), Ring8(labels=True)), (TensorData(torch.arange(50)), marked()), (Digits(), Digits(True))):
        for a, b in ((one.batch(16, 8, 1), two.batch(16, 8, 1)), (one.held_out(4), two.held_out(4))):
            assert torch.equal(a.x[:, 0], b.x[:, 0])


def test_digits():
    data, known = Digits(labels=True), Digits()
    assert data.classes == 10 and known.classes == 0 and torch.equal(known.train_labels, data.train_labels)
    place = {tuple(row): i for i, row in enumerate(data.train.tolist())}
    for index in range(12):  # 1257 rows, batches of 200: two ends of epochs
        batch = data.batch(200 * index, 200, 5)
        rows = [place[tuple(row)] for row in batch.x.tolist()]
        assert torch.equal(batch.context, data.train_labels[rows])
    assert torch.equal(data.held_out(9999).context, data.rest_labels)
    # Against scikit-learn's own pairs of images and labels.
    from sklearn.datasets import load_digits

    pixels, target = load_digits(return_X_y=True)
    true = {tuple(row): label for row, label in zip(pixels.tolist(), target.tolist(), strict=True)}
    batch = data.batch(0, 100, 0)
    assert [true[tuple(row)] for row in data.to_user(batch.x).tolist()] == batch.context.tolist()


@pytest.mark.parametrize(
    "law", [Ring8(labels=True), Gaussians8(labels=True), Grid25(labels=True)], ids=lambda d: d.name
)
def test_labels_of_mixtures_are_the_components(law):
    assert law.classes == len(law.modes)
    for found in (law.batch(3500, 500, 2), law.held_out(500, 4)):
        x, k = found.x, found.context
        assert k.dtype == torch.int64 and int(k.min()) >= 0 and int(k.max()) < law.classes
        # Noise in units of sigma around the labelled centre: 500 points lie within 6 (e^-18 each), and the mean of
        # their squares, chi-square with 1000 degrees, within 5 sqrt(2000) of 1000.
        square = ((x - law.modes[k]) / law.mode_sigma).square().sum(1)
        assert float(square.max()) < 36 and abs(float(square.sum()) - 1000) < 5 * 2000**0.5
    assert torch.equal(law.batch(3500, 500, 2).context, law.batch(3500, 500, 2).context)
    assert not torch.equal(law.batch(3500, 500, 2).context, law.batch(4000, 500, 2).context)


def test_a_mixture_of_one_has_no_labels():
    with pytest.raises(DataError, match="data.labels is true but there is one component"):
        Ring8(modes=1, labels=True)


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor([0, 1, 1, 0, 2]),
        torch.tensor([0.0, 1.0, 1.0, 0.0, 2.0]),
        np.array([0, 1, 1, 0, 2], dtype=">u2"),
        torch.tensor([[0], [1], [1], [0], [2]]),
    ],
)
def test_forms_of_labels(labels):
    data = TensorData(torch.arange(5), labels=labels)
    want = {0: 0, 1: 1, 2: 1, 3: 0, 4: 2}
    assert data.classes == 3 and [want[int(r)] for r in data.train] == data.train_labels.tolist()
    assert [want[int(r)] for r in data.rest] == data.rest_labels.tolist()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 0, 1], r"data.labels has shape \(4,\) for 5 rows"),
        ([[0, 1]] * 5, r"data.labels has shape \(5, 2\) for 5 rows"),
        ([0, 1, 0.5, 1, 0], "numbers that are not whole"),
        ([0, 1, math.nan, 1, 0], "numbers that are not whole"),
        ([0, 1, math.inf, 1, 0], "labels beyond 2"),
        ([0, 1, -1, 1, 0], "holds the label -1"),
        ([0, 0, 0, 0, 0], r"holds one class only \(0\)"),
        ([1, 2, 1, 2, 3], "runs to 3 but no row has label 0"),
        ([0, 1, 0, 1, 5], "runs to 5 but no row has label 2; label the classes 0, 1, ..., K-1 without gaps"),
    ],
)
def test_labels_refused(labels, message):
    with pytest.raises(DataError, match=message):
        TensorData(torch.arange(5), labels=torch.tensor(labels))


def test_text_labels_refused():
    with pytest.raises(DataError, match="data.labels holds values of type <U3"):
        TensorData(torch.arange(4), labels=np.array(["cat", "dog", "cat", "dog"]))


# -- files ------------------------------------------------------------------------------------------------------------


def test_labels_from_a_second_file(tmp_path):
    rows = np.arange(40.0)
    np.save(tmp_path / "rows.npy", rows)
    np.savetxt(tmp_path / "kinds.csv", rows % 4, header="kind", comments="", fmt="%d")
    data = ArrayData(tmp_path / "rows.npy", labels=str(tmp_path / "kinds.csv"))
    assert data.classes == 4
    for index in range(9):
        batch = data.batch(10 * index, 10, 0)
        assert torch.equal(batch.context, data.to_user(batch.x).flatten().round().long() % 4)
    rest = data.held_out(99)
    assert torch.equal(rest.context, data.to_user(rest.x).flatten().round().long() % 4)


def test_malformed_label_files(tmp_path):
    np.save(tmp_path / "rows.npy", np.arange(40.0))
    cases = {
        "none.npy": (None, "no file"),
        "few.npy": (np.arange(39) % 2, r"has shape \(39,\) for 40 rows"),
        "half.npy": (np.arange(40) % 2 / 2, "not whole"),
        "words.npy": (np.array(["a", "b"] * 20), "values of type <U1"),
        "two.npz": ({"x": np.zeros(3), "y": np.zeros(3)}, r"holds 2 arrays \(x, y\); give a file with one array"),
        "empty.csv": ("", "is empty"),
    }
    for name, (content, message) in cases.items():
        file = tmp_path / name
        if isinstance(content, dict):
            np.savez(file, **content)
        elif isinstance(content, str):
            file.write_text(content)
        elif content is not None:
            np.save(file, content)
        with pytest.raises(DataError, match=f"^data.labels: .*{message}") as caught:
            ArrayData(tmp_path / "rows.npy", labels=file)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_labelled_sampler_draws_a_block_once(monkeypatch):
    """As often with labels as without: a block of rows and its labels are one draw."""
    from se_framework.data import Gaussians8

    counts = {}
    for labels in (False, True):
        law, calls = Gaussians8(labels=labels), []
        own = law.draw
        law.draw = lambda n, draw, own=own, calls=calls: (calls.append(n), own(n, draw))[1]
        for start in range(0, 640, 64):
            law.batch(start, 64, 0)
        counts[labels] = len(calls)
    assert counts[True] == counts[False] == 1
