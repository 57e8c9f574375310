"""No D."""

from __future__ import annotations

from divergences.base import Divergence


class Absent(Divergence):
    """No D: for an equation whose auxiliary needs none. It has no value, no dual and no primal."""

    sources: tuple[str, ...] = ()
    absent = True

    def extra_repr(self) -> str:
        """Say so."""
        return "none"
