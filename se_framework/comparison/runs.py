"""What became of runs, read from their directories: nothing is built, and neither torch nor a model is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from se_framework.comparison.one_run import of_run, said
from se_framework.comparison.outcome import Outcome, Status
from se_framework.comparison.settings import GROUPS, Value, choices, is_complete
from se_framework.errors import RunDirectoryError
from se_framework.reading import UnreadableError, count, read_json, take, text, texts
from se_framework.runs.lock import holding
from se_framework.runs.sweeps import DONE, LOCK, RESULT, TABLE

__all__ = ["Outcome", "read_runs"]
DEEPEST, MOST_FOLDERS = 4, 20_000
"""Levels below a folder in which runs are looked for, and folders that are looked into."""
_PASS = "pass directories of runs or sweeps"


def read_runs(paths: Iterable[str | Path]) -> list[Outcome]:
    """Return what became of every run in directories, in order; a run that is reached twice is there once.

    Args:
        paths: runs, sweeps (their jobs in order), ensembles (a run for each member), or folders of those.

    Raises:
        RunDirectoryError: a path is none of these, or holds none.
    """
    found: dict[tuple[Path, int | None], Outcome] = {}
    for path in map(Path, paths):
        own = list(_below(path, DEEPEST, [MOST_FOLDERS]))
        if not own:
            raise RunDirectoryError(f"{path} {_nothing(path)}")
        for outcome in own:
            found.setdefault((outcome.path.resolve(), outcome.member), outcome)
    return list(found.values())


def _nothing(path: Path) -> str:
    """Return what is wrong with a path that has no run in it."""
    if not os.path.isdir(path):
        return f"is no run: it {'is a file' if os.path.exists(path) else 'does not exist'}; {_PASS}"
    if _is_file(path / TABLE) or _is_file(path / "multirun.yaml"):
        return "is an empty sweep: none of its jobs has begun; pass one that has runs"
    return f"is no run: neither it nor a folder in it holds a config.yaml; {_PASS}"


def _below(path: Path, depth: int, folders: list[int]) -> Iterator[Outcome]:
    """Yield the runs of a run, a sweep or a folder."""
    if _is_file(path / "config.yaml"):
        yield from of_run(path)
        return
    folders[0] -= 1
    if folders[0] < 0:
        raise RunDirectoryError(f"{path} lies among more than {MOST_FOLDERS} folders: pass the runs themselves")
    try:
        inside = sorted((Path(entry) for entry in os.scandir(path) if entry.is_dir()), key=_in_order)
    except OSError:  # no directory, or none that may be looked into
        return
    jobs = {folder: _job(folder) for folder in inside if _is_file(folder / RESULT)}
    if jobs:
        yield from _of_sweep(path, jobs)
    for folder in inside:
        if folder not in jobs and depth > 0 and not folder.name.startswith("."):
            yield from _below(folder, depth - 1, folders)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # no file can have that name
        return False


def _in_order(path: Path) -> tuple[int, str]:
    name = path.name
    return (int(name) if name.isdecimal() and name.isascii() and len(name) < 10 else 10**10, name)


def _job(folder: Path) -> dict[str, Any]:
    """Return what a job of a sweep has recorded, its words as settings; of a damaged record, why."""
    try:
        found = read_json(folder / RESULT)
        words = [word.lstrip("+~").partition("=")[::2] for word in take(found, "overrides", kind=texts)]
        typed = {key: _typed(value) for key, value in words if not key.startswith("hydra.")}
        run, error = found.get("run"), found.get("error")
        return {
            "job": take(found, "job", kind=count),
            "status": take(found, "status", kind=text),
            "words": typed,
            "run": Path(run) if isinstance(run, str) and run else None,
            "error": error if isinstance(error, str) else None,
        }
    except (FileNotFoundError, UnreadableError) as error:
        return {"damaged": f"{RESULT}: {error}"}


def _of_sweep(sweep: Path, jobs: dict[Path, dict[str, Any]]) -> Iterator[Outcome]:
    """Yield what became of the jobs of a sweep, in their order.

    A job that came to no configuration has that of one of the same words but the seed, where there is one.
    """
    found: list[tuple[dict[str, Value], Outcome]] = []
    for folder, job in sorted(jobs.items(), key=lambda item: (item[1].get("job", 10**10), _in_order(item[0]))):
        named, words = job.get("run"), job.get("words", {})
        run = next((p for p in (folder, named) if p is not None and _is_file(p / "config.yaml")), None)
        named_by_user = {
            key: value
            for key, value in words.items()
            if key == "experiment" or (key in GROUPS and isinstance(value, str) and value not in choices(key))
        }
        for outcome in [_without_run(sweep, folder, job)] if run is None else of_run(run):
            settings = words if run is None else outcome.settings | named_by_user
            found.append((words, _told_by_job(replace(outcome, settings=settings), job)))
    whole = {_unseeded(words): own.settings for words, own in found if is_complete(own.settings)}
    for words, own in found:
        settings = own.settings if is_complete(own.settings) else whole.get(_unseeded(words), own.settings)
        yield replace(own, settings=settings | ({} if own.seed is None else {"seed": own.seed}))


def _unseeded(words: dict[str, Value]) -> frozenset[tuple[str, Value]]:
    return frozenset((key, value) for key, value in words.items() if key != "seed")


def _without_run(sweep: Path, folder: Path, job: dict[str, Any]) -> Outcome:
    """Return what became of a job that has no run."""
    if "damaged" in job:
        return Outcome(folder, {}, None, "unreadable", job["damaged"])
    status, why, seed = job["status"], job["error"], job["words"].get("seed", 0)
    if status == "running" and holding(sweep, LOCK) != "held":
        status, why = "killed", "its process was killed"
    if status in DONE:
        status, why = "unreadable", f"its run {job['run']} is gone"
    known: tuple[Status, ...] = ("failed", "stopped", "running", "killed")
    became: Status = next((own for own in known if own == status), "unreadable")
    return Outcome(folder, {}, seed if isinstance(seed, int) else None, became, said(why))


def _typed(word: str) -> Value:
    """Return the number that a word is, else the word."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(word)
    return word


def _told_by_job(outcome: Outcome, job: dict[str, Any]) -> Outcome:
    """Return what became of a job's run: a record says more than a run does that has no summary."""
    if outcome.status in ("stopped", "killed") and job.get("status") in ("failed", "killed", "stopped"):
        return replace(outcome, status=job["status"], why=said(job["error"]) or outcome.why)
    return outcome
