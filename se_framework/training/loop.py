"""The loop: batch, step, average, and below one guard everything rare. It reads top to bottom and knows no method."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from models.base import Model
from se_framework.data import Data, as_data
from se_framework.equation.modes import evaluating
from se_framework.equation.units import in_user_units
from se_framework.errors import ConfigError
from se_framework.randomness import Stream
from se_framework.runs.directory import RunDirectory
from se_framework.training.callbacks import Callback, Callbacks
from se_framework.training.draws import draw_batch, like
from se_framework.training.early_stop import EarlyStop, Stopping
from se_framework.training.failure import explained
from se_framework.training.game import Game
from se_framework.training.interrupts import Interrupts
from se_framework.training.monitors import watch
from se_framework.training.pieces import check_pieces
from se_framework.training.progress import Progress
from se_framework.training.state import TrainState
from se_framework.training.step import play_round

Row = dict[str, float | str]
Picture = Callable[[TrainState, Data, Path], None]


def train(
    state: Game,
    data: Any,
    *,
    rounds: int = 1000,
    batch_size: int = 256,
    horizon: int | None = None,
    log_every: int = 100,
    checkpoint_every: int = 0,
    picture_every: int = 0,
    evaluate_every: int = 0,
    evaluate: Callable[[TrainState], Row] | None = None,
    early_stop: EarlyStop | None = None,
    picture: Picture | None = None,
    run: RunDirectory | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Game:
    """Play rounds until ``rounds`` are completed in all, or Ctrl-C: the round is finished and the state is intact.

    Args:
        state: equation, players and counters, of one run or of several; is advanced in place.
        data: p_d: a :class:`Data`, a tensor (N, *E), or a Dataset of tensors.
        rounds: rounds to have been completed at the end, those of earlier calls included.
        batch_size: examples, and model samples, per step.
        horizon: rounds over which learning rates decay; by default ``rounds``.
        log_every: rounds between rows of terms; 0 for none.
        checkpoint_every: rounds between checkpoints; 0 for only the last. Needs ``run``.
        picture_every: rounds between pictures in ``run``'s folder ``frames``, the first before any step; 0 for none.
        evaluate_every: rounds between calls of ``evaluate``; 0 for none.
        evaluate: returns the scores of a run, a row of ``run``'s ``scores.csv``; must leave the state as it is.
        early_stop: keeps the best state of one run, and ends it; None plays all rounds.
        picture: draws a run into a file; None draws nothing.
        run: directory for rows and checkpoints; None keeps rows in ``state.history`` only.
        callbacks: are listeners of every row, row of scores, picture and checkpoint (:class:`se_framework.Callback`).
        progress: show a bar (plain lines where there is no terminal).

    Returns:
        The state.

    Raises:
        NonFiniteError: something in a step was not finite; the last good checkpoint stands, ``run`` holds a dump.
        StepError: a part of the equation could not be evaluated; player and round are named.
        CallbackError: a callback raised; the round is whole, and saved where there is ``run``.
        ConfigError: an argument is out of range, or several runs shall be stopped early.
    """
    early = None if early_stop is None else Stopping(early_stop, state)
    for name, value in (("loop.rounds", rounds), ("loop.batch_size", batch_size)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    check_pieces({player.name: player.pieces for player in state.players}, batch_size)
    data, horizon, started, first = as_data(data), horizon or rounds, time.monotonic(), state.samples
    listeners = Callbacks(callbacks)

    if state.round == 0:
        prepare(state, data, batch_size)
        if run is not None and picture is not None and picture_every > 0:
            draw_pictures(state, data, picture, run, listeners)
        if early is not None:
            early.look()
    over = early is not None and early.over
    device = like(state.equation).device
    devices = [device] if device.type == "cuda" else []
    ahead = data.prefetch(state.samples, batch_size, state.seed, device)
    with (
        Interrupts() as interrupt,
        ahead,
        Progress(rounds, state.round, show=progress) as bar,
        torch.random.fork_rng(devices),
    ):
        stop = interrupt.requested
        while state.round < rounds and stop is None and not over:
            with explained(state, data, horizon, run):
                figures = play_round(state, data, batch_size, horizon)
            bar.advance(batch_size)
            for line in state.tell():
                bar.say(line)

            stop = interrupt.requested  # read once: a signal that comes later ends the next round
            if early is not None and early.due(rounds):
                early.look()
                over = early.over
            last = state.round >= rounds or stop is not None or over
            log_due = log_every > 0 and (state.round % log_every == 0 or state.round == rounds or over)
            evaluate_due = evaluate is not None and evaluate_every > 0 and state.round % evaluate_every == 0
            checkpoint_due = run is not None and (
                last
                or (checkpoint_every > 0 and state.round % checkpoint_every == 0)
                or (evaluate_due and run.keep_best > 0)
            )
            picture_due = picture is not None and picture_every > 0 and state.round % picture_every == 0
            if not (log_due or evaluate_due or checkpoint_due or picture_due or listeners.failed):
                continue

            if log_due:
                seconds = time.monotonic() - started
                clock = {"seconds": seconds, "samples_per_second": (state.samples - first) / seconds}
                rows = {k: {**measure(own, data, batch_size), **figures[k], **clock} for k, own in state.living.items()}
                for k, own in state.living.items():
                    for warning in watch(own, data, rows[k]):
                        bar.say(f"WARNING, {state.name_of(k)}{warning}")
                row = state.keep(rows, run)
                bar.show(row)
                listeners.row(state, row)
            if evaluate_due and evaluate is not None:
                counted: Row = {"round": float(state.round), "samples": float(state.samples)}
                scores = state.keep_scores({k: counted | evaluate(own) for k, own in state.living.items()}, run)
                listeners.scores(state, scores)
            if picture_due and picture is not None and run is not None:
                draw_pictures(state, data, picture, run, listeners)
            if run is not None and (checkpoint_due or listeners.failed):
                state.check_whole()
                listeners.checkpoint(state, run.save_checkpoint(state.state_dict(), state.round))
            listeners.check(state)
        if early is not None and stop is None:
            bar.say(early.told())
        state.stopped_by = stop
    return state


def prepare(state: Game, data: Data, batch_size: int) -> None:
    """Show every model the first batch, before anything moves: some set themselves up by it."""
    state.schedule()
    for own in state.living.values():
        if type(own.equation.model).prepare is not Model.prepare:
            with torch.no_grad():
                own.equation.model.prepare(draw_batch(data, 0, batch_size, own.seed, own.equation))


def draw_pictures(state: Game, data: Data, picture: Picture, run: RunDirectory, listeners: Callbacks) -> None:
    """Draw every run, in a folder of its own where there are several."""
    for k, own in state.living.items():
        file = state.file_of(k, run.frame_file(state.round))
        picture(own, data, file)
        listeners.picture(own, file)


def measure(state: TrainState, data: Data, batch_size: int) -> Row:
    """Return the row of terms after this round, on a fresh draw of the model and the next batch of data."""
    batch = draw_batch(data, state.samples, batch_size, state.seed, state.equation)
    dtype = batch.x.dtype if batch.x.is_floating_point() else None
    stream = Stream(state.seed, state.round, "log", batch.x.device, dtype)
    with torch.no_grad(), evaluating(state.equation):
        draws = state.equation.draws(batch_size, stream, batch.context)
        terms = state.equation.terms(batch, state.equation.particles(draws, batch.context), draws)
    row: Row = {"round": float(state.round), "samples": float(state.samples)}
    row |= {} if state.stage is None else {"stage": float(state.stage)}
    row |= in_user_units(terms, state.equation, data)
    missing = terms.unrepresentable()
    return row | {"note": f"not representable: {' '.join(missing)}" if missing else ""}
