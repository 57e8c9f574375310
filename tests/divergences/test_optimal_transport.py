"""Exact transport: on the line by quantiles, sliced, by POT's network simplex, and Sinkhorn through KeOps."""

from __future__ import annotations

import importlib.util
import math
import sys

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from divergences import OptimalTransport, Sinkhorn, SlicedWasserstein, Wasserstein1D
from divergences.sliced import bases
from models import Affine, Projection
from models.laws import Particles
from se_framework.equation.auxiliary import Embedded
from se_framework.equation.equation import StandardEquation
from se_framework.equation.metric import Metric
from tests.support.oracles import EPS, FALSE_ALARM, pairwise_cost, transport_by_program

DEFAULT_DTYPE = torch.float64
ORDERS = (1.0, 1.5, 2.0, 3.0)
order_case = pytest.mark.parametrize("order", ORDERS)
needs_pot = pytest.mark.skipif(importlib.util.find_spec("ot") is None, reason="needs POT (the extra ot)")
needs_keops = pytest.mark.skipif(importlib.util.find_spec("pykeops") is None, reason="needs KeOps (the extra keops)")


def at(d, x, y, a=None, b=None):
    """D between clouds with weights a, b (None: equal)."""
    return d.primal(Particles(x, None if a is None else a.log()), None, Particles(y, None if b is None else b.log()))


def two_clouds(n=7, m=5, dim=1):
    return torch.randn(n, dim), torch.randn(m, dim) + 0.5, torch.rand(n).softmax(0), torch.rand(m).softmax(0)


# -- on the line ------------------------------------------------------------------------------------------------------


@order_case
@pytest.mark.parametrize(("n", "m"), [(7, 5), (1, 6), (6, 6), (1, 1)])
@pytest.mark.parametrize("weighted", [False, True])
def test_quantiles_give_the_linear_program(order, n, m, weighted):
    x, y, a, b = two_clouds(n, m)
    a, b = (a, b) if weighted else (torch.full((n,), 1 / n), torch.full((m,), 1 / m))
    exact = transport_by_program(pairwise_cost(x, y, order), a.numpy(), b.numpy())[0]
    got = at(Wasserstein1D(order), x, y, a, b) if weighted else at(Wasserstein1D(order), x, y)
    assert float(got) == pytest.approx(exact, abs=1e-9)  # the program's own tolerance
    root = at(Wasserstein1D(order, root=True), x, y, *((a, b) if weighted else ()))
    assert float(root) == pytest.approx(float(got) ** (1 / order), rel=1e-14)


@pytest.mark.parametrize("weighted", [False, True])
def test_scipy_agrees_at_order_one(weighted):
    x, y, a, b = two_clouds(300, 200)
    y = torch.cat([y[:-20], x[:20]])  # points of both clouds may coincide
    weights = (a, b) if weighted else ()
    exact = stats.wasserstein_distance(x[:, 0], y[:, 0], *weights)
    assert float(at(Wasserstein1D(1.0), x, y, *weights)) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(("m", "s"), [(0.7, 1.0), (0.7, 1.8), (0.0, 0.3)])
@order_case
def test_between_gaussians(m, s, order):
    """T(x) = m + s x is monotone, so W_r^r = E|m + (s-1) Z|^r; W2^2 = m^2 + (1-s)^2. Quantiles at N midpoints."""
    levels = (torch.arange(20_000) + 0.5) / 20_000
    z = torch.special.ndtri(levels)[:, None]
    exact = integrate.quad(lambda t: abs(m + (s - 1) * t) ** order * stats.norm.pdf(t), -12, 12, points=[0], limit=200)[
        0
    ]
    got = float(at(Wasserstein1D(order), m + s * z, z))
    # The midpoint rule in u errs by the tails beyond u = 1/(2N): at most 1/N of the cost at |z| = 5.
    assert got == pytest.approx(exact, abs=(abs(m) + 5 * abs(s - 1)) ** order / 20_000 + 1e-12)
    if order == 2:
        assert exact == pytest.approx(m**2 + (1 - s) ** 2, rel=1e-10)


@order_case
@pytest.mark.parametrize("root", [False, True])
def test_slopes_in_points_and_weights(order, root):
    x, y, a, b = (t.requires_grad_() for t in two_clouds(5, 4))

    def value(x, y, log_a, log_b):
        return at(Wasserstein1D(order, root), x, y, log_a.softmax(0), log_b.softmax(0))

    assert torch.autograd.gradcheck(value, (x, y, a, b))
    assert torch.autograd.gradcheck(
        lambda x, y: at(Wasserstein1D(order, root), x, y), (x, y[:3].repeat(2, 1)[:5] + 0.1 * x.detach())
    )


@order_case
@pytest.mark.parametrize("root", [False, True])
def test_coinciding_clouds_have_value_and_slope_zero(order, root):
    x = torch.tensor([[0.0], [1.0], [1.0]], requires_grad=True)
    for weights in ((), (torch.full((3,), 1 / 3),) * 2):
        value = at(Wasserstein1D(order, root), x, x.detach().clone(), *weights)
        (slope,) = torch.autograd.grad(value, x)
        assert float(value.detach()) == 0 and not slope.any()


def test_sums_of_weights_that_differ_in_the_last_digit():
    """One law written twice, on 10 and on 20 points: what is left is between neighbours, not between first and last."""
    x = torch.arange(10.0)[:, None]
    a, b = torch.full((10,), 0.1), torch.full((20,), 0.05)
    assert float(a.cumsum(0)[-1]) != float(b.cumsum(0)[-1])
    # Each of 9 levels is off by at most the 30 roundings of both sums, over a step of one; first to last costs 9^6.
    assert 0 <= float(at(Wasserstein1D(6.0), x, x.repeat_interleave(2, 0), a, b)) < 9 * 30 * EPS


def test_refusals_on_the_line():
    for bad in (0.5, 0.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="Wasserstein1D takes a finite order >= 1"):
            Wasserstein1D(bad)
    with pytest.raises(ValueError, match=r"on the line, got points of 2 coordinates: use SlicedWasserstein"):
        at(Wasserstein1D(), torch.zeros(3, 2), torch.ones(3, 2))
    assert Wasserstein1D(3.0, root=True).cost_degree == 1 and Wasserstein1D(3.0).cost_degree == 3
    assert not Wasserstein1D(2.0, root=True).has_ground_cost and Wasserstein1D(1.0, root=True).has_ground_cost
    assert not Wasserstein1D(2.0, root=True).convex_in_q and Wasserstein1D(2.0).convex_in_q
    squared = torch.tensor([0.0, 4.0, 9.0])
    for order in ORDERS:
        assert Wasserstein1D(order).ground_cost(squared).tolist() == pytest.approx([0, 2**order, 3**order])


def test_the_root_is_not_convex_in_q():
    """W2 between (1-t) delta_0 + t delta_1 and delta_0 is sqrt(t)."""
    half = at(Wasserstein1D(2.0, root=True), torch.tensor([[0.0], [1.0]]), torch.zeros(1, 1))
    assert float(half) == pytest.approx(0.5**0.5) and float(half) > 0.5


# -- sliced -----------------------------------------------------------------------------------------------------------


@order_case
def test_sliced_is_the_mean_over_its_directions(order):
    x, y, a, b = two_clouds(6, 4, 3)
    theta = bases(3, 10, 5)
    costs = [pairwise_cost(x @ t[:, None], y @ t[:, None], order) for t in theta]
    exact = np.mean([transport_by_program(c, a.numpy(), b.numpy())[0] for c in costs])
    assert float(at(SlicedWasserstein(order, 10, 5), x, y, a, b)) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize(("dim", "asked", "made"), [(1, 1, 1), (2, 5, 6), (7, 7, 7), (64, 10, 64)])
def test_directions_are_whole_orthonormal_bases(dim, asked, made):
    theta = bases(dim, asked, 0)
    assert theta.shape == (made, dim)
    for basis in theta.split(dim):
        torch.testing.assert_close(basis @ basis.mT, torch.eye(dim), rtol=0, atol=4 * dim * EPS)
    assert torch.equal(theta, bases(dim, asked, 0)) and not torch.equal(theta, bases(dim, asked, 1)) or dim == 1


def test_bases_are_uniform_over_rotations():
    """Angles of the first axis of 2000 bases in the plane; without the signs half of the circle is empty."""
    theta = bases(2, 4000, 0)[::2]
    angles = torch.atan2(theta[:, 1], theta[:, 0]).numpy()
    assert stats.kstest(angles, stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > FALSE_ALARM


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_a_shift_is_seen_exactly(dim):
    x, m = torch.randn(20, dim), torch.randn(dim)
    got = at(SlicedWasserstein(2.0, 9), x, x + m)
    assert float(got) == pytest.approx(float(m.square().sum()) / dim, rel=1e-12)


def test_the_fixed_error_between_gaussians_is_as_documented():
    """N(0, diag(4, 1/4)) and N(0, diag(1/4, 4)): W2^2 along (cos, sin) is the squared gap of standard deviations."""

    def gap(t):
        return (math.hypot(2 * math.cos(t), math.sin(t) / 2) - math.hypot(math.cos(t) / 2, 2 * math.sin(t))) ** 2

    exact = integrate.quad(gap, 0, math.pi)[0] / math.pi
    seen = []
    for seed in range(400):
        theta = bases(2, 128, seed)
        seen.append(float(np.mean([gap(t) for t in torch.atan2(theta[:, 1], theta[:, 0]).tolist()])) / exact)
    spread = np.std(seen)
    assert abs(np.mean(seen) - 1) < stats.norm.isf(FALSE_ALARM / 2) * spread / 20
    assert spread == pytest.approx(0.09, rel=0.2)  # a spread of 400 draws is known to 1/sqrt(800) = 4 %


@order_case
def test_sliced_slopes_vmap_and_compile(order):
    d = SlicedWasserstein(order, 6)
    x, y, a, b = two_clouds(5, 4, 2)

    def value(x, y, log_a):
        return at(d, x, y, log_a.softmax(0), b)

    assert torch.autograd.gradcheck(value, (x.requires_grad_(), y.requires_grad_(), a.clone().requires_grad_()))
    check_transforms(value, x.detach(), y.detach(), a)


@order_case
def test_the_line_under_vmap_and_compile(order):
    x, y, a, b = two_clouds(5, 4)
    check_transforms(lambda x, y, log_a: at(Wasserstein1D(order), x, y, log_a.softmax(0), b), x, y, a)


def check_transforms(value, x, y, a):
    stacks = [torch.stack([t, t.flip(0) + 0.3, -t]) for t in (x, y, a)]
    mapped = torch.func.vmap(torch.func.grad(value, argnums=(0, 1, 2)))(*stacks)
    torch._dynamo.reset()
    compiled = torch.compile(value, backend="aot_eager", fullgraph=True)
    for i in range(3):
        inputs = [t[i].clone().requires_grad_() for t in stacks]
        slopes = torch.autograd.grad(value(*inputs), inputs)
        for got, exact in zip(mapped, slopes, strict=True):
            torch.testing.assert_close(got[i], exact, rtol=1e-12, atol=1e-14)
        for got, exact in zip(torch.autograd.grad(compiled(*inputs), inputs), slopes, strict=True):
            torch.testing.assert_close(got, exact, rtol=1e-12, atol=1e-14)


def test_refusals_of_slices():
    with pytest.raises(ValueError, match="SlicedWasserstein takes 1 to 1048576 directions, got 0"):
        SlicedWasserstein(directions=0)


# -- max-sliced: a metric ---------------------------------------------------------------------------------------------


def test_the_worst_direction_is_learnt_by_a_projection():
    """max over |w| = 1 of W2^2(w.q, w.p) on a cloud in the plane, against a scan of the circle; phi climbs to it."""
    x, y = torch.randn(60, 2) * torch.tensor([1.0, 3.0]), torch.randn(60, 2)
    circle = [torch.tensor([math.cos(t), math.sin(t)]) for t in np.linspace(0, math.pi, 2001)]
    worst = max(float(((x @ w).sort().values - (y @ w).sort().values).square().mean()) for w in circle)
    projection = Projection((2,))
    game = StandardEquation(
        model=Affine((2,)), divergence=Wasserstein1D(2.0), auxiliary=Embedded(), metric=Metric(projection)
    )
    phi = torch.optim.Adam(projection.parameters(), lr=0.05)
    for _ in range(300):
        phi.zero_grad()
        (-game.scalar(Particles(x), Particles(y))).backward()
        phi.step()
        assert float(game.scalar(Particles(x), Particles(y)).detach()) <= worst * (1 + 1e-4)
    # The scan misses the peak by (pi/4000)^2 of its curvature; Adam's last steps are of length 0.05 at most.
    assert float(game.scalar(Particles(x), Particles(y)).detach()) > worst * (1 - 1e-2)


def test_projections_are_orthonormal_and_refuse_more_outputs_than_coordinates():
    e = Projection((2, 3), outputs=4)
    w = torch.func.jacrev(lambda x: e(x[None])[0])(torch.randn(2, 3)).flatten(1)
    torch.testing.assert_close(w @ w.mT, torch.eye(4), rtol=0, atol=50 * EPS)
    with pytest.raises(ValueError, match=r"Projection takes outputs <= 2, the coordinates of \(2,\), got 3"):
        Projection((2,), outputs=3)


# -- POT --------------------------------------------------------------------------------------------------------------


@needs_pot
@order_case
@pytest.mark.parametrize("dim", [1, 3])
def test_pot_gives_the_linear_program_and_its_slopes(order, dim):
    x, y, a, b = two_clouds(7, 5, dim)
    d = OptimalTransport(order)
    exact = transport_by_program(pairwise_cost(x, y, order), a.numpy(), b.numpy())[0]
    got = at(d, x, y, a, b)
    assert float(got) == pytest.approx(exact, abs=1e-9)
    if dim == 1:
        assert float(got) == pytest.approx(float(at(Wasserstein1D(order), x, y, a, b)), rel=1e-12)
    inputs = [t.requires_grad_() for t in (x, y, a.log(), b.log())]

    def value(x, y, log_a, log_b):
        return at(d, x, y, log_a.softmax(0), log_b.softmax(0))

    assert torch.autograd.gradcheck(value, inputs)
    torch.testing.assert_close(
        torch.func.grad(value)(*(t.detach() for t in inputs)), torch.autograd.grad(value(*inputs), inputs[0])[0]
    )


def test_pivots_are_counted_from_one_in_32_bits():
    for count in (0, 2**31):
        with pytest.raises(ValueError, match=rf"takes 1 <= max_iterations < 2\^31, got max_iterations={count}"):
            OptimalTransport(max_iterations=count)


@needs_pot
def test_pot_refuses_in_a_sentence():
    x, y, *_ = two_clouds(4, 3, 2)
    with pytest.raises(ValueError, match="OptimalTransport: the particles of q or p are not finite"):
        at(OptimalTransport(), x * math.nan, y)
    with pytest.raises(ValueError, match="OptimalTransport: masses differ, 2 and 1: normalise the weights"):
        at(OptimalTransport(), x, y, torch.full((4,), 0.5))
    with pytest.raises(RuntimeError, match="OptimalTransport cannot be vmapped: POT solves one problem at a time"):
        torch.func.vmap(lambda x: at(OptimalTransport(), x, y))(x.expand(2, 4, 2))
    with pytest.raises(RuntimeError, match=r"OptimalTransport: .* Raise max_iterations"):
        at(OptimalTransport(max_iterations=1), torch.randn(60, 2), torch.randn(60, 2))


@pytest.mark.parametrize(
    ("d", "module", "message"),
    [
        (OptimalTransport(), "ot", r"OptimalTransport needs the package ot: pip install 'se-framework\[ot\]'"),
        (
            Sinkhorn(backend="online"), "pykeops",
            r"Sinkhorn with backend=online needs the package pykeops: pip install 'se-framework\[keops\]'",
        ),
    ],
)  # fmt: skip
def test_a_missing_extra_is_named(d, module, message, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    assert d.primal_extra[0] == module
    with pytest.raises(ModuleNotFoundError, match=message):
        at(d, torch.zeros(2, 2), torch.ones(3, 2))


# -- KeOps ------------------------------------------------------------------------------------------------------------


@needs_keops
@pytest.mark.parametrize("backend", ["online", "multiscale"])
@pytest.mark.parametrize("reach", [None, 1.0])
def test_keops_backends_give_what_the_dense_one_gives(backend, reach):
    x, y, a, b = two_clouds(60, 50, 2)
    results = []
    for chosen in ("tensorized", backend):
        z = x.clone().requires_grad_()
        value = at(Sinkhorn(2, 0.3, 0.95, reach, chosen), z, y, a, b)
        results.append((float(value.detach()), torch.autograd.grad(value, z)[0]))
    (dense, dense_slope), (value, slope) = results
    # The same iterations in another order of summation; multiscale starts on clusters, within its annealing's error.
    allowed = 1e-10 if backend == "online" else 2e-2
    assert value == pytest.approx(dense, rel=allowed)
    assert float((slope - dense_slope).norm() / dense_slope.norm()) < allowed


def test_the_backend_is_handed_to_geomloss(monkeypatch):
    import geomloss

    seen = []

    def record(*arguments, backend, **settings):
        seen.append(backend)
        return lambda a, x, b, y: (x.sum() + y.sum() + a.sum() + b.sum()) * 0

    monkeypatch.setattr(geomloss, "SamplesLoss", record)
    monkeypatch.setitem(sys.modules, "pykeops", sys)  # any module in its place
    for backend in ("tensorized", "online", "multiscale"):
        at(Sinkhorn(backend=backend), torch.zeros(2, 2), torch.ones(3, 2))
    assert seen == ["tensorized", "online", "multiscale"]


def test_backends_are_named():
    with pytest.raises(ValueError, match="sinkhorn takes backend tensorized, online or multiscale; got 'keops'"):
        Sinkhorn(backend="keops")
    assert Sinkhorn().primal_extra is None and Sinkhorn(backend="online").primal_extra == ("pykeops", "keops")
    assert "backend=online" in Sinkhorn(backend="online").extra_repr()


@needs_keops
def test_multiscale_is_for_three_coordinates_at_most():
    with pytest.raises(ValueError, match="backend=multiscale is for up to 3 coordinates, got 4: use backend=online"):
        at(Sinkhorn(backend="multiscale"), torch.zeros(2, 4), torch.ones(2, 4))


@needs_pot
def test_second_derivatives_in_points_are_right_and_mixed_ones_refused():
    x, y = (torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (4, 3))
    d = OptimalTransport(order=2.0)

    def cost(x, w=None):
        return d.primal(Particles(x, None if w is None else w.log_softmax(0)), None, Particles(y))

    assert torch.autograd.gradgradcheck(cost, (x.clone().requires_grad_(),))  # between jumps of the plan
    leaves = [x.clone().requires_grad_(), torch.zeros(4, dtype=torch.float64, requires_grad=True)]
    slopes = torch.autograd.grad(cost(*leaves), leaves, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative in points and weights together"):
        torch.autograd.grad(slopes[0].sum(), leaves[1])
    with pytest.raises(RuntimeError, match="no second derivative in points and weights together"):
        torch.autograd.grad(slopes[1].square().sum(), leaves[0])
