r"""The Standard Equation, the one scalar behind every method here.

.. math::
    \min_\theta\;\max_\phi\;\min_q\;\;
    -\alpha\,H(q) \;+\; \beta\,D(q, p_\theta) \;-\; \mathbb E_q[f_\phi] \;+\; \mathbb E_{p_d}[f_\phi]

p_theta is the *model*, f_phi the *metric*, D the *divergence*, q the *auxiliary* and p_d the data (Hu and Xing, "Toward
a 'Standard Model' of Machine Learning", 2022, with a learnable metric). :class:`StandardEquation` binds one object to
each symbol. Its value, with q at its minimum, is the scalar that theta descends and phi ascends; a method (a GAN, a
flow, ...) is a choice of the objects. Equations that share theta may be added with weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from divergences.absent import Absent
from divergences.base import Divergence
from models.base import Model, Stream
from models.laws import Particles
from se_framework.equation import legality
from se_framework.equation.auxiliary import Auxiliary, Draws, InnerProblem, drawn_for
from se_framework.equation.metric import Metric
from se_framework.equation.modes import evaluating
from se_framework.equation.roles import Role, roles_of
from se_framework.equation.terms import OWN, Terms, record
from se_framework.errors import IncompatibleError


class StandardEquation(nn.Module):
    r"""Bind the symbols of the equation.

    Args:
        model: p_theta, a module whose call returns a law.
        divergence: D(q, p_theta); None where the auxiliary needs none.
        auxiliary: how the minimum over q is taken.
        metric: f_phi; None where the auxiliary needs none.
        alpha: weight of H(q), >= 0.
        beta: weight of D, >= 0.
        allow: names of legality rules that shall only warn.
        plus: further equations by name, each with its weight >= 0: the scalar is the weighted sum. They must hold the
            same model, and may have a metric, divergence and auxiliary of their own.
        checked: the remarks of legality, where it was computed before.

    Attributes:
        uses_samples: whether p_theta enters through particles, not through log-densities at the data alone.

    Raises:
        ConfigError: alpha, beta or a weight is not a number >= 0, or a summand has another model.
        IncompatibleError: the objects do not form a legal equation; the message names them and the fix.
    """

    sources: tuple[str, ...] = ("hu2022toward",)
    plus: nn.ModuleDict

    def __init__(
        self,
        *,
        model: Model,
        auxiliary: Auxiliary,
        divergence: Divergence | None = None,
        metric: Metric | None = None,
        alpha: float = 0.0,
        beta: float = 1.0,
        allow: Sequence[str] = (),
        plus: Mapping[str, tuple[float, StandardEquation]] | None = None,
        checked: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        divergence = Absent() if divergence is None else divergence
        self.model, self.divergence, self.auxiliary, self.metric = model, divergence, auxiliary, metric
        plus = plus or {}
        legality.weights(model, alpha, beta, plus)
        self.alpha, self.beta, self.allow = float(alpha), float(beta), tuple(allow)
        choice = legality.Choice(model, divergence, auxiliary, metric, self.alpha, self.beta, pairs=model.pairs)
        self.warnings = list(legality.check(choice, allow) if checked is None else checked)
        self.plus = nn.ModuleDict({name: other for name, (_, other) in plus.items()})
        self.weights = {name: float(weight) for name, (weight, _) in plus.items()}
        owners = [own for _, own in self.equations()]  # asked once, not in every step
        self.uses_samples = any(own.auxiliary.needs_samples(own.divergence) for own in owners)
        self._seen: dict[str, Divergence | None] = {}
        self._draws_more = any(own.auxiliary.draws_itself for own in owners)

    # -- the parts ----------------------------------------------------------------------------------------------------

    def summands(self) -> Iterator[tuple[str, float, StandardEquation]]:
        """Yield name, weight and equation of what is added."""
        for name, weight in self.weights.items():
            yield name, weight, self.plus[name]  # type: ignore[misc]

    def equations(self) -> Iterator[tuple[str, StandardEquation]]:
        """Yield this equation as :data:`OWN`, then those that are added, by name."""
        yield OWN, self
        for name, _, other in self.summands():
            yield name, other

    def metrics(self) -> dict[str, Metric]:
        """Return the metrics by the name of their summand, the equation's own as :data:`OWN`."""
        return {name: own.metric for name, own in self.equations() if own.metric is not None}

    def roles(self) -> list[Role]:
        """Return who moves: every part with trainable parameters has a player, in the order in which they move."""
        return roles_of(self)

    def view(self, role: Role) -> Divergence | None:
        """Return the divergence through which a player looks at the critic's output; None for D itself.

        Who moves D's own parameters looks through D. A surrogate gives each player a loss of its own. Else two duals
        share their optimal critic only over unnormalised q, at alpha = 0, and if the metric may be any function.
        """
        moves_d = any(part is self.divergence for part in role.parts.values())
        view = None if moves_d else self.divergence.view(role)
        if view is None or self.divergence.surrogate:
            return view
        free = self.metric is not None and self.metric.function_class == "unrestricted"
        return view if free and self.alpha == 0 and self.auxiliary.takes_views and self.auxiliary.free_mass else None

    def seen_by(self, role: Role | None) -> Divergence | None:
        """Return :meth:`view`, asked once for every role: steps read it; None for nobody's view."""
        if role is not None and role.name not in self._seen:
            self._seen[role.name] = self.view(role)
        return None if role is None else self._seen[role.name]

    def with_parts(self, other: Callable[[nn.Module], nn.Module]) -> StandardEquation:
        """Return the equation of other parts: each is what ``other`` makes of it, all else is shared."""

        def made(part: nn.Module | None) -> nn.Module | None:
            return None if part is None else other(part)

        plus = {name: (weight, summand.with_parts(other)) for name, weight, summand in self.summands()}
        parts: dict[str, Any] = {
            name: made(getattr(self, name)) for name in ("model", "divergence", "auxiliary", "metric")
        }
        parts |= {"alpha": self.alpha, "beta": self.beta, "allow": self.allow, "checked": self.warnings}
        return StandardEquation(**parts, plus=plus)

    def _repr_html_(self) -> str:
        """Return the equation as a notebook shows it: typeset, its symbols, its players, its terms."""
        from se_framework.comparison.report.notebook import of_equation

        return of_equation(self)

    # -- randomness ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def draws(self, n: int, stream: Stream, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return all that is random in one evaluation besides the data, by part and purpose.

        Args:
            n: particles of p_theta, and examples.
            stream: a generator for each purpose.
            context: the labels of the particles, shape (n,).
        """
        of_model = self.model.draws(n, stream, context) if self.uses_samples else {}
        found = {f"model/{k}": v for k, v in of_model.items()}
        for name, own in self.equations() if self._draws_more else ():
            if own.auxiliary.draws_itself:
                drawn = own.auxiliary.draws(n, stream.below(f"auxiliary/{name}"))  # type: ignore[attr-defined]
                found |= {f"auxiliary/{name}/{k}": v for k, v in drawn.items()}
        return found

    def particles(self, draws: Draws, context: Tensor | None = None) -> Particles | None:
        """Return p_theta's particles, differentiable in theta, one for each label; None where none is needed."""
        return self.model.particles(drawn_for("model", draws), context) if self.uses_samples else None

    def sample(
        self, n: int, generator: torch.Generator | None = None, context: Tensor | None = None
    ) -> Particles | None:
        """Draw n particles of p_theta, with the given labels; None where the equation needs none."""
        if not self.uses_samples:
            return None
        drawn = self.model.draws(n, lambda purpose: generator, context)  # type: ignore[arg-type]
        return self.model.particles(drawn, context)

    # -- the scalar ----------------------------------------------------------------------------------------------------

    def f(self, v: Tensor, divergence: Divergence | None = None) -> Tensor:
        """Return f_phi from the critic's output v, shape (B,)."""
        return self.auxiliary.f(v, divergence or self.divergence, self.beta)

    def inner_problem(
        self,
        data: Particles,
        p: Particles | None,
        divergence: Divergence | None = None,
        with_data: bool = True,
        draws: Draws | None = None,
        name: str = OWN,
    ) -> InnerProblem:
        """Return what the minimum over q depends on; ``with_data`` whether the critic is evaluated on data as well.

        The other arguments are those of :meth:`parts`.
        """
        v, v_data, metric = None, None, self.metric
        if metric is not None and with_data:
            v_data, v = (metric(data.x, data.context), None) if p is None else metric.on_both(data, p)
        elif metric is not None and p is not None:
            v = metric(p.x, p.context)
        divergence = divergence or self.divergence
        own = drawn_for(f"auxiliary/{name}", draws) if draws else {}
        return InnerProblem(v, v_data, data, p, self.model, divergence, self.alpha, self.beta, metric, own)

    @torch.no_grad()
    def advance(self, data: Particles, p: Particles | None, role: Role, draws: Draws) -> None:
        """Let the auxiliaries move what they carry from step to step (chains, an exact q)."""
        for name, own in self.equations():
            if own.auxiliary.advances:
                own.auxiliary.advance(own.inner_problem(data, p, draws=draws, name=name), role)

    def minimum(
        self,
        data: Particles,
        p: Particles | None,
        divergence: Divergence | None = None,
        role: Role | None = None,
        draws: Draws | None = None,
        name: str = OWN,
    ) -> Tensor:
        r"""Return :math:`\min_q\{-\alpha H(q) + \beta D(q,p) - \mathbb E_q f\}`, all of the scalar that theta moves.

        The critic is evaluated on data only where the minimum reads that. Arguments as in :meth:`parts`.
        """
        reads = self.auxiliary.minimum_reads_data
        minimum = self.auxiliary.minimum(self.inner_problem(data, p, divergence, reads, draws, name), role)
        for key, weight, other in self.summands():
            minimum = minimum + weight * other.minimum(data, p, other.seen_by(role), role, draws, key)
        return minimum

    def parts(
        self,
        data: Particles,
        p: Particles | None,
        divergence: Divergence | None = None,
        role: Role | None = None,
        draws: Draws | None = None,
        name: str = OWN,
    ) -> tuple[Tensor, Tensor]:
        r"""Return :math:`\min_q\{-\alpha H(q) + \beta D(q,p) - \mathbb E_q f\}` and :math:`\mathbb E_{p_d} f`.

        Where equations are added, both are weighted sums.

        Args:
            data: particles of p_d.
            p: particles of p_theta; None where the equation needs none.
            divergence: another *view* of the same critic output v; by default the equation's own D.
            role: whose step it is, who sees every summand through its own view; None for nobody's.
            draws: what :meth:`draws` returned; None where no part draws but the model.
            name: of this equation in the sum that drew.
        """
        problem = self.inner_problem(data, p, divergence, draws=draws, name=name)
        minimum = self.auxiliary.minimum(problem, role)
        if problem.v_data is None or not self.auxiliary.has_scores:  # q is the data: -E_q f + E_pd f = 0
            f_data = torch.zeros_like(minimum)
        else:
            f_data = data.mean(self.f(problem.v_data, divergence))
        for key, weight, other in self.summands():
            their_minimum, their_f = other.parts(data, p, other.seen_by(role), role, draws, key)
            minimum, f_data = minimum + weight * their_minimum, f_data + weight * their_f
        return minimum, f_data

    def scalar(self, data: Particles, p: Particles | None, divergence: Divergence | None = None) -> Tensor:
        """Return the equation's value, shape (): the sum of :meth:`parts`, whose arguments it takes."""
        minimum, f_data = self.parts(data, p, divergence)
        return minimum + f_data

    def forward(self, x: Tensor, noise: Tensor, context: Tensor | None = None) -> Tensor:
        r"""Return the scalar at a batch x of data, shape (B, \*E), its labels, and latent noise of the model."""
        return self.scalar(Particles(x, context=context), self.particles({"model/noise": noise}, context))

    def terms(self, data: Particles, p: Particles | None, draws: Draws | None = None, name: str = OWN) -> Terms:
        """Return the record of terms at the minimum over q, in float64; arguments as in :meth:`parts`."""
        return record(self, data, p, draws, name)

    def log_ratio(self, x: Tensor, data: Particles, p: Particles, context: Tensor | None = None) -> Tensor:
        """Return log(p_d/p_theta) as the critic reads it, log dq*/dp at x, shape (B,).

        Args:
            x: where, shape (B, *E).
            data: particles of p_d, which with p fix the normaliser of q.
            p: particles of p_theta.
            context: the labels of x, shape (B,), for a metric that reads them.

        Raises:
            IncompatibleError: the metric is absent or constrained, or the divergence reads a potential or a sign.
        """
        if self.metric is None or self.divergence.critic_reads != "log_ratio":
            raise IncompatibleError(
                f"no log-ratio: metric={type(self.metric).__name__}, divergence={type(self.divergence).__name__}; "
                "a smooth f-divergence with an unrestricted metric has one"
            )
        with evaluating(self):
            return self.auxiliary.log_ratio(x, self.metric.log_ratio(x, context), self.inner_problem(data, p))
