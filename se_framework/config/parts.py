"""The parts that a configuration chooses, checked before anything is allocated."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig

from divergences.absent import Absent
from divergences.base import Divergence
from models.base import Model
from se_framework.config.build import assemble, build, resolve
from se_framework.config.mending import mending
from se_framework.config.objects import summand
from se_framework.config.starts import without_source
from se_framework.config.steps import check_batch, check_order
from se_framework.data import Data, as_data
from se_framework.equation import legality
from se_framework.equation.auxiliary import Auxiliary
from se_framework.equation.equation import StandardEquation
from se_framework.equation.metric import Metric
from se_framework.equation.roles import check_frozen
from se_framework.errors import ConfigError, DataError, IncompatibleError, SEError
from se_framework.randomness import stream_seed
from se_framework.training.execution import check_precision
from se_framework.training.pieces import check_pieces

OBJECTS: dict[str, type] = {"model": Model, "metric": Metric, "divergence": Divergence, "auxiliary": Auxiliary}
"""The parts that Python may give as objects, and their base classes."""
BATCH = 512
"""Examples of a step where loop.batch_size is null and there are as many."""
FEW = 100_000
"""Training rows up to which loop.early_stop=auto takes some for validation."""


class Parts(NamedTuple):
    """What one configuration chooses; of the model and the metric nothing is allocated yet.

    Attributes:
        data: p_d.
        made_for: what every constructor is told of the data.
        model: makes the model.
        metric: makes the metric, or None.
        divergence: D.
        auxiliary: how the minimum over q is taken.
        views: by player.
        warnings: rules that were allowed to be broken.
    """

    data: Data
    made_for: dict[str, Any]
    model: Callable[[], Model]
    metric: Callable[[], Metric | None]
    divergence: Divergence
    auxiliary: Auxiliary
    views: dict[str, Divergence]
    warnings: list[str]


def outlined(config: DictConfig, data: Any, objects: Mapping[str, Any], members: int = 1) -> Parts:
    """Return the parts of a configuration, checked against each other.

    Args:
        config: validated.
        data: in the place of the configured data; None for that.
        objects: parts in the place of the configured ones.
        members: how many runs train together.

    Raises:
        ConfigError: a plug-in's arguments are wrong, or it may not be named.
        DataError: the data is missing or malformed, or smaller than a batch.
        IncompatibleError: the choices do not form a legal equation.
    """
    chosen = as_data(build(config.data, "data", workers=config.workers) if data is None else data, config.workers)
    has_density = _has_density(config, objects, chosen)
    chosen = settled(config, chosen, members, has_density)
    if chosen.train_size is not None and config.loop.batch_size > chosen.train_size:
        raise DataError(
            f"loop.batch_size={config.loop.batch_size} is larger than the data: {chosen.name} has {chosen.train_size} "
            f"training rows; choose loop.batch_size={chosen.train_size} or less"
        )
    made_for: dict[str, Any] = {
        "event_shape": chosen.event_shape, "image_shape": chosen.image_shape, "classes": chosen.classes,
        "reference": chosen.reference,
    }  # fmt: skip

    def made(key: str) -> Any:
        if key in objects:
            return objects[key]
        with torch.random.fork_rng([]):  # D and q may have parameters as well
            torch.manual_seed(stream_seed(config.seed, 0, f"weights/{key}"))
            return build(without_source(config[key]), key, OBJECTS[key], **made_for)

    divergence, auxiliary = made("divergence"), made("auxiliary")
    divergence = Absent() if divergence is None else divergence
    views = {
        str(name): build(player.view, f"players.{name}.view", Divergence, **made_for)
        for name, player in config.players.items()
    }
    views = {name: view for name, view in views.items() if view is not None}
    target, arguments, _ = resolve(
        None if "model" in objects else without_source(config.model), "model", Model, **made_for
    )
    model = objects.get("model", target)
    for key, part in (("model", model), ("auxiliary", auxiliary)):
        if part is None:
            raise ConfigError(f"{key} must be chosen, got none: the equation needs it")
    if config.loop.early_stop == "nll" and not has_density:
        name = model.__name__ if isinstance(model, type) else type(model).__name__
        raise IncompatibleError(f"loop.early_stop=nll: {name} has no density: choose another score, or null")
    if not isinstance(model, (type, Model)):
        raise ConfigError(f"model._target_ must be a class, got {config.model['_target_']}: its declarations are read")

    check_precision(config.performance.precision, model if isinstance(model, type) else type(model))
    node = config.metric.get("network") if "metric" not in objects and isinstance(config.metric, DictConfig) else None
    network = resolve(node, "metric.network", **made_for)[0] if isinstance(node, DictConfig) else None
    weights, coordinates = config.equation, torch.Size(chosen.event_shape).numel()
    choice = legality.Choice(
        model,
        divergence,
        auxiliary,
        None,
        weights.alpha,
        weights.beta,
        views,
        coordinates,
        chosen.classes,
        legality.pairs_of(model, chosen.reference),
    )
    mend, flat = mending(made_for), legality.of_data(model, network, made_for)
    with torch.device("meta"):  # shapes and declarations without memory
        outline = None if any("metric" in v.problem.parts for v in flat) else made("metric")
    choice = choice._replace(metric=outline)
    if flat:
        legality.refuse(flat, mend(choice, flat, config.allow))
    warnings = legality.check(choice, config.allow, mend)
    check_batch(config.loop.batch_size, outline)
    if members > 1:
        with torch.device("meta"):
            outlines = [model if isinstance(model, Model) else assemble(model, arguments, "model"), outline]
        _check_stackable(members, config, outlines, [divergence, *views.values()], [auxiliary], made_for, chosen)

    def make_metric() -> Metric | None:
        node = without_source(config.metric)
        return objects["metric"] if "metric" in objects else build(node, "metric", Metric, **made_for)

    def make_model() -> Model:
        return model if isinstance(model, Model) else assemble(model, arguments, "model")

    frozen = [str(name) for name, player in config.players.items() if player.frozen]
    cutting = [str(name) for name, player in config.players.items() if player.accumulate > 1]
    if frozen or cutting:  # a stage must be known to be playable before the first is
        with torch.device("meta"):
            built = make_model()
            plus = {name: summand(node, f"plus.{name}", built, made_for) for name, node in (config.plus or {}).items()}
            parts: dict[str, Any] = {"divergence": divergence, "auxiliary": auxiliary, "metric": outline, "plus": plus}
            equation = StandardEquation(model=built, **parts, checked=warnings)
            check_frozen(equation, frozen)
            cuts = [role for role in equation.roles() if role.name in cutting]
            legality.refuse([v for role in cuts for v in legality.accumulation(equation, role, views.get(role.name))])
    return Parts(chosen, made_for, make_model, make_metric, divergence, auxiliary, views, warnings)


def _has_density(config: DictConfig, objects: Mapping[str, Any], data: Data) -> bool:
    """Return whether the model that is chosen declares a density."""
    shape = {"event_shape": data.event_shape, "image_shape": data.image_shape, "classes": data.classes}
    node = None if "model" in objects else without_source(config.model)
    model = objects.get("model", resolve(node, "model", Model, **shape, reference=data.reference)[0])
    return bool(getattr(model, "has_log_prob", False))


def settled(config: DictConfig, data: Data, members: int, has_density: bool = True) -> Data:
    """Write out what the configuration leaves to the data, and return the data with validation rows where it needs any.

    Raises:
        ConfigError: early stopping of several runs, or of a run with stages.
    """
    loop = config.loop
    if loop.early_stop == "auto":  # data without end cannot be learnt by heart
        few = data.train_size is not None and data.train_size <= FEW
        loop.early_stop = "nll" if few and members == 1 and not config.stages and has_density else None
    if loop.early_stop is not None:
        if members > 1:
            raise ConfigError("loop.early_stop: members of an ensemble end together: set loop.early_stop=null")
        data = data.with_validation(loop.validation)
    if loop.batch_size is None:
        loop.batch_size = BATCH if data.train_size is None else min(BATCH, data.train_size)
    check_pieces({str(name): player.accumulate for name, player in config.players.items()}, loop.batch_size)
    return data


def all_outlined(stages: Sequence[DictConfig], data: Any, objects: Mapping[str, Any]) -> list[Parts]:
    """Return the parts of every stage, all of them checked; stages with the same data share it.

    Raises:
        SEError: as :func:`outlined`; the message says in which stage.
    """
    found: list[Parts] = []
    for k, stage in enumerate(stages):
        shared = next((p.data for s, p in zip(stages, found, strict=False) if s.data == stage.data), None)
        try:
            found.append(outlined(stage, data if data is not None else shared, objects))
        except SEError as error:
            raise type(error)(f"stages[{k}]: {error}") if len(stages) > 1 else error from error
    check_order([(parts.model, parts.metric) for parts in found[1:] and found])
    return found


def _check_stackable(
    members: int, config: DictConfig, outlines: list[Any], divergences: list[Any], auxiliaries: list[Any],
    made_for: dict[str, Any], data: Data,
) -> None:  # fmt: skip
    """Refuse an ensemble of what cannot be evaluated for all members at once; nothing is allocated yet."""
    with torch.device("meta"):
        for name, node in (config.plus or {}).items():
            if not isinstance(node, DictConfig):  # refused where the members are built
                continue
            outlines.append(build(node.get("metric"), f"plus.{name}.metric", **made_for))
            divergences.append(build(node.get("divergence"), f"plus.{name}.divergence", **made_for))
            auxiliaries.append(build(node.get("auxiliary"), f"plus.{name}.auxiliary", **made_for))
    optimizer = resolve(config.optimizer, "optimizer", torch.optim.Optimizer)[0]
    there = [[part for part in parts if part is not None] for parts in (outlines, divergences, auxiliaries)]
    optimizers = [optimizer] if isinstance(optimizer, type) else []
    legality.refuse(legality.ensemble(members, there[0], there[1], optimizers, data, there[2]))


def check_objects(objects: Mapping[str, Any], typed: Collection[str] = ()) -> None:
    """Refuse objects that are no parts, and parts that are overridden besides.

    Args:
        objects: by the name of the part.
        typed: the keys of the overrides.

    Raises:
        ConfigError: see above; the message names the part.
    """
    for name, given in objects.items():
        if name not in (*OBJECTS, "data"):
            raise ConfigError(f"{name} cannot be given as an object: {', '.join(OBJECTS)} and data can")
        if name in OBJECTS and not isinstance(given, OBJECTS[name]):
            raise ConfigError(f"{name} must be a {OBJECTS[name].__name__}, got a {type(given).__name__}")
        for key in typed:
            if key == name or key.startswith(f"{name}."):
                raise ConfigError(f"{key} is overridden, and {name} is given as an object: leave one of them out")
