"""Which objective is best, and whether that is sure: rows of means over seeds, their differences, and a sentence."""

from __future__ import annotations

import importlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from se_framework.comparison.grouping import Group, check_alike, chosen_score, grouped
from se_framework.comparison.objective import Objective, Point, Verdict
from se_framework.comparison.outcome import Outcome
from se_framework.comparison.over_tasks import Rank, over_tasks
from se_framework.comparison.sentence import sentence_of
from se_framework.comparison.statistics import Array, corrected, pairs, ranks, student
from se_framework.errors import ConfigError
from se_framework.evaluation.losses import loss_of

if TYPE_CHECKING:
    from se_framework.comparison.cells import Column


@dataclass(frozen=True)
class Comparison:
    """A table of objectives; see :func:`compare`.

    Attributes:
        objectives: rows, by task and within it best first.
        sentence: which is best, and is that sure.
        score: its name; None if no run has finished.
        unit: of the score.
        better: lower, higher, or nearer (to what a perfect sample, else real data, has).
        level: of the intervals.
        columns: keys of :attr:`Objective.settings`.
        tasks: their names; one that is empty where there is one only.
        ranks: over tasks, where there are several.
        notes: what else is to be known, in sentences: runs that are not counted, why.
        clock: of the seconds: processor or wall.
    """

    objectives: tuple[Objective, ...]
    sentence: str
    score: str | None
    unit: str | None
    better: str | None
    level: float
    columns: tuple[str, ...]
    tasks: tuple[str, ...]
    ranks: tuple[Rank, ...]
    notes: tuple[str, ...]
    clock: str | None

    def __str__(self) -> str:
        from se_framework.comparison.formats import text

        return text(self)

    def _repr_html_(self) -> str:
        """Return the table as notebooks show it, everything escaped."""
        from se_framework.comparison.formats import html

        return html(self)

    def tables(self) -> list[list[Column]]:
        """Return the columns of the table of objectives, and of that of their ranks."""
        from se_framework.comparison.cells import columns, rank_columns

        return [columns(self), *([rank_columns(self)] if self.ranks else [])]

    def told(self) -> list[str]:
        """Return what stands under them."""
        from se_framework.comparison.cells import remarks

        return remarks(self)

    def lines(self) -> list[dict[str, Any]]:
        """Return one line per run."""
        from se_framework.comparison.records import long_form

        return long_form(self)

    def tree(self) -> dict[str, Any]:
        """Return the comparison as names and values."""
        from se_framework.comparison.records import tree

        return tree(self)

    def frame(self) -> Any:
        """Return a pandas DataFrame of one line per run, with its row's figures beside it.

        Raises:
            ConfigError: pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError:
            raise ConfigError("a frame needs pandas, which is not installed: pip install pandas") from None
        return pandas.DataFrame(self.lines())


def compare(
    outcomes: Sequence[Outcome], score: str | None = None, by: str | None = None, level: float = 0.95
) -> Comparison:
    """Return the comparison of runs that were read.

    Args:
        outcomes: of runs, see :func:`se_framework.comparison.runs.read_runs`.
        score: by which they are compared; None for the first that all have of frechet, w2, nll and the others.
        by: a key whose values are tasks of their own, besides the data: nothing is compared or pooled across tasks.
        level: of intervals; 1 - level is the rate at which equals are called different, within a task.

    Raises:
        ConfigError: the runs have no score in common, or measured it in different ways.
    """
    if not 0.5 <= level < 1:
        raise ConfigError(f"level must lie in 0.5..1, below 1, got {level:g}")
    if not outcomes:
        raise ConfigError("there are no runs to compare: pass directories of runs or sweeps")
    groups, name = grouped(outcomes, by), chosen_score(outcomes, score)
    clock = _clock(outcomes)
    tasks = tuple(dict.fromkeys(group.task for group in groups))
    rows: list[Objective] = []
    notes: list[str] = []
    for task in tasks:
        own = [group for group in groups if group.task == task]
        if name is not None:
            where = f"{task}: " if task else ""
            alike = [o for group in own for o in group.outcomes if o.status == "finished"]
            notes += [f"{where}{said}" for said in check_alike(alike, name)]
        rows += _task(own, name or "", clock, level, notes)
    finished = [o.scores.get(name or "", {}) for o in outcomes if o.status == "finished"]
    entries = [entry for entry in finished if "value" in entry]
    found = Comparison(
        tuple(rows), "", name, _only(e.get("unit") for e in entries), _only(e.get("better") for e in entries), level,
        tuple(groups[0].settings) if groups else (), tasks, over_tasks(rows, tasks, level), (), clock,
    )  # fmt: skip
    return replace(found, sentence=sentence_of(found), notes=(*notes, *_left_out(outcomes)))


def _only(values: Any) -> str | None:
    """Return the value that all are, else None."""
    found = set(values)
    return found.pop() if len(found) == 1 else None


def _clock(outcomes: Sequence[Outcome]) -> str | None:
    """Return the clock that every run with any has; that on the wall, where some have no other."""
    clocks = {own.clock for own in outcomes if own.status == "finished"} - {None}
    return "processor" if clocks == {"processor"} else "wall" if clocks else None


def _task(groups: Sequence[Group], score: str, clock: str | None, level: float, notes: list[str]) -> list[Objective]:
    """Return the rows of one task, best first."""
    seeds: dict[Any, int] = {}
    values, losses = (np.full((len(groups), sum(len(g.outcomes) for g in groups)), np.nan) for _ in range(2))
    for i, group in enumerate(groups):
        of_seed: dict[Any, list[tuple[float, float]]] = {}
        for k, outcome in enumerate(group.outcomes):
            entry = outcome.scores.get(score, {})
            if outcome.status == "finished" and math.isfinite(entry.get("value", math.nan)):
                seed = ("unknown", i, k) if outcome.seed is None else outcome.seed
                of_seed.setdefault(seed, []).append((entry["value"], loss_of(entry)))
        for seed, found in of_seed.items():
            at = seeds.setdefault(seed, len(seeds))
            values[i, at], losses[i, at] = np.mean(found, 0)
            if len(found) > 1:
                notes.append(f"{group.label} has {len(found)} runs of seed {seed}: they are one repeat, their mean")
    values, losses = values[:, : max(len(seeds), 1)], losses[:, : max(len(seeds), 1)]
    better = _only(o.scores[score].get("better") for g in groups for o in g.outcomes if score in o.scores)
    return _tested([_row(g, score, clock) for g in groups], values, losses, better, level)


def _row(group: Group, score: str, clock: str | None) -> Objective:
    """Return what a row has before it is compared: its runs, and what they cost."""
    points, counts = [], Counter[str]()
    finished = [own for own in group.outcomes if own.status == "finished"]
    for own in group.outcomes:
        entry = own.scores.get(score, {}) if own.status == "finished" else {}
        value, why = entry.get("value"), own.why
        counts[own.status] += 1
        if own.status == "finished" and value is None:
            counts["no score"] += 1
            why = entry.get("why", f"it has no {score or 'score'}")
        elif value is not None and not math.isfinite(value):
            counts["not finite"] += 1
        points.append(Point(own.seed, value, own.status, why, own.path, own.member, entry.get("se")))
    spent = [s for s in (own.seconds if clock == "processor" else own.wall for own in finished) if s is not None]
    entries = [own.scores[score] for own in finished if score in own.scores]
    return Objective(
        group.task, group.label, group.settings, tuple(points), dict(counts),
        seconds=float(np.mean(spent)) if spent else None,
        parameters=next((own.parameters for own in finished if own.parameters is not None), None),
        references=next((e["references"] for e in entries if "references" in e), {}),
    )  # fmt: skip


def _tested(rows: list[Objective], values: Array, losses: Array, better: str | None, level: float) -> list[Objective]:
    """Return the rows with means, and differences from the best, best first; those without a value are last."""
    own, of_loss = student(values, level), student(losses, level)
    order = np.argsort(np.where(own.n > 0, of_loss.mean, np.inf), kind="stable")
    best = int(order[0])
    tests = pairs(losses, level)
    p, places = corrected(tests.p), ranks(of_loss.mean)
    found = []
    for i in map(int, order):
        difference = [tests.difference[best, i], tests.low[best, i], tests.high[best, i]]
        if better == "higher":  # losses are values less
            difference = [-difference[0], -difference[2], -difference[1]]
        row = replace(
            rows[i], n=int(own.n[i]), mean=_known(own.mean[i]), low=_known(own.low[i]), high=_known(own.high[i]),
            sd=_known(own.sd[i]), rank=float(places[i]),
        )  # fmt: skip
        if own.n[i] and i != best:
            row = replace(
                row, p=_known(p[best, i]), p_alone=_known(tests.p[best, i]), paired=bool(tests.paired[best, i]),
                difference=_known(difference[0]), difference_low=_known(difference[1]),
                difference_high=_known(difference[2]),
            )  # fmt: skip
        worse = bool(tests.difference[best, i] > 0)  # over the seeds that both have it may be the other way round
        found.append(replace(row, verdict=_verdict(row, i == best, worse, level)))
    return found


def _verdict(row: Objective, best: bool, worse: bool, level: float) -> Verdict:
    if row.n == 0:
        return "no value"
    if best:
        return "best"
    return "untested" if row.p is None else "worse" if worse and row.p <= 1 - level else "tied"


def _known(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _left_out(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a sentence for every kind of run that has no value, with the first reasons and names."""
    found = []
    for status in ("failed", "killed", "stopped", "running", "unreadable"):
        paths: dict[str | None, list[str]] = {}
        for own in (outcome for outcome in outcomes if outcome.status == status):
            paths.setdefault(own.why, []).append(str(own.path))
        many = sum(map(len, paths.values()))
        if many:
            told = [_first(names) + (f" ({why})" if why else "") for why, names in paths.items()]
            is_ = "1 run is" if many == 1 else f"{many} runs are"
            found.append(f"{is_} {status} and not in the means: {_first(told, '; ')}")
    return found


def _first(names: Sequence[str], between: str = ", ") -> str:
    """Return three names, and how many more there are."""
    more = f"{between}and {len(names) - 3} more" if len(names) > 3 else ""
    return between.join(names[:3]) + more
