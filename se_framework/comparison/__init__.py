"""What runs say of the objectives they trained: one table, its intervals, and whether the best of them is sure."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from se_framework.comparison.best_of import BestOf
    from se_framework.comparison.comparison import Comparison


def compare(
    paths: Iterable[str | Path], score: str | None = None, by: str | None = None, level: float = 0.95
) -> Comparison:
    """Return the comparison of runs, sweeps, ensembles and folders of runs: what ``se-compare`` prints.

    Args:
        paths: directories.
        score: by which they are compared; None for the first that all have of frechet, w2, and the others.
        by: a further key whose values are tasks of their own, besides the data.
        level: of intervals; 1 - level is the rate at which equals are called different.

    Raises:
        RunDirectoryError: a path is neither a run nor holds any.
        ConfigError: the runs have no score in common, or measured it in different ways.
    """
    from se_framework.comparison.comparison import compare as compare_outcomes
    from se_framework.comparison.runs import read_runs

    return compare_outcomes(read_runs(paths), score, by, level)


def tuned(paths: Iterable[str | Path], score: str | None = None, by: str | None = None, n: int | None = None) -> BestOf:
    """Return what the best of n trials of each objective comes to: what ``se-compare best_of=N`` prints.

    Args:
        paths: directories of runs that looked at validation rows (``loop.early_stop``).
        score: over held-out rows, by which what was chosen is judged; None as in :func:`compare`.
        by: a further key whose values are tasks of their own, besides the data.
        n: trials of a search, the same for every objective; None for as many as all have.

    Raises:
        RunDirectoryError: a path is neither a run nor holds any.
        ConfigError: no run has a score over validation rows, or they were measured in different ways.
    """
    from se_framework.comparison.best_of import best_of as best_of_outcomes
    from se_framework.comparison.runs import read_runs

    return best_of_outcomes(read_runs(paths), score, by, n)
