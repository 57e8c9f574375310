"""Legality: which choices form an equation, computed from what the parts declare, before anything is allocated.

Each rule looks at declarations (class attributes, so a class serves as well as an instance); :func:`check` asks them
all. ``allow=[RULE,...]`` turns a rule into a warning: one may study an illegal game, but config and plots say so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn, optim

from se_framework.equation.choice import Choice, Problem, Violation, name_of, show
from se_framework.equation.metric import BATCH_NORMS
from se_framework.equation.roles import Role
from se_framework.equation.rules import RULES, violations
from se_framework.equation.terms import OWN
from se_framework.errors import ConfigError, IncompatibleError, nearest

__all__ = ["Choice", "IncompatibleError", "RULES", "Violation", "check", "name_of", "show", "violations"]


ELEMENTWISE = ("Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "Rprop")
"""Optimisers that treat every entry by itself, so that one step on stacked tensors is a step of each member."""
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
ALLOWABLE = ("lipschitz", "beta", "batch_coupled", "embedding_bound", "view_reads")
"""Rules that ``allow=[...]`` may turn into warnings; breaking another leaves nothing to compute."""
OF_DATA = ("image", "reference")
"""Rules between a part and the data alone, see :func:`of_data`."""


def weights(model: Any, alpha: float, beta: float, plus: Mapping[str, tuple[float, Any]]) -> None:
    """Refuse a sum that is not one scalar over one theta, or that weighs a term by what is no number >= 0.

    Args:
        model: the equation's.
        alpha: weighs -H(q).
        beta: weighs D.
        plus: the summands: name to (weight, equation).

    Raises:
        ConfigError: a weight or a summand is of another kind.
    """
    for name, (_, other) in plus.items():
        if other.model is not model or len(other.plus) or name == OWN:
            raise ConfigError(
                f"plus.{name} must be one equation of the same model, not called {OWN}: a sum is over one theta"
            )
        if other.divergence.surrogate:
            raise ConfigError(f"plus.{name} is a surrogate: a sum is one scalar, and it has a loss for each player")
    summands = {f"plus.{name}.weight": weight for name, (weight, _) in plus.items()}
    for name, weight in ({"equation.alpha": alpha, "equation.beta": beta} | summands).items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ConfigError(f"{name} must be a finite number >= 0, got {weight}: it weighs a term of the equation")


def of_data(model: Any, network: Any, made_for: Mapping[str, Any]) -> list[Violation]:
    """Return the violations of a model and a metric's network (classes) that need what the data has not.

    Checked first: such a part cannot even be outlined.

    Args:
        model: a class or an instance.
        network: likewise, or None.
        made_for: what every constructor is told of the data.
    """
    parts = (("model", model), ("metric", network))
    found = [
        Violation("image", Problem(f"{name_of(part)} is for images, and the data has no image_shape", (name,)))
        for name, part in parts
        if getattr(part, "needs_image", False) and made_for.get("image_shape") is None
    ]
    if getattr(network, "needs_pairs", False) and getattr(made_for.get("reference"), "first", None) is None:
        text = f"{name_of(network)} scores pairs (x, y), and the data does not come in pairs"
        found.append(Violation("pairs", Problem(text, ("metric",))))
    if made_for.get("image_shape") is not None:
        refused = [(n, part.unmakeable(made_for["image_shape"])) for n, part in parts if hasattr(part, "unmakeable")]
        found += [Violation("image", Problem(why, (name,))) for name, why in refused if why is not None]
    if getattr(model, "needs_reference", False) and made_for.get("reference") is None:
        text = f"{name_of(model)} is a second law of the data's, and the data brings none"
        found.append(Violation("reference", Problem(text, ("model",))))
    return found


def pairs_of(model: Any, reference: Any) -> int | None:
    """Return what a model, or a class that is to be built for the data's reference, declares as ``pairs``."""
    of_data = getattr(reference, "first", None) if model.needs_reference else None
    return model.pairs or of_data


def accumulation(equation: Any, role: Role, view: Any = None) -> list[Violation]:
    """Return why a player's batch cannot be cut into pieces: the mean of their scalars would not be that of the batch.

    Args:
        equation: all of it.
        role: of the player.
        view: the divergence through which the player sees the critic's output; None for the equation's own.
    """
    problems = []
    for name, own in equation.equations():
        divergence = (view if own is equation else None) or own.seen_by(role) or own.divergence
        penalty, where = getattr(own.metric, "penalty", None), "" if own is equation else f" of plus.{name}"
        if not own.auxiliary.additive(divergence):
            by = "" if divergence.absent else f" under {name_of(divergence)}"
            problems.append(f"auxiliary {name_of(own.auxiliary)}{where}{by} is no mean over particles")
        if penalty is not None and any(part is own.metric for part in role.parts.values()) and not penalty.additive:
            problems.append(f"{name_of(penalty)}{where} is no mean over examples")
    if equation.uses_samples and not equation.model.has_rsample:
        problems.append(f"{name_of(equation.model)} has weighted particles, which stand for the law together")
    values = (f"players.{role.name}.accumulate=1",)
    whole = "so pieces of a batch do not add up to it"
    return [Violation("accumulate", Problem(f"{problem}, {whole}", (), values)) for problem in problems]


def ensemble(
    members: int,
    modules: Sequence[Any] = (),
    divergences: Sequence[Any] = (),
    optimizers: Sequence[type] = (),
    data: Any = None,
    auxiliaries: Sequence[Any] = (),
    pieces: int = 1,
) -> list[Violation]:
    """Return what cannot be done for all members at once: by what it declares, before a member is built.

    Args:
        members: how many.
        modules: outlines of the networks.
        divergences: D of every summand, and views.
        optimizers: the classes of the players' optimisers.
        data: p_d.
        auxiliaries: of every summand.
        pieces: the most into which a player cuts its batch.
    """
    problems = [
        f"{name_of(d)} is computed by a program that takes one problem at a time"
        for d in divergences
        if not d.stackable
    ]
    parts = [part for module in modules for part in module.modules()]
    if any(isinstance(part, BATCH_NORMS) for part in parts):
        problems.append("batch normalisation moves its buffers in every forward pass")
    if any(isinstance(part, DROPOUTS) for part in parts):
        problems.append("dropout draws on the one global generator")
    problems += [
        f"optimiser {kind.__name__} may couple the entries of a tensor, which would be those of all members: choose "
        f"one of {', '.join(ELEMENTWISE)}"
        for kind in dict.fromkeys(optimizers)
        if kind not in [getattr(optim, name) for name in ELEMENTWISE]
    ]
    problems += [
        f"auxiliary {name_of(auxiliary)} carries something from step to step, for one run at a time"
        for auxiliary in auxiliaries
        if auxiliary.advances
    ]
    if pieces > 1:
        problems.append("gradients are accumulated for one run at a time")
    if data is not None and not data.resident:
        problems.append(f"{data.name} is read when it is needed, in the order of one seed")
    return [
        Violation(
            "ensemble", Problem(f"an ensemble of {members} cannot be stacked: {problem}", (), ("ensemble.size=1",))
        )
        for problem in problems
    ]


Mend = Callable[[Choice, Sequence[Violation], Sequence[str]], str]
"""From a choice, what is wrong with it and what is allowed, to the overrides that mend it."""


def check(choice: Choice, allow: Sequence[str] = (), mend: Mend | None = None) -> list[str]:
    """Return the remarks that config, log and pictures must carry: allowed violations, and surrogates.

    Args:
        choice: the parts.
        allow: names of rules that only warn.
        mend: says what to choose instead, where there are choices.

    Raises:
        ConfigError: ``allow`` names a rule that cannot be allowed.
        IncompatibleError: a rule that is not allowed is broken; the message names the parts and what mends it.
    """
    for name in allow:
        if name not in ALLOWABLE:
            raise ConfigError(f"allow: {name!r} is no rule that can be allowed: {nearest(name, ALLOWABLE)}")
    found = list(violations(choice))
    fatal = [v for v in found if v.rule not in allow]
    refuse(fatal, mend(choice, fatal, allow) if fatal and mend is not None else None)
    remarks = [f"allowed: {v.rule}: {v.problem.text}" for v in found]
    return remarks + [
        f"surrogate: {show(part)}: each player has a loss of its own; there is no D, no q and no saddle"
        for part in dict.fromkeys((choice.divergence, *choice.views.values()))
        if part.surrogate
    ]


def refuse(fatal: Sequence[Violation], mended_by: str | None = None) -> None:
    """Raise if there are violations.

    Args:
        fatal: those that are not allowed.
        mended_by: overrides; None for the values that the violations name.

    Raises:
        IncompatibleError: the message names the parts, and the overrides to add.
    """
    if not fatal:
        return
    if mended_by is None:
        mended_by = " ".join(dict.fromkeys(value for v in fatal for value in v.problem.values))
    rules = list(dict.fromkeys(v.rule for v in fatal))
    study = f" (or study it anyway: allow=[{','.join(rules)}])" if set(rules) <= set(ALLOWABLE) else ""
    add = f": add {mended_by}" if mended_by else ""
    raise IncompatibleError("; ".join(dict.fromkeys(v.problem.text for v in fatal)) + add + study)
