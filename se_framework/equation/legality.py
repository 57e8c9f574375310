"""Legality: which choices form an equation, computed from what the parts declare, before anything is allocated.

Each rule looks at declarations (class attributes, so a class serves as well as an instance) and, when broken, names
the two parts and the overrides that mend it. ``allow=[RULE,...]`` turns a rule into a warning: one may study an
illegal game, but config and plots say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn, optim

from se_framework.equation.metric import BATCH_NORMS
from se_framework.equation.rules import Choice, Violation, name_of, show, suitable, violations
from se_framework.errors import ConfigError, IncompatibleError, nearest

__all__ = ["Choice", "IncompatibleError", "RULES", "Violation", "check", "name_of", "show", "violations"]


RULES: dict[str, str] = {
    "metric_missing": "an auxiliary that uses f_phi needs a metric",
    "metric_unused": "an auxiliary without f_phi gives a metric nothing to learn from",
    "dual_missing": "auxiliary=dual needs a divergence with a dual",
    "primal_missing": "auxiliary=data needs a divergence with a primal",
    "divergence_missing": "D may be absent only where the auxiliary works through none of it",
    "need": "an auxiliary of one's own needs what it works through",
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
    "penalty": "a penalty at the model's samples needs an auxiliary that draws some",
    "view": "a player's view needs the dual, and a divergence that has one",
    "ensemble": "members train together only where vmap can evaluate them at once",
}
"""Every rule by its name."""
ELEMENTWISE = ("Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "Rprop")
"""Optimisers that treat every entry by itself, so that one step on stacked tensors is a step of each member."""
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
ALLOWABLE = ("lipschitz", "beta", "batch_coupled", "embedding_bound")
"""Rules that ``allow=[...]`` may turn into warnings; breaking another leaves nothing to compute."""


def images(
    model: Any, network: Any, image_shape: tuple[int, ...] | None, divergence: Any, auxiliary: Any
) -> list[Violation]:
    """Return the violations of a model and a metric's network (classes) for images where the data has none.

    Checked first: such a part cannot even be outlined without the shape of an image.
    """
    dense = auxiliary.needs_density(divergence)
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
    auxiliaries: Sequence[Any] = (),
) -> list[Violation]:
    """Return what cannot be done for all members at once: by what it declares, before a member is built.

    Args:
        members: how many.
        modules: outlines of the networks.
        divergences: D of every summand, and views.
        optimizers: the classes of the players' optimisers.
        data: p_d.
        auxiliaries: of every summand.
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
    if data is not None and not data.resident:
        problems.append(f"{data.name} is read when it is needed, in the order of one seed")
    return [
        Violation("ensemble", f"an ensemble of {members} cannot be stacked: {problem}", ("ensemble.size=1",))
        for problem in problems
    ]


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
        for part in dict.fromkeys((choice.divergence, *choice.views.values()))
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
