"""The cells of a comparison's tables, which every format shares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from se_framework.comparison.grouping import cell
from se_framework.comparison.objective import Objective, Point
from se_framework.comparison.sentence import p_value, rounded

if TYPE_CHECKING:
    from se_framework.comparison.comparison import Comparison

MOST_POINTS = 5
"""Seeds whose points are shown in a table."""
LITTLE, SETTING, ALWAYS = 3, 9, 10
"""Worth of columns: those that go first where there is no room, of settings, and of what is never left out."""


@dataclass(frozen=True)
class Column:
    """A column of texts.

    Attributes:
        head: its name.
        cells: from the first row.
        number: whether they are set to the right.
        worth: columns of least worth are left out first where there is no room.
    """

    head: str
    cells: tuple[str, ...]
    number: bool = True
    worth: int = ALWAYS


class Table(Protocol):
    """What every format writes: a comparison, the best of n."""

    def tables(self) -> list[list[Column]]:
        """Return the columns of each table, the first one first."""

    def told(self) -> list[str]:
        """Return what stands under them, in sentences."""

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines of a CSV."""

    def tree(self) -> dict[str, Any]:
        """Return the whole as names and values."""


def columns(found: Comparison) -> list[Column]:
    """Return the columns of the table of objectives."""
    rows = found.objectives
    made = [Column("data", tuple(cell(row.task) for row in rows), False, SETTING)] if len(found.tasks) > 1 else []
    made += [Column(cell(key), tuple(cell(row.settings[key]) for row in rows), False, SETTING) for key in found.columns]
    head = f"{cell(found.score or 'score')} ({100 * found.level:g} %)"
    made.append(Column(head, tuple(map(figure, rows))))
    made.append(Column("runs", tuple(map(runs, rows)), False))
    if any(row.p is not None for row in rows):
        made.append(Column("p", tuple("" if row.p is None else p_value(row.p) for row in rows), worth=8))
    made.append(Column("verdict", tuple(row.verdict for row in rows), False, 7))
    if any(row.difference is not None for row in rows):
        made.append(Column("difference", tuple(map(difference, rows)), worth=2))
    if any(row.seconds is not None for row in rows):
        head = "CPU s" if found.clock == "processor" else "wall s"
        made.append(Column(head, tuple("-" if r.seconds is None else f"{r.seconds:.3g}" for r in rows), worth=6))
    if any(row.parameters is not None for row in rows):
        numbers = tuple("-" if r.parameters is None else f"{r.parameters:,}" for r in rows)
        made.append(Column("parameters", numbers, worth=5))
    if any(1 < len(row.points) <= MOST_POINTS for row in rows):
        made.append(Column("by seed", tuple(map(points, rows)), False, LITTLE))
    return made


def rank_columns(found: Comparison) -> list[Column]:
    """Return the columns of the table of ranks over tasks."""
    made = [Column("objective", tuple(rank.label for rank in found.ranks), False, SETTING)]
    for task in found.tasks:
        own = tuple(f"{rank.ranks[task]:g}" if task in rank.ranks else "-" for rank in found.ranks)
        made.append(Column(cell(task), own, worth=LITTLE))
    made.append(
        Column(
            f"mean rank ({100 * found.level:g} %)",
            tuple("-" if r.mean is None else _interval(r.mean, r.low, r.high) for r in found.ranks),
        )
    )
    if any(rank.middle is not None for rank in found.ranks):
        made.append(
            Column("middle half", tuple("-" if r.middle is None else f"{r.middle:.3g}" for r in found.ranks), worth=5)
        )
    return made


def figure(row: Objective) -> str:
    """Return a row's mean and interval."""
    return "-" if row.mean is None else _interval(row.mean, row.low, row.high)


def difference(row: Objective) -> str:
    """Return a row's difference from the best and its interval."""
    if row.difference is None:
        return ""
    return _interval(row.difference, row.difference_low, row.difference_high)


def _interval(mean: float, low: float | None, high: float | None) -> str:
    if low is None or high is None or not math.isfinite(low + high):
        return f"{mean:.4g}"
    return "{} [{}, {}]".format(*rounded(mean, low, high))


def runs(row: Objective) -> str:
    """Return how many seeds have a value, and what became of the other runs."""
    lost = [f"{many} {what}" for what, many in row.counts.items() if what != "finished"]
    return ", ".join([str(row.n), *lost])


def points(row: Objective) -> str:
    """Return the value of every run, where they are few."""
    return " ".join(map(_point, row.points)) if len(row.points) <= MOST_POINTS else f"{len(row.points)} runs"


def _point(point: Point) -> str:
    return "-" if point.value is None else f"{point.value:.4g}"


def remarks(found: Comparison) -> list[str]:
    """Return what stands under a table: the answer, how it was found, what is not counted."""
    told = [found.sentence]
    for task in found.tasks:
        known = next((row.references for row in found.objectives if row.task == task and row.references), {})
        if known:
            told.append(
                f"{f'{task}: ' if task else ''}references of {cell(found.score)}: "
                + ", ".join(f"{cell(name)} {value:.4g}" for name, value in known.items())
            )
    if found.score is not None:
        unit = f" in {cell(found.unit)}" if found.unit else ""
        direction = {"nearer": "nearer to the perfect (or real) one is better"}.get(
            found.better or "", f"{found.better} is better"
        )
        among = " of one data set" if len(found.tasks) > 1 else ""
        told.append(
            f"{cell(found.score)}{unit}, {direction}: mean and Student's t interval ({100 * found.level:g} %) over "
            "seeds; p: difference from the best by paired t over shared seeds (Welch's where they differ), two-sided, "
            f"Holm's correction over all pairs{among}"
        )
    return [*told, *found.notes]
