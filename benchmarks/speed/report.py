"""What was measured, as one JSON file per device and one table for all of them."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
README = HERE / "README.md"
LIBRARIES = ("torch", "nflows", "zuko", "normflows", "geomloss", "POT")
WORDS = {True: "met", False: "**missed**", None: "open"}
HEAD = """# Speed

Written by `make bench` (`python -m benchmarks.speed`); `make bench-quick` measures the CPU rows briefly and writes
nothing. Time of ours over theirs: median of the ratios of neighbours in time, in brackets its quartiles; all sides take
turns in one process, after a warm-up and after a check that they do the same work (parameters after two rounds on the
same draws, in float64, of convolutions on narrower networks; for flows of other libraries each log-density against a
Jacobian). Ours is the real loop with its defaults: finiteness check in every step, a row of four terms every 100 rounds
(its cost is added pro rata).

The default is one thread, where processor time decides, which other jobs on the machine disturb least; the rows with
two threads or a GPU go by the wall clock. Each JSON has both clocks. A hand-written loop counts only if it is really
faster than the tutorial's, as the row says; else the line stays open. `generic_form.json`: see
`benchmarks/generic_form.py`.
"""


def device_name(gpu: bool) -> str:
    """Return what the rows are measured on."""
    if gpu and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU {platform.machine()}, {os.cpu_count()} cores"


def machine(gpu: bool) -> dict[str, Any]:
    """Return the device, its load, and versions."""
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, cwd=HERE).stdout.strip()
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    found = {"device": device_name(gpu), "load_at_start": load, "python": platform.python_version(), "commit": commit}
    return found | {"versions": versions}


def write(device: str, machine: dict[str, Any], records: dict[str, Any]) -> Path:
    """Add records to the JSON of a device, and write the table anew.

    Args:
        device: ``"cpu"`` or ``"gpu"``.
        machine: what the records were measured on; kept with each of them.
        records: by the name of the row.
    """
    file = HERE / f"{slug(device, machine)}.json"
    known: dict[str, Any] = json.loads(file.read_text())["rows"] if file.exists() else {}
    known |= {name: record | {"machine": machine} for name, record in records.items()}
    file.write_text(json.dumps({"device": machine["device"], "rows": known}, indent=1) + "\n")
    return file


def slug(device: str, machine: dict[str, Any]) -> str:
    """Return the file name of a device."""
    words = re.sub(r"[^a-z0-9]+", "_", machine["device"].lower()).strip("_")
    return words if words.startswith(device) else f"{device}_{words}"


def table(expected: dict[str, list[dict[str, Any]]]) -> str:
    """Return all results as Markdown.

    Args:
        expected: per row its lines without figures, for the rows that no file holds.
    """
    files = [json.loads(file.read_text()) for file in sorted(HERE.glob("[cg]pu_*.json"))]
    lines, seen = [HEAD], set()
    for content in files:
        rows = {name: content["rows"][name] for name in (*expected, *content["rows"]) if name in content["rows"]}
        seen |= {name for name, row in rows.items() if any(line["value"] is not None for line in row["verdicts"])}
        lines += [f"## {content['device']}", "", *_rows(rows), "", *_machines(rows), ""]
    missing = {name: {"verdicts": verdicts} for name, verdicts in expected.items() if name not in seen}
    if missing:
        lines += ["## Not measured", "", *_rows(missing), ""]
    if (HERE / "growth.png").exists():
        lines += ["![cost of a round against batch, width, dimension and rows](growth.png)", ""]
    return "\n".join(lines)


def _rows(rows: dict[str, Any]) -> list[str]:
    lines = ["| row | work | against | goal | measured | | |", "|---|---|---|---|---|---|---|"]
    for name, row in rows.items():
        how = f" ({row['threads']} thread{'s' * (row['threads'] > 1)}, {row['pairs']} pairs)" if "pairs" in row else ""
        for line in row["verdicts"]:
            cells = (f"`{name}`", line["work"] + how, line["against"], line["goal"], line["measured"],
                     WORDS[line["met"]] if line["value"] is not None else "", line["note"])  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def _machines(rows: dict[str, Any]) -> list[str]:
    """Return on what, and under which load, rows were measured."""
    told: dict[str, list[str]] = {}
    for name, row in rows.items():
        found = row["machine"]
        versions = ", ".join(f"{library} {version}" for library, version in found["versions"].items())
        words = f"commit {found['commit']}, load {found['load_at_start']} at the start, {versions}"
        told.setdefault(words, []).append(name)
    return [f"Measured at {words}: {', '.join(f'`{name}`' for name in names)}." for words, names in told.items()]
