"""The fingerprint of data: the same for the same data wherever it lies, another for any other; a resumed run asks."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from se_framework import compose
from se_framework.data import (
    ArrayData,
    Digits,
    ImageFolder,
    Moons,
    Ring8,
    Sampler,
    StreamedArray,
    StreamedData,
    StreamedImages,
    TensorData,
    fingerprint,
)
from se_framework.errors import ConfigError, DataError, RunDirectoryError
from se_framework.runs.directory import RunDirectory
from se_framework.runs.provenance import check_fingerprint, record_fingerprint
from tests.support.datasets import Augmented, Plain


@pytest.fixture
def files(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((50, 2)))
    np.save(tmp_path / "y.npy", np.arange(50) % 2)
    for i in range(6):
        (tmp_path / "images" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (i, 2 * i, 3 * i)).save(tmp_path / "images" / "ab"[i % 2] / f"{i}.png")
    return tmp_path


def test_of_a_file_is_the_hash_of_its_bytes(files):
    content = (files / "x.npy").read_bytes()
    digest = hashlib.sha256(repr(([len(content)], [])).encode() + content).hexdigest()
    for data in (ArrayData(files / "x.npy"), StreamedArray(files / "x.npy"), StreamedArray(files / "x.npy", workers=2)):
        assert data.fingerprint() == f"sha256:{digest[:32]}"
    labelled = ArrayData(files / "x.npy", labels=files / "y.npy").fingerprint()
    (files / "x.npy").rename(files / "z.npy")
    assert ArrayData(files / "z.npy", labels=files / "y.npy").fingerprint() == labelled
    (files / "z.npy").rename(files / "x.npy")
    assert labelled == StreamedArray(files / "x.npy", labels=files / "y.npy").fingerprint() != data.fingerprint()


def test_of_a_folder_sees_names_and_bytes_and_not_its_place(files):
    folder = files / "images"
    first = ImageFolder(folder, size=4).fingerprint()
    assert first == StreamedImages(folder, size=4).fingerprint()
    moved = folder.rename(files / "moved")
    assert StreamedImages(moved, size=4).fingerprint() == first
    # Another class for the last image of the first one: the bytes are the same in the same order.
    (moved / "a" / "4.png").rename(moved / "b" / "0.png")
    assert StreamedImages(moved, size=4).fingerprint() != first
    (moved / "b" / "0.png").rename(moved / "a" / "4.png")
    # Bytes that lie in the middle of what is hashed, and are as many as before.
    content = bytearray((moved / "a" / "4.png").read_bytes())
    content[-1] ^= 1
    (moved / "a" / "4.png").write_bytes(content)
    assert StreamedImages(moved, size=4).fingerprint() != first


def test_one_value_counts():
    x = torch.rand(50, 2)
    y = x.clone()
    y[17, 1] += 1e-7
    assert TensorData(x).fingerprint() == TensorData(x.clone()).fingerprint() != TensorData(y).fingerprint()
    assert TensorData(x.double()).fingerprint() != TensorData(x).fingerprint()
    labels = torch.arange(50) % 2
    assert TensorData(x, labels=labels).fingerprint() != TensorData(x, labels=1 - labels).fingerprint()
    assert Digits().fingerprint() == Digits(labels=True).fingerprint()


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 5000, 8192, 100_000])
def test_large_data_is_hashed_in_blocks_that_are_spread_evenly(size, monkeypatch, tmp_path):
    monkeypatch.setattr(fingerprint, "BLOCK", 256)
    monkeypatch.setattr(fingerprint, "LIMIT", 4096)
    content = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    blocks = list(fingerprint._blocks(size))
    hashed = np.zeros(size, bool)
    for start, stop in blocks:
        assert 0 <= start < stop <= size and not hashed[start:stop].any()
        hashed[start:stop] = True
    assert hashed.sum() == min(size, 4096)
    if size > 4096:
        assert hashed[0] and hashed[-1] and np.diff([s for s, _ in blocks]).max() <= -(-(size - 256) // 15)
    # The same whether the bytes are in one piece or in many, up to the sizes, which are hashed as well.
    cuts = [0, size // 3, size // 3, size // 2, size]
    seen, files = [], [tmp_path / f"{i}" for i in range(4)]
    for i, (a, b) in enumerate(zip(cuts, cuts[1:], strict=False)):
        files[i].write_bytes(content[a:b].tobytes())
    read = fingerprint._of_pieces(
        [b - a for a, b in zip(cuts, cuts[1:], strict=False)],
        lambda i, start, stop: seen.append(content[cuts[i] + start : cuts[i] + stop]) or seen[-1].tobytes(),
        [],
    )
    assert np.array_equal(np.concatenate([*seen, content[:0]]), content[hashed])
    assert read.startswith("sha256:" if size <= 4096 else "sha256-of-blocks:")
    if size:
        before = fingerprint.of_files(files)
        place = int(np.flatnonzero(hashed)[len(np.flatnonzero(hashed)) // 2])
        piece = int(np.searchsorted(cuts[1:], place, side="right"))
        changed = content[cuts[piece] : cuts[piece + 1]].copy()
        changed[place - cuts[piece]] ^= 1
        files[piece].write_bytes(changed.tobytes())
        assert fingerprint.of_files(files) != before


def test_of_a_dataset_is_its_length_and_some_rows():
    assert StreamedData(Augmented()).fingerprint() == StreamedData(Augmented(), workers=2).fingerprint()
    assert StreamedData(Plain(30)).fingerprint() == StreamedData(Plain(30)).fingerprint()
    assert StreamedData(Plain(30)).fingerprint() != StreamedData(Plain(30), classes=3).fingerprint()
    changed = Plain(31)
    changed.x[-1] += 1
    assert len({StreamedData(d).fingerprint() for d in (Plain(30), Plain(31), changed)}) == 3

    class Reads(Plain):
        count = 0

        def __getitem__(self, i):
            Reads.count += 1
            return self.x[i]

    data = StreamedData(Reads(5000))
    Reads.count = 0
    data.fingerprint()
    assert Reads.count == 32


class Cube(Sampler):
    event_shape = (3,)
    name = "cube"

    def draw(self, n, generator):
        return torch.rand((n, 3), generator=generator)


class Addressed(Cube):
    def __repr__(self):
        return object.__repr__(self)


def test_of_a_law_is_its_type_and_description():
    assert Ring8().fingerprint() == Ring8().fingerprint() != Moons().fingerprint()
    assert Cube().fingerprint() == Cube().fingerprint() != Ring8().fingerprint()
    laws = [Addressed(), Addressed()]
    assert laws[0].fingerprint() == laws[1].fingerprint()


def test_a_run_goes_on_with_its_own_data_only(files, tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    data = ArrayData(files / "x.npy")
    check_fingerprint(run, data)  # a run of before there were records gets one
    recorded = json.loads((run.path / "data.json").read_text())
    assert recorded == {
        "name": "x", "event_shape": [2], "training_rows": 45, "fingerprint": data.fingerprint()
    }  # fmt: skip
    check_fingerprint(run, StreamedArray(files / "x.npy"))
    then = data.fingerprint()
    np.save(files / "x.npy", np.random.default_rng(1).random((50, 2)))
    other = ArrayData(files / "x.npy")
    message = f"^data.path: '.*x.npy' is not the data that .*run was started with .fingerprint {then} then, "
    with pytest.raises(DataError, match=message + other.fingerprint()) as caught:
        check_fingerprint(run, other)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"^data \(ring8\) is not the data"):
        check_fingerprint(run, Ring8())
    record_fingerprint(run, other)
    check_fingerprint(run, other)
    (run.path / "data.json").write_text("{")
    with pytest.raises(RunDirectoryError, match="data.json cannot be read"):
        check_fingerprint(run, other)


def test_the_command_refuses_a_changed_file(files, tmp_path, monkeypatch):
    from se_framework.commands import train
    from se_framework.config.composing import compose as compose_config

    monkeypatch.setattr(train, "finish", lambda *_: 0.0)
    short = ["experiment=vanilla_gan", "loop.rounds=2", "loop.batch_size=8", "progress=false", "device=cpu"]
    typed = [*short, "data=array_streamed", f"data.path={files / 'x.npy'}"]
    train.train_run(compose_config(None, typed), tmp_path / "run", typed)
    again = [f"resume={tmp_path / 'run'}", "loop.rounds=3", "workers=1"]
    train.train_run(compose_config(None, again), tmp_path / "run", again)
    np.save(files / "x.npy", np.random.default_rng(1).random((50, 2)))
    again[1] = "loop.rounds=4"
    with pytest.raises(DataError, match="x.npy' is not the data that"):
        train.train_run(compose_config(None, again), tmp_path / "run", again)
    assert RunDirectory(tmp_path / "run").load_checkpoint()[0]["round"] == 3
    with pytest.raises(ConfigError, match="workers must be at least 0"):
        compose(None, ["workers=-1"])
