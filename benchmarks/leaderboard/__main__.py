"""Play the leaderboard: objectives on data sets at equal processor time, three seeds each.

python -m benchmarks.leaderboard                     what is not there yet, results to benchmarks/leaderboard/results
python -m benchmarks.leaderboard --budget 60         processor seconds of training for each run (default: 10)
python -m benchmarks.leaderboard --grid full         the whole legal product; --jobs 2: cells beside each other
python -m benchmarks.leaderboard --table             only rewrite the tables

A row is kept once it is finished: a leaderboard that was killed goes on with the next cell by the same command.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.leaderboard import store, tables
from benchmarks.leaderboard.cell import NotLegalError, play
from benchmarks.leaderboard.grid import GRIDS, Cell, cells

RUNS = Path("outputs/leaderboard")
"""Where runs go: not committed, looked at by se-report."""


def main(words: list[str] | None = None) -> None:
    """Play the cells that have no row yet, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", choices=list(GRIDS), default="tables", help="cells to play")
    parser.add_argument("--budget", type=float, default=10.0, help="processor seconds of training for each run")
    parser.add_argument("--jobs", type=int, default=1, help="cells that are played beside each other")
    parser.add_argument("--results", type=Path, default=store.RESULTS, help="folder of the rows")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the runs")
    parser.add_argument("--page", type=Path, default=tables.PAGE, help="the page that has the tables")
    parser.add_argument("--report", action="store_true", help="make se-report's page of all runs at the end")
    parser.add_argument("--table", action="store_true", help="only rewrite the tables")
    chosen = parser.parse_args(words)
    if not chosen.budget > 0 or chosen.jobs < 1:
        parser.error("--budget must be above 0, and --jobs at least 1")
    wanted = cells(chosen.grid)
    if not chosen.table:
        _play_all(wanted, chosen)
    kept = store.renamed(store.read(chosen.results), wanted)
    tables.write(chosen.page, kept, wanted, chosen.budget)
    print(f"leaderboard: tables in {chosen.page}")
    if not chosen.table and chosen.report:
        _report(chosen.runs)


def _play_all(wanted: list[Cell], chosen: argparse.Namespace) -> None:
    import joblib

    kept = store.renamed(store.read(chosen.results), wanted)
    todo = [cell for cell in wanted if store.key_of(cell.data, cell.words, chosen.budget) not in kept]
    print(f"leaderboard: {len(wanted) - len(todo)} of {len(wanted)} cells are there; {len(todo)} to play", flush=True)
    began = time.monotonic()
    jobs = joblib.Parallel(n_jobs=chosen.jobs, return_as="generator_unordered")
    calls = (joblib.delayed(_row)(cell, chosen.budget, chosen.runs / store.folder_of(cell)) for cell in todo)
    for number, row in enumerate(jobs(calls), 1):
        store.add(chosen.results, kept, row)
        tables.write(chosen.page, kept, wanted, chosen.budget)  # the page is that of the rows, whenever it is killed
        told = row.get("refused") or ", ".join(store.told(run) for run in row["runs"])
        left = (time.monotonic() - began) / number * (len(todo) - number) / 60
        print(f"{row['data']}: {row['objective']}: {told}  ({number}/{len(todo)}, {left:.0f} min left)", flush=True)


def _report(runs: Path) -> None:
    """Let se-report make a page of the runs; it says itself what it lacks."""
    out = runs / "report.html"
    subprocess.run([sys.executable, "-m", "se_framework.commands.report", str(runs), f"out={out}"], check=False)


def _row(cell: Cell, budget: float, folder: Path) -> dict[str, Any]:
    try:
        return play(cell, budget, folder)
    except NotLegalError as error:
        return {
            "objective": cell.objective, "data": cell.data, "words": cell.words, "parts": list(cell.parts),
            "budget": budget, "refused": " ".join(str(error).split()),
        }  # fmt: skip


if __name__ == "__main__":
    main()
