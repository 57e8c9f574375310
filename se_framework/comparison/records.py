"""A comparison as data: every run of it with its row's figures beside it, and the whole as a tree for JSON."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from se_framework.comparison.objective import Objective
from se_framework.errors import printable
from se_framework.runs.files import as_json

if TYPE_CHECKING:
    from se_framework.comparison.cells import Table
    from se_framework.comparison.comparison import Comparison

OF_ROW = (
    "mean", "low", "high", "sd", "n", "rank", "difference", "difference_low", "difference_high", "p", "p_alone",
    "paired", "verdict", "seconds", "parameters",
)  # fmt: skip


def long_form(found: Comparison) -> list[dict[str, Any]]:
    """Return one line per run: its settings, seed, value and what became of it, then the figures of its row.

    A setting whose name is that of another column stands under ``setting.NAME``.
    """
    lines = []
    for row in found.objectives:
        of_row = {name: getattr(row, name) for name in OF_ROW}
        for point in row.points:
            own = {
                "score": found.score, "seed": point.seed, "status": point.status, "value": point.value, "se": point.se,
                "member": point.member, "run": str(point.path), "why": point.why,
            }  # fmt: skip
            taken = {"task", *own, *of_row}
            settings = {f"setting.{k}" if k in taken else k: v for k, v in row.settings.items()}
            line = {"task": row.task, **settings, **own, **of_row}
            lines.append({key: printable(v, None) if isinstance(v, str) else v for key, v in line.items()})
    return lines


def as_csv(found: Table) -> str:
    """Return the lines as comma-separated values; empty where there is no value."""
    lines, text = found.lines(), io.StringIO(newline="")
    writer = csv.DictWriter(text, list(lines[0]) if lines else ["task"])
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in line.items()} for line in lines)
    return text.getvalue()


def tree(found: Comparison) -> dict[str, Any]:
    """Return the comparison as names and values."""
    return {
        "score": found.score, "unit": found.unit, "better": found.better, "level": found.level,
        "interval": "Student's t over seeds", "correction": "Holm over all pairs of a task",
        "seconds": found.clock, "sentence": found.sentence, "notes": list(found.notes),
        "columns": list(found.columns), "tasks": list(found.tasks),
        "objectives": [_row(row) for row in found.objectives], "ranks": [asdict(rank) for rank in found.ranks],
    }  # fmt: skip


def _row(row: Objective) -> dict[str, Any]:
    own = {**asdict(row), "test": None if row.paired is None else "paired t" if row.paired else "Welch's t"}
    own["points"] = [{**point, "path": str(point["path"])} for point in own["points"]]
    del own["paired"]
    return own


def json(found: Table) -> str:
    """Return the whole as JSON."""
    return as_json(found.tree()).decode()
