"""Measure the rows of benchmarks/speed.

python -m benchmarks.speed                    every row of this device, results to benchmarks/speed
python -m benchmarks.speed vanilla spline_2   some of them
python -m benchmarks.speed --quick            the CPU rows briefly; writes nothing, ends with the goals missed
python -m benchmarks.speed --table            only rewrite the table
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import asdict, replace
from typing import Any

import torch

from benchmarks.speed import adversarial, deep_flows, ensembles, flows, gpu, growth, overhead, report, sinkhorn, start
from benchmarks.speed.contest import Absent, Figure, Row, Verdict, measure

PARTS = (adversarial, overhead, flows, deep_flows, sinkhorn, start, ensembles, growth, gpu)


def all_rows() -> dict[str, Row | Figure]:
    """Return every row by name, in the order of the table."""
    return {row.name: row for part in PARTS for row in part.rows()}


def run(row: Row | Figure, quick: bool, threads: int | None) -> tuple[list[Verdict], dict[str, Any]]:
    """Measure a row; one that cannot be measured here has lines without figures."""
    if row.gpu and not torch.cuda.is_available():
        verdicts = row.unmeasured("no GPU here")
        return verdicts, {"verdicts": [asdict(verdict) for verdict in verdicts]}
    try:
        if isinstance(row, Figure):
            verdicts, record = row.run(quick)
            return verdicts, record | {"verdicts": [asdict(verdict) for verdict in verdicts]}
        if threads is not None:
            row = replace(row, threads=threads, clock="process" if threads == 1 and not row.gpu else "wall")
        return measure(row, quick)
    except Absent as absent:
        verdicts = row.unmeasured(str(absent))
        return verdicts, {"verdicts": [asdict(verdict) for verdict in verdicts]}


def main() -> None:
    """Measure the chosen rows, print each line, write the results."""
    rows = all_rows()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", choices=[*rows, []], help="rows to measure; all by default")
    parser.add_argument("--quick", action="store_true", help="CPU rows, fewer turns, nothing is written")
    parser.add_argument("--table", action="store_true", help="only rewrite the table")
    parser.add_argument("--threads", type=int, help="threads of torch in every row that names them")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore", "Inputs to the softmax are not scaled down")  # of nflows and normflows

    missed, began = [], time.monotonic()
    for name, row in rows.items():
        if chosen.table or (chosen.rows and name not in chosen.rows):
            continue
        if chosen.quick and not (row.in_quick if isinstance(row, Figure) else row.quick_pairs):
            continue
        machine = report.machine(row.gpu)
        verdicts, record = run(row, chosen.quick, chosen.threads)
        for verdict in verdicts:
            state = report.WORDS[verdict.met].strip("*") if verdict.value is not None else ""
            print(f"{name:22} {verdict.goal:22} {verdict.measured:24} {state:7} {verdict.note}", flush=True)
            missed += [f"{name} ({verdict.measured}, goal {verdict.goal})"] * (verdict.met is False)
        if not chosen.quick and any(verdict.value is not None for verdict in verdicts):
            report.write("gpu" if row.gpu else "cpu", machine, {name: record})
    if not chosen.quick:
        expected = {name: [asdict(line) for line in row.unmeasured("")] for name, row in rows.items()}
        report.README.write_text(report.table(expected))
    print(f"({time.monotonic() - began:.0f} s)")
    print(f"missed: {'; '.join(missed) or 'none'}")


if __name__ == "__main__":
    main()
