"""Laws of the number as data meets it: true standard errors, one answer in any unit and about any origin."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Laplace, Normal

from divergences.base import Divergence
from divergences.checks.running import Laws, close, coordinates, generator, named, normal, require, simplex
from divergences.exact import Points

FAR = 1e6
"""Standard deviations by which data are moved."""
UNITS = ((1.0, FAR), (1e-6, FAR), (1e6, 0.0))
"""Scales and shifts, the latter before scaling."""


def laws(divergence: Divergence) -> Laws:
    """Yield the laws that apply."""
    if divergence.surrogate:
        return
    yield from named(divergence, exact_in_any_unit)
    if divergence.primal_needs == "samples":
        yield from named(divergence, samples_in_any_unit, standard_error_is_the_spread, standard_error_in_float32)


# -- standard errors --------------------------------------------------------------------------------------------------


class Setting(NamedTuple):
    """How repeated samples are drawn.

    Attributes:
        n: points of q.
        m: points of p.
        apart: the difference of their means; 0: both are one law.
        ties: whether points are rounded to halves, so that many coincide.
        weighted: whether points have weights, from 1 to 4.
    """

    n: int
    m: int
    apart: float = 1.0
    ties: bool = False
    weighted: bool = False


SETTINGS = (Setting(24, 24), Setting(30, 30, ties=True), Setting(16, 32, weighted=True), Setting(24, 24, apart=0.0))


def standard_error_is_the_spread(
    divergence: Divergence, settings: tuple[Setting, ...] = SETTINGS, repeats: int | None = None
) -> None:
    r"""The standard error of estimates is that of repeats within 20 %; where q = p it may be larger.

    The root mean square of the errors against the deviation of the values, which R repeats of a normal statistic tell
    to :math:`1/\sqrt{2R}` of it: 3.3 of those are allowed besides.

    Args:
        divergence: estimated from samples.
        settings: kinds of samples; iterative solvers, which are slow, see the first alone where repeats is None.
        repeats: R; 80 by default, 16 for iterative solvers.
    """
    if repeats is None:
        repeats, settings = (16, settings[:1]) if divergence.accuracy else (80, settings)
    for setting in settings:
        found = [_estimate(divergence, setting, seed) for seed in range(repeats)]
        values, errors = (torch.stack([e[i].double() for e in found]) for i in (0, 1))
        ratio, noise = float(errors.square().mean().sqrt() / values.std()), 3.3 / math.sqrt(2 * repeats)
        most = 1.2 + noise if setting.apart else math.inf
        require(
            max(0.8 - noise, 0.1) < ratio < most,
            f"the standard error is {ratio:.3f} of the deviation of {repeats} repeats, {setting}",
        )


def standard_error_in_float32(divergence: Divergence) -> None:
    """Value and standard error of float32 samples are those of the same numbers in float64.

    The error to a twentieth: linear programs with several solutions of the dual may end at another.
    """
    for n, m in ((24, 24), (8, 24), (20, 30)):
        x, y = (cloud.float() for cloud in _draw(divergence, Setting(n, m), 0)[:2])
        single, double = divergence.estimate(x, y), divergence.estimate(x.double(), y.double())
        for name in ("value", "standard_error"):
            got, want = getattr(single, name), getattr(double, name)
            within = (0.05 if name == "standard_error" else max(1e-3, divergence.accuracy / 10)) * want.abs()
            close(got, want, within, f"{name} of {n} and {m} points in float32 against float64")


def _draw(divergence: Divergence, setting: Setting, seed: int) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    random, k = generator(seed), coordinates(divergence)
    x, y = (torch.randn(size, k, generator=random, dtype=torch.float64) for size in (setting.n, setting.m))
    if setting.apart:
        y = 1.3 * y + setting.apart
    if setting.ties:
        x, y = (2 * x).round() / 2, (2 * y).round() / 2
    if not setting.weighted:
        return x, y, None, None
    w_x, w_y = (1 + torch.arange(size, dtype=torch.float64) % 4 for size in (setting.n, setting.m))
    return x, y, w_x, w_y


def _estimate(divergence: Divergence, setting: Setting, seed: int) -> Any:
    return divergence.estimate(*_draw(divergence, setting, seed))


# -- units and origins ------------------------------------------------------------------------------------------------


def samples_in_any_unit(divergence: Divergence) -> None:
    """D of points 1e6 deviations away, or 1e-6 or 1e6 times as large, is D of the points as they are held.

    So are its standard error and, nearer by, its slopes; in float32 points that lost their digits may be refused.
    """
    k = coordinates(divergence)
    x, y = normal((12, k), 0), 0.8 * normal((7, k), 1) + 0.5  # 12 and 7: a program has one solution of its dual
    for dtype, within in ((torch.float64, 1e-8), (torch.float32, 1e-4)):
        for scale, shift in (*UNITS, (1.0, 1e3), (1e-6, 0.0)):
            moved = divergence.rescaled(scale) if scale != 1 else divergence
            if moved is None:
                continue
            held = [(scale * (cloud + shift)).to(dtype) for cloud in (x, y)]
            as_held = [cloud.double() / scale - shift for cloud in held]
            try:
                got = moved.estimate(*held)
                slope = _slope(moved, *held)
            except ValueError as error:
                if torch.finfo(dtype).eps * shift > 1e-3 and type(divergence).__name__.lower() in str(error).lower():
                    continue
                raise
            want, degree = divergence.estimate(*as_held), divergence.cost_degree
            # Rounding of 1e6 deviations is 1e-10 of one, of the terms that a value is the difference of.
            limit = max(within, divergence.accuracy / 100)
            what = f"of points times {scale:g}, {shift:g} deviations away, {dtype}"
            close(got.value / scale**degree, want.value, limit * (1 + want.value.abs()), f"D {what}")
            ties = shift == FAR and dtype == torch.float32  # there slopes jump, and errors may be of another potential
            within_error = 0.05 * want.standard_error if ties else 10 * limit
            close(got.standard_error / scale**degree, want.standard_error, within_error, f"standard error {what}")
            if not ties:
                close(slope / scale ** (degree - 1), _slope(divergence, *as_held), 10 * limit, f"slope of D {what}")


def _slope(divergence: Divergence, x: Tensor, y: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(divergence.primal(Points(leaf), None, Points(y)), leaf)[0].double()


def exact_in_any_unit(divergence: Divergence) -> None:
    """``exact`` of laws 1e6 deviations away, or 1e-6 or 1e6 times as large, is D times the scale to its degree."""
    points, q, p = normal((5, coordinates(divergence)), 3), simplex(5, 0), simplex(5, 50)

    def pair(kind: Any, scale: float, shift: float) -> tuple[Any, Any]:
        if kind is Points:
            return Points(scale * (points + shift), q.log()), Points(scale * (points + shift), p.log())
        numbers = torch.tensor([[0.0, 1.0], [0.4, 1.1]], dtype=torch.float64)
        return tuple(kind(scale * (loc + shift), scale * spread) for loc, spread in numbers)

    def value(of: Divergence, laws: tuple[Any, Any]) -> Tensor:
        return of.exact(*laws) - (of.exact(laws[0], laws[0]) if of.up_to_constant else 0.0)

    for kind in (Points, Normal, Laplace):
        try:
            want = value(divergence, pair(kind, 1.0, 0.0))
        except NotImplementedError:
            continue
        for scale, shift in UNITS:
            moved = divergence.rescaled(scale) if scale != 1 else divergence
            if moved is None:
                continue
            got = value(moved, pair(kind, scale, shift)) / scale**divergence.cost_degree
            require(got.dtype == torch.float64 and got.shape == (), f"exact is of {got.dtype}, {tuple(got.shape)}")
            what = f"exact of two {kind.__name__} laws times {scale:g}, {shift:g} deviations away"
            close(got, want, max(1e-7, divergence.accuracy) * (1 + want.abs()), what)
