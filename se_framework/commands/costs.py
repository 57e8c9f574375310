"""What a run cost, for its summary: seconds of training on two clocks, and the numbers it trained."""

from __future__ import annotations

import math
import time
from typing import Any

from se_framework.assembly import Assembly, EnsembleAssembly


class Costs:
    """Starts the clocks; :meth:`spent` reads them.

    Args:
        assembly: of the run, before it trains (on).
    """

    def __init__(self, assembly: Assembly) -> None:
        self.resumed = assembly.state.round > 0
        self.earlier = logged_seconds(assembly.state.history)
        self.on_cpu = str(assembly.device) == "cpu"
        self.wall, self.processor = time.monotonic(), time.process_time()

    def spent(self, assembly: Assembly) -> dict[str, Any]:
        """Return what training cost, and the numbers that each player trained (in an ensemble, of each member).

        Seconds before a run was resumed are known from its rows, if it has any. Processor seconds are those of a run in
        one piece, on a CPU: of another device they say little, and of an earlier process nothing is known.
        """
        wall, processor = time.monotonic() - self.wall, time.process_time() - self.processor
        one = assembly.members[0] if isinstance(assembly, EnsembleAssembly) else assembly
        found: dict[str, Any] = {
            "parameters": {player.name: sum(p.numel() for p in player.parameters) for player in one.state.players}
        }
        if not self.resumed or self.earlier > 0:
            found["seconds"] = self.earlier + wall
        return found | ({"processor_seconds": processor} if self.on_cpu and not self.resumed else {})


def logged_seconds(rows: list[dict[str, float | str]]) -> float:
    """Return the seconds that logged rows tell of: the clock starts again where a run was resumed.

    Rows of a run that goes on are those of its table, in which anything may stand: what is no number tells nothing.
    """
    whole, last = 0.0, 0.0
    for row in rows:
        found = row.get("seconds")
        now = float(found) if isinstance(found, int | float) and math.isfinite(found) and found >= 0 else last
        whole, last = whole + (last if now < last else 0.0), now
    return whole + last
