r"""Are two laws the same? The critic that was trained to tell them apart, on rows that it has not seen.

The statistic is :math:`\overline{v(x)} - \overline{v(y)}` over held-out points of both. Given the critic these are
exchangeable where the laws are equal, so its place among the same statistic of points dealt anew is a p-value that is
exact at any number of points (Lopez-Paz, Oquab, "Revisiting classifier two-sample tests", ICLR 2017; dealt at random
the smallest is 1 / (deals + 1): Phipson, Smyth 2010).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from se_framework.assembly import Assembly
from se_framework.equation.modes import evaluating
from se_framework.randomness import Stream, generator
from se_framework.training.draws import in_type, like

DEALS = 999


def two_sample_test(assembly: Assembly, n: int, seed: int) -> dict[str, Any] | None:
    """Return the p-value of equal laws as an entry; None where p is no law of the data's, or no critic scores both.

    Args:
        assembly: trained objects.
        n: points of each law at most.
        seed: of the deals.
    """
    equation, data = assembly.equation, assembly.data
    if not equation.model.needs_reference or equation.metric is None or not equation.auxiliary.has_scores:
        return None
    kind = like(equation)
    x = in_type(data.held_out(n, seed, kind.device), equation, kind)
    with torch.no_grad(), evaluating(equation, seed=seed):
        stream = Stream(seed, 1, "held-out", kind.device, kind.dtype)
        p = equation.particles(equation.draws(len(x.x), stream))
        if p is None or p.log_weights is not None:
            return None
        of_x, of_y = (v.double().cpu() for v in equation.metric.on_both(x, p))
    value = p_value(of_x, of_y, seed)
    said = f"p-value of equal laws: the critic's mean on {len(of_x)} held-out points of one less that on {len(of_y)}"
    return {"value": value, "n": len(of_x) + len(of_y), "seed": seed, "unit": "probability", "bound": said}


def p_value(of_x: Tensor, of_y: Tensor, seed: int) -> float:
    """Return the share of deals, the true one included, whose difference of means is at least that of the true one.

    Args:
        of_x: statistics of points, shape (N,).
        of_y: shape (M,).
        seed: of the deals.
    """
    both, draw = torch.cat([of_x, of_y]), generator(seed, 0, "two_samples")
    # The difference of means grows with the sum over the first; a deal at a time, so that memory is that of one.
    deals = (torch.randperm(len(both), generator=draw)[: len(of_x)] for _ in range(DEALS))
    sums = torch.stack([both[deal].sum() for deal in deals])
    # The true sum is formed in another order: what is equal up to rounding counts as equal.
    slack = 8 * torch.finfo(torch.float64).eps * float(both.abs().sum())
    return (1 + int((sums >= of_x.sum() - slack).sum())) / (DEALS + 1)
