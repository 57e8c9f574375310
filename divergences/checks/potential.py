"""Laws of duals whose critic is no log-ratio: transport potentials and signs, against linear programs and the value."""

from __future__ import annotations

import numpy as np
import torch
from scipy import optimize

from divergences.base import Divergence
from divergences.checks.running import close, normal, require, simplex
from divergences.exact import Points

K = 5


def _value(divergence: Divergence, points: torch.Tensor, q: torch.Tensor, p: torch.Tensor) -> float:
    return float(divergence.exact(Points(points, q.log()), Points(points, p.log())))


def bound_on(divergence: Divergence, q: torch.Tensor, p: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return E_q link(v) - E_p conjugate(v) on letters."""
    return (q * divergence.link(v)).sum() - divergence.mean_conjugate(v, Points(v.detach()[:, None], p.log()))


def potential_is_the_linear_program(divergence: Divergence) -> None:
    """No 1-Lipschitz critic exceeds D, and the linear program's potential, as the critic's output, attains it."""
    for seed in range(3):
        points, q, p = normal((K, 2), seed), simplex(K, seed), simplex(K, seed + 50)
        distance = torch.cdist(points, points)
        first, second = np.nonzero(~np.eye(K, dtype=bool))
        differences = np.zeros((len(first), K))
        differences[np.arange(len(first)), first], differences[np.arange(len(first)), second] = 1, -1
        found = optimize.linprog(
            (p - q).numpy(), A_ub=differences, b_ub=distance.numpy()[first, second], bounds=(-10, 10)
        )
        exact = -float(found.fun)
        close(
            bound_on(divergence, q, p, torch.as_tensor(found.x)), exact, 1e-7, "bound at the best potential against W1"
        )
        for k in range(5):
            v = normal((K,), 10 * seed + k)
            slopes = (v[:, None] - v[None]).abs() / (distance + torch.eye(K))
            bound = float(bound_on(divergence, q, p, v / slopes.max()))
            require(bound <= exact + 1e-9, f"a 1-Lipschitz critic reaches {bound:.8g}, above the value {exact:.8g}")
        close(_value(divergence, points, q, p), exact, 1e-7, "exact against the linear program over potentials")


def sign_attains_the_value(divergence: Divergence) -> None:
    """No critic exceeds D, and one whose output has the sign of q - p comes as close as it is large."""
    for seed in range(3):
        points, q, p = normal((K, 2), seed), simplex(K, seed), simplex(K, seed + 50)
        exact = _value(divergence, points, q, p)
        close(bound_on(divergence, q, p, 40 * (q - p).sign()), exact, 1e-9, "bound at 40 sign(q - p) against D")
        for k in range(5):
            bound = float(bound_on(divergence, q, p, 3 * normal((K,), 10 * seed + k)))
            require(bound <= exact + 1e-9, f"a critic reaches {bound:.8g}, above the value {exact:.8g}")
