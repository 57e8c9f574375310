"""The laws of the plane of shapes.py and the grid of 25: densities, entropies and samplers against other programs.

Random comparisons allow ``z_score`` standard errors: a false alarm in one of a thousand seeds; seeds are fixed.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from se_framework.data import Checkerboard, Grid25, SwissRoll
from se_framework.errors import DataError
from tests.support.oracles import FALSE_ALARM, z_score

F64 = torch.float64
DEFAULT_DTYPE = F64
N = 50_000


def plane(half: float, step: float) -> torch.Tensor:
    line = torch.arange(-half, half, step, dtype=F64)
    return torch.cartesian_prod(line, line)


# -- grid -------------------------------------------------------------------------------------------------------------


def test_grid_has_the_centres_of_the_paper():
    law = Grid25()
    corners = {(a, b) for a in (-4.0, -2.0, 0.0, 2.0, 4.0) for b in (-4.0, -2.0, 0.0, 2.0, 4.0)}
    assert {tuple(m) for m in law.modes.tolist()} == corners and len(law.modes) == 25 and law.mode_sigma == 0.05
    # Centres 40 sigma apart: the entropy of the choice plus that of one Gaussian, ln 25 + ln(2 pi e sigma^2).
    exact = math.log(25) + math.log(2 * math.pi * math.e * 0.05**2)
    assert exact == pytest.approx(0.065288, abs=5e-7) and law.entropy == pytest.approx(exact, abs=1e-9)
    assert {tuple(m) for m in Grid25(spacing=3.0, side=2).modes.tolist()} == {
        (a, b) for a in (-1.5, 1.5) for b in (-1.5, 1.5)
    }
    with pytest.raises(DataError, match="data.side must be at least 1, got 0"):
        Grid25(side=0)


def test_grid_sampler_agrees_with_density():
    law = Grid25()
    x = law.held_out(N, seed=1).x
    surprise = -law.log_prob(x)
    assert abs(float(surprise.mean()) - law.entropy) < z_score(2) * float(surprise.std()) / N**0.5
    # A chi-square over the 25 modes: the shares are equal.
    counts = torch.bincount(torch.cdist(x, law.modes).argmin(1), minlength=25).double()
    assert float(((counts - N / 25).square() / (N / 25)).sum()) < stats.chi2.isf(FALSE_ALARM / 2, 24)


# -- checkerboard -----------------------------------------------------------------------------------------------------


def ffjord_checkerboard(n: int) -> np.ndarray:
    """FFJORD's generator, as published (numpy)."""
    draw = np.random.default_rng(7)
    x1 = draw.random(n) * 4 - 2
    x2_ = draw.random(n) - draw.integers(0, 2, n) * 2
    x2 = x2_ + (np.floor(x1) % 2)
    return np.concatenate([x1[:, None], x2[:, None]], 1) * 2


def test_checkerboard_is_ffjords():
    law = Checkerboard()
    theirs = torch.as_tensor(ffjord_checkerboard(N))
    # Every point of theirs lies where our density is 1/32, and the density has no mass elsewhere.
    assert bool((law.log_prob(theirs) == -math.log(32)).all())
    middles = plane(5, 0.1) + 0.05  # cells of side 0.1, none of which an edge of a square cuts
    mass = law.log_prob(middles).exp() * 0.1**2
    assert float(mass.sum()) == pytest.approx(1, abs=1e-12)
    assert law.entropy == math.log(32) == pytest.approx(3.465736, abs=5e-7)
    assert -float(torch.special.xlogy(mass, mass / 0.01).sum()) == pytest.approx(law.entropy, abs=1e-12)


def test_checkerboard_sampler_agrees_with_density():
    law = Checkerboard()
    x = law.held_out(N, seed=1).x
    cells = torch.floor((x + 4) / 0.5).long()  # 16 x 16 cells of side 0.5
    counts = torch.bincount(cells[:, 0] * 16 + cells[:, 1], minlength=256).double()
    expected = N * law.log_prob(plane(4, 0.5) + 0.25).exp() * 0.25
    black = expected > 0
    assert int(black.sum()) == 128 and float(counts[~black].sum()) == 0
    chi2 = float(((counts - expected)[black].square() / expected[black]).sum())
    # Both tails: counts that are too even are as wrong as counts that are too uneven.
    assert stats.chi2.isf(1 - FALSE_ALARM / 2, 127) < chi2 < stats.chi2.isf(FALSE_ALARM / 2, 127)


def test_checkerboard_edges():
    points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [-4.0, -4.0], [4.0, 1.0], [0.5, 4.0], [9.0, 9.0], [math.nan, 0.0]])
    found = Checkerboard().log_prob(points)
    assert found.dtype == F64 and found[[0, 2]].tolist() == [-math.log(32)] * 2
    assert found[[1, 3, 4, 5]].tolist() == [-math.inf] * 4 and bool(found[6].isnan())


# -- swiss roll -------------------------------------------------------------------------------------------------------


def curve(t: torch.Tensor) -> torch.Tensor:
    return torch.stack([t * t.cos(), t * t.sin()], 1) / 5


@pytest.mark.parametrize("noise", [1.0, 0.1, 3.0])
def test_swissroll_density_against_dense_quadrature(noise):
    # 20 Gauss-Legendre nodes on each of 20,000 panels (the exponent varies by at most 0.3 over one: e^-100 of error),
    # at points on, between, inside and far from the turns, and beside both ends, where the integrand is cut.
    law, panels = SwissRoll(noise), 20_000
    nodes, weights = map(torch.as_tensor, np.polynomial.legendre.leggauss(20))
    half = 1.5 * math.pi / panels
    t = 1.5 * math.pi + half * (2 * torch.arange(panels, dtype=F64)[:, None] + 1 + nodes)
    log_weights = (weights / (2 * panels)).log().expand(panels, 20).flatten()
    chosen = [[0, 0], [0, 1], [-1, 0], [1, 0.5], [0, 2.83], [0.05, 2.8], [0, -0.94], [0, -3], [9, 9], [-40, 1e-3]]
    points = torch.tensor(chosen, dtype=F64)
    sigma = noise / 5
    c = curve(t.flatten())
    for point, value in zip(points, law.log_prob(points), strict=True):
        direct = torch.logsumexp(log_weights - (c - point).square().sum(1) / (2 * sigma**2), 0)
        direct = direct - math.log(2 * math.pi * sigma**2)
        # Rounding of a square distance: 2^-52 of the exponent.
        assert float(value) == pytest.approx(float(direct), rel=1e-14, abs=1e-12)


@pytest.mark.parametrize(("noise", "entropy"), [(1.0, 2.669646), (0.5, 1.968090), (0.2, None)])
def test_swissroll_integrates_to_one_and_entropy(noise, entropy):
    law = SwissRoll(noise)
    if entropy is None:
        assert law.entropy is None
        return
    # The density is that of a sum with N(0, sigma^2): the trapezoidal rule of step sigma/2 errs by e^-79 in the mass.
    # The logarithm halves what is known of it: 1e-6 of the entropy at this step, by halving it.
    sigma = noise / 5
    log_p = law.log_prob(plane(4.5 * math.pi / 5 + 9 * sigma, sigma / 2))
    p = log_p.exp()
    assert float(p.sum()) * (sigma / 2) ** 2 == pytest.approx(1, abs=1e-12)
    assert -float((p * log_p).sum()) * (sigma / 2) ** 2 == pytest.approx(entropy, abs=1e-6)
    assert law.entropy == pytest.approx(entropy, abs=1e-6)


def test_swissroll_sampler_agrees_with_density_and_with_scikit_learn():
    from sklearn.datasets import make_swiss_roll

    law = SwissRoll()
    mass = law.log_prob(grid := plane(4.6, 0.1)).exp() * 0.1**2
    theirs = torch.as_tensor(make_swiss_roll(N, noise=1.0, random_state=0)[0][:, [0, 2]] / 5)
    moments = [lambda t: t[:, 0], lambda t: t[:, 1], lambda t: t[:, 0] ** 2, lambda t: t[:, 0] * t[:, 1]]
    for x in (law.held_out(N, seed=1).x, theirs):
        surprise = -law.log_prob(x[:20_000])
        assert abs(float(surprise.mean()) - law.entropy) < z_score(10) * float(surprise.std()) / 20_000**0.5
        for moment in moments:
            exact = float((mass * moment(grid)).sum())
            assert abs(float(moment(x).mean()) - exact) < z_score(10) * float(moment(x).std()) / N**0.5


def test_swissroll_of_wild_points():
    law = SwissRoll()
    found = law.log_prob(torch.tensor([[math.nan, 0.0], [math.inf, 0.0], [1e200, 0.0], [2e6, 0.0], [0.0, 1.0]]))
    assert bool(found[0].isnan()) and found[1] == -math.inf and found[2] == -math.inf
    # Far away the nearest point is at (2.7, 0) or so: 1e-5 of the exponent.
    assert float(found[3]) == pytest.approx(-0.5 * (2e6 / 0.2) ** 2, rel=1e-5)
    assert torch.equal(found[4:], law.log_prob(torch.tensor([[0.0, 1.0]])))
    assert law.log_prob(torch.zeros(0, 2)).shape == (0,)


@pytest.mark.parametrize("noise", [0.0, -1.0, math.inf, math.nan])
def test_swissroll_refuses_no_noise(noise):
    with pytest.raises(DataError, match="data.noise must be a positive"):
        SwissRoll(noise)
