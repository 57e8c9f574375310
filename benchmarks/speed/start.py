"""Rows of the start: the import of the package, and the time from the command to the first round.

Both run in processes of their own. Processor time decides: a start is one thread, and on a machine that does other jobs
as well the wall clock measures those. The disk cache is warm: a first start is not counted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.speed.contest import Figure, Verdict
from benchmarks.speed.timer import spread

ROOT = Path(__file__).parent.parent.parent
WORK = {"start": "start to first round, default experiment, CPU, warm disk cache", "import": "import se_framework"}
GOAL = {"start": 6.0, "import": 0.3}
LONGEST = 120.0  # seconds after which a start has failed


def rows() -> list[Figure]:
    """Return the rows of this file."""
    return [
        Figure("start", WORK["start"], "se-train loop.rounds=1", "< 6 s",
               lambda quick: _told("start", first_round, quick)),
        Figure("import", WORK["import"], "python -c 'import se_framework'", "< 0.3 s",
               lambda quick: _told("import", imported, quick)),
    ]  # fmt: skip


def imported() -> tuple[float, float]:
    """Return wall and processor seconds of the import."""
    code = (
        "import time; wall, process = time.perf_counter(), time.process_time(); import se_framework; "
        "print(time.perf_counter() - wall, time.process_time() - process)"
    )
    shown = subprocess.run([sys.executable, "-c", code], env=_environment(), capture_output=True, text=True, check=True)
    wall, process = map(float, shown.stdout.split())
    return wall, process


def first_round() -> tuple[float, float]:
    """Return wall and processor seconds from the command to the row of the first round in ``metrics.csv``."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "se_framework", "loop.rounds=1", "loop.log_every=1", "progress=false",
                   "device=cpu", f"hydra.run.dir={folder}/run"]  # fmt: skip
        table, started = Path(folder) / "run" / "metrics.csv", time.perf_counter()
        with subprocess.Popen(
            command, cwd=folder, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as run:
            while not (table.exists() and table.read_text().count("\n") > 1):
                if run.poll() not in (None, 0) or time.perf_counter() - started > LONGEST:
                    run.kill()
                    raise RuntimeError(f"se-train did not reach its first round: {run.communicate()[1].decode()}")
                time.sleep(0.005)
            wall = time.perf_counter() - started
            process = _processor_seconds(run.pid) or wall
            run.kill()
        return wall, process


def _environment() -> dict[str, str]:
    """Return this process's environment with one thread and this checkout first among the packages."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def _processor_seconds(pid: int) -> float | None:
    """Return the processor time of a process so far, where the system tells it in /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _told(name: str, once: Callable[[], tuple[float, float]], quick: bool) -> tuple[list[Verdict], dict[str, Any]]:
    once()
    walls, processes = zip(*(once() for _ in range(3 if quick else 7)), strict=True)
    wall, process = spread(list(walls)), spread(list(processes))
    against = next(row.against for row in rows() if row.name == name)
    goal = next(row.goal for row in rows() if row.name == name)
    note = f"processor time; by the wall clock {wall} s"
    verdict = Verdict(WORK[name], against, goal, f"{process} s", process.median < GOAL[name], note, process.median)
    record = {"wall_seconds": list(walls), "process_seconds": list(processes), "decides": "process"}
    return [verdict], record
