"""Settings of a run as flat values by dotted key, and what those say that differ between runs.

A part of the configuration (``divergence``, ``data``, ...) is a tree; two runs whose trees are built of other classes
differ in the *choice*, which has a name, and two whose trees hold other numbers in *keys*.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from se_framework.config.files import checked, config_dir, yaml_told
from se_framework.config.plain import Loader

Value = str | int | float | bool | None
GROUPS = ("data", "model", "metric", "divergence", "auxiliary", "optimizer")
"""Parts that have a name where a shipped choice is built of the same classes."""
NAMING = ("experiment", *GROUPS)
"""Keys whose values stand for several others, in the order in which they are columns."""
SILENT = re.compile(
    r"seed|device|threads|workers|deterministic|dry_run|cite|progress|resume|resume_allow|trust|allow|score|optimizer\.fused"
    r"|loop\.(log_every|checkpoint_every|picture_every|evaluate_every|keep_last|keep_best)"
    r"|performance\.(graphs|compile)|(ensemble|callbacks|tracker|hydra)(\..*)?"
)
"""Keys that say where, how quickly or how noisily a run trained, and not what; seeds are repeats of a row."""


def flattened(node: Any, key: str = "") -> dict[str, Value]:
    """Return the values of a tree by dotted key; lists as JSON, and nothing for what is null or empty."""
    return {name: value for name, value in _leaves(node, key) if value is not None}


def _leaves(node: Any, key: str) -> Iterator[tuple[str, Value]]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, (list, tuple)):
        if node:
            yield key, json.dumps(node, default=str)
    else:
        yield key, node if isinstance(node, (str, int, float)) else None if node is None else str(node)


@cache
def defaults() -> dict[str, Value]:
    """Return the values of keys that every run has: those of before a key was there ran as its default says."""
    content = read_plain_of_ours("config")
    return flattened({key: value for key, value in content.items() if key not in ("defaults", "hydra")})


@cache
def choices(group: str) -> dict[str, dict[str, Value]]:
    """Return the shipped choices of a group, each as flat values."""
    names = sorted(file.stem for file in (config_dir() / group).glob("*.yaml"))
    return {name: flattened(read_plain_of_ours(f"{group}/{name}")) for name in names}


@cache
def read_plain_of_ours(name: str) -> dict[str, Any]:
    """Return the content of a configuration file that ships."""
    with yaml_told(name):
        text = (config_dir() / f"{name}.yaml").read_text(encoding="utf-8")
        root = checked(text, name, strangers=False, loader=Loader)
        return {} if root is None else Loader("").construct_document(root)


def classes(part: Mapping[str, Value]) -> frozenset[tuple[str, Value]]:
    """Return what a part is built of: the classes, and where they stand."""
    return frozenset((key, value) for key, value in part.items() if key.rpartition(".")[2] == "_target_")


def part_of(settings: Mapping[str, Value], group: str) -> dict[str, Value]:
    """Return the settings of a group, without its name."""
    return {key.removeprefix(f"{group}."): value for key, value in settings.items() if key.startswith(f"{group}.")}


def name_of(group: str, part: Mapping[str, Value]) -> str | None:
    """Return the shipped choice that is built of the same classes, the one with the fewest other values; else a class.

    None where the part is absent.
    """
    if not part:
        return None
    return _name(group, tuple(sorted(part.items(), key=str)))


@cache
def _name(group: str, items: tuple[tuple[str, Value], ...]) -> str:
    part = dict(items)
    alike = {name: own for name, own in choices(group).items() if classes(own) == classes(part) and own}
    if alike:
        return min(alike, key=lambda name: (len(set(alike[name].items()) ^ set(part.items())), name))
    target = part.get("_target_")
    return str(target).rpartition(".")[2] if target else "of its own"


def is_complete(settings: Mapping[str, Value]) -> bool:
    """Whether settings are those of a configuration, and not the words of a job that has left none."""
    return any(key.startswith("equation.") for key in settings)


def identity(settings: Mapping[str, Value]) -> tuple[tuple[str, str], ...]:
    """Return what two runs of one objective have in common: the settings that say what was trained."""
    found = {key: value for key, value in settings.items() if key not in NAMING and not SILENT.fullmatch(key)}
    if not is_complete(settings):
        found |= {key: settings[key] for key in NAMING if key in settings}
    if found.get("loop.horizon") == found.get("loop.rounds"):
        found.pop("loop.horizon", None)  # to which null is resolved when a run starts
    return tuple(sorted((key, json.dumps(value)) for key, value in found.items()))


def differing(rows: Iterable[Mapping[str, Value]]) -> list[str]:
    """Return the keys that tell rows of settings apart: columns of a table.

    A choice stands for the keys that it decides, ``divergence`` for those of the divergence and ``experiment`` for all:
    those are columns only where they differ between rows of equal choices.
    """
    known = [dict(row) for row in rows]
    complete = [row for row in known if is_complete(row)] or known
    found = ["experiment"] if _differs("experiment", known) and all("experiment" in row for row in known) else []
    for group in GROUPS:
        told = len({classes(part_of(row, group)) for row in complete}) > 1 or len(complete) < len(known)
        if told and _differs(group, known) and not _decided(group, found, complete):
            found.append(group)
    keys = {key for row in complete for key in row if key not in NAMING and not SILENT.fullmatch(key)}
    for key in sorted(keys, key=_rank):
        if key == "loop.horizon" and all(row.get(key) in (None, row.get("loop.rounds")) for row in complete):
            continue
        if not _decided(key, [name for name in found if name in ("experiment", key.partition(".")[0])], complete):
            found.append(key)
    return found


def _rank(key: str) -> tuple[int, str]:
    group = key.partition(".")[0]
    return (NAMING.index(group) if group in NAMING else len(NAMING), key)


def _differs(key: str, rows: list[dict[str, Value]]) -> bool:
    return len({row.get(key) for row in rows}) > 1


def _decided(key: str, by: list[str], rows: list[dict[str, Value]]) -> bool:
    """Whether rows that agree in some keys agree in another one, too."""
    seen: dict[tuple[Value, ...], Value] = {}
    return all(seen.setdefault(tuple(row.get(k) for k in by), row.get(key)) == row.get(key) for row in rows)
