"""Divergences: laws of the f-family over the whole table, duals against direct maximisation, transport's wrapper."""

from __future__ import annotations

import math
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats

from divergences import (
    KL,
    Alpha,
    CrossEntropy,
    Divergence,
    FDivergence,
    JensenShannon,
    ReverseKL,
    WeightedJensenShannon,
)
from divergences.absent import Absent
from divergences.f_divergence import LIMIT
from models.laws import Particles
from tests.support.cases import (
    DIVERGENCES,
    F_DIVERGENCES,
    NAMED_F_DIVERGENCES,
    f_case,
    leaves,
    named_case,
    user_generator,
)
from tests.support.oracles import (
    EPS,
    GENERATORS,
    LOG2,
    alpha_generator,
    critic_outputs,
    divergence,
    entropy,
    gaussian_closed_forms,
    gaussian_pair,
    letters,
    simplex,
    weighted_js_generator,
)

DEFAULT_DTYPE = torch.float64
FORMS = ("value", "link", "conjugate")
form_case = pytest.mark.parametrize("form", FORMS)


def test_every_concrete_divergence_has_a_row():
    tested = {type(make()) for make in DIVERGENCES.values()}
    assert leaves(Divergence, "divergences.") - {Absent} <= tested and FDivergence in tested
    assert set(F_DIVERGENCES) == set(GENERATORS)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_declarations_agree_with_the_methods(name):
    d = DIVERGENCES[name]()
    v = torch.zeros(3)
    if d.has_dual:
        assert (d.critic_reads in ("log_ratio", "potential", "sign")) is not d.surrogate
        forms = FORMS if d.additive_dual else ("link",)
        assert d.surrogate or all(getattr(d, form)(v).shape == v.shape for form in forms)
        assert d.surrogate or d.mean_conjugate(v, Particles(v[:, None])).shape == ()
    else:
        for call in (lambda: d.link(v), lambda: d.conjugate(v), lambda: d.value(v)):
            with pytest.raises(NotImplementedError, match=f"{type(d).__name__} has no dual"):
                call()
        with pytest.raises(NotImplementedError, match="no dual over probability measures"):
            d.inner_normalised(v, Particles(v[:, None]))
    if d.primal_needs is None:
        with pytest.raises(NotImplementedError, match=f"{type(d).__name__} has no primal: use its dual"):
            d.primal(Particles(v[:, None]), None, None)


# -- f-divergences: generators ----------------------------------------------------------------------------------------


@f_case
def test_generator_at_one(name):
    d = F_DIVERGENCES[name]()
    one = torch.ones(())
    assert float(d.h(one)) == pytest.approx(d.value_at_identity, abs=4 * EPS)
    assert float(d.value(one * 0)) == pytest.approx(d.value_at_identity, abs=4 * EPS)
    assert d.value_at_identity == pytest.approx(GENERATORS[name].at_one, abs=4 * EPS)


@f_case
def test_generator_is_convex(name):
    d = F_DIVERGENCES[name]()
    a, b = torch.rand(2, 2000) * 30 + 1e-3
    gap = (d.h(a) + d.h(b)) / 2 - d.h((a + b) / 2)
    assert (gap >= -64 * EPS * (1 + d.h(a).abs() + d.h(b).abs())).all()


@named_case
def test_supremum_is_the_slope_at_infinity(name):
    d, g = F_DIVERGENCES[name](), GENERATORS[name]
    assert d.supremum == pytest.approx(g.at_infinity, abs=1e-15)
    with mpmath.workdps(60):
        far = float(g.slope(mpmath.mpf(10) ** 30, mpmath))
    if math.isfinite(g.at_infinity):
        assert far == pytest.approx(g.at_infinity, abs=1e-14)  # the slowest row, Hellinger, is 1e-15 short there
    else:
        assert far > 50


@f_case
@form_case
def test_forms_are_right_to_rounding(name, form):
    """Against the generator in 700 digits, from far tails to the neighbourhood of zero."""
    d, g = F_DIVERGENCES[name](), GENERATORS[name]
    generic = type(d) is FDivergence
    grid = [0.0, 1e-8, -1e-8, 1e-3, -1e-3, 0.3, -0.3, 0.999, -0.999, 1.001, 3.0, -3.0, 12.0, -12.0]
    grid += [] if generic else [29.0, 31.0, -31.0, 80.0, -80.0, 300.0, -300.0]
    for v in grid:
        with mpmath.workdps(700):
            u = mpmath.exp(mpmath.mpf(v))
            exact = {"value": g.h(u, mpmath), "link": g.slope(u, mpmath)}
            exact["conjugate"] = u * exact["link"] - exact["value"]
            scale = float(abs(exact[form]))
            if generic:  # u h' - h cancels: what is lost is relative to its parts
                scale += float(abs(u * exact["link"]) + abs(exact["value"]) + 1 + u + 1 / u)
            reference = float(exact[form])
        got = float(getattr(d, form)(torch.tensor(v)))
        # exp(v) carries |v| roundings; differences of order-one numbers that do not cancel carry a few.
        # KL's and reverse KL's affine forms round to the spacing at one, v = -1 and v = 1 excepted by the grid.
        allowed = 32 * EPS * (1 + abs(v)) * scale + 4 * EPS * (form != "value" or generic)
        assert got == reference or abs(got - reference) <= allowed, v  # both may be infinite


@named_case
@form_case
def test_stable_forms_equal_the_generic_form(name, form):
    d = F_DIVERGENCES[name]()
    generic = FDivergence(d.h, d.value_at_identity)
    v = torch.linspace(-15, 15, 301)
    u = v.exp()
    # The generic form loses what its parts lose: h adds terms up to (1+u)(1+|v|) (u^2 for a quadratic h), the
    # derivative by forward differentiation terms up to (1+1/u)(1+|v|); 64 roundings cover the longest row.
    value = (1 + u) * (1 + v.abs()) + d.value(v).abs()
    link = (1 + 1 / u) * (1 + v.abs()) + d.link(v).abs()
    scale = {"value": value, "link": link, "conjugate": u * link + value}[form]
    assert ((getattr(d, form)(v) - getattr(generic, form)(v)).abs() <= 64 * EPS * scale).all()


@f_case
def test_fenchel_young(name):
    """h(u) + h*(t) >= u t, with equality at t = h'(u)."""
    d = F_DIVERGENCES[name]()
    v = torch.linspace(-8, 8, 161)
    u, t, conjugate = v.exp(), d.link(v), d.conjugate(v)
    scale = d.value(v).abs() + conjugate.abs() + (u * t).abs() + (1 + u) * (1 + 1 / u)
    assert ((d.value(v) + conjugate - u * t).abs() <= 64 * EPS * scale).all()
    excess = d.value(v)[:, None] + conjugate[None] - u[:, None] * t[None]
    assert (excess >= -64 * EPS * (scale[:, None] + scale[None] + u[:, None] * t.abs()[None])).all()


@f_case
def test_inverse_link_inverts_the_link(name):
    d = F_DIVERGENCES[name]()
    v = torch.linspace(-15, 15, 301, requires_grad=True)
    t = d.link(v)
    (slope,) = torch.autograd.grad(t.sum(), v)
    # t is known to a few spacings at 1 + |t|; divided by dt/dv this is what v is known to, and v has its own spacing.
    tolerance = 16 * EPS * (1 + t.detach().abs() + (-v.detach()).exp()) / slope + 64 * EPS * (1 + v.detach().abs())
    assert ((d.inverse_link(t.detach()) - v.detach()).abs() <= tolerance).all()


@named_case
def test_inverse_link_in_the_tails(name):
    """Exact to rounding relative to t, as far as t is a number."""
    d = F_DIVERGENCES[name]()
    t = d.link(torch.linspace(-700, 350, 1051))
    t = t[t.isfinite()]  # Neyman's and alpha's of order -1 end at v = -354
    assert ((d.link(d.inverse_link(t)) - t).abs() <= 1e-12 * t.abs()).all()


@named_case
def test_inverse_link_outside_the_range_of_the_link(name):
    d, g = F_DIVERGENCES[name](), GENERATORS[name]
    if math.isfinite(g.at_infinity):
        assert torch.equal(d.inverse_link(torch.tensor([g.at_infinity + 1.0])).exp(), torch.tensor([torch.inf]))
    lowest = {"pearson": -2.0, "alpha_1.5": -2.0, "alpha_2": -1.0, "alpha_3": -0.5, "le_cam": -3.0}.get(name)
    if lowest is not None:
        assert torch.equal(d.inverse_link(torch.tensor([lowest, lowest - 1])).exp(), torch.zeros(2))


def wide_grid() -> torch.Tensor:
    tiny = torch.logspace(-30, 0, 121)
    far = torch.logspace(0, math.log10(3e38), 400)
    positive = torch.cat([tiny, far, torch.linspace(0, 120, 1201)])
    return torch.cat([-positive, positive]).float()


@named_case
@form_case
def test_float32_forms_over_the_whole_range(name, form):
    d = F_DIVERGENCES[name]()
    v = wide_grid()
    got, reference = getattr(d, form)(v), getattr(d, form)(v.double())
    assert got.dtype == torch.float32 and not reference.isnan().any() and not got.isnan().any()
    inside = reference.abs() < 1e38
    # 1e-37: below it float32 is subnormal and has no relative accuracy.
    error = (got.double() - reference).abs()
    allowed = 1e-5 * reference.abs() + 1e-37
    assert (error <= allowed)[inside].all(), v[inside & (error > allowed)]
    outside = ~inside
    assert (got[outside].sign() == reference[outside].sign()).all() and (got[outside].abs() >= 0.99e38).all()


@named_case
def test_gradients_never_turn_nan(name):
    """Of what players differentiate, in float32 over the whole range: a NaN cannot be told from a fault."""
    d = F_DIVERGENCES[name]()
    for form in ("link", "conjugate"):
        v = wide_grid().requires_grad_()
        (slope,) = torch.autograd.grad(getattr(d, form)(v).sum(), v)
        assert not slope.isnan().any(), v[slope.isnan()]
        assert (slope >= -1e-6 * (-v.detach()).exp()).all()  # both rise with v; less what the sum's parts round to


@f_case
def test_first_and_second_derivatives(name):
    """By Fenchel-Young, value' = e^v l and conjugate' = e^v l'; l' and all second derivatives by differences."""
    d = F_DIVERGENCES[name]()
    v = torch.linspace(-6, 6, 121).requires_grad_()

    def derivatives(form: str) -> tuple[torch.Tensor, torch.Tensor]:
        (first,) = torch.autograd.grad(getattr(d, form)(v).sum(), v, create_graph=True)
        second = torch.autograd.grad(first.sum(), v)[0] if first.requires_grad else torch.zeros_like(v)  # affine
        return first.detach(), second

    w, step = v.detach(), 1e-4
    u, parts = w.exp(), {form: derivatives(form) for form in FORMS}
    size = (1 + u) * (1 + 1 / u) * (1 + w.abs())  # bounds every sum that is formed on the way
    assert ((parts["value"][0] - u * d.link(w)).abs() <= 128 * EPS * (size + parts["value"][0].abs())).all()
    assert (
        (parts["conjugate"][0] - u * parts["link"][0]).abs()
        <= 128 * EPS * (size + parts["conjugate"][0].abs()) * (1 + u)
    ).all()
    for form, (first, second) in parts.items():
        f = getattr(d, form)
        around = torch.stack([f(w + k * step) for k in (-2, -1, 0, 1, 2)])
        biggest = around.abs().amax(0) + (size if type(d) is FDivergence else 1)
        # Fourth-order stencils: error step^4/30 times a fifth derivative, step^4/90 times a sixth (2^6 |f| covers both,
        # since all are sums of exponentials e^{kv}, |k| <= 3, and polynomials), plus rounding over the step.
        allowed = 2**6 * step**4 * biggest
        one = (around[0] - 8 * around[1] + 8 * around[3] - around[4]) / (12 * step)
        two = (-around[0] + 16 * around[1] - 30 * around[2] + 16 * around[3] - around[4]) / (12 * step**2)
        assert ((first - one).abs() <= allowed + 64 * EPS * biggest / step).all(), form
        assert ((second - two).abs() <= allowed + 64 * EPS * biggest / step**2).all(), form


# -- f-divergences: values --------------------------------------------------------------------------------------------


def value_of(d: FDivergence, q: np.ndarray, p: np.ndarray) -> float:
    return float(d.inner(torch.log(torch.as_tensor(q / p)), letters(p)).divergence)


@f_case
def test_value_equals_the_integral_on_alphabets(name):
    d = F_DIVERGENCES[name]()
    for seed in range(20):
        q, p = simplex(6, seed, 1.0), simplex(6, seed + 100, 1.0)
        exact = divergence(name, q, p)
        size = float((p + q + q**3 / p**2 + p * p / q).sum())  # bounds the terms of every row
        assert value_of(d, q, p) == pytest.approx(exact, abs=256 * EPS * size)
        assert exact - d.value_at_identity > 0
        assert value_of(d, p, p) == pytest.approx(d.value_at_identity, abs=8 * EPS)


@f_case
def test_symmetric_iff_declared(name):
    d = F_DIVERGENCES[name]()
    pairs = [(simplex(5, s, 1.0), simplex(5, s + 50, 1.0)) for s in range(5)]
    gaps = [abs(value_of(d, q, p) - value_of(d, p, q)) / abs(value_of(d, q, p)) for q, p in pairs]
    assert (max(gaps) < 1e-12) if d.symmetric else (min(gaps) > 1e-6)


@f_case
def test_convex_in_q(name):
    d = F_DIVERGENCES[name]()
    assert d.convex_in_q
    for seed in range(10):
        a, b, p = (simplex(5, 3 * seed + k) for k in range(3))
        assert value_of(d, (a + b) / 2, p) <= (value_of(d, a, p) + value_of(d, b, p)) / 2 + 1e-14


GAUSSIANS = [(0.0, 1.0, 1.0, 1.0), (0.0, 1.0, 1.0, 1.5), (0.5, 0.9, -0.3, 1.1), (0.0, 1.2, 0.4, 1.0)]


@f_case
@pytest.mark.parametrize("pair", GAUSSIANS)
def test_gaussian_pairs(name, pair):
    # q^3/p^2 of the last pair is a normal law of mean -9.6 and deviation 3.5: 7.6 of them inside 30 deviations of q.
    d, rule = F_DIVERGENCES[name](), gaussian_pair(*pair, width=30.0 if name == "alpha_3" else 12.0)
    v = torch.as_tensor(rule.log_q - rule.log_p)
    if type(d) is FDivergence:  # the integral over |v| <= LIMIT, which is what the generic form promises
        inside = np.abs(rule.log_q - rule.log_p) <= LIMIT
        part = rule.step * np.exp(rule.log_p[inside]) * d.value(v[inside]).numpy()
        exact = rule.step * GENERATORS[name].integrand(np.exp(rule.log_q[inside]), np.exp(rule.log_p[inside]))
        assert part.sum() == pytest.approx(exact.sum(), rel=1e-9)
        return
    got = float(d.inner(v, rule.particles()).divergence)
    exact = gaussian_closed_forms(*pair).get(name)
    if exact is None:
        q, p = np.exp(rule.log_q), np.exp(rule.log_p)
        with np.errstate(all="ignore"):
            exact = float(np.nansum(GENERATORS[name].integrand(q, p)) * rule.step)
    if math.isinf(exact):
        return
    assert got == pytest.approx(exact, abs=1e-10)


@pytest.mark.parametrize(
    ("name", "pair", "published"),
    [
        ("kl", (0, 1, 1, 1), 0.5),
        ("pearson", (0, 1, 1, 1), math.e - 1),
        ("squared_hellinger", (0, 1, 1, 1), 0.235006),
        ("jensen_shannon", (0, 1, 1, 1), 0.11142148),
        ("gan", (0, 1, 1, 1), -1.16345140),
        ("kl", (0, 1, 1, 1.5), 0.349910),
        ("jensen_shannon", (0, 1, 1, 1.5), 0.09929010),
        ("jensen_shannon", (0, 1, 3, 1), 0.52677731),
        ("gan", (0, 1, 3, 1), -0.33273975),
        ("pearson", (0, 1, 3, 1), 8102.083928),
    ],
)
def test_reference_numbers(name, pair, published):
    """q first: N(0,1) is q, the second law p. Digits as quoted, hence half a unit of the last of them."""
    rule = gaussian_pair(*pair)
    got = float(F_DIVERGENCES[name]().inner(torch.as_tensor(rule.log_q - rule.log_p), rule.particles()).divergence)
    assert got == pytest.approx(published, abs=5.1e-7 if abs(published) < 8000 and name != "jensen_shannon" else 6e-7)
    if name in ("jensen_shannon", "gan"):
        assert got == pytest.approx(published, abs=5.1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_relations_between_rows(seed):
    """The normalisations, each by two other computations."""
    q, p = simplex(7, seed), simplex(7, seed + 9)
    at = {name: value_of(make(), q, p) for name, make in F_DIVERGENCES.items()}
    m = (q + p) / 2

    def kl(a, b):
        return float((a * np.log(a / b)).sum())

    assert at["jensen_shannon"] == pytest.approx(kl(q, m) / 2 + kl(p, m) / 2, abs=1e-14)
    assert at["gan"] == pytest.approx(2 * at["jensen_shannon"] - math.log(4), abs=1e-14)
    assert at["jeffreys"] == pytest.approx(at["kl"] + at["reverse_kl"], abs=1e-14)
    assert at["le_cam"] == pytest.approx(2 * float(((q - m) ** 2 / m).sum()), abs=1e-14)  # chi-square to m
    assert at["le_cam"] == pytest.approx(2 - 4 * float((q * p / (q + p)).sum()), abs=1e-14)
    assert at["softened_reverse_kl"] == pytest.approx(2 * kl(m, q), abs=1e-14)
    assert at["softened_reverse_kl"] == pytest.approx(at["reverse_kl"] - 2 * at["jensen_shannon"], abs=1e-14)
    assert at["squared_hellinger"] == pytest.approx(2 - 2 * float(np.sqrt(q * p).sum()), abs=1e-14)
    assert at["pearson"] == pytest.approx(float((q * q / p).sum()) - 1, abs=1e-13)
    assert at["neyman"] == pytest.approx(float((p * p / q).sum()) - 1, abs=1e-13)
    n = 0.3 * q + 0.7 * p
    assert at["weighted_js"] == pytest.approx(0.3 * kl(q, n) + 0.7 * kl(p, n), abs=1e-14)
    for order, exact in (
        (2, at["pearson"] / 2), (-1, at["neyman"] / 2), (0.5, 2 * at["squared_hellinger"]), (1, at["kl"]),
        (0, at["reverse_kl"]),
    ):  # fmt: skip
        assert at[f"alpha_{order}"] == pytest.approx(exact, abs=1e-13)
    for order in (0.3, 1.5, 3.0, 1.0):  # q and p exchanged
        assert value_of(Alpha(order), q, p) == pytest.approx(value_of(Alpha(1 - order), p, q), abs=1e-13)
    weight = 0.2
    there, back = WeightedJensenShannon(weight), WeightedJensenShannon(1 - weight)
    assert value_of(there, q, p) == pytest.approx(value_of(back, p, q), abs=1e-14)
    assert 0 < at["jensen_shannon"] < LOG2


# -- the rows with a parameter ----------------------------------------------------------------------------------------

WEIGHTS = (0.5, 0.3, 0.02, 0.97, 1e-6)
ORDERS = (0.3, -0.7, 7.0, -5.0, 1 + 1e-9, 1 - 1e-9, 1e-9, -1e-9, 1e-15)
parametric = [(WeightedJensenShannon, weighted_js_generator, w) for w in WEIGHTS] + [
    (Alpha, alpha_generator, a) for a in ORDERS
]


@pytest.mark.parametrize(("row", "generator", "parameter"), parametric)
def test_forms_are_right_at_any_parameter(row, generator, parameter):
    """Relative to themselves, near zero, around the seams and far out; at orders where (u^a - 1)/a is 0/0 as well."""
    d, g = row(parameter), generator(mpmath.mpf(parameter))
    seam = 1 / max(1, abs(parameter), abs(1 - parameter))
    grid = [
        s * v for s in (-1, 1) for v in (1e-9, 1e-4, 0.1, 0.6 * seam, 0.99 * seam, 1.01 * seam, 1.01, 4.0, 20.0, 80.0)
    ]
    got = {form: getattr(d, form)(torch.tensor(grid)).tolist() for form in FORMS}
    for i, v in enumerate(grid):
        with mpmath.workdps(700):
            u = mpmath.exp(mpmath.mpf(v))
            exact = {"value": g.h(u, mpmath), "link": g.slope(u, mpmath)}
            exact["conjugate"] = u * exact["link"] - exact["value"]
            # exp(k v) carries |k v| roundings; h and h' are sums of three terms of which none is twice its sum there.
            for form in FORMS:
                error = float(abs(got[form][i] - exact[form]) / abs(exact[form]))
                assert error <= 32 * EPS * (1 + abs(v) * max(1, abs(parameter))), (form, v)


def test_weight_one_half_is_jensen_shannon():
    half, js = WeightedJensenShannon(0.5), JensenShannon()
    assert half.symmetric and not WeightedJensenShannon(0.3).symmetric
    assert half.supremum == pytest.approx(js.supremum, abs=EPS)
    v = torch.cat([torch.linspace(-40, 40, 801), torch.tensor([1e-9, -1e-9, 700.0, -700.0])])
    for form in FORMS:
        a, b = getattr(half, form)(v), getattr(js, form)(v)
        # Both are right to 32 roundings (above); log(1 + e^v) - log 2 has an absolute rounding besides.
        assert ((a - b).abs() <= 64 * EPS * (1 + v.abs()) * b.abs()).all(), form
    t = js.link(v[v.abs() <= 15])
    slope = (1 + v[v.abs() <= 15].exp()) * 2  # dv/dt
    assert ((half.inverse_link(t) - js.inverse_link(t)).abs() <= 16 * EPS * (1 + v[v.abs() <= 15].abs() + slope)).all()


def test_vanishing_weights_lead_to_both_kl():
    """D/pi = KL(q||m) + (1-pi)/pi KL(p||m): short of KL(q||p) by at most pi chi^2, both terms being of that size."""
    q, p, w = simplex(5, 0), simplex(5, 1), 1e-7
    chi = float((q * q / p + p * p / q).sum())
    assert value_of(WeightedJensenShannon(w), q, p) / w == pytest.approx(divergence("kl", q, p), abs=2 * w * chi)
    assert value_of(WeightedJensenShannon(1 - w), q, p) / w == pytest.approx(divergence("kl", p, q), abs=2 * w * chi)


@pytest.mark.parametrize("limit", [0.0, 1.0])
@pytest.mark.parametrize("step", [1e-9, -1e-9, 1e-15, -1e-15])
def test_alpha_passes_its_limits_without_a_jump(limit, step):
    r"""|d phi(c, v)/dc| <= v^2/2 e^{|cv|} and |d h/da| = |int_0^v e^s d phi(a-1, s)/da ds| <= |v|^3/6 e^{2|v|}."""
    near, at = Alpha(limit + step), Alpha(limit)
    v = torch.cat([torch.linspace(-12, 12, 241), torch.tensor([1e-6, -1e-6])])
    for form, slope in (
        ("value", v.abs() ** 3 / 6 * (2 * v.abs()).exp()), ("link", v.square() / 2 * (2 * v.abs()).exp()),
        ("conjugate", v.square() / 2 * (2 * v.abs()).exp()),
    ):  # fmt: skip
        a, b = getattr(near, form)(v), getattr(at, form)(v)
        # limit + step is a float: it is off by a rounding of one, which the second term covers.
        assert ((a - b).abs() <= (abs(step) + EPS) * slope + 64 * EPS * (1 + v.abs()) * b.abs()).all(), form
    t = at.link(v)
    # dv/dt = e^{-(a-1)v}, times the change of the link, which the change of v may exceed by the factor e^{2|v| step}.
    slope = (v.abs() if limit else 2 * v.abs()).exp() * v.square()
    allowed = (abs(step) + EPS) * slope * (1 + 1 / at.link(v).abs().clamp(min=1)) + 64 * EPS * (1 + v.abs() + v.exp())
    assert ((near.inverse_link(t) - at.inverse_link(t)).abs() <= allowed).all()


@pytest.mark.parametrize(("order", "textbook"), [(1.0, KL), (0.0, ReverseKL)])
@pytest.mark.parametrize("step", [0.0, 1e-9, -1e-9])
def test_alpha_at_its_limits_is_the_textbook_divergence(order, textbook, step):
    """The generators differ by u - 1 (order one) or 1 - u (zero): nothing that a probability sees, a constant in f."""
    d, k = Alpha(order + step), textbook()
    sign = 1.0 if order else -1.0
    for seed in range(3):
        q, p = simplex(6, seed), simplex(6, seed + 20)
        v, particles = critic_outputs(6, seed, 0.7), letters(p)
        # |dD/da| by the cubic bound above, over ratios up to e^3: below 1e2; times the step, and roundings.
        allowed = 1e2 * abs(step) + 1e-13
        assert value_of(d, q, p) == pytest.approx(value_of(k, q, p), abs=allowed)
        a, b = d.inner_normalised(v, particles), k.inner_normalised(v, particles)
        assert float(a.divergence) == pytest.approx(float(b.divergence), abs=allowed)
        assert float(a.conjugate + sign) == pytest.approx(float(b.conjugate), abs=allowed)
        assert (a.log_tilt - b.log_tilt).abs().max() <= allowed


def test_parameters_are_checked_and_shown():
    for bad in (0.0, 1.0, -0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"takes a weight of q in \(0, 1\), got"):
            WeightedJensenShannon(bad)
    for bad in (math.inf, math.nan, -31.0, 1e3):
        with pytest.raises(ValueError, match="takes an order of size up to 30, got"):
            Alpha(bad)
    assert repr(WeightedJensenShannon(0.25)) == "WeightedJensenShannon(weight=0.25)"
    assert repr(Alpha(-1)) == "Alpha(order=-1)"
    assert Alpha(0.5).symmetric and not Alpha(1.5).symmetric
    for order in (-30.0, 30.0):
        assert Alpha(order).link(torch.zeros(1)) == 0


# -- the generic form -------------------------------------------------------------------------------------------------


def test_generic_form_names_its_generator_beyond_its_range():
    d = FDivergence(user_generator)
    for form in FORMS:
        with pytest.raises(ValueError, match=r"generic form of user_generator is right for \|v\| <= 20, got v = 21\.5"):
            getattr(d, form)(torch.tensor([0.0, 21.5]))
        assert torch.func.vmap(getattr(d, form))(torch.tensor([0.0, 21.5])).isnan().tolist() == [False, True]


@pytest.mark.parametrize(
    ("h", "message"),
    [
        (lambda u: -((u - 1) ** 2), "is not convex: h' falls at u"),
        (lambda u: torch.sqrt(u) - 1, "is not convex"),
        (lambda u: (u - 1).abs() / 2, "is not smooth: h' jumps near u = 1 .*TotalVariation"),
        (lambda u: (u - 1).abs() / 2 + (u - 1) ** 2, "is not smooth: h' jumps near u = 1 "),
        (lambda u: torch.relu(u - 2.3) + (u - 1) ** 2, "is not smooth: h' jumps near u = 2.3 "),
        (lambda u: torch.relu((u - 1).abs() - 0.5) ** 2, "is linear near u = "),
        (lambda u: u - 1, "is linear near u = "),
        (lambda u: (u - 1) ** 2 + 0.5, r"h\(1\) = 0.5, expected 0: subtract the constant or declare"),
    ],
)
def test_bad_generators_are_refused(h, message):
    with pytest.raises(ValueError, match=f"lambda.*{message}"):
        FDivergence(h)
    with pytest.raises(ValueError, match=r"h\(1\) = 0, expected 1"):
        FDivergence(user_generator, value_at_identity=1.0)


def test_smooth_generators_are_not_refused():
    """However steep or flat: the bisection for a kink must not take a large derivative for a jump."""
    for k in (-6.0, -0.5, 0.9, 1.1, 4.0, 12.0):
        FDivergence(lambda u, k=k: (u**k - 1 - k * (u - 1)) / (k * (k - 1)))
    FDivergence(lambda u: (u - 1) ** 4)
    FDivergence(lambda u: (u - 1) ** 2 / (u + 1))
    for make in NAMED_F_DIVERGENCES.values():
        FDivergence(make().h, make().value_at_identity)


def test_one_line_generator_in_gradients_of_gradients():
    d = FDivergence(lambda u: u * torch.log(u))
    v = torch.linspace(-2, 2, 5)
    grad = torch.func.vmap(torch.func.grad(lambda s: d.conjugate(s)))(v)
    hess = torch.func.vmap(torch.func.grad(torch.func.grad(lambda s: d.conjugate(s))))(v)
    torch.testing.assert_close(grad, v.exp(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(hess, v.exp(), rtol=1e-12, atol=1e-12)
    w = v.clone().requires_grad_()
    (first,) = torch.autograd.grad(d.conjugate(w).sum(), w, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), w)
    torch.testing.assert_close(second, v.exp(), rtol=1e-12, atol=1e-12)
    assert "lambda" in repr(d) and d.conjugate(v.float()).dtype == torch.float32


def test_generic_form_has_the_probability_dual_too():
    p, v = letters(simplex(5, 0)), critic_outputs(5, 0, 1.0)
    generic = FDivergence(KL().h).inner_normalised(v, p)
    for a, b in zip(generic, KL().inner_normalised(v, p), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


# -- cross-entropy ----------------------------------------------------------------------------------------------------


def test_cross_entropy_is_kl_plus_entropy():
    for seed in range(5):
        q, p = simplex(6, seed), simplex(6, seed + 7)
        law = SimpleNamespace(log_prob=lambda x, p=p: torch.log(torch.as_tensor(p))[x[:, 0].long()])
        got = float(CrossEntropy().primal(letters(q), law, None))
        assert got == pytest.approx(divergence("kl", q, p) + entropy(q), abs=1e-13)
    rule = gaussian_pair(0.3, 0.8, -0.2, 1.3)
    swapped = gaussian_pair(-0.2, 1.3, 0.3, 0.8)._replace(x=rule.x, log_q=rule.log_p, log_p=rule.log_q)
    law = SimpleNamespace(log_prob=lambda x: torch.as_tensor(stats.norm.logpdf(x[:, 0].numpy(), -0.2, 1.3)))
    exact = gaussian_closed_forms(0.3, 0.8, -0.2, 1.3)["kl"] + 0.5 * math.log(2 * math.pi * math.e * 0.64)
    assert float(CrossEntropy().primal(swapped.particles(), law, None)) == pytest.approx(exact, abs=1e-11)
