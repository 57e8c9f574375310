"""One run's directory, read as a stranger's: its configuration as plain values, its summary, or why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from se_framework.comparison.outcome import Outcome, Status
from se_framework.comparison.settings import GROUPS, Value, defaults, flattened, name_of, part_of
from se_framework.config.plain import read_plain
from se_framework.errors import ConfigError, printable
from se_framework.reading import UnreadableError, count, mapping, number, read_json, take, text
from se_framework.runs.lock import holding

MOST_MEMBERS = 10_000


def said(why: str | None) -> str | None:
    """Return a sentence of a run on one line, cut where it is long."""
    return None if why is None else printable(" ".join(why.split()), 300)


def of_run(path: Path) -> Iterator[Outcome]:
    """Yield what became of the run in a directory, or of the members of an ensemble."""
    file = path / "config.yaml"
    try:
        config = read_plain(file, str(file))
        if config is None:
            raise ConfigError(f"{file} is empty")
        settings = settings_of(config)
        seed = config.get("seed")
        seed = seed if type(seed) is int else None
    except ConfigError as error:
        yield Outcome(path, {}, None, "unreadable", said(str(error)))
        return
    known = Outcome(path, settings, seed, data=_fingerprint(path))
    try:
        summary = read_json(path / "summary.json")
    except FileNotFoundError:
        status, why = _unfinished(path)
        yield from (replace(own, status=status, why=said(why)) for own in _members(known, config))
        return
    except UnreadableError as error:
        yield replace(known, status="unreadable", why=said(f"summary.json: {error}"))
        return
    try:
        yield from _summarised(known, config, summary)
    except UnreadableError as error:
        yield replace(known, status="unreadable", why=said(f"summary.json: {error}"))


def settings_of(config: dict[str, Any]) -> dict[str, Value]:
    """Return the settings of a configuration by dotted key, and the names of its choices."""
    own = flattened(config)
    found = {key: value for key, value in defaults().items() if key.partition(".")[0] in config or "." not in key} | own
    names = {group: name_of(group, part_of(own, group)) for group in GROUPS}
    return found | {group: name for group, name in names.items() if name is not None}


def _unfinished(path: Path) -> tuple[Status, str | None]:
    """Return what became of a run that has no scores, and why."""
    held = holding(path)
    if held == "held":
        return "running", None
    failures = sorted((path / "failure").glob("*.json")) or sorted((path / "failure").glob("member_*/*.json"))
    for file in failures[:1]:
        try:
            found = read_json(file)
            term = take(found, "term", kind=text) or "a step"
            where = f"player {take(found, 'player', kind=text)}, round {take(found, 'round', kind=count)}"
            return "failed", f"{term} of {where}: {take(found, 'source', kind=text) or 'not finite'}"
        except (FileNotFoundError, UnreadableError) as error:
            return "failed", f"{file.name}: {error}"
    return ("killed", "its process was killed") if held == "left" else ("stopped", "it has no summary.json")


def _members(known: Outcome, config: dict[str, Any]) -> list[Outcome]:
    """Return a run as it is, or the members of an ensemble with their own settings and seeds."""
    ensemble = config.get("ensemble")
    ensemble = ensemble if isinstance(ensemble, dict) else {}
    columns = {key: value for key, value in _columns(ensemble.get("values"), "")}
    size = ensemble.get("size", 1)
    many = max(size if type(size) is int else 1, *(len(column) for column in columns.values()), 1)
    if many == 1:
        return [known]
    found = []
    for k in range(min(many, MOST_MEMBERS)):
        own = {key: column[k] for key, column in columns.items() if k < len(column)}
        seed = own.get("seed", None if known.seed is None else known.seed + k)
        settings = known.settings | {key: value for key, value in own.items() if isinstance(value, (int, float))}
        found.append(
            replace(known, settings=settings | {"seed": seed}, seed=seed if type(seed) is int else None, member=k)
        )
    return found


def _columns(node: Any, key: str) -> Iterator[tuple[str, list[Any]]]:
    """Yield the values of an ensemble's members by dotted key, written with dots or nested."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _columns(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        yield key, node


def _summarised(known: Outcome, config: dict[str, Any], summary: dict[str, Any]) -> Iterator[Outcome]:
    """Yield what a run that has a summary came to."""
    rounds, wanted = take(summary, "round", kind=count), known.settings.get("loop.rounds")
    scores = {str(name): entry_of(str(name), found) for name, found in take(summary, "scores", kind=mapping).items()}
    frozen = take(summary, "frozen", kind=mapping) if "frozen" in summary else {}
    members = _members(replace(known, rounds=rounds, **_costs(summary)), config)
    early = summary.get("stopped_early") is True or (bool(frozen) and len(frozen) == len(members))
    status: Status = "finished" if early or not isinstance(wanted, int) or rounds >= wanted else "stopped"
    why = None if status == "finished" else f"its scores are of round {rounds} of {wanted}"
    if status == "stopped" and holding(known.path) == "held":
        status = "running"
    for own in members:
        found = scores if own.member is None else {k: _of_member(v, own.member) for k, v in scores.items()}
        mine = {name: {k: v for k, v in entry.items() if k != "members"} for name, entry in found.items()}
        sentence = frozen.get(str(own.member))
        if sentence is not None:
            yield replace(own, status="failed", why=said(str(sentence)))
            continue
        seconds, wall = (None if all_ is None else all_ / len(members) for all_ in (own.seconds, own.wall))
        yield replace(own, status=status, why=why, scores=mine, seconds=seconds, wall=wall)


def _costs(summary: dict[str, Any]) -> dict[str, Any]:
    """Return time and numbers trained, as far as a run recorded them: old ones have the wall's seconds at most."""
    row = summary.get("last_row")
    told = summary if "seconds" in summary else row if isinstance(row, dict) else {}
    wall = take(told, "seconds", kind=number) if "seconds" in told else None
    processor = take(summary, "processor_seconds", kind=number) if "processor_seconds" in summary else None
    players = take(summary, "parameters", kind=mapping) if "parameters" in summary else {}
    players = {str(name): take(players, name, kind=count) for name in players}
    return {
        "seconds": wall if processor is None else processor,
        "clock": "processor" if processor is not None else None if wall is None else "wall",
        "wall": wall,
        "players": players,
        "parameters": sum(players.values()) if players else None,
    }


def entry_of(name: str, found: Any) -> dict[str, Any]:
    """Return a score's entry with what we know of, each of its kind.

    Raises:
        UnreadableError: a figure of it is of another kind.
    """
    tree, entry = {name: found}, dict[str, Any]()
    kinds = {"value": number, "se": number, "sd": number, "n": count, "seed": count}
    kinds |= {"unit": text, "better": text, "bound": text, "why": text}  # type: ignore[dict-item]
    for key, kind in kinds.items():
        if key in take(tree, name, kind=mapping):
            entry[key] = take(tree, name, key, kind=kind)
    for key in ("references", "members"):
        if key in found:
            entry[key] = {str(k): take(tree, name, key, k, kind=number) for k in take(tree, name, key, kind=mapping)}
    return entry


def _of_member(entry: dict[str, Any], k: int) -> dict[str, Any]:
    """Return a score's entry for one member: its own value; the spread is that of all."""
    if "members" not in entry:
        return entry
    own = {key: value for key, value in entry.items() if key not in ("members", "sd", "value", "se")}
    known = entry["members"]
    return own | ({"value": known[str(k)]} if str(k) in known else {"why": "this member has none"})


def _fingerprint(path: Path) -> str | None:
    try:
        return take(read_json(path / "data.json"), "fingerprint", kind=text)
    except (FileNotFoundError, UnreadableError):
        return None
