"""The handwritten digits that scikit-learn bundles: as images, and as a law with a density."""

from __future__ import annotations

import torch
from torch import Tensor

from se_framework.data.features import Features, of_digits
from se_framework.data.rows import SPLIT_SEED
from se_framework.data.tensors import TensorData
from se_framework.data.transforms import Name, transform_of

_LEVELS = 17  # values of a pixel of scikit-learn's digits


class Digits(TensorData):
    """The 1,797 handwritten digits of 8 x 8 pixels bundled with scikit-learn: pixels 0..16, model space [-1, 1].

    The split is 70/30, stratified, the same always.

    Args:
        labels: give the models the digit as a label; ``train_labels`` and ``rest_labels`` are known either way.

    Attributes:
        train_labels: labels of the training rows, shape (1257,).
        rest_labels: labels of the held-out rows, shape (540,).
    """

    sources: tuple[str, ...] = ("alpaydin1998optical", "pedregosa2011scikit")
    train_labels: Tensor
    rest_labels: Tensor

    def __init__(self, labels: bool = False) -> None:
        train, rest, self.train_labels, self.rest_labels = _split_digits()
        self.classes = 10 if labels else 0
        self._set(train, rest, 8.0, 8.0, "digits", (8, 8))

    @property
    def features(self) -> Features:  # type: ignore[override]
        """Units of a small digit classifier."""
        return of_digits()


class DequantizedDigits(TensorData):
    r"""The digits as a law with a density: :math:`(x+u)/17`, x in 0..16 a pixel, :math:`u\sim U[0,1)` fresh per epoch.

    Without u, pixels lie on 17 values and the likelihood of a flow is unbounded. The split is that of :class:`Digits`;
    held-out rows carry one fixed draw of u, so likelihoods of different models and seeds compare.

    Source: Uria, Murray, Larochelle, "RNADE", NIPS 2013, section 6.1.

    Attributes:
        train: training rows without noise, x / 17, shape (1257, 64).
        train_labels: labels of the training rows, shape (1257,).
        rest_labels: labels of the held-out rows, shape (540,).

    Args:
        labels: give the digit as class label to the models.
        transform: what maps [0, 1] to the line: none, logit or gaussianise (:mod:`se_framework.data.transforms`);
            fitted to all training rows, those of validation among them. Likelihoods stay those of [0, 1].

    Raises:
        DataError: there is no such map.
    """

    sources: tuple[str, ...] = ("alpaydin1998optical", "pedregosa2011scikit", "uria2013rnade")
    train_labels: Tensor
    rest_labels: Tensor

    def __init__(self, labels: bool = False, transform: Name = "none") -> None:
        train, rest, self.train_labels, self.rest_labels = _split_digits()
        self.classes = 10 if labels else 0
        steps = torch.full((64,), 1 / _LEVELS, dtype=torch.float64)
        self._set(train / _LEVELS, rest / _LEVELS, 0.0, 1.0, "digits_dequantized", (8, 8), steps)
        self.transform = transform_of(transform, train, _LEVELS)
        self.support = (0.0, 1.0) if self.transform is None else None


def _split_digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return pixels 0..16 in float64 and labels: training rows, held-out rows, training labels, held-out labels."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    train, rest, *labels = train_test_split(x, y, test_size=0.3, stratify=y, random_state=SPLIT_SEED)
    return tuple(torch.as_tensor(part) for part in (train, rest, *labels))  # type: ignore[return-value]
