"""Generators of users: random ones through every law of the family, wrong ones refused, both under torch.func.

Twenty of them, and two hundred in ``make soak``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from divergences import GAN, KL, Alpha, FDivergence, Jeffreys, LeCam, Pearson, ReverseKL
from divergences.f_divergence import LIMIT
from se_framework.assembly import assembly_of
from se_framework.config.composing import compose
from se_framework.errors import ConfigError
from tests.support.naming import case
from tests.support.oracles import EPS, Generator, conjugate_by_search, critic_outputs, letters, simplex

DEFAULT_DTYPE = torch.float64
K = 5
Part = Callable[[np.random.Generator], tuple[Callable, Callable, float, float]]

# Convex functions g with their derivative, g'(inf) and g(0), of (u, module); torch is handed h alone. All are C^2, the
# cube is no more than that. Every sum holds one of the first five, which are curved wherever floats can tell.


def power(r):
    a = r.choice([r.uniform(-2, -0.2), r.uniform(0.2, 0.8), r.uniform(1.2, 3)])
    at_zero = 0.0 if a > 0 else math.inf
    return lambda u, m: u**a / (a * (a - 1)), lambda u, m: u ** (a - 1) / (a - 1), 0.0 if a < 1 else math.inf, at_zero


def entropy(r):
    b = r.choice([0.0, r.uniform(0.1, 3)])
    return (
        lambda u, m: (u + b) * m.log(u + b),
        lambda u, m: 1 + m.log(u + b),
        math.inf,
        b * math.log(b) if b else 0.0,
    )


def logarithm(r):
    b = r.choice([0.0, r.uniform(0.1, 3)])
    return lambda u, m: -m.log(u + b), lambda u, m: -1 / (u + b), 0.0, -math.log(b) if b else math.inf


def triangle(r):
    b = r.uniform(0.2, 3)
    return (
        lambda u, m: (u - 1) * ((u - 1) / (u + b)),
        lambda u, m: 1 - ((1 + b) / (u + b)) ** 2,
        1.0,
        1 / b,
    )


def mixture(r):
    w = r.uniform(0.1, 0.9)
    return (
        lambda u, m: w * u * m.log(u) - (1 - w + w * u) * m.log(1 - w + w * u),
        lambda u, m: w * m.log(u / (1 - w + w * u)),
        -w * math.log(w),
        -(1 - w) * math.log(1 - w),
    )


def decay(r):
    b = r.uniform(0.2, 3)
    return lambda u, m: m.exp(-b * u), lambda u, m: -b * m.exp(-b * u), 0.0, 1.0


def hyperbola(r):
    c = r.uniform(0, 4)
    return (
        lambda u, m: m.sqrt(1 + (u - c) ** 2),
        lambda u, m: (u - c) / m.sqrt(1 + (u - c) ** 2),
        1.0,
        math.sqrt(1 + c * c),
    )


def cube(r):
    c = r.uniform(0.2, 3)
    return lambda u, m: abs(u - c) ** 3, lambda u, m: 3 * (u - c) * abs(u - c), math.inf, c**3


CURVED: tuple[Part, ...] = (power, entropy, logarithm, triangle, mixture)
PARTS: tuple[Part, ...] = (*CURVED, decay, hyperbola, cube)


def random_generator(seed: int) -> tuple[Generator, float]:
    """Return a strictly convex generator with h(1) = 0, and the largest size of its terms at one."""
    r = np.random.default_rng(seed)
    chosen = [r.choice(CURVED), *r.choice(PARTS, size=r.integers(0, 4))]
    parts = [(math.exp(r.normal()), part(r)) for part in chosen]
    tilt = r.normal()
    level = sum(c * g[0](np.float64(1.0), np) for c, g in parts)
    return Generator(
        h=lambda u, m: sum(c * g[0](u, m) for c, g in parts) + tilt * (u - 1) - level,
        slope=lambda u, m: sum(c * g[1](u, m) for c, g in parts) + tilt,
        integrand=None,
        at_infinity=sum(c * g[2] for c, g in parts) + tilt,
        at_zero=sum(c * g[3] for c, g in parts) - tilt - level,
    ), sum(c for c, _ in parts) + abs(tilt) + abs(level)


def torch_form(g: Generator) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda u: g.h(u, torch)


@pytest.mark.soak
@pytest.mark.parametrize("block", range(10))
def test_random_generators_pass_every_law(block, soak):
    for seed in range(20 * block, 20 * block + (20 if soak else 2)):
        with case(f"seed {seed}"):
            passes_every_law(seed)


def passes_every_law(seed):
    g, size = random_generator(seed)
    d = FDivergence(torch_form(g))
    v = torch.linspace(-4, 4, 33, requires_grad=True)
    u = v.detach().exp().numpy()
    h, slope = g.h(u, np), g.slope(u, np)

    # Forms: u h' - h is at most a few of its terms, each of them below size (1 + u^3 + u^-2)(1 + |log u|).
    terms = size * (1 + u**3 + u**-3.0) * (1 + np.abs(np.log(u)))
    assert (np.abs(d.value(v).detach().numpy() - h) <= 64 * EPS * terms).all()
    assert (np.abs(d.link(v).detach().numpy() - slope) <= 64 * EPS * terms).all()
    assert (np.abs(d.conjugate(v).detach().numpy() - (u * slope - h)) <= 64 * EPS * terms * (1 + u)).all()
    assert (slope - d.supremum <= 64 * EPS * terms).all()
    if math.isinf(g.at_infinity):
        assert d.supremum == math.inf
    else:
        assert d.supremum == pytest.approx(g.at_infinity, abs=1e-6 * (1 + abs(g.at_infinity)))

    # Derivatives: value' = u l, conjugate' = u l', and l' by differences of the oracle's own slope (step^2 h''''/6).
    first = {
        k: torch.autograd.grad(getattr(d, k)(v).sum(), v, create_graph=True)[0] for k in ("value", "link", "conjugate")
    }
    step = 1e-5
    numeric = (g.slope(u * math.exp(step), np) - g.slope(u * math.exp(-step), np)) / (2 * step)
    allowed = terms * (64 * step**2 + 64 * EPS / step)
    assert (np.abs(first["value"].detach().numpy() - u * slope) <= 256 * EPS * terms * (1 + u)).all()
    assert (np.abs(first["link"].detach().numpy() - numeric) <= allowed).all()
    assert (np.abs(first["conjugate"].detach().numpy() - u * numeric) <= allowed * (1 + u)).all()
    (second,) = torch.autograd.grad(first["value"].sum(), v)  # (u l)' = u (l + l')
    assert (np.abs(second.numpy() - u * (slope + numeric)) <= allowed * (1 + u)).all()
    assert ((d.inverse_link(d.link(v)) - v).abs().detach().numpy() * numeric <= 256 * EPS * terms + 64 * EPS).all()

    # Duals on an alphabet.
    p, pd = simplex(K, seed), simplex(K, seed + 1000)
    w = critic_outputs(K, seed, 1.0)
    t, law = d.link(w).numpy(), letters(p)
    inner = d.inner(w, law)
    bulk = float((p * np.exp(w.numpy())).sum() + 1) * float(terms.max())
    assert float(inner.conjugate) == pytest.approx(conjugate_by_search(g, t, p), abs=1e-9 * bulk)

    # Over probability q: mass one, h'(q/p) - f constant where q > 0 and not below where q = 0. For a convex D this is
    # the maximum, and its value is taken from the oracle.
    inner = d.inner_normalised(w, law)
    ratio = inner.log_tilt.exp().numpy()
    assert p @ ratio == pytest.approx(1, abs=1e-12)
    inside = ratio > 0
    excess = g.slope(ratio[inside], np) - t[inside] + float(inner.multiplier)
    assert np.abs(excess).max() <= 1e-11 * (1 + np.abs(t).max()) * max(1.0, float(terms.max()) * EPS * 1e6)
    if not inside.all():
        assert (g.slope(np.full((~inside).sum(), 1e-17), np) >= t[~inside] - float(inner.multiplier) - 1e-9).all()
    priced = np.where(inside, g.h(np.where(inside, ratio, 1.0), np), g.at_zero)
    assert float(inner.conjugate) == pytest.approx(
        float(p @ (ratio * t - priced)), abs=1e-10 * (1 + np.abs(t).max()) + 1e-13 * bulk
    )

    # Biconjugation: D itself is reached at log(pd/p) and nowhere surpassed, by either dual.
    exact, best = float(p @ g.h(pd / p, np)), torch.as_tensor(np.log(pd / p))
    for other, gap in ((best, 0.0), (w, 1e-12), (best + 0.1 * w, 1e-12)):
        f = float(letters(pd).mean(d.link(other)))
        unnormalised, over_p = (
            f - float(d.mean_conjugate(other, law)),
            f - float(d.inner_normalised(other, law).conjugate),
        )
        assert unnormalised <= over_p + 1e-12 * bulk and over_p <= exact + 1e-12 * bulk
        if not gap:
            assert unnormalised == pytest.approx(exact, abs=1e-13 * bulk)
            assert over_p == pytest.approx(exact, abs=1e-12 * bulk)


@pytest.mark.parametrize("seed", range(50))
def test_random_generators_with_a_dent_are_refused(seed):
    """The dent takes three times the curvature away at a point c, over a twentieth of c."""
    g, _ = random_generator(seed)
    r = np.random.default_rng(seed)
    c = math.exp(r.uniform(-4, 4))
    width, step = 0.05 * c, 1e-4 * c
    curvature = (g.slope(c + step, np) - g.slope(c - step, np)) / (2 * step)
    depth = 3 * curvature * width**2

    def h(u):
        dent = depth * torch.sqrt(1 + ((u - c) / width) ** 2)
        return g.h(u, torch) - dent + depth * math.sqrt(1 + ((1 - c) / width) ** 2)

    with pytest.raises(ValueError, match="is not convex: h' falls at u = ") as caught:
        FDivergence(h)
    assert abs(math.log(float(str(caught.value).split()[-1]) / c)) < 0.5


@pytest.mark.parametrize(
    ("h", "message"),
    [
        (lambda u: u.sum(), r"returned \(\) for u of shape \(4001,\): it must act on every element"),
        (lambda u: 1.0, "returned float for u"),
        (lambda u: torch.log(u - 0.5) * -1 + math.log(0.5), "or its derivative is not a number at u = "),
        (lambda u: torch.where(u < 5, (u - 1) ** 2, torch.nan), "is not a number at u = 5"),
        (lambda u: (u - 1) ** 2 - 1e-3 * torch.exp(-((torch.log(u) - 3) ** 2) * 1e4) * u**2, "is not convex"),
    ],
)
def test_what_is_no_generator_is_refused(h, message):
    with pytest.raises(ValueError, match=f"lambda.*{message}"):
        FDivergence(h)


def test_steep_generators_are_not_refused_where_floats_end():
    """e^u overflows at u = 710, within the grid: convex as far as there are numbers."""
    d = FDivergence(lambda u: torch.exp(u - 1) - u)
    assert d.supremum == math.inf
    v = torch.linspace(-3, 4, 15)
    torch.testing.assert_close(d.link(v), torch.expm1(v.exp() - 1), rtol=1e-12, atol=1e-14)
    p = letters([1e-3, 0.3, 0.2, 0.3, 0.199])
    inner = d.inner_normalised(torch.tensor([4.1, 0.0, -1.0, 1.0, 0.5]), p)  # scores of 6e25 beside some of order one
    assert float(p.mean(inner.log_tilt.exp())) == pytest.approx(1, abs=1e-10)
    FDivergence(lambda u: torch.cosh(u - 1) - 1)
    FDivergence(
        lambda u: torch.log1p(torch.exp(1000 * (u - 2))) / 1000 + (u - 1) ** 2 - math.log1p(math.exp(-1000)) / 1000
    )


def test_supremum_is_measured_or_declared():
    for make in (ReverseKL, GAN, LeCam, KL, Pearson, Jeffreys, lambda: Alpha(0.9), lambda: Alpha(-1.0)):
        d = make()
        assert FDivergence(d.h, d.value_at_identity).supremum == pytest.approx(d.supremum, abs=1e-6)
    slow = lambda u: u - u / torch.log(u + 2) + (u - 1) ** 2 / (u + 1) - 1 + 1 / math.log(3)  # noqa: E731  h'(inf) = 2, by 1/log u
    assert FDivergence(slow).supremum == math.inf and FDivergence(slow, supremum=2.0).supremum == 2.0


@pytest.mark.parametrize(("named", "outside"), [(ReverseKL, 2.0), (GAN, 6.0), (LeCam, 2.0), (lambda: Alpha(0.5), 6.0)])
def test_generic_form_prices_mass_off_the_support(named, outside):
    """By h'(inf) of its own finding; the bound of the multiplier must be active here."""
    d = named()
    generic = FDivergence(d.h, d.value_at_identity)
    p, v = letters(simplex(4, 2)), critic_outputs(4, 2, 0.8)
    v_data = torch.cat([v, torch.tensor([outside])])
    a, b = generic.inner_normalised(v, p, v_data), d.inner_normalised(v, p, v_data)
    assert float(b.conjugate) > float(d.inner_normalised(v, p).conjugate) + 1e-3
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


# -- derivatives under transforms -------------------------------------------------------------------------------------


def gradient_penalty(d: FDivergence, weight: torch.Tensor) -> torch.Tensor:
    """A penalty as R1's: the squared gradient of f in x, whose own gradient in the weight is asked for."""
    x = torch.linspace(-1, 1, 7)
    slope = torch.func.grad(lambda x: d.link(weight * x + x**2).sum())(x)
    return slope.square().mean()


def test_usable_inside_a_penalty_and_under_transforms():
    generic, named = FDivergence(lambda u: torch.xlogy(u, u) + (u - 1) ** 2 / (u + 1)), (KL(), LeCam())
    weight = torch.tensor(0.7)

    def exact(w):  # the same by stable forms
        x = torch.linspace(-1, 1, 7)
        slope = torch.func.grad(lambda x: sum(d.link(w * x + x**2) for d in named).sum())(x)
        return slope.square().mean()

    for transform in (lambda f: f, torch.func.grad, lambda f: torch.func.grad(torch.func.grad(f))):
        torch.testing.assert_close(transform(lambda w: gradient_penalty(generic, w))(weight), transform(exact)(weight))
    many = torch.tensor([0.1, 0.7, 2.0])
    for f in (lambda w: gradient_penalty(generic, w), lambda w: generic.conjugate(w * many).sum()):
        torch.testing.assert_close(
            torch.func.vmap(torch.func.grad(f))(many), torch.stack([torch.func.grad(f)(w) for w in many])
        )


def test_probability_dual_under_vmap_and_its_derivatives():
    d, p = FDivergence(lambda u: (1 - u) ** 2 / u), letters(simplex(K, 0))
    batch = torch.stack([critic_outputs(K, s, 1.0) for s in range(3)])

    def f(v):
        return d.inner_normalised(v, p).conjugate

    torch.testing.assert_close(torch.func.vmap(f)(batch), torch.stack([f(v) for v in batch]), rtol=1e-10, atol=1e-12)
    got = torch.func.vmap(torch.func.grad(f))(batch)
    torch.testing.assert_close(got, torch.stack([torch.func.grad(f)(v) for v in batch]), rtol=1e-9, atol=1e-11)
    assert torch.func.vmap(d.link)(torch.tensor([0.0, LIMIT + 1])).isnan().tolist() == [False, True]


@pytest.mark.soak
@pytest.mark.parametrize("backend", ["aot_eager"])
def test_compiled(backend, soak):
    """By tracing alone; what a backend makes of the graph is its affair.

    The dual; in ``make soak`` also the one over probabilities, whose search for a root takes long to trace.
    """
    torch._dynamo.reset()
    d, p = FDivergence(lambda u: (1 - u) ** 2 / u), letters(simplex(K, 0))
    v = critic_outputs(K, 0, 1.0)

    def dual(v):
        return d.link(v).mean() - d.mean_conjugate(v, p)

    def over_probabilities(v):
        return d.inner_normalised(v, p).conjugate

    for f, whole in ((dual, True), (over_probabilities, False))[: 1 + soak]:
        compiled = torch.compile(f, backend=backend, fullgraph=whole)
        a, b = v.clone().requires_grad_(), v.clone().requires_grad_()
        x, y = compiled(a), f(b)
        torch.testing.assert_close(x, y)
        torch.testing.assert_close(torch.autograd.grad(x, a), torch.autograd.grad(y, b))


# -- from the command line --------------------------------------------------------------------------------------------

SHORT = [
    "experiment=fgan",
    "divergence=f",
    "loop.rounds=2",
    "loop.log_every=1",
    "loop.batch_size=16",
    "progress=false",
    "device=cpu",
]
MODULE = """
import torch
concave = lambda u: -(u - 1) ** 2
number = 3.0
def h(u):
    return torch.xlogy(u, u) + (u - 1) ** 2
def raised(u):
    return h(u) + 1
def broken(u):
    raise RuntimeError("no luck")
"""


@pytest.fixture
def my_module(tmp_path, monkeypatch):
    (tmp_path / "my_generators.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.set_default_dtype(torch.float32)


def test_a_dotted_path_is_enough(my_module):
    assembly = assembly_of(compose(None, [*SHORT, "divergence.h=my_generators.h"]))
    assert len(assembly.train().history) == 2 and repr(assembly.state.equation.divergence) == "FDivergence(h=h)"
    raised = ["divergence.h=my_generators.raised", "divergence.value_at_identity=1", "divergence.supremum=1e9"]
    assert assembly_of(compose(None, [*SHORT, *raised])).state.equation.divergence.supremum == 1e9


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("my_generators.hh", "divergence.h: 'my_generators.hh' does not exist.*did you mean 'h'"),
        ("nowhere.h", "divergence.h: no module 'nowhere'"),
        ("h", r"divergence.h must be a dotted path package.name, got 'h'"),
        ("my_generators.number", "divergence.h must be the dotted path of a function"),
        ("my_generators.concave", "divergence: the generator <lambda> is not convex"),
        (
            "my_generators.raised",
            r"divergence: the generator raised has h\(1\) = 1, expected 0: subtract",
        ),
        ("my_generators.broken", "divergence: RuntimeError: no luck"),
    ],
)
def test_errors_name_the_key(my_module, path, message):
    with pytest.raises(ConfigError, match=message) as caught:
        assembly_of(compose(None, [*SHORT, f"divergence.h={path}"]))
    assert "\n" not in str(caught.value)
