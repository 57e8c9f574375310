"""The typed schema of the fixed part of the configuration; values live in ``configs/config.yaml``.

A plug-in's part (a node with ``_target_``) is not typed here: its schema is its constructor's annotated signature,
checked by :func:`se_framework.config.build.build`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, InterpolationResolutionError, OmegaConfBaseException

from se_framework.errors import ConfigError, nearest

DECAYS = ("constant", "linear", "cosine")
USES = ("auto", "always", "never")
PRECISIONS = ("float32", "bf16")


@dataclass
class EquationConfig:
    """Weights of the equation."""

    alpha: float = MISSING
    beta: float = MISSING


@dataclass
class LoopConfig:
    """How long and how often."""

    rounds: int = MISSING
    batch_size: int = MISSING
    log_every: int = MISSING
    checkpoint_every: int = MISSING
    picture_every: int = 0
    evaluate_every: int = 0
    keep_last: int = 2
    keep_best: int = 0
    horizon: int | None = MISSING
    decay: str = MISSING
    warmup: int = MISSING


@dataclass
class PlayerConfig:
    """One player; null inherits."""

    steps: int = 1
    lr: float | None = None
    decay: str | None = None
    ema: float = 0.0
    view: Any = None


@dataclass
class EnsembleConfig:
    """Members that train together: seeds, or lists of values by dotted key."""

    size: int = 1
    values: Any = None


@dataclass
class PerformanceConfig:
    """How player steps are executed; runs of before there was a choice leave it to us."""

    graphs: str = "auto"
    compile: str = "auto"
    precision: str = "float32"


@dataclass
class Config:
    """The whole configuration."""

    equation: EquationConfig = field(default_factory=EquationConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    players: dict[str, PlayerConfig] = field(default_factory=dict)
    model: Any = None
    metric: Any = None
    divergence: Any = None
    auxiliary: Any = None
    data: Any = None
    plus: Any = None
    optimizer: Any = None
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    performance: PerformanceConfig = field(default_factory=PerformanceConfig)
    seed: int = MISSING
    device: str = MISSING
    threads: int | None = MISSING
    deterministic: bool = False
    workers: int = 0
    dry_run: bool = MISSING
    resume: str | None = MISSING
    resume_allow: list[str] = field(default_factory=list)
    trust: Any = None
    allow: list[str] = MISSING
    score: str | None = MISSING
    progress: bool = MISSING


WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", list[str]: "a list"}
"""A type in words."""
AT_LEAST = {
    "loop.rounds": 1, "loop.batch_size": 1, "loop.log_every": 0, "loop.checkpoint_every": 0, "loop.picture_every": 0,
    "loop.evaluate_every": 0, "loop.keep_last": 1, "loop.keep_best": 0,
    "loop.warmup": 0, "loop.horizon": 1, "players.NAME.steps": 0, "threads": 1,
    "workers": 0, "ensemble.size": 1,
}  # fmt: skip
SECTIONS = ("equation", "loop", "ensemble", "players", "players.NAME", "performance")
ABSENT = object()
AT_MOST = {"loop.batch_size": 2**31 - 1, "threads": 1024}
"""What torch counts in 32 bits, and more threads than a machine starts."""
ONE_OF = {
    "loop.decay": DECAYS, "players.NAME.decay": DECAYS,
    "performance.graphs": USES, "performance.compile": USES, "performance.precision": PRECISIONS,
}  # fmt: skip


def validate(composed: DictConfig) -> DictConfig:
    """Return the composed configuration checked against the schema.

    Raises:
        ConfigError: a key that is unknown or absent, a wrong type, an interpolation that leads nowhere, or a value out
            of range; the message names the key.
    """
    schema = OmegaConf.structured(Config)
    written = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(written, dict)
    named = functools.partial(_named, players=written.get("players"))
    for key in named(SECTIONS):
        section = _at(written, key)
        if not isinstance(section, dict) and section is not ABSENT:
            raise ConfigError(f"{key} must be {_words(key)}, got {section!r}")
    try:
        config = OmegaConf.merge(schema, composed)
        assert isinstance(config, DictConfig)
        plain = OmegaConf.to_container(config, resolve=True)
    except ConfigKeyError as error:
        parent, _, key = str(error.full_key).rpartition(".")
        known = OmegaConf.select(schema, parent) if parent else schema
        raise ConfigError(f"unknown key {error.full_key!r}: {nearest(key, map(str, known or ()))}") from error
    except OmegaConfBaseException as error:
        raise ConfigError(describe(error, composed)) from error
    assert isinstance(plain, dict)
    if absent := sorted(OmegaConf.missing_keys(schema) & OmegaConf.missing_keys(config)):
        raise ConfigError(f"{absent[0]} has no value: give {absent[0]}=VALUE, or do not delete it")
    for bounds, word, outside in ((AT_LEAST, "least", operator.lt), (AT_MOST, "most", operator.gt)):
        for pattern, bound in bounds.items():
            for key in named((pattern,)):
                value = OmegaConf.select(config, key)
                if value is not None and outside(value, bound):
                    raise ConfigError(f"{key} must be at {word} {bound}, got {value}")
    for key in named(("equation.alpha", "equation.beta", "players.NAME.lr", "optimizer.lr")):
        value = OmegaConf.select(config, key)
        if isinstance(value, (int, float)) and not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{key} must be a finite number >= 0, got {value}")
    for key in named(("players.NAME.ema",)):
        if not 0 <= OmegaConf.select(config, key) < 1:
            raise ConfigError(f"{key} must lie in [0, 1), got {OmegaConf.select(config, key)}")
    for pattern, words in ONE_OF.items():
        for key in named((pattern,)):
            value = OmegaConf.select(config, key)
            if value is not None and value not in words:
                raise ConfigError(f"{key} must be one of {', '.join(words)}, got {value!r}")
    if plain["plus"] is not None and not isinstance(plain["plus"], dict):
        raise ConfigError(f"plus must be a mapping of names to equations, got {plain['plus']!r}")
    return config


def _named(patterns: Sequence[str], players: Any) -> list[str]:
    """Return dotted keys, those with NAME once for each player of the configuration."""
    names = [str(name) for name in players] if isinstance(players, dict) else []
    return [pattern.replace("NAME", name) for pattern in patterns for name in (names if "NAME" in pattern else [""])]


def describe(error: OmegaConfBaseException, composed: DictConfig) -> str:
    """Return one sentence for a value of the wrong type, or an interpolation that cannot be resolved."""
    key = str(error.full_key)
    value = _at(OmegaConf.to_container(composed, resolve=False), key)
    if isinstance(error, InterpolationResolutionError):
        reason = " ".join(str(error).partition("full_key:")[0].split()).rstrip(".")
        return f"{key}: {value!r} leads nowhere ({reason}): write the value itself"
    if value is None:
        return f"{key} must have a value, got null"
    words = _words(key)
    if words == "a list" and isinstance(value, str):
        return f"{key} must be a list, got {value!r}: write {key}=[{value}]"
    return f"{key} must be {words}, got {value!r}"


def _at(node: Any, key: str) -> Any:
    """Return what stands at a dotted key of nested mappings, or ABSENT."""
    for part in key.split("."):
        node = node.get(part, ABSENT) if isinstance(node, dict) else ABSENT
    return node


def _words(key: str) -> str:
    """Return in words what the schema wants at a dotted key."""
    hint: Any = Config
    for part in key.split("."):
        if dataclasses.is_dataclass(hint):
            hint = typing.get_type_hints(hint).get(part, Any)
        else:  # a mapping by name
            hint = (*typing.get_args(hint), Any, Any)[1] if typing.get_origin(hint) is dict else Any
    if typing.get_origin(hint) is dict:
        return "a mapping of names"
    options = [o for o in typing.get_args(hint) if o is not type(None)] if hint not in WORDS else []
    hint = options[0] if options else hint
    if dataclasses.is_dataclass(hint):
        return f"a mapping of {', '.join(f.name for f in dataclasses.fields(hint))}"
    return WORDS.get(hint, "of another type")
