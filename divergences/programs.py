"""Optimal transport between finite laws as a linear program: small, exact, for values that others are compared with."""

from __future__ import annotations

import numpy as np
import torch
from scipy import optimize, sparse
from torch import Tensor

LARGEST = 250_000
"""Entries of a plan that the program is given at most (about ten seconds)."""


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
    return torch.tensor(linear_program(points.detach().numpy(), a.detach().numpy(), b.detach().numpy()))


def linear_program(points: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Return the least cost of a plan between masses a and b on points (K, d), by scipy's simplex or interior point."""
    x, y, a, b = points[a > 0], points[b > 0], a[a > 0], b[b > 0]
    n, m = len(x), len(y)
    if n * m > LARGEST:
        raise NotImplementedError(
            f"Wasserstein1 by linear programming takes up to {LARGEST} pairs of letters, got {n} x {m}: use fewer "
            "letters, or letters on a line"
        )
    cost = np.linalg.norm(x[:, None] - y[None], axis=-1)
    rows, columns = sparse.kron(sparse.eye(n), np.ones((1, m))), sparse.kron(np.ones((1, n)), sparse.eye(m))
    marginals = sparse.vstack([rows, columns]).tocsr()[:-1]
    # Total masses agree up to rounding: one equation follows from the others and would make the program infeasible.
    found = optimize.linprog(cost.ravel(), A_eq=marginals, b_eq=np.concatenate([a, b])[:-1])
    if not found.success:
        raise ValueError(f"Wasserstein1: the linear program failed ({found.message}); do both laws have mass one?")
    return float(found.fun)
