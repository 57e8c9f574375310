"""The typed schema of the fixed part of the configuration; values live in ``configs/config.yaml``.

A plug-in's part (a node with ``_target_``) is not typed here: its schema is its constructor's annotated signature,
checked by :func:`se_framework.build.build`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from se_framework.errors import ConfigError, nearest

DECAYS = ("constant", "linear", "cosine")


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

    steps: int = MISSING
    lr: float | None = MISSING
    decay: str | None = MISSING
    ema: float = MISSING
    view: Any = None


@dataclass
class PlayersConfig:
    """The players by name."""

    theta: PlayerConfig = field(default_factory=PlayerConfig)
    phi: PlayerConfig = field(default_factory=PlayerConfig)


@dataclass
class EnsembleConfig:
    """Members that train together: seeds, or lists of values by dotted key."""

    size: int = 1
    values: Any = field(default_factory=dict)


@dataclass
class Config:
    """The whole configuration."""

    equation: EquationConfig = field(default_factory=EquationConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    players: PlayersConfig = field(default_factory=PlayersConfig)
    model: Any = None
    metric: Any = None
    divergence: Any = None
    auxiliary: Any = None
    data: Any = None
    plus: Any = None
    optimizer: Any = None
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    seed: int = MISSING
    device: str = MISSING
    threads: int | None = MISSING
    deterministic: bool = False
    workers: int = 0
    dry_run: bool = MISSING
    resume: str | None = MISSING
    resume_allow: list[str] = field(default_factory=list)
    trust: list[str] = field(default_factory=list)
    allow: list[str] = MISSING
    score: str | None = MISSING
    progress: bool = MISSING


KINDS = {"Integer": "a whole number", "Float": "a number", "bool": "true or false", "String": "a text"}
"""OmegaConf's words for a type, and ours."""
AT_LEAST = {
    "loop.rounds": 1, "loop.batch_size": 1, "loop.log_every": 0, "loop.checkpoint_every": 0, "loop.picture_every": 0,
    "loop.evaluate_every": 0, "loop.keep_last": 1, "loop.keep_best": 0,
    "loop.warmup": 0, "loop.horizon": 1, "players.theta.steps": 0, "players.phi.steps": 0, "threads": 1,
    "workers": 0, "ensemble.size": 1,
}  # fmt: skip


def validate(composed: DictConfig) -> DictConfig:
    """Return the composed configuration checked against the schema.

    Raises:
        ConfigError: an unknown key, a wrong type, or a value out of range; the message names the key.
    """
    try:
        config = OmegaConf.merge(OmegaConf.structured(Config), composed)
        assert isinstance(config, DictConfig)
        plain = OmegaConf.to_container(config, resolve=True)
    except ConfigKeyError as error:
        parent, _, key = str(error.full_key).rpartition(".")
        known = OmegaConf.select(OmegaConf.structured(Config), parent) if parent else OmegaConf.structured(Config)
        raise ConfigError(f"unknown key {error.full_key!r}: {nearest(key, map(str, known or ()))}") from error
    except OmegaConfBaseException as error:
        raise ConfigError(describe(error, composed)) from error
    assert isinstance(plain, dict)
    for key, least in AT_LEAST.items():
        value = OmegaConf.select(config, key)
        if value is not None and value < least:
            raise ConfigError(f"{key} must be at least {least}, got {value}")
    for key in ("equation.alpha", "equation.beta", "players.theta.lr", "players.phi.lr", "optimizer.lr"):
        value = OmegaConf.select(config, key)
        if isinstance(value, (int, float)) and not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{key} must be a finite number >= 0, got {value}")
    for key in ("loop.decay", "players.theta.decay", "players.phi.decay"):
        value = OmegaConf.select(config, key)
        if value is not None and value not in DECAYS:
            raise ConfigError(f"{key} must be one of {', '.join(DECAYS)}, got {value!r}")
    return config


def describe(error: OmegaConfBaseException, composed: DictConfig) -> str:
    """Return one sentence for an error of types."""
    key = str(error.full_key)
    value = OmegaConf.select(composed, key, throw_on_missing=False) if key else None
    text = str(error).splitlines()[0]
    if value is None:
        return f"{key} must have a value, got null"
    if "ListConfig" in text:
        return f"{key} must be a list, got {value!r}: write {key}=[{value}]"
    for kind, words in KINDS.items():
        if f"converted to {kind}" in text or f"valid {kind}" in text:
            return f"{key} must be {words}, got {value!r}"
    return f"{key}: {text}"
