r"""What scores look at in the place of raw points: a frozen map from points to features, the same for every model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from se_framework.data.digits import Digits


@dataclass(frozen=True)
class Features:
    r"""A frozen feature extractor, which data declares as ``features``.

    Attributes:
        map: from points in user units, (n, \*E) in float64 on the CPU, to features, (n, d).
        name: of what they are, e.g. ``"64 ReLU units of a digit classifier"``.
        accuracy: of the classifier that they are a layer of, on held-out rows; None where there is no such thing.
    """

    map: Callable[[Tensor], Tensor]
    name: str = "features"
    accuracy: float | None = None

    def __call__(self, x: Tensor) -> Tensor:
        r"""Return the features of points in user units, shape (n, d), in float64."""
        with torch.no_grad():
            return self.map(x.detach().cpu().double()).double().flatten(1)


@lru_cache(maxsize=1)
def of_digits() -> Features:
    """Return the 64 ReLU units of a 64-64-10 perceptron trained on the digits' training split, once per process.

    Its input is pixels / 16, in user units (pixels 0..16; not clipped), shape (n, 64) or (n, 8, 8).
    """
    from sklearn.neural_network import MLPClassifier

    from se_framework.data.digits import Digits

    def pixels(data: Digits, x: Tensor) -> Tensor:
        return data.to_user(x).double() / 16

    data = Digits()
    net = MLPClassifier(hidden_layer_sizes=(64,), alpha=0.1, learning_rate_init=1e-3, max_iter=1000, random_state=0)
    net.fit(pixels(data, data.train).numpy(), data.train_labels.numpy())
    accuracy = net.score(pixels(data, data.rest).numpy(), data.rest_labels.numpy())
    weight, bias = torch.as_tensor(net.coefs_[0]), torch.as_tensor(net.intercepts_[0])
    return Features(
        lambda x: torch.relu(x.flatten(1) / 16 @ weight + bias), "64 units of a classifier", float(accuracy)
    )
