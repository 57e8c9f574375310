"""Which override cannot be composed, and why, found by looking at keys. Imports neither torch nor models."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from se_framework.config.files import config_dir, groups
from se_framework.errors import ConfigError, nearest
from se_framework.runs import telling


def parsed(overrides: Sequence[str], known: dict[str, list[str]], sweep: bool = False) -> list[Override]:
    """Return overrides as Hydra reads them.

    Args:
        overrides: as typed.
        known: the choices of every group.
        sweep: whether several values may be given for a key.

    Raises:
        ConfigError: Hydra's grammar cannot read one, a group or choice does not exist, or a value does not fit.
    """
    parser, found = OverridesParser.create(), []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except (HydraException, RecursionError) as error:
            raise ConfigError(_unreadable(text)) from error
        _check_choice(override, known)
        if override.is_sweep_override() and not sweep:
            key, _, value = text.partition("=")
            raise ConfigError(
                f"{key}={value}: several values are a sweep, which needs -m; a list is written {key}=[...], a text "
                f"quoted, {telling.override(key, value)}"
            )
        found.append(override)
    return found


def _unreadable(text: str) -> str:
    key, equals, value = text.partition("=")
    if not equals or not key.strip("+~ "):
        return f"{text!r} is not an override: write KEY=VALUE, e.g. loop.rounds=100"
    if not re.fullmatch(r"(\+\+?|~)?[\w./$@:-]+", key):
        return f"{key!r} is no key, in {text!r}: write KEY=VALUE, e.g. loop.rounds=100"
    return f"{key}: Hydra cannot read the value {value!r}: quote it, {telling.override(key, value)}"


def _check_choice(override: Override, known: dict[str, list[str]]) -> None:
    key = override.key_or_group
    if not key:
        raise ConfigError(f"{override.input_line!r} is not an override: write KEY=VALUE, e.g. loop.rounds=100")
    if override.is_delete() and key in known and override.package is None:
        instead = f"choose another, {key}=CHOICE; {nearest('', known[key])}"
        raise ConfigError(f"~{key} deletes a part of the equation: {instead}")
    if override.is_delete() and _always_there(key, known):
        raise ConfigError(f"{key} has no value: give {key}=VALUE, or do not delete it")
    picked = override.value()
    if key not in known:
        # Hydra's own groups (hydra/launcher, ...) take names, and stumble over anything else.
        if "/" in key and not isinstance(picked, (str, list, ChoiceSweep, type(None))):
            raise ConfigError(f"{key} takes the name of a choice, got {picked!r}")
        return
    for choices in picked.list if isinstance(picked, ChoiceSweep) else [picked]:
        for choice in choices if isinstance(choices, list) else [choices]:
            if not isinstance(choice, dict) and str(choice) not in known[key]:
                shown = "null" if choice is None else choice
                raise ConfigError(f"{key}={shown}: no such choice; {nearest(str(shown), known[key])}")


def _always_there(key: str, known: dict[str, list[str]]) -> bool:
    """Whether every configuration has a key: the schema knows it, and it is no group's."""
    from se_framework.config.schema import fields  # a sixth of a second, for few words

    *path, leaf = key.split(".")
    return [*path, leaf][0] not in known and (leaf in fields(path) or path == ["players"])


def guilty(overrides: Sequence[Override], before: DictConfig, config_dirs: Sequence[Path]) -> str | None:
    """Return what is wrong with the first override that cannot be merged; None if it is none of them.

    Args:
        overrides: of values, in order.
        before: the configuration without them.
        config_dirs: the user's folders of configurations.
    """
    plain: Any = OmegaConf.to_container(before, resolve=False)
    for override in overrides:
        *parents, leaf = str(override.key_or_group).split(".")
        node: Any = plain
        for depth, part in enumerate(parents):
            inside = node.get(part, _ABSENT) if isinstance(node, Mapping) else _ABSENT
            if inside is _ABSENT and not (override.is_add() or override.is_force_add()):
                return unknown(override.key_or_group, plain, config_dirs)
            if inside is not _ABSENT and not isinstance(inside, Mapping):
                return f"{override.key_or_group}: {'.'.join(parents[: depth + 1])} is {inside!r}, which has no keys"
            node = {} if inside is _ABSENT else inside
        there = isinstance(node, Mapping) and leaf in node
        if override.is_add() and there and not isinstance(override.value(), Mapping):
            return f"+{override.key_or_group} is there already: leave out the +"
        if not there and not (override.is_add() or override.is_force_add()):
            return unknown(override.key_or_group, plain, config_dirs)
        if there and override.is_delete() and override.value() not in (None, "", node[leaf]):
            return f"~{override.key_or_group} has the value {node[leaf]!r}: leave out what stands after ="
    return None


_ABSENT = object()


def unknown(key: str, plain: Mapping[str, Any], config_dirs: Sequence[Path]) -> str:
    """Return what to say of a key that does not exist: where it does, or the nearest that does.

    Args:
        key: dotted, as typed.
        plain: the configuration in which it was looked for.
        config_dirs: the user's folders of configurations.
    """
    folders = [config_dir(), *config_dirs]
    group, _, leaf = key.partition(".")
    if group == "hydra":
        return f"unknown key {key!r}: none of Hydra's settings (se-train --cfg hydra lists them)"
    files = [file for folder in folders for file in (folder / group).glob("*.yaml") if file.is_file()]
    having = [file.stem for file in files if f"\n{leaf}:" in file.read_text(encoding="utf-8")]
    own = config_dirs and leaf and group in groups(config_dirs)
    plus = f" (or +{key}=VALUE, if the class of your own {group} takes it)" if own else ""
    if leaf and having:
        return f"unknown key {key!r}: it belongs to {group}={' or '.join(sorted(having))}, add that{plus}"
    known = [k for k in (*groups([config_dir()]), *keys_of(plain)) if not k.startswith("hydra")]
    level = [k for k in known if k.rpartition(".")[0] == key.rpartition(".")[0]]
    near = difflib.get_close_matches(key, known, n=1)
    return f"unknown key {key!r}: {nearest(key, near or level or [k for k in known if '.' not in k])}{plus}"


def keys_of(node: Any, prefix: str = "") -> list[str]:
    """Return every dotted key of nested mappings."""
    if not isinstance(node, Mapping):
        return []
    return [key for name, value in node.items() for key in (f"{prefix}{name}", *keys_of(value, f"{prefix}{name}."))]
