"""The state of a run: everything the next round depends on besides the configuration and the data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import ModuleDict

from se_framework.equation.equation import StandardEquation
from se_framework.equation.metric import Metric
from se_framework.errors import RunDirectoryError
from se_framework.training.execution import Performance
from se_framework.training.players import Player, make_players

FORMAT = 2


class Mark(NamedTuple):
    """Where a step starts: counters, and copies of the buffers that forward passes may move."""

    batches: int
    samples: int
    steps_taken: list[int]
    buffers: list[list[Tensor]]


@dataclass
class TrainState:
    """Equation, players and counters.

    Attributes:
        equation: the objects that train.
        players: in the order in which they move.
        seed: all randomness of round t is a function of (seed, t, purpose).
        round: rounds completed; in one round every player makes its steps once.
        batches: batches of data drawn.
        samples: examples of data seen.
        history: the rows logged, oldest first.
        scores: the rows of scores, oldest first.
        stopped_by: the signal that ended training early, or None.
        performance: how player steps are executed.
        played: the equation that player steps evaluate: the same weights, in the precision of the steps.
        metrics_played: its metrics by those of the equation.
    """

    equation: StandardEquation
    players: list[Player] = field(default_factory=list)
    seed: int = 0
    round: int = 0
    batches: int = 0
    samples: int = 0
    history: list[dict[str, float | str]] = field(default_factory=list)
    scores: list[dict[str, float | str]] = field(default_factory=list)
    stopped_by: int | None = None
    performance: Performance = field(default_factory=Performance)

    def __post_init__(self) -> None:
        self.players = self.players or make_players(self.equation)
        self.played = self.performance.equation(self.equation)
        own, played = self.equation.metrics(), self.played.metrics()
        self.metrics_played: dict[Metric, Metric] = {own[name]: played[name] for name in own}

    @property
    def note(self) -> str | None:
        """Return what pictures must say of the equation: allowed violations and surrogates; None for nothing."""
        return "; ".join(f"WARNING, {w}" for w in self.equation.warnings) or None

    def player(self, name: str) -> Player | None:
        """Return the player of that name, or None."""
        return next((p for p in self.players if p.name == name), None)

    def trained(self) -> StandardEquation:
        """Return the equation with averaged modules in the place of those that have an average."""
        theta, phi = self.player("theta"), self.player("phi")
        model = self.equation.model if theta is None else theta.averaged
        metrics: dict[str, Any] = dict(self.equation.metrics())
        if phi is not None:
            metrics = (
                dict(phi.averaged.items())
                if isinstance(phi.averaged, ModuleDict)
                else {next(iter(metrics)): phi.averaged}
            )
        return self.equation.with_modules(model, metrics)  # type: ignore[arg-type]

    def mark(self) -> Mark:
        """Return where the run stands within a round; it waits for no device."""
        buffers = [[b.clone() for b in player.buffers] for player in self.players]
        return Mark(self.batches, self.samples, [player.steps_taken for player in self.players], buffers)

    @torch.no_grad()
    def rewind(self, mark: Mark) -> None:
        """Go back to a mark after which no weight has moved.

        An optimiser that had taken no step forgets what it has set up since: torch's SGD leaves momentum uninitialised
        if the first step is skipped.
        """
        self.batches, self.samples = mark.batches, mark.samples
        for player, taken, buffers in zip(self.players, mark.steps_taken, mark.buffers, strict=True):
            for buffer, before in zip(player.buffers, buffers, strict=True):
                buffer.copy_(before)
            player.steps_taken = taken
            if taken == 0:
                player.optimizer.state.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers and strings only, so that it loads with ``weights_only=True``."""
        players = {}
        for player in self.players:
            players[player.name] = {
                "module": player.module.state_dict(),
                "optimizer_type": type(player.optimizer).__name__,
                "optimizer": player.optimizer.state_dict(),
                "average": None if player.average is None else player.average.state_dict(),
                "steps_taken": player.steps_taken,
            }
        return {
            "format": FORMAT, "seed": self.seed, "round": self.round, "batches": self.batches, "samples": self.samples,
            "players": players,
        }  # fmt: skip

    def load_state_dict(self, saved: dict[str, Any]) -> list[str]:
        """Restore from :meth:`state_dict`; hyperparameters of the optimisers stay those of the configuration.

        Returns:
            The players whose optimiser is of another type than the saved one and starts afresh.

        Raises:
            RunDirectoryError: the checkpoint belongs to another format, seed or set of players, or does not fit.
        """
        names = [p.name for p in self.players]
        if (
            saved.get("format") != FORMAT
            or sorted(saved.get("players", ())) != sorted(names)
            or saved["seed"] != self.seed
        ):
            theirs = (
                f"format {saved.get('format')}, seed {saved.get('seed')}, players {sorted(saved.get('players', ()))}"
            )
            ours = f"format {FORMAT}, seed {self.seed}, players {sorted(names)}"
            raise RunDirectoryError(f"the checkpoint ({theirs}) is not of this run ({ours})")
        afresh = []
        try:
            for player in self.players:
                own = saved["players"][player.name]
                player.module.load_state_dict(own["module"])
                if own["optimizer_type"] == type(player.optimizer).__name__:
                    groups = player.optimizer.state_dict()["param_groups"]
                    player.optimizer.load_state_dict({"state": own["optimizer"]["state"], "param_groups": groups})
                else:
                    afresh.append(player.name)
                if player.average is not None:
                    player.average.load_state_dict(own["average"])
                player.steps_taken = own["steps_taken"]
            self.round, self.batches, self.samples = saved["round"], saved["batches"], saved["samples"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RunDirectoryError(
                f"the checkpoint does not fit the configuration: {' '.join(str(error).split())}"
            ) from error
        return afresh
