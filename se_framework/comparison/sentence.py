"""The answer in words: which is best, and is that sure?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from se_framework.comparison.grouping import ONLY
from se_framework.comparison.objective import Objective

if TYPE_CHECKING:
    from se_framework.comparison.comparison import Comparison

NAMED = 2
"""Objectives that are named each; of more their number is told."""


def sentence_of(found: Comparison) -> str:
    """Return which objective is best and whether that is sure: one sentence for each task, and one for their ranks."""
    told = []
    for task in found.tasks:
        rows = [row for row in found.objectives if row.task == task]
        told.append(f"{f'{task}: ' if task else ''}{_of_task(rows, found)}")
    if found.ranks and found.ranks[0].mean is not None:
        first = found.ranks[0]
        least = [rank.label for rank in found.ranks if rank.mean == first.mean]
        name = " and ".join(least) if len(least) <= NAMED else f"{len(least)} objectives"
        ends = "" if first.low is None or len(least) > 1 else f"{first.low:.3g} to {first.high:.3g}"
        over = f" ({100 * found.level:g} % interval {ends})" if ends else ""
        told.append(
            f"Over {len(found.tasks)} tasks {name} {'has' if len(least) == 1 else 'share'} the least mean rank, "
            f"{first.mean:.3g}{over}."
        )
    return " ".join(told) or "nothing is known of these runs."


def _of_task(rows: Sequence[Objective], found: Comparison) -> str:
    best, others = rows[0], rows[1:]
    if best.n == 0:
        runs = sum(len(row.points) for row in rows)
        return f"none of {runs} runs has a {found.score or 'score'}, so nothing is compared."
    name, figure = ("it" if best.label == ONLY else best.label), f"{found.score} ({described(best, found.level)})"
    lost = _lost(best)
    if not others:
        return f"there is one configuration only, so nothing is compared: its {figure}{lost}."
    tied = [row for row in others if row.verdict == "tied"]
    worse = [row for row in others if row.verdict == "worse"]
    untested = [row for row in others if row.verdict == "untested"]
    dead = [row for row in others if row.verdict == "no value"]
    if not tied and not worse:
        single = (
            "one seed each" if all(row.n <= 1 for row in rows) else "one seed of it" if best.n == 1 else "their seeds"
        )
        if untested:
            return (
                f"{name} has the best {figure}, but with {single} nothing is sure: train more (seed=0,1,2)"
                f"{_dead(dead)}{lost}."
            )
        return f"{name} is the only one with a value: {figure}{_dead(dead)}{lost}."
    parts = []
    if tied:
        parts.append(f"{_names(tied)} cannot be told from it ({_p(tied)} after Holm)")
    if untested:
        parts.append(f"{_names(untested)} {'has' if len(untested) == 1 else 'have'} too few seeds for a test")
    if worse:
        of_all = "all " if len(worse) > 1 and not tied and not untested else ""
        which = f"{of_all}{len(worse)} others are" if len(worse) > NAMED else f"{_names(worse)} {_is(worse)}"
        parts.append(f"{which} worse ({_p(worse)}{'' if tied else ' after Holm'})")
    sure = not tied and not untested
    head = f"{name} is best in {figure}" if sure else f"{name} has the best {figure}, which is not sure"
    return f"{head}: {'; '.join(parts)}{_dead(dead)}{lost}."


def described(row: Objective, level: float) -> str:
    """Return a row's figure in words: mean, interval, seeds."""
    seeds = "1 seed" if row.n == 1 else f"{row.n} seeds"
    if row.low is None or row.high is None or row.mean is None:
        return f"{row.mean:.4g}, {seeds}"
    mean, low, high = rounded(row.mean, row.low, row.high)
    return f"{mean}, {100 * level:g} % interval {low} to {high}, {seeds}"


def rounded(mean: float, low: float, high: float) -> tuple[str, str, str]:
    """Return a mean and its interval to two digits of the interval's half width."""
    half = (high - low) / 2
    if not 0 < half < float("inf"):
        return (f"{mean:.4g}",) * 3
    exponent = int(f"{half:.1e}".partition("e")[2])
    if not -5 <= exponent <= 5 or abs(mean) >= 1e7:
        return f"{mean:.3g}", f"{low:.3g}", f"{high:.3g}"
    places = max(0, 1 - exponent)
    return f"{mean:.{places}f}", f"{low:.{places}f}", f"{high:.{places}f}"


def p_value(p: float) -> str:
    """Return a p-value to two digits; of a very small one that it is."""
    return f"{p:.2g}" if p >= 0.0001 else "< 0.0001"


def _p(rows: Sequence[Objective]) -> str:
    values = [row.p for row in rows if row.p is not None]
    least, most = p_value(min(values)), p_value(max(values))
    if least == most:
        return f"p {least}"
    return f"p {least} to {most}" if not least.startswith("<") else f"p at most {most}"


def _names(rows: Sequence[Objective]) -> str:
    if len(rows) > NAMED:
        return f"{len(rows)} others"
    return " and ".join(row.label for row in rows)


def _is(rows: Sequence[Objective]) -> str:
    return "is" if len(rows) == 1 else "are"


def _dead(rows: Sequence[Objective]) -> str:
    return f"; {_names(rows)} {'has' if len(rows) == 1 else 'have'} no value" if rows else ""


def _lost(row: Objective) -> str:
    """Return how many of a row's runs are not in its mean."""
    without = len(row.points) - sum(p.value is not None and abs(p.value) < float("inf") for p in row.points)
    return f"; {without} of its {len(row.points)} runs {_have(without)} no value" if without else ""


def _have(number: int) -> str:
    return "has" if number == 1 else "have"
