r"""Laws of f-divergences: what their integrands say of the generator, of the best critic and of the best q.

The generator is recovered from ``value``: :math:`h(u)` at :math:`u=e^v`.
"""

from __future__ import annotations

import math

import torch
from scipy import optimize
from torch import Tensor

from divergences.base import Divergence
from divergences.checks.inner import ROUNDING, K, letters
from divergences.checks.integrands import size
from divergences.checks.potential import bound_on
from divergences.checks.running import METRIC, close, maximum, normal, require, simplex, slope_along
from divergences.limits import slope_at_infinity


def grid() -> Tensor:
    """Return critic outputs from -3 to 3."""
    return torch.linspace(-3, 3, 49, dtype=torch.float64)


def value_is_the_generator(divergence: Divergence) -> None:
    """value(v) = h(e^v), where there is an h."""
    h = getattr(divergence, "h", None)
    if h is not None:
        v = grid()
        close(divergence.value(v), h(v.exp()), ROUNDING * size(divergence, v), "value(v) against h(e^v)")


def generator_convex(divergence: Divergence) -> None:
    """The secants of h rise: h(u) = value(log u) is convex on e^-6..e^6."""
    v = torch.linspace(-6, 6, 97, dtype=torch.float64)
    h, u = divergence.value(v), v.exp()
    secant = h.diff() / u.diff()
    fall = secant.diff()
    scale = size(divergence, v)[1:-1] / u[1:-1]
    worst = int((fall / scale).argmin())
    require(
        fall >= -1e-9 * scale,
        f"the slope of h falls from {float(secant[worst]):.6g} to {float(secant[worst + 1]):.6g} at u = "
        f"{float(u[worst + 1]):.4g}: h is not convex",
    )


def link_is_the_slope(divergence: Divergence) -> None:
    """link(v) = h'(e^v), the derivative of value by differences."""
    v = grid()
    want = slope_along(divergence.value, v, torch.ones_like(v)) / v.exp()
    close(divergence.link(v), want, 1e-8 * size(divergence, v) * (1 + 1 / v.exp()), "link(v) against h'(e^v)")


def fenchel_young(divergence: Divergence) -> None:
    """h(u) + h*(t) >= u t, with equality at t = h'(u)."""
    v = grid()
    u, t, h, conjugate, scale = (
        v.exp(),
        divergence.link(v),
        divergence.value(v),
        divergence.conjugate(v),
        size(divergence, v),
    )
    close(h + conjugate, u * t, ROUNDING * scale, "h(u) + h*(h'(u)) against u h'(u)")
    excess = h[:, None] + conjugate[None] - u[:, None] * t[None]
    require(
        excess >= -ROUNDING * (scale[:, None] + scale[None] + u[:, None] * t.abs()[None]),
        f"h(u) + h*(t) - u t falls to {float(excess.min()):.6g}, below zero",
    )


def supremum_of_the_link(divergence: Divergence) -> None:
    """The declared ``supremum`` is h'(inf), the price of q's mass where p has none."""
    declared, h = getattr(divergence, "supremum", None), getattr(divergence, "h", None)
    if declared is None or h is None:
        return
    try:
        close(declared, slope_at_infinity(h), 1e-8 * (1 + abs(declared)), "supremum against lim h(u)/u")
    except ValueError:
        pass  # the limit cannot be told from h: what is declared stands
    top = float(divergence.link(grid()).max())
    require(top <= declared + ROUNDING * (1 + abs(top)), f"link reaches {top:.6g}, above the supremum {declared:.6g}")


def inverse_link_inverts(divergence: Divergence) -> None:
    """inverse_link(link(v)) = v, where there is one."""
    v = grid()[::4]
    try:
        back = divergence.inverse_link(divergence.link(v))
    except NotImplementedError:
        return
    x = v.clone().requires_grad_()
    (slope,) = torch.autograd.grad(divergence.link(x).sum(), x)
    close(back, v, ROUNDING * (1 + size(divergence, v) / slope.abs()), "inverse_link(link(v))")


def bound_below_the_value(divergence: Divergence) -> None:
    """E_q link(v) - E_p conjugate(v) <= D(q, p) for every v, with equality at the log-ratio."""
    for seed in range(3):
        q, p = simplex(K, seed), simplex(K, seed + 50)
        best = (q / p).log()
        exact = float((p * divergence.value(best)).sum())
        for scale in (0.0, 0.01, 0.3, 2.0):
            v = best + scale * normal((K,), seed + 7)
            bound = float(bound_on(divergence, q, p, v))
            slack = ROUNDING * float((p * size(divergence, v)).sum())
            require(bound <= exact + slack, f"bound {bound:.8g} exceeds D = {exact:.8g}")
            if scale == 0:
                close(bound, exact, slack, "bound at the log-ratio against D")


def maximum_over_critics(divergence: Divergence) -> None:
    """Biconjugation: a search over one free score per letter, from zero, ends at D, and at the link of log(q/p)."""
    q, p = simplex(3, 1), simplex(3, 51)
    best = (q / p).log()
    exact = float((p * divergence.value(best)).sum())
    found, v = maximum(lambda v: bound_on(divergence, q, p, v), torch.zeros(3, dtype=torch.float64))
    close(found, exact, 1e-7 * (1 + abs(exact)), "the largest bound over critics against D")
    t = divergence.link(best)  # where the link is flat v itself is free
    close(divergence.link(v), t, 1e-3 * (1 + t.abs()), "the link of the best critic against that of log(q/p)")


def minimum_over_q(divergence: Divergence) -> None:
    """D*_p is the maximum over q >= 0 of E_q link - D(q, p), letter by letter, and p e^tilt attains it."""
    p, v = simplex(3, 3), normal((3,), 8).clamp(-1.5, 1.5)
    t, found = divergence.link(v), 0.0
    for t_k, p_k in zip(t, p, strict=True):
        best = optimize.minimize_scalar(
            lambda s, t_k=t_k: float(divergence.value(torch.tensor(s, dtype=torch.float64)) - t_k * math.exp(s)),
            bounds=(-8, 8), method="bounded", options={"xatol": 1e-9},
        )  # fmt: skip
        found -= float(p_k) * best.fun
    inner = divergence.inner(v, letters(p))
    close(inner.conjugate, found, 1e-7 * (1 + abs(found)), "D* against a search over q")
    close(inner.log_tilt, v, ROUNDING, "log_tilt against the critic's output")


def envelope_gradient(divergence: Divergence) -> None:
    """With the best critic frozen, -E_p conjugate moves with p as D(q, p) does: the model's gradient is that of D."""
    q, p, e = simplex(K, 1), simplex(K, 51), normal((K,), 3)
    best = (q / p).log()

    def true(z: Tensor) -> Tensor:
        moved = z.softmax(0)
        return (moved * divergence.value((q / moved).log())).sum()

    z = p.log().requires_grad_()
    total = -(z.softmax(0) * divergence.conjugate(best)).sum()
    (slope,) = torch.autograd.grad(total, z)
    want = slope_along(true, p.log(), e)
    close(
        slope @ e, want, 1e-7 * (1 + want.abs() + divergence.conjugate(best).abs().max()), "gradient at a frozen critic"
    )


def views_read_the_same(divergence: Divergence) -> None:
    """The dual through which a metric learns has its optimum at the same v."""
    view = divergence.view(METRIC)
    if view is None:
        return
    require(view.critic_reads == "log_ratio", f"the metric's view {type(view).__name__} reads {view.critic_reads}")
    q, p = simplex(K, 1), simplex(K, 51)
    v = (q / p).log().requires_grad_()
    (slope,) = torch.autograd.grad(bound_on(view, q, p, v), v)
    close(slope, torch.zeros(K), 1e-9, f"slope of the bound of the view {type(view).__name__} at the log-ratio")


LAWS = (
    value_is_the_generator, generator_convex, link_is_the_slope, fenchel_young, supremum_of_the_link,
    inverse_link_inverts, bound_below_the_value, maximum_over_critics, minimum_over_q, envelope_gradient,
    views_read_the_same,
)  # fmt: skip
"""All of them, for f-divergences whose dual is a mean."""
