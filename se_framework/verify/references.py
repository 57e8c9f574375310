r"""The independent side of claims on finite alphabets: sums, searches and linear programs in numpy and scipy.

Nothing here imports the divergences, models or auxiliaries under test.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import optimize

Law = np.ndarray
Functional = Callable[[np.ndarray, np.ndarray], np.ndarray]


def kl(q: Law, p: Law) -> np.ndarray:
    """Return sum q log(q/p); analytic, so that it takes complex steps."""
    return (q * np.log(q / p)).sum()


def jensen_shannon(q: Law, p: Law) -> np.ndarray:
    """Return the mean of KL(q, m) and KL(p, m), m = (p + q)/2."""
    m = (p + q) / 2
    return (kl(q, m) + kl(p, m)) / 2


def softened_reverse_kl(q: Law, p: Law) -> np.ndarray:
    """Return 2 KL(m, q), m = (p + q)/2."""
    return 2 * kl((p + q) / 2, q)


def total_variation(q: Law, p: Law) -> np.ndarray:
    """Return half the sum of |q - p|."""
    return ((q - p) * np.sign((q - p).real)).sum() / 2


def le_cam(q: Law, p: Law) -> np.ndarray:
    """Return sum (q - p)^2/(q + p)."""
    return ((q - p) ** 2 / (q + p)).sum()


def alpha(order: float) -> Functional:
    """Return the alpha divergence sum (q^a p^(1-a) - 1)/(a (a - 1)), KL and reverse KL at a = 1, 0."""
    if order == 1:
        return kl
    if order == 0:
        return lambda q, p: kl(p, q)
    return lambda q, p: ((q**order * p ** (1 - order)).sum() - 1) / (order * (order - 1))


def weighted_jensen_shannon(weight: float) -> Functional:
    """Return w KL(q, m) + (1 - w) KL(p, m), m = w q + (1 - w) p."""

    def functional(q: Law, p: Law) -> np.ndarray:
        m = weight * q + (1 - weight) * p
        return weight * kl(q, m) + (1 - weight) * kl(p, m)

    return functional


INTEGRALS: dict[str, Functional] = {
    "kl": kl,
    "reverse_kl": lambda q, p: kl(p, q),
    "jensen_shannon": jensen_shannon,
    "gan": lambda q, p: 2 * jensen_shannon(q, p) - np.log(4),
    "squared_hellinger": lambda q, p: ((np.sqrt(q) - np.sqrt(p)) ** 2).sum(),
    "jeffreys": lambda q, p: ((q - p) * np.log(q / p)).sum(),
    "pearson": lambda q, p: ((q - p) ** 2 / p).sum(),
    "neyman": lambda q, p: ((q - p) ** 2 / q).sum(),
    "softened_reverse_kl": softened_reverse_kl,
    "le_cam": le_cam,
}
"""D(q, p) of the f-divergences without a parameter, by their integrals."""
GENERATORS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "kl": lambda u: u * np.log(u),
    "reverse_kl": lambda u: -np.log(u),
    "jensen_shannon": lambda u: (u * np.log(u) - (1 + u) * np.log((1 + u) / 2)) / 2,
    "gan": lambda u: u * np.log(u) - (1 + u) * np.log(1 + u),
    "squared_hellinger": lambda u: (np.sqrt(u) - 1) ** 2,
    "jeffreys": lambda u: (u - 1) * np.log(u),
    "pearson": lambda u: (u - 1) ** 2,
    "neyman": lambda u: (u - 1) ** 2 / u,
    "softened_reverse_kl": lambda u: (1 + u) * np.log((1 + u) / (2 * u)),
    "le_cam": lambda u: (u - 1) ** 2 / (u + 1),
}
"""h(u) of the same, f-GAN's table."""


def complex_slope(function: Callable[[np.ndarray], np.ndarray], at: np.ndarray) -> np.ndarray:
    """Return the gradient of an analytic function by complex steps: no cancellation, exact to rounding."""
    step = 1e-30
    return np.array([function(at + 1j * step * e).imag / step for e in np.eye(len(at))])


def logit_slope(functional: Callable[[np.ndarray], np.ndarray], p: Law) -> np.ndarray:
    """Return the gradient of a functional of p in the logits of p."""

    def of_logits(logits: np.ndarray) -> np.ndarray:
        weights = np.exp(logits)
        return functional(weights / weights.sum())

    return complex_slope(of_logits, np.log(p))


def model_slope(functional: Functional, q: Law, p: Law) -> np.ndarray:
    """Return the gradient of D(q, p) in the logits of p."""
    return logit_slope(lambda p: functional(q, p), p)


def conjugate_by_search(divergence: Functional, p: Law, f: np.ndarray, probability: bool) -> float:
    """Return sup_q E_q f - D(q, p) over q >= 0 or over probabilities, by Newton's method in log q.

    Args:
        divergence: D of *unnormalised* q, as a sum of p h(q/p).
        p: the law.
        f: the function, shape (K,).
        probability: whether q has mass one.
    """

    def loss(a: np.ndarray) -> float:
        q = np.exp(a - np.log(np.exp(a).sum())) if probability else np.exp(a)
        return float(divergence(q, p) - q @ f)

    def slope(a: np.ndarray) -> np.ndarray:
        def of(a: np.ndarray) -> np.ndarray:
            q = np.exp(a) / np.exp(a).sum() if probability else np.exp(a)
            return divergence(q, p) - (q * f).sum()

        return complex_slope(of, a)

    return -float(optimize.minimize(loss, np.log(p), jac=slope, method="BFGS", options={"gtol": 1e-11}).fun)


def transport(q: Law, p: Law, cost: np.ndarray) -> float:
    """Return min over couplings of the mean cost, by linear programming.

    Args:
        q: first marginal, shape (N,).
        p: second marginal, shape (M,).
        cost: shape (N, M).
    """
    n, m = cost.shape
    marginals = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    found = optimize.linprog(cost.ravel(), A_eq=marginals[:-1], b_eq=np.r_[q, p][:-1], method="highs")
    return float(found.fun)


def c_potential(q: Law, p: Law, cost: np.ndarray) -> np.ndarray:
    """Return an f that maximises E_q f - E_p f^c, f^c(x) = max_y f(y) - c(x, y), by the dual linear programme."""
    k = len(q)
    rows = np.vstack([np.r_[np.eye(k)[i], -np.eye(k)[j]] for i in range(k) for j in range(k)])
    bounds = [(0, 0)] + [(None, None)] * (2 * k - 1)
    found = optimize.linprog(np.r_[-q, p], A_ub=rows, b_ub=cost.T.ravel(), bounds=bounds, method="highs")
    return found.x[:k]


def potential(q: Law, p: Law, distance: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the 1-Lipschitz f that maximises E_q f - E_p f, and the maximum, by linear programming."""
    k = len(q)
    pairs = [(i, j) for i in range(k) for j in range(k) if i != j]
    rows = np.array([np.eye(k)[i] - np.eye(k)[j] for i, j in pairs])
    found = optimize.linprog(
        p - q, A_ub=rows, b_ub=[distance[i, j] for i, j in pairs], bounds=[(0, 0)] + [(None, None)] * (k - 1)
    )
    return found.x, -float(found.fun)


def steps(q: Law, p: Law) -> float:
    """Return W1 on the letters 0, 1, ... as the integral of |F - G|."""
    return float(np.abs(np.cumsum(q - p))[:-1].sum())


def quantiles(q: Law, p: Law, order: float = 1.0) -> float:
    """Return the mean of |F^-1 - G^-1|^order on the letters 0, 1, ...: both quantile functions, jump by jump."""
    heights = np.unique(np.r_[0, np.cumsum(q), np.cumsum(p)].clip(0, 1))
    middle = (heights[1:] + heights[:-1]) / 2
    x = np.searchsorted(np.cumsum(q), middle).clip(0, len(q) - 1)
    y = np.searchsorted(np.cumsum(p), middle).clip(0, len(p) - 1)
    return float((np.diff(heights) * np.abs(x - y) ** order).sum())
