"""One row of benchmarks/speed, or one seed of a row of benchmarks/quality, in a process of its own.

python -m benchmarks.gpu.rows speed NAME OUT [--dry-run]
python -m benchmarks.gpu.rows quality GROUP COMMAND SEED OUT [--dry-run]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

DRY_ROUNDS, DRY_EXAMPLES = 10, 200


def speed(name: str, dry: bool) -> dict[str, Any]:
    """Measure a row and return its record; dry: at toy size, one turn, on the CPU."""
    from benchmarks.speed import ensembles, gpu
    from benchmarks.speed.contest import Absent, measure

    device = "cpu" if dry else "cuda"
    row = {row.name: row for row in (*gpu.rows(device), *ensembles.rows(device))}[name]
    try:
        return measure(replace(row, pairs=1, warmup=0), size="tiny")[1] if dry else measure(row)[1]
    except Absent as absent:
        return {"verdicts": [asdict(verdict) for verdict in row.unmeasured(str(absent))]}


def quality(group: str, command: str, seed: int, dry: bool) -> dict[str, Any]:
    """Train a command under a seed and return its figures; dry: for a few rounds, on the CPU."""
    from benchmarks.rows import groups, one

    read = {words: read for words, _, read in groups()[group]}[command]
    more = ["device=cpu", f"loop.rounds={DRY_ROUNDS}"] if dry else ["device=cuda"]
    outcome = one(command, read, seed, more, *([DRY_EXAMPLES] if dry else []))
    return {"seed": seed, "figures": outcome.figures, "seconds": round(outcome.seconds, 1)}


def main() -> None:
    """Write the record as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, words in (("speed", ("name",)), ("quality", ("group", "command", "seed"))):
        own = kinds.add_parser(kind)
        for word in words:
            own.add_argument(word, type=int if word == "seed" else str)
        own.add_argument("out", type=Path)
        own.add_argument("--dry-run", action="store_true")
    given = parser.parse_args()
    if given.kind == "speed":
        record = speed(given.name, given.dry_run)
    else:
        record = quality(given.group, given.command, given.seed, given.dry_run)
    given.out.write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
