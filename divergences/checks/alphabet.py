"""Laws of the number D(q, p) on finite alphabets: what is declared about its sign, symmetry, convexity and unit."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Normal

from divergences.base import Divergence
from divergences.checks.running import (
    METRIC,
    MODEL,
    Laws,
    close,
    coordinates,
    generator,
    named,
    normal,
    require,
    simplex,
)
from divergences.exact import Points

K = 5
ROUNDING = 1e-10
"""Tolerance relative to the terms: rounding of a sum in float64 (1e-15), times what forms of a user may cancel."""


def laws(divergence: Divergence) -> Laws:
    """Yield the laws that apply."""
    yield from named(divergence, declarations_are_consistent)
    if divergence.surrogate or not _has_value(divergence):
        return
    if divergence.up_to_constant:
        yield from named(divergence, least_at_identity)
    else:
        yield from named(divergence, value_at_identity, non_negative)
    if divergence.symmetric:
        yield from named(divergence, symmetric)
    if divergence.convex_in_q:
        yield from named(divergence, convex_in_q)
    if divergence.entropy_weight is not None:
        yield from named(divergence, entropy_weight)
    yield from named(divergence, cost_degree, permutation_of_letters, exact_is_the_sum, closed_form_is_the_quadrature)


def is_additive(divergence: Divergence) -> bool:
    """Whether D and its dual are means under p of ``value`` and ``conjugate``."""
    return getattr(divergence, "additive_dual", True)


def points_of(divergence: Divergence, k: int = K) -> Tensor:
    """Return k letters in the plane, or on the line, no two alike."""
    return normal((k, coordinates(divergence)), 3)


def value(divergence: Divergence, q: Tensor, p: Tensor, points: Tensor | None = None) -> Tensor:
    """Return D on letters by the methods that train: the integrand at the log-ratio, or the primal on weights.

    ``exact`` only where neither gives D itself: statistics without bias, duals that know D as a maximum.
    """
    points = points_of(divergence, len(q)) if points is None else points
    if divergence.critic_reads == "log_ratio" and is_additive(divergence):
        return (p * divergence.value((q / p).log())).sum()
    if divergence.primal_needs == "samples" and divergence.sample_bias != "0":
        return divergence.primal(Points(points, q.log()), None, Points(points, p.log())).double()
    return divergence.exact(Points(points, q.log()), Points(points, p.log()))


def seeds(divergence: Divergence) -> range:
    """Return the seeds of random laws: fewer for iterative solvers, which are slow."""
    return range(2 if divergence.accuracy else 6)


def _has_value(divergence: Divergence) -> bool:
    try:
        value(divergence, simplex(2, 0), simplex(2, 1))
    except NotImplementedError:
        return False
    return True


def allowed(divergence: Divergence, *terms: Tensor) -> float:
    """Return the tolerance for a comparison of values of that size."""
    size = 1 + sum(float(t.abs()) for t in terms)
    return max(ROUNDING, 1e-3 * (divergence.accuracy > 0)) * size


def declarations_are_consistent(divergence: Divergence) -> None:
    """What is declared names methods that are there."""
    d = divergence
    written = any(getattr(type(d), m) is not getattr(Divergence, m) for m in ("integrand", "between_letters", "exact"))
    require(
        d.has_dual or d.primal_needs is not None or written,
        "neither has_dual nor primal_needs nor an integrand: there is nothing to compute",
    )
    require(
        d.surrogate or not d.has_dual or d.critic_reads is not None,
        f"has_dual = {d.has_dual}, but critic_reads = {d.critic_reads!r}: say what the optimal critic means",
    )
    require(d.critic_reads in (None, "log_ratio", "potential", "sign"), f"critic_reads = {d.critic_reads!r} is unknown")
    require(d.primal_needs in (None, "log_prob", "samples"), f"primal_needs = {d.primal_needs!r} is unknown")
    require(not d.needs_lipschitz or d.critic_reads == "potential", "needs_lipschitz, but the critic is no potential")
    require(d.sample_bias is None or d.primal_needs == "samples", "sample_bias, but no primal from samples")
    zero = torch.zeros(1, dtype=torch.float64)
    if d.has_dual:
        methods = [d.link] + [d.conjugate] * is_additive(d) + [d.value] * (is_additive(d) and not d.surrogate)
        for method in methods:
            try:
                method(zero)
            except NotImplementedError as error:
                raise AssertionError(f"has_dual, but {method.__name__} is missing: {error}") from error
    for view in (d.view(METRIC), d.view(MODEL)):
        require(view is None or view.has_dual, f"the view {view} has no dual")


def value_at_identity(divergence: Divergence) -> None:
    """D(p, p) is the declared constant."""
    for seed in seeds(divergence):
        p = simplex(K, seed)
        close(value(divergence, p, p), divergence.value_at_identity, allowed(divergence), "D(p, p)")


def non_negative(divergence: Divergence) -> None:
    """D(q, p) > D(p, p) for q unlike p."""
    for seed in seeds(divergence):
        q, p = simplex(K, seed), simplex(K, seed + 50)
        excess = value(divergence, q, p) - divergence.value_at_identity
        require(excess > 0, f"D(q, p) - D(p, p) = {float(excess):.6g} for q = {_show(q)}, p = {_show(p)}")


def least_at_identity(divergence: Divergence) -> None:
    """D(q, p) >= D(q, q): the best model is the data."""
    for seed in seeds(divergence):
        q, p = simplex(K, seed), simplex(K, seed + 50)
        gap = value(divergence, q, p) - value(divergence, q, q)
        require(gap > 0, f"D(q, p) - D(q, q) = {float(gap):.6g} for q = {_show(q)}, p = {_show(p)}")


def symmetric(divergence: Divergence) -> None:
    """D(q, p) = D(p, q), as declared."""
    for seed in seeds(divergence):
        q, p = simplex(K, seed), simplex(K, seed + 50)
        one, other = value(divergence, q, p), value(divergence, p, q)
        close(one, other, allowed(divergence, one), "D(q, p) against D(p, q), declared symmetric")


def convex_in_q(divergence: Divergence) -> None:
    """D at a mixture is at most the mixture of D, as declared."""
    for seed in seeds(divergence):
        a, b, p = simplex(K, seed), simplex(K, seed + 50), simplex(K, seed + 100)
        middle, mean = value(divergence, (a + b) / 2, p), (value(divergence, a, p) + value(divergence, b, p)) / 2
        require(
            middle <= mean + allowed(divergence, mean),
            f"D((a + b)/2, p) = {float(middle):.8g} exceeds (D(a, p) + D(b, p))/2 = {float(mean):.8g}",
        )


def entropy_weight(divergence: Divergence) -> None:
    """D = -E_q log p - c H(q) with the declared c."""
    for seed in seeds(divergence):
        q, p = simplex(K, seed), simplex(K, seed + 50)
        want = -(q * p.log()).sum() + (divergence.entropy_weight or 0.0) * (q * q.log()).sum()
        close(value(divergence, q, p), want, ROUNDING * 10, f"D against CE - {divergence.entropy_weight:g} H")


def cost_degree(divergence: Divergence) -> None:
    """D of points multiplied by s is s**cost_degree D; a bounded one stays below what it is at any scale."""
    q, p, s = simplex(K, 0), simplex(K, 50), 3.0
    base = value(divergence, q, p)
    if not divergence.bounded_in_scale and divergence.accuracy == 0:
        got = value(divergence, q, p, s * points_of(divergence))
        want = s**divergence.cost_degree * base
        close(
            got, want, allowed(divergence, want), f"D of points times {s:g}, declared degree {divergence.cost_degree:g}"
        )
    if divergence.bounded_in_scale:
        far = [
            float(value(divergence, q, p, scale * points_of(divergence))) - divergence.value_at_identity
            for scale in (1e2, 1e4, 1e6)
        ]
        require(
            far[-1] <= 2 * far[0] + 1e-9,
            f"declared bounded_in_scale, but D at scales 1e2 to 1e6, less D(p, p): {far}",
        )


def permutation_of_letters(divergence: Divergence) -> None:
    """The order of the letters does not matter."""
    q, p, points = simplex(K, 0), simplex(K, 50), points_of(divergence)
    order = torch.randperm(K, generator=generator(0))
    one, other = value(divergence, q, p, points), value(divergence, q[order], p[order], points[order])
    close(other, one, allowed(divergence, one), "D after a permutation of the letters")


def exact_is_the_sum(divergence: Divergence) -> None:
    """``exact`` on letters is the value; where a letter has no mass it is the limit of a small one."""
    q, p, points = simplex(K, 0), simplex(K, 50), points_of(divergence)
    try:
        got = divergence.exact(Points(points, q.log()), Points(points, p.log()))
    except NotImplementedError:
        return
    close(got, value(divergence, q, p), allowed(divergence, got), "exact against the value")
    last = torch.arange(K) == K - 1
    for missing in ("q", "p"):
        laws = [torch.where(last, mass, w * (1 - mass) / w[:-1].sum()) for w in (q, p) for mass in (0.0, 1e-100)]
        at_zero, near = ((laws[i], p) if missing == "q" else (q, laws[i + 2]) for i in (0, 1))
        d_zero, d_near = (
            float(divergence.exact(Points(points, a.log()), Points(points, b.log()))) for a, b in (at_zero, near)
        )
        require(
            abs(d_zero - d_near) <= 1e-4 * (1 + abs(d_near)) if d_zero < torch.inf else d_near > 1.2 * float(got),
            f"exact without mass of {missing} on a letter is {d_zero:.6g}, with mass 1e-100 it is {d_near:.6g}",
        )


def closed_form_is_the_quadrature(divergence: Divergence) -> None:
    """``exact`` of two normal laws (closed form, if there is one) is the value on the nodes of a quadrature rule."""
    q, p = (Normal(torch.tensor(m, dtype=torch.float64), torch.tensor(s, dtype=torch.float64)) for m, s in _NORMAL)
    try:
        got = divergence.exact(q, p)
    except NotImplementedError:
        return
    x = torch.arange(-11, 11, 0.02, dtype=torch.float64)  # trapezoidal: exponentially right for normal laws
    log_q, log_p = q.log_prob(x), p.log_prob(x)
    weights = Points(x[:, None], log_p + torch.tensor(0.02, dtype=torch.float64).log())
    if divergence.critic_reads == "log_ratio" and is_additive(divergence):
        close(
            weights.mean(divergence.value(log_q - log_p)),
            got,
            1e-8 * (1 + got.abs()),
            "value by quadrature, normal laws",
        )
    else:
        nodes = slice(None, None, 8)  # kernels and transport see the points: 0.16 apart, exact to 1e-3 of D
        mass = [(w[nodes] - torch.logsumexp(w[nodes], 0)) for w in (log_q, log_p)]
        on_nodes = divergence.exact(Points(x[nodes, None], mass[0]), Points(x[nodes, None], mass[1]))
        if divergence.up_to_constant:  # log-masses against log-densities: they differ by the logarithm of the step
            on_nodes = on_nodes + (x[nodes][1] - x[nodes][0]).log()
        close(on_nodes, got, 1e-2 * (1 + got.abs()), "value on 138 nodes, normal laws")


_NORMAL = ((0.0, 1.0), (0.4, 1.1))


def _show(q: Tensor) -> str:
    return "(" + ", ".join(f"{w:.3f}" for w in q.tolist()) + ")"
