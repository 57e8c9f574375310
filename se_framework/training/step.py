"""One round of the game: every player makes its steps once, all on the same scalar."""

from __future__ import annotations

from models.laws import Particles
from se_framework.data import Data
from se_framework.errors import StepRecord
from se_framework.training.game import Game


def play_round(state: Game, data: Data, batch_size: int, horizon: int) -> dict[int, dict[str, float]]:
    """Play one round and return its figures.

    Args:
        state: one run, or several that train together; is advanced by one round.
        data: p_d.
        batch_size: examples and model samples per step (global).
        horizon: rounds over which learning rates decay.

    Returns:
        For each run by its number, per player the scalar it saw last, its penalty and the norm of its gradient.

    Raises:
        NonFiniteError: a term, penalty or gradient was not finite; its update was not applied.
        StepError: a part of the equation could not be evaluated.
        DataError: the data cannot give a batch.
    """
    turn = state.turn(data)
    batch: Particles | None = None
    state.schedule()
    for player in state.players:
        player.set_rate(state.round, horizon)
        for k in range(player.steps):
            fresh = batch is None or player.role.fresh  # else it plays on the batch of the step before
            start = state.samples if fresh else state.samples - batch_size
            here = StepRecord(player.name, state.round, k, start, batch_size)
            with turn.step(here):
                if fresh:
                    batch = state.draw(data, batch_size)
                batch = turn.play(player, here, batch)
    figures = turn.read()  # one read of the device per round, after all of its work has been queued
    for player in state.players:
        player.update_average()
    state.finish_round()
    return figures
