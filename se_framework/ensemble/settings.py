"""Which members an ensemble has: the configuration of each is that of its own single run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from se_framework.config.schema import validate
from se_framework.errors import ConfigError, nearest

SCALARS = (
    "seed", "equation.alpha", "equation.beta", "optimizer.lr", "players.NAME.lr",
    "metric.penalty.weight", "plus.NAME.weight", "plus.NAME.alpha", "plus.NAME.beta", "plus.NAME.metric.penalty.weight",
)  # fmt: skip
"""What may differ between members: numbers that weigh a term, learning rates, the seed."""
_PATTERN = re.compile("|".join(re.escape(key).replace("NAME", r"\w+") for key in SCALARS))


def members_of(config: DictConfig) -> int:
    """Return the number of members; 1 is a single run.

    Args:
        config: validated.

    Raises:
        ConfigError: a value's key cannot differ between members or is unknown, a value is not a list of numbers, or
            the lists have other lengths than each other or than the size.
    """
    values, size = values_of(config), config.ensemble.size
    for key, column in values.items():
        where = f"ensemble.values: {key}"
        if not _PATTERN.fullmatch(key):
            raise ConfigError(f"{where} cannot differ between members: {nearest(key, SCALARS)}")
        parent = OmegaConf.select(config, key.rpartition(".")[0]) if "." in key else config
        if not isinstance(parent, DictConfig) or key.rpartition(".")[2] not in parent:
            raise ConfigError(
                f"{where}: this configuration has no such key; leave it out, or choose a part that has it"
            )
        if not isinstance(column, list) or not all(_is_number(v) for v in column):
            raise ConfigError(f"{where} must be a list of one finite number per member, got {column!r}")
    lengths = {key: len(column) for key, column in values.items()}
    if values and len({*lengths.values(), *([size] if size > 1 else [])}) > 1:
        told = ", ".join(f"{key} {n}" for key, n in lengths.items())
        raise ConfigError(f"ensemble.values needs one value per member: {told}, ensemble.size {size}")
    members = max(size, *lengths.values()) if values else size
    if values and members < 2:
        raise ConfigError("ensemble.values with one member is a single run: set the keys themselves")
    return members


def member_config(config: DictConfig, k: int) -> DictConfig:
    """Return the configuration of the single run that member k is: its seed is that of the ensemble plus k.

    Raises:
        ConfigError: no such member, or a value of it is out of range.
    """
    members = members_of(config)
    if members == 1:
        raise ConfigError(f"member={k}: this is no ensemble but a single run; leave member out")
    if not 0 <= k < members:
        raise ConfigError(f"member={k}: the ensemble has members 0 to {members - 1}")
    plain = OmegaConf.create(OmegaConf.to_container(config, resolve=True) | {"seed": config.seed + k, "ensemble": {}})  # type: ignore[operator]
    for key, column in values_of(config).items():
        OmegaConf.update(plain, key, column[k])
    return validate(plain)


def values_of(config: DictConfig) -> dict[str, Any]:
    """Return the columns by dotted key, written with dots or as nested mappings."""
    node = config.ensemble["values"]
    plain = OmegaConf.to_container(node, resolve=True) if isinstance(node, (DictConfig, ListConfig)) else node
    found: dict[str, Any] = {}

    def walk(node: Any, key: str) -> None:
        if isinstance(node, Mapping):
            for name, value in node.items():
                walk(value, f"{key}.{name}" if key else str(name))
        else:
            found[key] = node

    walk({} if plain is None else plain, "")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
