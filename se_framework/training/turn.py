"""A round of one run while it is played: its steps, and the figures that wait to be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from models.laws import Particles
from se_framework.errors import StepError, StepRecord
from se_framework.training.draws import data_of, draw_step, step_stream
from se_framework.training.finite import first_failure, in_step, non_finite, numbers_of
from se_framework.training.objective import objective, terms_of
from se_framework.training.pieces import gathered
from se_framework.training.players import Broken, Figures, Player

if TYPE_CHECKING:
    from se_framework.training.state import Mark, TrainState

Row = dict[str, float]
CLOCK = ("seconds", "samples_per_second")
"""Columns of a row that the clock writes: one for all members of an ensemble."""


class Turn:
    """The steps of one round.

    The first step in which something is not finite spoils the rest of the round on the device: no later update is
    applied. When the round is read, the state is put back to what that step saw.

    Args:
        state: is moved by every step.
    """

    def __init__(self, state: TrainState) -> None:
        self._state = state
        self._played: list[tuple[StepRecord, Mark]] = []
        self._figures: list[Figures] = []
        self._broken: Broken = None

    @contextmanager
    def step(self, here: StepRecord) -> Iterator[None]:
        """Play one step within.

        Raises:
            StepError: a part of the equation could not be evaluated; the state is what the step saw.
            NonFiniteError: an earlier step of the round had met what is not finite: that comes first.
        """
        self._mark = self._state.mark()
        try:
            with in_step(here):
                yield
        except StepError:
            self.read()
            self._state.rewind(self._mark)
            raise
        self._played.append((here, self._mark))

    def play(self, player: Player, here: StepRecord, batch: Particles) -> Particles:
        """Play a player's step on a batch, which is returned for the next.

        All that the step depends on besides the weights is drawn first; what q carries from step to step moves; then
        the losses are a function of the draws.
        """
        state, due = self._state, player.due()
        draws = draw_step(
            state.played, due, batch, step_stream(state.seed, here.round, player.name, here.step, batch.x)
        )
        if state.advances:
            data = data_of(draws)
            state.played.advance(data, state.played.particles(draws, data.context), player.role, draws)
        losses = partial(objective, state.played, player, due)
        if state.execution.plain:
            figures, self._broken = player.step(gathered(player, losses, draws), self._broken)
        else:
            buffers = state.buffers
            figures, self._broken = state.execution.play(player, due, losses, draws, self._broken, buffers)
        self._figures.append(figures)
        return batch

    def read(self) -> dict[int, Row]:
        """Return the figures of the round: the scalar, penalty and gradient norm that each player saw last.

        Raises:
            NonFiniteError: the first that is not finite; the state is put back to what its step saw.
        """
        names = terms_of(self._state.equation)
        found: Row = {}
        for (here, mark), row in zip(self._played, numbers_of(self._figures), strict=True):
            failure = first_failure(here, names, row)
            if failure is not None:
                self._state.rewind(mark)
                raise non_finite(failure)
            found |= row_of(here.player, row, self._state)
        return {0: found}


def row_of(name: str, figures: list[float], state: TrainState) -> Row:
    """Return a step's figures under the names of the record."""
    minimum, f_data, penalty, gradient = figures
    player = state.player(name)
    row = {f"{name}_objective": minimum + f_data, f"{name}_gradient": gradient}
    penalised = [p for p in state.players if p.penalised] or [p for p in state.players if p.role.moves_f_data]
    return row | ({"penalty": penalty} if any(player is p for p in penalised) else {})  # D, which moves later, has none
