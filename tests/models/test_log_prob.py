"""A density says which points it takes: shapes as in torch.distributions, any real type; else refused by name."""

import math

import pytest
import torch

from models.laws import Weighted
from models.splines import SplineFlow
from models.triangular import Triangular, of_gaussian
from tests.support.modules import MODELS

DENSITIES = [name for name, make in MODELS.items() if make().has_log_prob]


def points(model, *batch):
    if isinstance(model(), Weighted):
        return torch.zeros(*batch, *model.event_shape)
    return torch.randn(*batch, *model.event_shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", DENSITIES)
def test_any_shape_may_stand_before_that_of_a_point(name):
    model = MODELS[name]()
    x = points(model, 6)
    law = model()
    rows = law.log_prob(x)
    assert rows.shape == (6,)
    assert torch.equal(law.log_prob(x.reshape(2, 3, *model.event_shape)), rows.reshape(2, 3))
    assert law.log_prob(x[0]).shape == ()
    # One row by itself takes other kernels: float32 sums of up to 16 terms, a few of them.
    assert torch.allclose(law.log_prob(x[0]), rows[0], rtol=1e-4, atol=1e-4)
    assert law.log_prob(x[:0]).shape == (0,)


@pytest.mark.parametrize("name", DENSITIES)
def test_points_of_any_real_type_are_taken(name):
    model = MODELS[name]()
    x = points(model, 4).round()
    want = model().log_prob(x)
    for dtype in (torch.float64, torch.int64):
        assert torch.equal(model().log_prob(x.to(dtype)), want)


@pytest.mark.parametrize("name", DENSITIES)
def test_other_shapes_are_refused(name):
    model = MODELS[name]()
    event = model.event_shape
    wrong = [torch.ones(3, *(n + 1 for n in event)), torch.ones(3, *event, 2 * event[-1] + 1), torch.ones(())]
    if event != (1,):
        wrong += [torch.ones(3, 1), torch.ones(1)]
    for x in wrong:
        with pytest.raises(ValueError, match="log_prob needs real points of shape"):
            model().log_prob(x)
    with pytest.raises(ValueError, match="complex"):
        model().log_prob(torch.ones(3, *event, dtype=torch.complex64))


def test_a_conditional_law_takes_one_point_per_label():
    model = SplineFlow((2,), couplings=2, width=8, classes=3)
    law = model(torch.tensor([0, 1, 2]))
    assert law.log_prob(torch.ones(3, 2)).shape == (3,)
    for x in (torch.ones(1, 2), torch.ones(2), torch.ones(6, 2)):
        with pytest.raises(ValueError, match=r"shape \(3, 2\)"):
            law.log_prob(x)


@pytest.mark.parametrize("name", ["spline-white", "nvp-white"])
def test_a_whitened_flow_starts_at_the_gaussian_of_the_first_batch(name):
    from models.laws import Particles

    model = MODELS[name]().double()
    d = model.dimension
    draw = torch.Generator().manual_seed(1)
    x = 5 + torch.randn(200, d, generator=draw, dtype=torch.float64) @ torch.tril(torch.ones(d, d)).double()
    with torch.no_grad():
        model.prepare(Particles(x))
    covariance = torch.cov(x.T, correction=0)
    want = torch.distributions.MultivariateNormal(x.mean(0), covariance).log_prob(x)
    # The ridge adds 1e-6 of each variance: to -log p it adds at most 1e-6 times the largest condition (36) and |z|^2.
    assert torch.allclose(model().log_prob(x), want, atol=1e-6 * 36 * 40)
    again = model().sample((5,), generator=draw)
    assert torch.isfinite(model().log_prob(again)).all()


def test_the_triangular_map_and_its_inverse():
    rows = torch.randn(30, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64).cumsum(1)
    loc, log_scale, below = of_gaussian(rows)
    end = Triangular(loc[:, None], log_scale[:, None], below)
    u = end.pull(rows.T)
    assert torch.allclose(end.push(u), rows.T, atol=1e-12)
    assert torch.allclose(u @ u.T / 30, torch.eye(4, dtype=torch.float64), atol=1e-4)
    few = of_gaussian(rows[:4])  # singular: variances alone
    assert not few[2].any()
    assert torch.allclose(few[1], rows[:4].std(0, correction=0).log(), atol=1e-6)
    assert math.isfinite(float(of_gaussian(torch.ones(50, 2))[1].sum()))


def test_a_coordinate_that_is_constant_in_the_first_batch_keeps_its_scale():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, 1] = -2.0
    loc, log_scale, below = of_gaussian(x)
    assert loc[1] == -2 and abs(log_scale[1]) < 1e-5 and below[1, 0] == below[2, 1] == 0
    _, others, _ = of_gaussian(x[:, [0, 2]])
    assert torch.allclose(log_scale[[0, 2]], others, atol=1e-12)
