"""One cell: its rounds by calibration, its runs, and what is kept of them as plain data.

**Equal processor time.** A run ends after a number of rounds, by which its learning rates decay: a clock that cut it
would cut the decay. So the seconds of a round are measured first, on a short run of the same cell (processor time, one
thread), and the rounds follow from the budget. What was then spent is in the row, and is not what was wanted to the
second. In an ensemble a member's share is what is spent over the number of members.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.leaderboard.grid import Cell

SEEDS = (0, 1, 2)
WARM, FEWEST, LEAST = 5, 10, 0.05
"""Rounds that are not measured; rounds that are at least; and the part of the budget that they take at least."""
AVERAGED = 0.05
"""Part of a run over which theta is averaged, whatever its rounds: an average of 1,000 rounds fits no run of 1,500."""
QUIET = (
    "device=cpu", "threads=1", "progress=false", "loop.log_every=0", "loop.checkpoint_every=0", "loop.evaluate_every=0",
    "loop.picture_every=0",
)  # fmt: skip
SCORES = (
    "w2", "frechet", "sliced_w2", "mmd", "c2st", "modes", "high_quality", "mode_kl", "density", "coverage",
    "memorised", "nearest_train", "nll",
)  # fmt: skip
OF_SCORE = ("unit", "better", "n", "seed", "references", "bound")


class NotLegalError(Exception):
    """The equation refuses the cell: it is no run that failed."""


def play(cell: Cell, budget: float, folder: Path, seeds: tuple[int, ...] = SEEDS) -> dict[str, Any]:
    """Calibrate and train a cell, and return its row.

    Args:
        cell: what to train.
        budget: processor seconds of training for each seed.
        folder: of the cell's runs; what a killed attempt left in it is thrown away, since processor time of two
            processes is known of none.
        seeds: consecutive.

    Raises:
        NotLegalError: the equation refuses the choices.
    """
    from se_framework.comparison.runs import read_runs

    words = [*cell.words.split(), f"data={cell.data}", *QUIET]
    stacked, per_round, known = calibrate(words, budget, seeds)
    rounds = max(1, round(budget / per_round))
    shutil.rmtree(folder, ignore_errors=True)
    own = [*words, f"loop.rounds={rounds}", f"players.theta.ema={max(0.0, 1 - 1 / (AVERAGED * rounds)):.6f}"]
    whys: dict[Path, str] = {}
    for path, more in attempts(folder, stacked, seeds):
        why = train([*own, *more], path)
        if why is not None:
            whys[path] = why
    made = [path for path, _ in attempts(folder, stacked, seeds) if (path / "config.yaml").is_file()]
    runs = [run_of(outcome, whys) for outcome in (read_runs(made) if made else [])]
    missing = sorted(set(seeds) - {run["seed"] for run in runs})
    why = next(iter(whys.values()), "it left no run")
    runs += [{"seed": seed, "status": "failed", "why": why, "scores": {}} for seed in missing]
    described: dict[str, Any] = {}
    for run in runs:
        described |= run.pop("described", {})
    return {
        "objective": cell.objective, "data": cell.data, "words": cell.words, "parts": list(cell.parts),
        "budget": budget, "stacked": stacked, "rounds": rounds, "seconds_per_round": short(per_round),
        "parameters": known, "runs": runs, "scores": described, "machine": machine(),
    }  # fmt: skip


def attempts(folder: Path, stacked: bool, seeds: tuple[int, ...]) -> list[tuple[Path, list[str]]]:
    """Return the directories of a cell's runs and the words of each: one ensemble, or a run for each seed."""
    if stacked:
        return [(folder / "ensemble", [f"seed={seeds[0]}", f"ensemble.size={len(seeds)}"])]
    return [(folder / f"seed_{seed}", [f"seed={seed}"]) for seed in seeds]


def calibrate(words: list[str], budget: float, seeds: tuple[int, ...]) -> tuple[bool, float, int | None]:
    """Return whether seeds stack, the processor seconds of a round of one seed, and the numbers that it trains.

    Raises:
        NotLegalError: see above.
    """
    from se_framework.errors import ConfigError, IncompatibleError, NonFiniteError

    for many in dict.fromkeys((len(seeds), 1)):
        try:
            return many > 1, *_of_a_round([*words, f"seed={seeds[0]}", f"ensemble.size={many}"], budget, many)
        except NonFiniteError:  # its runs will say so; rounds are counted by a guess
            return many > 1, budget / 1000, None
        except IncompatibleError as error:
            refused = str(error)
        except ConfigError:  # early stopping is for one run
            if many == 1:
                raise
    raise NotLegalError(refused)


def _of_a_round(words: list[str], budget: float, many: int) -> tuple[float, int]:
    """Return the processor seconds of a round of each of so many runs, and the numbers that one trains."""
    import se_framework as se

    assembly = se.compose(None, words)
    first = assembly.members[0] if many > 1 else assembly
    known = sum(p.numel() for player in first.state.players for p in player.parameters)
    assembly.config.loop.horizon = 10**9  # a short run at the first rates
    assembly.config.loop.rounds, rounds = WARM, FEWEST
    _unless_stopped(assembly.train())
    done = spent = 0.0
    while spent < LEAST * budget * many:
        assembly.config.loop.rounds += rounds
        before = time.process_time()
        _unless_stopped(assembly.train())
        spent, done, rounds = spent + time.process_time() - before, done + rounds, 2 * rounds
    return spent / done / many, known


def _unless_stopped(state: Any) -> None:
    """Leave where a signal has stopped a short run: it returns like one that has all its rounds."""
    if state.stopped_by is not None:
        raise SystemExit(128 + state.stopped_by)


def train(words: list[str], path: Path) -> str | None:
    """Train a run into its directory; return why it failed, if it did."""
    from se_framework.commands.train import train_run
    from se_framework.config.composing import compose
    from se_framework.config.schema import validate
    from se_framework.errors import SEError

    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            train_run(validate(compose(None, words)), path, words)
    except SEError as error:
        return " ".join(str(error).split())
    return None


def run_of(outcome: Any, whys: dict[Path, str]) -> dict[str, Any]:
    """Return what is kept of one run that was read."""
    scores = {name: outcome.scores[name] for name in SCORES if name in outcome.scores}
    found = {name: short(entry["value"]) for name, entry in scores.items() if "value" in entry}
    described = {
        name: {key: short(entry[key]) for key in OF_SCORE if key in entry}
        for name, entry in scores.items()
        if "value" in entry
    }
    status = outcome.status
    if status != "finished" and outcome.path in whys:
        status = "failed"
    run = {
        "seed": outcome.seed, "status": status, "why": outcome.why or whys.get(outcome.path),
        "rounds": outcome.rounds, "processor_seconds": short(outcome.seconds), "wall_seconds": short(outcome.wall),
        "scores": found if status == "finished" else {},
    }  # fmt: skip
    return {**run, "described": described}


def short(value: Any) -> Any:
    """Return a value with floats of six digits, as they are kept."""
    if isinstance(value, dict):
        return {key: short(own) for key, own in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    import platform

    import torch

    return {"processor": platform.machine(), "torch": torch.__version__, "python": platform.python_version()}
