"""Maps of [0, 1] to the line: inverse, slope, density, bits; batches under them are the rows' own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

import se_framework as se
from divergences import CrossEntropy, Sinkhorn
from models import MLPGenerator, RealNVP
from se_framework.data import DequantizedDigits, TensorData
from se_framework.data.transforms import Gaussianise, Logit, transform_of
from se_framework.equation import units
from se_framework.errors import DataError
from se_framework.evaluation.likelihood import bits_per_dim
from se_framework.evaluation.scores import scores
from se_framework.pictures.panels import of_images
from tests.support.oracles import z_score

DEFAULT_DTYPE = torch.float64
K = 5


@pytest.fixture(scope="module")
def levels():
    """Levels 0..4 of two coordinates; the second never has level 3."""
    draw = np.random.default_rng(0)
    columns = [draw.choice(K, 400, p=p) for p in ([0.4, 0.1, 0.1, 0.1, 0.3], [0.7, 0.1, 0.1, 0.0, 0.1])]
    return torch.as_tensor(np.stack(columns, 1))


def inside(n=4000, d=2):
    draw = torch.Generator().manual_seed(1)
    return torch.rand(n, d, generator=draw, dtype=torch.float64)


@pytest.mark.parametrize("make", [lambda levels: Logit(), lambda levels: Gaussianise(levels, K)])
def test_inverse_and_slope(levels, make):
    transform, x = make(levels), inside()
    z = transform.forward(x)
    # An error of one spacing in the probability is one of 2^-53 / (K share) in x; the least share is above 1e-3.
    assert (transform.inverse(z) - x).abs().max() < 2.0**-53 * 1e5
    x = x.requires_grad_()
    (slope,) = torch.autograd.grad(transform.forward(x).sum(), x)
    assert torch.allclose(slope.log().sum(1), transform.log_slope(x.detach()), rtol=1e-9, atol=1e-9)


def test_gaussianise_is_the_quantile_of_smoothed_shares(levels):
    """The density of a coordinate, by counting in plain Python; scipy's quantile."""
    pooled, even = 3.0, 2.0
    transform = Gaussianise(levels, K, pooled, even)
    whole = [sum(int((levels[:, j] == k).sum()) for j in range(2)) / 800 for k in range(K)]
    for j in range(2):
        weight = [int((levels[:, j] == k).sum()) + pooled * whole[k] + even / K for k in range(K)]
        share = [w / sum(weight) for w in weight]
        for x in (0.0501, 0.37, 0.65, 0.7, 0.999):
            k = int(x * K)
            p = sum(share[:k]) + share[k] * (x * K - k)
            point = torch.full((1, 2), x, dtype=torch.float64)
            assert transform.forward(point)[0, j].item() == pytest.approx(stats.norm.ppf(p), abs=1e-12)
    x, z = torch.tensor([[0.37, 0.65]]), transform.forward(torch.tensor([[0.37, 0.65]]))
    first, second = (transform.forward(torch.tensor([[0.37 + 1e-6, 0.65]])) - z)[0], z
    assert first[0] > 0 and first[1] == 0 and second.isfinite().all() and transform.log_slope(x).shape == (1,)


def test_data_of_the_product_law_are_white(levels):
    """Rows of independent coordinates with the fitted shares: mean 0 and mean square 1 of each coordinate."""
    shares = Gaussianise(levels, K, 0.0, 1e-9)
    noise = torch.rand(levels.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    z = shares.forward((levels + noise) / K)
    for moment, mean, variance in ((z, 0, 1), (z.square(), 1, 2)):
        assert ((moment.mean(0) - mean).abs() < z_score(4) * (variance / len(z)) ** 0.5).all()


def test_edges_stay_finite(levels):
    for transform in (Logit(), Gaussianise(levels, K)):
        edges = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        z = transform.forward(edges)
        assert z.isfinite().all() and z[0, 0] < z[1, 0] and transform.log_slope(edges).isfinite().all()
        assert torch.allclose(transform.inverse(z), edges.double(), atol=1e-12)


def test_the_law_in_user_units_integrates_to_one(levels):
    """A standard normal model under the map: its density in user units is that of the product of shares."""
    transform = Gaussianise(levels, K)
    grid = (torch.arange(K * 40, dtype=torch.float64) + 0.5) / (K * 40)
    x = torch.cartesian_prod(grid, grid)
    z = transform.forward(x)
    log_p = -0.5 * z.square().sum(1) - math.log(2 * math.pi) + transform.log_slope(x)
    # The density is constant on the cells of the grid, which nest in the levels: the sum is exact.
    assert log_p.exp().mean().item() == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize("name", ["logit", "gaussianise"])
def test_batches_are_mapped_rows(name):
    plain, data = DequantizedDigits(labels=True), DequantizedDigits(labels=True, transform=name)
    apart, kept = data.with_validation(0.2), plain.with_validation(0.2)
    for mapped, rows in (
        (data.batch(1000, 400, 3), plain.batch(1000, 400, 3)),
        (data.held_out(99, 2), plain.held_out(99, 2)),
        (apart.validation(50), kept.validation(50)),
        (data.reference_rows(300), plain.reference_rows(300)),
    ):
        assert torch.allclose(data.to_user(mapped.x), rows.x, atol=1e-9)
        assert torch.allclose(data.to_model(rows.x), mapped.x, atol=1e-5)  # slopes: pixels of one level in training
        assert mapped.context is None or torch.equal(mapped.context, rows.context)
    many = data.batches(7, 30, [1, 2])
    assert torch.equal(many.x, torch.stack([data.batch(7, 30, seed).x for seed in (1, 2)]))
    assert data.support is None and plain.support == (0.0, 1.0)


def standard_normal(x, context=None):
    return -0.5 * x.flatten(1).square().sum(1) - x[0].numel() / 2 * math.log(2 * math.pi)


def test_likelihoods_count_the_jacobian():
    """Of a standard normal model: nll in user units by the shares of every pixel, counted here."""
    data = DequantizedDigits(transform="gaussianise")
    found = scores(data, data.to_user(data.held_out(500).x), seed=0, model_log_prob=standard_normal,
                   names=["nll", "bits_per_dim"])  # fmt: skip
    level = (DequantizedDigits().train * 17).round().long()
    rest = (data.to_user(data.held_out(540).x) * 17).floor().long().flatten(1)
    own = torch.stack([(level.flatten(1) == k).sum(0) for k in range(17)]).double()
    smooth = own + 4 * own.sum(1, keepdim=True) / own.sum() + 1 / 17
    share = smooth / smooth.sum(0)
    log_share = share.log().T[torch.arange(64), rest].sum(1)
    nats = -float(log_share.mean()) - 64 * math.log(17)
    assert found["nll"]["value"] == pytest.approx(nats, rel=1e-9)
    assert found["bits_per_dim"]["value"] == pytest.approx(-float(log_share.mean()) / (64 * math.log(2)), rel=1e-9)
    assert found["nll"]["transform"] == found["bits_per_dim"]["transform"] == "gaussianise"
    spread = float(log_share.std()) / 540**0.5
    assert found["bits_per_dim"]["se"] == pytest.approx(spread / (64 * math.log(2)), rel=1e-9)
    for name, value in found["nll"]["references"].items():
        assert found["bits_per_dim"]["references"][name] == pytest.approx(bits_per_dim(value, data))


def test_bits_of_an_even_law_are_exact():
    assert bits_per_dim(0.0, DequantizedDigits()) == pytest.approx(math.log2(17), abs=1e-12)
    column = torch.arange(128).double()[:, None] % 8
    table = TensorData(column * 3 + 1, dequantise=True, standardize=True)  # 8 values, 3 apart: even over [1, 25)
    assert bits_per_dim(math.log(24), table) == pytest.approx(3.0, abs=1e-12)
    mixed = TensorData(torch.cat([column, torch.rand(128, 1).double()], 1), dequantise=True)
    assert mixed.level_width is None and "bits_per_dim" not in scores(
        mixed, mixed.held_out(4).x.double(), seed=0, model_log_prob=standard_normal, names=["bits_per_dim"]
    )


def test_a_trained_flow_has_a_density_in_user_units():
    """No density outside [0, 1]; inside, the model's own and the map's slope."""
    run = se.compose(
        "mle_flow", ["data=digits_dequantized", "data.transform=gaussianise", "loop.rounds=2", "loop.early_stop=null",
                     "model=realnvp", "model.couplings=2", "model.width=8"]
    )  # fmt: skip
    run.train()
    x = DequantizedDigits().held_out(3).x
    x[2, 5] = 1.2
    found = run.log_prob(x)
    inner = run.data.to_model(x[:2])
    with torch.no_grad():
        own = run.model().log_prob(inner.to(next(run.model.parameters()).dtype)).double()
    assert torch.allclose(found[:2], own - run.data.log_slope(inner), rtol=1e-5) and found[2] == -torch.inf


def test_a_distance_beyond_a_map_has_no_factor_to_user_units():
    def found(divergence, model):
        return se.StandardEquation(model=model, metric=None, divergence=divergence, auxiliary=se.Empirical(), alpha=1.0)

    equation = found(Sinkhorn(), MLPGenerator((64,), width=4))
    assert units.cost_factor(equation, DequantizedDigits()) == 1.0
    assert units.cost_factor(equation, DequantizedDigits(transform="logit")) is None
    likelihood = found(CrossEntropy(), RealNVP((64,), couplings=2))
    assert units.cost_factor(likelihood, DequantizedDigits(transform="logit")) == 1.0


def test_a_map_that_does_not_exist():
    with pytest.raises(DataError, match="data.transform=log: there is no such map; choose one of none, logit, gauss"):
        transform_of("log", torch.zeros(4, 2), 2)
    assert transform_of("none", torch.zeros(4, 2), 2) is None


def test_the_training_images_of_a_picture_are_whole():
    """Beside samples that are training images: those, up to the noise of a level."""
    data, plain = DequantizedDigits(transform="gaussianise"), DequantizedDigits()
    samples = plain.train[:64].double()
    figure = of_images(data, samples, plain.rest.double())
    first, _, third = (axes.images[0].get_array() for axes in figure.axes)
    # Levels are 1/17 of the range between the darkest and the lightest held-out pixel, which is nearly 1.
    assert abs(first - third).max() < 1.2 / 17
