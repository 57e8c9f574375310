"""How a tracker follows a run: it is told each thing once, and nothing of it reaches the run."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig, OmegaConf

from se_framework.config.build import build, find, locating
from se_framework.config.resuming import OF_THE_CALL, below, leaves
from se_framework.config.trackers.base import Status, Tracked, Tracker
from se_framework.data.sources import fixed_randomness
from se_framework.errors import ConfigError
from se_framework.reading import UnreadableError, count, mapping, take, text
from se_framework.runs.directory import RunDirectory
from se_framework.runs.sweeps import RESULT
from se_framework.runs.telling import say
from se_framework.training.callbacks import Callback
from se_framework.training.game import Game

RECORD = "tracker.json"
"""What a run's tracker has been told, in the run's directory: by kind, the round of what it heard last."""
COUNTS = ("round", "samples", "members")
"""Columns that say when and of how many: the first is the step of every figure, the others are told with the terms."""


class Followed(Protocol):
    """What is followed.

    Attributes:
        config: of the run.
        state: of the run, whichever stage it is in.
    """

    config: DictConfig
    state: Any


class Follower(Callback):
    """A callback that tells a tracker of a run, and outlives its failure.

    The tracker hears of every round once: a record in the run's directory says what it has heard, so rounds that are
    played again after a kill are not told again, and rows of before there was a tracker are told when it comes.

    Args:
        tracker: None follows nothing.
        choice: what its configuration says.
    """

    def __init__(self, tracker: Tracker | None = None, choice: str = "") -> None:
        self._tracker, self._choice, self._inside = tracker, choice, False
        self._nonce, self._heard = "", dict[str, int]()

    @contextmanager
    def through(self, followed: Followed, run: RunDirectory | None) -> Iterator[None]:
        """Follow what is done inside, to its end; within another such block this is that one.

        Raises:
            ConfigError: there is a tracker, and no directory of a run.
        """
        if self._tracker is None or self._inside:
            yield
            return
        if run is None:
            raise ConfigError("tracker: a run without a directory is not followed: give one, train(RunDirectory(...))")
        self._inside, self._run = True, run
        self._begin(followed)
        status: Status = "failed"
        try:
            yield
            status = "finished" if followed.state.stopped_by is None else "stopped"
        except (KeyboardInterrupt, SystemExit):
            status = "stopped"
            raise
        finally:
            self._tell(lambda tracker: tracker.end(followed.state.round, status))
            self._inside = False

    def _begin(self, followed: Followed) -> None:
        config, path = followed.config, self._run.path.absolute()
        self._nonce, self._heard = self._recorded(afresh=bool(config.resume_allow))
        in_sweep = (path / RESULT).is_file()
        told = Tracked(
            id=self._id(self._nonce),
            name="/".join(path.parts[-2:]),
            group="/".join(path.parent.parts[-2:]) if in_sweep else None,
            directory=path,
            settings={key: value for key, value in leaves(config).items() if not below(key, OF_THE_CALL)},
            resumed=bool(self._heard),
        )
        self._tell(lambda tracker: tracker.begin(told))
        for row in followed.state.history:
            self.on_row(followed.state, row)
        for row in followed.state.scores:
            self.on_scores(followed.state, row)

    # -- what happens -------------------------------------------------------------------------------------------------

    def on_row(self, state: Game, row: Mapping[str, Any]) -> None:
        """Tell of a row of terms."""
        self._figures("rows", "", row)

    def on_scores(self, state: Game, row: Mapping[str, Any]) -> None:
        """Tell of a row of scores."""
        self._figures("scores", "scores/", row)

    def on_picture(self, state: Game, file: Path) -> None:
        """Tell of a picture: one of a round lies in a folder, by whose name it goes, one of the end by its own."""
        if self._tracker is None:
            return
        inside = file.relative_to(self._run.path)
        name = str(inside.parent if inside.stem.isdecimal() else inside.with_suffix(""))
        round_index = int(inside.stem) if inside.stem.isdecimal() else state.round
        self._once(f"pictures/{name}", round_index, lambda tracker: tracker.picture(round_index, name, file))

    def at_the_end(self, state: Game, scores: Mapping[str, Mapping[str, Any]]) -> None:
        """Tell of the scores and the pictures at the end."""
        if self._inside:
            row = {name: entry.get("value") for name, entry in scores.items()}
            self._figures("summary", "summary/", {"round": float(state.round), **row})
            for file in sorted([*self._run.path.glob("*.png"), *self._run.path.glob("samples/*.png")]):
                self.on_picture(state, file)

    def _figures(self, kind: str, prefix: str, row: Mapping[str, Any]) -> None:
        left_out = COUNTS if prefix else COUNTS[:1]
        figures = {prefix + k: float(v) for k, v in row.items() if isinstance(v, (int, float)) and k not in left_out}
        round_index = int(row["round"])
        self._once(kind, round_index, lambda tracker: tracker.figures(round_index, figures))

    def _once(self, kind: str, round_index: int, call: Callable[[Tracker], None]) -> None:
        if self._tracker is None or round_index <= self._heard.get(kind, -1):
            return

        def told(tracker: Tracker) -> None:
            call(tracker)
            self._heard[kind] = round_index
            self._run.write_json(RECORD, {"nonce": self._nonce, "id": self._id(self._nonce), "heard": self._heard})

        self._tell(told)

    def _tell(self, call: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            with fixed_randomness():
                call(self._tracker)
        except (Exception, SystemExit) as error:  # others' code may raise anything
            name, self._tracker = type(self._tracker).__name__, None
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            say(f"WARNING, the tracker {name} failed and hears no more of this run, which goes on ({why})")

    # -- what was heard before ----------------------------------------------------------------------------------------

    def _id(self, nonce: str) -> str:
        """Return the id of a run: of a directory that was moved or copied, or another choice, it is another one."""
        words = json.dumps([nonce, str(self._run.path.absolute()), self._choice])
        return hashlib.sha256(words.encode()).hexdigest()[:16]

    def _recorded(self, afresh: bool) -> tuple[str, dict[str, int]]:
        """Return what makes the id, and what was heard; nothing where there is no record that fits.

        Args:
            afresh: whether the run was told to take another course: what was heard of the one it left is not its own.
        """
        try:
            found = self._run.read_json(RECORD)
            nonce, heard = take(found, "nonce", kind=text), take(found, "heard", kind=mapping)
            if not afresh and re.fullmatch("[0-9a-f]{32}", nonce) and take(found, "id", kind=text) == self._id(nonce):
                return nonce, {str(kind): take(heard, kind, kind=count) for kind in heard}
        except (OSError, UnreadableError):
            pass
        return secrets.token_hex(16), {}


def follower_of(config: DictConfig) -> Follower:
    """Return what tells the tracker that a configuration names.

    It may name anything: what a run directory says of a tracker is not heard
    (:func:`se_framework.config.saved.saved_config`), so what stands there was typed.

    Raises:
        ConfigError: it cannot be made: a wrong argument, a missing library.
    """
    with locating(find):
        tracker = build(config.tracker, "tracker", Tracker)
    choice = OmegaConf.to_container(config.tracker, resolve=True) if tracker is not None else None
    return Follower(tracker, json.dumps(choice, sort_keys=True, default=str))
