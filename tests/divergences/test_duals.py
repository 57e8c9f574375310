"""The duals over unnormalised and over probability q, against direct maximisation over q."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from divergences import KL, Pearson, ReverseKL
from divergences.f_divergence import LIMIT
from models.laws import Particles
from tests.support.cases import (
    DUAL_DIVERGENCES,
    F_DIVERGENCES,
    NAMED_F_DIVERGENCES,
    f_case,
    named_case,
)
from tests.support.oracles import (
    GENERATORS,
    central_difference,
    conjugate_by_search,
    critic_outputs,
    directional,
    letters,
    probability_conjugate_by_search,
    simplex,
)

DEFAULT_DTYPE = torch.float64


# -- duals ------------------------------------------------------------------------------------------------------------


SEEDS = {0.1: 0, 1.0: 1, 2.5: 2}
"""The letters' law goes with the scale of the scores in ``make test``; ``make soak`` takes every law at every scale."""


@pytest.mark.soak
@f_case
@pytest.mark.parametrize("scale", SEEDS)
def test_unnormalised_dual_is_the_maximum_over_q(name, scale, soak):
    d = F_DIVERGENCES[name]()
    for seed in range(3) if soak else [SEEDS[scale]]:
        p, v = simplex(5, seed), critic_outputs(5, seed, scale)
        t = d.link(v).numpy()
        inner = d.inner(v, letters(p))
        exact = conjugate_by_search(name, t, p)
        # Golden section stops 1e-11 from the top of a smooth hill: second order. Rounding: of the terms it compares.
        size = float((p * (1 + np.exp(v.numpy())) * (1 + np.abs(t))).sum())
        assert float(inner.conjugate) == pytest.approx(exact, abs=1e-10 * size)
        assert torch.equal(inner.log_tilt, v)
        assert float(inner.link_q - inner.divergence) == pytest.approx(float(inner.conjugate), abs=1e-13 * size)


@pytest.mark.soak
@f_case
@pytest.mark.parametrize("scale", SEEDS)
def test_probability_dual_is_the_maximum_over_the_simplex(name, scale, soak):
    d = F_DIVERGENCES[name]()
    for seed in range(3) if soak else [SEEDS[scale]]:
        p, v = simplex(5, seed), critic_outputs(5, seed, scale)
        t = d.link(v).numpy()
        exact, q = probability_conjugate_by_search(name, t, p)
        inner = d.inner_normalised(v, letters(p))
        size = 1 + np.abs(t).max()
        assert float(inner.conjugate) == pytest.approx(exact, abs=1e-7 * size)  # what the search guarantees
        tilted = p * inner.log_tilt.exp().numpy()
        assert tilted.sum() == pytest.approx(1, abs=1e-9)
        assert float(inner.divergence) == pytest.approx(divergence_of(name, tilted, p), abs=1e-9 * size)
        assert float(inner.link_q) == pytest.approx(float(tilted @ t), abs=1e-9 * size)
        assert np.abs(tilted - q).max() < 1e-3  # the search's argument is good to the root of its value


def divergence_of(name: str, q: np.ndarray, p: np.ndarray) -> float:
    """D by the integral where q may vanish."""
    g = GENERATORS[name]
    return float(sum(g.integrand(a, b) if a > 0 else b * g.at_zero for a, b in zip(q, p, strict=True)))


@named_case
def test_probability_dual_shift_bound_and_gradient(name):
    d = F_DIVERGENCES[name]()
    for seed in range(3):
        p, v = simplex(6, seed), critic_outputs(6, seed, 0.7)
        particles, t = letters(p), d.link(v)
        conjugate = d.inner_normalised(v, particles).conjugate
        assert conjugate <= d.mean_conjugate(v, particles) + 1e-12
        # Where both meet: t = h'(q/p), q a probability.
        best = torch.log(torch.as_tensor(simplex(6, seed + 5) / p))
        both = d.inner_normalised(best, particles).conjugate, d.mean_conjugate(best, particles)
        assert float(both[0]) == pytest.approx(float(both[1]), abs=1e-9 * (1 + float(d.link(best).abs().max())))
        # D*(t + c) = D*(t) + c, wherever t + c still is a value of the link.
        c = 0.1 if math.isinf(d.supremum) else -0.1
        moved = d.inner_normalised(d.inverse_link(t + c), particles).conjugate
        assert float(moved - conjugate) == pytest.approx(c, abs=1e-9 * (1 + float(t.abs().max())))

        w = v.clone().requires_grad_()
        inner = d.inner_normalised(w, particles)
        (gradient,) = torch.autograd.grad(inner.conjugate, w)
        e, numeric = directional(lambda s: d.inner_normalised(s, particles).conjugate, v)  # noqa: B023
        torch.testing.assert_close(gradient @ e, numeric, rtol=1e-5, atol=1e-7)
        # Danskin: the gradient is q* l'(v).
        (slope,) = torch.autograd.grad(d.link(w).sum(), w)
        torch.testing.assert_close(gradient, torch.as_tensor(p) * inner.log_tilt.exp() * slope, rtol=1e-9, atol=1e-12)


OFF_SUPPORT = [
    (n, off) for n, g in GENERATORS.items() for off in (None, 2.0, 15.0) if off is None or g.at_infinity < math.inf
]


@pytest.mark.parametrize(("name", "off"), OFF_SUPPORT)
def test_second_derivatives_of_the_probability_dual(name, off):
    """u and lambda move: gradients of gradients against differences of gradients, in the scores and in the weights."""
    d = F_DIVERGENCES[name]()
    logits, v = torch.as_tensor(np.log(simplex(5, 2))), critic_outputs(5, 2, 0.8)
    v_data = None if off is None else torch.cat([v, torch.tensor([off])])

    def conjugate(z):
        p = Particles(torch.arange(5.0)[:, None], z[:5].log_softmax(0))
        return d.inner_normalised(z[5:10], p, None if off is None else z[5:]).conjugate

    z = torch.cat([logits, v if v_data is None else v_data]).requires_grad_()
    e = torch.as_tensor(np.random.default_rng(3).standard_normal(len(z)))

    def slope_along(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(conjugate(x), x)[0] @ e

    (first,) = torch.autograd.grad(conjugate(z), z, create_graph=True)
    (second,) = torch.autograd.grad(first @ e, z)
    # Differences: step^2/6 of a third derivative, up to 3^3 e^{3|v|} for the steepest rows, and 1e-12 over the step.
    numeric = central_difference(slope_along, z)
    assert ((second - numeric).abs() <= 1e-6 * (1 + numeric.abs().max())).all()
    (whole,) = torch.autograd.grad(conjugate(z), z)
    torch.testing.assert_close(whole, central_difference(lambda x: conjugate(x).detach(), z), rtol=1e-6, atol=1e-7)


@f_case
def test_multiplier_carries_its_gradient(name):
    d, p = F_DIVERGENCES[name](), letters(simplex(5, 2))
    v = critic_outputs(5, 2, 0.8).requires_grad_()
    (gradient,) = torch.autograd.grad(d.inner_normalised(v, p).multiplier, v)
    numeric = central_difference(lambda x: d.inner_normalised(x, p).multiplier.detach(), v)
    torch.testing.assert_close(gradient, numeric, rtol=1e-6, atol=1e-7)


def test_probability_dual_closed_forms():
    for seed in range(5):
        p = simplex(6, seed)
        particles = letters(p)
        w = torch.as_tensor(p)
        v = critic_outputs(6, seed, 1.5)
        donsker_varadhan = torch.logsumexp(KL().link(v) + w.log(), 0)
        torch.testing.assert_close(KL().inner_normalised(v, particles).conjugate, donsker_varadhan, rtol=0, atol=1e-12)

        v = critic_outputs(6, seed, 0.3)
        t = Pearson().link(v)
        mean = (w * t).sum()
        assert (t - mean > -2).all()  # not clipped
        exact = mean + (w * (t - mean).square()).sum() / 4
        torch.testing.assert_close(Pearson().inner_normalised(v, particles).conjugate, exact, rtol=0, atol=1e-12)


def test_probability_dual_of_pearson_where_q_touches_zero():
    p, v = np.full(4, 0.25), torch.tensor([3.0, -20.0, -20.0, -20.0])
    inner = Pearson().inner_normalised(v, letters(p))
    exact, _ = probability_conjugate_by_search("pearson", Pearson().link(v).numpy(), p)
    assert float(inner.conjugate) == pytest.approx(exact, abs=1e-7)
    assert torch.equal(inner.log_tilt[1:].exp(), torch.zeros(3)) and float(inner.divergence) == pytest.approx(3.0)


@named_case
def test_equal_weights_are_the_default(name):
    d, v = F_DIVERGENCES[name](), critic_outputs(6, 1, 1.0)
    plain, weighted = Particles(torch.arange(6.0)[:, None]), letters(np.full(6, 1 / 6))
    for solve in (d.inner, d.inner_normalised):
        for a, b in zip(solve(v, plain), solve(v, weighted), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


OUTSIDE = (-1.0, 0.5, 2.0, 6.0)
FLOORED = [name for name in NAMED_F_DIVERGENCES if math.isfinite(GENERATORS[name].at_infinity)]


@pytest.mark.soak
@pytest.mark.parametrize("name", FLOORED)
@pytest.mark.parametrize("outside", OUTSIDE)
def test_probability_dual_with_data_off_the_support(name, outside, soak):
    """q may put mass where p has none at the price h'(inf) per unit: that bounds lambda from below."""
    d = F_DIVERGENCES[name]()
    for seed in range(3) if soak else [OUTSIDE.index(outside) % 3]:
        p, v = simplex(4, seed), critic_outputs(4, seed, 0.8)
        v_data = torch.cat([v, torch.tensor([outside])])
        exact, q = probability_conjugate_by_search(name, d.link(v).numpy(), p, d.link(v_data[-1:]).numpy())
        inner = d.inner_normalised(v, letters(p), v_data)
        assert float(inner.conjugate) == pytest.approx(exact, abs=1e-7)
        assert float(inner.link_q - inner.divergence) == pytest.approx(float(inner.conjugate), abs=1e-9)
        assert np.abs(p * inner.log_tilt.exp().numpy() - q[:-1]).max() < 1e-3

        # The same with a fifth letter of p of vanishing weight: no extra point is needed, it is a particle.
        tiny = 1e-13
        five = letters(np.append(p * (1 - tiny), tiny))
        near = d.inner_normalised(v_data, five, v_data).conjugate
        assert float(near) == pytest.approx(float(inner.conjugate), abs=1e-5)  # Hellinger: of the root of the weight

        both = torch.cat([v, v_data]).requires_grad_()
        (gradient,) = torch.autograd.grad(d.inner_normalised(both[:4], letters(p), both[4:]).conjugate, both)
        e, numeric = directional(
            lambda s: d.inner_normalised(s[:4], letters(p), s[4:]).conjugate,  # noqa: B023
            both,
        )
        torch.testing.assert_close(gradient @ e, numeric, rtol=1e-5, atol=1e-6)


def test_floor_is_active_and_its_mass_is_recorded():
    """Reverse KL by hand: q = p / (lambda - f), on two letters of equal weight and equal f, lambda >= f off them."""
    p = letters([0.5, 0.5])
    # f = -1 on the letters and -1/4 off them: mass one needs lambda = 0, which is above the floor.
    inner = ReverseKL().inner_normalised(torch.zeros(2), p, torch.tensor([math.log(4.0)]))
    assert float(inner.log_tilt.exp().sum() / 2) == pytest.approx(1, abs=1e-12)
    # f = -3 on them and -1/100 off them: mass one needs lambda = -2, the floor is -1/100; what is left goes off.
    inner = ReverseKL().inner_normalised(torch.full((2,), -math.log(3.0)), p, torch.tensor([math.log(100.0)]))
    u = 1 / (3 - 0.01)
    assert float(inner.log_tilt.exp()[0]) == pytest.approx(u, abs=1e-12)
    assert float(inner.divergence) == pytest.approx(-math.log(u), abs=1e-12)  # off the support mass costs h'(inf) = 0
    assert float(inner.link_q) == pytest.approx(-3 * u - 0.01 * (1 - u), abs=1e-12)


@pytest.mark.parametrize("name", FLOORED)
def test_floor_at_large_scores(name):
    """The record must hold where scores are so negative that the multiplier has lost the last digits of h'(inf)."""
    d = F_DIVERGENCES[name]()
    linear = name in ("jensen_shannon", "weighted_js")  # in v; the others' links are exponentials
    v = torch.tensor([-4e6, -3e6]) if linear else torch.tensor([-40.0, -30.0])
    top = v + v.abs().min() / 3
    inner = d.inner_normalised(v, letters([0.4, 0.6]), top)
    size = float(inner.link_q.abs() + inner.divergence.abs())
    assert float(inner.link_q - inner.divergence - inner.conjugate) == pytest.approx(0, abs=1e-12 * size)


@pytest.mark.parametrize("name", DUAL_DIVERGENCES)
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 0.1, 1.0, 5.0])
def test_record_identity(name, scale):
    """D - E_q f = -D*(f) to 1e-12 of the terms, for both duals; the equation multiplies all three by beta."""
    d = DUAL_DIVERGENCES[name]()
    for seed in range(3):
        p, v = letters(simplex(6, seed)), critic_outputs(6, seed, scale).clamp(-LIMIT, LIMIT)
        for solve in (d.inner, d.inner_normalised):
            inner = solve(v, p)
            size = float(inner.divergence.abs() + inner.link_q.abs())
            assert float(inner.divergence - inner.link_q + inner.conjugate) == pytest.approx(0, abs=1e-12 * size)
