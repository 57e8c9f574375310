r"""The bar: the best mixture of Gaussians by validation, fitted to training rows, sampled and scored as a model is.

Rows are taken in user units where all features share one scale, else in model space, so that no unit outweighs another.
Of more than :data:`MOST` coordinates the mixture is one of their first principal components (what is left out is not
drawn). The number of components is the one of the largest likelihood of a fifth of the rows; then it is fitted to all.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.laws import Particles
from se_framework.data import fingerprint
from se_framework.data.base import Data

ROWS = 2_000
"""Rows that a mixture is fitted to at most."""
NUMBERS = 2**24
"""Numbers in them at most; no mixture is fitted where that leaves fewer than :data:`LEAST` rows."""
LEAST = 20
MOST = 64
"""Coordinates that a mixture has at most."""
LOW = 16
"""Coordinates up to which a covariance is estimated well by itself."""
COMPONENTS_LOW, COMPONENTS = (1, 2, 4, 8, 16, 32), (1, 2, 5, 10, 20, 40)
RIDGE_LOW, RIDGE = 1e-6, 1 / 640
"""Added to variances: a share of their mean in few coordinates; in many, in model space. The latter is 0.1 in squared
units of pixels that run from 0 to 16, and keeps covariances of pixels regular that are always blank."""
DRAWN = 10_000
KEPT = 8


class _Fit(NamedTuple):
    components: int
    rows: int
    model: Any
    latent: np.ndarray
    mean: np.ndarray | None
    axes: np.ndarray | None


class Mixture:
    """A fitted mixture.

    Attributes:
        components: how many.
        rows: that it was fitted to.
    """

    def __init__(self, fit: _Fit, loc: Tensor, scale: Tensor, shape: tuple[int, ...]) -> None:
        self.components, self.rows = fit.components, fit.rows
        self._fit, self._loc, self._scale, self._shape = fit, loc, scale, shape

    def sample(self, n: int) -> Tensor:
        r"""Return the first n, at most :data:`DRAWN`, of always the same samples in user units, (n, \*E), float64."""
        drawn = self._fit.latent[:n]
        if self._fit.axes is not None and self._fit.mean is not None:
            drawn = self._fit.mean + drawn @ self._fit.axes
        return self._loc + self._scale * torch.as_tensor(drawn).unflatten(1, self._shape)

    @property
    def has_log_prob(self) -> bool:
        """Whether it is a density of the points, not of their first principal components."""
        return self._fit.axes is None

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Return the log-density in user units at points in user units, (n, \*E) to (n,)."""
        points = ((x.double() - self._loc) / self._scale).flatten(1)
        shift = self._scale.log().expand(self._shape).sum()
        return torch.as_tensor(self._fit.model.score_samples(points.numpy())) - shift


_found: OrderedDict[str, Mixture | None] = OrderedDict()


def best(data: Data, found: Particles) -> Mixture | None:
    """Return the best mixture of this data, fitted once per process and content; None where none can be fitted.

    That is where there are fewer than :data:`LEAST` rows, all are the same, or they hold whole numbers.

    Args:
        data: whose units they are in.
        found: :meth:`Data.reference_rows`.
    """
    if len(found.x) < LEAST or not found.x.is_floating_point():
        return None
    shared = torch.as_tensor(data.scale).numel() == 1
    rows = (data.to_user(found.x.double()) if shared else found.x.double()).cpu().flatten(1)
    loc, scale = (torch.as_tensor(t, dtype=torch.float64).cpu() for t in (data.loc, data.scale))
    key = fingerprint.of_tensors([rows, loc, scale])
    if key not in _found:
        model = _fit(rows.numpy(), _classes(found.context), float(scale.abs().flatten()[0]) if shared else 1.0)
        if shared:
            loc, scale = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
        _found[key] = None if model is None else Mixture(model, loc, scale, tuple(data.event_shape))
        while len(_found) > KEPT:
            _found.popitem(last=False)
    return _found[key]


def _fit(rows: np.ndarray, labels: np.ndarray | None, scale: float) -> _Fit | None:
    """Return what is fitted to rows, (n, d), whose values are ``scale`` times those of model space."""
    from sklearn.mixture import GaussianMixture
    from sklearn.model_selection import train_test_split

    if not rows.var(0).sum() > 0:
        return None
    points, mean, axes = rows, None, None
    if rows.shape[1] > MOST:
        points, mean, axes = _principal(rows)
    few = rows.shape[1] <= LOW
    ridge = RIDGE_LOW * float(points.var(0).mean()) if few else RIDGE * scale**2
    own, apart = train_test_split(points, test_size=0.2, stratify=labels, random_state=0)

    def fitted(count: int, on: np.ndarray) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # EM that has not converged is a density all the same
            return GaussianMixture(count, covariance_type="full", reg_covar=ridge, random_state=0).fit(on)

    counts = [count for count in (COMPONENTS_LOW if few else COMPONENTS) if 2 * count <= len(own)]
    chosen = max(counts, key=lambda count: float(fitted(count, own).score(apart)))
    model = fitted(chosen, points)
    # scikit-learn returns the components one after the other.
    latent = np.random.default_rng(0).permutation(model.sample(DRAWN)[0])
    return _Fit(chosen, len(rows), model, latent, mean, axes)


def _principal(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return coordinates along the first principal axes, (n, k), the mean, (d,), and the axes, (k, d)."""
    from sklearn.decomposition import PCA

    axes = PCA(min(MOST, len(rows) - 1), svd_solver="randomized", random_state=0).fit(rows)
    return axes.transform(rows), axes.mean_, axes.components_


def _classes(context: Tensor | None) -> np.ndarray | None:
    """Return labels where a split can have some of each class on both sides, else None."""
    if context is None or context.ndim != 1 or context.is_floating_point():
        return None
    counts = context.unique(return_counts=True)[1]
    return context.cpu().numpy() if int(counts.min()) >= 5 else None
