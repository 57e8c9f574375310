"""Legality: which choices form an equation, computed from what the parts declare, before anything is allocated.

Each rule looks at declarations (class attributes, so a class serves as well as an instance) and, when broken, names
the two parts and the overrides that mend it. ``allow=[RULE,...]`` turns a rule into a warning: one may study an
illegal game, but config and plots say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from se_framework.errors import ConfigError, IncompatibleError, nearest

__all__ = ["Choice", "IncompatibleError", "RULES", "Violation", "check", "violations"]


class Choice(NamedTuple):
    """The parts of an equation: instances, or classes where nothing shall be built yet.

    ``views`` are the divergences through which single players look at the critic; ``dimension`` is the number of
    coordinates of the data, None when unknown.
    """

    model: Any
    divergence: Any
    auxiliary: Any
    metric: Any
    alpha: float
    beta: float
    views: tuple[Any, ...] = ()
    dimension: int | None = None


class Violation(NamedTuple):
    """A broken rule: its name, what is wrong, and the overrides that mend it."""

    rule: str
    problem: str
    fix: tuple[str, ...]


RULES: dict[str, str] = {
    "metric_missing": "an auxiliary that uses f_phi needs a metric",
    "metric_unused": "an auxiliary without f_phi gives a metric nothing to learn from",
    "dual_missing": "auxiliary=dual needs a divergence with a dual",
    "primal_missing": "auxiliary=data needs a divergence with a primal",
    "entropy_form": "auxiliary=tilted has a closed q only for KL and cross-entropy",
    "lipschitz": "W1's dual holds for 1-Lipschitz metrics only",
    "alpha": "alpha > 0 belongs to auxiliary=tilted, which needs it",
    "beta": "without D the model has no gradient",
    "density": "a term needs the model's log-density",
    "dimension": "the model needs more dimensions than the data has",
    "batch_coupled": "a per-example penalty needs uncoupled examples",
    "view": "a player's view needs the dual, and a divergence that has one",
}
"""Every rule by its name."""
ALLOWABLE = ("lipschitz", "beta", "batch_coupled")
"""Rules that ``allow=[...]`` may turn into warnings; breaking another leaves nothing to compute."""


def name_of(part: Any) -> str:
    """Return the class name of a part, instance or class."""
    return part.__name__ if isinstance(part, type) else type(part).__name__


def show(part: Any) -> str:
    """Return a part's class with what it shows of itself."""
    return "none" if part is None else f"{name_of(part)}({part.extra_repr() if hasattr(part, 'extra_repr') else ''})"


def violations(choice: Choice) -> Iterator[Violation]:
    """Yield every broken rule."""
    model, divergence, auxiliary, metric = choice.model, choice.divergence, choice.auxiliary, choice.metric
    d, q, p = name_of(divergence), name_of(auxiliary), name_of(model)
    uses = auxiliary.uses

    suitable = "groupsort" if divergence.needs_lipschitz else "mlp"
    if uses == "dual" and not divergence.has_dual:
        problem = f"auxiliary {q} works through the dual of D, and {d} has none"
        if metric is None:
            yield Violation("dual_missing", problem, ("divergence=kl",))
        else:
            density = ("model=affine",) if _lacks_density(divergence, model) else ()
            yield Violation("dual_missing", problem, ("auxiliary=data", "metric=none", *density))
    elif uses == "primal" and divergence.primal_needs is None:
        problem = f"auxiliary {q} evaluates D(p_d, p_theta) on samples, and {d} is known by its dual only"
        dual = ("auxiliary=dual", f"metric={suitable}", *(("equation.alpha=0",) if choice.alpha > 0 else ()))
        yield Violation("primal_missing", problem, dual if metric is None else ("divergence=sinkhorn", "metric=none"))
    elif uses == "entropy" and divergence.entropy_weight is None:
        yield Violation("entropy_form", f"auxiliary {q} has no closed form of q under {d}", ("divergence=kl",))

    if auxiliary.uses_metric and metric is None:
        yield Violation("metric_missing", f"auxiliary {q} needs a metric f_phi, got none", (f"metric={suitable}",))
    if not auxiliary.uses_metric and metric is not None:
        yield Violation("metric_unused", f"auxiliary {q} has no f_phi: the metric would never learn", ("metric=none",))

    if metric is not None and auxiliary.uses_metric:
        lipschitz = metric.function_class != "unrestricted"
        for view in (divergence, *choice.views) if uses == "dual" else ():
            if view.needs_lipschitz and not lipschitz:
                yield Violation(
                    "lipschitz", f"{name_of(view)} needs a 1-Lipschitz metric, got an unrestricted one",
                    ("metric=groupsort",),
                )  # fmt: skip
        if metric.penalty is not None and metric.penalty.per_example and metric.batch_coupled:
            yield Violation(
                "batch_coupled", f"{name_of(metric.penalty)} takes each example's gradient, and "
                f"{name_of(metric.network)} couples the examples by batch normalisation", ("metric=mlp",),
            )  # fmt: skip

    if auxiliary.needs_alpha is False and choice.alpha > 0:
        yield Violation(
            "alpha", f"auxiliary {q} is the minimum over q at alpha = 0, got alpha = {choice.alpha:g}",
            ("equation.alpha=0",),
        )  # fmt: skip
    if auxiliary.needs_alpha is True and not choice.alpha > 0:
        yield Violation("alpha", f"auxiliary {q} needs alpha > 0, got {choice.alpha:g}", ("equation.alpha=0.5",))
    if not choice.beta > 0:
        yield Violation(
            "beta", f"beta = {choice.beta:g} removes {d} and with it the model's gradient", ("equation.beta=1",)
        )

    if uses == "entropy" and not model.has_log_prob:
        yield Violation("density", f"auxiliary {q} needs the model's density, and {p} has none", ("model=affine",))
    if uses == "primal" and _lacks_density(divergence, model):
        yield Violation("density", f"{d} needs the model's density, and {p} has none", ("model=affine",))
    if choice.dimension is not None and choice.dimension < model.smallest_dimension:
        yield Violation(
            "dimension", f"{p} needs data of at least {model.smallest_dimension} dimensions, got {choice.dimension}",
            ("model=affine",),
        )  # fmt: skip

    for view in choice.views:
        if uses != "dual" or not (view.has_dual and divergence.has_dual):
            yield Violation(
                "view", f"a player's view {name_of(view)} reads the critic through a dual, which auxiliary {q} "
                "or the view or D itself does not have", ("players.theta.view=null", "players.phi.view=null"),
            )  # fmt: skip


def _lacks_density(divergence: Any, model: Any) -> bool:
    return divergence.primal_needs == "log_prob" and not model.has_log_prob


def check(choice: Choice, allow: Sequence[str] = ()) -> list[str]:
    """Return the warnings of allowed violations.

    Args:
        choice: the parts.
        allow: names of rules that only warn.

    Raises:
        ConfigError: ``allow`` names a rule that cannot be allowed.
        IncompatibleError: a rule that is not allowed is broken; the message names the parts and the overrides to add.
    """
    for name in allow:
        if name not in ALLOWABLE:
            raise ConfigError(f"allow: {name!r} is no rule that can be allowed: {nearest(name, ALLOWABLE)}")
    found = list(violations(choice))
    fatal = [v for v in found if v.rule not in allow]
    if fatal:
        fixes = dict.fromkeys(part for v in fatal for part in v.fix)
        rules = list(dict.fromkeys(v.rule for v in fatal))
        study = f" (or study it anyway: allow=[{','.join(rules)}])" if set(rules) <= set(ALLOWABLE) else ""
        raise IncompatibleError("; ".join(dict.fromkeys(v.problem for v in fatal)) + f": add {' '.join(fixes)}{study}")
    return [f"{v.rule}: {v.problem}" for v in found]
