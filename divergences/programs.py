"""Programs on finite laws, linear or convex: small, exact, for values that others are compared with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

LARGEST = 250_000
"""Entries of a plan that the program is given at most (about ten seconds)."""
MOST_SCORES = 60
"""Letters on which a convex program over Lipschitz functions is solved."""


def transport_cost(points: Tensor, a: Tensor, b: Tensor) -> Tensor:
    r"""Return :math:`W_1` of two laws on the same points with the Euclidean cost, shape ().

    In one dimension :math:`\int|F_a-F_b|`, differentiable in the masses and the points; otherwise the linear program
    over plans, a number without a graph.

    Args:
        points: shape (K, d).
        a: masses, shape (K,).
        b: masses, shape (K,), of the same total.

    Raises:
        NotImplementedError: more than 500 letters on both sides in two dimensions or more.
    """
    if points.shape[1] == 1:
        x, order = points[:, 0].sort()
        return ((a - b)[order].cumsum(0)[:-1].abs() * x.diff()).sum()
    cost = linear_program(points.detach().numpy(), a.detach().numpy(), b.detach().numpy())
    return torch.tensor(cost, dtype=torch.float64)


def linear_program(points: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Return the least cost of a plan between masses a and b on points (K, d), by scipy's simplex or interior point."""
    from scipy import optimize, sparse  # half a second, which few runs need

    x, y, a, b = points[a > 0], points[b > 0], a[a > 0], b[b > 0]
    n, m = len(x), len(y)
    if n * m > LARGEST:
        raise NotImplementedError(
            f"Wasserstein1 by linear programming takes up to {LARGEST} pairs of letters, got {n} x {m}: use fewer "
            "letters, or letters on a line"
        )
    cost = np.linalg.norm(x[:, None] - y[None], axis=-1)
    unit = float(cost.max()) or 1.0  # the solver's tolerances are absolute
    rows, columns = sparse.kron(sparse.eye(n), np.ones((1, m))), sparse.kron(np.ones((1, n)), sparse.eye(m))
    marginals = sparse.vstack([rows, columns]).tocsr()[:-1]
    # Total masses agree up to rounding: one equation follows from the others and would make the program infeasible.
    found = optimize.linprog(cost.ravel() / unit, A_eq=marginals, b_eq=np.concatenate([a, b])[:-1])
    if not found.success:
        raise ValueError(f"Wasserstein1: the linear program failed ({found.message}); do both laws have mass one?")
    return float(found.fun) * unit


def lipschitz_maximum(
    points: Tensor,
    a: Tensor,
    b: Tensor,
    integrand: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: float,
    supremum: float,
) -> Tensor:
    r"""Return :math:`\max_v a\cdot v-b\cdot c(v)` over 1-Lipschitz v on the points, shape (), by sequential programs.

    Args:
        points: shape (K, d).
        a: masses, shape (K,).
        b: masses, shape (K,).
        integrand: c, convex, and its derivative, elementwise.
        start: a constant v at which c is finite.
        supremum: the upper end of where it is.

    Raises:
        NotImplementedError: more than 60 letters.
        ValueError: the program does not converge.
    """
    from scipy import optimize

    n = len(points)
    if n > MOST_SCORES:
        raise NotImplementedError(
            f"the convex program over Lipschitz functions takes up to {MOST_SCORES} letters, got {n}: use fewer"
        )
    distance = torch.cdist(points.double(), points.double()).numpy()
    first, second = np.nonzero(~np.eye(n, dtype=bool))
    differences = np.zeros((len(first), n))
    differences[np.arange(len(first)), first], differences[np.arange(len(first)), second] = 1, -1
    limits = distance[first, second]

    def loss(v: np.ndarray) -> tuple[float, np.ndarray]:
        values, slopes = integrand(torch.as_tensor(v))
        used = b > 0
        total = (torch.where(used, b * values, 0.0) - a * torch.as_tensor(v)).sum()
        return float(total), (torch.where(used, b * slopes, 0.0) - a).numpy()

    top = supremum - 1e-9 * (1 + abs(supremum)) if supremum < np.inf else None  # c may be infinite there
    v, last = np.full(n, start), np.inf
    for _ in range(10):  # a search that ends at a rounding says it failed: it has ended where a second finds no more
        found = optimize.minimize(
            loss, v, jac=True, method="SLSQP", bounds=[(None, top)] * n, options={"ftol": 1e-13, "maxiter": 500},
            constraints={"type": "ineq", "fun": lambda v: limits - differences @ v, "jac": lambda v: -differences},
        )  # fmt: skip
        if abs(found.fun - last) <= 1e-9 * (1 + abs(last)):
            return torch.tensor(-float(found.fun), dtype=torch.float64)
        v, last = found.x, float(found.fun)
    raise ValueError(f"the convex program over Lipschitz functions does not converge ({found.message})")
