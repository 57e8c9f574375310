"""Laws of the minimum over q: its record, its gradient, and the same over probability q, against a search."""

from __future__ import annotations

import torch
from torch import Tensor

from divergences.base import Divergence
from divergences.checks.alphabet import is_additive
from divergences.checks.integrands import inside, size
from divergences.checks.running import close, maximum, normal, require, simplex, slope_along
from divergences.exact import Points

K = 4
ROUNDING = 1e-9


def letters(p: Tensor) -> Points:
    """Return a law on letters 0..K-1."""
    return Points(torch.arange(len(p), dtype=torch.float64)[:, None], p.log())


def inner_record(divergence: Divergence) -> None:
    """The parts of the inner minimum: conjugate = E_q* link - D(q*, p), at the q* that log_tilt states."""
    for seed in range(3):
        p, v = simplex(K, seed), normal((K,), seed + 9).clamp(-2, 2) / (2 if divergence.needs_lipschitz else 1)
        v = inside(divergence, v)
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
    p, v, e = simplex(K, 2), inside(divergence, normal((K,), 5) / 2), normal((K,), 6)
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
