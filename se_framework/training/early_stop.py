"""Early stopping: a score over validation rows says which round's weights are kept, and when no more are played."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from se_framework.equation.equation import StandardEquation

if TYPE_CHECKING:
    from se_framework.training.state import TrainState

LOOKS = 50
"""How often the score is looked at within the rounds of patience."""


@dataclass(frozen=True)
class Best:
    """The best state so far.

    Attributes:
        round: after which it stood.
        value: of the score, least is best.
        equation: a copy of the trained (averaged) equation.
    """

    round: int
    value: float
    equation: StandardEquation


@dataclass(frozen=True)
class EarlyStop:
    """Keeps the best state of a run, and says when to stop.

    Source: Prechelt, "Early stopping - but when?", in: Neural networks: tricks of the trade (1998), by patience.

    Attributes:
        score: its name.
        measure: the score of a run as it stands, least is best; a function of the state that leaves it as it is.
        patience: rounds without a better value after which the run ends, at least 1.
    """

    score: str
    measure: Callable[[TrainState], float]
    patience: int

    @property
    def every(self) -> int:
        """Rounds between two looks."""
        return max(1, self.patience // LOOKS)

    def look(self, state: TrainState) -> None:
        """Keep a copy of the state where it is better than all before; a value that is NaN never is."""
        value = self.measure(state)
        if value < (float("inf") if state.best is None else state.best.value):
            state.best = Best(state.round, value, copy.deepcopy(state.current()))

    def over(self, state: TrainState) -> bool:
        """Whether the best state is too long ago; a function of the state, so a resumed run stops in the same round."""
        return state.best is not None and state.round - state.best.round >= self.patience

    def told(self, state: TrainState) -> str:
        """Return in words which state is kept, and why."""
        if state.best is None:
            return f"early stopping: {self.score} over validation points was never finite: the last state is kept"
        why = f"no less in {self.patience} rounds" if self.over(state) else f"no less until round {state.round}"
        return (
            f"early stopping: {self.score} over validation points was least in round {state.best.round} "
            f"({state.best.value:.5g}), {why}: the weights of that round are kept"
        )
