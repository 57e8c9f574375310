"""Coupling flows: the spline against a slow reference, labels, and laws on the unit cube.

Everything is in float64 unless float32 is the subject. Where a map with slope s is inverted, an error e of the value
becomes e / s: tolerances are multiples of the spacing of floats, of the size of the box, and of that slope.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import functional_call, jacrev, stack_module_state, vmap

from models.flows import RealNVP
from models.laws import standard_normal_log_prob
from models.logits import MARGIN, from_logits, to_logits
from models.splines import MIN_SIZE, MIN_SLOPE, SplineFlow, find_bins
from tests.support.oracles import z_score

DEFAULT_DTYPE = torch.float64
BOX, BINS = 3.0, 6
FLOWS = {
    "nvp": lambda **kw: RealNVP(kw.pop("event_shape", (2,)), couplings=4, width=8, activation="tanh", **kw),
    "spline": lambda **kw: SplineFlow(kw.pop("event_shape", (2,)), couplings=4, width=8, activation="tanh", **kw),
}
flow_case = pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS.keys())


def flow(bins: int = BINS) -> SplineFlow:
    return SplineFlow((2,), bins=bins, bound=BOX)


def numbers(size: float, n: int, bins: int = BINS) -> torch.Tensor:
    """What a conditioner might return for n examples of one coordinate, shape (3 K - 1, 1, n)."""
    return size * torch.randn(3 * bins - 1, 1, n)


def perturbed(model: torch.nn.Module, size: float = 0.3) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn_like(parameter)
    return model


# --- the spline --------------------------------------------------------------------------------------------------


def knots_of(raw: list[float]) -> tuple[list[float], list[float], list[float]]:
    """Positions, heights and derivatives at the K + 1 knots, by the book: softmax with a floor, softplus."""
    bins = (len(raw) + 1) // 3

    def edges(u: list[float]) -> list[float]:
        total = sum(math.exp(v) for v in u)
        out = [-BOX]
        for v in u:
            out.append(out[-1] + 2 * BOX * (MIN_SIZE + (1 - bins * MIN_SIZE) * math.exp(v) / total))
        return out

    beta = math.log(2) / (1 - MIN_SLOPE)
    slopes = [MIN_SLOPE + math.log1p(math.exp(beta * v)) / beta for v in raw[2 * bins :]]
    return edges(raw[:bins]), edges(raw[bins : 2 * bins]), [1.0, *slopes, 1.0]


def reference(x: float, raw: list[float]) -> tuple[float, float]:
    """Durkan et al., eqs. (4) and (5), as they stand there: value and derivative."""
    if abs(x) >= BOX:
        return x, 1.0
    xs, ys, d = knots_of(raw)
    k = max(j for j in range(len(xs) - 1) if xs[j] <= x)
    s = (ys[k + 1] - ys[k]) / (xs[k + 1] - xs[k])
    xi = (x - xs[k]) / (xs[k + 1] - xs[k])
    denominator = s + (d[k + 1] + d[k] - 2 * s) * xi * (1 - xi)
    y = ys[k] + (ys[k + 1] - ys[k]) * (s * xi**2 + d[k] * xi * (1 - xi)) / denominator
    slope = s**2 * (d[k + 1] * xi**2 + 2 * s * xi * (1 - xi) + d[k] * (1 - xi) ** 2) / denominator**2
    return y, slope


@pytest.mark.parametrize("bins", [2, BINS, 16])
def test_spline_agrees_with_the_published_formulas(bins):
    raw, x = numbers(1.5, 300, bins), 1.5 * torch.randn(1, 300)
    y, log_slope = flow(bins).pull_coordinate(raw, x)
    found = [reference(float(x[0, i]), raw[:, 0, i].tolist()) for i in range(300)]
    assert sum(abs(float(v)) > BOX for v in x[0]) > 5
    torch.testing.assert_close(y[0], torch.tensor([v for v, _ in found]), rtol=0, atol=1e-12)
    torch.testing.assert_close(log_slope[0], torch.tensor([math.log(s) for _, s in found]), rtol=0, atol=1e-10)


def test_inverse_agrees_with_bisection_of_the_published_formulas():
    raw, z = numbers(1.5, 60), 1.5 * torch.randn(1, 60)
    x, log_slope = flow().push_coordinate(raw, z)
    for i in range(60):
        one, low, high = raw[:, 0, i].tolist(), -9.0, 9.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if reference(middle, one)[0] < float(z[0, i]) else (low, middle)
        assert float(x[0, i]) == pytest.approx(low, abs=1e-11)
        assert float(log_slope[0, i]) == pytest.approx(-math.log(reference(low, one)[1]), abs=1e-9)


@pytest.mark.parametrize("direction", ["pull_coordinate", "push_coordinate"])
def test_log_slope_is_that_of_autograd(direction):
    raw, x = numbers(2.0, 2000), (2 * torch.randn(1, 2000)).requires_grad_()
    y, log_slope = getattr(flow(), direction)(raw, x)
    slope = torch.autograd.grad(y.sum(), x)[0]
    torch.testing.assert_close(slope.log(), log_slope, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("dtype", "spacing"), [(torch.float64, 2.2e-16), (torch.float32, 1.2e-7)])
def test_inverse_is_exact_to_rounding(dtype, spacing):
    """Also with derivatives that differ by a factor of thousands, where the textbook root would cancel."""
    for size in (0.5, 2.0, 4.0):
        raw, x = numbers(size, 5000).to(dtype), (1.2 * torch.randn(1, 5000)).to(dtype)
        y, log_slope = flow().pull_coordinate(raw, x)
        back, inverse = flow().push_coordinate(raw, y)
        slope = log_slope.double().exp()
        # Both maps are exact up to some ten roundings of numbers of the size of the box.
        allowed = 40 * spacing * 2 * BOX * (1 + 1 / slope)
        assert (((back - x).abs() <= allowed) | (slope < spacing**0.5)).all()
        assert y.isfinite().all() and back.isfinite().all()
        if size == 0.5:
            # The same roundings, over bins of a hundredth of the box or more, between slopes that differ tenfold.
            assert (log_slope + inverse).abs().max() < 40 * spacing * 100 * 10


def test_float32_follows_float64():
    raw, x = numbers(1.5, 20_000).float(), 1.2 * torch.randn(1, 20_000).float()
    for direction in ("pull_coordinate", "push_coordinate"):
        y, log_slope = getattr(flow(), direction)(raw, x)
        exact, exact_log = getattr(flow(), direction)(raw.double(), x.double())
        assert y.dtype == torch.float32
        assert ((y - exact).abs() <= 40 * 1.2e-7 * 2 * BOX * (1 + exact_log.exp())).all()
        # An error of one spacing of the box is up to 1e-3 of the narrowest bin: rare, and bounded by that.
        assert (log_slope - exact_log).abs().quantile(0.99) < 1e-4 and (log_slope - exact_log).abs().max() < 2e-2


def test_spline_at_its_knots_and_ends():
    model, raw = flow(), numbers(1.5, 50)
    for i in range(50):
        one = raw[:, :, i : i + 1]
        xs, ys, d = (torch.tensor(v)[None] for v in knots_of(one.flatten().tolist()))
        repeated = one.expand(-1, 1, BINS + 1)
        # On which side of a knot rounding puts a point must not matter, to the gradient neither.
        for direction, start, end, sign in ((model.pull_coordinate, xs, ys, 1), (model.push_coordinate, ys, xs, -1)):
            start = start.clone().requires_grad_()
            found, log_slope = direction(repeated, start)
            torch.testing.assert_close(found, end, rtol=0, atol=1e-11)
            torch.testing.assert_close(log_slope, sign * d.log(), rtol=0, atol=1e-8)
            slope = torch.autograd.grad(found.sum(), start)[0]
            torch.testing.assert_close(slope.log(), log_slope, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spline_is_the_identity_outside_its_box(dtype):
    x = torch.tensor([[-1e30, -1e4, -BOX - 1e-3, -BOX, BOX, BOX + 1e-3, 1e4, 1e30]], dtype=dtype, requires_grad=True)
    raw = numbers(3.0, 8).to(dtype).requires_grad_()
    for direction in (flow().pull_coordinate, flow().push_coordinate):
        y, log_slope = direction(raw, x)
        eps = torch.finfo(dtype).eps
        assert ((y - x).abs() <= 8 * eps * (x.abs() + BOX)).all() and (log_slope.abs() <= 8 * eps).all()
        slope, by_numbers = torch.autograd.grad(y.sum() + log_slope.sum(), (x, raw))
        # One at the two ends is the derivative of a spline of the box, elsewhere that of the identity.
        assert torch.allclose(slope[0, [0, 1, 2, 5, 6, 7]], torch.ones(6, dtype=dtype))
        assert by_numbers.isfinite().all() and slope.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spline_survives_extreme_numbers(dtype):
    raw = (60 * torch.randn(3 * BINS - 1, 1, 4000).sign()).to(dtype).requires_grad_()
    # Half of the points lie at knots, where rounding may put the narrowest bins a good part of their width aside.
    knots = torch.tensor([knots_of(raw[:, 0, i].tolist())[i % 2][1 + i % (BINS - 1)] for i in range(2000)])
    x = torch.cat((knots.to(dtype), torch.linspace(-1.1 * BOX, 1.1 * BOX, 2000, dtype=dtype)))[None]
    for direction in (flow().pull_coordinate, flow().push_coordinate):
        y, log_slope = direction(raw, x)
        gradient = torch.autograd.grad(y.sum() + log_slope.sum(), raw)[0]
        assert y.isfinite().all() and log_slope.isfinite().all() and gradient.isfinite().all()
        assert (y.abs() <= x.abs().clamp(min=BOX) * (1 + 1e-6)).all()


def test_bins_have_a_least_size_and_slope():
    raw = torch.zeros(3 * BINS - 1, 1, 1)
    raw[0], raw[BINS + 1], raw[2 * BINS :] = 100.0, 100.0, -100.0  # the first width and the second height take it all
    place = torch.tensor([[2 * BOX - 1e-9]])
    last = find_bins(raw, place, 0, 2 * BOX)
    assert float(last.width) == pytest.approx(2 * BOX * MIN_SIZE, abs=1e-12)
    assert float(last.height) == pytest.approx(2 * BOX * MIN_SIZE, abs=1e-12)
    assert float(last.slope_0) == pytest.approx(MIN_SLOPE, abs=1e-12) and float(last.slope_1) == pytest.approx(1)
    # Widths are summed, each off by half the spacing of floats at the size of the box.
    assert float(last.left + last.width) == pytest.approx(2 * BOX, rel=0, abs=BINS * 2.0**-52 * 2 * BOX)


def test_spline_increases():
    raw = numbers(3.0, 1).expand(-1, 1, 4000)
    x = torch.linspace(-1.2 * BOX, 1.2 * BOX, 4000)[None]
    for direction in (flow().pull_coordinate, flow().push_coordinate):
        assert (direction(raw, x)[0].diff() > 0).all()


def test_spline_flow_starts_at_the_standard_normal_law():
    x = 3 * torch.randn(40, 5)
    torch.testing.assert_close(SplineFlow((5,))().log_prob(x), standard_normal_log_prob(x))


def test_second_derivatives_are_exact():
    """A penalty on a gradient differentiates the spline twice."""
    raw, x = numbers(0.7, 4).requires_grad_(), torch.tensor([[-1.1, 0.3, 2.0, 4.0]], requires_grad=True)
    for direction in (flow().pull_coordinate, flow().push_coordinate):
        assert torch.autograd.gradcheck(direction, (raw, x))
        assert torch.autograd.gradgradcheck(direction, (raw, x))


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: SplineFlow((1,)), r"at least 2 coordinates, got event_shape \(1,\)"),
        (lambda: SplineFlow((2,), couplings=1), "couplings must be at least 2, got 1"),
        (lambda: SplineFlow((2,), bins=1), "bins must be at least 2, got 1"),
        (lambda: SplineFlow((2,), bins=1000), "bins must be below 1000, .*got 1000"),
        (lambda: SplineFlow((2,), bound=0.0), "bound must be positive and finite, got 0"),
        (lambda: SplineFlow((2,), support="cube"), "support must be one of real, unit, got 'cube'"),
        (lambda: RealNVP((2,), support="Unit"), "support must be one of real, unit, got 'Unit'"),
    ],
)
def test_refusals_say_what_and_what_was_got(attempt, message):
    with pytest.raises(ValueError, match=message):
        attempt()


# --- labels ------------------------------------------------------------------------------------------------------


def plane(low: float, high: float, count: int) -> tuple[torch.Tensor, float]:
    line = torch.linspace(low, high, count + 1)[:-1] + (high - low) / count / 2
    return torch.cartesian_prod(line, line), ((high - low) / count) ** 2


@flow_case
def test_conditional_density_integrates_to_one_and_is_that_of_the_samples(make):
    model = perturbed(make(classes=3))
    grid, cell = plane(-12.0, 12.0, 600)
    densities = []
    for label in range(3):
        density = model(torch.full((len(grid),), label)).log_prob(grid).detach().exp()
        assert float(density.sum()) * cell == pytest.approx(1, abs=2e-3)
        densities.append(density)
        x = model(torch.full((40_000,), label)).sample((40_000,))
        for moment in (lambda t: t[:, 0], lambda t: t[:, 1], lambda t: t[:, 0] * t[:, 1], lambda t: t[:, 1].abs()):
            exact = float((density * moment(grid)).sum()) * cell
            error = float(moment(x).std()) / 200 + 2e-3 * abs(exact)
            assert abs(float(moment(x).mean()) - exact) < z_score(12) * error
    assert float((densities[0] - densities[1]).abs().sum()) * cell > 0.05


@flow_case
def test_every_coordinate_of_a_conditional_law_depends_on_the_label(make):
    model = perturbed(make(event_shape=(5,), classes=2))
    law, other = model(torch.tensor([0, 0])), model(torch.tensor([1, 0]))
    z = law.noise(2)
    moved = law.push(z)[0] != other.push(z)[0]
    assert moved[0].all() and not moved[1].any()
    # In the plane, too, where the half that is read first is one coordinate.
    model = perturbed(make(classes=2))
    points = [model(torch.tensor([y])).push(torch.zeros(1, 2))[0] for y in (0, 1)]
    assert (points[0] != points[1]).all()
    # Every conditioner reads it: the last two columns of its first layer are its weights.
    model(torch.tensor([0, 1])).log_prob(torch.randn(2, 2)).sum().backward()
    assert all(net.weights()[0][0].grad[:, -2:].any() for net in model.conditioners)


@flow_case
def test_labels_belong_to_rows(make):
    model = perturbed(make(event_shape=(3,), classes=4))
    labels, x = torch.tensor([3, 0, 2, 2, 1]), torch.randn(5, 3)
    together = model(labels).log_prob(x)
    torch.testing.assert_close(
        torch.cat([model(y[None]).log_prob(r[None]) for y, r in zip(labels, x, strict=True)]), together
    )
    law = model(labels)
    particles = law.particles(law.noise(5))
    torch.testing.assert_close(law.log_prob(particles.x), particles.log_prob, rtol=0, atol=1e-9)
    parameters, buffers = stack_module_state([model, perturbed(make(event_shape=(3,), classes=4))])
    both = vmap(lambda p, b: functional_call(model, (p, b), (labels,)).log_prob(x))(parameters, buffers)
    torch.testing.assert_close(both[0], together, rtol=0, atol=1e-10)


@flow_case
def test_labels_are_refused_where_they_do_not_belong(make):
    name = type(make()).__name__
    with pytest.raises(ValueError, match=f"{name} is conditional: it needs one label in 0..2 per example, got none"):
        make(classes=3)()
    with pytest.raises(ValueError, match=f"{name} is not conditional, got labels"):
        make()(torch.tensor([0]))
    with pytest.raises(ValueError, match=rf"{name} needs whole-number labels of shape \(N,\)"):
        make(classes=3)(torch.tensor([0.0]))


# --- laws on the unit cube ---------------------------------------------------------------------------------------


@flow_case
def test_log_determinant_on_the_unit_cube(make):
    model = perturbed(make(event_shape=(3,), support="unit"), 0.1)
    law = model()
    for z in law.noise(3):
        x, forward = law.push(z[None])
        assert ((x > 0) & (x < 1)).all()
        back, inverse = law.pull(x)
        torch.testing.assert_close(back, z[None], rtol=0, atol=1e-9)
        push = jacrev(lambda p: law.push(p[None])[0][0])(z)
        pull = jacrev(lambda p: law.pull(p[None])[0][0])(x[0].detach())
        torch.testing.assert_close(forward[0], torch.linalg.slogdet(push)[1], rtol=0, atol=1e-9)
        torch.testing.assert_close(inverse[0], torch.linalg.slogdet(pull)[1], rtol=0, atol=1e-8)


@flow_case
def test_density_on_the_unit_square_integrates_to_one(make):
    model = perturbed(make(support="unit"), 0.1)
    # In logits, where the density is smooth: dx = (p q / (1 - 2a)) dy.
    grid, cell = plane(-18.0, 18.0, 600)
    x, ladj = from_logits(grid)
    mass = (model().log_prob(x) + ladj).exp().detach()
    inside = mass.isfinite()  # beyond y = 14 or so, x = 1 + 1e-6 has no more digits for 1 - p
    assert float(mass[inside].sum()) * cell == pytest.approx(1, abs=2e-3)


def test_logits_reach_a_little_beyond_the_unit_interval():
    x = torch.tensor([[0.0], [1.0], [0.5], [-MARGIN / 2], [1 + MARGIN / 2], [-2 * MARGIN], [1 + 2 * MARGIN], [7.0]])
    y, ladj = to_logits(x.requires_grad_())
    ends = y.detach().flatten()[:2].tolist()
    assert ladj[:5].isfinite().all() and (ladj[5:] == -torch.inf).all() and y.isfinite().all()
    assert ends[0] == pytest.approx(math.log(MARGIN / (1 - MARGIN)), rel=1e-12) and ends[1] == -ends[0]
    gradient = torch.autograd.grad(y.sum() + ladj[:5].sum(), x, retain_graph=True)[0]
    assert gradient.isfinite().all()
    back, inverse = from_logits(y[:5])
    torch.testing.assert_close(back, x[:5], rtol=0, atol=1e-12)
    torch.testing.assert_close(inverse, -ladj[:5], rtol=0, atol=1e-8)
    # float32 has no digits for 1 - p at p = 1 - 1e-6, but q has its own sum.
    single = to_logits(torch.tensor([[1.0], [1 - 2**-24]], dtype=torch.float32))
    double = to_logits(torch.tensor([[1.0], [1 - 2**-24]]))
    for one, two in zip(single, double, strict=True):
        torch.testing.assert_close(one.double(), two, rtol=1e-6, atol=0)


@flow_case
def test_likelihood_outside_the_support_is_zero_and_harms_no_gradient(make):
    model = perturbed(make(support="unit"))
    value = model().log_prob(torch.tensor([[0.5, 0.5], [1.5, 0.5]]))
    assert value[0].isfinite() and value[1] == -torch.inf
    gradients = torch.autograd.grad(value[0], list(model.parameters()))
    assert all(g.isfinite().all() for g in gradients)
