"""Scores over validation points, by which early stopping chooses a state: held-out points stay unseen until the end."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import torch

from se_framework.assembly import Assembly
from se_framework.data import Data
from se_framework.equation.modes import evaluating
from se_framework.errors import ConfigError
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


def _nll(data: Data, state: TrainState) -> float:
    """Return the mean negative log-likelihood in nats, in the units of the user."""
    equation, kind = state.current(), like(state.equation)
    points = in_type(data.validation(POINTS, kind.device), equation, kind)
    with torch.no_grad(), evaluating(equation.model):
        log_prob = equation.model(points.context).log_prob(points.x)
    return float((data.log_slope(points.x) - log_prob.double()).mean())


def _score(assembly: Assembly, name: str, state: TrainState) -> float:
    """Return what ranks any other score, least first, by validation points in the place of held-out ones."""
    from se_framework.evaluation.evaluate import evaluate, refuse_absent

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
