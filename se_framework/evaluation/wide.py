r"""Simple densities of wide rows (images): Gaussians, and mixtures of them, that share one covariance.

As many rows as an image has pixels say little about a covariance, and nothing about one of each component. So the
components, found by EM in the first principal components, share the covariance within them, shrunk to its diagonal,
:math:`\Sigma=(1-b)W+b\,\text{diag}\,W`; their number and b are those that are best on a fifth of the rows.
"""

from __future__ import annotations

import warnings
from itertools import product
from typing import NamedTuple

import numpy as np

from se_framework.data.rows import split

AXES = 50
COMPONENTS = (10, 20)
SHRINKS = (0.1, 0.2, 0.35, 0.5)
FLOOR = 1e-3
"""Added to variances, as a share of their mean: coordinates that never change have none."""


class Tied(NamedTuple):
    """Gaussians of one covariance.

    Attributes:
        weights: shape (K,).
        means: shape (K, d).
        within: covariance within them, shape (d, d).
    """

    weights: np.ndarray
    means: np.ndarray
    within: np.ndarray

    def nll(self, rows: np.ndarray, shrink: float) -> float:
        """Return the mean negative log-density of rows, (n, d), in nats."""
        from scipy.linalg import solve_triangular
        from scipy.special import logsumexp

        variances = np.diag(self.within)
        covariance = (1 - shrink) * self.within + np.diag(shrink * variances + FLOOR * variances.mean())
        factor = np.linalg.cholesky(covariance)
        # |a - b|^2 of whitened points, expanded: of rows and components alone, not of each pair.
        x, m = (solve_triangular(factor, (part - rows.mean(0)).T, lower=True).T for part in (rows, self.means))
        squares = (x**2).sum(1)[:, None] - 2 * x @ m.T + (m**2).sum(1)
        log_density = logsumexp(np.log(self.weights) - squares / 2, axis=1)
        return float(np.log(np.diag(factor)).sum() + len(factor) / 2 * np.log(2 * np.pi) - log_density.mean())


def tied(rows: np.ndarray, components: int) -> Tied:
    """Fit Gaussians of one covariance to rows, (n, d)."""
    if components == 1:
        return Tied(np.ones(1), rows.mean(0, keepdims=True), np.cov(rows.T, bias=True))
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    found = PCA(min(AXES, *rows.shape), svd_solver="randomized", random_state=0).fit_transform(rows)
    ridge = 0.05 * found.var(0).mean()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # EM that has not converged is a density all the same
        mixture = GaussianMixture(components, reg_covar=ridge, random_state=0).fit(found)
    share = mixture.predict_proba(found)
    means = (share.T @ rows) / share.sum(0)[:, None]
    weights = share.mean(0)
    # The covariance of the whole is that within components and that of their means.
    second = rows.T @ rows / len(rows)
    return Tied(weights, means, second - (means.T * weights) @ means)


def references(train: np.ndarray, rest: np.ndarray) -> dict[str, float]:
    """Return held-out negative log-likelihoods in nats, in the units of the rows.

    Args:
        train: shape (n, d).
        rest: shape (m, d).

    Returns:
        ``gaussian`` and ``mixture``.
    """
    kept, apart = (index.numpy() for index in split(len(train), 0.2, purpose="validation"))

    def best(counts: tuple[int, ...]) -> float:
        tried = {count: tied(train[kept], count) for count in counts}
        count, shrink = min(product(counts, SHRINKS), key=lambda own: tried[own[0]].nll(train[apart], own[1]))
        return tied(train, count).nll(rest, shrink)

    return {"gaussian": best((1,)), "mixture": best(tuple(count for count in COMPONENTS if 5 * count <= len(kept)))}
