"""The figures of the README: each row is a command of ``se-train`` under three seeds, its result beside its goal.

    python benchmarks/quality.py                 every group (several hours)
    python benchmarks/quality.py ring8 flow      some of them
    python benchmarks/quality.py --table         only rewrite benchmarks/quality/README.md from the results

Results are one JSON per group; a row that is there with the same command is kept, with the machine it was measured on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rows import PUBLISHED, UNIVARIATE, groups, one, optimum

HERE = Path(__file__).parent / "quality"
SEEDS = (0, 1, 2)
TABLES = (
    "Flows on four real tables beside a Gaussian, a mixture and zuko: [tables.md](tables.md), by "
    "`python benchmarks/tables.py`. Mutual information of correlated Gaussians by four estimates: "
    "[mutual_information.md](mutual_information.md). Samples of q beside those of p: [from_q.md](from_q.md)."
)


def run(command: str, read: Callable[[Any, dict[str, Any]], dict[str, float]]) -> dict[str, Any]:
    """Train a command under every seed and return its row."""
    outcomes = []
    for seed in SEEDS:
        outcomes.append(one(command, read, seed))
        print(f"  seed {seed}: {outcomes[-1].seconds:.0f} s  {outcomes[-1].figures}", flush=True)
    figures = {}
    for name in dict.fromkeys(name for outcome in outcomes for name in outcome.figures):
        values = [outcome.figures.get(name, float(outcome.rounds)) for outcome in outcomes]
        figures[name] = {"mean": statistics.mean(values), "sd": statistics.stdev(values), "values": values}
    seconds, cpu_seconds = [o.seconds for o in outcomes], [o.cpu_seconds for o in outcomes]
    row = {"command": f"se-train {command}", "seeds": list(SEEDS), "figures": figures, "seconds": seconds}
    return row | {"cpu_seconds": cpu_seconds, "machine": machine()}


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    import torch

    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, cwd=HERE.parent).stdout.strip()
    cpu = f"CPU ({platform.machine()}, {os.cpu_count()} cores)"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu
    versions = {"torch": torch.__version__, "python": platform.python_version(), "commit": commit}
    return {"device": device, "threads": torch.get_num_threads(), **versions}


def table() -> str:
    """Return the results as Markdown."""
    lines = [
        "# Quality",
        "",
        "Written by `python benchmarks/quality.py`; mean +- standard deviation over seeds 0, 1, 2.",
        "",
    ]
    for name in groups():
        file = HERE / f"{name}.json"
        if not file.exists():
            continue
        content = json.loads(file.read_text())
        machines = {
            f"{m['device']}, {m['threads']} thread(s), torch {m['torch']}": 0 for m in (r["machine"] for r in content)
        }
        lines += [f"## {name}", "", "; ".join(machines), ""]
        lines += ["| command | goal | measured | CPU seconds |", "|---|---|---|---|"]
        for row in content:
            figures = "; ".join(f"{k} {v['mean']:.4g} +- {v['sd']:.2g}" for k, v in row["figures"].items())
            clock = "cpu_seconds" if "cpu_seconds" in row else "seconds"
            spent = f"{statistics.median(row[clock]):.0f}" + (" (wall, busy machine)" if clock == "seconds" else "")
            lines.append(f"| `{row['command']}` | {row['goal']} | {figures} | {spent} |")
        if name == "univariate":
            lines += [
                "",
                "Published beside it (f-GAN table 1; its JS is twice ours; its v1 is nearer 0.065 than 0.0625):",
                "",
            ]
            lines += ["| divergence | optimum: mean, std, D | published: mean, std, bound |", "|---|---|---|"]
            for d in UNIVARIATE:
                mean, std, least = optimum(d)
                theirs = "{1:.4f}, {2:.4f}, {0:.4f}".format(*PUBLISHED[d]) if d in PUBLISHED else "none"
                lines.append(f"| {d} | {mean:.4f}, {std:.4f}, {least:.4f} | {theirs} |")
        lines.append("")
    return "\n".join([*lines, TABLES, "", "GPU: not measured.", ""])


def main() -> None:
    """Run the chosen groups and write their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", choices=[*groups(), []], help="groups to run; all by default")
    parser.add_argument("--table", action="store_true", help="only rewrite the table")
    arguments = parser.parse_args()
    HERE.mkdir(exist_ok=True)
    for name, rows in groups().items():
        if arguments.table or (arguments.groups and name not in arguments.groups):
            continue
        file = HERE / f"{name}.json"
        done = {row["command"]: row for row in (json.loads(file.read_text()) if file.exists() else [])}
        for command, goal, read in rows:
            print(f"{name}: se-train {command}  (goal: {goal})", flush=True)
            done[f"se-train {command}"] = (done.get(f"se-train {command}") or run(command, read)) | {"goal": goal}
            wanted = [f"se-train {c}" for c, _, _ in rows]
            file.write_text(json.dumps([done[c] for c in wanted if c in done], indent=1) + "\n")
    (HERE / "README.md").write_text(table())


if __name__ == "__main__":
    main()
