"""The record of one evaluation: the four terms of the equation as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

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
