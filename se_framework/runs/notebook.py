"""A run in a notebook: its rows as a frame of pandas, and itself as curves and samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from se_framework.errors import ConfigError, RunDirectoryError
from se_framework.runs.files import read_rows

if TYPE_CHECKING:
    from pandas import DataFrame


class InNotebooks:
    """What a run directory is in a notebook, besides its files."""

    path: Path

    @property
    def terms(self) -> DataFrame:
        """The logged rows as a frame of pandas, indexed by round; of an ensemble by member and round.

        Columns of numbers are floats, an empty cell is NaN; a column that holds any text stays text.

        Raises:
            ConfigError: pandas is not installed.
            RunDirectoryError: no such run, it has no rows, or they are none.
        """
        try:
            import pandas
        except ImportError:
            raise ConfigError("a frame needs pandas, which is not installed: pip install pandas") from None
        if not (self.path / "config.yaml").is_file():
            raise RunDirectoryError(f"{self.path} is not a run directory: pass the directory a run was written to")
        of_members = read_rows(self.path / "members.csv", ("round", "member"))
        rows = of_members or read_rows(self.path / "metrics.csv")
        if not rows:
            raise RunDirectoryError(f"{self.path} has no rows yet: let it train on")
        index = ["member", "round"] if of_members else ["round"]
        columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in rows[0]}
        for name, cells in columns.items():
            try:
                numbers = [float(cell) if cell else float("nan") for cell in cells]
            except ValueError:
                continue
            if name in index:
                columns[name] = [int(number) for number in numbers]
            elif any(cells):
                columns[name] = numbers
        return pandas.DataFrame(columns).set_index(index)

    def _repr_html_(self) -> str:
        """Return the run as a notebook shows it: state, scores, curves and samples."""
        from se_framework.comparison.report.notebook import of_run

        return of_run(self.path)
