"""From paths to a page: which runs are meant, what is read of them, and the file that is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from se_framework.comparison.comparison import compare
from se_framework.comparison.report import several, single
from se_framework.comparison.report.charts import runtime
from se_framework.comparison.report.content import Content
from se_framework.comparison.report.critic import Looks, critic_of
from se_framework.comparison.report.page import page
from se_framework.comparison.report.reading import Shown, read_run
from se_framework.comparison.runs import Outcome, read_runs
from se_framework.errors import ConfigError, RunDirectoryError
from se_framework.runs.directory import RunDirectory
from se_framework.runs.files import write_atomically

ENDING = ".html"
FEW_POINTS = 300
"""Points of a line on a page of many runs."""


@dataclass
class Maker:
    """Makes the content of a page, again and again while runs go on; critics are looked at once for each checkpoint.

    Attributes:
        paths: of runs, sweeps, ensembles, or folders of those.
        x: the choice along the columns of the map of several runs; None for one that differs.
        y: the choice along its rows.
        score: by which runs are compared; None for the first that all have.
        critic: whether a single run's parts are built, to look at its critic.
        trust: packages that the run may use for that, besides ours and torch.
        member: whose critic is shown, of an ensemble.
        checkpoint: of which weights.
        device: where they are put.
        live: runs may be without a row yet.
    """

    paths: Sequence[Path]
    x: str | None = None
    y: str | None = None
    score: str | None = None
    critic: bool = True
    trust: str | Sequence[str] = ()
    member: int | None = None
    checkpoint: str = "last"
    device: str | None = "cpu"
    live: bool = False
    _looked: dict[object, Looks] = field(default_factory=dict)

    def content(self) -> Content:
        """Return what the page holds now.

        Raises:
            RunDirectoryError: a path is no run and holds none, or no run has a row.
            ConfigError: no such choice, or no such score.
        """
        runtime()  # first: whoever lacks the extra shall not wait to be told
        outcomes = read_runs(self.paths)
        directories = list(dict.fromkeys(own.path for own in outcomes if RunDirectory(own.path).is_run))
        if len(directories) == 1 and len({own.path for own in outcomes}) == 1:
            return self._single(directories[0])
        return self._several(outcomes, directories)

    def _single(self, path: Path) -> Content:
        for key, given in (("x", self.x), ("y", self.y)):
            if given is not None:
                raise ConfigError(f"{key}={given}: a map needs runs that differ, and {path} is one run: leave it out")
        run = read_run(path)
        if not (run.has_rows or run.scores or self.live):
            raise RunDirectoryError(f"{path} has no rows yet, so there is nothing to show: let it train on")
        content = Content(run.name)
        single.fill(content, run, self._look(run).on(content) if self.critic else "")
        return content

    def _look(self, run: Shown) -> Looks:
        """Return what the critic looks like at the newest checkpoint, from memory where that is the same."""
        files = RunDirectory(run.path).checkpoints()
        if not files:
            return Looks(absent=["there is no checkpoint yet"])
        member = 0 if self.member is None and run.members > 1 else self.member
        try:
            seen = (files[0], files[0].stat().st_mtime_ns)
        except OSError:  # a run that goes on has dropped it
            return Looks(absent=["its checkpoint is just being replaced"])
        if seen not in self._looked:
            self._looked.clear()
            self._looked[seen] = critic_of(run.path, self.trust, member, self.checkpoint, self.device)
        return self._looked[seen]

    def _several(self, outcomes: Sequence[Outcome], directories: Sequence[Path]) -> Content:
        names = [path.resolve().name for path in self.paths]
        content = Content(", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""))
        content.points = FEW_POINTS
        runs: dict[Path, Shown] = {}
        for path in directories:
            try:
                runs[path] = read_run(path)
            except RunDirectoryError as error:
                content.notes.append(str(error))
        if not (self.live or any(run.has_rows or run.scores for run in runs.values())):
            raise RunDirectoryError(
                f"{self.paths[0]} holds no run with rows, so there is nothing to show: let them train on"
            )
        several.fill(content, compare(outcomes, self.score), outcomes, runs, self.x, self.y)
        return content


def report(
    paths: str | Path | Sequence[str | Path],
    out: str | Path = "report.html",
    x: str | None = None,
    y: str | None = None,
    score: str | None = None,
    critic: bool = True,
    trust: str | Sequence[str] = (),
) -> Path:
    """Write the page of a run, or of several beside each other, into one file that needs no network; return its path.

    Args:
        paths: of runs, sweeps, ensembles, or folders of those.
        out: the file, ``*.html``.
        x: the choice along the columns of the map of several runs, e.g. ``"divergence"``; None for one that differs.
        y: the choice along its rows.
        score: by which runs are compared; None for the first that all have of frechet, w2, nll and the others.
        critic: whether a single run's data and model are built, to look at its critic; all else needs its files alone.
        trust: packages that the run may use for that, besides ours and torch.

    Raises:
        RunDirectoryError: a path is no run and holds none, no run has a row, or the file cannot be written.
        ConfigError: the file is no ``.html``, the runs do not differ in a choice, or the extra ``report`` is missing.
    """
    file = Path(out)
    if file.suffix != ENDING:
        raise ConfigError(f"out={file} must end in {ENDING}")
    chosen = [paths] if isinstance(paths, (str, Path)) else paths
    maker = Maker([Path(path) for path in chosen], x, y, score, critic, trust)
    write_atomically(file, page(maker.content()).encode())
    return file
