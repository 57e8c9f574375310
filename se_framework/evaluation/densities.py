r"""What simple densities reach: the figures that put a flow's likelihood in scale.

On rows of a table: :func:`of_rows`. On the dequantised digits: :func:`references`. There a Gaussian with full
covariance and Gaussian mixtures are fitted to the training rows, once to the values themselves and once to their logits
:math:`y=\log(p/q)`, p = a + (1-2a) x, q = 1 - p, whose density carries over by

.. math:: \log p(x)=\log p(y)+\sum_i\log\frac{1-2a}{p_iq_i}.

The margin a, the number of components and what is added to the covariances are those of the best *held-out* value:
the figures favour these densities, so that a flow that is better is better than all of them.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from itertools import product

import numpy as np
import torch

from se_framework.data import Data, fingerprint
from se_framework.data.rows import SPLIT_SEED, split
from se_framework.evaluation import wide

MARGINS = (1e-6, 1e-3, 3e-3, 1e-2)
"""Values of a. The larger ones tame the tails that the logits of blank pixels have."""
COMPONENTS = (5, 10)
# Added to the diagonal of the covariances; beside variances of 3e-4 to 0.2 (values) and of 1 to 10 (logits).
VALUE_RIDGES = (1e-5, 3e-4)
LOGIT_RIDGES = (0.1, 0.3)
DRAWS = 4
"""Draws of the noise that the training rows are repeated with."""

MOST_ROWS, MOST_COLUMNS = 5_000, 256
"""Of a table that densities are fitted to: they take seconds."""
WIDEST = 1_024
MIXTURES = tuple(product((2, 3, 5, 8, 12), ("full", "diag"), (1e-3, 1e-1)))
"""Components, kind of covariance, and what is added to variances, which are one in model space."""


def of_rows(data: Data, n: int, seed: int) -> dict[str, float]:
    r"""Return held-out negative log-likelihoods in nats, in user units, of densities fitted to the training rows.

    ``gaussian``: maximum likelihood, with 1e-6 of each variance added. ``mixture``: of Gaussians, by EM; the number of
    components and the kind of covariance are those that are best on a fifth of the rows, then it is fitted to all.
    Validation rows are training rows here: neither is stopped early. Of rows wider than :data:`MOST_COLUMNS` they are
    those of :mod:`se_framework.evaluation.wide`.

    Args:
        data: any; there are none (an empty result) where rows do not end, have labels, are whole numbers, are wider
            than :data:`WIDEST` or fewer than their columns.
        n: held-out rows at most.
        seed: selects them.
    """
    size = torch.Size(data.event_shape).numel()
    if data.train_size is None or data.classes or size > WIDEST or not data.dtype.is_floating_point:
        return {}
    train = data.reference_rows(MOST_ROWS).x.double().cpu().flatten(1).numpy()
    apart = data.held_out(n, seed).x.double().cpu()
    rest = apart.flatten(1).numpy()
    if len(train) <= train.shape[1] + 1 or not (train.std(0) > 0).all():
        return {}
    if size > MOST_COLUMNS:
        found = wide.references(train, rest)
    else:
        found = {"gaussian": _gaussian(train, rest), "mixture": _mixture(train, rest)}
    slope = float(data.log_slope(apart).mean())
    return {name: value + slope for name, value in found.items()}


def _gaussian(train: np.ndarray, rest: np.ndarray) -> float:
    """Return the negative log-likelihood of rows under the Gaussian fitted to others."""
    covariance = np.cov(train.T, bias=True).reshape(train.shape[1], -1)
    factor = np.linalg.cholesky(covariance + 1e-6 * np.diag(np.diag(covariance)))
    z = np.linalg.solve(factor, (rest - train.mean(0)).T)
    return float((0.5 * (z**2 + np.log(2 * np.pi)).sum(0)).mean() + np.log(np.diag(factor)).sum())


def _mixture(train: np.ndarray, rest: np.ndarray) -> float:
    from sklearn.mixture import GaussianMixture

    kept, apart = (index.numpy() for index in split(len(train), 0.2, purpose="validation"))

    def fitted(own: tuple[int, str, float], rows: np.ndarray) -> GaussianMixture:
        k, kind, ridge = own
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # EM that has not converged is a density all the same
            return GaussianMixture(k, covariance_type=kind, reg_covar=ridge, random_state=0).fit(rows)

    grid = [own for own in MIXTURES if own[0] < len(kept)]
    best = max(grid, key=lambda own: fitted(own, train[kept]).score(train[apart]))
    return -float(fitted(best, train).score(rest))


_found: OrderedDict[str, dict[str, float]] = OrderedDict()
KEPT = 4


def references(data: Data) -> dict[str, float]:
    """Return held-out negative log-likelihoods in nats, computed once per process and content (about ten seconds).

    Args:
        data: whose values lie in [0, 1], with training rows that carry other noise in every epoch.

    Returns:
        ``gaussian`` and ``gaussian_logit``: full covariance; ``mixture`` and ``mixture_logit``: the best of the grid.
    """
    count = data.train_size
    assert count is not None
    draws = [data.batch(i * count, count, SPLIT_SEED).x.double().cpu() for i in range(DRAWS)]
    held_out = data.held_out(MOST_ROWS).x.double().cpu()
    key = fingerprint.of_tensors([*draws, held_out])
    if key not in _found:
        _found[key] = _of_unit_interval(torch.cat(draws).flatten(1).numpy(), held_out.flatten(1).numpy())
        while len(_found) > KEPT:
            _found.popitem(last=False)
    return dict(_found[key])


def _of_unit_interval(train: np.ndarray, rest: np.ndarray) -> dict[str, float]:
    found = {
        "gaussian": _nll(train, rest, (1,), VALUE_RIDGES),
        "mixture": _nll(train, rest, COMPONENTS, VALUE_RIDGES),
        "gaussian_logit": np.inf,
        "mixture_logit": np.inf,
    }
    for margin in MARGINS:
        y, _ = logits(train, margin)
        y_rest, log_det = logits(rest, margin)
        shift = float(log_det.mean())
        for name, components in (("gaussian_logit", (1,)), ("mixture_logit", COMPONENTS)):
            found[name] = min(found[name], _nll(y, y_rest, components, LOGIT_RIDGES) - shift)
    return found


def logits(x: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of values in [0, 1], (n, d), and the log-determinant of the map at each row, (n,)."""
    p, q = (margin + (1 - 2 * margin) * part for part in (x, 1 - x))
    return np.log(p / q), np.log((1 - 2 * margin) / (p * q)).sum(1)


def _nll(train: np.ndarray, rest: np.ndarray, components: tuple[int, ...], ridges: tuple[float, ...]) -> float:
    """Return the least held-out negative log-likelihood over the grid."""
    from sklearn.mixture import GaussianMixture

    models = (GaussianMixture(k, reg_covar=ridge, random_state=0) for k, ridge in product(components, ridges))
    return -max(float(model.fit(train).score(rest)) for model in models)
