r"""Exact transport distances between two samples of equal size, with standard errors: they share no code with a D.

:math:`W_2^2=\min_\pi\frac1n\sum_i|x_i-y_{\pi(i)}|^2=\sum_i(\phi_i+\psi_i)/n` with the potentials of the dual, which are
its slopes in the points' weights (envelope theorem). So to first order (del Barrio and Loubes, "Central limit theorems
for empirical transportation cost in general dimension", 2019)

.. math:: \mathrm{se}(W_2^2)^2 = (\mathrm{var}\,\phi+\mathrm{var}\,\psi)/n, \qquad
    \mathrm{se}(W_2)=\mathrm{se}(W_2^2)/(2W_2).

It is the error of the draw. Two finite samples of one law are apart all the same, by what the reference beside a score
shows; there the potentials are small, the first order vanishes, and the spread of the reference says more.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The default of cdist expands the square, which loses small distances between far points.
EXACT = "donot_use_mm_for_euclid_dist"
ROUNDS = 1_000
"""Rounds at most of the search for potentials; each reaches one exchange of partners further."""


def w2(x: Tensor, y: Tensor) -> float:
    r"""Return the exact 2-Wasserstein distance (not its square) between two samples of equal size.

    Args:
        x: shape (n, \*E); sorting solves one dimension, the Hungarian method (n^3) the others.
        y: shape (n, \*E).

    Raises:
        ValueError: the sizes differ.
    """
    return w2_and_error(x, y, wanted=False)[0]


def w2_and_error(x: Tensor, y: Tensor, wanted: bool = True) -> tuple[float, float]:
    """Return :func:`w2` and its standard error; NaN for the latter, which costs as much again, unless it is wanted."""
    x, y = _equal(x, y)
    if x.shape[1] == 1:
        cost, first, second = _on_a_line(x.T, y.T)
        return _root(float(cost), first[0], second[0])
    from scipy.optimize import linear_sum_assignment

    cost = torch.cdist(x, y, compute_mode=EXACT).square()
    columns = torch.as_tensor(linear_sum_assignment(cost.numpy())[1])
    if not wanted:
        return float(cost[torch.arange(len(x)), columns].mean()) ** 0.5, float("nan")
    phi, psi = potentials(cost, columns)
    return _root(float(cost[torch.arange(len(x)), columns].mean()), phi, psi)


def potentials(cost: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the dual's potentials: :math:`\phi_k+\psi_j\le c_{kj}`, with equality where j is the partner of k.

    Args:
        cost: c, shape (n, n).
        columns: the best partner of every row, shape (n,).
    """
    matched = cost[torch.arange(len(cost)), columns]
    exchange, phi = cost[:, columns] - matched, torch.zeros_like(matched)  # shortest paths over exchanges of partners
    for _ in range(min(ROUNDS, len(cost))):
        shorter = (exchange + phi).amin(1)
        settled, phi = float((phi - shorter).max()) <= 1e-12 * float(cost.max()), shorter
        if settled:
            break
    return phi, torch.empty_like(phi).scatter_(0, columns, matched - phi)


def sliced_w2(x: Tensor, y: Tensor, directions: Tensor) -> float:
    r"""Return the square root of the mean squared W2 between projections of two samples of equal size.

    Args:
        x: shape (n, \*E).
        y: shape (n, \*E).
        directions: unit vectors, shape (D, numel(E)).
    """
    return sliced_w2_and_error(x, y, directions)[0]


def sliced_w2_and_error(x: Tensor, y: Tensor, directions: Tensor) -> tuple[float, float]:
    """Return :func:`sliced_w2` and its standard error over draws of the points, at these directions."""
    x, y = _equal(x, y)
    total, first, second = 0.0, torch.zeros(len(x), dtype=torch.float64), torch.zeros(len(x), dtype=torch.float64)
    for part in directions.double().split(50):
        costs, phi, psi = _on_a_line(part @ x.T, part @ y.T)
        total, first, second = total + float(costs.sum()), first + phi.sum(0), second + psi.sum(0)
    return _root(total / len(directions), first / len(directions), second / len(directions))


def unit_directions(count: int, dim: int, draw: torch.Generator) -> Tensor:
    """Draw directions uniformly on the sphere, shape (count, dim), in float64."""
    directions = torch.randn((count, dim), generator=draw, dtype=torch.float64)
    return directions / directions.norm(dim=1, keepdim=True)


def _on_a_line(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return squared W2 on D lines, (D,), and the potentials of both samples as they stand, (D, n), from (D, n)."""
    (a, first), (b, second) = x.sort(1), y.sort(1)  # rows are contiguous, which sorts several times faster
    cost = (a - b).square()
    # Between neighbours the step of a potential lies between two differences of costs; their mean is taken.
    up = ((a[:, 1:] - b[:, :-1]).square() - cost[:, :-1] + cost[:, 1:] - (a[:, :-1] - b[:, 1:]).square()) / 2
    phi = torch.cat([torch.zeros_like(a[:, :1]), up.cumsum(1)], 1)
    psi = cost - phi
    return cost.mean(1), torch.empty_like(a).scatter_(1, first, phi), torch.empty_like(b).scatter_(1, second, psi)


def _root(square: float, phi: Tensor, psi: Tensor) -> tuple[float, float]:
    value = square**0.5
    error = float(((phi.var() + psi.var()) / len(phi)).sqrt()) if len(phi) > 1 else float("nan")
    return value, error / (2 * value) if value > 0 else 0.0


def _equal(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.shape != y.shape:
        raise ValueError(f"two samples of equal shape expected, got {tuple(x.shape)} and {tuple(y.shape)}; cut one")
    return x.double().flatten(1), y.double().flatten(1)
