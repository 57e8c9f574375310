"""Legality: which choices form an equation, computed from what the parts declare, before anything is allocated.

Each rule looks at declarations (class attributes, so a class serves as well as an instance) and, when broken, names
the two parts and the overrides that mend it. ``allow=[RULE,...]`` turns a rule into a warning: one may study an
illegal game, but config and plots say so.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import nn, optim

from se_framework.errors import ConfigError, IncompatibleError, nearest

__all__ = ["Choice", "IncompatibleError", "RULES", "Violation", "check", "violations"]


class Choice(NamedTuple):
    """The parts of an equation: instances, or classes where nothing shall be built yet.

    ``views`` are the divergences through which single players look at the critic; ``dimension`` is the number of
    coordinates of the data, None when unknown; ``classes`` the number of classes of its labels, 0 without labels.
    """

    model: Any
    divergence: Any
    auxiliary: Any
    metric: Any
    alpha: float
    beta: float
    views: tuple[Any, ...] = ()
    dimension: int | None = None
    classes: int = 0


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
    "ground_cost": "auxiliary=transported needs a D that is transport at a cost",
    "extra": "a primal that an extra package computes needs the package",
    "entropy_form": "auxiliary=tilted has a closed q only for KL and cross-entropy",
    "normaliser": "auxiliary=dual_probability needs a divergence with a dual over probability q",
    "embedding": "an embedding serves auxiliary=embedded, which needs one, and a D of its points; nothing else does",
    "embedding_bound": "D of embedded points has no maximum over phi unless D or the embedding is bounded or Lipschitz",
    "lipschitz": "W1's dual holds for 1-Lipschitz metrics only",
    "alpha": "alpha > 0 belongs to auxiliary=tilted, which needs it",
    "beta": "without D the model has no gradient",
    "density": "a term needs the model's log-density",
    "dimension": "the model needs more dimensions than the data has, or the primal of D is for fewer",
    "context": "data with labels needs a model, a metric and a D that read them",
    "image": "convolutions need data that are images",
    "batch_coupled": "a per-example penalty or a c-transform needs uncoupled examples",
    "view": "a player's view needs the dual, and a divergence that has one",
    "ensemble": "members train together only where vmap can evaluate them at once",
}
"""Every rule by its name."""
ELEMENTWISE = ("Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "Rprop")
"""Optimisers that treat every entry by itself, so that one step on stacked tensors is a step of each member."""
ALLOWABLE = ("lipschitz", "beta", "batch_coupled", "embedding_bound")
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

    if uses == "dual" and not divergence.has_dual:
        problem = f"auxiliary {q} works through the dual of D, and {d} has none"
        if metric is None or metric.outputs is not None or divergence.primal_needs is None:
            yield Violation("dual_missing", problem, ("divergence=kl",))
        elif divergence.has_ground_cost:
            yield Violation("dual_missing", problem, ("auxiliary=transported",))
        else:
            density = ("model=affine",) if _lacks_density(divergence, model) else ()
            yield Violation("dual_missing", problem, ("auxiliary=data", "metric=none", *density))
    elif uses == "primal" and divergence.primal_needs is None:
        problem = f"auxiliary {q} evaluates D(p_d, p_theta) on samples, and {d} is known by its dual only"
        if not divergence.has_dual:
            problem = f"auxiliary {q} evaluates D(p_d, p_theta) on samples, and {d} has neither that nor a dual"
        dual = (
            *(() if divergence.has_dual else ("divergence=kl",)),
            "auxiliary=dual",
            "metric=groupsort" if divergence.needs_lipschitz else "metric=mlp",
            *(("equation.alpha=0",) if choice.alpha > 0 else ()),
        )
        fix = ("divergence=sinkhorn",) if auxiliary.embeds else ("divergence=sinkhorn", "metric=none")
        yield Violation("primal_missing", problem, dual if metric is None else fix)
    elif uses == "transport" and not divergence.has_ground_cost:
        problem = f"auxiliary {q} moves p at a ground cost, and {d} has none"
        yield Violation("ground_cost", problem, ("divergence=wasserstein1",))
    elif uses == "entropy" and divergence.entropy_weight is None:
        yield Violation("entropy_form", f"auxiliary {q} has no closed form of q under {d}", ("divergence=kl",))

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
        for view in (divergence, *choice.views) if uses == "dual" else ():
            if view.needs_lipschitz and not lipschitz:
                yield Violation(
                    "lipschitz", f"{name_of(view)} needs a 1-Lipschitz metric, got an unrestricted one",
                    ("metric=groupsort",),
                )  # fmt: skip
        if uses == "transport" and metric.batch_coupled:
            yield Violation(
                "batch_coupled", f"auxiliary {q} takes v at points of its own, and {name_of(metric.network)} couples "
                "the examples by batch normalisation", ("metric=mlp",),
            )  # fmt: skip
        elif metric.penalty is not None and metric.penalty.per_example and metric.batch_coupled:
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

    if auxiliary.needs_density and not model.has_log_prob:
        yield Violation("density", f"auxiliary {q} needs the model's density, and {p} has none", ("model=affine",))
    if uses == "primal" and _lacks_density(divergence, model):
        yield Violation("density", f"{d} needs the model's density, and {p} has none", ("model=affine",))
    yield from _primal_limits(choice)
    yield from _context(choice)
    if choice.dimension is not None and choice.dimension < model.smallest_dimension:
        yield Violation(
            "dimension", f"{p} needs data of at least {model.smallest_dimension} dimensions, got {choice.dimension}",
            ("model=affine",),
        )  # fmt: skip

    for view in choice.views:
        null = ("players.theta.view=null", "players.phi.view=null")
        if uses != "dual" or not (view.has_dual and divergence.has_dual):
            yield Violation(
                "view", f"a player's view {name_of(view)} reads the critic through a dual, which auxiliary {q} "
                "or the view or D itself does not have", null,
            )  # fmt: skip
        elif auxiliary.needs_alpha:
            yield Violation(
                "view", f"a player's view {name_of(view)} shares the optimal critic of D at alpha = 0 only, and "
                f"auxiliary {q} is for alpha > 0", null,
            )  # fmt: skip


def _primal_limits(choice: Choice) -> Iterator[Violation]:
    """Yield why a primal cannot be evaluated here: points of too many coordinates, or a package that is absent."""
    divergence, auxiliary, metric = choice.divergence, choice.auxiliary, choice.metric
    if auxiliary.uses != "primal" or divergence.primal_needs is None:
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
        yield Violation("embedding", problem, ("metric=embedding",))
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
    if choice.auxiliary.uses != "dual" and choice.divergence.primal_needs != "log_prob":
        deaf.append(name_of(choice.divergence))
    elif choice.auxiliary.needs_density:
        deaf.append(f"auxiliary {name_of(choice.auxiliary)}")
    if deaf:
        yield Violation(
            "context", f"the data has labels, and {' and '.join(deaf)} cannot read any", ("data.labels=false",)
        )


def images(
    model: Any, network: Any, image_shape: tuple[int, ...] | None, divergence: Any, auxiliary: Any
) -> list[Violation]:
    """Return the violations of a model and a metric's network (classes) for images where the data has none.

    Checked first: such a part cannot even be outlined without the shape of an image.
    """
    dense = divergence.primal_needs == "log_prob" and auxiliary.uses == "primal" or auxiliary.needs_density
    fixes = ((model, "model=affine" if dense else "model=mlp_generator"), (network, suitable(divergence, auxiliary)))
    return [
        Violation("image", f"{name_of(part)} is for images, and the data has no image_shape", (fix,))
        for part, fix in fixes
        if getattr(part, "needs_image", False) and image_shape is None
    ]


def ensemble(
    members: int,
    modules: Sequence[Any] = (),
    divergences: Sequence[Any] = (),
    optimizers: Sequence[type] = (),
    data: Any = None,
) -> list[Violation]:
    """Return what cannot be done for all members at once: by what it declares, before a member is built.

    Args:
        members: how many.
        modules: outlines of the networks.
        divergences: D of every summand, and views.
        optimizers: the classes of the players' optimisers.
        data: p_d.
    """
    problems = [
        f"{name_of(d)} is computed by a program that takes one problem at a time"
        for d in divergences
        if not d.stackable
    ]
    parts = [part for module in modules for part in module.modules()]
    if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in parts):
        problems.append("batch normalisation moves its buffers in every forward pass")
    if any(isinstance(part, nn.modules.dropout._DropoutNd) for part in parts):
        problems.append("dropout draws on the one global generator")
    problems += [
        f"optimiser {kind.__name__} may couple the entries of a tensor, which would be those of all members: choose "
        f"one of {', '.join(ELEMENTWISE)}"
        for kind in dict.fromkeys(optimizers)
        if kind not in [getattr(optim, name) for name in ELEMENTWISE]
    ]
    if data is not None and not data.resident:
        problems.append(f"{data.name} is read when it is needed, in the order of one seed")
    return [
        Violation("ensemble", f"an ensemble of {members} cannot be stacked: {problem}", ("ensemble.size=1",))
        for problem in problems
    ]


def suitable(divergence: Any, auxiliary: Any) -> str:
    """Return the choice of a metric that suits a divergence and an auxiliary."""
    if not auxiliary.uses_metric:
        return "metric=none"
    if auxiliary.embeds:
        return "metric=embedding"
    return "metric=groupsort" if divergence.needs_lipschitz and auxiliary.uses == "dual" else "metric=mlp"


def _lacks_density(divergence: Any, model: Any) -> bool:
    return divergence.primal_needs == "log_prob" and not model.has_log_prob


def check(choice: Choice, allow: Sequence[str] = ()) -> list[str]:
    """Return the remarks that config, log and pictures must carry: allowed violations, and surrogates.

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
    refuse(found, allow)
    remarks = [f"allowed: {v.rule}: {v.problem}" for v in found]
    return remarks + [
        f"surrogate: {show(part)}: each player has a loss of its own; there is no D, no q and no saddle"
        for part in dict.fromkeys((choice.divergence, *choice.views))
        if part.surrogate
    ]


def refuse(found: Sequence[Violation], allow: Sequence[str] = ()) -> None:
    """Raise for violations that are not allowed.

    Raises:
        IncompatibleError: the message names the parts and the overrides to add.
    """
    fatal = [v for v in found if v.rule not in allow]
    if fatal:
        fixes = dict.fromkeys(part for v in fatal for part in v.fix)
        rules = list(dict.fromkeys(v.rule for v in fatal))
        study = f" (or study it anyway: allow=[{','.join(rules)}])" if set(rules) <= set(ALLOWABLE) else ""
        raise IncompatibleError("; ".join(dict.fromkeys(v.problem for v in fatal)) + f": add {' '.join(fixes)}{study}")
