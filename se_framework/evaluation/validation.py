"""Scores over validation points, by which early stopping chooses a state: held-out points stay unseen until the end."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig

from se_framework.assembly import Assembly
from se_framework.data import Data
from se_framework.equation.modes import evaluating
from se_framework.errors import ConfigError
from se_framework.evaluation.evaluate import VALIDATION, evaluate, refuse_absent
from se_framework.evaluation.losses import loss_of
from se_framework.training.draws import in_type, like
from se_framework.training.early_stop import EarlyStop
from se_framework.training.state import TrainState

POINTS = 2_000
"""Validation points, and samples, at most."""


def early_stop_of(assembly: Assembly) -> EarlyStop | None:
    """Return what stops a run early, as its configuration wants it; None where nothing does."""
    name, patience = assembly.config.loop.early_stop, assembly.config.loop.patience
    if name is None:
        return None
    measure = partial(_nll, assembly.data) if name == "nll" else partial(_score, assembly, name)
    return EarlyStop(name, measure, patience)


def validated(assembly: Assembly) -> dict[str, Any] | None:
    """Return the entry ``validation``: the score of the state that is kept, as a loss over validation points.

    None for a run without ``loop.early_stop``, or whose score was never finite. Choosing a run by it, as a sweep does
    with ``score=validation``, leaves the held-out points unseen.
    """
    best, name = assembly.state.best, assembly.config.loop.early_stop
    if best is None or name is None:
        return None
    n = len(assembly.data.validation(POINTS).x)
    return {"value": best.value, "n": n, "seed": 0, "better": "lower", "chosen_by": name}


def refuse_unvalidated(config: DictConfig) -> None:
    """Refuse ``score=validation`` of a run that looks at no validation points.

    Raises:
        ConfigError: see above.
    """
    if config.score == VALIDATION and config.loop.early_stop is None:
        raise ConfigError(
            "score=validation: this run looks at no validation points: set loop.early_stop to a score, e.g. w2 (and "
            "loop.patience=1000000 to look at the last round alone)"
        )


def _nll(data: Data, state: TrainState) -> float:
    """Return the mean negative log-likelihood in nats, in the units of the user."""
    equation, kind = state.current(), like(state.equation)
    points = in_type(data.validation(POINTS, kind.device), equation, kind)
    with torch.no_grad(), evaluating(equation.model):
        log_prob = equation.model(points.context).log_prob(points.x)
    return float((data.log_slope(points.x) - log_prob.double()).mean())


def _score(assembly: Assembly, name: str, state: TrainState) -> float:
    """Return what ranks any other score, least first, by validation points in the place of held-out ones."""
    seen = copy.copy(state)
    seen.best = None
    found = evaluate(replace(assembly, state=seen, data=_judged_by_validation(assembly.data)), POINTS, 0, (name,))
    if "value" not in found.get(name, {}):
        refuse_absent(assembly, name, "loop.early_stop")
        why = "; ".join(dict.fromkeys(entry["why"] for entry in found.values() if "why" in entry))
        raise ConfigError(f"loop.early_stop={name}: it cannot be computed here ({why}): choose another score")
    return loss_of(found[name])


def _judged_by_validation(data: Data) -> Data:
    """Return a copy of the data whose held-out points are its validation points."""
    found = copy.copy(data)
    found.held_out = lambda n, seed=0, device="cpu": data.validation(n, device)  # type: ignore[method-assign]
    return found
