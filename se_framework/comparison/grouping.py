"""Which runs stand in one row, and which rows may be compared: one score, measured alike, on the same data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from se_framework.comparison.outcome import Outcome
from se_framework.comparison.settings import Value, differing, identity, is_complete
from se_framework.errors import ConfigError, nearest, printable

PREFERRED = ("frechet", "w2", "nll", "sliced_w2")
ONLY = "the one configuration"
DIRECTIONS = ("lower", "higher", "nearer")


@dataclass(frozen=True)
class Group:
    """The runs of one objective on one task, which differ in seed alone.

    Attributes:
        task: what the task is called; empty where there is one only.
        label: what tells the objective from the others, ``KEY=VALUE, ...``.
        settings: the same by key; None where a row has no such key.
        outcomes: its runs.
    """

    task: str
    label: str
    settings: dict[str, Value]
    outcomes: tuple[Outcome, ...]


def grouped(outcomes: Sequence[Outcome], by: str | None) -> list[Group]:
    """Return the rows of a table, by task, each in the order in which its first run came.

    Runs that cannot be told from others, for nothing is known of their settings, stand in no row.

    Args:
        outcomes: of runs.
        by: a key (and those below it) whose values are tasks, besides the data.

    Raises:
        ConfigError: no run has that key.
    """
    known = [outcome for outcome in outcomes if outcome.settings]
    tasks, rows = split_tasks(known, by)
    of_task, of_row = differing(tasks), differing(rows)
    found: dict[Any, dict[Any, list[int]]] = {}
    for k, (task, rest) in enumerate(zip(tasks, rows, strict=True)):
        found.setdefault(identity(task), {}).setdefault(identity(rest), []).append(k)
    return [
        Group(
            label(tasks[members[0]], of_task, short=True),
            label(rows[members[0]], of_row) or label(rows[members[0]], _words(known[members[0]])) or ONLY,
            {key: rows[members[0]].get(key) for key in of_row},
            tuple(known[k] for k in members),
        )
        for of_one in found.values()
        for members in of_one.values()
    ]


def split_tasks(known: Sequence[Outcome], by: str | None) -> tuple[list[dict[str, Value]], list[dict[str, Value]]]:
    """Return of each run the settings that say on which task it was trained, and the others.

    Raises:
        ConfigError: no run has the key.
    """
    if by is not None and not any(_within(key, by) for own in known for key in own.settings):
        keys = {key for own in known for key in own.settings}
        raise ConfigError(f"by={by}: no run has that key: {nearest(by, keys)}")
    split: list[tuple[dict[str, Value], dict[str, Value]]] = [({}, {}) for _ in known]
    for own, (task, rest) in zip(known, split, strict=True):
        for key, value in own.settings.items():
            (task if _within(key, "data") or (by is not None and _within(key, by)) else rest)[key] = value
    whole = [task for own, (task, _) in zip(known, split, strict=True) if is_complete(own.settings)]
    tasks = [
        task if is_complete(own.settings) else _meant(task, whole) for own, (task, _) in zip(known, split, strict=True)
    ]
    return tasks, [rest for _, rest in split]


def _meant(task: dict[str, Value], whole: list[dict[str, Value]]) -> dict[str, Value]:
    """Return the task that the words of a job without a configuration mean, if they can mean but one."""
    alike = {identity(own): own for own in whole if task.get("data") in (None, own.get("data"))}
    return next(iter(alike.values())) if len(alike) == 1 else task


def _words(outcome: Outcome) -> list[str]:
    return [] if is_complete(outcome.settings) else [key for key in outcome.settings if key != "seed"]


def _within(key: str, parent: str) -> bool:
    return key == parent or key.startswith(f"{parent}.")


def label(settings: Mapping[str, Value], keys: Iterable[str], short: bool = False) -> str:
    """Return settings as ``KEY=VALUE, ...``; a single key's value alone where that is wanted."""
    shown = {key: cell(settings[key]) for key in keys if settings.get(key) is not None}
    if short and len(shown) == 1:
        return next(iter(shown.values()))
    return ", ".join(f"{key}={value}" for key, value in shown.items())


def cell(value: Value, longest: int = 60) -> str:
    """Return a setting as it is shown: on one line, cut where it is long."""
    if value is None:
        return "-"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return printable(" ".join(text.split()), longest)


def chosen_score(outcomes: Sequence[Outcome], wanted: str | None) -> str | None:
    """Return the score by which runs are compared; None if no run has finished and none was asked for.

    Args:
        outcomes: of runs.
        wanted: the one asked for; None for the first that all finished runs have, of :data:`PREFERRED` if there is.

    Raises:
        ConfigError: no run has it, or no score is one of all runs.
    """
    finished = [outcome for outcome in outcomes if outcome.status == "finished"]
    have: dict[str, list[Outcome]] = {}
    for outcome in finished:
        for name, entry in outcome.scores.items():
            if "value" in entry:
                have.setdefault(name, []).append(outcome)
    ranked = {name: own for name, own in have.items() if any(_direction(o.scores[name]) for o in own)}
    if wanted is not None:
        if wanted in have and wanted not in ranked:
            raise ConfigError(
                f"score={wanted}: it ranks nothing, each run bounds a quantity of its own by it: "
                f"{nearest(wanted, ranked)}"
            )
        if finished and wanted not in have:
            raise ConfigError(
                f"score={wanted}: none of the {len(finished)} finished runs has it: {nearest(wanted, ranked)}"
            )
        return wanted
    if not finished:
        return None
    common = [name for name, own in ranked.items() if len(own) == len(finished)]
    if not common:
        told = "; ".join(
            f"{cell(name)} {len(own)} of {len(finished)}, first {own[0].path}" for name, own in list(ranked.items())[:6]
        )
        raise ConfigError(f"the runs have no score in common ({told or 'none has any'}): choose one with score=NAME")
    return next((name for name in PREFERRED if name in common), common[0])


def _direction(entry: Mapping[str, Any]) -> str | None:
    """Return which end of a score is better; None where that is not known."""
    better = entry.get("better")
    if better == "nearer" and not {"perfect", "real"} & set(entry.get("references", {})):
        return None
    return better if better in DIRECTIONS else None


def check_alike(outcomes: Sequence[Outcome], score: str) -> list[str]:
    """Refuse runs of one task that measured a score in different ways, and return what else differs, in sentences.

    Raises:
        ConfigError: they differ in its unit, direction, bound, or number of samples.
    """
    entries = [(own, own.scores[score]) for own in outcomes if "value" in own.scores.get(score, {})]
    for what, name in (("unit", "unit"), ("better", "direction"), ("bound", "bound"), ("n", "number of samples")):
        first: dict[Any, Outcome] = {}
        for own, entry in entries:
            first.setdefault(entry.get(what), own)
        if len(first) > 1:
            (one, here), (other, there) = list(first.items())[:2]
            raise ConfigError(
                f"score={score} is not measured alike: its {name} is {cell(one)} in {here.path} and {cell(other)} in "
                f"{there.path}: evaluate them in one way, or compare them apart"
            )
    for own, entry in entries:
        if _direction(entry) is None:
            raise ConfigError(f"score={score} of {own.path} does not say what is better: choose another")
    found = []
    if len({entry.get("seed") for _, entry in entries}) > 1:
        found.append(f"{score} was measured on draws of different evaluation seeds, which adds noise")
    if len({own.data for own in outcomes if own.data is not None}) > 1:
        found.append("the data have different fingerprints under one name: those are other rows")
    return found
