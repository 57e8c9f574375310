"""The rules of legality: each looks at what the parts declare, and says what is wrong and which overrides mend it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple


class Choice(NamedTuple):
    """The parts of an equation: instances, or classes where nothing shall be built yet.

    ``views`` are the divergences through which single players look at the critic, by name; ``dimension`` is the number
    of coordinates of the data, None when unknown; ``classes`` the number of classes of its labels, 0 without labels.
    """

    model: Any
    divergence: Any
    auxiliary: Any
    metric: Any
    alpha: float
    beta: float
    views: Mapping[str, Any] = {}  # noqa: RUF012  never written to
    dimension: int | None = None
    classes: int = 0


class Violation(NamedTuple):
    """A broken rule: its name, what is wrong, and the overrides that mend it."""

    rule: str
    problem: str
    fix: tuple[str, ...]


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
    yield from _missing(choice)

    if auxiliary.needs_mass_one and not divergence.has_normalised_dual:
        yield Violation("normaliser", f"auxiliary {q} takes q of mass one, {d} has no such dual", ("auxiliary=dual",))

    if auxiliary.uses_metric and metric is None:
        fitting = suitable(divergence, auxiliary)
        yield Violation("metric_missing", f"auxiliary {q} needs a metric f_phi, got none", (fitting,))
    yield from _embedding(choice)
    if not auxiliary.uses_metric and metric is not None:
        yield Violation("metric_unused", f"auxiliary {q} has no f_phi: the metric would never learn", ("metric=none",))

    if metric is not None and auxiliary.uses_metric and metric.outputs is None:
        lipschitz = metric.function_class != "unrestricted"
        for view in (divergence, *choice.views.values()) if auxiliary.keeps_function_class else ():
            if view.needs_lipschitz and not lipschitz:
                yield Violation(
                    "lipschitz", f"{name_of(view)} needs a 1-Lipschitz metric, got an unrestricted one",
                    ("metric=groupsort",),
                )  # fmt: skip
        if auxiliary.moves_points and metric.batch_coupled:
            yield Violation(
                "batch_coupled", f"auxiliary {q} takes v at points of its own, and {name_of(metric.network)} couples "
                "the examples by batch normalisation", ("metric=mlp",),
            )  # fmt: skip
        elif metric.penalty is not None and metric.penalty.per_example and metric.batch_coupled:
            yield Violation(
                "batch_coupled", f"{name_of(metric.penalty)} takes each example's gradient, and "
                f"{name_of(metric.network)} couples the examples by batch normalisation", ("metric=mlp",),
            )  # fmt: skip

        if metric.penalty is not None and metric.penalty.needs_samples and not auxiliary.needs_samples(divergence):
            yield Violation(
                "penalty", f"{name_of(metric.penalty)} acts at the model's samples, and auxiliary {q} draws none",
                ("metric.penalty=null",),
            )  # fmt: skip

    if auxiliary.needs_alpha is False and choice.alpha > 0:
        yield Violation(
            "alpha", f"auxiliary {q} is the minimum over q at alpha = 0, got alpha = {choice.alpha:g}",
            ("equation.alpha=0",),
        )  # fmt: skip
    if auxiliary.needs_alpha is True and not choice.alpha > 0:
        yield Violation("alpha", f"auxiliary {q} needs alpha > 0, got {choice.alpha:g}", ("equation.alpha=0.5",))
    if not choice.beta > 0 and not divergence.absent:
        yield Violation(
            "beta", f"beta = {choice.beta:g} removes {d} and with it the model's gradient", ("equation.beta=1",)
        )

    if auxiliary.needs_density(divergence) and not model.has_log_prob:
        needs = d if divergence.primal_needs == "log_prob" else f"auxiliary {q}"
        yield Violation("density", f"{needs} needs the model's density, and {p} has none", ("model=affine",))
    yield from _primal_limits(choice)
    yield from _context(choice)
    if choice.dimension is not None and choice.dimension < model.smallest_dimension:
        yield Violation(
            "dimension", f"{p} needs data of at least {model.smallest_dimension} dimensions, got {choice.dimension}",
            ("model=affine",),
        )  # fmt: skip

    for name, view in choice.views.items():
        null = (f"players.{name}.view=null",)
        if not auxiliary.takes_views or not (view.has_dual and divergence.has_dual):
            yield Violation(
                "view", f"a player's view {name_of(view)} reads the critic through a dual, which auxiliary {q} "
                "or the view or D itself does not have", null,
            )  # fmt: skip
        elif auxiliary.needs_alpha:
            yield Violation(
                "view", f"a player's view {name_of(view)} shares the optimal critic of D at alpha = 0 only, and "
                f"auxiliary {q} is for alpha > 0", null,
            )  # fmt: skip


def _missing(choice: Choice) -> Iterator[Violation]:
    """Yield what the auxiliary works through and D does not have, with what would fit."""
    divergence, auxiliary = choice.divergence, choice.auxiliary
    need = auxiliary.works_through
    have = None if need is None else getattr(divergence, need, None)  # a weight of zero is there
    if need is None or not (have is None or have is False):
        return
    d, q = name_of(divergence), name_of(auxiliary)
    rule, problem, fix = _NEEDS.get(need, ("need", f"works through {need} of D, and {{d}} has none", lambda choice: ()))
    if divergence.absent:
        yield Violation("divergence_missing", f"auxiliary {q} needs a divergence D, got none", fix(choice))
    else:
        known = "is known by its dual only" if divergence.has_dual else "has neither that nor a dual"
        yield Violation(rule, f"auxiliary {q} {problem.format(d=d, known=known)}", fix(choice))


def _for_a_dual(choice: Choice) -> tuple[str, ...]:
    divergence, metric = choice.divergence, choice.metric
    if metric is None or metric.outputs is not None or divergence.primal_needs is None:
        return ("divergence=kl",)
    if divergence.has_ground_cost:
        return ("auxiliary=transported",)
    lacking = divergence.primal_needs == "log_prob" and not choice.model.has_log_prob
    return ("auxiliary=data", "metric=none", *(("model=affine",) if lacking else ()))


def _for_a_primal(choice: Choice) -> tuple[str, ...]:
    divergence = choice.divergence
    if choice.metric is not None:
        return ("divergence=sinkhorn",) if choice.auxiliary.embeds else ("divergence=sinkhorn", "metric=none")
    dual = () if divergence.has_dual else ("divergence=kl",)
    critic = "metric=groupsort" if divergence.needs_lipschitz else "metric=mlp"
    return (*dual, "auxiliary=dual", critic, *(("equation.alpha=0",) if choice.alpha > 0 else ()))


_NEEDS: dict[str, tuple[str, str, Callable[[Choice], tuple[str, ...]]]] = {
    "has_dual": ("dual_missing", "works through the dual of D, and {d} has none", _for_a_dual),
    "primal_needs": ("primal_missing", "evaluates D(p_d, p_theta) on samples, and {d} {known}", _for_a_primal),
    "has_ground_cost": (
        "ground_cost", "moves p at a ground cost, and {d} has none", lambda choice: ("divergence=wasserstein1",),
    ),
    "entropy_weight": ("entropy_form", "has no closed form of q under {d}", lambda choice: ("divergence=kl",)),
}  # fmt: skip
"""For each declaration of D that an auxiliary may work through: the rule, the problem without it, what would fit."""


def _primal_limits(choice: Choice) -> Iterator[Violation]:
    """Yield why a primal cannot be evaluated here: points of too many coordinates, or a package that is absent."""
    divergence, auxiliary, metric = choice.divergence, choice.auxiliary, choice.metric
    if not auxiliary.evaluates_primal or divergence.primal_needs is None:
        return
    embedded = metric.outputs if auxiliary.embeds and metric is not None else None
    dimension, most = embedded if auxiliary.embeds else choice.dimension, divergence.largest_dimension
    if most is not None and dimension is not None and dimension > most:
        fix = "metric=projection" if auxiliary.embeds else "divergence=sliced_wasserstein"
        points = "embedded points" if auxiliary.embeds else "data"
        yield Violation(
            "dimension", f"{name_of(divergence)} is for {points} of at most {most} dimension, got {dimension}", (fix,)
        )
    if divergence.primal_extra is not None:
        package, extra = divergence.primal_extra
        if importlib.util.find_spec(package) is None:
            yield Violation(
                "extra", f"{name_of(divergence)} is computed by the package {package}, which is not installed "
                f"(pip install 'se-framework[{extra}]')", ("divergence=sinkhorn",),
            )  # fmt: skip


def _embedding(choice: Choice) -> Iterator[Violation]:
    """Yield what is wrong about an embedding in the place of a score, or a score in that of an embedding."""
    divergence, auxiliary, metric = choice.divergence, choice.auxiliary, choice.metric
    d, q = name_of(divergence), name_of(auxiliary)
    if auxiliary.embeds and divergence.primal_needs == "log_prob":
        yield Violation("embedding", f"{d} needs a density, and embedded points have none", ("divergence=sinkhorn",))
    if metric is None or not auxiliary.uses_metric:
        return
    network = name_of(metric.network)
    if not auxiliary.embeds:
        if metric.outputs is not None:
            problem = f"auxiliary {q} needs one score per example, and {network} returns an embedding"
            yield Violation("embedding", problem, (suitable(divergence, auxiliary),))
    elif metric.outputs is None:
        problem = f"auxiliary {q} needs an embedding, and {network} returns one score per example"
        yield Violation("embedding", problem, ("metric=embedding",))
    elif metric.penalty is not None:
        problem = f"{name_of(metric.penalty)} takes the gradient of one score, and {network} returns an embedding"
        yield Violation("embedding", problem, ("metric.penalty=null",))
    elif not (divergence.bounded_in_scale or metric.bounded or metric.function_class != "unrestricted"):
        problem = f"{d} grows with the scale of its points, and {network} is neither Lipschitz nor bounded"
        yield Violation("embedding_bound", problem, ("metric=embedding",))


def _context(choice: Choice) -> Iterator[Violation]:
    """Yield which part cannot read the labels of the data."""
    if not choice.classes:
        return
    deaf = [] if choice.model.has_context else [name_of(choice.model)]
    if choice.auxiliary.uses_metric and choice.metric is not None and not choice.metric.has_context:
        deaf.append(name_of(choice.metric.network))
    if not choice.auxiliary.reads_context(choice.divergence):
        clouds = choice.auxiliary.evaluates_primal or choice.auxiliary.moves_points
        deaf.append(name_of(choice.divergence) if clouds else f"auxiliary {name_of(choice.auxiliary)}")
    if deaf:
        yield Violation(
            "context", f"the data has labels, and {' and '.join(deaf)} cannot read any", ("data.labels=false",)
        )


def suitable(divergence: Any, auxiliary: Any) -> str:
    """Return the choice of a metric that suits a divergence and an auxiliary."""
    if not auxiliary.uses_metric:
        return "metric=none"
    if auxiliary.embeds:
        return "metric=embedding"
    return "metric=groupsort" if divergence.needs_lipschitz and auxiliary.keeps_function_class else "metric=mlp"
