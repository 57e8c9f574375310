"""Laws that every metric and auxiliary obeys, on any object; and those of divergences and models under one name.

``check_metric``, ``check_auxiliary``, ``check_divergence`` and ``check_model`` raise with the name of every law that
fails and its numbers; :func:`parametrize_with_laws` hands the laws of any of them to pytest, one test each.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from divergences.absent import Absent
from divergences.base import Divergence
from divergences.checks import check_divergence, divergence_laws
from divergences.checks.running import CheckError, Laws, parametrize, run
from models.base import Model
from models.checks import check_model, model_laws
from se_framework.checks.auxiliary import Case
from se_framework.checks.auxiliary import laws as laws_of_auxiliary
from se_framework.checks.metric import metric_laws
from se_framework.equation.auxiliary import Auxiliary
from se_framework.equation.metric import Metric

__all__ = [
    "CheckError", "auxiliary_laws", "check_auxiliary", "check_divergence", "check_metric", "check_model",
    "divergence_laws", "metric_laws", "model_laws", "parametrize_with_laws",
]  # fmt: skip


def laws_of(subject: Any) -> Laws:
    """Yield the laws of a divergence, model, metric, or a pair (auxiliary, divergence)."""
    if isinstance(subject, Divergence):
        return divergence_laws(subject)
    if isinstance(subject, Model):
        return model_laws(subject)
    if isinstance(subject, Metric):
        return metric_laws(subject)
    if isinstance(subject, tuple):
        return auxiliary_laws(*subject)
    raise TypeError(f"laws are known of a Divergence, Model, Metric or (Auxiliary, Divergence), got {subject!r}")


def parametrize_with_laws(subjects: Iterable[Any]) -> Any:
    """Return a pytest decorator: the test gets one law at a time, a callable, as its argument ``law``.

    Args:
        subjects: divergences, models, metrics and pairs (auxiliary, divergence).
    """
    return parametrize(subjects, laws_of)


# -- auxiliaries ------------------------------------------------------------------------------------------------------


def auxiliary_laws(auxiliary: Auxiliary, divergence: Divergence | None = None) -> Laws:
    """Yield name and law for every law of a q-step with a divergence it is legal with, on a finite alphabet."""
    divergence = Absent() if divergence is None else divergence
    if not isinstance(auxiliary, Auxiliary) or not isinstance(divergence, Divergence):
        raise TypeError(f"check_auxiliary takes an Auxiliary and a Divergence, got {auxiliary!r} and {divergence!r}")
    return laws_of_auxiliary(Case(auxiliary, divergence))


def check_auxiliary(auxiliary: Auxiliary, divergence: Divergence | None = None) -> None:
    """Run every law of a q-step that applies.

    Args:
        auxiliary: the q-step.
        divergence: a D it is legal with: one with a dual, with a primal, or of the form CE - c H; None for an auxiliary
            that needs none.

    Raises:
        CheckError: a law fails; the message names all that do, with the numbers.
        TypeError: other objects.
    """
    run(auxiliary, auxiliary_laws(auxiliary, divergence))


# -- metrics ----------------------------------------------------------------------------------------------------------


def check_metric(metric: Metric, event_shape: tuple[int, ...] | None = None) -> None:
    r"""Run every law that applies, on copies in float64.

    Args:
        metric: the object; it is left as it is.
        event_shape: E; None where the network has an ``event_shape``.

    Raises:
        CheckError: a law fails; the message names all that do, with the numbers.
        TypeError: no metric.
        ValueError: the shape of an example is not known.
    """
    run(getattr(metric, "network", metric), metric_laws(metric, event_shape))
