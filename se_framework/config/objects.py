"""Objects of single keys of the configuration: the device, an optimiser, a summand of the equation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from divergences.absent import Absent
from divergences.base import Divergence
from se_framework.config.build import assemble, build, conform, locating, resolve
from se_framework.config.mending import mending
from se_framework.equation.auxiliary import Auxiliary
from se_framework.equation.equation import StandardEquation
from se_framework.equation.legality import Choice, check, pairs_of
from se_framework.equation.metric import Metric
from se_framework.errors import ConfigError, IncompatibleError, nearest
from se_framework.training.callbacks import Callback


def choose_device(name: str) -> torch.device:
    """Return the device of a name; auto is cuda where there is one.

    Raises:
        ConfigError: no such device, or it is absent.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"device={name} cannot be used here ({reason}): choose device=cpu") from error
    if device.type == "meta":
        raise ConfigError(f"device={name} holds no numbers: choose device=cpu")
    return device


SUMMAND = {"weight": 1.0, "divergence": None, "auxiliary": None, "metric": None, "alpha": 0.0, "beta": 1.0}


def summand(node: Any, key: str, model: nn.Module, made_for: dict[str, Any]) -> tuple[float, StandardEquation]:
    """Return the weight and the equation of a node ``plus.NAME``, whose keys and defaults are :data:`SUMMAND`.

    Raises:
        ConfigError: an unknown key, or no divergence or auxiliary.
        IncompatibleError: it is no legal equation.
    """
    if not isinstance(node, DictConfig):
        raise ConfigError(f"{key} must be a mapping of {', '.join(SUMMAND)}, got {node!r}")
    values = SUMMAND | {str(name): value for name, value in node.items()}
    for name in values:
        if name not in SUMMAND:
            raise ConfigError(f"unknown key '{key}.{name}': {nearest(name, SUMMAND)}")
    numbers = {name: conform(values[name], float, f"{key}.{name}") for name in ("weight", "alpha", "beta")}
    kinds = {"divergence": Divergence, "auxiliary": Auxiliary, "metric": Metric}
    parts = {name: build(values[name], f"{key}.{name}", kind, **made_for) for name, kind in kinds.items()}
    needs_none = parts["auxiliary"] is not None and parts["auxiliary"].works_through is None
    for name in ("auxiliary",) if needs_none else ("divergence", "auxiliary"):
        if parts[name] is None:
            raise ConfigError(f"{key}.{name} must be chosen: add +{name}@{key}.{name}=CHOICE")
    weights, divergence = {name: numbers[name] for name in ("alpha", "beta")}, parts["divergence"] or Absent()
    chosen = Choice(model, divergence, parts["auxiliary"], parts["metric"], **weights, pairs=pairs_of(model, None))
    try:
        warnings = check(chosen, mend=mending(made_for, key))
    except IncompatibleError as error:
        raise IncompatibleError(f"{key}: {error}") from error
    other = StandardEquation(model=model, **weights, **parts, checked=warnings)  # type: ignore[arg-type]
    return numbers["weight"], other


def callbacks_of(config: DictConfig, locator: Callable[[str, str], Any]) -> list[Callback]:
    """Return the callbacks that a configuration names, found by a locator.

    Raises:
        ConfigError: one of them cannot be made.
    """
    with locating(locator):
        return [build(node, f"callbacks.{name}", Callback) for name, node in config.callbacks.items()]


def optimizer_factory(node: Any, lr: float | None) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
    """Return a function from parameters to the configured optimiser, at a player's own learning rate if it has one."""
    target, arguments, key = resolve(node, "optimizer", torch.optim.Optimizer)
    if target is None:
        raise ConfigError("optimizer must be chosen, got none: add optimizer=adam")
    closure = inspect.signature(getattr(target, "step", lambda: None)).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ConfigError(f"optimizer: {node['_target_']} evaluates the loss more than once a step: add optimizer=adam")
    if lr is not None:
        arguments["lr"] = lr
    return lambda parameters: assemble(lambda **kw: target(list(parameters), **kw), arguments, key)
