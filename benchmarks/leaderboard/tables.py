"""The leaderboard's tables, in a page between two marks: statistics are those of se-compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.leaderboard import store
from benchmarks.leaderboard.grid import PARTS, Cell

PAGE = Path(__file__).parents[2] / "docs" / "leaderboard.md"
BEGIN, END = "<!-- leaderboard: written by python -m benchmarks.leaderboard -->", "<!-- /leaderboard -->"
MAIN = "c2st"
"""By which rows are compared: W2 of 1,000 points puts a blurred ring below its own floor, since points between modes
make it cheap to move what one mode has too much of; a classifier sees them."""
BESIDE = ("frechet", "w2", "modes", "high_quality", "coverage", "nll")
"""Scores that stand beside the one by which rows are compared, as means over seeds without a test."""
WITHIN = 0.1
"""Part of the budget by which a run may miss it before it is said."""
TITLES = {
    "systems": "Systems on every data set",
    "constraints": "Constraints under two divergences",
    "divergences": "Divergences under one constraint",
    "product": "The product",
}


def write(page: Path, rows: dict[store.Key, store.Row], wanted: Sequence[Cell], budget: float) -> None:
    """Write the tables of the rows of one budget into a page, in the place of those that are there."""
    own = [row for row in rows.values() if row["budget"] == budget]
    text = page.read_text(encoding="utf-8") if page.is_file() else f"{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    body = "\n".join(["", *lines(own, wanted, budget), ""])
    page.write_text(f"{before}{BEGIN}\n{body}\n{END}{after}", encoding="utf-8")


def lines(rows: Sequence[store.Row], wanted: Sequence[Cell], budget: float) -> list[str]:
    """Return the tables in Markdown."""
    from se_framework.comparison.comparison import compare
    from se_framework.comparison.formats import markdown

    order = {(cell.data, cell.words): k for k, cell in enumerate(wanted)}
    played = sorted((row for row in rows if "runs" in row), key=lambda row: order.get((row["data"], row["words"]), 0))
    found = [*state(rows, wanted, budget), ""]
    for part in PARTS:
        own = [row for row in played if part in row["parts"]]
        if not own:
            continue
        found += [
            f"### {TITLES[part]}",
            "",
            markdown(compare(store.outcomes(own), MAIN)),
            "",
            *beside(own),
            "",
        ]
    digits = [row for row in played if "systems" in row["parts"] and "frechet" in row["scores"]]
    if digits and any("frechet" not in row["scores"] for row in played):
        found += ["### Systems by Frechet distance", "", markdown(compare(store.outcomes(digits), "frechet")), ""]
    return found


def state(rows: Sequence[store.Row], wanted: Sequence[Cell], budget: float) -> list[str]:
    """Return in words what is there, what was spent, and what went wrong."""
    there = {(row["data"], row["words"]) for row in rows}
    missing = [cell for cell in wanted if (cell.data, cell.words) not in there]
    runs = [(row, run) for row in rows for run in row.get("runs", ())]
    finished = [(row, run) for row, run in runs if run["status"] == "finished"]
    spent = [run["processor_seconds"] for _, run in finished if run.get("processor_seconds") is not None]
    off = [
        f"{row['objective']} on {row['data']} {run['processor_seconds']:.3g} s"
        for row, run in finished
        if abs(run["processor_seconds"] - budget) > WITHIN * budget and run["seed"] == row["runs"][0]["seed"]
    ]
    failed = [
        f"{row['objective']} on {row['data']} seed {run['seed']}" for row, run in runs if run["status"] != "finished"
    ]
    refused = [f"{row['objective']} on {row['data']}" for row in rows if "refused" in row]
    told = [
        f"{len(wanted) - len(missing)} of {len(wanted)} cells, {len(runs)} runs at {budget:g} processor seconds each "
        f"({sum(spent) / 60:.0f} core-minutes of training)."
    ]
    if missing:
        lacking = Counter(f"{part} on {cell.data}" for cell in missing for part in cell.parts[:1])
        told.append(f"Not played yet: {', '.join(f'{many} of {where}' for where, many in lacking.items())}.")
    told += [f"Spent more than {100 * WITHIN:g} % off the budget: {'; '.join(off)}."] if off else []
    told += [f"Without a score: {'; '.join(failed)}."] if failed else ["No run failed."]
    told += [f"Not legal: {'; '.join(refused)}."] if refused else []
    return [line for said in told for line in (said, "")][:-1]


def beside(rows: Sequence[store.Row]) -> list[str]:
    """Return a table of other scores, means over seeds."""
    names = [name for name in BESIDE if any(name in row["scores"] for row in rows)]
    head = ["data", "objective", "rounds", *names]
    made = [f"| {' | '.join(head)} |", f"|{'---|' * 2}{'---:|' * (len(head) - 2)}"]
    for row in rows:
        cells = [row["data"], row["objective"], str(row["rounds"]), *(_mean(row, name) for name in names)]
        made.append(f"| {' | '.join(cells)} |")
    told = {row["data"]: _perfect(row, names) for row in rows}
    known = [f"{data}: {said}" for data, said in told.items() if said]
    return [*made, *(["", f"Of a perfect sample, else of real data: {'; '.join(known)}."] if known else [])]


def _perfect(row: dict[str, Any], names: Sequence[str]) -> str:
    found = []
    for name in names:
        known = row["scores"].get(name, {}).get("references", {})
        value = next((known[key] for key in ("perfect", "all", "real", "real_vs_real") if key in known), None)
        found += [] if value is None else [f"{name} {value:.4g}"]
    return ", ".join(found)


def _mean(row: dict[str, Any], name: str) -> str:
    values = [run["scores"][name] for run in row["runs"] if name in run["scores"]]
    return f"{mean(values):.3g}" if values else "-"
