"""Progress: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from tqdm import tqdm

from se_framework.runs.telling import Tolerant

SHOWN = ("D", "total", "E_q_f", "E_pd_f", "H_q")
"""Terms worth the width of a line, by the start of their name."""


class Progress:
    """Show rounds, samples per second and the last terms on standard error, whatever becomes of that.

    Args:
        rounds: rounds in all.
        start: rounds already played.
        show: False shows nothing.
    """

    def __init__(self, rounds: int, start: int = 0, show: bool = True) -> None:
        self.stream: Any = Tolerant(sys.stderr)
        self.rounds, self.terminal, self.show_lines = rounds, self.stream.isatty(), show
        self.bar = tqdm(
            total=rounds, initial=start, unit="round", disable=not (show and self.terminal), dynamic_ncols=True,
            file=self.stream,
        )  # fmt: skip

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()

    def advance(self, samples: int) -> None:
        """Count one round."""
        self.bar.update(1)

    def say(self, text: str) -> None:
        """Print a sentence, above the bar where there is one and even where nothing else is shown."""
        tqdm.write(f"se-train: {text}", file=self.stream)

    def show(self, row: dict[str, float | str]) -> None:
        """Show a row of terms."""
        terms = "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k.startswith(SHOWN) and isinstance(v, float))
        rate = f"{row['samples_per_second']:,.0f} samples/s"
        if self.terminal:
            self.bar.set_postfix_str(f"{rate}  {terms}")
        elif self.show_lines:
            print(f"round {row['round']:.0f}/{self.rounds}  {rate}  {terms}", file=self.stream, flush=True)
