"""The Renyi divergence: values, its dual up to order 1 against direct maximisation, and its bound at every order."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import optimize, special

from divergences import KL, Alpha, Renyi, Surrogate
from models import TabularCritic, TabularModel
from se_framework.equation.auxiliary import Dual
from se_framework.equation.equation import StandardEquation
from se_framework.equation.metric import Metric
from se_framework.evaluation.held_out import bound
from tests.support.oracles import (
    EPS,
    central_difference,
    critic_outputs,
    divergence,
    gaussian_pair,
    letters,
    renyi,
    renyi_gaussians,
    simplex,
)

DEFAULT_DTYPE = torch.float64
ORDERS = (0.05, 0.3, 0.5, 0.9, 0.999, 1.0)
ABOVE = (1.001, 1.5, 2.0, 5.0)
order_case = pytest.mark.parametrize("order", ORDERS)
any_order = pytest.mark.parametrize("order", ORDERS + ABOVE)
both_duals = pytest.mark.parametrize("normalised", [False, True])


def pairs(n: int = 5, k: int = 6):
    return [(simplex(k, s), simplex(k, s + 31)) for s in range(n)]


def log_ratio(q, p) -> torch.Tensor:
    return torch.as_tensor(np.log(q / p))


# -- values -----------------------------------------------------------------------------------------------------------


@any_order
def test_value_on_alphabets(order):
    d = Renyi(order)
    for q, p in pairs():
        # q^a p^(1-a) carries a few roundings per unit of a log-ratio; near order 1 their sum does too, relative to K.
        assert float(d.of_log_ratio(log_ratio(q, p), letters(p))) == pytest.approx(renyi(order, q, p), abs=1e-12)
        assert float(d.of_log_ratio(log_ratio(p, p), letters(p))) == pytest.approx(
            0, abs=4 * EPS / max(abs(order - 1), 0.1)
        )


@any_order
@pytest.mark.parametrize("pair", [(0.0, 1.0, 1.0, 1.0), (0.0, 1.0, 0.7, 1.5), (0.3, 0.9, -0.4, 1.0)])
def test_gaussian_pairs(order, pair):
    rule, exact = gaussian_pair(*pair), renyi_gaussians(order, *pair)
    if math.isfinite(exact):
        got = Renyi(order).of_log_ratio(torch.as_tensor(rule.log_q - rule.log_p), rule.particles())
        assert float(got) == pytest.approx(exact, abs=1e-10)


@any_order
def test_monotone_function_of_alpha_and_rising_in_the_order(order):
    for q, p in pairs(2):
        alpha = float(Alpha(order).inner(log_ratio(q, p), letters(p)).divergence)
        value = float(Renyi(order).of_log_ratio(log_ratio(q, p), letters(p)))
        want = alpha if order == 1 else math.log1p(order * (order - 1) * alpha) / (order - 1)
        assert value == pytest.approx(want, abs=1e-12)
        assert value < float(Renyi(order + 0.1).of_log_ratio(log_ratio(q, p), letters(p)))


def test_limit_order_one_is_kl():
    """|dD/da| is half the variance of the log-ratio, below 3 on these pairs."""
    for q, p in pairs():
        for step in (-1e-7, -1e-12, 0.0, 1e-12, 1e-7):
            got = float(Renyi(1 + step).of_log_ratio(log_ratio(q, p), letters(p)))
            assert got == pytest.approx(divergence("kl", q, p), abs=3 * abs(step) + 1e-13)


def test_declarations_and_parameters():
    for bad in (0.0, -1.0, 31.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"Renyi takes an order in \(0, 30\], got"):
            Renyi(bad)
    assert repr(Renyi(0.5)) == "Renyi(order=0.5)" and Renyi(0.5).symmetric and not Renyi(0.4).symmetric
    (q, p), *_ = pairs(1)
    there, back = (
        Renyi(0.5).of_log_ratio(log_ratio(q, p), letters(p)),
        Renyi(0.5).of_log_ratio(log_ratio(p, q), letters(q)),
    )
    assert float(there) == pytest.approx(float(back), abs=1e-14)
    v = torch.zeros(2)
    for order in ABOVE:
        d = Renyi(order)
        assert not (d.has_dual or d.has_normalised_dual or d.convex_in_q)
        for call in (d.link, d.inverse_link, lambda v, d=d: d.mean_conjugate(v, letters([0.5, 0.5]))):
            with pytest.raises(
                NotImplementedError, match=rf"no dual at order {order:g}.*or maximise variational_bound\(\)"
            ):
                call(v)
        with pytest.raises(NotImplementedError, match="no dual over probability measures at order"):
            d.inner_normalised(v, letters([0.5, 0.5]))
    with pytest.raises(ValueError, match="needs `of`: a divergence with a dual that is a mean"):
        Surrogate("raised_link", Renyi(0.5))


@pytest.mark.parametrize("order", [0.3, 0.5, 0.9, 1.0, 2.0, 5.0])
def test_convex_in_q_iff_declared(order):
    d = Renyi(order)

    def value(q, p):
        return float(d.of_log_ratio(log_ratio(q, p), letters(p)))

    p, near, far = np.array([0.01, 0.99]), np.array([0.4, 0.6]), np.array([0.99, 0.01])
    draws = [(simplex(4, s, 0.5), simplex(4, s + 50, 0.5), simplex(4, s + 99, 0.5)) for s in range(20)] + [
        (near, far, p)
    ]
    gaps = [(value(a, r) + value(b, r)) / 2 - value((a + b) / 2, r) for a, b, r in draws]
    assert (min(gaps) > -1e-13) is d.convex_in_q


# -- the dual ---------------------------------------------------------------------------------------------------------


def conjugate_over_the_cone(order: float, t: np.ndarray, p: np.ndarray) -> float:
    r"""max over q >= 0 of <q, t> - D(q, p) - a/(1-a) (mass - 1), in log-coordinates; at order 1 over probabilities."""

    def loss(z):
        q = p * np.exp(z)
        return renyi(order, q, p) + order / (1 - order) * (q.sum() - 1) - q @ t

    if order == 1:
        return float(special.logsumexp(t, b=p))
    found = optimize.minimize(loss, np.zeros(len(p)), method="BFGS", options={"gtol": 1e-10, "maxiter": 5000})
    return -float(found.fun)


def conjugate_over_the_simplex(order: float, t: np.ndarray, p: np.ndarray, t_outside: float | None = None) -> float:
    """The same over probabilities; one more letter, where p is zero, costs nothing but the mass it takes from p's."""
    n = len(p)
    everything = t if t_outside is None else np.append(t, t_outside)

    def loss(z):
        q = special.softmax(z)
        return (special.xlogy(q[:n], q[:n] / p).sum() if order == 1 else renyi(order, q[:n], p)) - q @ everything

    starts = [np.append(np.log(p), [s] * (t_outside is not None)) for s in (-5.0, 0.0)]
    return -min(
        float(optimize.minimize(loss, s, method="BFGS", options={"gtol": 1e-10, "maxiter": 5000}).fun) for s in starts
    )


@order_case
@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_duals_are_the_maximum_over_q(order, scale):
    """A search stops at gtol by differences of 1e-8: 1e-8 in the value is safe, and every search is a lower bound."""
    d = Renyi(order)
    for seed in range(3):
        p, v = simplex(5, seed), critic_outputs(5, seed, scale)
        t = d.link(v).numpy()
        for solve, exact in ((d.inner, conjugate_over_the_cone), (d.inner_normalised, conjugate_over_the_simplex)):
            inner = solve(v, letters(p))
            assert float(inner.conjugate) == pytest.approx(exact(order, t, p), abs=1e-7)
            q = p * inner.log_tilt.exp().numpy()
            if order < 1:
                price = order / (1 - order) * (q.sum() - 1)
                assert float(inner.divergence) == pytest.approx(renyi(order, q, p) + price, abs=1e-11 / (1 - order))
            assert float(inner.link_q) == pytest.approx(float(q @ t), abs=1e-11)
            assert float(inner.link_q - inner.divergence) == pytest.approx(float(inner.conjugate), abs=1e-11)
        assert q.sum() == pytest.approx(1, abs=1e-12)
        assert d.inner_normalised(v, letters(p)).conjugate <= d.mean_conjugate(v, letters(p)) + 1e-12


@pytest.mark.parametrize("order", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("outside", [-1.0, 2.0, 6.0])
def test_probability_dual_with_data_off_the_support(order, outside):
    d = Renyi(order)
    for seed in range(3):
        p, v = simplex(4, seed), critic_outputs(4, seed, 0.8)
        off = torch.tensor([outside])
        inner = d.inner_normalised(v, letters(p), torch.cat([v, off]))
        exact = conjugate_over_the_simplex(order, d.link(v).numpy(), p, float(d.link(off)))
        assert float(inner.conjugate) == pytest.approx(exact, abs=1e-7)
        assert float(inner.link_q - inner.divergence) == pytest.approx(float(inner.conjugate), abs=1e-11)


def test_mass_off_the_support_near_order_one():
    """Where the mass on p is not one the value must not be taken as if it were."""
    d, p, v = Renyi(0.95), letters(simplex(4, 0)), critic_outputs(4, 0, 0.8) - 3
    inner = d.inner_normalised(v, p, torch.tensor([200.0]))
    q = simplex(4, 0) * inner.log_tilt.exp().numpy()
    assert q.sum() < 0.99
    assert float(inner.divergence) == pytest.approx(renyi(0.95, q, simplex(4, 0)), abs=1e-12)


def test_evaluation_says_that_a_sample_is_biased():
    assert "biased upward by sampling" in bound(finite(Renyi(0.5), False, simplex(4, 0)))


@order_case
def test_first_and_second_derivatives_of_the_duals(order):
    d, p = Renyi(order), letters(simplex(5, 0))
    v_data = torch.tensor([4.0])
    for solve in (
        lambda v: d.mean_conjugate(v, p),
        lambda v: d.inner_normalised(v, p).conjugate,
        lambda v: d.inner_normalised(v, p, v_data).conjugate,
    ):
        v = critic_outputs(5, 3, 0.7).requires_grad_()
        (first,) = torch.autograd.grad(solve(v), v, create_graph=True)
        torch.testing.assert_close(
            first.detach(), central_difference(lambda x, f=solve: f(x).detach(), v), rtol=1e-7, atol=1e-8
        )
        e = torch.linspace(-1, 1, 5)

        def slope_along(x, f=solve, e=e):
            x = x.clone().requires_grad_()
            return torch.autograd.grad(f(x), x)[0] @ e

        (second,) = torch.autograd.grad(first @ e, v)
        torch.testing.assert_close(second, central_difference(slope_along, v), rtol=1e-6, atol=1e-7)


def finite(d, normalised, p, beta=1.0):
    model = TabularModel(letters=len(p))
    with torch.no_grad():
        model.logits.copy_(torch.as_tensor(np.log(p)))
    return StandardEquation(
        model=model, divergence=d, auxiliary=Dual(normalised), metric=Metric(TabularCritic(letters=len(p))), beta=beta
    )


def scalar(equation, pd, v):
    with torch.no_grad():
        equation.metric.network.scores.copy_(torch.as_tensor(v))
    return equation.scalar(letters(pd), equation.sample(0))


@order_case
@both_duals
def test_saddle_of_the_equation(order, normalised):
    """Value, stationarity, bound, theta's gradient, and the log-ratio: the critic is short of it by D at order < 1."""
    d = Renyi(order)
    for pd, p in pairs(2):
        equation, exact = finite(d, normalised, p, beta=1.7), 1.7 * renyi(order, pd, p)
        best = np.log(pd / p) - renyi(order, pd, p)
        at_best = scalar(equation, pd, best)
        assert float(at_best.detach()) == pytest.approx(exact, abs=1e-11)
        gradient, theta = torch.autograd.grad(at_best, (equation.metric.network.scores, equation.model.logits))
        assert gradient.abs().max() < 1e-9

        def primal(logits, pd=pd):
            return torch.tensor(1.7 * renyi(order, pd, torch.softmax(logits, 0).numpy()))

        # eps D/step over |a-1|, in which the closed form loses its digits near order 1
        allowed = 1e-9 / max(1e-3, 1 - order) if order < 1 else 1e-9
        torch.testing.assert_close(theta, central_difference(primal, equation.model.logits), rtol=1e-6, atol=allowed)
        x = torch.arange(float(len(p)))[:, None]
        read = equation.log_ratio(x, letters(pd), equation.sample(0)).detach().numpy()
        assert read == pytest.approx(np.log(pd / p), abs=1e-9)
        terms = equation.terms(letters(pd), equation.sample(0))
        assert terms.divergence == pytest.approx(exact / 1.7, abs=1e-10) and terms.mass == pytest.approx(1, abs=1e-12)
        random = np.random.default_rng(0)
        for scale in (1e-3, 0.3, 2.0):
            other = float(scalar(equation, pd, best + scale * random.standard_normal(len(p))).detach())
            assert other <= exact + 1e-11 and (other < exact - 1e-6 or scale < 0.1)


def test_order_one_is_the_probability_dual_of_kl():
    p, v = letters(simplex(6, 0)), critic_outputs(6, 0, 1.3)
    one, kl = Renyi(1.0), KL()
    for inner in (one.inner(v, p), one.inner_normalised(v, p)):
        other = kl.inner_normalised(v, p)
        assert float(inner.conjugate) == pytest.approx(float(other.conjugate) - 1, abs=1e-13)  # link 1 + v
        assert float(inner.divergence) == pytest.approx(float(other.divergence), abs=1e-13)
        torch.testing.assert_close(inner.log_tilt, other.log_tilt)


# -- the bound --------------------------------------------------------------------------------------------------------


@any_order
def test_bound_is_below_and_tight(order):
    d = Renyi(order)
    for pd, p in pairs(3):
        exact, best = renyi(order, pd, p), log_ratio(pd, p)
        for shift in (0.0, 3.0):
            assert float(d.variational_bound(best + shift, best + shift, letters(pd), letters(p))) == pytest.approx(
                exact, abs=1e-11
            )
        for seed, scale in enumerate((0.1, 1.0, 3.0)):
            v = best + critic_outputs(len(p), seed, scale)
            bound = float(d.variational_bound(v, v, letters(pd), letters(p)))
            assert bound < exact - 1e-6
            if order <= 1:  # the saddle's value at the best shift of v

                def loss(c, v=v, pd=pd, p=p):
                    return -float(letters(pd).mean(d.link(v + c)) - d.mean_conjugate(v + c, letters(p)))

                values = optimize.minimize_scalar(loss, bounds=(-30, 30), method="bounded", options={"xatol": 1e-9})
                assert -values.fun == pytest.approx(bound, abs=1e-9)
        plain = d.variational_bound(best, best)
        equal = letters(np.full(len(p), 1 / len(p)))
        assert float(plain) == pytest.approx(float(d.variational_bound(best, best, equal, equal)), abs=1e-13)


@pytest.mark.parametrize("order", [0.3, 1.0, 2.0])
def test_exact_between_normal_laws_and_letters(order):
    """Gil, Alajaji, Linder 2013, table 2."""
    (m1, s1), (m2, s2) = (0.0, 1.0), (0.7, 1.3)
    s = order * s2**2 + (1 - order) * s1**2
    if order == 1:
        truth = math.log(s2 / s1) + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5
    else:
        truth = math.log(s2 / s1) + math.log(s2**2 / s) / (2 * (order - 1)) + order * (m1 - m2) ** 2 / (2 * s)
    laws = [
        torch.distributions.Normal(torch.tensor(m).double(), torch.tensor(s).double()) for m, s in ((m1, s1), (m2, s2))
    ]
    assert float(Renyi(order).exact(*laws)) == pytest.approx(truth, abs=1e-12)
    q, p = np.array([0.2, 0.5, 0.3]), np.array([0.4, 0.1, 0.5])
    power = (q**order * p ** (1 - order)).sum()
    truth = (q * np.log(q / p)).sum() if order == 1 else math.log(power) / (order - 1)
    alphabets = [torch.distributions.Categorical(torch.tensor(w)) for w in (q, p)]
    assert float(Renyi(order).exact(*alphabets)) == pytest.approx(truth, abs=1e-12)
