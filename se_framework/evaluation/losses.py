"""What ranks scores, whichever end of theirs is better. Imports neither torch nor numpy."""

from __future__ import annotations

from typing import Any


def loss_of(entry: dict[str, Any]) -> float:
    """Return what ranks a score, least first: the value, less it, or how far it is from a perfect sample's."""
    value = float(entry["value"])
    if entry.get("better") == "nearer":
        known = entry["references"]
        return abs(value - float(known["perfect"] if "perfect" in known else known["real"]))
    return -value if entry.get("better") == "higher" else value
