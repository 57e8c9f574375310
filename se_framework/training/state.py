"""The state of a run: everything the next round depends on besides the configuration and the data."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.laws import Particles
from se_framework.data import Data
from se_framework.equation.equation import StandardEquation
from se_framework.errors import RunDirectoryError, StepRecord
from se_framework.reading import number, same, shortly
from se_framework.runs.directory import RunDirectory
from se_framework.training import fitting
from se_framework.training.draws import draw_batch
from se_framework.training.early_stop import Best
from se_framework.training.execution import Execution
from se_framework.training.finite import check_whole
from se_framework.training.players import Player, make_players, schedules
from se_framework.training.turn import Turn

FORMAT = 3
Row = dict[str, float | str]


class Mark(NamedTuple):
    """Where a step starts: counters, and copies of the buffers that a step may move."""

    samples: int
    steps_taken: list[int]
    buffers: list[Tensor]


@dataclass
class TrainState:
    """Equation, players and counters.

    Attributes:
        equation: the objects that train.
        players: in the order in which they move.
        seed: all randomness of round t is a function of (seed, t, purpose).
        round: rounds completed; in one round every player makes its steps once.
        samples: examples of data seen, which is where the next batch starts.
        history: the rows logged, oldest first.
        scores: the rows of scores, oldest first.
        stopped_by: the signal that ended training early, or None.
        execution: how player steps are executed.
        stage: number of the run's stage, from 0; None where it has no stages.
        best: the state that early stopping keeps; None where it keeps none.
        played: the equation that player steps evaluate: the same weights, in the precision of the steps.
        buffers: of every part: what steps may move besides weights.
        advances: an auxiliary carries something from step to step.
    """

    equation: StandardEquation
    players: list[Player] = field(default_factory=list)
    seed: int = 0
    round: int = 0
    samples: int = 0
    history: list[Row] = field(default_factory=list)
    scores: list[Row] = field(default_factory=list)
    stopped_by: int | None = None
    execution: Execution = field(default_factory=Execution)
    stage: int | None = None
    best: Best | None = None

    def __post_init__(self) -> None:
        self.players = self.players or make_players(self.equation)
        self.played = self.execution.equation(self.equation)
        saved = self.equation.state_dict(keep_vars=True)
        self.buffers: list[Tensor] = [b for name, b in self.equation.named_buffers() if name in saved]
        self.advances = any(own.auxiliary.advances for _, own in self.equation.equations())
        averages = [player.average for player in self.players if player.average is not None]
        self._schedules = [at for module in (self.equation, *averages) for at in schedules(module)]

    @property
    def note(self) -> str | None:
        """Return what pictures must say of the equation: allowed violations and surrogates; None for nothing."""
        return "; ".join(f"WARNING, {w}" for w in self.equation.warnings) or None

    @property
    def living(self) -> dict[int, TrainState]:
        """The runs that this state is made of, by number: itself."""
        return {0: self}

    def player(self, name: str) -> Player | None:
        """Return the player of that name, or None."""
        return next((p for p in self.players if p.name == name), None)

    def trained(self) -> StandardEquation:
        """Return the equation that the run stands for: that of the best state where one is kept, else the current."""
        return self.current() if self.best is None else self.best.equation

    def current(self) -> StandardEquation:
        """Return the equation of this round, with averaged parts in the place of those that have an average."""
        averages = {key: part for player in self.players for key, part in player.averaged_parts().items()}
        return self.equation.with_parts(lambda part: averages.get(id(part), part))

    # -- a round ----------------------------------------------------------------------------------------------------

    def turn(self, data: Data) -> Turn:
        """Return what plays and collects the steps of a round."""
        return Turn(self)

    def schedule(self) -> None:
        """Tell the parts how many examples have been seen: what follows a schedule is a function of that."""
        for at in self._schedules:
            at(self.samples)

    def draw(self, data: Data, n: int) -> Particles:
        """Return the next n examples of the data."""
        batch = draw_batch(data, self.samples, n, self.seed, self.equation)
        self.samples += n
        return batch

    def finish_round(self) -> None:
        """Count a round."""
        self.round += 1

    def tell(self) -> list[str]:
        """Return what is new in how steps are executed since the last call."""
        return [f"performance: {line}" for line in self.execution.tell()]

    def mark(self) -> Mark:
        """Return where the run stands within a round; it waits for no device."""
        return Mark(self.samples, [p.steps_taken for p in self.players], [b.clone() for b in self.buffers])

    @torch.no_grad()
    def rewind(self, mark: Mark) -> None:
        """Go back to a mark after which no weight has moved.

        An optimiser that had taken no step forgets what it has set up since: torch's SGD leaves momentum uninitialised
        if the first step is skipped.
        """
        self.samples = mark.samples
        for buffer, before in zip(self.buffers, mark.buffers, strict=True):
            buffer.copy_(before)
        for player, taken in zip(self.players, mark.steps_taken, strict=True):
            player.steps_taken = taken
            if taken == 0:
                player.optimizer.state.clear()

    def check_whole(self) -> None:
        """Refuse to be saved with what is not finite.

        Raises:
            NonFiniteError: a weight, buffer, average or moment is not finite.
        """
        check_whole(self.equation, self.players, self.round)

    # -- what is kept --------------------------------------------------------------------------------------------------

    def keep(self, rows: Mapping[int, Row], run: RunDirectory | None) -> Row:
        """Keep a row of terms in the history and, where there is one, the run; return it."""
        self.history.append(rows[0])
        if run is not None:
            run.append_row(rows[0])
        return rows[0]

    def keep_scores(self, rows: Mapping[int, Row], run: RunDirectory | None) -> Row:
        """Keep a row of scores likewise."""
        self.scores.append(rows[0])
        if run is not None:
            run.append_scores(rows[0])
        return rows[0]

    def taken_out(self) -> dict[int, tuple[TrainState, StepRecord, Any]]:
        """Return the runs that have failed since the last call while others went on: none, there is one."""
        return {}

    def name_of(self, k: int) -> str:
        """Return how a message names run k of this state: not at all, there is one."""
        return ""

    def file_of(self, k: int, path: Path) -> Path:
        """Return where a file of run k lies: where it is."""
        return path

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers and strings only, so that it loads with ``weights_only=True``."""
        players = {}
        for player in self.players:
            players[player.name] = {
                "optimizer_type": type(player.optimizer).__name__,
                "optimizer": player.optimizer.state_dict(),
                "average": None if player.average is None else player.average.state_dict(),
                "steps_taken": player.steps_taken,
            }
        content: dict[str, Any] = {
            "format": FORMAT, "seed": self.seed, "round": self.round, "samples": self.samples,
            "equation": tensors_once(self.equation), "players": players,
        }  # fmt: skip
        if self.best is not None:
            equation = tensors_once(self.best.equation)
            content["best"] = {"round": self.best.round, "value": self.best.value, "equation": equation}
        return content

    def load_state_dict(self, saved: dict[str, Any]) -> list[str]:
        """Restore from :meth:`state_dict`; hyperparameters of the optimisers stay those of the configuration.

        Returns:
            The players whose optimiser is of another type than the saved one and starts afresh.

        Raises:
            RunDirectoryError: the checkpoint belongs to another format, seed or set of players, or does not fit.
        """
        names, theirs = sorted(p.name for p in self.players), saved.get("players")
        players = sorted(map(str, theirs)) if isinstance(theirs, dict) else shortly(theirs)
        ours = same(saved.get("format"), FORMAT) and same(saved.get("seed"), self.seed)
        if not ours or players != names:
            told = f"format {shortly(saved.get('format'))}, seed {shortly(saved.get('seed'))}, players {players}"
            here = f"format {FORMAT}, seed {self.seed}, players {names}"
            raise RunDirectoryError(f"the checkpoint ({told}) is not of this run ({here})")
        fitting.check(saved, self)
        afresh = []
        try:
            load_once(self.equation, saved["equation"])
            for player in self.players:
                own = saved["players"][player.name]
                if own["optimizer_type"] == type(player.optimizer).__name__:
                    groups = player.optimizer.state_dict()["param_groups"]
                    player.optimizer.load_state_dict({"state": own["optimizer"]["state"], "param_groups": groups})
                else:
                    afresh.append(player.name)
                if player.average is not None:
                    player.average.load_state_dict(own["average"])
                player.steps_taken = own["steps_taken"]
            self.round, self.samples, self.best = saved["round"], saved["samples"], None
            if (best := saved.get("best")) is not None:
                self.best = Best(best["round"], number(best["value"]), copy.deepcopy(self.current()))
                load_once(self.best.equation, best["equation"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RunDirectoryError(
                f"the checkpoint does not fit the configuration: {' '.join(str(error).split())}"
            ) from error
        self.schedule()
        return afresh


def tensors_once(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers by name, each once: summands share their model."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor.detach() if isinstance(tensor, Tensor) else tensor
    return found


def load_once(module: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Load what :func:`tensors_once` returned.

    Raises:
        ValueError: names are missing, or unknown.
    """
    wanted = tensors_once(module)
    missing, unknown = [n for n in wanted if n not in saved], [n for n in saved if n not in wanted]
    if missing or unknown:
        told = [f"it lacks {', '.join(missing)}"] * bool(missing) + [f"it holds {', '.join(unknown)}"] * bool(unknown)
        raise ValueError("; ".join(told))
    module.load_state_dict(dict(saved), strict=False)
