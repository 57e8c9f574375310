"""Which objective is best, and whether that is sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from se_framework.comparison.outcome import Outcome


@dataclass(frozen=True)
class Comparison:
    """A table of objectives; see :func:`compare`.

    Attributes:
        objectives: rows.
        sentence: which is best, and is that sure.
    """

    objectives: tuple[Any, ...]
    sentence: str


def compare(
    outcomes: Sequence[Outcome], score: str | None = None, by: str | None = None, level: float = 0.95
) -> Comparison:
    """Return the comparison of runs that were read."""
    raise NotImplementedError
