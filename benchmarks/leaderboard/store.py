"""Rows on disk: one JSON for each data set, complete after every cell, and as the outcomes that se-compare reads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.leaderboard.grid import Cell

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]
Key = tuple[str, str, float]


def key_of(data: str, words: str, budget: float) -> Key:
    """Return what makes two rows the same: data, words and budget."""
    return data, words, float(budget)


def folder_of(cell: Cell) -> str:
    """Return the name of a cell's folder of runs."""
    return f"{cell.data}/{re.sub('[^a-z0-9_]+', '-', cell.objective)}"


def read(folder: Path) -> dict[Key, Row]:
    """Return the rows that are there, by key."""
    rows = [row for file in sorted(folder.glob("*.json")) for row in json.loads(file.read_text(encoding="utf-8"))]
    return {key_of(row["data"], row["words"], row["budget"]): row for row in rows}


def renamed(rows: dict[Key, Row], wanted: list[Cell]) -> dict[Key, Row]:
    """Return rows with the names and parts of today's grid: a cell that joins another table is not played again."""
    known = {(cell.data, cell.words): cell for cell in wanted}
    found = {}
    for key, row in rows.items():
        cell = known.get(key[:2])
        parts = [] if cell is None else cell.parts
        found[key] = row | {"parts": list(dict.fromkeys((*row["parts"], *parts)))}
    return found


def add(folder: Path, rows: dict[Key, Row], row: Row) -> None:
    """Add a row and write the file of its data set."""
    from se_framework.runs.files import write_atomically

    rows[key_of(row["data"], row["words"], row["budget"])] = row
    folder.mkdir(parents=True, exist_ok=True)
    own = [found for found in rows.values() if found["data"] == row["data"]]
    lines = ",\n".join(json.dumps(found) for found in own)
    write_atomically(folder / f"{row['data']}.json", f"[\n{lines}\n]\n".encode())


def told(run: dict[str, Any]) -> str:
    """Return a run in a few words."""
    value = run["scores"].get("frechet", run["scores"].get("w2"))
    if value is None:
        return f"seed {run['seed']} {run['status']}"
    return f"{value:.4g} in {run['processor_seconds']:.3g} s"


def outcomes(rows: list[Row]) -> list[Any]:
    """Return every run of rows as what se-compare makes of a run's directory."""
    from se_framework.comparison.outcome import Outcome

    found = []
    for row in rows:
        for run in row["runs"]:
            scores = {name: {"value": value, **row["scores"][name]} for name, value in run["scores"].items()}
            settings = {"objective": row["objective"], "data.name": row["data"]}
            found.append(
                Outcome(
                    Path(row["data"]) / row["objective"] / str(run["seed"]),
                    settings,
                    run["seed"],
                    run["status"],
                    run["why"],
                    scores,
                    run.get("processor_seconds"),
                    row["parameters"],
                    run.get("rounds"),
                    "processor",
                    run.get("wall_seconds"),
                )  # fmt: skip
            )
    return found
