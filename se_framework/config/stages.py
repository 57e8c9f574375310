"""Stages: a run that changes its course at stated rounds. ``stages: [{rounds: N, KEY: VALUE, ...}, ...]``.

Each stage is the configuration with its own values in it; the rounds add up. What a stage does not name is as in the
configuration, whatever an earlier stage said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from se_framework.config.files import config_dir, groups, read_yaml
from se_framework.config.schema import validate
from se_framework.errors import ConfigError, nearest

PARTS = ("model", "metric", "divergence", "auxiliary")
"""The parts of the equation."""
CHOICES = (*PARTS, "data", "optimizer")
"""Groups of which a stage may name a choice."""


def stages_of(config: DictConfig) -> list[DictConfig]:
    """Return the configuration of every stage; ``loop.rounds`` is the round in which it ends.

    Args:
        config: validated. Without stages it is the only one.

    Raises:
        ConfigError: a stage has no rounds, or a key or value in it is wrong; the message says which stage.
    """
    if not config.stages:
        return [config]
    if config.loop.early_stop not in (None, "auto"):
        raise ConfigError("stages: a run with stages plays all of them: set loop.early_stop=null")
    if config.ensemble.size > 1 or config.ensemble["values"]:
        raise ConfigError("stages: an ensemble has none: leave out stages, or set ensemble.size=1")
    lengths = [_rounds(stage, f"stages[{k}]") for k, stage in enumerate(config.stages)]
    found = []
    for k, stage in enumerate(config.stages):
        plain = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
        assert isinstance(plain, DictConfig)
        plain.stages, plain.loop.rounds = [], sum(lengths[: k + 1])
        if plain.loop.horizon is None:
            plain.loop.horizon = sum(lengths)
        own: Any = OmegaConf.to_container(stage, resolve=True)
        for key, value in own.items():
            _put(plain, str(key), value, f"stages[{k}]")
        try:
            found.append(validate(plain))
        except ConfigError as error:
            raise ConfigError(f"stages[{k}]: {error}") from error
    return found


def _rounds(stage: Any, where: str) -> int:
    rounds = stage.get("rounds") if isinstance(stage, DictConfig) else None
    if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds < 1:
        raise ConfigError(f"{where}.rounds must be a whole number of at least 1, got {rounds!r}")
    return rounds


def _put(config: DictConfig, key: str, value: Any, where: str) -> None:
    """Set a key to the value that a stage has for it; mappings are merged, parts with their own class replaced."""
    if key == "rounds":
        return
    if key in ("stages", "seed", "loop.rounds") or (key == "loop" and isinstance(value, Mapping) and "rounds" in value):
        raise ConfigError(f"{where}: {key} cannot change within a run: its length is said by rounds")
    if key.partition(".")[0] == "tracker":
        raise ConfigError(f"{where}: a tracker follows the whole run: choose it outside of stages")
    if key.endswith(".from"):
        raise ConfigError(
            f"{where}: {key} is for the start of a run: a stage goes on with the weights of the one before"
        )
    if isinstance(value, Mapping) and "_target_" not in value:
        for inner, own in value.items():
            _put(config, f"{key}.{inner}", own, where)
        return
    parent, _, leaf = key.rpartition(".")
    section = OmegaConf.select(config, parent) if parent else config
    if not isinstance(section, DictConfig) or (leaf not in section and "_target_" not in section):
        known = list(section) if isinstance(section, DictConfig) else list(config)
        raise ConfigError(f"{where}: unknown key {key!r}: {nearest(leaf, map(str, known))}")
    section[leaf] = value


def with_choices_named(composed: DictConfig, config_dirs: Sequence[Path]) -> None:
    """Write out the choices that stages name, ``{rounds: 100, divergence: kl}``: a run keeps what they stand for.

    Raises:
        ConfigError: there is no such choice.
    """
    folders = [config_dir(), *config_dirs]
    known = groups(folders)
    stages = composed.get("stages")
    for k, stage in enumerate(stages if isinstance(stages, ListConfig) else ()):
        for group in CHOICES if isinstance(stage, DictConfig) else ():
            choice = stage.get(group)
            if not isinstance(choice, str):
                continue
            if choice not in known[group]:
                raise ConfigError(f"stages[{k}]: {group}={choice}: no such choice; {nearest(choice, known[group])}")
            file = next(f for folder in folders if (f := folder / group / f"{choice}.yaml").is_file())
            node = read_yaml(file, f"{group}/{choice}.yaml")
            if node is not None and "defaults" in node:
                raise ConfigError(f"stages[{k}]: {group}={choice} has defaults of its own: write its values out here")
            stage[group] = node


def stage_at(plan: Sequence[DictConfig], rounds: int) -> int:
    """Return the number of the stage to which the state after some rounds belongs."""
    return next((k for k, stage in enumerate(plan) if rounds <= stage.loop.rounds), len(plan) - 1)
