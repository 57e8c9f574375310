"""From paths to a page: which runs are meant, what is read of them, and the file that is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from se_framework.comparison.report import single
from se_framework.comparison.report.content import Content
from se_framework.comparison.report.critic import critic_of
from se_framework.comparison.report.page import page
from se_framework.comparison.report.reading import Shown, read_run
from se_framework.errors import ConfigError, RunDirectoryError
from se_framework.runs.directory import RunDirectory
from se_framework.runs.files import write_atomically

ENDING = ".html"


def runs_below(path: Path) -> list[Path]:
    """Return the run that a path is, or those that lie in it, a sweep's in the order of its jobs.

    Raises:
        RunDirectoryError: it is no run and holds none.
    """
    if RunDirectory(path).is_run or not path.is_dir():
        return [RunDirectory(path).require().path]
    found = [entry for entry in path.iterdir() if RunDirectory(entry).is_run]
    if not found:
        raise RunDirectoryError(f"{path} is neither a run nor holds any: pass the directory of a run or of a sweep")
    return sorted(found, key=lambda run: (len(run.name), run.name))


def content_of(paths: Sequence[Path], critic: bool = True) -> Content:
    """Return what a page of these runs holds.

    Args:
        paths: of runs and sweeps.
        critic: whether a single run's parts are built, to look at its critic.

    Raises:
        RunDirectoryError: a path is no run and holds none, or no run has a row.
    """
    runs = [run for path in paths for run in runs_below(path)]
    return one(runs[0])


def one(path: Path, critic: bool = True) -> Content:
    run = read_run(path)
    content = Content(run.name)
    looked = critic_of(content, path, member=0 if run.members > 1 else None) if critic else ""
    single.fill(content, run, looked)
    return content


def report(paths: str | Path | Sequence[str | Path], out: str | Path = "report.html") -> Path:
    """Write the page of a run, or of several, into one file, and return its path."""
    chosen = [paths] if isinstance(paths, (str, Path)) else list(paths)
    file = Path(out)
    content = content_of([Path(path) for path in chosen])
    write_atomically(file, page(content).encode())
    return file
