"""The failures a user can meet, each one sentence long: what, what was got, what to do.

They derive from Hydra's compact exception, so a command prints the sentence without a traceback, exits with code 1,
and lets the other jobs of a sweep go on; ``HYDRA_FULL_ERROR=1`` shows the traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hydra.errors import CompactHydraException

LONGEST = 1200
"""Characters of a sentence: what a file holds may be longer, and is cut."""


def printable(text: str, longest: int | None = LONGEST) -> str:
    """Return a text as it may be shown: files of strangers hold escapes that command a terminal, and more than a page.

    Args:
        text: any; line breaks and tabs stay, other characters that are not printable are written as Python does.
        longest: characters; the middle of a longer text is left out. None leaves all.
    """
    if longest is not None and len(text) > longest:
        head, tail = 2 * longest // 3, longest // 4
        text = f"{text[:head]} [{len(text) - head - tail} characters] {text[-tail:]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


class SEError(CompactHydraException):
    """Base of every error the framework raises on purpose; its sentence is :func:`printable`."""

    def __init__(self, sentence: object = "") -> None:
        super().__init__(printable(str(sentence)))


class ConfigError(SEError, ValueError):
    """A key, a type or a target in the configuration is wrong."""


class IncompatibleError(SEError, ValueError):
    """The chosen divergence, metric, auxiliary, model and data do not form a legal equation."""


class DataError(SEError, ValueError):
    """The data is missing or malformed."""


@dataclass(frozen=True)
class StepRecord:
    """A player's step, and where it failed, how.

    Attributes:
        player: whose step it was.
        round: the round, from 0.
        step: the player's step within the round, from 0.
        start: examples of data that came before its batch.
        batch_size: examples, and model samples.
        term: what is not finite; empty where the step could not be evaluated.
        value: its value.
        terms: everything that was checked in that step, by name, in the order of evaluation.
        source: what a diagnosis found to be the first that is not finite, in words.
    """

    player: str
    round: int
    step: int
    start: int
    batch_size: int
    term: str = ""
    value: float = float("nan")
    terms: Mapping[str, float] = field(default_factory=dict)
    source: str = ""

    @property
    def place(self) -> str:
        """Return player, round and step in words."""
        return f"player {self.player}, round {self.round}, step {self.step}"


class NonFiniteError(SEError, ArithmeticError):
    """A term of the equation, a penalty or a gradient is not finite.

    Attributes:
        record: where and how, if it happened while training.
    """

    record: StepRecord | None = None


class StepError(SEError, ValueError):
    """A player's step could not be evaluated.

    Attributes:
        record: where.
    """

    record: StepRecord | None = None


class CallbackError(SEError, RuntimeError):
    """A callback raised; the round was finished and saved, so the run can go on."""


class RunDirectoryError(SEError, OSError):
    """A run directory is missing, occupied or unreadable."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean X?"`` or the list of known names, to be appended to a message."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names)}" if names else "none is known"
