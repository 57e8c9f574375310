"""A run as a page shows it: read from its directory alone, believing nothing, with a sentence for what cannot be had.

Nothing is trained or built here, and neither the data nor the model is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf

from se_framework.comparison.report.series import MOST_MEMBERS, Series, by_member, numeric
from se_framework.config.saved import saved_config
from se_framework.config.trust import no_links_out
from se_framework.errors import SEError, printable
from se_framework.reading import UnreadableError, count, mapping, number, read_json, take
from se_framework.runs.directory import RunDirectory
from se_framework.runs.files import read_rows

Result = TypeVar("Result")
MOST_FRAMES = 2000
"""Names of frames that are read from a folder."""
MOST_WARNINGS = 50
MOST_SCORES = 200
FAILED = ("term", "value", "player", "round", "step", "source")
"""What is told of a step that was not finite."""


@dataclass
class Shown:
    """What a page says of one run.

    Attributes:
        path: its directory.
        name: what the page calls it.
        config: its configuration as plain values; None where it cannot be read.
        series: every numeric column of its rows by name, one line per member of an ensemble.
        score_series: the same of its scores over rounds.
        scores: by name the entry of ``summary.json`` or ``eval.json``.
        scored_at: the round of these; None where there are none.
        status: finished, failed, or how far it has come.
        versions: of packages.
        data: what the data was.
        warnings: what monitors, scores and frozen members said.
        failures: steps that were not finite, in words.
        frames: by member (None: a single run) the rounds and files of its pictures.
        samples: by member the picture of its last samples.
        missing: what could not be read, and why, a sentence each.
    """

    path: Path
    name: str
    config: dict[str, Any] | None = None
    series: dict[str, list[Series]] = field(default_factory=dict)
    score_series: dict[str, list[Series]] = field(default_factory=dict)
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    scored_at: int | None = None
    status: str = ""
    versions: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    frames: dict[int | None, list[tuple[int, Path]]] = field(default_factory=dict)
    samples: dict[int | None, Path] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def members(self) -> int:
        """How many members the run has; 1 for a single run."""
        return max((len(lines) for lines in self.series.values()), default=1)

    def last_picture(self, member: int | None = None) -> Path | None:
        """Return the picture of the last samples: that of the run's end, else the last frame; None without one."""
        frames = self.frames.get(member)
        return self.samples.get(member) or (frames[-1][1] if frames else None)

    @property
    def has_rows(self) -> bool:
        """Whether a row was logged."""
        return bool(self.series)


def read_run(path: Path, name: str | None = None) -> Shown:
    """Read what a page shows of a run.

    Args:
        path: its directory.
        name: what the page calls it; the last part of the path if None.

    Raises:
        RunDirectoryError: there is no run, or links lead out of it: what they lead to is nobody's to show.
    """
    run = RunDirectory(path).require()
    no_links_out(run.path)
    shown = Shown(run.path, name or run.path.resolve().name)

    def had(read: Callable[[], Result], otherwise: Result) -> Result:
        """Return what is read, or note why it is not."""
        try:
            return read()
        except FileNotFoundError:
            return otherwise
        except (SEError, UnreadableError, OSError) as error:
            shown.missing.append(printable(" ".join(str(error).split())))
            return otherwise

    shown.config = had(lambda: _plain(run), None)
    lines: dict[str, list[Series]] = {}
    members = had(lambda: by_member(read_rows(run.members_file, ("round", "member"))), lines)
    none: list[dict[str, str]] = []
    rows = had(run.rows, none)
    shown.series = members or numeric(rows)
    of_members = had(lambda: by_member(read_rows(run.member_scores_file, ("round", "member"))), lines)
    shown.score_series = of_members or numeric(had(run.score_rows, none))
    nothing: dict[str, Any] = {}
    summary, evaluated, shown.versions, shown.data = (
        had(partial(run.read_json, name), nothing)
        for name in ("summary.json", "eval.json", "versions.json", "data.json")
    )
    for found, file in ((summary, "summary.json"), (evaluated, "eval.json")):
        if found and not shown.scores:
            shown.scores = had(partial(_scores, run.path / file, found), shown.scores)
            shown.scored_at = had(partial(take, found, "round", kind=count), None)
    shown.failures = had(lambda: list(_failures(run)), [])
    shown.warnings = _warnings(summary, rows)
    shown.frames = had(lambda: _frames(run), {})
    shown.samples = _samples(run)
    shown.status = _status(shown, rows, bool(summary))
    return shown


def _plain(run: RunDirectory) -> dict[str, Any]:
    found: Any = OmegaConf.to_container(saved_config(run), resolve=True)
    return {str(key): value for key, value in found.items()}


def _scores(file: Path, found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return entries whose figures are numbers; one that has no value says why it has none."""
    entries: dict[str, dict[str, Any]] = {}
    try:
        for name, entry in list(take(found, "scores", kind=mapping).items())[:MOST_SCORES]:
            kept = dict(mapping(entry))
            for key in ("value", "se", "sd"):
                if key in kept:
                    kept[key] = take(kept, key, kind=number)
            for key in ("references", "members"):
                kept[key] = {str(k): number(v) for k, v in mapping(kept.get(key) or {}).items()}
            entries[str(name)] = kept
    except (UnreadableError, ValueError) as error:
        raise UnreadableError(f"{file} holds no scores ({error})") from error
    return entries


def _failures(run: RunDirectory) -> Iterator[str]:
    """Yield a sentence for every step that was not finite."""
    files = [run.failure / "failure.json", *sorted(run.failure.glob("member_*/failure.json"))[:MOST_MEMBERS]]
    for file in files:
        try:
            found = read_json(file)
        except FileNotFoundError:
            continue
        member = "" if file.parent == run.failure else f" of {file.parent.name.replace('_', ' ')}"
        told = {key: str(found[key])[:300] if isinstance(found.get(key), (str, int, float)) else "?" for key in FAILED}
        source = f": {told['source']}" if told["source"] not in ("?", "") else ""
        where = "round {round}, player {player}, step {step}".format(**told)
        yield printable(f"{told['term'] or 'something'} was {told['value']} in {where}{member}{source}")


def _warnings(summary: dict[str, Any], rows: list[dict[str, str]]) -> list[str]:
    """Return what was warned of: by the summary, or before there is one by the notes of the rows."""
    told = summary.get("warnings")
    found = [str(text) for text in told if isinstance(text, str)] if isinstance(told, list) else None
    if found is None:
        found = [part for row in rows for part in row.get("note", "").split(" | ") if part]
    frozen = summary.get("frozen")
    found += [str(text) for text in frozen.values()] if isinstance(frozen, dict) else []
    more = len(found) - MOST_WARNINGS
    found = [printable(text) for text in found[:MOST_WARNINGS]]
    return [*found, f"and {more} more, see metrics.csv"] if more > 0 else found


def _frames(run: RunDirectory) -> dict[int | None, list[tuple[int, Path]]]:
    """Return the pictures of rounds in their order, those of an ensemble by member."""
    found: dict[int | None, list[tuple[int, Path]]] = {}
    folders: dict[int | None, Path] = {None: run.frames, **{k: run.frames / f"member_{k}" for k in range(MOST_MEMBERS)}}
    for member, folder in folders.items():
        if not folder.is_dir():
            continue
        files = sorted(file for file in folder.glob("*.png") if file.stem.isdecimal() and len(file.stem) < 16)
        if files:
            found[member] = [(int(file.stem), file) for file in files[:MOST_FRAMES]]
    return found


def _samples(run: RunDirectory) -> dict[int | None, Path]:
    """Return the pictures that the end of a run drew."""
    files: dict[int | None, Path] = {None: run.path / "samples.png"}
    files |= {k: run.path / "samples" / f"member_{k}.png" for k in range(MOST_MEMBERS)}
    return {member: file for member, file in files.items() if file.is_file()}


def _status(shown: Shown, rows: list[dict[str, str]], summarised: bool) -> str:
    """Return in few words what became of the run."""
    played = f"{float(rows[-1]['round']):.0f}" if rows else "0"
    asked = shown.config["loop"]["rounds"] if shown.config else "?"
    if summarised:
        return f"finished after {shown.scored_at if shown.scored_at is not None else played} rounds"
    if shown.failures:
        return f"failed after round {played} of {asked}"
    return f"not finished: {played} of {asked} rounds logged"
