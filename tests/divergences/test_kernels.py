"""MMD and the energy distance against geomloss, closed forms and brute force; laws of every primal on clouds."""

from __future__ import annotations

import importlib.util
import math
import re

import pytest
import torch
from geomloss import SamplesLoss
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode

from divergences import MMD, EnergyDistance
from divergences.clouds import squared_distances
from models.laws import Particles
from tests.support.cases import DIVERGENCES
from tests.support.oracles import EPS, z_score

DEFAULT_DTYPE = torch.float64
KERNELS = {
    "energy": EnergyDistance,
    "gaussian": lambda unbiased=False: MMD("gaussian", (0.7, 2.0), unbiased),
    "laplacian": lambda unbiased=False: MMD("laplacian", (0.7, 2.0), unbiased),
}
kernel_case = pytest.mark.parametrize("name", KERNELS)
statistic = pytest.mark.parametrize("unbiased", [False, True])
ON_CLOUDS = {name: make for name, make in DIVERGENCES.items() if make().primal_needs == "samples"}
needs_pot = pytest.mark.skipif(importlib.util.find_spec("ot") is None, reason="needs POT (the extra ot)")
cloud_case = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=needs_pot) if make().primal_extra == ("ot", "ot") else n for n, make in ON_CLOUDS.items()],
)


def k(name, r):
    """The kernels at distance r, written again."""
    if name == "energy":
        return -r
    return sum(torch.exp(-(r**2) / (2 * b**2)) if name == "gaussian" else torch.exp(-r / b) for b in (0.7, 2.0)) / 2


def at(d, x, y, a=None, b=None):
    """D between clouds with weights a, b (None: equal)."""
    return d.primal(Particles(x, None if a is None else a.log()), None, Particles(y, None if b is None else b.log()))


def two_clouds(n=7, m=5, dim=3):
    return torch.randn(n, dim), torch.randn(m, dim) + 0.5, torch.rand(n).softmax(0), torch.rand(m).softmax(0)


# -- values -----------------------------------------------------------------------------------------------------------


@kernel_case
@statistic
def test_brute_force_over_pairs(name, unbiased):
    x, y, a, b = two_clouds()

    def mean(u, v, w, z, same=False):
        pairs = [(i, j) for i in range(len(u)) for j in range(len(v)) if not (same and i == j)]
        total = sum(w[i] * z[j] for i, j in pairs)
        return sum(w[i] * z[j] * k(name, (u[i] - v[j]).norm()) for i, j in pairs) / total

    exact = mean(x, x, a, a, unbiased) + mean(y, y, b, b, unbiased) - 2 * mean(x, y, a, b)
    d = KERNELS[name](unbiased=unbiased)
    assert float(at(d, x, y, a, b)) == pytest.approx(float(exact), abs=100 * EPS)
    uniform = at(d, x, y, torch.full((7,), 1 / 7), torch.full((5,), 1 / 5))
    assert float(at(d, x, y)) == pytest.approx(float(uniform), abs=100 * EPS)


@pytest.mark.parametrize("width", [0.3, 1.0, 6.0])
@kernel_case
def test_geomloss_says_half_as_much(name, width):
    x, y, a, b = two_clouds(20, 30)
    d = EnergyDistance() if name == "energy" else MMD(name, (width,))
    half = SamplesLoss(name, blur=width, backend="tensorized")(a, x, b, y)
    # geomloss takes distances as sqrt(max(|.|^2, 1e-8)): 1e-4 on the diagonal where there is none.
    diagonal = {"energy": 1e-4, "gaussian": 0.0, "laplacian": 1 - math.exp(-1e-4)}[name]
    extra = diagonal * float(a.square().sum() + b.square().sum())
    assert float(at(d, x, y, a, b)) == pytest.approx(2 * float(half) + extra, abs=1e-9)


def test_several_bandwidths_are_averaged():
    x, y, *_ = two_clouds()
    for kernel in ("gaussian", "laplacian"):
        single = [float(at(MMD(kernel, (b,)), x, y)) for b in (0.5, 1.0, 3.0)]
        assert float(at(MMD(kernel, (0.5, 1.0, 3.0)), x, y)) == pytest.approx(sum(single) / 3, rel=1e-12)


def gaussian_mmd(mean, s, r, width, dim=1):
    """MMD^2 between N(0, s^2 I) and N(m, r^2 I): E k = (b^2/(b^2+v))^(dim/2) exp(-|m|^2/(2(b^2+v))), v of x - y."""

    def expectation(v, distance):
        return (width**2 / (width**2 + v)) ** (dim / 2) * math.exp(-(distance**2) / (2 * (width**2 + v)))

    return expectation(2 * s * s, 0) + expectation(2 * r * r, 0) - 2 * expectation(s * s + r * r, mean)


@pytest.mark.parametrize(
    ("mean", "s", "r", "width"), [(1.0, 1.0, 1.5, 1.0), (0.3, 0.5, 2.0, 4.0), (5.0, 1.0, 1.0, 0.5)]
)
def test_mmd_between_gaussians_by_quadrature(mean, s, r, width):
    """Particles that are the law: the V-statistic is exact; the trapezoidal rule converges exponentially."""
    x = torch.arange(-24, 24, 0.05)
    a, b = (torch.as_tensor(stats.norm.pdf(x, m, v) * 0.05) for m, v in ((0.0, s), (mean, r)))
    got = MMD(bandwidths=(width,)).primal(Particles(x[:, None], a.log()), None, Particles(x[:, None], b.log()))
    assert float(got) == pytest.approx(gaussian_mmd(mean, s, r, width), abs=1e-12)


def test_energy_on_the_line_is_twice_the_area_between_distribution_functions():
    x, y, a, b = two_clouds(40, 30, 1)
    points, order = torch.cat([x, y])[:, 0].sort()
    gap = torch.cat([a, -b])[order].cumsum(0)[:-1]  # F_q - F_p, constant between points
    exact = 2 * float((gap.square() * points.diff()).sum())
    assert float(at(EnergyDistance(), x, y, a, b)) == pytest.approx(exact, rel=1e-12)


def folded(mean, v):
    """E|N(mean, v)|."""
    s = math.sqrt(v)
    z = mean / s
    return s * math.sqrt(2 / math.pi) * math.exp(-z * z / 2) + mean * (1 - 2 * stats.norm.cdf(-z))


EXACT = {
    "energy": 2 * folded(1.0, 1 + 2.25) - folded(0, 2) - folded(0, 4.5),
    "gaussian": sum(gaussian_mmd(1.0, 1.0, 1.5, b) for b in (0.7, 2.0)) / 2,
}
SELF = {  # E k(X, X') under N(0, 1) and under N(1, 1.5^2)
    "energy": (-folded(0, 2), -folded(0, 4.5)),
    "gaussian": tuple(sum(b / math.sqrt(b * b + v) for b in (0.7, 2.0)) / 2 for v in (2, 4.5)),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", EXACT)
def test_mean_over_samples_of_both_statistics(name, weighted):
    """U has the distance of the laws as its mean, V is higher by (k(0) - E k(X, X')) sum a^2, and the same for p."""
    clouds, n, m = 20_000, 4, 3
    x, y = torch.randn(clouds, n, 1), 1 + 1.5 * torch.randn(clouds, m, 1)
    a, b = (torch.arange(1.0, k + 1) / (k * (k + 1) / 2) if weighted else torch.full((k,), 1 / k) for k in (n, m))
    k0 = 0.0 if name == "energy" else 1.0
    bias = (k0 - SELF[name][0]) * float(a.square().sum()) + (k0 - SELF[name][1]) * float(b.square().sum())
    for unbiased, mean in ((True, EXACT[name]), (False, EXACT[name] + bias)):
        d = KERNELS[name](unbiased=unbiased)
        values = torch.func.vmap(lambda x, y, d=d: at(d, x, y, a, b))(x, y)
        se = float(values.std()) / clouds**0.5
        assert abs(float(values.mean()) - mean) < z_score(2) * se and bias > 20 * se


# -- slopes -----------------------------------------------------------------------------------------------------------


@kernel_case
@statistic
def test_first_and_second_derivatives(name, unbiased):
    """In points and weights. The diagonal coincides always; with gaussian kernels points of both clouds may too."""
    x, y, a, b = two_clouds(4, 3, 2)
    if name == "gaussian":
        y = torch.cat([y[:2], x[:1]])
    d = KERNELS[name](unbiased=unbiased)
    inputs = [t.requires_grad_() for t in (x, y, a.log(), b.log())]

    def value(x, y, log_a, log_b):
        return at(d, x, y, log_a.softmax(0), log_b.softmax(0))

    assert torch.autograd.gradcheck(value, inputs) and torch.autograd.gradgradcheck(value, inputs)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coinciding_points_are_finite_to_second_order(name, dtype):
    near = torch.finfo(dtype).tiny ** 0.515  # its square is a number, one over its square is none
    x = torch.tensor([[0.0, 1.0], [0.0, 1.0], [near, 1.0], [2.0, 1.0]], dtype=dtype).requires_grad_()
    d = KERNELS[name]()
    assert abs(float(at(d, x.detach(), x.detach()))) < 8 * torch.finfo(dtype).eps
    value = at(d, x, torch.tensor([[0.0, 1.0], [near, 1.0], [5.0, 5.0]], dtype=dtype))
    (gradient,) = torch.autograd.grad(value, x, create_graph=True)
    (curvature,) = torch.autograd.grad(gradient.square().sum(), x)
    assert gradient.isfinite().all() and curvature.isfinite().all() and gradient.abs().max() > 1e-3


@kernel_case
def test_slope_is_twice_that_of_the_frozen_witness(name):
    """grad of D/2 = -grad E_p f with f = mu_q - mu_p frozen: the theta-step of a GAN whose critic is solved."""
    x, y, a, b = two_clouds()
    y = y.requires_grad_()

    def witness(z):
        to_q, to_p = ((z[:, None] - w[None]).square().sum(-1) + 1e-300 for w in (x, y.detach()))
        return k(name, to_q.sqrt()) @ a - k(name, to_p.sqrt()) @ b

    (slope,) = torch.autograd.grad(at(KERNELS[name](), x, y, a, b) / 2, y)
    (frozen,) = torch.autograd.grad(-(b * witness(y)).sum(), y)
    torch.testing.assert_close(slope, frozen, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dim", [2, 784])
@kernel_case
def test_close_points_far_from_the_origin(name, dim):
    """float32 differences of such points are exact: value and slope keep float32's digits; |x|^2 - 2xy + |y|^2 none."""
    spread = dim**-0.5
    x, y = ((1000 + spread * torch.randn(50, dim) + shift).float() for shift in (0.0, spread))
    got, exact = [], []
    for results, cast in ((got, torch.float32), (exact, torch.float64)):
        z = y.to(cast).requires_grad_()
        value = at(KERNELS[name](), x.to(cast), z)
        results += [value.detach().double(), torch.autograd.grad(value, z)[0].double()]
    eps = torch.finfo(torch.float32).eps
    # A distance is off by sqrt(dim) roundings and a mean by a few (terms are of order one); in the slope the centre,
    # rounded by 1000 eps / 2, cancels, and sums of 50 terms of order 1/50 stay.
    assert abs(float(got[0] - exact[0])) < (dim**0.5 + 10) * eps
    assert float((got[1] - exact[1]).norm() / exact[1].norm()) < 100 * eps
    assert float(exact[0]) > 0.01


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor made."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(t.numel() for t in [out] if isinstance(t, torch.Tensor))])
        return out


@kernel_case
def test_memory_is_pairs_whatever_the_dimension(name):
    x, y = torch.randn(60, 500), torch.randn(50, 500).requires_grad_()
    with Largest() as mode:
        value = at(KERNELS[name](), x, y)
        (gradient,) = torch.autograd.grad(value, y, create_graph=True)
        gradient.square().sum().backward()
    assert mode.numel <= 60 * 500


# -- transforms -------------------------------------------------------------------------------------------------------


@kernel_case
@statistic
def test_vmap_over_stacked_clouds_is_a_loop(name, unbiased):
    d, x, y, w = KERNELS[name](unbiased=unbiased), torch.randn(4, 6, 2), torch.randn(4, 5, 2), torch.rand(4, 5)

    def value(x, y, w):
        return at(d, x, y, None, w.softmax(0))

    mapped = torch.func.vmap(torch.func.grad_and_value(value, argnums=(0, 1, 2)))(x, y, w)
    for i in range(4):
        inputs = [t[i].clone().requires_grad_() for t in (x, y, w)]
        single = value(*inputs)
        assert float(mapped[1][i]) == pytest.approx(float(single.detach()), abs=20 * EPS)
        for got, exact in zip(mapped[0], torch.autograd.grad(single, inputs), strict=True):
            torch.testing.assert_close(got[i], exact, rtol=1e-12, atol=1e-14)


@kernel_case
def test_compiles_without_a_break(name):
    x, y, *_ = two_clouds()
    d = KERNELS[name](unbiased=True)
    compiled = torch.compile(lambda x, y: at(d, x, y), backend="aot_eager", fullgraph=True)
    results = []
    for call in (compiled, lambda x, y: at(d, x, y)):
        z = y.clone().requires_grad_()
        value = call(x, z)
        results += [(value.detach(), *torch.autograd.grad(value, z))]
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-14)


# -- laws of every divergence on clouds -------------------------------------------------------------------------------


@cloud_case
def test_order_of_points_and_declared_symmetry(name):
    d = ON_CLOUDS[name]()
    x, y, a, b = two_clouds(dim=d.largest_dimension or 3)
    value, order = float(at(d, x, y, a, b)), torch.randperm(7)
    assert float(at(d, x[order], y, a[order], b)) == pytest.approx(value, rel=1e-10)
    assert d.symmetric and float(at(d, y, x, b, a)) == pytest.approx(value, rel=1e-10)


@cloud_case
def test_zero_on_one_cloud_and_positive_between_two(name):
    d = ON_CLOUDS[name]()
    x, y, *_ = two_clouds(40, 40, d.largest_dimension or 3)
    assert float(at(d, x, y + 1)) > 0.05
    if not getattr(d, "unbiased", False):  # on one cloud U is negative: its mean over clouds is zero
        assert float(at(d, x, x)) == pytest.approx(d.value_at_identity, abs=1e-12)


@cloud_case
def test_growth_with_the_scale_is_as_declared(name):
    d = ON_CLOUDS[name]()
    x, y, *_ = two_clouds(6, 5, d.largest_dimension or 3)
    near, far = (float(at(d, s * x, s * (y + 3))) for s in (1e3, 1e6))
    assert d.bounded_in_scale is (far < 1.2 * near + 0.1)
    if not d.bounded_in_scale:  # widths of 0.05 and geomloss's 1e-4 are nothing to clouds of a thousand
        assert far == pytest.approx(near * 1e3**d.cost_degree, rel=1e-3)


@cloud_case
def test_images_and_mixed_types(name):
    d = ON_CLOUDS[name]()
    side = 2 if d.largest_dimension is None else 1
    x, y = torch.randn(6, 1, side, side), torch.randn(5, 1, side, side) + 1
    flat = at(d, x.flatten(1), y.flatten(1))
    assert float(at(d, x, y)) == float(flat)
    x32 = x.float().requires_grad_()
    mixed = at(d, x32, y)
    (gradient,) = torch.autograd.grad(mixed, x32)
    assert mixed.dtype == torch.float64 and gradient.dtype == torch.float32
    assert float(mixed.detach()) == pytest.approx(float(at(d, x32.detach().double(), y)), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@cloud_case
def test_half_precision_computes_in_float32(name, dtype):
    d = ON_CLOUDS[name]()
    dim = d.largest_dimension or 2
    x, y = torch.randn(6, dim).to(dtype).requires_grad_(), (torch.randn(5, dim) + 1).to(dtype)
    value = at(d, x, y)
    (gradient,) = torch.autograd.grad(value, x)
    exact = float(at(d, x.detach().double(), y.double()))
    assert value.dtype == gradient.dtype == dtype
    # Half a spacing of the answer; float32 on the way.
    assert float(value.detach()) == pytest.approx(exact, rel=torch.finfo(dtype).eps / 2 + 1e-4)


@cloud_case
def test_refusals_of_clouds(name):
    d, ok = ON_CLOUDS[name](), torch.zeros(3, 2)
    for x, y, message in [
        (torch.zeros(3), torch.zeros(3), r"q has points of shape \(3,\), expected \(N, \*E\): write x\[:, None\]"),
        (torch.zeros(3, 1, 2), ok, r"points of q have shape \(1, 2\), points of p have \(2,\): reshape one"),
        (ok, torch.zeros(3, 4), "points of q have 2 coordinates, points of p have 4"),
        (ok[:0], ok, "q has no particles"),
        (ok, ok[:0], "p has no particles"),
    ]:
        with pytest.raises(ValueError, match=f"{type(d).__name__}: {message}"):
            at(d, x, y)
    for bad in (torch.zeros(3, 1), torch.zeros(2)):
        message = rf"{type(d).__name__}: p has 3 points and log-weights of shape {re.escape(str(tuple(bad.shape)))}"
        with pytest.raises(ValueError, match=message):
            d.primal(Particles(ok), None, Particles(ok, bad))
    with pytest.raises(ValueError, match=f"{type(d).__name__} compares particles: it needs samples of the model"):
        d.primal(Particles(ok), None, None)


def test_refusals_of_kernels():
    for unbiased in (EnergyDistance(unbiased=True), MMD(unbiased=True)):
        with pytest.raises(ValueError, match="unbiased=true compares pairs, and a cloud has one point only"):
            at(unbiased, torch.zeros(1, 2), torch.zeros(3, 2))
    for arguments in ({"bandwidths": ()}, {"bandwidths": (1.0, 0.0)}, {"bandwidths": (-1.0,)},
                      {"bandwidths": (math.inf,)}, {"bandwidths": (math.nan,)}):  # fmt: skip
        with pytest.raises(ValueError, match="bandwidths must be positive and finite, one at least"):
            MMD(**arguments)
    with pytest.raises(ValueError, match="kernel must be gaussian or laplacian, got 'cauchy'"):
        MMD("cauchy")  # type: ignore[arg-type]


@kernel_case
def test_a_point_that_is_not_finite_is_not_hidden(name):
    for bad in (math.nan, math.inf):
        assert not at(KERNELS[name](), torch.tensor([[bad], [1.0]]), torch.zeros(2, 1)).isfinite()


def test_squared_distances_are_exact_zeros_on_the_diagonal():
    x = 1e4 + torch.randn(5, 3)
    squared = squared_distances(x, x)
    assert (squared.diagonal() == 0).all() and (squared == squared.mT).all()
    torch.testing.assert_close(squared, (x[:, None] - x).square().sum(-1), rtol=1e-14, atol=0)
