"""Claims: statements of the theory, each checked by setting the objects that train beside an independent computation.

A claim is a generator function under the decorator :func:`claim`; it yields one :class:`Comparison` after another. A
module of claims, ours or a user's, is any module that has some: ``se-verify --claims my_module``.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

TOLERANCE = 1e-6
"""Relative error of a value or gradient in float64, of the size of max(1, largest entry)."""
RATE_TOLERANCE = 0.05
"""Relative error of a fitted exponent."""
FALSE_ALARM = 1e-3
"""Probability that any statistical comparison of all the claims fails though every one is right."""
STATISTICAL_COMPARISONS = 100
"""Upper bound of their number, over which the false alarms are spread (Bonferroni)."""


class Comparison(NamedTuple):
    """One measurement of a claim.

    Attributes:
        label: which case.
        error: how far the two sides are apart; NaN counts as a failure.
        tolerance: how far they may be.
        unit: what the error is counted in: ``relative``, ``exponent`` or ``sigma``.
        ours: our number, where the two sides differ most.
        theirs: the other number there.
    """

    label: str
    error: float
    tolerance: float
    unit: str = "relative"
    ours: float | None = None
    theirs: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the error is within the tolerance."""
        return bool(self.error <= self.tolerance)


def array(value: Any) -> np.ndarray:
    """Return a number, array or tensor as a float64 array."""
    return np.asarray(value.detach().cpu() if torch.is_tensor(value) else value, dtype=np.float64)


def equal(label: str, ours: Any, theirs: Any, tolerance: float = TOLERANCE) -> Comparison:
    r"""Compare two values of the same shape: :math:`\max|a-b| / \max(1, \max|b|)`."""
    a, b = array(ours), array(theirs)
    if a.shape != b.shape:
        return Comparison(f"{label}: shapes {a.shape} and {b.shape}", math.nan, tolerance)
    return Comparison(
        label,
        float(np.max(np.abs(a - b)) / max(1.0, float(np.max(np.abs(b))))),
        tolerance,
        "relative",
        *_worst(a, b, np.abs(a - b)),
    )


def at_most(label: str, ours: Any, theirs: Any, tolerance: float = TOLERANCE) -> Comparison:
    r"""Compare two values that should be ordered, :math:`a\le b`: the error is by how much they are not."""
    a, b = array(ours), array(theirs)
    error = float(np.max(np.maximum(a - b, 0)) / max(1.0, float(np.max(np.abs(b)))))
    return Comparison(label, error, tolerance, "relative", *_worst(a, b, a - b))


def _worst(a: np.ndarray, b: np.ndarray, gap: np.ndarray) -> tuple[float, float]:
    """Return the pair of numbers at the largest gap."""
    a, b, gap = np.broadcast_arrays(a, b, gap)
    at = int(np.argmax(np.nan_to_num(gap, nan=np.inf)))
    return float(a.flat[at]), float(b.flat[at])


def rate(label: str, at: Sequence[float] | np.ndarray, gaps: Sequence[Any], exponent: float) -> Comparison:
    r"""Fit :math:`\log|\text{gap}| = c + e\log|\text{at}|` and compare e with the exponent of the theory."""
    fitted = np.polyfit(np.log(np.abs(at)), np.log(np.abs([float(array(g)) for g in gaps])), 1)[0]
    error = abs(float(fitted) / exponent - 1)
    return Comparison(f"{label}, {fitted:+.3f}", error, RATE_TOLERANCE, "exponent", float(fitted), exponent)


def sampled(label: str, ours: Any, standard_error: float, theirs: float) -> Comparison:
    """Compare an estimate with the truth, in standard errors."""
    limit = -torch.special.ndtri(torch.tensor(FALSE_ALARM / (2 * STATISTICAL_COMPARISONS), dtype=torch.float64))
    number = float(array(ours))
    return Comparison(label, abs(number - theirs) / standard_error, float(limit), "sigma", number, float(theirs))


@dataclass(frozen=True)
class Claim:
    """A statement, where it is from, and the function that measures it.

    Attributes:
        name: the function's name.
        statement: the statement, in words and formulas.
        source: paper and equation.
        measure: yields comparisons.
        module: where it stands.
    """

    name: str
    statement: str
    source: str
    measure: Callable[[], Iterable[Comparison]]
    module: str


class Verdict(NamedTuple):
    """What was measured of a claim.

    Attributes:
        claim: the claim.
        comparisons: all of them, in order.
        failure: the exception's text, if it raised.
        seconds: wall time.
    """

    claim: Claim
    comparisons: list[Comparison]
    failure: str | None
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether something was compared and all of it agreed."""
        return self.failure is None and bool(self.comparisons) and all(c.holds for c in self.comparisons)

    @property
    def worst(self) -> Comparison | None:
        """Return the comparison nearest to its tolerance, or farthest beyond."""

        def share(c: Comparison) -> float:
            return math.inf if math.isnan(c.error) else c.error / c.tolerance

        return max(self.comparisons, key=share, default=None)

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON-ready values."""
        rows = [{**c._asdict(), "holds": c.holds} for c in self.comparisons]
        of_claim = {"name": self.claim.name, "statement": self.claim.statement, "source": self.claim.source}
        return {**of_claim, "holds": self.holds, "failure": self.failure, "seconds": self.seconds, "comparisons": rows}


def claim(statement: str, source: str) -> Callable[[Callable[[], Iterator[Comparison]]], Claim]:
    """Make a claim of a generator function that yields comparisons."""

    def wrap(measure: Callable[[], Iterator[Comparison]]) -> Claim:
        return Claim(measure.__name__, statement, source, measure, measure.__module__)

    return wrap


def collect(module: ModuleType) -> list[Claim]:
    """Return the claims that a module defines, in the order of its lines."""
    return [c for c in vars(module).values() if isinstance(c, Claim) and c.module == module.__name__]


def chosen(claims: Iterable[Claim], pattern: str | None) -> list[Claim]:
    """Return the claims whose name, statement or source match a regular expression (any case)."""
    if pattern is None:
        return list(claims)
    wanted = re.compile(pattern, re.IGNORECASE)
    return [c for c in claims if wanted.search(f"{c.module}.{c.name} {c.statement} {c.source}")]


def check(this: Claim, device: str = "cpu", seed: int = 0) -> Verdict:
    """Measure a claim in float64 on a device; what it raises is its failure, not ours."""
    started, before = time.monotonic(), torch.get_default_dtype()
    found: list[Comparison] = []
    failure = None
    torch.set_default_dtype(torch.float64)
    try:
        with torch.random.fork_rng(), torch.device(device):
            torch.manual_seed(seed)
            for comparison in this.measure():
                if not isinstance(comparison, Comparison):
                    kind = type(comparison).__name__
                    raise TypeError(f"it yields a {kind}, not a comparison: yield equal(...), at_most(...), rate(...)")
                found.append(comparison)
    except Exception as error:  # a broken claim is a failed claim; the others go on
        failure = f"{type(error).__name__}: {error}"
    finally:
        torch.set_default_dtype(before)
    return Verdict(this, found, failure, time.monotonic() - started)
