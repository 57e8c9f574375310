r"""Terms in the user's units: what standardising the data did to densities and costs is undone.

For x = loc + s y, log-densities of x are those of y less log|s|: entropies rise by it (times the mass of q),
cross-entropies likewise. A
transport cost of degree k is multiplied by s^k; where s differs between coordinates there is no such factor, and the
name says that the term is in standardised units.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from se_framework.data import Data

if TYPE_CHECKING:
    from se_framework.equation.equation import StandardEquation, Terms


def cost_factor(equation: StandardEquation, data: Data) -> float | None:
    """Return the factor from standardised to user's units of D, or None where there is none."""
    degree = equation.auxiliary.cost_degree(equation.divergence, equation.metric)
    if degree == 0:
        return 1.0
    scale = torch.as_tensor(data.scale, dtype=torch.float64).abs().flatten()
    if data.transform is not None:  # distances beyond a map that is no scaling
        return None
    return float(scale[0] ** degree) if bool((scale == scale[0]).all()) else None


def total_shift(equation: StandardEquation, data: Data) -> float:
    r"""Return what the total gains: :math:`(-\alpha + \beta(1-c))\log|s|`, with c = 1 unless D = CE - c H.

    Where q is the data alpha H(q) is no part of the total (``counts_entropy``).
    """
    c = equation.divergence.entropy_weight
    alpha = equation.alpha if equation.auxiliary.counts_entropy else 0.0
    return (-alpha + (0.0 if c is None else equation.beta * (1 - c))) * data.log_scale


def metric_shift(equation: StandardEquation, data: Data) -> float:
    r"""Return what f gains: :math:`-\alpha\log|s|` where the mass of q is free, so that q stays the minimiser.

    Over probability q a constant in f changes nothing, and f is left as it is.
    """
    return -equation.alpha * data.log_scale if equation.auxiliary.free_mass else 0.0


def total_in_user_units(terms: Terms, equation: StandardEquation, data: Data) -> float:
    """Return the scalar: each summand by its own factor and shift; where it has no factor, in standardised units."""
    plus = [(weight, terms.summands[name], other) for name, weight, other in equation.summands()]
    own = terms.total - sum(weight * theirs.total for weight, theirs, _ in plus)
    factor = cost_factor(equation, data)
    own = own * (1.0 if factor is None else factor) + total_shift(equation, data)
    return own + sum(weight * total_in_user_units(theirs, other, data) for weight, theirs, other in plus)


def is_standardised(equation: StandardEquation, data: Data) -> bool:
    """Return whether a summand has no factor, so that the scalar holds a part in standardised units."""
    return any(cost_factor(own, data) is None for _, own in equation.equations())


def unit_of(equation: StandardEquation, data: Data) -> str:
    """Return what the scalar is counted in: one unit, or those of the summands with their weights."""
    units = []
    for _, own in equation.equations():
        unit = own.auxiliary.unit(own.divergence, own.metric)
        units.append(unit + (", standardised" if cost_factor(own, data) is None else ""))
    if len(set(units)) == 1:
        return units[0]
    more = [f"{weight:g} x ({unit})" for weight, unit in zip(equation.weights.values(), units[1:], strict=True)]
    return " + ".join([units[0], *more])


def in_user_units(terms: Terms, equation: StandardEquation, data: Data) -> dict[str, float]:
    """Return the row of terms in the user's units; the total of a sum is that of its summands in theirs."""
    factor, c = cost_factor(equation, data), equation.divergence.entropy_weight
    suffix, row = "_standardised" if factor is None else "", {}
    for name, value in replace(terms, summands={}).as_dict().items():
        if name == "H_q":
            row[name] = value + terms.mass * data.log_scale
        elif name == terms.total_name:
            mixed = "_standardised" if is_standardised(equation, data) else ""
            row[name + mixed] = total_in_user_units(terms, equation, data)
        else:
            value *= 1.0 if factor is None else factor
            if name in ("E_q_f", "E_pd_f"):
                value += metric_shift(equation, data) * (terms.mass if name == "E_q_f" else 1.0)
            if name == "D" and c is not None:
                value += (1 - c) * data.log_scale
            row[name + suffix] = value
    for name, _, other in equation.summands():
        theirs = in_user_units(terms.summands[name], other, data)
        row |= {f"{name}/{key}": value for key, value in theirs.items()}
    return row
