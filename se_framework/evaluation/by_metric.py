r"""A trained metric as a measure: T of its own equation, with the samples of another model in the place of p_theta's.

.. math:: T = \min_q\{-\alpha H(q) + \beta D(q, p) - \mathbb E_q f_\phi\} + \mathbb E_{p_d} f_\phi

is what the f_phi of one run sees of the law p of another: with an unrestricted metric a lower bound of
:math:`\beta D(p_d, p)`, whoever trained it, the looser the less f_phi knows of p.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.laws import Particles
from se_framework.assembly import Assembly
from se_framework.equation.modes import evaluating
from se_framework.errors import IncompatibleError
from se_framework.evaluation.held_out import held_out_value
from se_framework.randomness import generator
from se_framework.training.draws import in_type, like

LOOKS = 2_000
"""Points at which slopes are looked at: of the data, of the samples, and between both."""


def by_metric(judge: Assembly, samples_user: Tensor, seed: int) -> dict[str, Any]:
    r"""Return what another run's metric sees of samples: an entry as a score's, with the steepest slope it met.

    ``steepest`` is a lower bound of the Lipschitz constant of the critic's output, per unit of the data.

    Args:
        judge: the run whose equation, metric and data judge.
        samples_user: in the units of the user, shape (n, \*E).
        seed: selects held-out rows.

    Raises:
        IncompatibleError: that run has no metric that scores samples alone, or its examples have another shape.
    """
    equation, data = judge.equation, judge.data
    for _, own in equation.equations():
        name = type(own.auxiliary).__name__
        if own.metric is None or not own.auxiliary.has_scores or not own.auxiliary.needs_samples(own.divergence):
            raise IncompatibleError(f"it has no f_phi that scores samples ({name}): choose a run that has a critic")
        if own.auxiliary.needs_density(own.divergence):
            raise IncompatibleError(f"its {name} reads a density at the samples, which other samples have not")
    if data.classes:
        raise IncompatibleError("its metric reads labels, and the samples have none: choose a run without labels")
    if tuple(samples_user.shape[1:]) != tuple(data.event_shape):
        raise IncompatibleError(
            f"it looks at examples of shape {tuple(data.event_shape)}, and the samples have shape "
            f"{tuple(samples_user.shape[1:])}: choose a run on the same data"
        )
    kind = like(equation)
    p = in_type(Particles(data.to_model(samples_user)), equation, kind)
    entry = held_out_value(judge, len(p.x), seed, p)
    return entry | {"steepest": _steepest(judge, p, seed)}


def _steepest(judge: Assembly, p: Particles, seed: int) -> float:
    """Return the largest slope of the metric's output among data, samples and points between, in the user's unit."""
    equation, data = judge.equation, judge.data
    x = in_type(data.held_out(LOOKS, seed, p.x.device), equation, p.x).x
    n = min(len(x), len(p.x), LOOKS)
    mix = torch.rand(n, *(1,) * (x.dim() - 1), generator=generator(seed, 0, "steepest")).to(x)
    points = torch.cat([x[:n], p.x[:n], torch.lerp(x[:n], p.x[:n], mix)])
    metric = equation.metric
    assert metric is not None
    with evaluating(equation, seed=seed):
        slopes = metric.gradient(points).detach().cpu().double() / torch.as_tensor(data.scale, dtype=torch.float64)
    return float(slopes.flatten(1).norm(dim=1).max())
