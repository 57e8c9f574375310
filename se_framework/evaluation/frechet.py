r"""Frechet distance on the 8 x 8 digits, in the features of a small classifier, with the figures that put it in scale.

With Gaussians fitted to the features of two samples,

.. math:: F = |\mu_1-\mu_2|^2 + \mathrm{tr}\,\bigl(S_1 + S_2 - 2 (S_1^{1/2} S_2 S_1^{1/2})^{1/2}\bigr),

the squared 2-Wasserstein distance between those Gaussians (Dowson and Landau, 1982), used as in Heusel et al., "GANs
Trained by a Two Time-Scale Update Rule" (2017). The features are the 64 ReLU units of a 64-64-10 perceptron trained on
the training split, so the figure is comparable between runs of this package, not with figures of other feature nets.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from se_framework.data.digits import Digits
from se_framework.errors import NonFiniteError

SAMPLES = 10_000
COMPONENTS = (1, 2, 5, 10, 20, 40)
# Keeps the covariance of pixels that are always blank regular; in squared pixel units (pixels run 0..16).
REG_COVAR = 0.1


class Features(NamedTuple):
    """The first layer of the classifier.

    Attributes:
        weight: shape (64, 64).
        bias: shape (64,).
        accuracy: accuracy of the whole classifier on the held-out digits.
    """

    weight: Tensor
    bias: Tensor
    accuracy: float


@lru_cache(maxsize=1)
def digits() -> Digits:
    """Return the digits, loaded once per process."""
    return Digits()


@lru_cache(maxsize=1)
def classifier() -> Features:
    """Train the 64-64-10 classifier on pixels / 16 of the training split, once per process."""
    from sklearn.neural_network import MLPClassifier

    data = digits()
    net = MLPClassifier(hidden_layer_sizes=(64,), alpha=0.1, learning_rate_init=1e-3, max_iter=1000, random_state=0)
    net.fit(_pixels(data.train) / 16, data.train_labels.numpy())
    accuracy = net.score(_pixels(data.rest) / 16, data.rest_labels.numpy())
    return Features(torch.as_tensor(net.coefs_[0]), torch.as_tensor(net.intercepts_[0]), float(accuracy))


def features(x: Tensor) -> Tensor:
    r"""Return the hidden units of the classifier.

    Args:
        x: digits in user units (pixels 0..16; not clipped), shape (n, 64) or (n, 8, 8).

    Returns:
        Features of shape (n, 64), in float64.
    """
    net = classifier()
    return torch.relu(x.detach().cpu().double().flatten(1) / 16 @ net.weight + net.bias)


def gaussian_frechet(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    r"""Return :math:`|\mu_1-\mu_2|^2 + \mathrm{tr}(S_1+S_2-2(S_1^{1/2}S_2S_1^{1/2})^{1/2})`.

    The trace of the root is the sum of the singular values of :math:`S_1^{1/2}S_2^{1/2}`, which needs no square root of
    a product, so singular covariances (units that never fire) are harmless.

    Args:
        mean1: shape (d,).
        cov1: symmetric positive semidefinite, shape (d, d).
        mean2: shape (d,).
        cov2: shape (d, d).
    """
    cross = torch.linalg.svdvals(_root(cov1) @ _root(cov2)).sum()
    value = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * cross
    # Exactly zero for equal Gaussians; rounding may bring it below.
    return max(float(value), 0.0)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Return the Frechet distance between Gaussians fitted to two samples of features, (n, d) and (m, d).

    Raises:
        ValueError: a sample has fewer than two points.
        NonFiniteError: a feature is not finite.
    """
    for points in (a, b):
        if len(points) < 2:
            raise ValueError(f"a covariance needs at least 2 points, got {len(points)}; draw more samples")
        if not bool(torch.isfinite(points).all()):
            raise NonFiniteError("samples hold NaN or infinite values, so they have no Frechet distance; train anew")
    a, b = a.double(), b.double()
    return gaussian_frechet(a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T))


def frechet(samples: Tensor) -> float:
    """Return the Frechet distance of digits in user units, (n, 64), to the held-out digits."""
    data = digits()
    return frechet_distance(features(samples), features(data.to_user(data.rest)))


@lru_cache(maxsize=8)
def references(n: int = SAMPLES) -> dict[str, float]:
    """Return the Frechet distances of n points of laws that involve no network, to the held-out digits.

    Few points have a larger distance: their covariance is further from that of their law.

    Args:
        n: points of each, at most :data:`SAMPLES`; of the training digits as many as there are.

    Returns:
        ``gaussian``: one Gaussian with full covariance, fitted to the training pixels, its samples not clipped;
        ``gaussian_mixture``: the best of several mixtures; ``real_vs_real``: the training digits. The last is a
        reference, not a bound: it carries the noise of two finite samples.
    """
    data = digits()
    gauss = _fit_gaussian(_pixels(data.train))
    return {
        "gaussian": frechet(gauss[:n]),
        "gaussian_mixture": frechet(mixture()[0][:n]),
        "real_vs_real": frechet(data.to_user(data.train[_order(len(data.train))[:n]])),
    }


def _order(n: int) -> Tensor:
    """Return the numbers of n rows in an order by chance, the same in every process."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(0))


@lru_cache(maxsize=1)
def mixture() -> tuple[Tensor, int]:
    """Fit Gaussian mixtures to the training pixels and sample the best.

    The number of components maximises the likelihood of a fifth of the training split; the chosen one is then fitted
    to all of it.

    Returns:
        Samples in user units, shape (10000, 64), and the number of components.
    """
    from sklearn.mixture import GaussianMixture
    from sklearn.model_selection import train_test_split

    data = digits()
    pixels = _pixels(data.train)
    fit, validation = train_test_split(pixels, test_size=0.2, stratify=data.train_labels.numpy(), random_state=0)

    def model(count: int) -> GaussianMixture:
        return GaussianMixture(count, covariance_type="full", reg_covar=REG_COVAR, random_state=0)

    best = max(COMPONENTS, key=lambda count: model(count).fit(fit).score(validation))
    samples, _ = model(best).fit(pixels).sample(SAMPLES)
    # scikit-learn returns the components one after the other.
    return torch.as_tensor(np.random.default_rng(0).permutation(samples)), best


def nearest_train(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance to the nearest training digit and its index, both (n,), for digits in user units (n, 64)."""
    data = digits()
    train = data.to_user(data.train).double()
    found = [torch.cdist(part, train).min(1) for part in samples.detach().cpu().double().flatten(1).split(2_000)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def _fit_gaussian(pixels: np.ndarray) -> Tensor:
    draw = np.random.default_rng(0)
    root = _root(torch.cov(torch.as_tensor(pixels).T))
    noise = torch.as_tensor(draw.standard_normal((SAMPLES, pixels.shape[1])))
    return torch.as_tensor(pixels).mean(0) + noise @ root


def _root(cov: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh((cov + cov.T) / 2)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _pixels(x: Tensor) -> np.ndarray:
    return digits().to_user(x).double().numpy()
