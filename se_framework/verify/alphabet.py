r"""Our side of a claim on a finite alphabet: every expectation is a finite sum, so that equalities hold to rounding.

The objects are those that train: a :class:`~se_framework.StandardEquation` of a shipped divergence and
auxiliary, with a categorical model and one free score per letter as the metric. Laws are numpy vectors outside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from divergences.base import Divergence
from models import TabularCritic, TabularModel
from models.laws import Particles
from se_framework.equation.auxiliary import Auxiliary, Dual
from se_framework.equation.equation import StandardEquation, Terms
from se_framework.equation.metric import Metric

STATIONARY = 1e-7
"""Slope in any score below which an ascent has converged: a tenth of what claims allow."""
PROGRAMS = 200
"""Tangents after which an ascent is given up."""
BOX = 20.0
"""How far from where the ascent ended scores are looked for."""
DUALS = {"unnormalised q": Dual(), "probability q": Dual(normalised=True)}


def simplex(letters: int = 6, seed: int = 0, spread: float = 1.0) -> np.ndarray:
    """Return a random law of full support, shape (letters,)."""
    weights = np.exp(spread * np.random.default_rng(seed).standard_normal(letters))
    return weights / weights.sum()


def scores(letters: int = 6, seed: int = 0, spread: float = 1.0) -> np.ndarray:
    """Return random critic outputs, shape (letters,)."""
    return spread * np.random.default_rng(1000 + seed).standard_normal(letters)


def cloud(law: np.ndarray, points: np.ndarray | None = None) -> Particles:
    """Return a law on letters 0, 1, ... (or on given points, shape (K, d)) as particles."""
    where = np.arange(len(law), dtype=float)[:, None] if points is None else points
    return Particles(torch.as_tensor(where).to(_home()), torch.as_tensor(np.log(law)).to(_home()))


def _home() -> torch.device:
    return torch.get_default_device()


def equation(
    divergence: Divergence, p: np.ndarray, auxiliary: Auxiliary | None = None, **options: Any
) -> StandardEquation:
    """Return the equation with p_theta = p and any function of a letter as its metric."""
    auxiliary = auxiliary or Dual()
    model, metric = TabularModel(letters=len(p)), None
    with torch.no_grad():
        model.logits.copy_(torch.as_tensor(np.log(p)))
    if auxiliary.uses_metric:
        metric = Metric(TabularCritic(letters=len(p)))
    return StandardEquation(model=model, divergence=divergence, auxiliary=auxiliary, metric=metric, **options)


def critic_of(of: StandardEquation) -> TabularCritic:
    """Return the metric's table."""
    assert of.metric is not None and isinstance(of.metric.network, TabularCritic)
    return of.metric.network


def set_critic(of: StandardEquation, v: np.ndarray) -> None:
    """Write the scores of the metric."""
    with torch.no_grad():
        critic_of(of).scores.copy_(torch.as_tensor(v))


def value(of: StandardEquation, data: np.ndarray, v: np.ndarray | None = None, view: Divergence | None = None) -> float:
    """Return the scalar at critic outputs v (as they are by default)."""
    return float(scalar(of, data, v, view).detach())


def scalar(
    of: StandardEquation, data: np.ndarray, v: np.ndarray | None = None, view: Divergence | None = None
) -> Tensor:
    """Return the same as a tensor, differentiable in both players."""
    if v is not None:
        set_critic(of, v)
    return of.scalar(cloud(data), of.sample(0), view)


def theta_slope(of: StandardEquation, data: np.ndarray, v: np.ndarray | None = None, view: Any = None) -> np.ndarray:
    """Return the scalar's gradient in the model's logits, the critic held fixed, shape (K,)."""
    (slope,) = torch.autograd.grad(scalar(of, data, v, view), list(of.model.parameters()))
    return slope.cpu().numpy()


def phi_slope(of: StandardEquation, data: np.ndarray, v: np.ndarray | None = None, view: Any = None) -> np.ndarray:
    """Return the scalar's gradient in the critic's scores, shape (K,)."""
    (slope,) = torch.autograd.grad(scalar(of, data, v, view), critic_of(of).scores)
    return slope.cpu().numpy()


def terms(of: StandardEquation, data: np.ndarray, v: np.ndarray | None = None) -> Terms:
    """Return the record of terms."""
    if v is not None:
        set_critic(of, v)
    return of.terms(cloud(data), of.sample(0))


def tilt(of: StandardEquation, data: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return q*, the minimiser over q at critic outputs v, as a vector on the letters."""
    set_critic(of, v)
    p = of.sample(0)
    assert p is not None and p.log_weights is not None and of.metric is not None
    problem = of.inner_problem(cloud(data), p)
    log_ratio = of.auxiliary.log_ratio(p.x, of.metric(p.x), problem)
    return (p.log_weights + log_ratio).exp().detach().cpu().numpy()


def best_critic(
    of: StandardEquation, data: np.ndarray, view: Any = None, start: np.ndarray | None = None
) -> np.ndarray:
    r"""Return the scores at which phi's ascent on the scalar ends, shape (K,).

    By L-BFGS on the equation's own value. Where it ends with a slope, as at the kinks of a dual that is linear in
    pieces (hinge), by linear programs: the scalar is concave there, hence below its tangents at all scores seen so far,
    and the next scores are those at which the lowest tangent is highest (Kelley 1960). It ends where the two agree.

    Args:
        of: an equation whose metric is a table.
        data: the law of the data, shape (K,).
        view: the divergence through which phi sees the scores, None for the equation's own.
        start: scores to start from, zero by default.

    Raises:
        RuntimeError: neither ends at a maximum; the message has what was reached and what the program bounds it by.
    """
    set_critic(of, np.zeros(len(data)) if start is None else start)
    parameters = [critic_of(of).scores]
    search = torch.optim.LBFGS(
        parameters, max_iter=80, tolerance_grad=1e-10, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        search.zero_grad()
        loss = -scalar(of, data, view=view)
        loss.backward(inputs=parameters)
        return loss

    search.step(loss)
    found = parameters[0].detach().cpu().numpy().copy()
    if not np.abs(phi_slope(of, data, found, view)).max() <= STATIONARY:
        found = _by_tangents(of, data, view, found)
    set_critic(of, found)
    return found


def _by_tangents(of: StandardEquation, data: np.ndarray, view: Any, start: np.ndarray) -> np.ndarray:
    """Return the maximum of a concave scalar, linear in pieces, in a box around the start."""
    from scipy.optimize import linprog  # half a second, which few claims need

    k, reach = len(data), BOX + float(np.abs(start).max())
    v, best, highest, rows, sides = start, start, -np.inf, [], []
    top = np.inf
    for _ in range(PROGRAMS):
        here, slope = value(of, data, v, view), phi_slope(of, data, v, view)
        if here > highest:
            best, highest = v, here
        if top - highest <= 1e-9 * (1 + abs(highest)):
            break
        rows.append(np.append(-slope, 1.0))
        sides.append(here - slope @ v)
        program = linprog(
            np.append(np.zeros(k), -1.0), A_ub=np.stack(rows), b_ub=np.array(sides),
            bounds=[(-reach, reach)] * k + [(None, None)],
            options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
        )  # fmt: skip
        if not program.success:
            break
        v, top = program.x[:k], float(program.x[k])
    if not abs(top - highest) <= 1e-9 * (1 + abs(highest)):
        raise RuntimeError(
            f"the ascent of phi has not converged: it reaches {highest:.9g}, its tangents allow {top:.9g}; start "
            "nearer to the maximum, or give the maximum in closed form"
        )
    return best
