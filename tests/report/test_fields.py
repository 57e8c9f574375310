"""Figures of a critic against closed forms: slopes, Lipschitz estimate, effective sample size, densities, arrows."""

import math

import pytest
import torch

from se_framework.comparison.report.fields import (
    arrows,
    effective_size,
    histogram,
    kernel_log_density,
    slopes,
    steepest,
)

DEFAULT_DTYPE = torch.float64
EPS = torch.finfo(torch.float64).eps


def test_slopes_of_a_quadratic_form_are_linear():
    a = torch.tensor([[2.0, 0.5], [0.5, -1.0]])
    x = torch.randn(50, 2)
    found = slopes(lambda x: 0.5 * ((x @ a) * x).sum(1), x)
    assert (found - x @ a).abs().max() <= 16 * EPS * float(x.abs().max() * a.abs().sum())


def test_a_function_without_a_graph_has_no_slope():
    assert slopes(lambda x: torch.zeros(len(x)), torch.randn(3, 2)).tolist() == [[0.0, 0.0]] * 3


def test_the_steepest_slope_is_found_between_data_and_samples_too():
    """f = -|x - 1|^3: slope 3 (x - 1)^2, zero at data and samples in 1, steep at samples in 3 and nowhere more."""
    data, samples = torch.full((64, 1), 1.0), torch.full((64, 1), 3.0)
    assert steepest(lambda x: -((x[:, 0] - 1).abs() ** 3), data, samples) == pytest.approx(12, rel=16 * EPS)
    # A bump of slope 5 over (1.5, 2.5) that neither end sees: of 64 places, all outside with probability 2^-64.
    bump = steepest(lambda x: 5 * x[:, 0].clamp(1.5, 2.5), data, samples)
    assert bump == pytest.approx(5, rel=16 * EPS)


def test_kishs_size_of_equal_lone_and_two_valued_weights():
    assert effective_size(torch.full((10,), -3.0)) == pytest.approx(10, rel=1e-13)
    assert effective_size(torch.tensor([800.0, 0, 0])) == pytest.approx(1, rel=1e-13)
    weights = torch.tensor([3.0, 1, 1, 1])  # (6)^2 / 12 = 3
    assert effective_size(weights.log()) == pytest.approx(3, rel=1e-13)


def test_a_histogram_counts_everything_once_and_the_far_ones_in_the_last_bar():
    values = torch.cat([torch.linspace(0, 1, 1000), torch.tensor([1e6, math.nan])])
    found = histogram(values, bars=10)
    assert float(found.shares.sum()) == pytest.approx(1, rel=1e-13)
    assert float(found.edges[0]) == 0 and 0.99 < float(found.edges[-1]) <= 1
    assert float(found.shares[-1]) > float(found.shares[0])  # what lies beyond the quantile, and the millionth
    constant = histogram(torch.full((5,), 2.0), bars=4)
    assert float(constant.shares.sum()) == 1 and float(constant.edges[0]) < 2 < float(constant.edges[-1])


@pytest.mark.parametrize("d", [1, 2])
def test_a_kernel_estimate_is_the_sum_of_its_kernels(d):
    """Against the definition, kernel by kernel, with the bandwidth that the docstring states."""
    samples, x = torch.randn(200, d), torch.randn(5, d)
    width = samples.std(0) * 200 ** (-1 / (d + 4)) / 3
    kernels = torch.distributions.Normal(samples[:, None], width).log_prob(x).sum(2).exp().mean(0)
    found = kernel_log_density(samples, x)
    enough = ~torch.isnan(found)
    assert enough.any()
    assert (found.exp() - kernels)[enough].abs().max() <= 1e3 * EPS * float(kernels.max())


def test_where_hardly_a_sample_lies_an_estimate_is_none():
    assert torch.isnan(kernel_log_density(torch.randn(200, 1), torch.tensor([[40.0]]))).all()


def test_arrows_start_at_their_points_along_the_field_and_their_heads_point_forward():
    points, field = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    segments = arrows(points, field, 0.5).segments
    shafts, heads = segments[:2], segments[2:]
    assert torch.allclose(shafts[:, :2], points) and torch.allclose(shafts[:, 2:] - points, field / 4)
    assert torch.allclose(heads[:, :2].view(2, 2, 2), shafts[:, 2:].expand(2, 2, 2))  # both sides begin at the tip
    back = (heads[:, 2:] - heads[:, :2]).view(2, 2, 2)
    along = (back * field / 2).sum(2)
    assert (along < 0).all() and torch.allclose(along[0], along[1])  # behind the tip, on both sides alike
    assert not torch.allclose(back[0], back[1])


def test_arrows_of_nothing_and_of_what_is_not_finite_are_left_out():
    field = torch.tensor([[0.0, 0.0], [math.nan, 1.0], [1.0, 0.0]])
    assert len(arrows(torch.zeros(3, 2), field, 1.0).segments) == 3  # one shaft with two sides
    assert arrows(torch.zeros(2, 2), torch.zeros(2, 2), 1.0).segments.shape == (0, 4)
