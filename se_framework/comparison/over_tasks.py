"""Ranks over tasks: values of different data have different units and are never pooled; ranks have none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from se_framework.comparison.objective import Objective
from se_framework.comparison.statistics import interquartile_mean, student


@dataclass(frozen=True)
class Rank:
    """An objective's ranks over tasks.

    Attributes:
        label: of the objective.
        ranks: by task, 1 for the best; equals share the mean of theirs, and so do those without a value, at the end.
        mean: over tasks; None where it lacks a task.
        low: of Student's interval with tasks as repeats; None with less than two.
        high: of the interval.
        middle: the interquartile mean over tasks; None with less than four.
    """

    label: str
    ranks: dict[str, float]
    mean: float | None
    low: float | None
    high: float | None
    middle: float | None


def over_tasks(rows: Sequence[Objective], tasks: Sequence[str], level: float) -> tuple[Rank, ...]:
    """Return the ranks of objectives over tasks, least mean first; nothing where there is one task.

    An objective that is not there on a task has no mean: ranks among fewer are others.
    """
    if len(tasks) < 2:
        return ()
    found = []
    for label in dict.fromkeys(row.label for row in rows):
        own = {row.task: row.rank for row in rows if row.label == label and row.rank is not None}
        whole = all(task in own for task in tasks)
        values = np.array([own[task] for task in tasks]) if whole else np.array([])
        over = student(values, level)
        middle = interquartile_mean(values) if len(values) >= 4 else None
        low, high = (float(over.low), float(over.high)) if whole else (None, None)
        found.append(Rank(label, own, float(over.mean) if whole else None, low, high, middle))
    return tuple(sorted(found, key=lambda rank: (rank.mean is None, rank.mean or 0.0)))
