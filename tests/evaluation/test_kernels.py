"""MMD and energy distance: double sums, closed forms of Gaussians, errors by repeats."""

from __future__ import annotations

import math

import pytest
import torch

from se_framework.data import TensorData
from se_framework.evaluation import kernels
from se_framework.evaluation.judged import Judged, Sizes
from se_framework.evaluation.pair import Pair, TooFewError, distance

F64 = torch.float64
ROUNDING = 1e-12  # some ten thousand sums of numbers of order one


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pair(x: torch.Tensor, y: torch.Tensor, bandwidth: float = 1.5, data=None) -> Pair:
    data = data or TensorData(torch.zeros(9, x.shape[1], dtype=F64), name="plain")
    return Pair(data, x, y, bandwidth=bandwidth, pairs=1000, assigned=9, directions=torch.eye(x.shape[1]), seed=0)


def double_sum(kernel, x, y):
    """The unbiased statistic, point by point."""
    n = len(x)
    within = sum(kernel(a[i], a[j]) for a in (x, y) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return within - 2 * sum(kernel(a, b) for a in x for b in y) / n**2


def test_both_are_their_double_sums():
    x, y = torch.randn((2, 7, 3), generator=draw(0), dtype=F64)

    def mean_of_gaussians(a, b):
        square = float((a - b).square().sum())
        return sum(math.exp(-square / (2 * (s * 1.5) ** 2)) for s in (1 / 8, 1 / 4, 1 / 2, 1, 2)) / 5

    assert kernels.mmd(pair(x, y)).value == pytest.approx(double_sum(mean_of_gaussians, x, y), abs=ROUNDING)
    energy = kernels.energy(pair(x, y))
    assert energy.value == pytest.approx(double_sum(lambda a, b: -math.dist(a, b), x, y), abs=ROUNDING)
    assert energy.n == 7


@pytest.mark.parametrize("apart", [0.0, 3.0])  # the second order, or the first
def test_the_error_is_hoeffdings_term_by_term(apart):
    """By loops: both orders, from witness and doubly centred kernel."""
    n = 6
    x, y = torch.randn((2, n, 2), generator=draw(1), dtype=F64)
    y = 2 * y + apart
    xx, yy, yx = -distance(x, x), -distance(y, y), -distance(y, x)
    value, se = kernels.statistic(xx, yy, yx + 0.7)
    within = [[sum(float(k[i, j]) for j in range(n) if j != i) / (n - 1) for i in range(n)] for k in (xx, yy)]
    across = [[float((yx + 0.7)[:, j].mean()) for j in range(n)], [float((yx + 0.7)[i].mean()) for i in range(n)]]
    spread = sum(
        4 * float(torch.tensor([a - b for a, b in zip(w, c, strict=True)], dtype=F64).var()) / n
        for w, c in zip(within, across, strict=True)
    )
    second = 0.0
    for k, w in ((xx, within[0]), (yy, within[1])):
        mean = sum(w) / n
        off = [float(k[i, j]) - w[i] - w[j] + mean for i in range(n) for j in range(n) if i != j]
        second += 2 * sum(c * c for c in off) / (n * (n - 1)) ** 2
    mean = float((yx + 0.7).mean())
    off = [float(yx[i, j]) + 0.7 - across[1][i] - across[0][j] + mean for i in range(n) for j in range(n)]
    second += 4 * sum(c * c for c in off) / n**4
    assert se == pytest.approx(max(spread - second, second) ** 0.5, abs=ROUNDING)
    assert value == pytest.approx(sum(sum(w) for w in within) / n - 2 * mean, abs=ROUNDING)


@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_means_and_errors_over_repeats(shift):
    r"""N(0, 1) and N(m, 1): E e^{-d^2/2b^2} = b / sqrt(b^2 + 2) e^{-m^2 / 2(b^2 + 2)}; E|X - Y| of N(m, 2).

    400 repeats: the mean within 4 of its errors. Where q = p the statistic is a weighted sum of chi-squares, of excess
    kurtosis up to 12: its deviation is known to sqrt((12 + 2) / 400) / 2 = 9 %, so 20 % and 3.3 of these are allowed.
    """

    def gaussian(b, m):
        return b / math.sqrt(b * b + 2) * math.exp(-m * m / (2 * (b * b + 2)))

    def distance_of(m):  # of a normal variable with mean m and variance 2
        return 2 / math.sqrt(math.pi) * math.exp(-m * m / 4) + m * math.erf(m / 2)

    want = {
        kernels.mmd: sum(2 * gaussian(1.5 * s, 0.0) - 2 * gaussian(1.5 * s, shift) for s in kernels.LADDER) / 5,
        kernels.energy: 2 * distance_of(shift) - 2 * distance_of(0.0),
    }
    random = draw(2)
    points = torch.randn((400, 2, 40, 1), generator=random, dtype=F64)
    for measure, mean in want.items():
        found = [measure(pair(x, y + shift)) for x, y in points]
        values, errors = (torch.tensor([f[i] for f in found], dtype=F64) for i in (0, 1))
        assert abs(float(values.mean()) - mean) < 4 * float(values.std()) / 20
        ratio = float(errors.square().mean().sqrt() / values.std())
        # At q = p it is never less than the second order, which its noise raises by 25 % in the root mean square.
        assert 0.8 - 0.3 < ratio < 1.25 + 0.3 and (shift == 0 or 0.8 - 0.12 < ratio < 1.2 + 0.12), ratio


def test_the_bandwidth_is_of_training_rows_alone():
    """Neither samples, held-out rows nor the seed move it, so one kernel judges every model."""
    data = TensorData(5 + 3 * torch.randn((400, 2), generator=draw(3), dtype=F64), standardize=True)
    sizes = Sizes(100, 50, 400, 5)
    found = {
        Judged(data, scale * torch.randn((50, 2), generator=draw(4), dtype=F64), seed, None, sizes).pair.bandwidth
        for scale, seed in ((1.0, 0), (100.0, 0), (1.0, 9))
    }
    rows = data.train.to(torch.get_default_dtype()).double()
    (bandwidth,) = found
    assert bandwidth == pytest.approx(float(torch.pdist(rows).median()), abs=1e-6)
    assert f"{bandwidth:.3g}" in kernels.mmd(pair(rows[:9], rows[9:18], bandwidth)).more["kernel"]


def test_rows_of_which_most_coincide_have_a_bandwidth():
    assert kernels.median_distance(torch.zeros(9, 2)) == 1.0 and kernels.median_distance(torch.zeros(1, 2)) == 1.0


def test_too_few_points_are_told():
    x = torch.zeros(3, 2, dtype=F64)
    with pytest.raises(TooFewError, match="it needs 4 samples and as many held-out rows, and there are 3"):
        kernels.energy(pair(x, x))
