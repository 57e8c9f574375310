"""Laws of primals: D from particles or from a law's density, its gradient, and what its estimates promise."""

from __future__ import annotations

from collections.abc import Callable
from math import comb
from typing import NamedTuple

import torch
from torch import Tensor

from divergences.base import Divergence
from divergences.checks.alphabet import value
from divergences.checks.running import (
    Laws,
    close,
    close_to_slope,
    coordinates,
    generator,
    named,
    normal,
    require,
    simplex,
    slope_along,
)
from divergences.exact import Points


def laws(divergence: Divergence) -> Laws:
    """Yield the laws that apply."""
    if divergence.primal_needs == "log_prob":
        yield from named(divergence, mean_under_the_law, dtype_of_the_primal)
    if divergence.primal_needs == "samples":
        yield from named(
            divergence, dtype_of_the_primal, weights_stand_for_copies, permutation_of_points, gradient_of_the_primal,
            second_derivative_of_the_primal, primal_under_vmap, finite_or_refused_far_apart, mismatch_refused,
        )  # fmt: skip
        if divergence.sample_bias is not None:
            yield from named(divergence, bias_and_variance_of_estimates)


class _Law(NamedTuple):
    """A normal law with unit deviation and a ``log_prob``, as a model would return it."""

    loc: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        return -0.5 * ((x - self.loc) ** 2 + torch.log(torch.tensor(2 * torch.pi))).flatten(1).sum(1)


def clouds(divergence: Divergence, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return two clouds in the plane, or on the line, of 6 and 5 points."""
    k = coordinates(divergence)
    return normal((6, k), seed), 0.8 * normal((5, k), seed + 1) + 0.5


def primal(divergence: Divergence, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
    """Return D of two clouds with log-weights."""
    return divergence.primal(Points(x, a), _Law(torch.zeros(x.shape[-1], dtype=x.dtype)), Points(y, b))


def allowed(divergence: Divergence, *terms: Tensor) -> float:
    """Return the tolerance for values of that size: rounding, or a thousandth for iterative solvers."""
    size = 1 + sum(float(t.detach().abs().max()) for t in terms)
    return (1e-3 if divergence.accuracy else 1e-10) * size


def mean_under_the_law(divergence: Divergence) -> None:
    """D is an expectation under q: linear in its weights, whatever the number of points."""
    x, y = clouds(divergence)
    w = simplex(len(x), 1)
    each = torch.stack([primal(divergence, row[None], y) for row in x])
    close(
        primal(divergence, x, y, w.log()), (w * each).sum(), 1e-10, "D of weighted points against the mean over points"
    )
    loc = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    total = divergence.primal(Points(x, w.log()), _Law(loc), None)
    (slope,) = torch.autograd.grad(total, loc)
    e = normal((2,), 5)
    want = slope_along(lambda m: divergence.primal(Points(x, w.log()), _Law(m), None), torch.zeros(2).double(), e)
    close(slope @ e, want, 1e-8 * (1 + want.abs()), "gradient in the law's parameter")


def dtype_of_the_primal(divergence: Divergence) -> None:
    """float32 gives float32 and float64 gives float64, close to each other, shape ()."""
    x, y = clouds(divergence)
    results = [primal(divergence, x.to(t), y.to(t)) for t in (torch.float32, torch.float64)]
    for dtype, result in zip((torch.float32, torch.float64), results, strict=True):
        require(result.dtype == dtype and result.shape == (), f"D of {dtype} is {result.dtype}, {tuple(result.shape)}")
    close(results[0], results[1], 1e-3 * (1 + results[1].abs()), "D in float32 against float64")


def weights_stand_for_copies(divergence: Divergence) -> None:
    """Equal weights are no weights; unless the statistic compares distinct points, a double weight is two copies."""
    x, y = clouds(divergence)
    plain = primal(divergence, x, y)
    equal = [torch.full((len(t),), 1.0 / len(t), dtype=torch.float64).log() for t in (x, y)]
    close(primal(divergence, x, y, *equal), plain, allowed(divergence, plain), "D with equal weights against none")
    if divergence.sample_bias != "0":
        doubled = torch.tensor([2.0, 1, 1, 1, 1, 1], dtype=torch.float64)
        weighted = primal(divergence, x, y, (doubled / 7).log())
        close(
            weighted,
            primal(divergence, torch.cat([x[:1], x]), y),
            allowed(divergence, plain),
            "weight 2 against copies",
        )


def permutation_of_points(divergence: Divergence) -> None:
    """The order of the points does not matter."""
    x, y = clouds(divergence)
    order = torch.randperm(len(x), generator=generator(0))
    plain = primal(divergence, x, y)
    close(primal(divergence, x[order], y.flip(0)), plain, allowed(divergence, plain), "D after a permutation of points")


def gradient_of_the_primal(divergence: Divergence) -> None:
    """The gradient in the points of either cloud is that of differences, to the declared accuracy."""
    x, y = clouds(divergence)
    for which, cloud in (("q", x), ("p", y)):

        def d(moved: Tensor, which=which) -> Tensor:
            return primal(divergence, moved, y) if which == "q" else primal(divergence, x, moved)

        e = normal(tuple(cloud.shape), 3)
        leaf = cloud.clone().requires_grad_()
        (slope,) = torch.autograd.grad(d(leaf), leaf)
        limit = max(1e-7, divergence.accuracy) * (slope.norm() * e.norm() / 2 + 1e-7)
        close_to_slope((slope * e).sum(), d, cloud, e, limit, f"gradient of D in the points of {which}")


def second_derivative_of_the_primal(divergence: Divergence) -> None:
    """A gradient of the gradient is that of differences, or raises; it is never silently wrong."""
    x, y = clouds(divergence)
    e = normal((6, coordinates(divergence)), 3)

    def along(moved: Tensor) -> Tensor:
        leaf = moved.detach().requires_grad_()
        with torch.enable_grad():
            return (torch.autograd.grad(primal(divergence, leaf, y), leaf, create_graph=True)[0] * e).sum()

    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(primal(divergence, leaf, y), leaf, create_graph=True)
    try:
        (second,) = torch.autograd.grad((slope * e).sum(), leaf)
    except RuntimeError:
        return
    want = slope_along(lambda m: along(m).detach(), x, e)
    close((second * e).sum(), want, 1e-6 * (1 + want.abs()), "second derivative of D in the points of q")


def primal_under_vmap(divergence: Divergence) -> None:
    """``torch.func.vmap`` over clouds gives what a loop gives, or raises."""
    x, y = normal((2, 6, coordinates(divergence)), 7), clouds(divergence)[1]
    try:
        together = torch.func.vmap(lambda cloud: primal(divergence, cloud, y))(x)
    except RuntimeError:
        return
    loop = torch.stack([primal(divergence, cloud, y) for cloud in x])
    close(together, loop, 1e-12 * (1 + loop.abs()), "D under vmap")


def finite_or_refused_far_apart(divergence: Divergence) -> None:
    """Clouds 1e4 and 1e10 apart, and clouds in one point: a number, inf or a ValueError; never NaN, nor in slopes."""
    x, y = (cloud.float() for cloud in clouds(divergence))
    for name, far in (("1e4 apart", x + 1e4), ("1e10 apart", x + 1e10), ("in one point", torch.zeros_like(x))):
        leaf = far.clone().requires_grad_()
        other = torch.zeros_like(y) if name == "in one point" else y
        try:
            result = primal(divergence, leaf, other)
            (slope,) = torch.autograd.grad(result, leaf)
        except (ValueError, ArithmeticError):
            continue
        require(
            not result.isnan() and not slope.isnan().any(),
            f"clouds {name}: D = {float(result.detach())}, NaN in it or its slope",
        )


def mismatch_refused(divergence: Divergence) -> None:
    """A missing cloud, an empty one, or clouds of different dimension are refused by a ValueError."""
    x, y = clouds(divergence)
    attempts: dict[str, Callable[[], Tensor]] = {
        "no particles of p": lambda: divergence.primal(Points(x), None, None),
        "an empty cloud": lambda: primal(divergence, x[:0], y),
        "points of more coordinates": lambda: primal(divergence, x, normal((5, x.shape[1] + 1), 1)),
    }
    for name, attempt in attempts.items():
        try:
            result = attempt()
        except ValueError:
            continue
        raise AssertionError(f"{name}: got {float(result):.6g}, expected a ValueError")


def bias_and_variance_of_estimates(divergence: Divergence) -> None:
    """Bias and variance fall as declared, and the standard error is right, over all samples of two letters.

    n draws from two letters are a binomial count: expectations over samples are finite sums, without random numbers.
    Iterative solvers, which are slow, see samples of q only beside p itself.
    """
    q, p = (torch.tensor(law, dtype=torch.float64) for law in ((0.3, 0.7), (0.6, 0.4)))
    truth, slow = float(value(divergence, q, p, _LETTERS)), divergence.accuracy > 0
    sizes = (4, 8) if slow else (6, 12)
    moments = [_moments(divergence, q, None if slow else p, p, n) for n in sizes]
    (bias_1, variance_1, _), (bias_2, variance_2, error_2) = ((m - truth, v, s) for m, v, s in moments)
    if divergence.sample_bias == "0":
        close(bias_1, 0.0, 1e-10, f"bias at n = {sizes[0]}, declared 0")
    else:
        require(bias_1 > 0, f"bias at n = {sizes[0]} is {bias_1:.4g}, declared upward")
        require(bias_2 < 0.7 * bias_1, f"bias at n = {sizes} is {bias_1:.4g}, {bias_2:.4g}: no fall as 1/n")
    ratio = variance_2 / variance_1
    require(0.3 < ratio < 0.7, f"variance at n = {sizes} is {variance_1:.4g}, {variance_2:.4g}: no fall as 1/n")
    require(
        slow or 0.5 < error_2 / variance_2 < 2,
        f"squared standard error at n = {sizes[1]} is {error_2:.4g} on average, the variance {variance_2:.4g}",
    )


_LETTERS = torch.eye(2, dtype=torch.float64)


def _moments(
    divergence: Divergence, q: Tensor, sampled: Tensor | None, p: Tensor, n: int
) -> tuple[float, float, float]:
    """Return mean and variance of the estimate over all samples of size n, and the mean of its squared error bar."""

    def samples(law: Tensor) -> list[tuple[float, Tensor]]:
        chances = [comb(n, i) * float(law[1]) ** i * float(law[0]) ** (n - i) for i in range(n + 1)]
        return [(chance, _LETTERS[torch.arange(n).lt(i).long()]) for i, chance in enumerate(chances)]

    mean = square = error = 0.0
    for chance_x, x in samples(q):
        for chance_y, y in [(1.0, _LETTERS)] if sampled is None else samples(sampled):
            found = divergence.estimate(x, y, weights_y=p if sampled is None else None)
            chance = chance_x * chance_y
            mean, square = mean + chance * float(found.value), square + chance * float(found.value) ** 2
            error += chance * float(found.standard_error) ** 2
    return mean, square - mean**2, error
