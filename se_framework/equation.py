r"""The Standard Equation, the one scalar behind every method here.

.. math::
    \min_\theta\;\max_\phi\;\min_q\;\;
    -\alpha\,H(q) \;+\; \beta\,D(q, p_\theta) \;-\; \mathbb E_q[f_\phi] \;+\; \mathbb E_{p_d}[f_\phi]

p_theta is the *model*, f_phi the *metric*, D the *divergence*, q the *auxiliary* distribution and p_d the data
(Hu and Xing, "Toward a 'Standard Model' of Machine Learning", 2022, with a learnable metric). :class:`StandardEquation`
binds one object to each symbol. Its value, with q at its minimum, is the scalar that theta descends and phi ascends;
a method (a GAN, a flow, ...) is a choice of the objects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from divergences.base import Divergence
from models.base import Model
from models.laws import Particles
from se_framework import legality
from se_framework.auxiliary import Auxiliary, InnerProblem
from se_framework.errors import ConfigError, IncompatibleError
from se_framework.metric import Metric


@dataclass(frozen=True)
class Terms:
    """The four terms and their signed total, as numbers in float64; None marks a constant that has no number.

    Attributes:
        entropy: H(q) in nats; None where it is unknown or a constant.
        divergence: D(q, p_theta).
        f_q: E_q[f_phi].
        f_data: E_pd[f_phi].
        total: the stable total, the scalar itself.
        up_to_constant: the total lacks a constant that does not depend on the model.
        mass: the mass of q: one, or that of q = p e^v under the unnormalised dual, whose "entropy" is -int q log q.
    """

    entropy: float | None
    divergence: float | None
    f_q: float | None
    f_data: float | None
    total: float
    up_to_constant: bool = False
    mass: float = 1.0

    def as_dict(self) -> dict[str, float]:
        """Return the known terms under their names; a total that lacks a constant says so in its name."""
        row = {"H_q": self.entropy, "D": self.divergence, "E_q_f": self.f_q, "E_pd_f": self.f_data}
        known = {name: value for name, value in row.items() if value is not None}
        return known | {"total_up_to_const" if self.up_to_constant else "total": self.total}

    def unrepresentable(self) -> list[str]:
        """Return the names of terms that float64 cannot hold (inf or NaN)."""
        return [name for name, value in self.as_dict().items() if not math.isfinite(value)]


class StandardEquation(nn.Module):
    r"""Bind the symbols of the equation.

    Args:
        model: p_theta, a module whose call returns a law.
        divergence: D(q, p_theta).
        auxiliary: how the minimum over q is taken.
        metric: f_phi; None where the auxiliary needs none.
        alpha: weight of H(q), >= 0.
        beta: weight of D, >= 0.
        allow: names of legality rules that shall only warn.

    Raises:
        ConfigError: alpha or beta is not a number >= 0.
        IncompatibleError: the objects do not form a legal equation; the message names them and the fix.
    """

    def __init__(
        self,
        *,
        model: Model,
        divergence: Divergence,
        auxiliary: Auxiliary,
        metric: Metric | None = None,
        alpha: float = 0.0,
        beta: float = 1.0,
        allow: Sequence[str] = (),
    ) -> None:
        super().__init__()
        for name, weight in (("alpha", alpha), ("beta", beta)):
            if not (math.isfinite(weight) and weight >= 0):
                raise ConfigError(
                    f"equation.{name} must be a finite number >= 0, got {weight}: it weighs a term of the equation"
                )
        self.model, self.divergence, self.auxiliary, self.metric = model, divergence, auxiliary, metric
        self.alpha, self.beta = float(alpha), float(beta)
        self.warnings = legality.check(
            legality.Choice(model, divergence, auxiliary, metric, self.alpha, self.beta), allow
        )

    def f(self, v: Tensor, divergence: Divergence | None = None) -> Tensor:
        """Return f_phi from the critic's output v, shape (B,)."""
        return self.auxiliary.f(v, divergence or self.divergence, self.beta)

    @property
    def uses_samples(self) -> bool:
        """Whether p_theta enters through particles (cross-entropy to data asks for log-densities only)."""
        return self.auxiliary.uses != "primal" or self.divergence.primal_needs == "samples"

    def particles(self, noise: Tensor) -> Particles:
        """Return p_theta's particles from latent noise (differentiable in theta)."""
        return self.model().particles(noise)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Particles | None:
        """Draw n particles of p_theta; None where the equation needs none."""
        law = self.model()
        return law.particles(law.noise(n, generator)) if self.uses_samples else None

    def inner_problem(self, data: Particles, p: Particles | None, divergence: Divergence | None = None) -> InnerProblem:
        """Return what the minimum over q depends on, with the critic evaluated on both clouds."""
        v = None if self.metric is None or p is None else self.metric(p.x)
        v_data = None if self.metric is None else self.metric(data.x)
        return InnerProblem(v, v_data, data, p, self.model, divergence or self.divergence, self.alpha, self.beta)

    def parts(
        self, data: Particles, p: Particles | None, divergence: Divergence | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Return :math:`\min_q\{-\alpha H(q) + \beta D(q,p) - \mathbb E_q f\}` and :math:`\mathbb E_{p_d} f`.

        Args:
            data: particles of p_d.
            p: particles of p_theta; None where the equation needs none.
            divergence: another *view* of the same critic output v; by default the equation's own D.
        """
        problem = self.inner_problem(data, p, divergence)
        minimum = self.auxiliary.minimum(problem)
        if problem.v_data is None:  # q is the data: -E_q f + E_pd f = 0
            return minimum, torch.zeros_like(minimum)
        return minimum, data.mean(self.f(problem.v_data, divergence))

    def scalar(self, data: Particles, p: Particles | None, divergence: Divergence | None = None) -> Tensor:
        """Return the equation's value, shape (): the sum of :meth:`parts`, whose arguments it takes."""
        minimum, f_data = self.parts(data, p, divergence)
        return minimum + f_data

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        r"""Return the scalar at a batch x of data, shape (B, \*E), and latent noise of the model."""
        return self.scalar(Particles(x), self.particles(noise) if self.uses_samples else None)

    @torch.no_grad()
    def terms(self, data: Particles, p: Particles | None) -> Terms:
        """Return the record of terms at the minimum over q, computed in float64 from the critic's outputs."""
        problem = self.inner_problem(data.double(), None if p is None else p.double())
        if problem.v is not None and problem.v_data is not None:
            problem = problem._replace(v=problem.v.double(), v_data=problem.v_data.double())
        inner = self.auxiliary.solve(problem)
        f_data = None if problem.v_data is None else problem.data.mean(self.f(problem.v_data))
        total = inner.minimum if f_data is None else inner.minimum + f_data
        entropy, divergence, f_q, f_d = (
            None if t is None else float(t) for t in (inner.entropy, inner.divergence, inner.f_q, f_data)
        )
        mass = 1.0 if inner.mass is None else float(inner.mass)
        return Terms(entropy, divergence, f_q, f_d, float(total), inner.up_to_constant, mass)

    def log_ratio(self, x: Tensor, data: Particles, p: Particles) -> Tensor:
        """Return log(p_d/p_theta) as the critic reads it, log dq*/dp at x, shape (B,).

        Args:
            x: where, shape (B, *E).
            data: particles of p_d, which with p fix the normaliser of q.
            p: particles of p_theta.

        Raises:
            IncompatibleError: the metric is absent or constrained, or the divergence reads a potential or a sign.
        """
        if self.metric is None or self.divergence.critic_reads != "log_ratio":
            raise IncompatibleError(
                f"no log-ratio: metric={type(self.metric).__name__}, divergence={type(self.divergence).__name__}; "
                "a smooth f-divergence with an unrestricted metric has one"
            )
        return self.auxiliary.log_ratio(x, self.metric.log_ratio(x), self.inner_problem(data, p))
