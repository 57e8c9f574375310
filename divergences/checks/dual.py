r"""Laws of the dual: what its integrands say of each other, of the maximum over critics and of the minimum over q.

For f-divergences (``critic_reads = "log_ratio"``) the generator is recovered from ``value``: :math:`h(u)` at
:math:`u=e^v`. Tolerances stand for rounding only: 1e-9 of the terms that are formed, at :math:`|v|\le3`, where the
generic form loses 1e-13; differences are of fourth order with step 1e-4, whose error is below 1e-9 of the same terms.
"""

from __future__ import annotations

import math

import torch
from scipy import optimize
from torch import Tensor

from divergences.base import Divergence
from divergences.checks.alphabet import is_additive
from divergences.checks.potential import bound_on, potential_is_the_linear_program, sign_attains_the_value
from divergences.checks.running import (
    METRIC,
    Laws,
    close,
    generator,
    maximum,
    named,
    normal,
    require,
    simplex,
    slope_along,
)
from divergences.exact import Points
from divergences.limits import slope_at_infinity

K = 4
ROUNDING = 1e-9
FAR = (20.0, 100.0, 1e4)
"""Critic outputs at the edge of float32's exponent, beyond it, and far beyond float64's."""


def laws(divergence: Divergence) -> Laws:
    """Yield the laws that apply."""
    if not divergence.has_dual:
        return
    yield from named(divergence, elementwise, dtype_kept, finite_or_refused_far_out, second_derivatives, under_vmap)
    if divergence.surrogate:
        return
    yield from named(divergence, inner_record, gradient_of_the_dual)
    if divergence.has_normalised_dual:
        yield from named(divergence, probability_dual)
    if divergence.critic_reads == "log_ratio" and is_additive(divergence):
        yield from named(
            divergence, value_is_the_generator, generator_convex, link_is_the_slope, fenchel_young,
            supremum_of_the_link, inverse_link_inverts, bound_below_the_value, maximum_over_critics, minimum_over_q,
            envelope_gradient, views_read_the_same,
        )  # fmt: skip
        if divergence.has_normalised_dual and getattr(divergence, "supremum", math.inf) < math.inf:
            yield from named(divergence, mass_off_the_model)
    elif divergence.critic_reads == "potential":
        yield from named(divergence, potential_is_the_linear_program)
    elif divergence.critic_reads == "sign":
        yield from named(divergence, sign_attains_the_value)


def letters(p: Tensor) -> Points:
    """Return a law on letters 0..K-1."""
    return Points(torch.arange(len(p), dtype=torch.float64)[:, None], p.log())


def grid() -> Tensor:
    """Return critic outputs from -3 to 3."""
    return torch.linspace(-3, 3, 49, dtype=torch.float64)


def forms(divergence: Divergence) -> dict:
    """Return the elementwise methods that players use, by name."""
    if not is_additive(divergence):
        return {"link": divergence.link}
    both = {"link": divergence.link, "conjugate": divergence.conjugate}
    return both if divergence.surrogate else both | {"value": divergence.value}


def size(divergence: Divergence, v: Tensor) -> Tensor:
    """Return the size of the terms that are formed at v: what rounding is relative to."""
    u, t = v.exp(), divergence.link(v).abs()
    terms = 1 + u + (1 + u) * t + 1 / u
    return terms + divergence.value(v).abs() + divergence.conjugate(v).abs() if is_additive(divergence) else terms


# -- of any dual, surrogates included ---------------------------------------------------------------------------------


def elementwise(divergence: Divergence) -> None:
    """Each output depends on its own input, and has its shape."""
    v = normal((6,), 1)
    order = torch.randperm(6, generator=generator(0))
    for name, form in forms(divergence).items():
        out = form(v)
        require(out.shape == v.shape, f"{name} of shape {tuple(v.shape)} has shape {tuple(out.shape)}")
        require(form(v.reshape(2, 3)).shape == (2, 3), f"{name} of shape (2, 3) has another shape")
        close(form(v[order]), out[order], 1e-12 * (1 + out.abs().max()), f"{name} after a permutation")
        close(form(v[:1]), out[:1], 1e-12 * (1 + out.abs().max()), f"{name} of the first element alone")


def dtype_kept(divergence: Divergence) -> None:
    """float32 gives float32 and float64 gives float64, close to each other."""
    v = normal((32,), 2)
    for name, form in forms(divergence).items():
        for dtype in (torch.float32, torch.float64):
            out = form(v.to(dtype))
            require(out.dtype == dtype, f"{name} of {dtype} is {out.dtype}")
        wide = form(v.float().double())
        close(
            form(v.float()), wide, 1e-5 * (1 + wide.abs() + v.exp() + (-v).exp()), f"{name} in float32 against float64"
        )


def finite_or_refused_far_out(divergence: Divergence) -> None:
    """At |v| = 20, 100, 1e4 outputs and gradients are numbers or infinite, or a ValueError says why not; never NaN."""
    for dtype in (torch.float32, torch.float64):
        for far in FAR:
            for v in (far, -far):
                for name, form in forms(divergence).items():
                    x = torch.tensor([v], dtype=dtype, requires_grad=True)
                    try:
                        out = form(x)
                    except (ValueError, ArithmeticError):
                        continue
                    require(not out.isnan(), f"{name} at v = {v:g} in {dtype} is NaN")
                    if name != "value" and out.requires_grad:
                        (slope,) = torch.autograd.grad(out.sum(), x)
                        require(not slope.isnan(), f"the gradient of {name} at v = {v:g} in {dtype} is NaN")


def second_derivatives(divergence: Divergence) -> None:
    """First and second derivatives by autograd are those of differences."""
    v = torch.linspace(-2, 2, 16, dtype=torch.float64) + 0.01  # beside the kinks that surrogates have at integers
    one = torch.ones_like(v)
    for name, form in forms(divergence).items():
        if name == "value":
            continue

        def first(x: Tensor, form=form) -> Tensor:
            x = x.detach().requires_grad_()
            with torch.enable_grad():
                out = form(x).sum()
                return torch.autograd.grad(out, x, create_graph=True)[0] if out.requires_grad else torch.zeros_like(x)

        x = v.clone().requires_grad_()
        (slope,) = torch.autograd.grad(form(x).sum(), x, create_graph=True)
        scale = 1 + slope.detach().abs() + form(v).abs()
        close(slope, slope_along(form, v, one), 1e-8 * scale, f"first derivative of {name}")
        second = torch.autograd.grad(slope.sum(), x)[0] if slope.requires_grad else torch.zeros_like(v)
        close(second, slope_along(first, v, one), 1e-7 * (scale + second.abs()), f"second derivative of {name}")


def under_vmap(divergence: Divergence) -> None:
    """``torch.func.vmap`` gives what a loop gives."""
    v = normal((3, 4), 4)
    for name, form in forms(divergence).items():
        loop = torch.stack([form(row) for row in v])
        close(torch.func.vmap(form)(v), loop, 1e-12 * (1 + loop.abs()), f"{name} under vmap")


# -- of any divergence with a dual ------------------------------------------------------------------------------------


def inner_record(divergence: Divergence) -> None:
    """The parts of the inner minimum: conjugate = E_q* link - D(q*, p), at the q* that log_tilt states."""
    for seed in range(3):
        p, v = simplex(K, seed), normal((K,), seed + 9).clamp(-2, 2) / (2 if divergence.needs_lipschitz else 1)
        inner = divergence.inner(v, letters(p))
        scale = float((p * size(divergence, v)).sum())
        close(
            inner.conjugate, inner.link_q - inner.divergence, ROUNDING * scale, "conjugate against link_q - divergence"
        )
        close(
            inner.conjugate, divergence.mean_conjugate(v, letters(p)), ROUNDING * scale, "inner against mean_conjugate"
        )
        q = p * inner.log_tilt.exp()
        close(
            inner.link_q,
            (q * divergence.link(v)).sum(),
            ROUNDING * scale,
            "link_q against the mean under q* = p e^tilt",
        )
        if divergence.critic_reads == "log_ratio" and is_additive(divergence):
            want = (p * divergence.value((q / p).log())).sum()
            close(inner.divergence, want, ROUNDING * scale, "divergence against D(q*, p)")


def gradient_of_the_dual(divergence: Divergence) -> None:
    """The gradients of D*_p in the critic's outputs and in p's weights are those of differences."""
    p, v, e = simplex(K, 2), normal((K,), 5) / 2, normal((K,), 6)
    x, log_p = v.clone().requires_grad_(), p.log().requires_grad_()

    def dual(v: Tensor, log_p: Tensor) -> Tensor:
        return divergence.mean_conjugate(v, Points(letters(p).x, log_p))

    slopes = torch.autograd.grad(dual(x, log_p), (x, log_p), allow_unused=True)
    numeric = slope_along(lambda x: dual(x, p.log()), v, e), slope_along(lambda w: dual(v, w), p.log(), e)
    for name, slope, want in zip(("v", "p's log-weights"), slopes, numeric, strict=True):
        require(slope is not None, f"mean_conjugate has no gradient in {name}")
        close(slope @ e, want, 1e-7 * (1 + want.abs()), f"gradient of mean_conjugate in {name}")


def probability_dual(divergence: Divergence) -> None:
    """Over probability q: mass one, no more than the other dual, and no q of a direct search does better."""
    p, v = simplex(3, 4), normal((3,), 7) / 2
    x = v.clone().requires_grad_()
    inner = divergence.inner_normalised(x, letters(p))
    conjugate, t = inner.conjugate.detach(), divergence.link(v)
    q = p * inner.log_tilt.exp()
    close(q.sum(), 1.0, 1e-8, "mass of q* over probability q")
    close(
        inner.link_q - inner.divergence,
        conjugate,
        1e-8 * (1 + conjugate.abs()),
        "conjugate against link_q - divergence",
    )
    close(inner.link_q, (q * t).sum(), 1e-8 * (1 + t.abs().max()), "link_q against the mean under q*")
    other = divergence.mean_conjugate(v, letters(p))
    require(
        conjugate <= other + 1e-8 * (1 + other.abs()),
        f"{float(conjugate):.8g} exceeds D* over all q, {float(other):.8g}",
    )
    (slope,) = torch.autograd.grad(inner.conjugate, x)
    y = v.clone().requires_grad_()
    (slope_of_link,) = torch.autograd.grad(divergence.link(y).sum(), y)
    close(slope, q * slope_of_link, 1e-7 * (1 + slope_of_link.max()), "gradient against q* times the link's (Danskin)")
    if divergence.critic_reads == "log_ratio" and is_additive(divergence):
        found = _search_probability(divergence, t, p, torch.zeros(0, dtype=torch.float64), 0.0)
        close(conjugate, found, 1e-6 * (1 + abs(found)), "D* over probability q against a search over q")


def mass_off_the_model(divergence: Divergence) -> None:
    """Where h'(inf) is finite, probability q may put mass where only data is, at that price: as the search finds."""
    p, v, supremum = simplex(3, 4), normal((3,), 7) / 4, float(divergence.supremum)  # type: ignore[arg-type]
    v_data = torch.full((1,), 3.0, dtype=torch.float64)
    inner = divergence.inner_normalised(v, letters(p), v_data)
    found = _search_probability(divergence, divergence.link(v), p, divergence.link(v_data), supremum)
    close(inner.conjugate, found, 1e-6 * (1 + abs(found)), "D* over probability q on model and data against a search")


def _search_probability(divergence: Divergence, t: Tensor, p: Tensor, t_data: Tensor, price: float) -> float:
    """Return the maximum of t.q - D(q, p) over probability q on p's letters and those of data, in logits of q."""

    def gain(logits: Tensor) -> Tensor:
        log_q = logits.log_softmax(0)
        on, off = log_q[: len(p)], log_q[len(p) :].exp()
        return (on.exp() * t).sum() - (p * divergence.value(on - p.log())).sum() + (off * (t_data - price)).sum()

    return maximum(gain, torch.cat([p.log(), torch.full_like(t_data, -2.0)]))[0]


# -- of f-divergences -------------------------------------------------------------------------------------------------


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
