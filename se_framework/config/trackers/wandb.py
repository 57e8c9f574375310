"""Weights & Biases: a run of a project; offline unless asked otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from se_framework.config.trackers.base import Status, Tracked, Tracker, required
from se_framework.errors import RunDirectoryError


class WandB(Tracker):
    """A run of Weights & Biases; needs ``pip install 'se-framework[wandb]'``.

    Offline, its files lie in the folder ``wandb`` of the run's directory, and ``wandb sync`` sends them; a run that
    goes on leaves a second folder there with the same id, which is appended.

    Args:
        project: to which the run belongs.
        mode: ``offline`` sends nothing; ``online`` sends all that is told to the account that is logged in.
        entity: the user or team of the project; None is the account's own.
    """

    def __init__(
        self, project: str = "se-framework", mode: Literal["offline", "online"] = "offline", entity: str | None = None
    ) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else its makers are called, offline too (0.31)
        self.library = required("wandb", "wandb")
        self.project, self.mode, self.entity = project, mode, entity

    def begin(self, run: Tracked) -> None:
        """Start the run, or go on with that of the same id. Its steps are rounds."""
        run.folder("wandb", written_into=False)  # a folder for each call, which has links to its own cache
        for name in ("wandb", ".wandb"):  # where the library would take an address from, were we in that directory
            if (run.directory / name / "settings").exists() or (run.directory / name).is_symlink():
                raise RunDirectoryError(f"{run.directory / name}/settings would say where to send: remove it")
        quiet = self.library.Settings(
            silent=self.mode == "offline",
            console="off",
            disable_git=True,
            disable_code=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        self.run = self.library.init(
            project=self.project, entity=self.entity, mode=self.mode, id=run.id, name=run.name, group=run.group,
            dir=run.directory, config=run.simple(), resume="allow", settings=quiet, allow_val_change=True,
        )  # fmt: skip

    def figures(self, round: int, figures: Mapping[str, float]) -> None:
        """Log them; those of one round are one row."""
        self.run.log({"round": round, **figures}, step=round)

    def picture(self, round: int, name: str, file: Path) -> None:
        """Log an image."""
        self.run.log({name: self.library.Image(str(file))}, step=round)

    def end(self, round: int, status: Status) -> None:
        """Say how it ended; only a run that is finished leaves with code 0."""
        self.run.summary["status"] = status
        self.run.finish(exit_code=0 if status == "finished" else 1)
