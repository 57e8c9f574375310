"""The steps of ``make gpu``, in the order of their value, and how one is played: by child processes with a time limit.

A step that fails, hangs or has no time left says so in its record, and stops none of the later ones.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu import verdicts

ROOT = Path(__file__).parent.parent.parent
TAIL = 2000
"""Characters of output that are kept of a process that failed."""
SEEDS = (0, 1, 2)
SPEED = (
    "gpu_vanilla", "gpu_wgan_gp", "gpu_spline_2", "gpu_spline_64", "gpu_ensemble", "gpu_convolutional",
)  # fmt: skip
# A likelihood and a game, each the shortest of its kind with error bars in benchmarks/quality: about a minute of a CPU
# per seed, six to eight thousand rounds, no feature network to be fitted before it can be judged.
QUALITY = {
    "flow": "experiment=mle_flow model=realnvp loop.warmup=0",
    "ring8_divergences": "experiment=fgan divergence=kl data=ring8 model=mlp_generator metric=mlp_r1 "
    "loop.batch_size=256 loop.rounds=8000 players.theta.lr=1e-3",
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """Processes that run side by side, and what their files say.

    Attributes:
        name: by which it is chosen, and the name of its files.
        what: in words.
        commands: arguments of the interpreter; "{out}" is the file that process writes, a JSON value per line.
        limit: seconds after which they are ended.
        read: from the lines that all of them wrote to the entries of the record, and why the step has not passed.
    """

    name: str
    what: str
    commands: Sequence[Sequence[str]]
    limit: float
    read: Callable[[Sequence[Any]], verdicts.Found]


def steps(dry: bool) -> list[Step]:
    """Return all steps; for a dry run, at their smallest and on the CPU."""
    small = ["--dry-run"] if dry else []
    # What is compiled takes minutes before its first figure, so that row comes last.
    first, last = SPEED[:-1], SPEED[-1]
    rows = {name: Step(
        name, "row of benchmarks/speed", [["-m", "benchmarks.gpu.rows", "speed", name, "{out}", *small]],
        150 if name == last else 80, verdicts.of_speed,
    ) for name in SPEED}  # fmt: skip
    quality = [Step(
        f"quality_{group}", f"se-train {command}",
        [["-m", "benchmarks.gpu.rows", "quality", group, command, str(seed), "{out}", *small] for seed in SEEDS],
        100, verdicts.of_quality(group, command, dry),
    ) for group, command in QUALITY.items()]  # fmt: skip
    return [tests(), *(rows[name] for name in first), *quality, rows[last]]


def tests() -> Step:
    """Return the step of the tests marked ``gpu``, wherever they are; without a GPU they are skipped one by one."""
    files = sorted(f for f in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in f.read_text())
    workers = min(8, max(1, (os.cpu_count() or 1) // 2))
    side_by_side = ["-n", str(workers)] if workers > 1 and importlib.util.find_spec("xdist") else []
    command = ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "-p", "benchmarks.gpu.tally",
               "--tally", "{out}", *side_by_side, *(str(f.relative_to(ROOT)) for f in files)]  # fmt: skip
    return Step("tests", "tests marked gpu", [command], 200, verdicts.of_tests)


def play(
    chosen: Sequence[Step], minutes: float, folder: Path, dry: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Play steps one after another and yield each with its record.

    Args:
        chosen: the steps.
        minutes: for all of them; a step that would begin after that is not run, and its record says so.
        folder: where the processes write.
        dry: hide a GPU from them.
    """
    end = time.monotonic() + 60 * minutes
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    if dry:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    for step in chosen:
        left = end - time.monotonic()
        if left <= 0:
            yield step.name, {"what": step.what, "state": "not run: no time left", "seconds": 0.0}
        else:
            yield step.name, _played(step, min(step.limit, left), folder, environment)


def _played(step: Step, limit: float, folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Play one step within a limit and return its record."""
    began = time.monotonic()
    outs = [folder / f"{step.name}_{i}.jsonl" for i in range(len(step.commands))]
    arguments = [
        [word.replace("{out}", str(out)) for word in words] for words, out in zip(step.commands, outs, strict=True)
    ]
    with ThreadPoolExecutor(max(1, min(len(arguments), os.cpu_count() or 1))) as pool:
        ended = list(pool.map(lambda words: _child(words, began + limit, environment), arguments))
    lines = [line for out in outs for line in _written(out)]
    found, why = step.read(lines)
    wrong = [ending for ending, _ in ended if ending]
    # pytest and a row that differs say more than an exit code; what was ended at its limit says that first.
    state = next((ending for ending in wrong if not lines or "time" in ending), why or (wrong or ["passed"])[0])
    record = {"what": step.what, "state": state, "seconds": round(time.monotonic() - began, 1), **found}
    tails = [tail for ending, tail in ended if ending]
    return record | ({"output": tails[0]} if tails else {})


def _written(out: Path) -> list[Any]:
    """Return the lines of a file; what was cut within a line ends before it."""
    text = out.read_text() if out.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _child(words: Sequence[str], end: float, environment: dict[str, str]) -> tuple[str, str]:
    """Run the interpreter until a time of the clock; return what went wrong, empty if nothing, and its last output."""
    left = end - time.monotonic()
    if left <= 0:
        return "out of time before it began", ""
    # A session of its own, so that its own children end with it.
    child = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             cwd=ROOT, env=environment, start_new_session=True)  # fmt: skip
    try:
        output, _ = child.communicate(timeout=left)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        output = child.communicate()[0]
        return f"out of time after {left:.0f} s", output[-TAIL:]
    return (f"failed (exit code {child.returncode})" if child.returncode else ""), output[-TAIL:]
