"""Times of several ways to do the same work, taken in turns, and what paired ratios say.

The machine may be shared, so no absolute time is compared: all sides take turns in one process, the order reversed
from turn to turn, and a ratio is that of neighbours in time. Its median is reported with its quartiles.

Two clocks run: *wall*, and *process*, the processor time of all threads. On one thread the second leaves out what other
jobs do; on several it counts waiting threads, and on a GPU it counts nothing, so there the wall clock decides.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

Clock = Literal["wall", "process"]
LOG_EVERY = 100  # rounds between rows of the log by default


@dataclass(frozen=True)
class Side:
    """One way to do the work.

    Attributes:
        run: does ``rounds`` rounds of it.
        rounds: by which the time is divided.
        logging: what it does besides once in a hundred rounds; timed alone, and a hundredth of it added to a round.
    """

    run: Callable[[], Any]
    rounds: int = 1
    logging: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a sample of numbers."""

    median: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g}-{self.high:.3g})"


def spread(values: list[float]) -> Spread:
    """Return median and quartiles of at least one number."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return Spread(median, low, high, len(values))


class Times:
    """Seconds per round of each side, pair by pair.

    Args:
        seconds: per side and clock one number for each turn, in the order of the turns.
    """

    def __init__(self, seconds: Mapping[str, Mapping[Clock, list[float]]]) -> None:
        self.seconds = seconds

    @property
    def pairs(self) -> int:
        """The number of turns."""
        return len(next(iter(self.seconds.values()))["wall"])

    def of(self, side: str, clock: Clock) -> Spread:
        """Return the seconds per round of a side."""
        return spread(self.seconds[side][clock])

    def ratio(self, side: str, other: str, clock: Clock) -> Spread:
        """Return the time of a side over that of another, neighbours in time divided."""
        pairs = zip(self.seconds[side][clock], self.seconds[other][clock], strict=True)
        return spread([a / b for a, b in pairs])

    def difference(self, side: str, other: str, clock: Clock) -> Spread:
        """Return the time of a side less that of another, in seconds per round."""
        pairs = zip(self.seconds[side][clock], self.seconds[other][clock], strict=True)
        return spread([a - b for a, b in pairs])

    def fastest(self, sides: tuple[str, ...], clock: Clock) -> str:
        """Return the side with the least median."""
        return min(sides, key=lambda side: self.of(side, clock).median)


def take_turns(sides: Mapping[str, Side], pairs: int, warmup: int = 3, gpu: bool = False) -> Times:
    """Run all sides in turns and return their times.

    Args:
        sides: by name.
        pairs: turns that count.
        warmup: turns before them that do not.
        gpu: wait for the device before a clock is read.
    """
    seconds: dict[str, dict[Clock, list[float]]] = {name: {"wall": [], "process": []} for name in sides}
    for turn in range(-warmup, pairs):
        for name in list(sides) if turn % 2 else reversed(list(sides)):
            wall, process = _once(sides[name], gpu)
            if turn >= 0:
                seconds[name]["wall"].append(wall)
                seconds[name]["process"].append(process)
    return Times(seconds)


def _once(side: Side, gpu: bool) -> tuple[float, float]:
    """Return wall and process seconds of one round."""
    wall, process = _timed(side.run, gpu)
    wall, process = wall / side.rounds, process / side.rounds
    if side.logging is not None:
        more_wall, more_process = _timed(side.logging, gpu)
        wall, process = wall + more_wall / LOG_EVERY, process + more_process / LOG_EVERY
    return wall, process


def _timed(run: Callable[[], Any], gpu: bool) -> tuple[float, float]:
    if gpu:
        torch.cuda.synchronize()
    wall, process = time.perf_counter(), time.process_time()
    run()
    if gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - process
