"""A row of a comparison: an objective on a task, with every run of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from se_framework.comparison.outcome import Status
from se_framework.comparison.settings import Value

Verdict = Literal["best", "tied", "worse", "untested", "no value"]


@dataclass(frozen=True)
class Point:
    """One run of a row.

    Attributes:
        seed: of the run.
        value: of the score; None where it has none, and not finite as it was recorded.
        status: what became of the run.
        why: there is no value.
        path: its directory.
        member: its number in an ensemble.
        se: the value's own standard error, over samples; intervals are over seeds.
    """

    seed: int | None
    value: float | None
    status: Status
    why: str | None
    path: Path
    member: int | None = None
    se: float | None = None


@dataclass(frozen=True)
class Objective:
    """One row: an objective on a task, over seeds.

    Attributes:
        task: the data (and what else separates tasks); empty where there is one only.
        label: what tells it from the others.
        settings: the same by key.
        points: every run of it.
        mean: of the score over seeds; None without a value.
        low: of Student's interval; None with less than two seeds.
        high: of the interval.
        sd: over seeds.
        n: seeds with a finite value.
        counts: runs by what became of them: finished, failed, stopped, running, killed, unreadable, and of the
            finished ones ``not finite`` and ``no score``.
        seconds: of training, mean over finished runs.
        parameters: trained numbers of a run.
        references: of the score.
        difference: of the score from the best's, mean over seeds (of their losses, where nearer is better).
        difference_low: of its own interval.
        difference_high: of its own interval.
        p: of that difference, corrected for all pairs of the task.
        p_alone: not corrected.
        paired: whether it is of seeds that both have.
        verdict: best; tied: cannot be told from it; worse; untested: too few seeds; no value.
        rank: within the task.
    """

    task: str
    label: str
    settings: dict[str, Value]
    points: tuple[Point, ...]
    counts: dict[str, int]
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    sd: float | None = None
    n: int = 0
    seconds: float | None = None
    parameters: int | None = None
    references: dict[str, float] = field(default_factory=dict)
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p: float | None = None
    p_alone: float | None = None
    paired: bool | None = None
    verdict: Verdict = "no value"
    rank: float | None = None
