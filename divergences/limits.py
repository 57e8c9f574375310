"""The two limits of a generator: what a unit of mass costs where the other law has none."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

EXPONENTS = (9, 18, 36, 72, 144, 288)
"""u = 10^-k: each probe is the square of the one before, so a power settles and a logarithm doubles its steps."""


def limit_at_zero(h: Callable[[Tensor], Tensor]) -> float:
    r"""Return :math:`h(0) = \lim_{u\to0}h(u)`, possibly inf, for a convex h.

    By h(0) itself where that is a number; by probes down to u = 1e-288 where it is not (0 log 0 as users write it).

    Raises:
        ValueError: the probes neither settle nor grow without end.
    """
    at_zero = float(h(torch.zeros((), dtype=torch.float64)))
    return at_zero if at_zero == at_zero else _limit(h)


def slope_at_infinity(h: Callable[[Tensor], Tensor]) -> float:
    r"""Return :math:`h'(\infty) = \lim_{u\to\infty}h(u)/u`, possibly inf, for a convex h, by probes up to u = 1e288.

    Raises:
        ValueError: the probes neither settle nor grow without end.
    """
    return _limit(lambda u: h(1 / u) * u)


def _limit(g: Callable[[Tensor], Tensor]) -> float:
    probes = [float(g(torch.tensor(10.0**-k, dtype=torch.float64))) for k in EXPONENTS]
    finite = probes[: next((i for i, x in enumerate(probes) if not math.isfinite(x)), len(probes))]
    steps = [abs(b - a) for a, b in zip(finite, finite[1:], strict=False)]
    if steps and steps[-1] <= 1e-9 * max(1.0, abs(finite[-1])):
        return finite[-1]  # also where squares on the way overflow before the end
    # A convex function that does not settle goes to +inf: u log u by steps that double, powers by larger ones. The
    # powers u^c with 1 - c below 0.03 do neither within the range of float64.
    if not steps or (steps[-1] >= 1 and (len(steps) < 2 or steps[-1] >= steps[-2])):
        return math.inf
    raise ValueError(
        f"the generator's limit cannot be told from its values {finite} at u = 10^-k, k = {EXPONENTS}: write a "
        "subclass of FDivergence that declares `supremum`, h'(inf)"
    )
