"""What ``se-train`` does with a validated configuration: describe, start, resume, finish."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from se_framework.assembly import Assembly, assembly_of
from se_framework.describe import describe
from se_framework.errors import ConfigError, RunDirectoryError, nearest
from se_framework.evaluation import SCORES, chosen_score, evaluate, log_density, score_lines
from se_framework.frames import animate
from se_framework.notebook import restore, saved_config
from se_framework.plots import curves, picture
from se_framework.run_directory import RunDirectory
from se_framework.trust import Trust, packages

MAY_CHANGE = (
    "resume",
    "loop.rounds",
    "loop.log_every",
    "loop.checkpoint_every",
    "loop.picture_every",
    "device",
    "threads",
    "progress",
    "score",
    "dry_run",
    "trust",
)
"""Keys a resumed run may change. All but device and threads leave the trajectory as it was; those change rounding,
and a GPU draws other noise than a CPU."""


def train_run(config: DictConfig, directory: Path, overrides: Sequence[str]) -> float | None:
    """Train one configuration in a directory and return its score; None for a dry run.

    Args:
        config: validated.
        directory: where the run is, or shall be, written.
        overrides: the task's overrides as typed, to tell what a resumed run is asked to change.

    Raises:
        SEError: whatever was wrong, in one sentence.
        SystemExit: a signal stopped the run; the code is 128 plus its number.
    """
    resumed = config.resume is not None
    granted = packages(config.trust)
    trust = Trust(granted) if resumed else None
    run = RunDirectory(Path(config.resume).absolute() if resumed else directory)
    if config.score is not None and config.score not in SCORES:
        raise ConfigError(f"score={config.score}: no such score; {nearest(config.score, SCORES)}")
    if resumed:
        config = resumed_config(config, run, overrides)
    elif run.is_run:
        raise RunDirectoryError(
            f"{directory} holds a run already: go on with resume={directory}, or choose another hydra.run.dir"
        )
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    assembly = assembly_of(config, trust=trust)
    if config.dry_run:
        print(describe(assembly))
        return None

    if resumed:
        print(f"se-train: {restore(assembly, run)}", file=sys.stderr)
        if config.loop.rounds > config.loop.horizon and any(p.decay != "constant" for p in assembly.state.players):
            end = f"learning rates end at zero in round {config.loop.horizon} (loop.horizon, fixed at the first start)"
            print(f"se-train: WARNING: {end}: later rounds change nothing", file=sys.stderr)
        run.truncate_rows(assembly.state.round)
        run.write_config(OmegaConf.to_yaml(OmegaConf.merge(config, {"resume": None, "trust": []})))
    else:
        config = assembly.config = settle(config)
        run.start(OmegaConf.to_yaml(config, resolve=True), assembly.device)
    for warning in assembly.state.equation.warnings:
        print(f"se-train: WARNING, allowed: {warning}", file=sys.stderr)

    state = assembly.train(run)
    if state.stopped_by is not None:
        done = f"stopped after round {state.round} of {config.loop.rounds}"
        print(f"se-train: {done}; go on with: se-train {shlex.quote(f'resume={run.path}')}", file=sys.stderr)
        raise SystemExit(128 + state.stopped_by)
    return finish(assembly, run)


def settle(config: DictConfig, horizon: int | None = None) -> DictConfig:
    """Return the configuration as a run keeps it: a fixed horizon, and a path that is found from anywhere.

    Args:
        config: as composed.
        horizon: what an unset ``loop.horizon`` means; by default ``loop.rounds``, as at a first start.
    """
    config = config.copy()
    config.trust = []
    config.loop.horizon = config.loop.horizon or horizon or config.loop.rounds
    if isinstance(config.data, DictConfig) and isinstance(config.data.get("path"), str):
        config.data.path = str(Path(config.data.path).expanduser().absolute())
    return config


def resumed_config(config: DictConfig, run: RunDirectory, overrides: Sequence[str]) -> DictConfig:
    """Return the run's own configuration with the changes that are allowed.

    Raises:
        ConfigError: an override would change the trajectory.
    """
    saved = saved_config(run)
    config = settle(config, saved.loop.horizon)
    keys = {text.lstrip("+~").partition("=")[0].split("@")[0] for text in overrides}
    keys |= set(map(str, config)) if "experiment" in keys else set()
    drift = []
    for key in sorted(keys - {"experiment"}):
        old, new = OmegaConf.select(saved, key), OmegaConf.select(config, key)
        if old == new:
            continue
        if key in MAY_CHANGE:
            OmegaConf.update(saved, key, new)
        elif not isinstance(new, DictConfig):
            drift.append(f"{key}: {old} -> {new}")
        else:
            drift += [
                f"{key}.{k!s}: {_at(old, k)} -> {_at(new, k)}"
                for k in new
                if _at(old, k) != _at(new, k) and f"{key}.{k!s}" not in MAY_CHANGE
            ]
    if drift:
        raise ConfigError(
            f"resume={run.path} would change the run ({'; '.join(drift)}): leave these out, or start a new run"
        )
    saved.resume, saved.dry_run = config.resume, config.dry_run
    return saved


def _at(node: Any, key: Any) -> Any:
    return node.get(key) if isinstance(node, DictConfig) else None


def finish(assembly: Assembly, run: RunDirectory) -> float:
    """Evaluate, draw, summarise and say where everything lies."""
    found = evaluate(assembly)
    note = assembly.state.note
    draw(assembly, run.path / "samples.png", note=note)
    if run.frames.is_dir():
        animate(run.frames, run.path / "frames.gif")
    if run.metrics_file.exists():
        curves(run.metrics_file, run.path / "curves.png", note=note)
    last = assembly.state.history[-1] if assembly.state.history else {}
    run.write_json("summary.json", {
        "round": assembly.state.round, "samples": assembly.state.samples, "last_row": last, "scores": found,
    })  # fmt: skip
    for line in score_lines(found):
        print(line)
    print(f"se-train: all in {run.path} (samples.png, curves.png, metrics.csv, summary.json); "
          f"sample with: se-sample {shlex.quote(str(run.path))} n=64 out=samples.npy")  # fmt: skip
    return chosen_score(found, assembly.config.score)


def draw(assembly: Assembly, path: Path, samples: Any = None, note: str | None = None) -> None:
    """Draw samples beside data."""
    samples = assembly.sample(1000) if samples is None else samples
    known = assembly.state.equation.model.has_log_prob and not assembly.data.classes
    density = partial(log_density, assembly) if known else None
    picture(assembly.data, samples, path, model_log_prob=density, note=note)
