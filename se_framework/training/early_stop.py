"""Early stopping: a score over validation rows says which round's weights are kept, and when no more are played."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from se_framework.equation.equation import StandardEquation
from se_framework.errors import ConfigError
from se_framework.training.game import Game

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
        measure: the score of a run as it stands, least is best; it leaves the state as it is.
        patience: rounds without a better value after which the run ends, at least 1.
    """

    score: str
    measure: Callable[[TrainState], float]
    patience: int


class Stopping:
    """One run under the eyes of an :class:`EarlyStop`.

    Args:
        rule: how.
        state: of the run; its ``best`` is set.

    Raises:
        ConfigError: the state is of several runs.
    """

    def __init__(self, rule: EarlyStop, state: Game) -> None:
        if len(state.living) != 1 or state.living.get(0) is not state:
            raise ConfigError("early stopping is for one run, and members of an ensemble end together: leave it out")
        self.rule, self.state = rule, state.living[0]

    def due(self, rounds: int) -> bool:
        """Whether the score is to be looked at after this round of so many."""
        return self.state.round % max(1, self.rule.patience // LOOKS) == 0 or self.state.round == rounds

    def look(self) -> None:
        """Keep a copy of the state where it is better than all before; a value that is NaN never is."""
        value, state = self.rule.measure(self.state), self.state
        if value < (float("inf") if state.best is None else state.best.value):
            state.best = Best(state.round, value, copy.deepcopy(state.current()))

    @property
    def over(self) -> bool:
        """Whether the best state is too long ago; a function of the state, so a resumed run stops in the same round."""
        return self.state.best is not None and self.state.round - self.state.best.round >= self.rule.patience

    def told(self) -> str:
        """Return in words which state is kept, and why."""
        score, best = self.rule.score, self.state.best
        if best is None:
            return f"early stopping: {score} over validation points was never finite: the last state is kept"
        why = f"no less in {self.rule.patience} rounds" if self.over else f"no less until round {self.state.round}"
        return (
            f"early stopping: {score} over validation points was least in round {best.round} ({best.value:.5g}), "
            f"{why}: the weights of that round are kept"
        )
