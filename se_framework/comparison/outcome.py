"""What became of one run: settings, seed, scores, time, or why there are none."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from se_framework.comparison.settings import Value

Status = Literal["finished", "failed", "stopped", "running", "killed", "unreadable"]


@dataclass(frozen=True)
class Outcome:
    """What became of one run, or of one member of an ensemble.

    Attributes:
        path: the run's directory, or that of a job which came to none.
        settings: values of its configuration by dotted key, and under the names of groups (``divergence``) the choice
            they are of; ``experiment`` where a sweep named it. Of a job without a configuration the words typed.
        seed: of the run; None where it is not known.
        status: finished: it has all its rounds, or stopped early, and its scores.
        why: of a run that is not finished.
        scores: by name as in ``summary.json``: value, se, unit, better, n, seed, references, bound; of one that could
            not be computed why. Those of a run that is not finished are of an earlier round.
        seconds: of training, on the clock that :attr:`clock` names.
        parameters: trained numbers, of all players.
        rounds: completed; None where that is not known.
        clock: processor seconds, or those on the wall where the run did not record others.
        wall: seconds on the wall.
        member: number in an ensemble; its seconds are its share.
        data: the fingerprint of the data.
        players: trained numbers by player.
    """

    path: Path
    settings: dict[str, Value] = field(default_factory=dict)
    seed: int | None = None
    status: Status = "finished"
    why: str | None = None
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float | None = None
    parameters: int | None = None
    rounds: int | None = None
    clock: Literal["processor", "wall"] | None = None
    wall: float | None = None
    member: int | None = None
    data: str | None = None
    players: dict[str, int] = field(default_factory=dict)
