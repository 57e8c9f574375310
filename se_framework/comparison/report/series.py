"""Lines of a chart: columns of a run's table as numbers, thinned where there are more than an eye tells apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

CLOCK = ("round", "member", "samples", "seconds", "samples_per_second")
"""Columns that are no curve."""
MOST_MEMBERS = 64
"""Members of an ensemble that are shown."""
DIGITS = 6
"""Significant digits of a number in a page: a pixel is a thousandth of a chart."""


class Series(NamedTuple):
    """One line.

    Attributes:
        rounds: shape (n,), ascending as they were logged.
        values: shape (n,); NaN and infinities stay.
        member: of an ensemble, whose line it is.
    """

    rounds: np.ndarray
    values: np.ndarray
    member: int | None = None


def numeric(rows: Sequence[dict[str, str]], skipped: Iterable[str] = CLOCK) -> dict[str, list[Series]]:
    """Return every column of numbers as one line; cells that are empty were not recorded and are left out."""
    found: dict[str, list[Series]] = {}
    for name in rows[0] if rows else ():
        if not name or name in skipped:
            continue
        cells = [(row["round"], row[name]) for row in rows if row[name]]
        try:
            pairs = np.array([(float(r), float(v)) for r, v in cells])
        except ValueError:
            continue
        if len(pairs):
            found[name] = [Series(pairs[:, 0], pairs[:, 1])]
    return found


def by_member(rows: Sequence[dict[str, str]]) -> dict[str, list[Series]]:
    """Return every column of numbers as a line for each member, in the order of members."""
    apart: dict[int, list[dict[str, str]]] = {}
    for row in rows:
        apart.setdefault(int(float(row["member"])), []).append(row)
    found: dict[str, list[Series]] = {}
    for k in sorted(apart)[:MOST_MEMBERS]:
        for name, (line,) in numeric(apart[k]).items():
            found.setdefault(name, []).append(line._replace(member=k))
    return found


class Band(NamedTuple):
    """Several lines as one: at each round the mean, the least and the greatest of the finite values, and how many."""

    rounds: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    present: np.ndarray


def band(lines: Sequence[Series]) -> Band:
    """Return the band of several lines; a round at which no value is finite holds NaN."""
    rounds = np.unique(np.concatenate([line.rounds for line in lines]))
    values = np.full((len(lines), len(rounds)), np.nan)
    for k, line in enumerate(lines):
        values[k, np.searchsorted(rounds, line.rounds)] = line.values
    finite = np.isfinite(values)
    count = finite.sum(0)
    some = count > 0
    mean = np.where(some, np.where(finite, values, 0).sum(0) / np.maximum(count, 1), np.nan)
    low = np.where(some, np.where(finite, values, np.inf).min(0), np.nan)
    high = np.where(some, np.where(finite, values, -np.inf).max(0), np.nan)
    return Band(rounds, mean, low, high, count)


def thinned(values: np.ndarray, most: int) -> np.ndarray:
    """Return the indices of at most ``most`` points that keep a line's look: of each stretch its ends and extremes.

    Args:
        values: shape (n,); where they are not finite the line has a gap, which stays one.
        most: points, at least 4.
    """
    n = len(values)
    if n <= most:
        return np.arange(n)
    kept = {0, n - 1}
    edges = np.linspace(0, n, max(1, most // 4) + 1).astype(int)
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        part = values[start:end]
        finite = np.flatnonzero(np.isfinite(part))
        if len(finite) < len(part):
            kept.add(start + int(np.flatnonzero(~np.isfinite(part))[0]))
        if len(finite):
            kept |= {start + int(finite[part[finite].argmin()]), start + int(finite[part[finite].argmax()])}
        kept.add(int(start))
    return np.array([*sorted(kept - {n - 1})[: most - 1], n - 1])


def short(values: Iterable[Any]) -> list[float | int | None]:
    """Return numbers with :data:`DIGITS` significant digits, None where JSON has none (NaN, infinities)."""
    found: list[float | int | None] = []
    for value in values:
        number = float(value)
        if not math.isfinite(number):
            found.append(None)
        else:
            rounded = float(f"{number:.{DIGITS}g}")
            found.append(int(rounded) if rounded.is_integer() and abs(rounded) < 2**53 else rounded)
    return found


def spans(values: np.ndarray) -> bool:
    """Whether a line is drawn on a logarithmic scale: its finite values are positive and span three powers of ten."""
    good = values[np.isfinite(values)]
    return bool(len(good) and good.min() > 0 and good.max() > 1e3 * good.min())
