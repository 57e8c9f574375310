r"""The held-out value: the equation's scalar on data that was never trained on, in the user's units.

.. math:: T = \sum_k w_k\,T_k, \qquad T_k = \min_q\{\dots\}_k + \mathbb E_{p_d} f_k

It says how far p_theta is from p_d *as this metric sees it*: with an unrestricted metric T is a lower bound of
:math:`\beta D(p_d, p_\theta)`, tight at the optimal critic. Every summand is brought to the user's units by its own
factor before it is added, and all are taken at the same points, so value and variance are those of the one number.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.laws import Particles
from se_framework.assembly import Assembly
from se_framework.data import Data
from se_framework.equation.equation import StandardEquation
from se_framework.equation.modes import evaluating
from se_framework.equation.terms import OWN
from se_framework.equation.units import cost_factor, total_in_user_units, unit_of
from se_framework.randomness import Stream
from se_framework.training.draws import Draws, in_type, like

CHUNKS = 10
"""Parts of the sample whose spread gives a standard error where T is not a sum over examples."""
PAIRWISE = 2000
"""Points at most where a summand compares every pair: its time and memory grow with their square."""


def held_out_value(assembly: Assembly, n: int, seed: int, others: Particles | None = None) -> dict[str, Any]:
    """Return T on held-out data and fresh samples, with standard error, what it is, unit, n and seed.

    Args:
        assembly: trained objects.
        n: examples at most, and :data:`PAIRWISE` of them where a summand compares pairs.
        seed: of the evaluation.
        others: particles of another law in the place of p_theta's.
    """
    equation, data = assembly.equation, assembly.data
    pairs = any(own.auxiliary.compares_pairs(own.divergence) for _, own in equation.equations())
    kind = like(equation)
    x = in_type(data.held_out(min(n, PAIRWISE) if pairs else n, seed, kind.device), equation, kind)
    stream = Stream(seed, 1, "held-out", x.x.device, kind.dtype)
    with torch.no_grad(), evaluating(equation, seed=seed):
        draws = equation.draws(len(x.x), stream, x.context)
        p = equation.particles(draws, x.context) if others is None else others.rows(slice(len(x.x)))
        value, error = value_and_error(equation, data, x, p, draws)
        size, holds = tails(equation, x, p, draws)
    entry = {"value": value, "n": len(x.x), "seed": seed}
    if error is not None:
        entry["se"] = error
    said, few = bound(equation), {}
    if not holds:  # the value may lie above what it estimates by any amount, below by what the examples met allow
        said += f"; caution: it rests on {size:.0f} effective points, and what the sample missed lowers it"
        few = {"effective_sample_size": size, "interval": [None, value + (0.0 if error is None else 2 * error)]}
    return entry | few | {"bound": said, "unit": unit_of(equation, data)}


def tails(equation: StandardEquation, x: Particles, p: Particles | None, draws: Draws) -> tuple[float, bool]:
    """Return the least effective sample size of a summand's dual, and whether every standard error holds."""
    sizes = [(float(len(x.x)), True)]
    for name, own in equation.equations():
        weighs = own.auxiliary.works_through == "has_dual" and not own.auxiliary.keeps_margin  # p's particles
        if weighs and not own.divergence.surrogate:
            problem = own.inner_problem(x, p, draws=draws, name=name)
            if problem.v is not None and problem.v_data is not None:
                sizes.append(own.divergence.tail(problem.v_data, problem.v))
    return min(size for size, _ in sizes), all(holds for _, holds in sizes)


def bound(equation: StandardEquation) -> str:
    """Return what the held-out value of T is, in words, summand by summand: each auxiliary says it of its own."""
    own = equation.auxiliary.meaning(equation.divergence, equation.metric, equation.alpha)
    more = "".join(f" + {weight:g} x ({bound(other)})" for _, weight, other in equation.summands())
    return own + more


def value_and_error(
    equation: StandardEquation, data: Data, x: Particles, p: Particles | None, draws: Draws
) -> tuple[float, float | None]:
    """Return T in the user's units and its standard error: from examples where T is a mean over them, else by parts.

    The error is None where there are too few examples to tell, or where p_theta's points are not a sample of it.

    Args:
        equation: whose scalar T is.
        data: whose units they are.
        x: held-out particles of p_d.
        p: particles of p_theta; None where the equation needs none.
        draws: what its parts have drawn.
    """
    value, n = total_in_user_units(equation.terms(x, p, draws), equation, data), len(x.x)
    if n < 2 or (p is not None and p.log_weights is not None):
        return value, None
    found = by_example(equation, data, x, p, draws)
    if found is not None:
        return value, _error_of_means(*found, paired=x.context is not None)
    chunks = min(CHUNKS, n // 2)
    if chunks < 2:
        return value, None
    parts = []
    for i in range(chunks):
        part = None if p is None else p.rows(slice(i, None, chunks))
        share = {name: t[i::chunks] if t.dim() and len(t) == n else t for name, t in draws.items()}
        terms = equation.terms(x.rows(slice(i, None, chunks)), part, share)
        parts.append(total_in_user_units(terms, equation, data))
    return value, float(torch.tensor(parts, dtype=torch.float64).std() / chunks**0.5)


def by_example(
    equation: StandardEquation, data: Data, x: Particles, p: Particles | None, draws: Draws, name: str = OWN
) -> tuple[Tensor, Tensor] | None:
    """Return what T is the mean of, on data, (M,), and on p's particles, (N,), in the user's units up to a constant.

    None where a summand is no such mean. Arguments as in :func:`value_and_error`.
    """
    problem = equation.inner_problem(x.double(), None if p is None else p.double(), draws=draws, name=name)
    if problem.v is not None and problem.v_data is not None:
        problem = problem._replace(v=problem.v.double(), v_data=problem.v_data.double())
    values, on_data = equation.auxiliary.values(problem), equation.auxiliary.data_values(problem)
    if values is None and on_data is None:
        return None
    nothing = torch.zeros((), dtype=torch.float64, device=x.x.device)
    of_model = nothing if values is None else values.double()
    of_data = nothing.expand(len(x.x)) if on_data is None else on_data.double()
    if problem.v_data is not None and equation.auxiliary.has_scores:
        of_data = of_data + equation.f(problem.v_data)
    factor = cost_factor(equation, data) or 1.0
    of_data, of_model = factor * of_data, factor * of_model
    for key, weight, other in equation.summands():
        theirs = by_example(other, data, x, p, draws, key)
        if theirs is None:
            return None
        of_data, of_model = of_data + weight * theirs[0], of_model + weight * theirs[1]
    return of_data, of_model


def _error_of_means(of_data: Tensor, of_model: Tensor, paired: bool) -> float:
    """Return the standard error of the sum of two means; ``paired`` where particles have the labels of the examples."""
    if of_model.dim() == 0:
        return float((of_data.var() / len(of_data)).sqrt())
    if paired and len(of_data) == len(of_model):
        return float(((of_data + of_model).var() / len(of_data)).sqrt())
    return float((of_data.var() / len(of_data) + of_model.var() / len(of_model)).sqrt())
