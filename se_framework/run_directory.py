"""A run is a directory; every command takes one.

    config.yaml     the resolved configuration, the only record of it
    versions.json   packages, git commit, device
    metrics.csv     one row per logged round, all terms
    checkpoints/    round_00001000.pt: tensors, numbers and strings only
    samples.png, curves.png, summary.json, eval.json

Files appear whole or not at all: they are written beside their place, fsynced and renamed.
"""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from se_framework.errors import RunDirectoryError

PACKAGES = ("se-framework", "torch", "geomloss", "einops", "hydra-core", "numpy", "scipy", "scikit-learn")
KEEP = 2
"""Checkpoints kept: the newest, and one more in case the newest cannot be read."""


class RunDirectory:
    """The files of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def config_file(self) -> Path:
        """The configuration: its presence makes a directory a run."""
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        """The logged rows."""
        return self.path / "metrics.csv"

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

    def start(self, config_yaml: str, device: torch.device) -> None:
        """Write the configuration and the versions of a new run.

        Raises:
            RunDirectoryError: the directory holds a run already.
        """
        if self.is_run:
            raise RunDirectoryError(
                f"{self.path} holds a run already: go on with resume={self.path}, or choose another hydra.run.dir"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / "versions.json", json.dumps(versions(device), indent=2).encode())
        self.write_config(config_yaml)

    def write_config(self, config_yaml: str) -> None:
        """Write the configuration."""
        write_atomically(self.config_file, config_yaml.encode())

    def append_row(self, row: dict[str, float | str]) -> None:
        """Append a row to ``metrics.csv``; the first row fixes the columns."""
        new = not self.metrics_file.exists()
        with open(self.metrics_file, "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(row)
            writer.writerow(format_cell(v) for v in row.values())

    def rows(self) -> list[dict[str, str]]:
        """Return the logged rows as text."""
        if not self.metrics_file.exists():
            return []
        with open(self.metrics_file, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def truncate_rows(self, after_round: int) -> None:
        """Drop rows of rounds a resumed run will play again, and a line cut short by a kill."""
        rows = self.rows()
        if not rows:
            return
        kept = [r for r in rows if None not in r.values() and float(r["round"]) <= after_round]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(kept)
        write_atomically(self.metrics_file, text.getvalue().encode())

    def save_checkpoint(self, state: dict[str, Any], round_index: int) -> Path:
        """Write a checkpoint and drop all but the newest ones."""
        folder = self.path / "checkpoints"
        folder.mkdir(exist_ok=True)
        buffer = io.BytesIO()
        torch.save(state, buffer)
        path = folder / f"round_{round_index:08d}.pt"
        write_atomically(path, buffer.getvalue())
        for old in self.checkpoints()[KEEP:]:
            old.unlink()
        return path

    def checkpoints(self) -> list[Path]:
        """Return complete checkpoints, newest first."""
        return sorted((self.path / "checkpoints").glob("round_*.pt"), reverse=True)

    def load_checkpoint(self, device: torch.device | str = "cpu") -> tuple[dict[str, Any], Path] | None:
        """Return the newest readable checkpoint, or None when none was written yet.

        Raises:
            RunDirectoryError: there are checkpoints and none can be read.
        """
        problems = []
        for path in self.checkpoints():
            try:
                return torch.load(path, map_location=device, weights_only=True), path
            except Exception as error:  # noqa: BLE001  whatever a damaged file raises, the one before it is next
                problems.append(f"{path.name}: {next(iter(str(error).splitlines()), type(error).__name__)}")
        if problems:
            raise RunDirectoryError(f"no checkpoint in {self.path} can be read ({'; '.join(problems)})")
        return None

    def write_json(self, name: str, content: Any) -> Path:
        """Write a JSON file."""
        write_atomically(self.path / name, (json.dumps(content, indent=2) + "\n").encode())
        return self.path / name


def format_cell(value: float | str) -> str:
    """Return a cell that reads back to the same number; whole numbers without a point."""
    if isinstance(value, str):
        return value
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is either the old one or the new one, whatever kills the process."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def versions(device: torch.device) -> dict[str, Any]:
    """Return what is needed to reproduce a run besides its configuration."""
    found: dict[str, Any] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    here = Path(__file__).parent
    git = ["git", "-C", str(here)]
    try:
        found["commit"] = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
        found["uncommitted_changes"] = bool(changes.strip())
    except (OSError, subprocess.CalledProcessError):
        found["commit"] = None
    found["device"] = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or device.type
    )
    found["threads"] = torch.get_num_threads()
    return found
