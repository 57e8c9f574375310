"""A choice of parts, and what may be wrong with it: what the rules of legality read and say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Choice(NamedTuple):
    """The parts of an equation: instances, or classes where nothing shall be built yet.

    ``views`` are the divergences through which single players look at the critic, by name; ``dimension`` is the number
    of coordinates of the data, None when unknown; ``classes`` the number of classes of its labels, 0 without labels;
    ``pairs`` what the model declares of it.
    """

    model: Any
    divergence: Any
    auxiliary: Any
    metric: Any
    alpha: float
    beta: float
    views: Mapping[str, Any] = {}  # noqa: RUF012  never written to
    dimension: int | None = None
    classes: int = 0
    pairs: int | None = None


class Problem(NamedTuple):
    """What is wrong, and what must change: another choice of one of these parts, or a key's value (``KEY=VALUE``).

    ``views`` are the players whose view may be another one.
    """

    text: str
    parts: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    views: tuple[str, ...] = ()


class Violation(NamedTuple):
    """A broken rule: its name, and what is wrong."""

    rule: str
    problem: Problem


def name_of(part: Any) -> str:
    """Return the class name of a part, instance or class."""
    return part.__name__ if isinstance(part, type) else type(part).__name__


def show(part: Any) -> str:
    """Return a part's class with what it shows of itself."""
    return "none" if part is None else f"{name_of(part)}({part.extra_repr() if hasattr(part, 'extra_repr') else ''})"
