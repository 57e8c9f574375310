"""What a row of the table is: a contest of sides that were seen to do the same work, or a figure with a bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch

from benchmarks.speed.timer import Clock, Side, Times, take_turns

Size = Literal["tiny", "full"]
OURS = "ours"


class Disagreement(AssertionError):
    """Two sides of a contest do not do the same work."""


class Absent(RuntimeError):
    """A row cannot be measured here; the message says what is missing."""


@dataclass(frozen=True)
class Goal:
    """What our time may be at most of that of the fastest of some sides.

    Attributes:
        against: in the words of the table.
        sides: of which the fastest counts.
        at_most: the ratio to reach.
        beyond: a ratio that would be still better; None for none.
        counts_if: (side, ratio): the fastest counts only if it takes at most this part of the time of that side.
    """

    against: str
    sides: tuple[str, ...]
    at_most: float
    beyond: float | None = None
    counts_if: tuple[str, float] | None = None

    @property
    def words(self) -> str:
        """The goal in words."""
        return f"<= {self.at_most:.2f}" + (f", beyond: {self.beyond:.2f}" if self.beyond else "")


@dataclass(frozen=True)
class Contest:
    """Sides that do the same work.

    Attributes:
        sides: by name; the first is ours.
        agree: compares what they compute and returns how far they are apart; raises :class:`Disagreement`.
        notes: what a reader should know of the work, as found when it was set up.
    """

    sides: Mapping[str, Side]
    agree: Callable[[], dict[str, float]]
    notes: str = ""


@dataclass(frozen=True)
class Verdict:
    """One line of the table.

    Attributes:
        work: what is done.
        against: what it is compared with.
        goal: the bound, in words.
        measured: the figure, in words; "not measured" where it is not.
        met: whether the goal is met; None where that cannot be said.
        note: why not measured, or what the figure rests on.
        value: the figure.
    """

    work: str
    against: str
    goal: str
    measured: str = "not measured"
    met: bool | None = None
    note: str = ""
    value: float | None = None


@dataclass(frozen=True)
class Row:
    """A contest or a figure that is set up only when it is measured.

    Attributes:
        name: by which it is chosen on the command line.
        work: in the words of the table.
        goals: of a contest.
        make: sets a contest up, at a size.
        threads: of torch on the CPU.
        clock: which clock decides.
        pairs: turns.
        quick_pairs: turns in ``make bench-quick``; 0 to leave the row out there.
        warmup: turns before those that count.
        gpu: needs one.
        verdicts: what the times say, where it is not the ratios of ``goals``.
        expected_lines: against what, and goal, of such verdicts.
    """

    name: str
    work: str
    make: Callable[[Size], Contest]
    goals: tuple[Goal, ...] = ()
    threads: int = 1
    clock: Clock = "process"
    pairs: int = 30
    quick_pairs: int = 9
    warmup: int = 2
    gpu: bool = False
    verdicts: Callable[[Row, Times], list[Verdict]] = field(default=lambda row, times: ratios(row, times))
    expected_lines: tuple[tuple[str, str], ...] = ()

    def unmeasured(self, why: str) -> list[Verdict]:
        """Return the row's lines without figures."""
        lines = self.expected_lines or [(goal.against, goal.words) for goal in self.goals]
        return [Verdict(self.work, against, goal, note=why) for against, goal in lines]


@dataclass(frozen=True)
class Figure:
    """A row that is no contest.

    Attributes:
        name: by which it is chosen on the command line.
        work: in the words of the table.
        against: what it is compared with.
        goal: in words.
        run: measures, quickly or in full, and returns the lines of the table and the record.
        in_quick: whether it is part of ``make bench-quick``.
        more_lines: (work, against, goal) of further lines.
        gpu: needs one.
    """

    name: str
    work: str
    against: str
    goal: str
    run: Callable[[bool], tuple[list[Verdict], dict[str, Any]]]
    in_quick: bool = True
    more_lines: tuple[tuple[str, str, str], ...] = ()
    gpu: bool = False

    def unmeasured(self, why: str) -> list[Verdict]:
        """Return the row's lines without figures."""
        return [Verdict(*line, note=why) for line in ((self.work, self.against, self.goal), *self.more_lines)]


def measure(row: Row, quick: bool = False, size: Size = "full") -> tuple[list[Verdict], dict[str, Any]]:
    """Check that the sides agree, time them, and return the lines of the table and the record."""
    torch.set_num_threads(row.threads)
    torch.manual_seed(0)
    contest = row.make(size)
    differences = contest.agree()
    times = take_turns(contest.sides, row.quick_pairs if quick else row.pairs, row.warmup, row.gpu)
    verdicts = row.verdicts(row, times)
    record = {
        "work": row.work, "pairs": times.pairs, "threads": row.threads, "decides": row.clock, "notes": contest.notes,
        "largest_difference": differences,
        "milliseconds": {
            side: {clock: _rounded(times.of(side, clock), 1e3) for clock in ("wall", "process")}  # type: ignore[arg-type]
            for side in contest.sides
        },
        "ours_over": {
            side: {clock: _rounded(times.ratio(OURS, side, clock)) for clock in ("wall", "process")}  # type: ignore[arg-type]
            for side in contest.sides if side != OURS
        },
        "verdicts": [asdict(verdict) for verdict in verdicts],
    }  # fmt: skip
    return verdicts, record


def ratios(row: Row, times: Times) -> list[Verdict]:
    """Return a line for each goal."""
    lines = []
    for goal in row.goals:
        present = tuple(side for side in goal.sides if side in times.seconds)
        rival = times.fastest(present, row.clock)
        found = times.ratio(OURS, rival, row.clock)
        met: bool | None = found.median <= goal.at_most
        note = f"fastest: {rival}" if len(goal.sides) > 1 else ""
        if absent := set(goal.sides) - set(present):
            met, note = None, f"{note}; not installed: {', '.join(sorted(absent))}"
        if goal.counts_if is not None:
            other, least = goal.counts_if
            gained = times.ratio(rival, other, row.clock).median
            note += f"{', ' if note else ''}at {gained:.2f} of the {other} loop"
            if gained > least:
                met, note = None, f"{note}: counts only from {least:.2f}"
        lines.append(Verdict(row.work, goal.against, goal.words, str(found), met, note, found.median))
    return lines


def largest_difference(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> float:
    """Return the largest difference of tensors of the same names, over the largest entry of each pair."""
    if ours.keys() != theirs.keys():
        raise Disagreement(f"the sides hold different tensors: {sorted(ours.keys() ^ theirs.keys())}")
    found = 0.0
    for name, a in ours.items():
        b = theirs[name]
        if a.shape != b.shape:
            raise Disagreement(f"{name} has shapes {tuple(a.shape)} and {tuple(b.shape)}")
        scale = max(float(a.abs().max()), float(b.abs().max()), 1e-300)
        found = max(found, float((a - b).abs().max()) / scale)
    return found


def must_agree(what: str, difference: float, tolerance: float) -> float:
    """Return the difference, or raise where it exceeds the tolerance (or is not a number)."""
    if not difference <= tolerance:
        raise Disagreement(f"{what}: the sides differ by {difference:.3g}, allowed {tolerance:.3g}")
    return difference


def _rounded(found: Any, factor: float = 1.0) -> dict[str, float]:
    return {name: float(f"{factor * getattr(found, name):.4g}") for name in ("median", "low", "high")}
