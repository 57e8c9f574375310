"""What ``se-train`` does with a validated configuration: describe, start, resume, finish."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig

from se_framework.api import rounds_of
from se_framework.assembly import Assembly, EnsembleAssembly, assembly_of
from se_framework.commands.citing import cited
from se_framework.commands.costs import Costs
from se_framework.commands.going_on import command_to_go_on, command_to_sample, go_on
from se_framework.config.resuming import newest_run, resumed_config, same_course
from se_framework.config.saved import saved_config
from se_framework.config.trust import Trust, packages, strings
from se_framework.data import columns
from se_framework.describe import describe
from se_framework.errors import printable
from se_framework.evaluation.evaluate import (
    VALIDATION,
    attempt,
    chosen_name,
    evaluate,
    evaluate_members,
    judging,
    refuse_absent,
    refuse_unknown,
    score_lines,
    warnings_of,
)
from se_framework.evaluation.validation import refuse_unvalidated, validated
from se_framework.pictures.frames import animate
from se_framework.pictures.plots import curves
from se_framework.reading import count, mapping, number, take
from se_framework.runs.directory import RunDirectory
from se_framework.runs.lock import locked
from se_framework.runs.telling import say
from se_framework.training.interrupts import Stopped
from se_framework.training.monitors import warnings_in


@dataclass(frozen=True)
class Outcome:
    """What became of a call.

    Attributes:
        status: skipped: the run was finished before.
        score: the chosen score; None for a dry run.
        directory: of the run.
    """

    status: Literal["finished", "skipped", "dry run"]
    score: float | None
    directory: Path


def train_run(config: DictConfig, directory: Path, overrides: Sequence[str], job: int | None = None) -> Outcome:
    """Train one configuration in a directory.

    Args:
        config: validated.
        directory: where a new run shall be written.
        overrides: the task's overrides as typed, to tell what a resumed run is asked to change.
        job: number of the job in a sweep: jobs go round the GPUs, and one whose directory holds its own run goes on.

    Raises:
        SEError: whatever was wrong, in one sentence.
        SystemExit: a signal stopped the run; the code is 128 plus its number.
    """
    refuse_unknown(judging(config.score))
    if job is not None and config.device == "auto" and torch.cuda.device_count() > 1:
        config.device = f"cuda:{job % torch.cuda.device_count()}"
    run, resumed = which_run(config, directory, in_sweep=job is not None)
    trust = Trust(packages(config.trust), strings(config))
    if resumed:
        config = resumed_config(config, run, overrides)
        done = finished_score(run, config) if config.resume == "auto" or job is not None else None
        if done is not None and not (config.dry_run or config.cite):
            say(f"{run.path} is a finished run of this configuration: skipped")
            return Outcome("skipped", done, run.path)
    run.keep_last, run.keep_best = config.loop.keep_last, config.loop.keep_best
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    be_deterministic(config.deterministic)
    rounds = rounds_of(config, run) if resumed else 0
    assembly = assembly_of(config, trust=trust if resumed else None, own=run.path, rounds=rounds)
    refuse_absent(assembly, judging(config.score))
    refuse_unvalidated(assembly.config)
    if config.dry_run or config.cite:
        told = [describe(assembly)] * config.dry_run + [cited(assembly)] * config.cite
        print(printable("\n\n".join(told), longest=None))
        return Outcome("dry run", None, run.path)

    assembly.listeners()
    if not resumed:
        run.make()
    with locked(run.path), ExitStack() as followed:
        if resumed:
            go_on(assembly, run, config)
        else:
            assembly.start(run)
            config = assembly.config
        for warning in assembly.state.equation.warnings:
            say(f"WARNING, {warning}")
        discrete = columns.told(assembly.data) if assembly.state.equation.model.has_log_prob else None
        if discrete is not None:
            say(f"WARNING, {discrete}")
        say(f"player steps: {assembly.state.execution.describe()}")
        followed.enter_context(assembly.follower.through(assembly, run))
        costs = Costs(assembly)
        state = assembly.train(run)
        spent = costs.spent(assembly)
        how = f"go on with: {command_to_go_on(run, assembly, overrides)}"
        if state.stopped_by is not None:
            say(f"stopped after round {state.round} of {config.loop.rounds}; {how}")
            raise SystemExit(128 + state.stopped_by)
        try:
            return Outcome("finished", finish(assembly, run, spent), run.path)
        except KeyboardInterrupt as error:
            stopped = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
            say(f"{stopped} after the last round, before all scores and pictures were written; {how}")
            stopped.said = True
            raise stopped from None


def be_deterministic(wanted: bool) -> None:
    """Choose torch's deterministic algorithms, or the quickest ones. On CPU ours are deterministic either way."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA reads it when it starts
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.benchmark = False


def which_run(config: DictConfig, directory: Path, in_sweep: bool) -> tuple[RunDirectory, bool]:
    """Return the run that is meant and whether it goes on.

    Raises:
        RunDirectoryError: the directory holds another run.
    """
    if config.resume not in (None, "auto"):
        return RunDirectory(Path(config.resume).absolute()), True
    if config.resume == "auto":
        found = newest_run(config, directory, in_sweep)
        if found is not None:
            return found, True
        say(f"resume=auto: no run of this configuration yet: starting in {directory}")
    run = RunDirectory(directory)
    if run.is_run and in_sweep and same_course(saved_config(run), config):
        return run, True
    return run.must_be_free(), False


def finished_score(run: RunDirectory, config: DictConfig) -> float | None:
    """Return the score of a run that has all its rounds and its summary, else None."""
    try:
        summary = run.read_json("summary.json")
        scores = take(summary, "scores", kind=mapping)
        if take(summary, "round", kind=count) < config.loop.rounds and summary.get("stopped_early") is not True:
            return None
        return take(scores, chosen_name(scores, config.score), "value", kind=number)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def finish(assembly: Assembly, run: RunDirectory, spent: dict[str, Any]) -> float:
    """Evaluate, draw, summarise (with what training cost) and say where everything lies."""
    if isinstance(assembly, EnsembleAssembly):
        return finish_ensemble(assembly, run, spent)
    found, chosen_by = evaluate(assembly), validated(assembly)
    found |= {} if chosen_by is None else {VALIDATION: chosen_by}
    note = assembly.state.note
    _, why = attempt(lambda: assembly.plot(run.path / "samples.png", note=note))
    if why:
        say(f"samples.png is not drawn: {why}")
    if run.frames.is_dir():
        animate(run.frames, run.path / "frames.gif")
    if run.metrics_file.exists():
        curves(run.metrics_file, run.path / "curves.png", note=note)
    assembly.follower.at_the_end(assembly.state, found)
    best, last = assembly.state.best, assembly.state.history[-1] if assembly.state.history else {}
    summary: dict[str, Any] = {
        "round": assembly.state.round, "samples": assembly.state.samples, "last_row": last, **spent, "scores": found,
        "warnings": [*warnings_in(assembly.state.history), *warnings_of(found)],
    }  # fmt: skip
    if best is not None:
        early = assembly.state.round < assembly.config.loop.rounds
        summary |= {"kept_round": best.round, "stopped_early": early}
    run.write_json("summary.json", summary)
    for line in score_lines(found):
        print(line)
    for warning in warnings_of(found):
        say(f"WARNING, {warning}")
    print(f"se-train: all in {run.path} (samples.png, curves.png, metrics.csv, summary.json); "
          f"sample with: {command_to_sample(run, assembly, 'n=64 out=samples.npy')}")  # fmt: skip
    return float(found[chosen_name(found, assembly.config.score)]["value"])


def finish_ensemble(assembly: EnsembleAssembly, run: RunDirectory, spent: dict[str, Any]) -> float:
    """Evaluate and draw every member, summarise all."""
    found, state = evaluate_members(assembly), assembly.ensemble
    note = state.note
    (run.path / "samples").mkdir(exist_ok=True)
    for k in state.living:
        name = f"member_{k}.png"
        _, why = attempt(partial(assembly.members[k].plot, run.path / "samples" / name, note=note))
        if why:
            say(f"samples/{name} is not drawn: {why}")
        if (run.frames / f"member_{k}").is_dir():
            animate(run.frames / f"member_{k}", run.frames / f"member_{k}.gif")
    if run.metrics_file.exists():
        curves(run.metrics_file, run.path / "curves.png", note=note)
    assembly.follower.at_the_end(state, found)
    last = state.history[-1] if state.history else {}
    run.write_json("summary.json", {
        "round": state.round, "samples": state.samples, "members": len(state.members), "last_row": last,
        **spent, "scores": found, "warnings": warnings_in(state.history), "frozen": state.frozen,
    })  # fmt: skip
    for line in score_lines(found):
        print(line)
    for sentence in state.frozen.values():
        say(f"WARNING, {sentence}")
    print(f"se-train: all in {run.path} (members.csv, metrics.csv with means and sd, summary.json, samples/); "
          f"sample with: {command_to_sample(run, assembly, 'member=0 n=64 out=samples.npy')}")  # fmt: skip
    return float(found[chosen_name(found, assembly.config.score)]["value"])
