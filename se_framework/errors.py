"""The failures a user can meet, each one sentence long: what, what was got, what to do.

They derive from Hydra's compact exception, so a command prints the sentence without a traceback, exits with code 1,
and lets the other jobs of a sweep go on; ``HYDRA_FULL_ERROR=1`` shows the traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from hydra.errors import CompactHydraException


class SEError(CompactHydraException):
    """Base of every error the framework raises on purpose."""


class ConfigError(SEError, ValueError):
    """A key, a type or a target in the configuration is wrong."""


class IncompatibleError(SEError, ValueError):
    """The chosen divergence, metric, auxiliary, model and data do not form a legal equation."""


class DataError(SEError, ValueError):
    """The data is missing or malformed."""


class NonFiniteError(SEError, ArithmeticError):
    """A term of the equation, a penalty or a gradient is not finite."""


class StepError(SEError, ValueError):
    """A player's step could not be evaluated."""


class RunDirectoryError(SEError, OSError):
    """A run directory is missing, occupied or unreadable."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean X?"`` or the list of known names, to be appended to a message."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names)}" if names else "none is known"
