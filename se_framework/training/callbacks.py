"""Callbacks: what a run tells of as it makes it. Trackers (:mod:`se_framework.config.trackers`) plug in here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from se_framework.errors import CallbackError
from se_framework.training.game import Game


class Callback:
    """Base of callbacks: each method is called right after the run has made what it names; the default does nothing.

    A callback must leave the state as it is. It may raise: the run is saved first, then ends with its name.
    """

    def on_row(self, state: Game, row: dict[str, float | str]) -> None:
        """Be told a row of ``metrics.csv``; its keys are the columns.

        Args:
            state: of the run.
            row: ``round``, ``samples``, the terms of the equation, and figures of every player.
        """

    def on_scores(self, state: Game, row: dict[str, float | str]) -> None:
        """Be told a row of ``scores.csv``, likewise."""

    def on_picture(self, state: Game, file: Path) -> None:
        """Be told the file of a picture that was drawn."""

    def on_checkpoint(self, state: Game, file: Path) -> None:
        """Be told the file of a checkpoint that was written."""


class Callbacks:
    """Tells all callbacks, and keeps the first failure until the round is whole.

    Args:
        callbacks: in the order in which they are told.
    """

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        self._callbacks = tuple(callbacks)
        self._failed: tuple[str, Exception] | None = None

    @property
    def failed(self) -> bool:
        """Whether one of them raised."""
        return self._failed is not None

    def row(self, state: Game, row: dict[str, float | str]) -> None:
        """Tell of a row."""
        self._tell("on_row", lambda callback: callback.on_row(state, row))

    def scores(self, state: Game, row: dict[str, float | str]) -> None:
        """Tell of a row of scores."""
        self._tell("on_scores", lambda callback: callback.on_scores(state, row))

    def picture(self, state: Game, file: Path) -> None:
        """Tell of a picture."""
        self._tell("on_picture", lambda callback: callback.on_picture(state, file))

    def checkpoint(self, state: Game, file: Path) -> None:
        """Tell of a checkpoint."""
        self._tell("on_checkpoint", lambda callback: callback.on_checkpoint(state, file))

    def _tell(self, moment: str, call: Callable[[Callback], None]) -> None:
        for callback in self._callbacks if self._failed is None else ():
            try:
                call(callback)
            except Exception as error:  # noqa: BLE001  users' code may raise anything
                self._failed = (f"{type(callback).__name__}.{moment}", error)
                return

    def check(self, state: Game) -> None:
        """Raise what a callback raised.

        Raises:
            CallbackError: the message names the callback, the round and what was raised.
        """
        if self._failed is not None:
            name, error = self._failed
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise CallbackError(
                f"callback {name} raised in round {state.round} ({why}): the run is whole; mend or remove the callback "
                "and go on with it"
            ) from error
