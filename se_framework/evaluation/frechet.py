r"""Frechet distance in the features that data declares, with the figures that put it in scale.

With Gaussians fitted to the features of two samples,

.. math:: F = |\mu_1-\mu_2|^2 + \mathrm{tr}\,\bigl(S_1 + S_2 - 2 (S_1^{1/2} S_2 S_1^{1/2})^{1/2}\bigr),

the squared 2-Wasserstein distance between those Gaussians (Dowson and Landau, 1982), used as in Heusel et al., "GANs
Trained by a Two Time-Scale Update Rule" (2017). Features of the digits are those of a small classifier, so the figure
is comparable between runs of this package, not with figures of other feature nets.

Its standard error is that of the first order in both samples: a point x of the first moves F by
:math:`2(\mu_1-\mu_2)\cdot(x-\mu_1)+(x-\mu_1)^\top(I-A)(x-\mu_1)` over n, with A the optimal map between the Gaussians,
:math:`A=S_1^{-1/2}(S_1^{1/2}S_2S_1^{1/2})^{1/2}S_1^{-1/2}` (the slope of F in S_1 is I - A); inverses are taken where
features vary. Few points have a larger F than many (their covariance is further from that of their law): a figure is
judged against references of as many points, which the error does not replace.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from se_framework.errors import NonFiniteError

VARIES = 1e-10
"""Share of the largest variance below which a direction of the features does not vary."""


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


def frechet_error(a: Tensor, b: Tensor) -> float:
    """Return the standard error of :func:`frechet_distance` over draws of both samples, to first order."""
    total = torch.zeros((), dtype=torch.float64)
    for one, other in ((a.double(), b.double()), (b.double(), a.double())):
        centred, cov = one - one.mean(0), torch.cov(one.T)
        influence = 2 * centred @ (one.mean(0) - other.mean(0)) + centred.square().sum(1)
        influence = influence - (centred @ _transport(cov, torch.cov(other.T)) * centred).sum(1)
        total = total + influence.var() / len(one)
    return float(total.sqrt())


def fitted_gaussian(rows: Tensor, n: int) -> Tensor:
    """Return n samples of the Gaussian with mean and covariance of rows, (m, d), always the same, shape (n, d)."""
    noise = torch.as_tensor(np.random.default_rng(0).standard_normal((n, rows.shape[1])))
    return rows.mean(0) + noise @ _root(torch.cov(rows.T))


def _root(cov: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh((cov + cov.T) / 2)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _transport(cov1: Tensor, cov2: Tensor) -> Tensor:
    """Return the linear map that carries N(0, cov1) to N(0, cov2), on the directions in which the first varies."""
    values, vectors = torch.linalg.eigh((cov1 + cov1.T) / 2)
    root = values.clamp(min=0).sqrt()
    inverse = torch.where(values > VARIES * values.max(), 1 / root.clamp(min=1e-300), 0.0)
    middle = _root((vectors * root).T @ cov2 @ (vectors * root))
    return (vectors * inverse) @ middle @ (vectors * inverse).T
