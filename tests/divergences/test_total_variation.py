"""Total variation: its dual against linear programs and enumeration, its saddle, what its critic does not say."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from divergences import GAN, TotalVariation
from models import Affine, MLPCritic, TabularCritic, TabularModel
from models.laws import Particles
from se_framework.equation.auxiliary import Dual
from se_framework.equation.equation import StandardEquation
from se_framework.equation.metric import Metric
from se_framework.errors import IncompatibleError
from tests.support.oracles import EPS, critic_outputs, directional, gaussian_pair, letters, simplex, total_variation

DEFAULT_DTYPE = torch.float64
K = 6
both_duals = pytest.mark.parametrize("normalised", [False, True], ids=["unnormalised", "probability"])


def linear_program(t: np.ndarray, p: np.ndarray, probability: bool) -> tuple[float, np.ndarray]:
    """Return max over q >= 0 (of mass one) of t.q - |q - p|_1 / 2, and q, in variables (q, s) with s >= |q - p|."""
    n, one = len(t), np.eye(len(t))
    found = optimize.linprog(
        np.concatenate([-t, np.full(n, 0.5)]),
        A_ub=np.block([[one, -one], [-one, -one]]),
        b_ub=np.concatenate([p, -p]),
        A_eq=np.concatenate([np.ones(n), np.zeros(n)])[None] if probability else None,
        b_eq=[1.0] if probability else None,
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    return -found.fun, found.x[:n]


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0, 30.0])
@pytest.mark.parametrize("outside", [False, True])
def test_both_duals_equal_the_linear_program(scale, outside):
    """Also with a letter that p lacks: moving mass there costs one per unit, and no link gains more than one."""
    for seed in range(4):
        p, v = simplex(K, seed), critic_outputs(K, seed, scale)
        v_data = torch.cat([v, torch.tensor([9.0])]) if outside else None
        t = TotalVariation().link(v if v_data is None else v_data).numpy()
        mass = np.append(p, 0.0) if outside else p
        d = TotalVariation()
        for inner, probability in (
            (d.inner(v, letters(p)), False),
            (d.inner_normalised(v, letters(p), v_data), True),
        ):
            exact, q = linear_program(t, mass, probability)
            assert float(inner.conjugate) == pytest.approx(exact, abs=1e-8)  # a hundred tolerances of the solver
            # q*: p attains the maximum, whichever vertex the solver names where several do.
            assert mass @ t == pytest.approx(exact, abs=1e-8) and q @ t - np.abs(q - mass).sum() / 2 <= exact + 1e-8
            assert not inner.log_tilt.any() and float(inner.divergence) == 0
            assert float(inner.link_q) == pytest.approx(float(p @ t[:K]), abs=4 * EPS)
            # The multiplier is stationary: lambda + E_p h*(t - lambda) is the maximum, t - lambda in the domain of h*.
            multiplier = float(inner.multiplier)
            assert (t - multiplier <= 0.5).all()
            assert multiplier + p @ np.maximum(t[:K] - multiplier, -0.5) == pytest.approx(exact, abs=1e-8)


@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0, 5.0])
def test_general_formula_of_the_probability_dual(spread):
    """E_p max(t, sup t - 1) for any t; where t spans at most one, as the link does, it is E_p t."""
    for seed in range(5):
        p, t = simplex(K, seed), np.random.default_rng(seed).random(K)
        t = spread * (t - t.min()) / np.ptp(t)
        formula = float(p @ np.maximum(t, t.max() - 1))
        assert linear_program(t, p, True)[0] == pytest.approx(formula, abs=1e-8)
        assert (formula == pytest.approx(float(p @ t), abs=4 * EPS)) is (spread <= 1)


def test_enumeration_finds_nothing_above_the_dual():
    """Every q on three letters in steps of 1/20, of any mass up to two, p among them."""
    p, counts = np.array([5, 12, 3]) / 20, np.array(list(itertools.product(range(41), repeat=3)))
    q = counts / 20
    of_mass_one = counts.sum(1) == 20
    for seed, scale in ((0, 0.3), (1, 2.0), (2, 20.0)):
        v = critic_outputs(3, seed, scale)
        values = q @ TotalVariation().link(v).numpy() - np.abs(q - p).sum(1) / 2
        exact = float(TotalVariation().inner(v, letters(p)).conjugate)
        assert values.max() == pytest.approx(exact, abs=8 * EPS)
        assert values[of_mass_one].max() == pytest.approx(exact, abs=8 * EPS)


def finite(p, normalised=False, beta=1.0, d=None) -> StandardEquation:
    model, critic = TabularModel(letters=len(p)), TabularCritic(letters=len(p))
    with torch.no_grad():
        model.logits.copy_(torch.as_tensor(np.log(p)))
    return StandardEquation(
        model=model, divergence=d or TotalVariation(), auxiliary=Dual(normalised), metric=Metric(critic), beta=beta
    )


def value(equation: StandardEquation, pd, scores) -> torch.Tensor:
    with torch.no_grad():
        equation.metric.network.scores.copy_(torch.as_tensor(scores))
    return equation.scalar(letters(pd), equation.sample(0))


@both_duals
@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_biconjugation(normalised, beta):
    """max_f T = beta TV: attained in the limit |v| -> inf at the sign of p_d - p, never beaten."""
    for seed in range(4):
        pd, p = simplex(K, seed), simplex(K, seed + 31)
        equation, exact = finite(p, normalised, beta), beta * total_variation(pd, p)
        sign = np.sign(pd - p)
        assert float(value(equation, pd, 40 * sign).detach()) == pytest.approx(exact, abs=8 * EPS)
        for far in (1.0, 3.0, 10.0):  # short of it by 1 - tanh
            got = float(value(equation, pd, far * sign).detach())
            assert got == pytest.approx(exact * math.tanh(far), abs=8 * EPS)
        random = np.random.default_rng(seed)
        for scale in (0.1, 1.0, 10.0):
            for _ in range(5):
                assert float(value(equation, pd, scale * random.standard_normal(K)).detach()) <= exact + 8 * EPS
        (ascent,) = torch.autograd.grad(value(equation, pd, np.zeros(K)), equation.metric.network.scores)
        assert ascent.numpy() == pytest.approx(beta * (pd - p) / 2, abs=8 * EPS)


@both_duals
def test_theta_gradient_at_the_optimum_is_that_of_total_variation(normalised):
    pd, p = simplex(K, 3), simplex(K, 40)
    equation = finite(p, normalised, beta=0.7)
    (gradient,) = torch.autograd.grad(value(equation, pd, 40 * np.sign(pd - p)), equation.model.logits)

    def primal(logits):
        return torch.tensor(0.7 * total_variation(pd, torch.softmax(logits, 0).numpy()))

    assert np.abs(pd - p).min() > 1e-3  # no kink within the step
    e, numeric = directional(primal, equation.model.logits.detach())
    assert gradient.norm() > 1e-2
    torch.testing.assert_close(gradient @ e, numeric, rtol=1e-7, atol=1e-9)
    # At a critic that is not optimal it is that of -beta E_p f, as q* = p whatever f is (Danskin).
    v = critic_outputs(K, 0, 1.0)
    (gradient,) = torch.autograd.grad(value(equation, pd, v), equation.model.logits)
    f = 0.7 * torch.tanh(v).numpy() / 2
    assert gradient.numpy() == pytest.approx(-p * (f - p @ f), abs=8 * EPS)


@pytest.mark.parametrize(
    ("pair", "published"),
    [((0, 1, 1, 1), 0.38292492), ((0, 1, 1, 1.5), 0.34612308), ((0, 1, 3, 1), 0.86638560)],
)
def test_gaussian_pairs(pair, published):
    """The saddle by quadrature, against 2 Phi(|D|/2) - 1 and published digits; a kink costs the rule O(step)."""
    rule = gaussian_pair(*pair, step=1e-3)
    sign = torch.as_tensor(np.sign(rule.log_q - rule.log_p))
    q = Particles(rule.particles().x, torch.as_tensor(rule.log_q + math.log(rule.step)))
    d, p = TotalVariation(), rule.particles()
    got = float(q.mean(d.link(40 * sign)) - d.inner(40 * sign, p).conjugate)
    # The integrand |q - p| has two kinks at most, each of slope below 1/2: step^2/4 times the jump of the slope.
    assert got == pytest.approx(published, abs=1e-3**2 + 5.1e-9)
    if pair[3] == 1:
        assert got == pytest.approx(2 * stats.norm.cdf(abs(pair[0] - pair[2]) / 2) - 1, abs=1e-3**2)


def test_link_is_bounded_and_its_gradient_never_nan():
    v = torch.cat([torch.logspace(-30, 38, 300), torch.zeros(1)]).float()
    v = torch.cat([v, -v]).requires_grad_()
    t = TotalVariation().link(v)
    (slope,) = torch.autograd.grad(t.sum(), v)
    assert t.dtype == torch.float32 and float(t.detach().abs().max()) == 0.5 and (t.detach() * v.detach() >= 0).all()
    assert slope.isfinite().all() and (slope >= 0).all() and float(slope.max()) == 0.5
    w = torch.linspace(-5, 5, 41).requires_grad_()
    (slope,) = torch.autograd.grad(TotalVariation().conjugate(w).sum(), w)
    torch.testing.assert_close(slope, 0.5 / torch.cosh(w.detach()).square(), rtol=1e-10, atol=0)
    assert torch.equal(TotalVariation().conjugate(w), TotalVariation().link(w))


def test_no_log_ratio_is_read_from_a_sign():
    equation, x = finite(simplex(K, 0)), torch.arange(float(K))[:, None]
    assert TotalVariation.critic_reads == "sign" and TotalVariation.symmetric
    with pytest.raises(IncompatibleError, match="no log-ratio: .*divergence=TotalVariation; a smooth f-divergence"):
        equation.log_ratio(x, letters(simplex(K, 1)), equation.sample(0))
    with pytest.raises(NotImplementedError, match="TotalVariation has no inverse link"):
        TotalVariation().inverse_link(torch.zeros(1))


def test_as_a_view_of_a_log_ratio_it_is_a_bound():
    """A critic trained under another divergence: tanh(log u) = (u^2-1)/(u^2+1) has the right sign everywhere."""
    pd, p = simplex(K, 4), simplex(K, 35)
    equation = finite(p, d=GAN())
    with torch.no_grad():
        equation.metric.network.scores.copy_(torch.as_tensor(np.log(pd / p)))
    seen = float(equation.scalar(letters(pd), equation.sample(0), TotalVariation()).detach())
    u = pd / p
    assert seen == pytest.approx(float(((pd - p) * (u**2 - 1) / (u**2 + 1)).sum() / 2), abs=8 * EPS)
    assert 0 < seen < total_variation(pd, p)


def test_terms_on_samples():
    """The record of a run: D of q* = p is zero, and the total a difference of means."""
    x, z = torch.randn(400, 2) + 1.0, torch.randn(300, 2)
    equation = StandardEquation(
        model=Affine((2,)), divergence=TotalVariation(), auxiliary=Dual(), metric=Metric(MLPCritic((2,), width=8)),
        beta=3.0,
    )  # fmt: skip
    p = equation.particles({"model/noise": z})
    terms = equation.terms(Particles(x), p)
    exact = 1.5 * (torch.tanh(equation.metric(x)).mean() - torch.tanh(equation.metric(p.x)).mean())
    assert terms.divergence == 0 and terms.total == pytest.approx(float(exact.detach()), abs=16 * EPS)
    assert terms.f_data - terms.f_q == pytest.approx(terms.total, abs=16 * EPS) and terms.unrepresentable() == []
