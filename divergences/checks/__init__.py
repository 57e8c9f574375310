"""Laws that every divergence obeys, to be run on any object: ours, or a user's own.

.. code-block:: python

    check_divergence(MyDivergence())  # raises with the name of every law that fails, and its numbers

    @parametrize_with_laws([MyDivergence(), FDivergence(lambda u: (u - 1) ** 2)])
    def test_my_divergences(law):
        law()

A law reads what the object declares (``symmetric``, ``critic_reads``, ``sample_bias``, ...) and compares its methods
with each other or with what shares no code with them: differences, direct search, linear programs, enumeration. All is
deterministic, in float64 where it is not about types, and takes about a second.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from divergences.base import Divergence
from divergences.checks import alphabet, dual, primal, samples
from divergences.checks.running import CheckError, Laws, parametrize, run

__all__ = ["CheckError", "check_divergence", "divergence_laws", "parametrize_with_laws"]


def divergence_laws(divergence: Divergence) -> Laws:
    """Yield name and law, a callable without arguments, for every law that applies to what the object declares."""
    if not isinstance(divergence, Divergence):
        raise TypeError(f"check_divergence takes an instance of Divergence, got {divergence!r}: build one first")
    yield from alphabet.laws(divergence)
    yield from dual.laws(divergence)
    yield from primal.laws(divergence)
    yield from samples.laws(divergence)


def check_divergence(divergence: Divergence) -> None:
    """Run every law that applies.

    Args:
        divergence: the object.

    Raises:
        CheckError: a law fails; the message names all that do, with the numbers.
        TypeError: no divergence.
    """
    run(divergence, divergence_laws(divergence))


def parametrize_with_laws(divergences: Iterable[Divergence]) -> Any:
    """Return a pytest decorator: the test gets one law at a time as its argument ``law``."""
    return parametrize(divergences, divergence_laws)
