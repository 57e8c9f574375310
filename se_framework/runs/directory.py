"""A run is a directory; every command takes one.

    config.yaml     the resolved configuration, the only record of it
    versions.json   packages, git commit, device
    data.json       what the data was: a fingerprint
    metrics.csv     one row per logged round, all terms
    scores.csv      one row per evaluated round
    members.csv, member_scores.csv    of an ensemble: the same rows, one per member
    checkpoints/    round_00001000.safetensors, see checkpoint.py
    samples.png, curves.png, summary.json, eval.json

Files are written by files.py, whole or not at all; tables grow by whole lines. What a kill leaves beyond the newest
checkpoint is dropped when the run goes on, and written again.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from se_framework.errors import RunDirectoryError
from se_framework.reading import UnreadableError, read_json
from se_framework.runs import checkpoint, files
from se_framework.runs.keeping import Sound, prune
from se_framework.runs.notebook import InNotebooks
from se_framework.runs.telling import override
from se_framework.runs.versions import versions

LOSS = "to_minimise"
"""Column of scores.csv by which checkpoints are ranked, least first."""
_NAME = re.compile(r"round_[0-9]{8,16}\.safetensors")


class RunDirectory(InNotebooks):
    """The files of one run.

    Args:
        path: where they lie.
        keep_last: newest checkpoints kept that can be read, at least one; a second serves if the newest is spoilt.
        keep_best: checkpoints of evaluated rounds kept besides, those of least :data:`LOSS`.
    """

    def __init__(self, path: str | Path, keep_last: int = 2, keep_best: int = 0) -> None:
        self.path, self.keep_last, self.keep_best = Path(path), keep_last, keep_best
        self._sound = Sound()

    @property
    def config_file(self) -> Path:
        """The configuration: its presence makes a directory a run."""
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        """The logged rows."""
        return self.path / "metrics.csv"

    @property
    def scores_file(self) -> Path:
        """The scores of evaluated rounds."""
        return self.path / "scores.csv"

    @property
    def members_file(self) -> Path:
        """The logged rows of an ensemble's members."""
        return self.path / "members.csv"

    @property
    def member_scores_file(self) -> Path:
        """The scores of an ensemble's members."""
        return self.path / "member_scores.csv"

    @property
    def tables(self) -> tuple[Path, ...]:
        """Every file of rows by round."""
        return self.metrics_file, self.scores_file, self.members_file, self.member_scores_file

    @property
    def frames(self) -> Path:
        """Pictures of single rounds."""
        return self.path / "frames"

    def frame_file(self, round_index: int) -> Path:
        """Return the picture of a round, named so that names sort by round."""
        return self.frames / f"{round_index:08d}.png"

    @property
    def is_run(self) -> bool:
        """Whether the directory holds a run."""
        try:
            return self.config_file.is_file()
        except OSError:  # no file can have that name
            return False

    def require(self) -> RunDirectory:
        """Return self, or refuse a directory that holds no run.

        Raises:
            RunDirectoryError: there is no ``config.yaml``.
        """
        if not self.is_run:
            kind = "holds no config.yaml" if self.path.is_dir() else "does not exist"
            raise RunDirectoryError(
                f"{self.path} is not a run directory: it {kind}; pass the directory a run was written to"
            )
        return self

    def must_be_free(self) -> RunDirectory:
        """Return self, or refuse a directory that holds a run.

        Raises:
            RunDirectoryError: see above.
        """
        if self.is_run:
            raise RunDirectoryError(
                f"{self.path} holds a run already: go on with {override('resume', self.path)}, or choose another "
                "hydra.run.dir"
            )
        return self

    def make(self) -> None:
        """Make the directory where it is not there yet.

        Raises:
            RunDirectoryError: it cannot be made.
        """
        files.make_folder(self.path)

    def start(self, config_yaml: str, device: torch.device) -> None:
        """Write the configuration and the versions of a new run.

        Raises:
            RunDirectoryError: the directory holds a run already.
        """
        self.must_be_free()
        self.make()
        files.make_folder(self.folder)  # empty: no checkpoint yet; if it is gone, somebody has taken it
        files.write_atomically(self.path / "versions.json", files.as_json(versions(device)))
        self.write_config(config_yaml)

    def write_config(self, config_yaml: str) -> None:
        """Write the configuration."""
        files.write_atomically(self.config_file, config_yaml.encode())

    def append_row(self, row: dict[str, float | str]) -> None:
        """Append a row to ``metrics.csv``; the first row fixes the columns."""
        files.append_row(self.metrics_file, row)

    def append_scores(self, row: dict[str, float | str]) -> None:
        """Append a row to ``scores.csv``: the round, its scores, and :data:`LOSS`."""
        files.append_row(self.scores_file, row)

    def rows(self) -> list[dict[str, str]]:
        """Return the logged rows as text."""
        return files.read_rows(self.metrics_file)

    def score_rows(self) -> list[dict[str, str]]:
        """Return the rows of scores as text."""
        return files.read_rows(self.scores_file, numbers=(LOSS,))

    def member_rows(self, k: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        """Return the logged rows and the rows of scores of one member, as text, without its number."""
        tables = (files.read_rows(file, ("round", "member")) for file in (self.members_file, self.member_scores_file))
        rows, scores = ([row for row in table if float(row.pop("member")) == k] for table in tables)
        return rows, scores

    def rewound(self, round_index: int) -> dict[Path, bytes | None]:
        """Return what goes when a run goes on from a round: tables as they shall be, None for a file to be removed.

        Rows of later rounds, lines cut short and half files go. Nothing is written: see :meth:`rewind`.
        """
        found: dict[Path, bytes | None] = {}
        for file in filter(Path.exists, self.tables):
            content = files.rows_up_to(file, round_index)
            if content != file.read_bytes():
                found[file] = content
        return found | dict.fromkeys((*self.path.glob(".*.tmp"), *self.folder.glob(".*.tmp")))

    def rewind(self, round_index: int) -> None:
        """Drop what was written after a round that a resumed run goes on from: what :meth:`rewound` says."""
        for file, content in self.rewound(round_index).items():
            if content is not None:
                files.write_atomically(file, content)
                continue
            with files.told(file):
                file.unlink()

    @property
    def folder(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    def save_checkpoint(self, state: dict[str, Any], round_index: int) -> Path:
        """Write a checkpoint, then drop those that need not be kept.

        Raises:
            RunDirectoryError: it could not be written; the earlier ones stand.
        """
        files.make_folder(self.folder)
        for table in self.tables:
            files.make_durable(table)  # a checkpoint promises the rows up to its round
        path = self.folder / f"round_{round_index:08d}.safetensors"
        files.write_atomically(path, checkpoint.encode(state))
        self._sound.note(path)
        with files.told(self.folder):
            prune(self.checkpoints(), self.best(), max(self.keep_last, 1), self.keep_best, self._sound)
        return path

    def checkpoints(self) -> list[Path]:
        """Return complete checkpoints, newest first."""
        found = {file: _NAME.fullmatch(file.name) for file in self.folder.glob("round_*.safetensors")}
        return sorted((file for file, name in found.items() if name), reverse=True)

    def best(self) -> list[Path]:
        """Return the checkpoints of evaluated rounds, best first (of two equal ones the later)."""
        losses = {int(float(row["round"])): float(row[LOSS]) for row in self.score_rows()}
        ranked = sorted((loss, -t) for t, loss in losses.items() if loss == loss)
        paths = [self.folder / f"round_{-t:08d}.safetensors" for _, t in ranked]
        return [path for path in paths if path.exists()]

    def load_checkpoint(
        self, device: torch.device | str = "cpu", which: str = "last", largest: int | None = None
    ) -> tuple[dict[str, Any], Path, list[str]] | None:
        """Return a checkpoint, its file, and what was wrong with newer ones; None when none was written yet.

        Args:
            device: where its tensors are put.
            which: ``"last"`` for the newest that can be read, ``"best"``, or the number of a round.
            largest: bytes it may have; None for any number.

        Raises:
            RunDirectoryError: there are checkpoints and none can be read, or not the one asked for.
        """
        candidates = self._chosen(which)
        problems: list[str] = []
        for path in candidates:
            try:
                return checkpoint.read(path, device, largest), path, problems
            except (OSError, UnreadableError, checkpoint.DamagedError) as error:
                problems.append(f"{path.name}: {error}")
        if problems:
            raise RunDirectoryError(f"no checkpoint in {self.path} can be read ({'; '.join(problems)})")
        if (self.path / "summary.json").exists():
            raise RunDirectoryError(f"{self.path} is a finished run, but its checkpoints are gone: put them back")
        return None

    def _chosen(self, which: str) -> list[Path]:
        if which == "last":
            return self.checkpoints()
        if which == "best":
            if not self.best():
                raise RunDirectoryError(
                    f"checkpoint=best: {self.path} has none: set loop.evaluate_every and loop.keep_best to keep some"
                )
            return self.best()[:1]
        rounds = {int(path.stem.partition("_")[2]): path for path in self.checkpoints()}
        if not which.isdecimal() or int(which) not in rounds:
            kept = ", ".join(map(str, sorted(rounds))) or "none"
            raise RunDirectoryError(f"checkpoint={which}: choose last, best, or a round that was kept ({kept})")
        return [rounds[int(which)]]

    @property
    def failure(self) -> Path:
        """What is known of a step in which something was not finite."""
        return self.path / "failure"

    def save_state(self, path: Path, content: dict[str, Any]) -> Path:
        """Write tensors, numbers and texts, nested in dicts and lists, to one file, and return it."""
        path = path.with_suffix(".safetensors")
        files.make_folder(path.parent)
        files.write_atomically(path, checkpoint.encode(content))
        return path

    def load_state(self, path: Path, device: torch.device | str = "cpu", largest: int | None = None) -> dict[str, Any]:
        """Return what :meth:`save_state` wrote.

        Raises:
            RunDirectoryError: it cannot be read.
        """
        path = path.with_suffix(".safetensors")
        try:
            return checkpoint.read(path, device, largest)
        except (OSError, UnreadableError, checkpoint.DamagedError) as error:
            raise RunDirectoryError(f"{path} cannot be read ({error})") from error

    def read_json(self, name: str) -> dict[str, Any]:
        """Return what a JSON file holds.

        Raises:
            FileNotFoundError: there is none.
            UnreadableError: it is no regular file, too large, or no JSON.
        """
        return read_json(self.path / name)

    def write_json(self, name: str, content: Any) -> Path:
        """Write a JSON file."""
        files.write_atomically(self.path / name, files.as_json(content))
        return self.path / name
