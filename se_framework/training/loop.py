"""The loop: batch, step, average, and below one guard everything rare. It reads top to bottom and knows no method."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import singledispatch
from typing import Any

import torch

from se_framework.data import Data, as_data
from se_framework.equation.units import in_user_units
from se_framework.errors import ConfigError
from se_framework.pictures.frames import frame
from se_framework.randomness import generator
from se_framework.runs.directory import RunDirectory
from se_framework.training.failure import check_whole, explained
from se_framework.training.interrupts import Interrupts
from se_framework.training.monitors import watch
from se_framework.training.progress import Progress
from se_framework.training.state import TrainState
from se_framework.training.step import draw, play_round


def train(
    state: TrainState,
    data: Any,
    *,
    rounds: int = 1000,
    batch_size: int = 256,
    horizon: int | None = None,
    log_every: int = 100,
    checkpoint_every: int = 0,
    picture_every: int = 0,
    evaluate_every: int = 0,
    evaluate: Callable[[], dict[str, float | str]] | None = None,
    run: RunDirectory | None = None,
    progress: bool = True,
) -> TrainState:
    """Play rounds until ``rounds`` are completed in all, or Ctrl-C: the round is finished and the state is intact.

    Args:
        state: equation, players and counters; is advanced in place.
        data: p_d: a :class:`Data`, a tensor (N, *E), or a Dataset of tensors.
        rounds: rounds to have been completed at the end, those of earlier calls included.
        batch_size: examples, and model samples, per step.
        horizon: rounds over which learning rates decay; by default ``rounds``.
        log_every: rounds between rows of terms; 0 for none.
        checkpoint_every: rounds between checkpoints; 0 for only the last. Needs ``run``.
        picture_every: rounds between pictures in ``run``'s folder ``frames``, the first before any step; 0 for none.
        evaluate_every: rounds between calls of ``evaluate``; 0 for none.
        evaluate: returns the scores of the state, a row of ``run``'s ``scores.csv``; must leave the state as it is.
        run: directory for rows and checkpoints; None keeps rows in ``state.history`` only.
        progress: show a bar (plain lines where there is no terminal).

    Returns:
        The state.

    Raises:
        NonFiniteError: something in a step was not finite; the last good checkpoint stands, ``run`` holds a dump.
        StepError: a part of the equation could not be evaluated; player and round are named.
        ConfigError: an argument is out of range.
    """
    for name, value in (("loop.rounds", rounds), ("loop.batch_size", batch_size)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    data, horizon, started, first = as_data(data), horizon or rounds, time.monotonic(), state.round

    if run is not None and picture_every > 0 and state.round == 0:
        frame(state, data, run.frame_file(0))
    device = next(state.equation.model.parameters()).device
    devices = [device] if device.type == "cuda" else []
    ahead = data.prefetch(batch_size, state.seed, state.batches, device)
    with (
        Interrupts() as interrupt,
        ahead,
        Progress(rounds, state.round, show=progress) as bar,
        torch.random.fork_rng(devices),
    ):
        stop = interrupt.requested
        while state.round < rounds and stop is None:
            with explained(state, data, horizon, run):
                figures = play_round(state, data, batch_size, horizon)
            bar.advance(batch_size)
            for line in state.performance.tell():
                bar.say(f"performance: {line}")

            stop = interrupt.requested  # read once: a signal that comes later ends the next round
            last = state.round >= rounds or stop is not None
            log_due = log_every > 0 and (state.round % log_every == 0 or state.round == rounds)
            evaluate_due = evaluate is not None and evaluate_every > 0 and state.round % evaluate_every == 0
            checkpoint_due = run is not None and (
                last
                or (checkpoint_every > 0 and state.round % checkpoint_every == 0)
                or (evaluate_due and run.keep_best > 0)
            )
            picture_due = run is not None and picture_every > 0 and state.round % picture_every == 0
            if not (log_due or evaluate_due or checkpoint_due or picture_due):
                continue

            if log_due:
                row = measure(state, data, batch_size) | figures
                seconds = time.monotonic() - started
                row |= {"seconds": seconds, "samples_per_second": (state.round - first) * batch_size / seconds}
                for warning in watch(state, data, row):
                    bar.say(f"WARNING, {warning}")
                keep(state, row, run)
                bar.show(row)
            if evaluate_due and evaluate is not None:
                found: dict[str, float | str] = {"round": float(state.round), "samples": float(state.samples)}
                found |= evaluate()
                keep_scores(state, found, run)
            if picture_due and run is not None:
                frame(state, data, run.frame_file(state.round))
            if checkpoint_due and run is not None:
                check_whole(state)
                run.save_checkpoint(state.state_dict(), state.round)
        state.stopped_by = stop
    return state


@singledispatch
def keep(state: TrainState, row: dict[str, float | str], run: RunDirectory | None) -> None:
    """Keep a row in the history and, where there is one, the run."""
    state.history.append(row)
    if run is not None:
        run.append_row(row)


@singledispatch
def keep_scores(state: TrainState, row: dict[str, float | str], run: RunDirectory | None) -> None:
    """Keep a row of scores likewise."""
    state.scores.append(row)
    if run is not None:
        run.append_scores(row)


@singledispatch
def measure(state: TrainState, data: Data, batch_size: int) -> dict[str, float | str]:
    """Return the row of terms after this round, on a fresh draw of the model and the next batch of data."""
    like = next(state.equation.model.parameters())
    batch = draw(data, batch_size, state.seed, state.batches, like)
    with torch.no_grad():
        draws = generator(state.seed, state.round, "log/noise", like.device)
        p = state.equation.sample(batch_size, draws, batch.context)
    terms = state.equation.terms(batch, p)
    row: dict[str, float | str] = {"round": float(state.round), "samples": float(state.samples)}
    row |= in_user_units(terms, state.equation, data)
    missing = terms.unrepresentable()
    return row | {"note": f"not representable: {' '.join(missing)}" if missing else ""}
