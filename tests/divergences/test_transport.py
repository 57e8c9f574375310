"""Wasserstein1 and the Sinkhorn wrapper against closed forms."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from scipy import optimize, stats

import divergences.transport
from divergences import EnergyDistance, Sinkhorn, Wasserstein1
from models.laws import Particles
from tests.support.oracles import (
    critic_outputs,
    letters,
    simplex,
)

DEFAULT_DTYPE = torch.float64


# -- transport --------------------------------------------------------------------------------------------------------


def cloud(points, log_weights=None) -> Particles:
    x = torch.as_tensor(points)
    return Particles(x[:, None] if x.ndim == 1 else x, log_weights)


def test_wasserstein_dual_leaves_p_as_it_is():
    p, v = letters(simplex(6, 0)), critic_outputs(6, 0, 3.0)
    for inner in (Wasserstein1().inner(v, p), Wasserstein1().inner_normalised(v, p, v + 9)):
        assert float(inner.divergence) == 0 and not inner.log_tilt.any()
        assert float(inner.conjugate) == float(inner.link_q) == pytest.approx(float(p.mean(v)))


@pytest.mark.parametrize("distance", [1e-7, 1e-3, 0.25, 3.0, 40.0])  # geomloss's own cost has a least distance of 1e-4
def test_sinkhorn_between_diracs(distance):
    a, b = cloud([0.0]), cloud([distance])
    assert float(Sinkhorn(p=2).primal(a, None, b)) == pytest.approx(0.5 * distance**2, rel=1e-12)
    assert float(Sinkhorn(p=1).primal(a, None, b)) == pytest.approx(distance, rel=1e-12)


@pytest.mark.parametrize("exponent", [1, 2])
def test_sinkhorn_of_a_shift_on_the_line(exponent):
    """A shift by more than the width of the cloud: every plan costs the same for p = 1, and p = 2 gives d^2/2."""
    x, shift = torch.randn(40, 1).clamp(-2, 2), 5.0
    got = float(Sinkhorn(p=exponent, blur=0.05, scaling=0.99).primal(cloud(x), None, cloud(x + shift)))
    exact = shift if exponent == 1 else 0.5 * shift**2
    assert got == pytest.approx(exact, abs=2 * 0.05**exponent * math.log(40))  # entropies of the plans, each <= log N


@pytest.mark.parametrize("mode", [True, False])
def test_sinkhorn_restores_the_grad_mode(mode):
    with torch.set_grad_enabled(mode):
        Sinkhorn().primal(cloud([0.0, 1.0]), None, cloud([0.5]))
        assert torch.is_grad_enabled() is mode
        with pytest.raises(ValueError, match="the particles of p are not finite"):
            Sinkhorn().primal(cloud([0.0, 1.0]), None, cloud([math.nan]))
        assert torch.is_grad_enabled() is mode


def test_sinkhorn_of_one_point_repeated():
    for n, m in ((5, 4), (1, 1)):
        x = torch.full((n, 3), 2.0, requires_grad=True)
        value = Sinkhorn().primal(cloud(x), None, cloud(torch.full((m, 3), 2.0)))
        (gradient,) = torch.autograd.grad(value, x)
        assert float(value.detach()) == pytest.approx(0, abs=1e-14)
        assert gradient.isfinite().all() and gradient.abs().max() < 1e-12


@pytest.mark.parametrize("exponent", [1, 2])
@pytest.mark.parametrize("reach", [None, 1.0])
def test_sinkhorn_of_one_cloud_and_of_a_collapsed_one(exponent, reach):
    d, y = Sinkhorn(p=exponent, reach=reach), torch.randn(9, 2)
    for x, zero in ((y.clone(), True), (torch.zeros(9, 2), False)):
        x.requires_grad_()
        value = d.primal(cloud(x), None, cloud(y))
        (gradient,) = torch.autograd.grad(value, x)
        assert gradient.isfinite().all()
        if zero:
            assert abs(float(value.detach())) < 1e-12 and gradient.abs().max() < 1e-12
        else:
            assert float(value.detach()) > 0.1 and gradient.abs().max() > 1e-3


def test_sinkhorn_refusals():
    ok = cloud([0.0, 1.0])
    for bad, message in [
        (cloud([math.nan, 0.0]), "the particles of q are not finite"),
        (cloud([math.inf, 0.0]), "the particles of q are not finite"),
        (cloud(torch.zeros(2, 3)), "points of q have 3 coordinates, points of p have 1"),
        (cloud([0.0, 1.0], torch.zeros(2)), "masses differ, 2 and 1: normalise the weights"),
    ]:
        with pytest.raises(ValueError, match=message):
            Sinkhorn().primal(bad, None, ok)
    with pytest.raises(ValueError, match="needs samples of the model"):
        Sinkhorn().primal(ok, None, None)
    for arguments in ({"p": 3}, {"p": 0}, {"blur": 0.0}, {"blur": -1.0}, {"scaling": 1.0}, {"scaling": 0.0}):
        with pytest.raises(ValueError, match=r"takes p in \(1, 2\), blur > 0, 0 < scaling < 1; got"):
            Sinkhorn(**arguments)
    for reach in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="takes reach > 0, or null for balanced transport; got reach="):
            Sinkhorn(reach=reach)


def test_sinkhorn_calls_the_backend_that_needs_no_keops_and_the_api_whose_slopes_are_right(monkeypatch):
    """Left to itself geomloss asks for KeOps from 5,000 points on; slopes through geomloss.ot are twice too steep."""
    import geomloss

    calls = []

    class Recorder:
        def __init__(self, *args, **kwargs):
            calls.append((args, kwargs))

        def __call__(self, a, x, b, y):
            return (x.sum() + y.sum() + a.sum() + b.sum()) * 0

    monkeypatch.setattr(geomloss, "SamplesLoss", Recorder)
    Sinkhorn(1, 0.1, 0.9, 2.0).primal(cloud(torch.zeros(5001, 1)), None, cloud(torch.zeros(5001, 1)))
    (((loss,), settings),) = calls
    assert float(settings.pop("cost")(torch.zeros(1, 1), torch.ones(1, 1))) == 1  # ours: geomloss's cancels, and ends
    assert loss == "sinkhorn" and settings == {
        "p": 1, "blur": 0.1, "scaling": 0.9, "reach": 2.0, "diameter": 8.0, "backend": "tensorized"
    }  # fmt: skip
    source = Path(divergences.transport.__file__).read_text()
    assert re.findall(r"^\s*(?:from|import) geomloss.*", source, re.M) == ["        from geomloss import SamplesLoss"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sinkhorn_computes_in_float32_at_least(dtype):
    x, y = (torch.linspace(0, 1, 5) + shift for shift in (0.0, 2.0))
    x, y = x.to(dtype)[:, None].requires_grad_(), y.to(dtype)[:, None]
    value = Sinkhorn().primal(cloud(x), None, cloud(y))
    (gradient,) = torch.autograd.grad(value, x)
    exact = Sinkhorn().primal(cloud(x.detach().double()), None, cloud(y.double()))
    assert value.dtype == gradient.dtype == dtype
    # One rounding of the answer to its type, half a spacing; the rest is float32's.
    assert float(value.detach()) == pytest.approx(float(exact), rel=torch.finfo(dtype).eps / 2 + 1e-6)


def test_sinkhorn_refuses_second_derivatives():
    x = torch.tensor([[0.0], [1.0]], requires_grad=True)

    def value(x):
        return Sinkhorn().primal(cloud(x), None, cloud([2.0, 3.0]))

    (gradient,) = torch.autograd.grad(value(x), x, create_graph=True)
    assert float(gradient.detach().norm()) > 0
    for twice in (
        lambda: torch.autograd.grad(gradient.square().sum() + x.pow(3).sum(), x),  # must not drop its part in silence
        lambda: torch.autograd.functional.hessian(value, x),
    ):
        with pytest.raises(RuntimeError, match="sinkhorn has no second derivative"):
            twice()


def test_sinkhorn_under_function_transforms():
    """torch.func.grad serves, vmap and second derivatives are refused in a sentence."""
    x, y = torch.randn(3, 4, 2), torch.randn(5, 2).requires_grad_()

    def value(y, x=x[0]):
        return Sinkhorn().primal(cloud(x), None, cloud(y))

    torch.testing.assert_close(torch.func.grad(value)(y.detach()), torch.autograd.grad(value(y), y)[0], rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="sinkhorn cannot be vmapped: geomloss reads numbers off the clouds"):
        torch.func.vmap(lambda x: value(y, x))(x)
    with pytest.raises(RuntimeError, match="sinkhorn has no second derivative"):
        torch.func.jacrev(torch.func.grad(value))(y.detach())


def test_sinkhorn_gradient():
    """At slow annealing, on weighted clouds of a few points, in both clouds and in p's weights."""
    d = Sinkhorn(p=2, blur=0.7, scaling=0.98)
    x, y = torch.randn(4, 2), torch.randn(3, 2) + 1
    w = torch.tensor([0.2, 0.5, 0.3])

    def value(flat):
        return d.primal(cloud(flat[:8].reshape(4, 2)), None, cloud(flat[8:].reshape(3, 2), w.log()))

    flat = torch.cat([x.flatten(), y.flatten()]).requires_grad_()
    (gradient,) = torch.autograd.grad(value(flat), flat)
    index = torch.tensor([0, 5, 9])
    numeric = torch.stack([
        (value(flat.detach() + step) - value(flat.detach() - step)) / 2e-4
        for step in 1e-4 * torch.eye(14)[index]
    ])  # fmt: skip
    torch.testing.assert_close(gradient[index], numeric, rtol=5e-3, atol=5e-3)


def plain_sinkhorn(x, y, a, b, exponent, blur, scaling):
    """geomloss as it is called by hand: it starts at the diameter."""
    from geomloss import SamplesLoss

    mode = torch.is_grad_enabled()
    value = SamplesLoss("sinkhorn", p=exponent, blur=blur, scaling=scaling, backend="tensorized")(a, x, b, y)
    torch.set_grad_enabled(mode)  # geomloss leaves it on
    return value


@pytest.mark.parametrize("exponent", [1, 2])
@pytest.mark.parametrize("distance", [0.3, 30.0])
def test_the_upper_part_of_the_annealing_changes_nothing(exponent, distance):
    """Clouds of two clusters with unequal shares, so that mass must change sides."""
    sides = torch.tensor([[distance, 0.0]])
    x, y = (torch.randn(20, 2) + sides * (torch.arange(20)[:, None] < n) for n in (5, 12))
    x.requires_grad_(), y.requires_grad_()
    weights = torch.full((20,), 1 / 20)
    slow = plain_sinkhorn(x, y, weights, weights, exponent, 0.3, 0.999)
    slopes = torch.cat(torch.autograd.grad(slow, (x, y)))
    values, errors = [], []
    for scaling in (0.95, 0.99):
        for value in (
            plain_sinkhorn(x, y, weights, weights, exponent, 0.3, scaling),
            Sinkhorn(exponent, 0.3, scaling).primal(cloud(x), None, cloud(y)),
        ):
            values.append(abs(float((value - slow).detach())) / float(slow.detach()))
            errors.append(float((torch.cat(torch.autograd.grad(value, (x, y))) - slopes).norm() / slopes.norm()))
        # The annealing's own error, which the start may not add to by more than a tenth (and 1e-6, the reference's).
        assert values[-1] < 1.1 * values[-2] + 1e-4 and errors[-1] < 1.1 * errors[-2] + 1e-3


def test_sinkhorn_takes_only_the_slopes_that_are_asked_for(monkeypatch):
    x, y, w = torch.randn(6, 2), torch.randn(5, 2), torch.rand(5).softmax(0)
    asked, grad = [], torch.autograd.grad

    def recorded(value, leaves, *arguments, **named):
        asked.append(len(leaves))
        return grad(value, leaves, *arguments, **named)

    monkeypatch.setattr(torch.autograd, "grad", recorded)

    def slopes(which):
        leaves = [t.clone().requires_grad_(name in which) for name, t in (("x", x), ("y", y), ("w", w))]
        p = cloud(leaves[1], leaves[2].log())
        value = Sinkhorn(blur=0.3).primal(cloud(leaves[0]), None, p)
        if not which:
            return value, []
        return value, grad(value, [t for t in leaves if t.requires_grad])

    everything, (of_x, of_y, of_w) = slopes("xyw")
    assert asked == [3]
    for which, expected in (("x", [of_x]), ("y", [of_y]), ("w", [of_w]), ("xw", [of_x, of_w]), ("", [])):
        asked.clear()
        value, found = slopes(which)
        assert asked == ([len(which)] if which else []) and value.requires_grad is bool(which)
        assert float(value.detach()) == float(everything.detach())
        torch.testing.assert_close(list(found), list(expected), rtol=0, atol=0)
    asked.clear()
    with torch.no_grad():
        value = Sinkhorn(blur=0.3).primal(cloud(x.requires_grad_()), None, cloud(y))
    assert not value.requires_grad and not asked


# -- against transport solved by other means --------------------------------------------------------------------------


def transport(x, y, a, b, exponent, epsilon, rho=math.inf, steps=3000):
    """OT by plain Sinkhorn iterations, from the plan's own primal objective; differentiable at the fixed plan."""
    squared = (x[:, None] - y).square().sum(-1)
    cost = squared / 2 if exponent == 2 else (squared + 1e-30).sqrt()
    with torch.no_grad():
        g, damping = torch.zeros_like(b), 1 / (1 + epsilon / rho)
        for _ in range(steps):
            f = -damping * epsilon * torch.logsumexp(b.log() + (g - cost) / epsilon, 1)
            g = -damping * epsilon * torch.logsumexp((a.log() + f / epsilon)[:, None] - cost / epsilon, 0)
        plan = a[:, None] * b * torch.exp((f[:, None] + g - cost) / epsilon)

    def kl(u, v):
        return (u * (u / v).log()).sum() - u.sum() + v.sum()

    total = (plan * cost).sum() + epsilon * kl(plan, a[:, None] * b)
    return total if rho == math.inf else total + rho * (kl(plan.sum(1), a) + kl(plan.sum(0), b))


def debiased(x, y, a, b, exponent, blur, reach):
    epsilon, rho = blur**exponent, math.inf if reach is None else reach**exponent
    pairs = ((x, y, a, b, 1.0), (x, x, a, a, -0.5), (y, y, b, b, -0.5))
    total = sum(w * transport(u, v, c, d, exponent, epsilon, rho) for u, v, c, d, w in pairs)
    return total + (0 if reach is None else epsilon / 2 * (a.sum() - b.sum()).square())


@pytest.mark.parametrize(
    ("exponent", "blur", "reach", "mass"),
    [(2, 0.5, None, 1.0), (1, 0.5, None, 1.0), (2, 0.5, 1.0, 1.0), (2, 1.0, 0.5, 1.7), (1, 0.5, 1.0, 0.6)],
)
def test_sinkhorn_value_and_slope_against_converged_iterations(exponent, blur, reach, mass):
    """The error is the annealing's: a tenth at a tenth of 1 - scaling. Unbalanced, geomloss's slope is 10-40 % off."""
    x, y = torch.randn(7, 3), torch.randn(5, 3) + 1
    a, b = torch.rand(7).softmax(0), torch.rand(5).softmax(0) * mass
    x.requires_grad_()
    exact = debiased(x, y, a, b, exponent, blur, reach)
    (slope,) = torch.autograd.grad(exact, x)
    errors = []
    for scaling in (0.99, 0.999):
        got = Sinkhorn(exponent, blur, scaling, reach).primal(cloud(x, a.log()), None, cloud(y, b.log()))
        (gradient,) = torch.autograd.grad(got, x)
        errors.append((abs(float((got - exact).detach())), float((gradient - slope).norm() / slope.norm())))
    (value_99, slope_99), (value_999, slope_999) = errors
    assert value_99 < 0.005 and value_999 < 0.2 * value_99
    assert slope_99 < 0.05 and slope_999 < 0.2 * slope_99


@pytest.mark.parametrize(
    ("dim", "blur", "fast", "slow"),
    [(2, 0.05, 0.2, 0.07), (2, 0.2, 0.08, 0.02), (2, 0.5, 0.04, 0.01), (64, 1.0, 0.08, 0.02)],
)
def test_slopes_at_the_documented_scalings(dim, blur, fast, slow):
    """The docstring's figures, to a factor of two: clouds differ by that much."""
    x, y = torch.randn(64, dim).requires_grad_(), torch.randn(64, dim) + 0.5

    def slope(scaling):
        return torch.autograd.grad(Sinkhorn(blur=blur, scaling=scaling).primal(cloud(x), None, cloud(y)), x)[0]

    best = slope(0.999)
    for scaling, documented in ((0.95, fast), (0.99, slow)):
        assert documented / 2 < float((slope(scaling) - best).norm() / best.norm()) < 2 * documented


@pytest.mark.parametrize("exponent", [1, 2])
def test_limits_of_the_blur(exponent):
    """Small: W1 or W2^2/2 by assignment. Large: half the distance of mean embeddings under minus the cost."""
    n = 12
    x, y = torch.randn(n, 2), torch.randn(n, 2) + 1
    cost = torch.cdist(x, y) ** exponent / exponent
    exact = float(cost[optimize.linear_sum_assignment(cost.numpy())].mean())
    blur = 0.02
    got = float(Sinkhorn(exponent, blur, 0.99).primal(cloud(x), None, cloud(y)))
    # Entropies are at most log N each.
    assert got == pytest.approx(exact, abs=2 * blur**exponent * math.log(n) + 2e-4)
    half = EnergyDistance().primal(cloud(x), None, cloud(y)) / 2 if exponent == 1 else (
        (x.mean(0) - y.mean(0)).square().sum() / 2
    )  # fmt: skip
    for blur in (1e2, 1e3):  # the next term is of order cost^2 / epsilon, with costs up to 10
        got = float(Sinkhorn(exponent, blur, 0.9).primal(cloud(x), None, cloud(y)))
        assert got == pytest.approx(float(half), abs=100 / blur**exponent)


def entropic_gaussians(m, s, r, epsilon):
    """OT between N(0, s^2) and N(m, r^2), cost |x-y|^2, penalty epsilon KL to the product (Janati et al. 2020)."""
    a, b, v = s * s, r * r, epsilon / 2
    root = math.sqrt(4 * a * b + v * v)
    return m * m + a + b - root + v * (1 - math.log(2 * v)) + v * math.log(root + v)


@pytest.mark.parametrize(("m", "s", "r", "blur"), [(1.0, 1.0, 1.5, 1.0), (0.5, 1.0, 0.6, 0.7)])
def test_sinkhorn_between_gaussians_converges_to_the_closed_form(m, s, r, blur):
    """On a quadrature rule, so that only the annealing is left: its error falls with 1 - scaling."""
    nodes = torch.linspace(-9, 10, 96)
    q, p = (torch.as_tensor(stats.norm.pdf(nodes, *law)) * 0.2 for law in ((0, s), (m, r)))
    epsilon = 2 * blur**2  # twice our cost, twice our penalty
    two = entropic_gaussians(m, s, r, epsilon)
    exact = (two - entropic_gaussians(0, s, s, epsilon) / 2 - entropic_gaussians(0, r, r, epsilon) / 2) / 2
    errors = [
        abs(float(Sinkhorn(2, blur, scaling).primal(cloud(nodes, q.log()), None, cloud(nodes, p.log()))) - exact)
        for scaling in (0.9, 0.99, 0.999)
    ]
    # The rule ends 6 standard deviations from p's mean: 1e-9 of its mass lies beyond, at costs of 45.
    assert errors[1] < 0.2 * errors[0] and errors[2] < 0.2 * errors[1] + 5e-8 and errors[2] < 1e-3 * exact, errors


@pytest.mark.parametrize("exponent", [1, 2])
@pytest.mark.parametrize("distance", [0.01, 0.3, 3.0, 50.0])
@pytest.mark.parametrize(("blur", "reach"), [(0.05, 1.0), (0.05, 0.02), (0.5, 1.5), (0.05, 50.0)])
@pytest.mark.parametrize("mass", [1.0, 1.7])
def test_unbalanced_diracs(exponent, distance, blur, reach, mass):
    """One number is left to choose, the mass that moves: log pi = ((eps + rho) log(ab) - C) / (eps + 2 rho)."""
    epsilon, rho = blur**exponent, reach**exponent
    near, far = (r**exponent / exponent for r in (0.0, distance))

    def transport(cost, a, b):
        moved = math.exp(((epsilon + rho) * math.log(a * b) - cost) / (epsilon + 2 * rho))
        return epsilon * a * b + rho * (a + b) - (epsilon + 2 * rho) * moved

    exact = transport(far, 1, mass) - transport(near, 1, 1) / 2 - transport(near, mass, mass) / 2
    exact += epsilon / 2 * (1 - mass) ** 2
    d = Sinkhorn(exponent, blur, reach=reach)
    got = float(d.primal(cloud([0.0]), None, cloud([distance], torch.tensor([mass]).log())))
    assert got == pytest.approx(exact, rel=5e-3)  # the annealing's error, largest where blur nears reach


def test_reach_beyond_everything_is_balanced_transport():
    x, y = torch.randn(8, 2), torch.randn(6, 2)
    near, far = (float(Sinkhorn(blur=0.5, scaling=0.99, reach=r).primal(cloud(x), None, cloud(y))) for r in (None, 1e4))
    assert near == pytest.approx(far, rel=1e-5)
