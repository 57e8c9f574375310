"""Laws of duals whose critic is no log-ratio: transport potentials against programs, signs against the value."""

from __future__ import annotations

import numpy as np
import torch
from scipy import optimize

from divergences.base import Divergence
from divergences.checks.integrands import inside
from divergences.checks.running import close, normal, require, simplex
from divergences.exact import Points

K = 5


def _value(divergence: Divergence, points: torch.Tensor, q: torch.Tensor, p: torch.Tensor) -> float:
    return float(divergence.exact(Points(points, q.log()), Points(points, p.log())))


def bound_on(divergence: Divergence, q: torch.Tensor, p: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return E_q link(v) - E_p conjugate(v) on letters."""
    return (q * divergence.link(v)).sum() - divergence.mean_conjugate(v, Points(v.detach()[:, None], p.log()))


def largest_over_potentials(divergence: Divergence, points: torch.Tensor, q: torch.Tensor, p: torch.Tensor) -> float:
    """Return the largest bound over 1-Lipschitz critics, by sequential programs with linear constraints."""
    n = len(points)
    first, second = np.nonzero(~np.eye(n, dtype=bool))
    differences = np.zeros((len(first), n))
    differences[np.arange(len(first)), first], differences[np.arange(len(first)), second] = 1, -1
    distance = torch.cdist(points, points).numpy()[first, second]

    def loss(z: np.ndarray) -> tuple[float, np.ndarray]:
        v = torch.tensor(z, requires_grad=True)
        total = -bound_on(divergence, q, p, v)
        return float(total.detach()), torch.autograd.grad(total, v)[0].numpy()

    found = optimize.minimize(
        loss, inside(divergence, torch.zeros(n, dtype=torch.float64)).numpy(), jac=True, method="SLSQP",
        constraints={"type": "ineq", "fun": lambda v: distance - differences @ v, "jac": lambda v: -differences},
        options={"ftol": 1e-12, "maxiter": 500},
    )  # fmt: skip
    return -float(found.fun)


def best_potential_attains_the_value(divergence: Divergence) -> None:
    """No 1-Lipschitz critic exceeds D, and the best one attains it."""
    for seed in range(3):
        points, q, p = normal((K, 2), seed), simplex(K, seed), simplex(K, seed + 50)
        exact = _value(divergence, points, q, p)
        found = largest_over_potentials(divergence, points, q, p)
        close(found, exact, 1e-6 * (1 + abs(exact)), "the largest bound over 1-Lipschitz critics against D")
        distance = torch.cdist(points, points)
        for k in range(5):
            v = normal((K,), 10 * seed + k)
            slopes = (v[:, None] - v[None]).abs() / (distance + torch.eye(K))
            bound = float(bound_on(divergence, q, p, inside(divergence, v / slopes.max())))
            require(bound <= exact + 1e-6, f"a 1-Lipschitz critic reaches {bound:.8g}, above the value {exact:.8g}")


def sign_attains_the_value(divergence: Divergence) -> None:
    """No critic exceeds D, and one whose output has the sign of q - p comes as close as it is large."""
    for seed in range(3):
        points, q, p = normal((K, 2), seed), simplex(K, seed), simplex(K, seed + 50)
        exact = _value(divergence, points, q, p)
        close(bound_on(divergence, q, p, 40 * (q - p).sign()), exact, 1e-9, "bound at 40 sign(q - p) against D")
        for k in range(5):
            bound = float(bound_on(divergence, q, p, 3 * normal((K,), 10 * seed + k)))
            require(bound <= exact + 1e-9, f"a critic reaches {bound:.8g}, above the value {exact:.8g}")
