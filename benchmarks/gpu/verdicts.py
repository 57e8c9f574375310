"""What the processes of a step wrote, as entries of its record: counts, ratios beside goals, figures beside a CPU's."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

COMMITTED = Path(__file__).parent.parent / "quality"
FALSE_ALARM = 1e-3
"""Of a comparison, as in the tests: how often two devices that draw from one law would be said to differ."""


Found = tuple[dict[str, Any], str]
"""Entries of a record, and why the step has not passed; empty if it has."""


def of_tests(lines: Sequence[dict[str, Any]]) -> Found:
    """Return how many tests passed, failed and were skipped, and those that failed with the end of their report."""
    latest = {line["test"]: line for line in lines}  # a test that passes and cannot be cleaned up has two lines
    counts = Counter(line["outcome"] for line in latest.values())
    failed = {name: line["why"] for name, line in latest.items() if line["outcome"] == "failed"}
    told = {outcome: counts[outcome] for outcome in ("passed", "failed", "skipped")}
    why = "failed: no test was reached" if not latest else f"failed: {len(failed)} tests" if failed else ""
    return {"tests": told, "failed_tests": failed}, why


def of_speed(lines: Sequence[dict[str, Any]]) -> Found:
    """Return the row's record; a goal that is missed is no failure of the step, a row without figures is."""
    record = lines[0] if lines else {"verdicts": [{"value": None, "note": "nothing was written"}]}
    without = [line["note"] for line in record["verdicts"] if line["value"] is None]
    return {"speed": record}, f"not measured: {without[0]}" if without else ""


def of_quality(group: str, command: str, dry: bool) -> Callable[[Sequence[dict[str, Any]]], Found]:
    """Return a reader that puts the figures of all seeds beside those committed for a command.

    Args:
        group: the file in benchmarks/quality.
        command: the row in it.
        dry: whether figures are of a few rounds, and only shown.
    """

    def read(lines: Sequence[dict[str, Any]]) -> Found:
        rows = {row["command"]: row for row in json.loads((COMMITTED / f"{group}.json").read_text())}
        row = rows[f"se-train {command}"]
        figures: dict[str, Any] = {}
        for name, committed in row["figures"].items():
            here = [line["figures"][name] for line in lines if name in line["figures"]]
            if here:
                figures[name] = compared(here, committed["values"]) | ({"agrees": None} if dry else {})
        seconds = {str(line["seed"]): line["seconds"] for line in lines}
        found = {"goal": row["goal"], "figures": figures, "seconds_of_seeds": seconds, "cpu": row["machine"]}
        off = [name for name, figure in figures.items() if figure["agrees"] is False]
        why = "failed: no figure" if not figures else f"failed: {', '.join(off)} not as on a CPU" if off else ""
        return found, why

    return read


def compared(here: Sequence[float], there: Sequence[float]) -> dict[str, Any]:
    r"""Return means of two samples, how far they are apart, and how far chance takes them.

    Chance: Student's t at :data:`FALSE_ALARM` times the standard error of the difference, the variance pooled. Both
    devices begin with the same weights and data, so their figures vary together rather than apart, and less is meant.
    """
    from scipy.stats import t

    n, m = len(here), len(there)
    squares = sum((x - statistics.mean(sample)) ** 2 for sample in (here, there) for x in sample)
    error = math.sqrt(squares / (n + m - 2) * (1 / n + 1 / m))
    apart, allowed = (
        statistics.mean(here) - statistics.mean(there),
        float(t.ppf(1 - FALSE_ALARM / 2, n + m - 2)) * error,
    )
    return {
        "gpu": statistics.mean(here), "gpu_values": list(here), "cpu": statistics.mean(there), "apart": apart,
        "allowed": allowed, "agrees": bool(abs(apart) <= allowed),
    }  # fmt: skip
