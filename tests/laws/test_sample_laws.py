"""Laws of the number as data meets it: standard errors are true, any unit and any origin give one answer.

Every shipped object keeps the short form (``test_checks.py``); here are the long one and what must fail.
"""

from __future__ import annotations

import pytest
import torch

import divergences as d
from divergences.checks import CheckError, check_divergence
from divergences.checks.samples import SETTINGS, Setting, standard_error_is_the_spread
from divergences.exact import Points
from tests.support.cases import INSTALLED

DEFAULT_DTYPE = torch.float64
SAMPLED = [name for name, make in INSTALLED.items() if make().primal_needs == "samples"]
MORE = (
    *SETTINGS,
    Setting(24, 8),
    Setting(12, 48),
    Setting(20, 30, ties=True, weighted=True),
    Setting(30, 45, apart=3.0),
)


@pytest.mark.soak
@pytest.mark.parametrize("name", SAMPLED)
def test_standard_errors_are_the_spread_of_repeats(name, soak):
    """1,000 repeats of every setting (3.3 standard errors of a deviation are 7 %), 60 for Sinkhorn; else the law's."""
    D = INSTALLED[name]()
    if soak:
        standard_error_is_the_spread(D, MORE, 60 if D.accuracy else 1000)
    else:
        standard_error_is_the_spread(D, MORE[-1:], 16 if D.accuracy else 60)


@pytest.mark.parametrize("D", [d.Wasserstein1D(1.0), d.SlicedWasserstein(1.0, directions=4), d.OptimalTransport(1.0)])
def test_the_error_of_transport_of_equal_clouds_is_that_of_the_difference_of_means(D):
    """Laws on the line that do not meet: W1 is the difference of means, its error that of the difference, exactly."""
    if type(D).__name__ == "OptimalTransport":
        pytest.importorskip("ot")
    random = torch.Generator().manual_seed(0)
    for n, m in ((200, 200), (200, 100), (60, 90)):
        x, y = torch.randn(n, 1, generator=random), 20 + torch.randn(m, 1, generator=random)
        want = (x.var(correction=0) / n + y.var(correction=0) / m).sqrt()
        for dtype in (torch.float64, torch.float32):
            found = D.estimate(x.to(dtype), y.to(dtype))
            torch.testing.assert_close(found.standard_error.double(), want, rtol=1e-4, atol=0)
            torch.testing.assert_close(found.value.double(), y.mean() - x.mean(), rtol=1e-5, atol=0)


def test_the_slope_in_the_weights_is_a_potential():
    """u_i + v_j <= c(x_i, y_j) for all pairs, with equality in the mean: feasible and optimal in the dual program."""
    random = torch.Generator().manual_seed(1)
    for n, m in ((8, 8), (8, 4), (6, 9), (5, 7)):
        x, y = torch.randn(n, 1, generator=random), torch.randn(m, 1, generator=random)
        weights = [torch.full((k,), 1 / k).requires_grad_() for k in (n, m)]
        points = [Points(cloud, w.log()) for cloud, w in zip((x, y), weights, strict=True)]
        value = d.Wasserstein1D(1.0).primal(points[0], None, points[1])
        u, v = torch.autograd.grad(value, weights)
        assert float((u[:, None] + v - (x - y.mT).abs()).max()) <= 1e-14
        assert float(u.mean() + v.mean()) == pytest.approx(float(value.detach()), abs=1e-14)


# -- what must fail ---------------------------------------------------------------------------------------------------


class HalfTheError(d.EnergyDistance):
    def estimate(self, *samples):
        found = super().estimate(*samples)
        return found._replace(standard_error=found.standard_error / 2)


class NoPotential(d.Wasserstein1D):
    """Equal clouds: all cost to the weights of p, which is no solution of the dual (found in version 0.1)."""

    def primal(self, q, law, p):
        value = super().primal(q, law, p)
        if p is None or q.log_weights is None or p.log_weights is None or len(q.x) != len(p.x):
            return value
        order = p.x[:, 0].argsort()
        cost = (q.x[:, 0].sort().values - p.x[:, 0][order]).abs() ** self.order
        b = p.log_weights.exp()[order]
        return value.detach() + (b - b.detach()) @ cost + 0 * q.log_weights.sum()


class ErrorOfSinglePrecision(d.MMD):
    def estimate(self, x, *rest):
        found = super().estimate(x, *rest)
        return found._replace(standard_error=found.standard_error * (1.1 if x.dtype == torch.float32 else 1.0))


class CancelsFarAway(d.EnergyDistance):
    """The expanded square, which loses all digits far from the origin."""

    def primal(self, q, law, p):
        if p is None or q.x.shape[1:] != p.x.shape[1:]:
            return super().primal(q, law, p)

        def mean_distance(one, other):
            a, b = (points.log_weights.exp() if points.log_weights is not None else None for points in (one, other))
            square = one.x.square().sum(1)[:, None] + other.x.square().sum(1) - 2 * one.x @ other.x.mT
            distance = square.clamp(min=1e-30).sqrt()
            a, b = (torch.full_like(k.x[:, 0], 1 / len(k.x)) if w is None else w for k, w in ((one, a), (other, b)))
            return a @ distance @ b

        return 2 * mean_distance(q, p) - mean_distance(q, q) - mean_distance(p, p)


class LeastDistance(d.Wasserstein1D):
    """Adds what does not scale with the data, as a clamp does."""

    def primal(self, q, law, p):
        return super().primal(q, law, p) + 1e-7


class ForgetsItsLength(d.MMD):
    def rescaled(self, scale):
        return self


class SinglePrecision(d.KL):
    def exact(self, q, p):
        return super().exact(q, p).float()


class FarNormals(d.KL):
    """The mean from second moments that are not centred."""

    def between_gaussians(self, q, p):
        square = q.mean @ q.mean + p.mean @ p.mean - 2 * q.mean @ p.mean
        return super().between_gaussians(q, p) + (square - (q.mean - p.mean) @ (q.mean - p.mean))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (HalfTheError, r"standard_error_is_the_spread: the standard error is 0\.\d+ of the deviation of 80 repeats"),
        (NoPotential, r"standard_error_is_the_spread: the standard error is 0\.\d+ of the deviation of 80 repeats"),
        (ErrorOfSinglePrecision, "standard_error_in_float32: standard_error of 24 and 24 points in float32"),
        (CancelsFarAway, r"samples_in_any_unit: D of points times 1, 1e\+06 deviations away, torch.float64: got"),
        (LeastDistance, r"samples_in_any_unit: D of points times 1e-06, 1e\+06 deviations away, torch.float64: got"),
        (ForgetsItsLength, "samples_in_any_unit: D of points times 1e-06"),
        (SinglePrecision, r"exact_in_any_unit: exact is of torch.float32, \(\)"),
        (FarNormals, r"exact_in_any_unit: exact of two Normal laws times 1, 1e\+06 deviations away: got"),
    ],
)
def test_what_breaks_a_law_is_named(make, message):
    with pytest.raises(CheckError, match=message):
        check_divergence(make())
