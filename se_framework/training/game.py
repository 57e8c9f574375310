"""What the loop asks of a state, whether it is one run or several that train together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from models.laws import Particles
from se_framework.data import Data
from se_framework.equation.equation import StandardEquation
from se_framework.errors import StepRecord
from se_framework.runs.directory import RunDirectory

if TYPE_CHECKING:
    from se_framework.training.state import TrainState

Row = dict[str, float | str]


class Game(Protocol):
    """One run (:class:`~se_framework.training.state.TrainState`), or the members of an ensemble.

    Attributes:
        round: rounds completed.
        samples: examples of data seen.
        stopped_by: the signal that ended training early, or None.
    """

    round: int
    samples: int
    stopped_by: int | None

    @property
    def seed(self) -> int:
        """The seed, of the first run."""

    @property
    def equation(self) -> StandardEquation:
        """The equation, of the first run."""

    @property
    def players(self) -> Sequence[Any]:
        """Who moves, in order: each with its role, steps, ``set_rate`` and ``update_average``."""

    @property
    def living(self) -> Mapping[int, TrainState]:
        """The runs that go on, by number."""

    def turn(self, data: Data) -> Any:
        """Return what plays and collects the steps of a round."""

    def schedule(self) -> None:
        """Tell the parts how many examples have been seen."""

    def draw(self, data: Data, n: int) -> Particles:
        """Return the next n examples of the data."""

    def finish_round(self) -> None:
        """Count a round."""

    def tell(self) -> list[str]:
        """Return what is new since the last call, for the user."""

    def taken_out(self) -> Mapping[int, tuple[TrainState, StepRecord, Any]]:
        """Return the runs that failed since the last call while others went on: step, and diagnosis."""

    def name_of(self, k: int) -> str:
        """Return what stands before a message about run k."""

    def file_of(self, k: int, path: Path) -> Path:
        """Return where a file of run k lies."""

    def keep(self, rows: dict[int, Row], run: RunDirectory | None) -> Row:
        """Keep the rows of terms, and return the one for the user."""

    def keep_scores(self, rows: dict[int, Row], run: RunDirectory | None) -> Row:
        """Keep the rows of scores, and return the one for the user."""

    def check_whole(self) -> None:
        """Refuse to be saved with what is not finite."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers and strings only."""
