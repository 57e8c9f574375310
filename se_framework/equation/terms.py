"""The record of one evaluation: the four terms of the equation as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from models.laws import Particles
from se_framework.equation.auxiliary.base import Solution
from se_framework.errors import ConfigError

if TYPE_CHECKING:
    from se_framework.equation.auxiliary import Draws
    from se_framework.equation.equation import StandardEquation

OWN = "own"
"""The name of an equation's own metric among those of its summands."""


@dataclass(frozen=True)
class Terms:
    """The four terms and their signed total, as numbers in float64; None marks a constant that has no number.

    Attributes:
        entropy: H(q) in nats; None where it is unknown or a constant.
        divergence: D(q, p_theta).
        f_q: E_q[f_phi].
        f_data: E_pd[f_phi].
        total: the stable total, the scalar itself, with the weighted totals of the summands.
        up_to_constant: the total lacks a constant that does not depend on the model.
        mass: the mass of q: one, or that of q = p e^v under the unnormalised dual, whose "entropy" is -int q log q.
        surrogate: the players have losses of their own; the total is phi's.
        summands: the terms of the equations that are added, by name.
    """

    entropy: float | None
    divergence: float | None
    f_q: float | None
    f_data: float | None
    total: float
    up_to_constant: bool = False
    mass: float = 1.0
    surrogate: bool = False
    summands: Mapping[str, Terms] = field(default_factory=dict)

    @property
    def total_name(self) -> str:
        """Return the name of the total, which says if it lacks a constant or belongs to a surrogate."""
        return "total" + "_up_to_const" * self.up_to_constant + "_surrogate" * self.surrogate

    def as_dict(self) -> dict[str, float]:
        """Return the known terms under their names, those of summands as NAME/TERM."""
        row = {"H_q": self.entropy, "D": self.divergence, "E_q_f": self.f_q, "E_pd_f": self.f_data}
        known = {name: value for name, value in row.items() if value is not None} | {self.total_name: self.total}
        return known | {f"{k}/{name}": v for k, terms in self.summands.items() for name, v in terms.as_dict().items()}

    def unrepresentable(self) -> list[str]:
        """Return the names of terms that float64 cannot hold (inf or NaN)."""
        return [name for name, value in self.as_dict().items() if not math.isfinite(value)]


@torch.no_grad()
def record(
    equation: StandardEquation, data: Particles, p: Particles | None, draws: Draws | None, name: str = OWN
) -> Terms:
    """Return the terms at the minimum over q, computed in float64 from the critic's outputs.

    Args:
        equation: whose terms they are.
        data: particles of p_d.
        p: particles of p_theta; None where the equation needs none.
        draws: what its parts have drawn.
        name: of the equation in the sum that drew.
    """
    problem = equation.inner_problem(data.double(), None if p is None else p.double(), draws=draws, name=name)
    if problem.v is not None and problem.v_data is not None:
        problem = problem._replace(v=problem.v.double(), v_data=problem.v_data.double())
    inner = equation.auxiliary.solve(problem)
    if not isinstance(inner, Solution):
        raise ConfigError(
            f"{type(equation.auxiliary).__name__}.solve must return a Solution, got a {type(inner).__name__}: write "
            "se_framework.Solution(minimum, entropy, divergence, f_q)"
        )
    f_data = None
    if problem.v_data is not None and equation.auxiliary.has_scores:
        f_data = problem.data.mean(equation.f(problem.v_data))
    total = float(inner.minimum if f_data is None else inner.minimum + f_data)
    entropy, divergence, f_q, f_d = (
        None if t is None else float(t) for t in (inner.entropy, inner.divergence, inner.f_q, f_data)
    )
    mass = 1.0 if inner.mass is None else float(inner.mass)
    summands = {key: record(other, data, p, draws, key) for key, _, other in equation.summands()}
    total += sum(equation.weights[key] * terms.total for key, terms in summands.items())
    up_to_constant = inner.up_to_constant or any(terms.up_to_constant for terms in summands.values())
    surrogate = equation.divergence.surrogate
    return Terms(entropy, divergence, f_q, f_d, total, up_to_constant, mass, surrogate, summands)
