"""Where a GPU is: its tests, its rows of benchmarks/speed and two rows of benchmarks/quality, in eight minutes.

python -m benchmarks.gpu                          every step, results to benchmarks/gpu under the device's name
python -m benchmarks.gpu --only tests gpu_vanilla  some of them; the others stay as they are in the files
python -m benchmarks.gpu --dry-run                every step at its smallest on the CPU, results to a temporary folder
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu import report
from benchmarks.gpu.steps import play, steps

HERE = Path(__file__).parent


def main(words: Sequence[str] | None = None) -> int:
    """Play the chosen steps, print a line for each, write the results; return 0 if all have passed."""
    names = [step.name for step in steps(dry=True)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="play every step at its smallest, on the CPU")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="STEP", help=", ".join(names))
    parser.add_argument("--minutes", type=float, default=8.0, help="for all steps together (default: %(default)s)")
    parser.add_argument("--to", type=Path, help="the folder of the results")
    given = parser.parse_args(words)
    if not given.dry_run and not torch.cuda.is_available():
        print(f"torch {torch.__version__} sees no GPU here: run it where one is, or add --dry-run", file=sys.stderr)
        return 2
    own, began = report.machine(given.dry_run), time.monotonic()
    print(f"{own['device']}, torch {own['torch']}, CUDA {own['cuda']}, driver {own['driver']}", flush=True)
    chosen = [step for step in steps(given.dry_run) if step.name in given.only]
    to = given.to or (Path(tempfile.mkdtemp(prefix="dry_run_")) if given.dry_run else HERE)
    left = []
    with tempfile.TemporaryDirectory() as folder:
        for name, record in play(chosen, given.minutes, Path(folder), given.dry_run):
            print(f"{name:26} {record['seconds']:6.1f} s  {record['state']}", flush=True)
            file = report.write(to, own, name, record, given.dry_run)  # at once: the machine may be taken away
            left += [f"{name} ({record['state']})"] * (record["state"] != "passed")
    print(f"({time.monotonic() - began:.0f} s; {file} and {file.with_suffix('.md').name})")
    print(f"not passed: {'; '.join(left) or 'none'}")
    return int(bool(left))


if __name__ == "__main__":
    raise SystemExit(main())
