r"""The Standard Equation, the one scalar behind every method here.

.. math::
    \min_\theta\;\max_\phi\;\min_q\;\;
    -\alpha\,H(q) \;+\; \beta\,D(q, p_\theta) \;-\; \mathbb E_q[f_\phi] \;+\; \mathbb E_{p_d}[f_\phi]

p_theta is the *model*, f_phi the *metric*, D the *divergence*, q the *auxiliary* distribution and p_d the data
(Hu and Xing, "Toward a 'Standard Model' of Machine Learning", 2022, with a learnable metric). :class:`StandardEquation`
binds one object to each symbol. Its value, with q at its minimum, is the scalar that theta descends and phi ascends;
a method (a GAN, a flow, ...) is a choice of the objects. Equations that share theta may be added with weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from divergences.base import Divergence
from models.base import Model
from models.laws import Particles
from se_framework.equation import legality
from se_framework.equation.auxiliary import Auxiliary, InnerProblem
from se_framework.equation.metric import Metric
from se_framework.errors import ConfigError, IncompatibleError

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
        plus: further equations by name, each with its weight >= 0: the scalar is the weighted sum. They must hold the
            same model, and may have a metric, divergence and auxiliary of their own.

    Raises:
        ConfigError: alpha, beta or a weight is not a number >= 0, or a summand has another model.
        IncompatibleError: the objects do not form a legal equation; the message names them and the fix.
    """

    plus: nn.ModuleDict

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
        plus: Mapping[str, tuple[float, StandardEquation]] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.divergence, self.auxiliary, self.metric = model, divergence, auxiliary, metric
        plus = plus or {}
        for name, (_, other) in plus.items():
            if other.model is not model or len(other.plus) or name == OWN:
                raise ConfigError(
                    f"plus.{name} must be one equation of the same model, under another name than {OWN}: equations "
                    "are summed over theta"
                )
            if other.divergence.surrogate:
                raise ConfigError(f"plus.{name} is a surrogate: a sum is one scalar, and it has a loss for each player")
        weights = {"equation.alpha": alpha, "equation.beta": beta}
        for name, weight in (weights | {f"plus.{k}.weight": w for k, (w, _) in plus.items()}).items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ConfigError(
                    f"{name} must be a finite number >= 0, got {weight}: it weighs a term of the equation"
                )
        self.alpha, self.beta = float(alpha), float(beta)
        self.warnings = legality.check(
            legality.Choice(model, divergence, auxiliary, metric, self.alpha, self.beta), allow
        )
        self.plus = nn.ModuleDict({name: other for name, (_, other) in plus.items()})
        self.weights = {name: float(weight) for name, (weight, _) in plus.items()}

    def summands(self) -> Iterator[tuple[str, float, StandardEquation]]:
        """Yield name, weight and equation of what is added."""
        for name, weight in self.weights.items():
            yield name, weight, self.plus[name]  # type: ignore[misc]

    def metrics(self) -> dict[str, Metric]:
        """Return the metrics by the name of their summand, the equation's own as :data:`OWN`."""
        found = {OWN: self.metric} | {name: other.metric for name, _, other in self.summands()}
        return {name: metric for name, metric in found.items() if metric is not None}

    def f(self, v: Tensor, divergence: Divergence | None = None) -> Tensor:
        """Return f_phi from the critic's output v, shape (B,)."""
        return self.auxiliary.f(v, divergence or self.divergence, self.beta)

    @property
    def uses_samples(self) -> bool:
        """Whether p_theta enters through particles (cross-entropy to data asks for log-densities only)."""
        own = self.auxiliary.uses != "primal" or self.divergence.primal_needs == "samples"
        return own or any(other.uses_samples for _, _, other in self.summands())

    def particles(self, noise: Tensor, context: Tensor | None = None) -> Particles:
        """Return p_theta's particles from latent noise (differentiable in theta), one for each label of a context."""
        return _labelled(self.model(context).particles(noise), context)

    def sample(
        self, n: int, generator: torch.Generator | None = None, context: Tensor | None = None
    ) -> Particles | None:
        """Draw n particles of p_theta, with the given labels; None where the equation needs none."""
        if not self.uses_samples:
            return None
        law = self.model(context)
        return _labelled(law.particles(law.noise(n, generator)), context)

    def inner_problem(
        self, data: Particles, p: Particles | None, divergence: Divergence | None = None, with_data: bool = True
    ) -> InnerProblem:
        """Return what the minimum over q depends on, with the critic evaluated on both clouds, or on p's alone."""
        v, v_data, metric = None, None, self.metric
        if metric is not None and with_data:
            v_data, v = (metric(data.x, data.context), None) if p is None else metric.on_both(data, p)
        elif metric is not None and p is not None:
            v = metric(p.x, p.context)
        divergence = divergence or self.divergence
        return InnerProblem(v, v_data, data, p, self.model, divergence, self.alpha, self.beta, metric)

    def minimum(self, data: Particles, p: Particles | None, divergence: Divergence | None = None) -> Tensor:
        r"""Return :math:`\min_q\{-\alpha H(q) + \beta D(q,p) - \mathbb E_q f\}`, all of the scalar that theta moves.

        The critic is evaluated on data only where the minimum reads that. Arguments as in :meth:`parts`.
        """
        auxiliary = self.auxiliary
        minimum = auxiliary.minimum(self.inner_problem(data, p, divergence, with_data=auxiliary.minimum_reads_data))
        for _, weight, other in self.summands():
            minimum = minimum + weight * other.minimum(data, p)
        return minimum

    def parts(
        self, data: Particles, p: Particles | None, divergence: Divergence | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Return :math:`\min_q\{-\alpha H(q) + \beta D(q,p) - \mathbb E_q f\}` and :math:`\mathbb E_{p_d} f`.

        Where equations are added, both are weighted sums.

        Args:
            data: particles of p_d.
            p: particles of p_theta; None where the equation needs none.
            divergence: another *view* of the same critic output v; by default the equation's own D.
        """
        problem, auxiliary = self.inner_problem(data, p, divergence), self.auxiliary
        minimum = auxiliary.minimum(problem)
        if auxiliary.uses == "primal" or problem.v_data is None:  # q is the data: -E_q f + E_pd f = 0
            f_data = torch.zeros_like(minimum)
        else:
            f_data = data.mean(self.f(problem.v_data, divergence))
        for _, weight, other in self.summands():
            their_minimum, their_f = other.parts(data, p)
            minimum, f_data = minimum + weight * their_minimum, f_data + weight * their_f
        return minimum, f_data

    def scalar(self, data: Particles, p: Particles | None, divergence: Divergence | None = None) -> Tensor:
        """Return the equation's value, shape (): the sum of :meth:`parts`, whose arguments it takes."""
        minimum, f_data = self.parts(data, p, divergence)
        return minimum + f_data

    def forward(self, x: Tensor, noise: Tensor, context: Tensor | None = None) -> Tensor:
        r"""Return the scalar at a batch x of data, shape (B, \*E), its labels, and latent noise of the model."""
        p = self.particles(noise, context) if self.uses_samples else None
        return self.scalar(Particles(x, context=context), p)

    @torch.no_grad()
    def terms(self, data: Particles, p: Particles | None) -> Terms:
        """Return the record of terms at the minimum over q, computed in float64 from the critic's outputs."""
        problem = self.inner_problem(data.double(), None if p is None else p.double())
        if problem.v is not None and problem.v_data is not None:
            problem = problem._replace(v=problem.v.double(), v_data=problem.v_data.double())
        inner = self.auxiliary.solve(problem)
        f_data = None
        if self.auxiliary.uses != "primal" and problem.v_data is not None:
            f_data = problem.data.mean(self.f(problem.v_data))
        total = float(inner.minimum if f_data is None else inner.minimum + f_data)
        entropy, divergence, f_q, f_d = (
            None if t is None else float(t) for t in (inner.entropy, inner.divergence, inner.f_q, f_data)
        )
        mass = 1.0 if inner.mass is None else float(inner.mass)
        summands = {name: other.terms(data, p) for name, _, other in self.summands()}
        total += sum(self.weights[name] * terms.total for name, terms in summands.items())
        up_to_constant = inner.up_to_constant or any(terms.up_to_constant for terms in summands.values())
        surrogate = self.divergence.surrogate
        return Terms(entropy, divergence, f_q, f_d, total, up_to_constant, mass, surrogate, summands)

    def with_modules(self, model: Model, metrics: Mapping[str, Metric]) -> StandardEquation:
        """Return the equation with another model and other metrics, all else shared (nothing is checked again)."""
        twin = StandardEquation.__new__(StandardEquation)
        nn.Module.__init__(twin)
        twin.model, twin.metric = model, metrics.get(OWN)
        twin.divergence, twin.auxiliary = self.divergence, self.auxiliary
        twin.alpha, twin.beta, twin.warnings, twin.weights = self.alpha, self.beta, self.warnings, self.weights
        twin.plus = nn.ModuleDict()
        for name, _, other in self.summands():
            twin.plus[name] = other.with_modules(model, {OWN: metrics[name]} if name in metrics else {})
        return twin

    def log_ratio(self, x: Tensor, data: Particles, p: Particles) -> Tensor:
        """Return log(p_d/p_theta) as the critic reads it, log dq*/dp at x, shape (B,).

        Args:
            x: where, shape (B, *E); without labels.
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


def _labelled(p: Particles, context: Tensor | None) -> Particles:
    return p if context is None else replace(p, context=context)
