"""A plugin of pytest: what became of each test, a line at a time, so that a run that is cut has what was known."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def pytest_addoption(parser: Any) -> None:
    """Add the option that names the file."""
    parser.addoption("--tally", metavar="FILE", help="append a JSON line per test to this file")


def pytest_configure(config: Any) -> None:
    """Begin to write; the workers of pytest-xdist report to the process that does."""
    file = config.getoption("--tally")
    if file and "PYTEST_XDIST_WORKER" not in os.environ:
        config.pluginmanager.register(Tally(Path(file)))


class Tally:
    """Writes the lines."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Write the line of a test that has run, or failed or was skipped before it could."""
        if report.when == "call" or report.outcome != "passed":
            line = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 2)}
            with self.file.open("a") as out:
                out.write(json.dumps(line | {"why": report.longreprtext[-600:]}) + "\n")
