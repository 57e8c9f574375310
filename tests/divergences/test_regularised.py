"""f-divergences over Lipschitz f: against infimal convolutions with transport, plan by plan, and conjugates by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import optimize

from divergences import (
    GAN,
    KL,
    Alpha,
    FDivergence,
    JensenShannon,
    LipschitzRegularised,
    Neyman,
    Pearson,
    Renyi,
    ReverseKL,
    TotalVariation,
    Wasserstein1,
)
from divergences.exact import Points
from models import Affine, GroupSortCritic, MLPCritic
from se_framework import Dual, Metric, StandardEquation
from se_framework.errors import IncompatibleError

DEFAULT_DTYPE = torch.float64

# Of each D: h, h* and its derivative as textbooks have them, h'(0), and h'(inf).
BY_HAND = {
    "kl": (KL, lambda u: u * math.log(u) if u > 0 else 0.0, lambda t: math.exp(t - 1), lambda t: math.exp(t - 1),
           -math.inf, math.inf),
    "pearson": (Pearson, lambda u: (u - 1) ** 2, lambda t: t + t * t / 4, lambda t: 1 + t / 2, -2.0, math.inf),
    "alpha_2": (lambda: Alpha(2.0), lambda u: (u - 1) ** 2 / 2, lambda t: t + t * t / 2, lambda t: 1 + t, -1.0,
                math.inf),
    "user": (lambda: FDivergence(lambda u: (u - 1) ** 2), lambda u: (u - 1) ** 2, lambda t: t + t * t / 4,
             lambda t: 1 + t / 2, -2.0, math.inf),
    "reverse_kl": (ReverseKL, lambda u: -math.log(u), lambda t: -1 - math.log(-t), lambda t: -1 / t, -math.inf, 0.0),
    "gan": (GAN, lambda u: (u * math.log(u) if u > 0 else 0.0) - (1 + u) * math.log(1 + u),
            lambda t: -math.log(-math.expm1(t)), lambda t: math.exp(t) / -math.expm1(t), -math.inf, 0.0),
    "jensen_shannon": (JensenShannon,
                       lambda u: ((u * math.log(u) if u > 0 else 0.0) - (1 + u) * math.log((1 + u) / 2)) / 2,
                       lambda t: -math.log(2 - math.exp(2 * t)) / 2, lambda t: math.exp(2 * t) / (2 - math.exp(2 * t)),
                       -math.inf, math.log(2) / 2),
    "neyman": (Neyman, lambda u: (1 - u) ** 2 / u, lambda t: 2 - 2 * math.sqrt(1 - t), lambda t: 1 / math.sqrt(1 - t),
               -math.inf, 1.0),
}  # fmt: skip
case = pytest.mark.parametrize("name", BY_HAND)


def laws(seed: int, k: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points in the plane and two laws on them, far enough apart for both parts of the sum to count."""
    source = torch.Generator().manual_seed(seed)
    points = torch.randn(k, 2, generator=source, dtype=torch.float64)
    q, p = (3 * torch.rand(2, k, generator=source, dtype=torch.float64)).softmax(1)
    return points, q, p


def cheapest(h, points: torch.Tensor, q: torch.Tensor, p: torch.Tensor) -> float:
    """min of transport cost + E_p h(eta/p) over plans from q to eta: the primal, which knows no critic."""
    k, cost = len(q), torch.cdist(points, points).numpy()

    def total(plan: np.ndarray) -> float:
        plan = plan.reshape(k, k)
        ratio = plan.sum(0) / p.numpy()
        return float((plan * cost).sum() + sum(w * h(max(u, 1e-300)) for w, u in zip(p.tolist(), ratio, strict=True)))

    rows = {"type": "eq", "fun": lambda plan: plan.reshape(k, k).sum(1) - q.numpy()}
    best = math.inf
    for start in (np.outer(q, p), 0.5 * np.diag(q) + 0.5 * np.outer(q, p)):
        found = optimize.minimize(total, start.ravel(), method="SLSQP", bounds=[(0, 1)] * (k * k), constraints=rows,
                                  options={"ftol": 1e-13, "maxiter": 1000})  # fmt: skip
        best = min(best, float(found.fun))
    return best


@case
@pytest.mark.parametrize("seed", range(3))
def test_the_value_is_the_infimal_convolution_with_transport(name, seed):
    """Plans are searched with slopes by differences, which know the minimum to 1e-6 of the terms."""
    make, h, *_ = BY_HAND[name]
    points, q, p = laws(seed)
    D = LipschitzRegularised(make())
    got = float(D.exact(Points(points, q.log()), Points(points, p.log())))
    assert got == pytest.approx(cheapest(h, points, q, p), abs=2e-6)


@case
def test_at_most_d_and_at_most_transport_and_each_in_a_limit(name):
    make, *_ = BY_HAND[name]
    points, q, p = laws(5)
    of = make()
    D, base = LipschitzRegularised(of), of.value_at_identity

    def value(scale: float) -> float:
        return float(D.exact(Points(scale * points, q.log()), Points(scale * points, p.log())))

    whole = float(of.exact(Points(points, q.log()), Points(points, p.log())))
    moved = float(Wasserstein1().exact(Points(points, q.log()), Points(points, p.log())))
    assert base < value(1.0) <= min(whole, base + moved) + 1e-7
    assert value(1e3) == pytest.approx(whole, abs=1e-6)
    # With letters close together nearly all of q is moved to p: h is smooth at 1, and saves a square of the scale.
    small = 1e-3
    assert (value(small) - base) / small == pytest.approx(moved, rel=1e-2)


@case
def test_the_conjugate_is_the_textbooks(name):
    make, _, conjugate, slope, low, high = BY_HAND[name]
    D = LipschitzRegularised(make())
    top = min(high, 3.0)
    t = torch.cat([torch.linspace(max(low, -6.0) + 0.05, top - 0.05, 41), torch.linspace(-9.0, low, 5)[:-1]
                   if math.isfinite(low) else torch.empty(0)])  # fmt: skip
    t = t.requires_grad_()
    (got,) = torch.autograd.grad(D.conjugate(t).sum(), t, create_graph=True)
    inside = t > low
    at_zero = conjugate(low) if math.isfinite(low) else 0.0
    want = torch.tensor([conjugate(x) if x > low else at_zero for x in t.tolist()])
    rate = torch.tensor([slope(x) if x > low else 0.0 for x in t.tolist()])
    torch.testing.assert_close(D.conjugate(t).detach(), want, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got.detach(), rate, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(D.log_tilt(t).exp(), rate, rtol=1e-8, atol=1e-8)
    (second,) = torch.autograd.grad(got.sum(), t)
    step = 1e-5
    numeric = [(slope(x + step) - slope(x - step)) / (2 * step) if x > low else 0.0 for x in t.tolist()]
    torch.testing.assert_close(second, torch.tensor(numeric), rtol=1e-6, atol=1e-6)
    assert (second[~inside] == 0).all()
    if math.isfinite(high):
        beyond = torch.tensor([high + 0.1, high + 100.0])
        assert (D.conjugate(beyond) == math.inf).all() and (D.log_tilt(beyond) == math.inf).all()


def test_over_probabilities_kl_is_donsker_and_varadhans():
    p = Points(torch.zeros(6, 1), torch.randn(6).log_softmax(0))
    v = torch.randn(6, requires_grad=True)
    inner = LipschitzRegularised(KL()).inner_normalised(v, p)
    want = (p.log_weights + v).logsumexp(0)
    torch.testing.assert_close(inner.conjugate, want, rtol=1e-12, atol=1e-12)
    assert_slopes = [torch.autograd.grad(t, v, retain_graph=True)[0] for t in (inner.conjugate, want)]
    torch.testing.assert_close(*assert_slopes, rtol=1e-9, atol=1e-12)


@case
def test_over_probabilities_a_constant_moves_through(name):
    """inf over lambda of lambda + E_p h*(v - lambda), by a search; v far above the domain is none the worse."""
    make, _, conjugate, _, low, high = BY_HAND[name]
    D = LipschitzRegularised(make())
    p = Points(torch.zeros(5, 1), torch.randn(5, generator=torch.Generator().manual_seed(2)).log_softmax(0))
    v = 0.3 * torch.randn(5, generator=torch.Generator().manual_seed(3))
    at_zero = conjugate(low) if math.isfinite(low) else 0.0

    def total(shift: float) -> float:
        if float(v.max()) - shift >= high:
            return math.inf
        terms = [conjugate(x - shift) if x - shift > low else at_zero for x in v.tolist()]
        return shift + float((p.log_weights.exp() * torch.tensor(terms)).sum())

    least = float(v.max()) - min(high, 5.0) + 1e-9
    found = optimize.minimize_scalar(total, bounds=(least, least + 10), method="bounded", options={"xatol": 1e-11})
    for shift in (0.0, 40.0):
        inner = D.inner_normalised(v + shift, p)
        assert float(inner.conjugate) - shift == pytest.approx(found.fun, abs=1e-8)
        torch.testing.assert_close(
            (p.log_weights.exp() * inner.log_tilt.exp()).sum(), torch.ones(()), rtol=0, atol=1e-8
        )


@pytest.mark.parametrize("wrong", [TotalVariation, Wasserstein1, lambda: Renyi(2.0)], ids=["tv", "w1", "renyi"])
def test_only_smooth_f_divergences_are_taken(wrong):
    with pytest.raises(ValueError, match="takes a smooth f-divergence, got"):
        LipschitzRegularised(wrong())


def test_it_says_of_f_what_holds_of_v():
    """With the canonical link only v is Lipschitz; with the identity f is."""
    regular, plain = LipschitzRegularised(Alpha(2.0)), Alpha(2.0)
    assert plain.link_slope is None and regular.link_slope == 1 and regular.needs_lipschitz
    v = torch.linspace(-3, 3, 7)
    assert torch.equal(regular.link(v), v) and (plain.link(v).diff() / v.diff()).max() > 8


def test_it_plays_over_lipschitz_metrics_alone():
    plain = {"model": Affine((2,)), "divergence": LipschitzRegularised(Alpha(2.0)), "auxiliary": Dual()}
    StandardEquation(metric=Metric(GroupSortCritic((2,), width=8)), **plain)
    with pytest.raises(IncompatibleError, match="needs a 1-Lipschitz metric"):
        StandardEquation(metric=Metric(MLPCritic((2,), width=8)), **plain)


def test_a_learnt_critic_comes_up_to_the_value_from_below():
    """Six letters in the plane, a GroupSort critic, 400 steps of Adam: within a fiftieth, and never above."""
    points, q, p = laws(11, k=6)
    D = LipschitzRegularised(KL())
    exact = float(D.exact(Points(points, q.log()), Points(points, p.log())))
    torch.manual_seed(0)
    critic = GroupSortCritic((2,), width=16, depth=2)
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.02)
    reached = []
    for _ in range(400):
        v = critic(points)
        bound = (q * D.link(v)).sum() - (p * D.conjugate(v)).sum()
        reached.append(float(bound.detach()))
        optimizer.zero_grad()
        (-bound).backward()
        optimizer.step()
    assert max(reached) <= exact + 1e-9 and reached[-1] >= 0.98 * exact
