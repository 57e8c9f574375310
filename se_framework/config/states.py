"""From checked parts to a state that can train; and the stages of a run, of which one is built at a time."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from se_framework.config.objects import choose_device, optimizer_factory, summand
from se_framework.config.parts import OBJECTS, Parts
from se_framework.config.resuming import as_kept, with_choices
from se_framework.config.starts import SOURCE, start_from
from se_framework.data import Data
from se_framework.equation.equation import StandardEquation
from se_framework.equation.roles import freeze
from se_framework.randomness import stream_seed
from se_framework.runs.directory import RunDirectory
from se_framework.runs.provenance import record_fingerprint
from se_framework.runs.telling import Tolerant
from se_framework.training.execution import choose
from se_framework.training.handover import take_over
from se_framework.training.players import make_players
from se_framework.training.state import TrainState


def state_of(
    config: DictConfig, parts: Parts, fresh: bool, own: Path | None, members: int = 1
) -> tuple[TrainState, torch.device]:
    """Return the state of a run that has not started, of parts that were checked, and its device.

    Args:
        config: of the run, or of a stage of it.
        parts: what it chooses.
        fresh: whether weights of other runs shall be read where the configuration names some; else the run's own
            checkpoints, or the stage before, have them.
        own: the directory of the run.
        members: how many runs train together.
    """
    device, weights = choose_device(config.device), config.equation
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(stream_seed(config.seed, 0, "weights"))
        model, metric = parts.model(), parts.metric()
        plus = {
            name: summand(node, f"plus.{name}", model, parts.made_for) for name, node in (config.plus or {}).items()
        }
        equation = StandardEquation(
            model=model, divergence=parts.divergence, auxiliary=parts.auxiliary, metric=metric,
            alpha=weights.alpha, beta=weights.beta, allow=config.allow, plus=plus, checked=parts.warnings,
        )  # fmt: skip
    for name in OBJECTS if fresh else ():  # a run that was started has its weights in its checkpoints
        node = config[name]
        source = node.get(SOURCE) if isinstance(node, DictConfig) else None
        if source is not None:
            start_from(getattr(equation, name), name, str(source), own)
    equation.to(device)
    freeze(equation, [str(name) for name, player in config.players.items() if player.frozen])
    options: dict[str, Any] = {}
    for name, player in config.players.items():
        options[str(name)] = {
            "steps": player.steps, "accumulate": player.accumulate, "ema": player.ema,
            "decay": player.decay or config.loop.decay, "warmup": config.loop.warmup,
            "view": parts.views.get(str(name)), "optimizer": optimizer_factory(config.optimizer, player.lr),
        }  # fmt: skip
    players, wanted = make_players(equation, **options), config.performance
    execution = choose(wanted.graphs, wanted.compile, wanted.precision, equation, players, device, members)
    return TrainState(equation, players, seed=config.seed, execution=execution), device


def start(run: RunDirectory, config: DictConfig, state: TrainState, data: Data, device: torch.device) -> DictConfig:
    """Make a directory that of a run and return its configuration, with the choices that were left to us.

    Args:
        run: the directory.
        config: of the run; with the fingerprint of the data it is what the directory keeps.
        state: of the run, or of the members of an ensemble.
        data: p_d.
        device: where the model lives.

    Raises:
        RunDirectoryError: the directory holds a run already.
    """
    choices = {"device": str(device), "threads": torch.get_num_threads(), "loop.horizon": config.loop.rounds}
    config = with_choices(config, choices | state.execution.settled)
    run.start(as_kept(config), device)
    record_fingerprint(run, data)
    return config


@dataclass
class Course:
    """The stages of a run: all of them checked, one of them built.

    Attributes:
        stages: the configuration of each; ``loop.rounds`` is the round in which it ends.
        parts: what each of them chooses.
        at: the number of the one that was built last.
    """

    stages: list[DictConfig]
    parts: list[Parts]
    at: int

    def enter(self, k: int, before: TrainState) -> tuple[TrainState, Data]:
        """Return the state of stage k, which goes on where the stage before ended, and its data."""
        after, _ = state_of(self.stages[k], self.parts[k], fresh=False, own=None)
        afresh = take_over(after, before)
        after.stage = self.at = k
        if self.stages[k].progress:
            rest = f"; afresh: {', '.join(afresh)}" if afresh else ""
            stream: Any = Tolerant(sys.stderr)
            print(f"stage {k + 1} of {len(self.stages)} from round {before.round} on{rest}", file=stream)
        return after, self.parts[k].data
