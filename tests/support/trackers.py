"""Trackers that tests name in a configuration, and the runs that they follow."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Literal

import numpy as np
import torch

import se_framework as se
from se_framework.config.trackers import Tracked, Tracker

SHORT = ["loop.rounds=6", "loop.batch_size=16", "loop.log_every=1", "loop.checkpoint_every=2", "progress=false",
         "device=cpu", "data=ring8"]  # fmt: skip
FLOW = [*SHORT, "model.width=8", "model.couplings=2"]


class Recorder(Tracker):
    """Writes a line of JSON for each call."""

    def __init__(self, file: str, marks: Literal["a", "b"] = "a") -> None:
        self.file = file

    def _write(self, *what: object) -> None:
        with open(self.file, "a") as file:
            file.write(json.dumps(what) + "\n")

    def begin(self, run: Tracked) -> None:
        told = {name: str(value) for name, value in vars(run).items() if name not in ("settings", "resumed")}
        self._write("begin", {**told, "settings": run.settings, "resumed": run.resumed})

    def figures(self, round: int, figures: dict[str, float]) -> None:
        self._write("figures", round, figures)

    def picture(self, round: int, name: str, file: Path) -> None:
        self._write("picture", round, name, file.read_bytes()[:4].hex())

    def end(self, round: int, status: str) -> None:
        self._write("end", round, status)


class Meddler(Recorder):
    """Draws on and seeds every global generator, as libraries do that make up names, and asks for threads."""

    def _write(self, *what: object) -> None:
        super()._write(*what)
        torch.manual_seed(3), np.random.seed(3), random.seed(3)
        torch.rand(3), np.random.rand(3), random.random()


class Broken(Recorder):
    """Fails in one of its methods."""

    def __init__(self, file: str, method: str, leaves: bool = False) -> None:
        super().__init__(file)
        self.method, self.error = method, SystemExit(1) if leaves else RuntimeError("no\nline")

    def _write(self, *what: object) -> None:
        super()._write(*what)
        if what[0] == self.method:
            raise self.error


class Snapshot(se.Callback):
    """Does something once, in the row of a round."""

    def __init__(self, round: int, what) -> None:
        self.round, self.what = round, what

    def on_row(self, state, row) -> None:
        if row["round"] == self.round:
            self.what()


def chosen(name: str, file: Path, *more: str) -> list[str]:
    """Return the overrides that choose a tracker of this module, which writes to a file."""
    return [f"+tracker._target_={__name__}.{name}", f"+tracker.file='{file}'", *more]


def heard(file: Path, kind: str | None = None) -> list[list]:
    """Return the calls that a tracker has written down."""
    calls = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [call for call in calls if kind in (None, call[0])]


def rounds(file: Path, having: str = "total_up_to_const") -> list[int]:
    """Return the rounds of the rows that hold a figure, in the order in which they were told."""
    return [call[1] for call in heard(file, "figures") if having in call[2]]
