r"""Scores of a model with a density: held-out log-likelihood, and divergences from a known density.

* ``nll``: :math:`-\frac1n\sum_i\log p_\theta(x_i)` over held-out data, in nats, given the labels where there are some.
* ``bits_per_dim``: ``nll`` of dequantised values, of one step and per coordinate, see :func:`bits_per_dim`.
* ``kl``: :math:`KL(p_d\|p_\theta)`, the mean of :math:`\log p_d(x)-\log p_\theta(x)` over the same points where p_d has
  a density; else ``nll`` less the law's entropy (given its labels where there are some).
* ``reverse_kl``: :math:`KL(p_\theta\|p_d)`, the mean of :math:`\log p_\theta(x)-\log p_d(x)` over the model's samples.

Means of independent terms, so the error is their spread over the root of n. The terms of one point are subtracted
before they are averaged: where the densities are near each other, their difference hardly varies.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from se_framework.data.base import Data

LogProb = Callable[..., Tensor]
NUMBERS = 2**20
"""Numbers of examples whose densities are computed together."""


class Mean(NamedTuple):
    """A mean of independent terms.

    Attributes:
        value: the mean.
        se: its standard error; NaN of a single term.
        n: how many terms.
    """

    value: float
    se: float
    n: int


def mean(terms: Tensor) -> Mean:
    """Return the mean of terms, (n,), and its error."""
    n = len(terms)
    return Mean(float(terms.mean()), float(terms.std() / n**0.5) if n > 1 else float("nan"), n)


class Held:
    """Held-out points, in model space, and the model's log-density at them in user units.

    Args:
        data: whose points.
        model_log_prob: in model space, see :func:`se_framework.evaluation.scores.scores`.
        points: at most.
        seed: of the draw.
    """

    def __init__(self, data: Data, model_log_prob: LogProb, points: int, seed: int) -> None:
        held_out = data.held_out(min(points, 32 * max(1, NUMBERS // torch.Size(data.event_shape).numel())), seed)
        self.data, self.x, self.labels = data, held_out.x, held_out.context
        self.log_prob = log_density(data, model_log_prob, self.x, self.labels)

    @property
    def n(self) -> int:
        """How many points."""
        return len(self.x)

    def nll(self) -> Mean:
        """Return the negative log-likelihood."""
        # A density that vanishes on held-out data gives an infinite likelihood: a finding, not a failure.
        return mean(-self.log_prob)

    def kl(self, log_prob: Tensor | None = None) -> Mean:
        """Return the divergence of the law from the model, or from one with these log-densities in user units, (n,)."""
        found = self.log_prob if log_prob is None else log_prob
        if self.labels is None and self.data.has_log_prob:
            return mean(self.data.log_prob(self.data.to_user(self.x.double())).cpu() - found)
        entropy = entropy_of(self.data, self.labels)
        assert entropy is not None
        return mean(-found - entropy)


def bits_per_dim(nll: float, data: Data) -> float:
    r"""Return a negative log-likelihood, in nats and user units, in bits per coordinate of the dequantised values.

    .. math:: \frac{1}{d\log 2}\Bigl(\text{nll}-\sum_i\log w_i\Bigr),

    w the width of the noise: at least the bits that coding the values themselves takes per coordinate (Theis, van den
    Oord, Bethge, "A note on the evaluation of generative models", ICLR 2016, eq. 4). A law that is even over K levels
    of every coordinate has log2 K.
    """
    assert data.level_width is not None
    width = torch.as_tensor(data.level_width, dtype=torch.float64).expand(data.event_shape)
    return (nll - float(width.log().sum())) / (width.numel() * math.log(2))


def entropy_of(data: Data, labels: Tensor | None) -> float | None:
    """Return the entropy that a likelihood is compared with: given the labels where models read some."""
    return data.entropy if labels is None else data.conditional_entropy


def log_density(data: Data, model_log_prob: LogProb, x: Tensor, labels: Tensor | None) -> Tensor:
    """Return the model's log-density in user units at points of model space, shape (n,), float64 on the CPU.

    Raises:
        ValueError: it is not one number per point.
    """
    part = max(1, min(2_000, NUMBERS // x[0].numel()))
    pieces = [x.split(part)] if labels is None else [x.split(part), labels.split(part)]
    found = torch.cat([model_log_prob(*piece).detach().cpu().double() for piece in zip(*pieces, strict=True)])
    if found.shape != (len(x),):
        raise ValueError(f"model_log_prob must return one number per point: ({len(x)},), got {tuple(found.shape)}")
    return found - data.log_slope(x).cpu()
