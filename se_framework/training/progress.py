"""Progress: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from tqdm import tqdm

from se_framework.training.console import is_terminal, put, silence

SHOWN = ("D", "total", "E_q_f", "E_pd_f", "H_q")
"""Terms worth the width of a line, by the start of their name."""


class Progress:
    """Show rounds, samples per second and the last terms on standard error.

    Args:
        rounds: rounds in all.
        start: rounds already played.
        show: False shows nothing.
    """

    def __init__(self, rounds: int, start: int = 0, show: bool = True) -> None:
        self.rounds, self.terminal, self.show_lines = rounds, is_terminal(), show
        self.bar = tqdm(
            total=rounds, initial=start, unit="round", disable=not (show and self.terminal), dynamic_ncols=True
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._while_there_is_one():
            self.bar.close()

    @contextmanager
    def _while_there_is_one(self) -> Iterator[None]:
        """Go on without the bar when the terminal is gone."""
        try:
            yield
        except (OSError, ValueError):
            self.bar.disable = True
            silence("stderr")

    def advance(self, samples: int) -> None:
        """Count one round."""
        with self._while_there_is_one():
            self.bar.update(1)

    def say(self, text: str) -> None:
        """Print a sentence, above the bar where there is one and even where nothing else is shown."""
        with self._while_there_is_one(), tqdm.external_write_mode(file=sys.stderr):
            put(f"se-train: {text}")

    def show(self, row: dict[str, float | str]) -> None:
        """Show a row of terms."""
        terms = "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k.startswith(SHOWN) and isinstance(v, float))
        rate = f"{row['samples_per_second']:,.0f} samples/s"
        if self.terminal:
            with self._while_there_is_one():
                self.bar.set_postfix_str(f"{rate}  {terms}")
        elif self.show_lines:
            put(f"round {row['round']:.0f}/{self.rounds}  {rate}  {terms}")
