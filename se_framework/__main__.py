"""``se-train``: a signal is told in one sentence from here on, so all else is imported later."""

from __future__ import annotations

from se_framework.runs.telling import open_streams
from se_framework.training.interrupts import signals_told

open_streams()


def main() -> None:
    """Run the command line ``se-train``."""
    with signals_told("se-train"):
        from se_framework.commands.entry import main as run

        run()


if __name__ == "__main__":
    main()
