r"""What simple densities reach on the dequantised digits: the figures that put a flow's likelihood in scale.

A Gaussian with full covariance and Gaussian mixtures are fitted to the training rows, once to the values themselves
and once to their logits :math:`y=\log(p/q)`, p = a + (1-2a) x, q = 1 - p, whose density carries over by

.. math:: \log p(x)=\log p(y)+\sum_i\log\frac{1-2a}{p_iq_i}.

The margin a, the number of components and what is added to the covariances are those of the best *held-out* value:
the figures favour these densities, so that a flow that is better is better than all of them.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np

from se_framework.data.tensors import SPLIT_SEED, DequantizedDigits

MARGINS = (1e-6, 1e-3, 3e-3, 1e-2)
"""Values of a. The larger ones tame the tails that the logits of blank pixels have."""
COMPONENTS = (5, 10)
# Added to the diagonal of the covariances; beside variances of 3e-4 to 0.2 (values) and of 1 to 10 (logits).
VALUE_RIDGES = (1e-5, 3e-4)
LOGIT_RIDGES = (0.1, 0.3)
DRAWS = 4
"""Draws of the noise that the training rows are repeated with."""


@lru_cache(maxsize=1)
def references() -> dict[str, float]:
    """Return held-out negative log-likelihoods in nats, computed once per process (about ten seconds).

    Returns:
        ``gaussian`` and ``gaussian_logit``: full covariance; ``mixture`` and ``mixture_logit``: the best of the grid.
    """
    data = DequantizedDigits()
    draws = [data.batch(i * len(data.train), len(data.train), SPLIT_SEED).x.double().numpy() for i in range(DRAWS)]
    train = np.concatenate(draws)
    rest = data.rest.numpy()
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
