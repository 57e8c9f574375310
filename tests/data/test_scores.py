"""Scores, Frechet distance and pictures against closed forms.

Sampling tests compare within 4.9 standard errors (false alarm: once in a million seeds); seeds are fixed.
"""

from __future__ import annotations

import copy
import itertools
import math
import sys

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from divergences import KL
from models import Affine, MLPCritic, Particles
from se_framework import Dual, Metric, StandardEquation
from se_framework.assembly import assembly_of
from se_framework.config.composing import compose
from se_framework.data import DequantizedDigits, Digits, GaussianMixture, GaussianMixture1d, Moons, Ring8, TensorData
from se_framework.errors import DataError, NonFiniteError, RunDirectoryError
from se_framework.evaluation import densities
from se_framework.evaluation import frechet as fr
from se_framework.evaluation.evaluate import loss_of, score_lines
from se_framework.evaluation.held_out import held_out_value, value_and_error
from se_framework.evaluation.scores import modes, scores
from se_framework.evaluation.transport import (
    _on_a_line,
    potentials,
    sliced_w2,
    sliced_w2_and_error,
    unit_directions,
    w2,
    w2_and_error,
)
from se_framework.pictures.plots import curves, image_grid, picture

Z = 4.9
F64 = torch.float64
CEILING = 1 - math.exp(-4.5)


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal_quantiles(n: int) -> torch.Tensor:
    return torch.special.ndtri((torch.arange(n, dtype=F64) + 0.5) / n)[:, None]


# -- modes ------------------------------------------------------------------------------------------------------------


def test_perfect_ring_samples_reach_the_ceiling():
    law = Ring8()
    found = scores(law, law.batch(0, 20_000, 11).x, seed=0)
    quality = found["high_quality"]
    assert pytest.approx(0.98889, abs=1e-5) == CEILING
    assert quality["references"]["perfect"] == pytest.approx(CEILING, abs=1e-12)
    assert abs(quality["value"] - CEILING) < Z * (CEILING * (1 - CEILING) / 20_000) ** 0.5
    assert quality["better"] == "nearer" and quality["n"] == 20_000
    assert found["modes"]["value"] == 8 and found["modes"]["references"] == {"all": 8.0}


def test_modes_by_hand():
    law = Ring8()
    centres = law.modes
    edge = torch.tensor([0.0599, 0.0], dtype=F64)
    assert modes(centres[[2]] + edge, centres, 0.02) == (1, 1.0)
    assert modes(centres[[2]] + 1.01 * edge, centres, 0.02) == (0, 0.0)
    assert modes(torch.cat([centres[:3], torch.zeros(1, 2, dtype=F64)]), centres, 0.02) == (3, 0.75)


def test_no_mode_scores_without_common_width():
    law = GaussianMixture1d()
    found = scores(law, law.held_out(100, 5).x, seed=0)
    assert set(found) == {"w2"}
    # Centres that overlap have no simple ceiling; the line has another one than the plane.
    near = GaussianMixture([0.0, 5.0], 1.0)
    assert set(scores(near, near.held_out(100, 5).x, seed=0)["high_quality"]["references"]) == {"real"}
    far = GaussianMixture([0.0, 50.0], 1.0)
    perfect = scores(far, far.held_out(100, 5).x, seed=0)["high_quality"]["references"]["perfect"]
    assert perfect == pytest.approx(math.erf(3 / 2**0.5), abs=1e-12)


# -- transport --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shift", "scale"), [(1.5, 1.0), (0.0, 2.0), (-1.0, 0.5)])
def test_w2_of_gaussians_on_the_line(shift, scale):
    # W2^2 = (difference of means)^2 + (difference of deviations)^2; quantiles stand for the law up to O(1/n).
    x = normal_quantiles(20_000)
    assert w2(x, x * scale + shift) == pytest.approx(math.hypot(shift, scale - 1), abs=1e-3)


def test_w2_is_invariant_to_order_and_exact():
    x = torch.randn((300, 4), generator=draw(0), dtype=F64)
    shift = torch.tensor([3.0, 0.0, -4.0, 0.0], dtype=F64)
    # A translation is its own optimal map.
    assert w2(x, (x + shift)[torch.randperm(300, generator=draw(1))]) == pytest.approx(5, abs=1e-12)
    a, b = x[:6], x[6:12]
    best = min(float((a - b[list(p)]).square().sum(1).mean().sqrt()) for p in itertools.permutations(range(6)))
    assert w2(a, b) == pytest.approx(best, abs=1e-12)
    # One coordinate through the sort and, padded by zeros, through the assignment.
    pad = torch.zeros(100, 1, dtype=F64)
    line = w2(x[:100, :1], x[100:200, 1:2])
    assert w2(torch.cat([x[:100, :1], pad], 1), torch.cat([x[100:200, 1:2], pad], 1)) == pytest.approx(line, abs=1e-12)


def test_sliced_w2_of_a_shift():
    x = torch.randn((500, 3), generator=draw(0), dtype=F64)
    shift = torch.tensor([1.0, -2.0, 2.0], dtype=F64)
    directions = unit_directions(4_000, 3, draw(1))
    assert torch.allclose(directions.norm(dim=1), torch.ones(4_000, dtype=F64))
    square = (directions @ shift).square()
    found = sliced_w2(x, (x + shift).flip(0), directions)
    assert found == pytest.approx(float(square.mean().sqrt()), abs=1e-12)
    # E (theta . s)^2 = |s|^2 / d.
    assert abs(found**2 - 3.0) < Z * float(square.std()) / 4_000**0.5
    # The same points in another order, and so the same projections up to the order of three products and two sums:
    # each is off by five roundings of its terms, none larger than the norm of the point.
    assert sliced_w2(x, x.flip(0), directions) <= 2 * 5 * 2.0**-53 * float(x.norm(dim=1).max())


def repeats(dim, apart, count=60, n=100):
    """Pairs of clouds, one of which is the other law's shifted and stretched (W2 > 0, potentials not constant)."""
    for seed in range(count):
        x, y = torch.randn((2, n, dim), generator=draw(seed), dtype=F64)
        yield x, apart + 2 * y


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_the_standard_error_of_transport_is_the_spread_of_repeats(dim):
    """60 repeats: their standard deviation is known to 1/sqrt(2 x 59) = 9 %, so 30 % at 3.3 of these."""
    directions = unit_directions(20, dim, draw(1))
    for measure in (w2_and_error, lambda x, y: sliced_w2_and_error(x, y, directions)):
        found = torch.tensor([measure(x, y) for x, y in repeats(dim, 1.0)], dtype=F64)
        assert float(found[:, 1].mean() / found[:, 0].std()) == pytest.approx(1, abs=0.3)


def test_the_potentials_behind_an_error_are_a_certificate_of_the_optimum():
    """Weak duality: any pair with u_k + v_j <= c_kj bounds the cost from below; theirs meets it, on a line too."""
    for dim in (1, 2):
        x, y = torch.randn((2, 60, dim), generator=draw(3), dtype=F64)
        cost = torch.cdist(x, y).square()
        if dim == 1:
            _, phi, psi = (t.squeeze(0) for t in _on_a_line(x.T, y.T))
        else:
            phi, psi = potentials(cost, torch.as_tensor(linear_sum_assignment(cost.numpy())[1]))
        assert float((phi[:, None] + psi - cost).max()) < 1e-10  # rounding of sixty steps of order ten
        assert float(phi.mean() + psi.mean()) == pytest.approx(w2(x, y) ** 2, abs=1e-12)


def test_perfect_samplers_stand_within_the_spread_of_the_reference():
    """Heavy outliers, three in a hundred: six perfect samples are told apart by luck alone, and the entry says so."""
    law = GaussianMixture([[0.0, 0.0], [12.0, 0.0]], 0.5, [0.97, 0.03])
    for seed in range(3):
        found = scores(law, law.batch(0, 500, 100 + seed).x, seed=seed)["w2"]
        known = found["references"]
        spread = (known["real_vs_real_sd"] ** 2 + found["se"] ** 2) ** 0.5
        assert found["se"] > 0 and known["real_vs_real_sd"] > 0 and found["unit"] == "unit of the data"
        assert abs(found["value"] - known["real_vs_real"]) < Z * spread


def test_the_share_of_high_quality_is_best_where_a_perfect_sample_is():
    """0.9991 of samples within three deviations is further from 0.9889 than 0.985 is: they are too narrow."""
    law = Ring8()
    narrow = scores(Ring8(sigma=0.02), law.modes.repeat(50, 1), seed=0)["high_quality"]
    perfect = scores(law, law.batch(0, 5_000, 11).x, seed=0)["high_quality"]
    assert narrow["value"] == 1.0 > perfect["value"] and loss_of(perfect) < loss_of(narrow)
    assert loss_of({"value": 3.0, "better": "higher"}) == -3 and loss_of({"value": 3.0, "better": "lower"}) == 3
    (line,) = score_lines({"w2": {"value": 1.5, "se": 0.25, "n": 7, "seed": 0, "better": "lower", "unit": "unit of x"}})
    assert line.split(None, 1)[1] == "1.5 +- 0.25 [unit of x]  (n 7, seed 0)"


def test_transport_in_user_units():
    rows = 1000 + 5 * torch.randn((4_000, 2), generator=draw(0), dtype=F64)
    data = TensorData(rows, standardize=True)
    found = scores(data, data.to_user(data.rest) + torch.tensor([30.0, 40.0]), seed=0)
    assert found["w2"]["value"] == pytest.approx(50, abs=1e-6) and found["w2"]["n"] == 400
    assert 0 < found["w2"]["references"]["real_vs_real"] < 5
    assert 0 < found["sliced_w2"]["references"]["real_vs_real"] < 2
    assert found["sliced_w2"]["value"] == pytest.approx(50 / 2**0.5, rel=0.05)


def test_unequal_sizes_refused():
    for function in (w2, lambda x, y: sliced_w2(x, y, unit_directions(2, 2, draw(0)))):
        with pytest.raises(ValueError, match=r"equal shape expected, got \(3, 2\) and \(4, 2\)"):
            function(torch.zeros(3, 2), torch.zeros(4, 2))


# -- scores -----------------------------------------------------------------------------------------------------------


def test_nll_of_the_truth_is_the_entropy():
    law = GaussianMixture1d()
    nll = scores(law, law.held_out(50, 1).x, seed=3, model_log_prob=law.log_prob)["nll"]
    assert nll["n"] == 10_000 and nll["seed"] == 3 and nll["better"] == "lower"
    assert abs(nll["value"] - law.entropy) < Z * nll["se"]
    assert nll["references"] == {"entropy": law.entropy}


def test_the_nll_given_labels_stands_beside_the_entropy_given_labels():
    """H(x | y) = sum_k w_k log(2 pi e sigma_k^2) in the plane, by the law's own density of each component."""
    law = GaussianMixture([[0.0, 0.0], [1.0, 0.0]], [0.5, 2.0], [0.25, 0.75], labels=True)

    def given(x, y):
        normal = torch.distributions.Normal(law.means[y], law.sigmas[y, None])
        return normal.log_prob(x.double()).sum(1)

    nll = scores(law, law.held_out(50, 1).x, seed=3, model_log_prob=given)["nll"]
    want = 0.25 * math.log(2 * math.pi * math.e * 0.25) + 0.75 * math.log(2 * math.pi * math.e * 4)
    assert nll["references"] == {"entropy": pytest.approx(want, abs=1e-12)}
    assert abs(nll["value"] - want) < Z * nll["se"]
    plain = GaussianMixture([[0.0, 0.0], [1.0, 0.0]], [0.5, 2.0], [0.25, 0.75])
    assert plain.entropy > want + 0.05  # of x alone, which the labels tell more about


def test_nll_in_user_units():
    rows = 1000 + 5 * torch.randn((500, 2), generator=draw(0), dtype=F64)
    data = TensorData(rows, standardize=True)
    standard = torch.distributions.Normal(0.0, 1.0)
    nll = scores(data, rows[:50], seed=0, model_log_prob=lambda z: standard.log_prob(z).sum(1))["nll"]
    direct = torch.distributions.Normal(data.loc, data.scale).log_prob(data.to_user(data.rest)).sum(1)
    assert nll["value"] == pytest.approx(-float(direct.mean()), abs=1e-5) and "references" not in nll
    assert nll["se"] == pytest.approx(float(direct.std()) / 50**0.5, rel=1e-4)


def test_scores_are_a_function_of_the_seed():
    law = Moons()
    x = law.held_out(300, 9).x
    state = torch.random.get_rng_state()
    one = scores(law, x, seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert one == scores(law, x, seed=1) != scores(law, x, seed=2)
    for entry in one.values():
        assert {"value", "n", "seed", "better"} <= set(entry) and entry["better"] in ("lower", "higher", "nearer")


def test_scores_refuse():
    law = Ring8()
    with pytest.raises(DataError, match=r"samples of ring8 need shape \(n, 2\) with n >= 2, got \(5, 3\)"):
        scores(law, torch.zeros(5, 3), seed=0)
    with pytest.raises(NonFiniteError, match="1 of 5 samples hold NaN"):
        scores(law, torch.tensor([[0.0, 1.0]] * 4 + [[0.0, math.nan]]), seed=0)
    with pytest.raises(ValueError, match=r"one number per point: \(10000,\), got \(10000, 2\)"):
        scores(law, law.held_out(5).x, seed=0, model_log_prob=lambda x: x)


# -- T on held-out data -----------------------------------------------------------------------------------------------


def test_the_held_out_value_is_that_of_the_averaged_weights():
    small = ["loop.rounds=3", "loop.batch_size=16", "progress=false", "device=cpu", "players.theta.ema=0.9"]
    assembly = assembly_of(compose("fgan", small))
    theta = assembly.train().player("theta")
    first = held_out_value(assembly, 50, 0)["value"]
    last, average = copy.deepcopy(theta.module.state_dict()), copy.deepcopy(theta.averaged.state_dict())
    theta.average = None
    theta.module.load_state_dict(average)
    assert held_out_value(assembly, 50, 0)["value"] == first
    theta.module.load_state_dict(last)
    assert held_out_value(assembly, 50, 0)["value"] != first


def clouds(auxiliary: Dual) -> tuple[StandardEquation, Particles, Particles]:
    """An equation of KL with forty examples of data and forty particles, in float64."""
    critic = MLPCritic((2,), width=8).double()
    equation = StandardEquation(model=Affine((2,)), divergence=KL(), auxiliary=auxiliary, metric=Metric(critic))
    x, y = torch.randn(2, 40, 2, generator=draw(0), dtype=F64)
    return equation, Particles(x), Particles(y + 1)


def test_the_standard_error_is_that_of_a_mean_over_examples():
    """T = E v - E (e^v - 1): two independent means, whose variances add up."""
    equation, data, p = clouds(Dual())
    with torch.no_grad():
        v, u = equation.metric(data.x), equation.metric(p.x).exp()
        value, error = value_and_error(equation, Moons(), data, p, {})
    assert value == pytest.approx(float(v.mean() - (u - 1).mean()), abs=1e-14)  # forty numbers of order one
    assert error == pytest.approx(float((v.var() / 40 + u.var() / 40).sqrt()), rel=1e-12)


def test_the_standard_error_of_what_is_no_mean_is_that_of_ten_parts():
    """T = E v - log E e^v, over every tenth example: each belongs to one part."""
    equation, data, p = clouds(Dual(normalised=True))
    with torch.no_grad():
        v, w = equation.metric(data.x), equation.metric(p.x)
        error = value_and_error(equation, Moons(), data, p, {})[1]
    parts = torch.stack([v[i::10].mean() - w[i::10].logsumexp(0) + math.log(4) for i in range(10)])
    assert error == pytest.approx(float(parts.std() / 10**0.5), rel=1e-12)


# -- Frechet ----------------------------------------------------------------------------------------------------------


def test_frechet_closed_forms():
    eye = torch.eye(3, dtype=F64)
    zero = torch.zeros(3, dtype=F64)
    shift = torch.tensor([1.0, 2.0, -2.0], dtype=F64)
    assert fr.gaussian_frechet(zero, eye, shift, eye) == pytest.approx(9, abs=1e-12)
    # Covariances that commute: the sum of squared differences of deviations; zeros are allowed.
    a, b = torch.tensor([4.0, 0.0, 1.0], dtype=F64), torch.tensor([1.0, 9.0, 0.0], dtype=F64)
    assert fr.gaussian_frechet(zero, a.diag(), zero, b.diag()) == pytest.approx(1 + 9 + 1, abs=1e-12)
    turn = torch.linalg.qr(torch.randn((3, 3), generator=draw(0), dtype=F64))[0]
    turned = fr.gaussian_frechet(zero, turn @ a.diag() @ turn.T, zero, turn @ b.diag() @ turn.T)
    assert turned == pytest.approx(11, abs=1e-6)
    assert fr.gaussian_frechet(shift, a.diag(), shift, a.diag()) == pytest.approx(0, abs=1e-12)


def test_frechet_of_covariances_that_do_not_commute():
    # In two dimensions tr (S1 S2)^(1/2) = sqrt(tr(S1 S2) + 2 sqrt(det S1 det S2)).
    s1 = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=F64)
    s2 = torch.tensor([[1.0, -0.5], [-0.5, 0.5]], dtype=F64)
    cross = math.sqrt(float((s1 @ s2).trace()) + 2 * math.sqrt(float(s1.det() * s2.det())))
    zero = torch.zeros(2, dtype=F64)
    expected = float(s1.trace() + s2.trace()) - 2 * cross
    assert fr.gaussian_frechet(zero, s1, zero, s2) == pytest.approx(expected, abs=1e-12)
    # Samples are carried to exactly these moments, so their distance is the closed form, without sampling error.
    z = torch.randn((500, 2), generator=draw(0), dtype=F64)
    z = (z - z.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(z.T))).T
    x, y = (z @ torch.linalg.cholesky(s).T for s in (s1, s2))
    assert fr.frechet_distance(x + 3, y) == pytest.approx(expected + 18, abs=1e-10)


def test_frechet_refuses():
    with pytest.raises(ValueError, match="at least 2 points, got 1"):
        fr.frechet_distance(torch.zeros(1, 2), torch.zeros(5, 2))
    with pytest.raises(NonFiniteError, match="no Frechet distance"):
        fr.frechet_distance(torch.full((5, 2), math.nan), torch.zeros(5, 2))


def test_digit_references():
    assert fr.classifier().accuracy >= 0.97
    known = fr.references()
    few = fr.references(200)
    assert all(few[name] > known[name] for name in known)  # the covariance of few points is further from the law's
    assert 0 < known["real_vs_real"] < known["gaussian_mixture"] < known["gaussian"]
    data = fr.digits()
    assert fr.frechet(data.to_user(data.rest)) == pytest.approx(0, abs=1e-6)
    assert fr.features(data.to_user(data.rest[:5])).shape == (5, 64)


def test_digit_scores():
    data = Digits()
    found = scores(data, data.to_user(data.train), seed=0)
    assert found["frechet"]["value"] == pytest.approx(fr.references()["real_vs_real"], abs=1e-9)
    assert found["nearest_train"]["value"] == 0 and found["nearest_train"]["references"]["real"] > 10
    assert set(found) == {"w2", "sliced_w2", "frechet", "nearest_train"}
    index = fr.nearest_train(data.to_user(data.train[:9]) + 0.1)[1]
    assert index.tolist() == list(range(9))


# -- densities of digits ----------------------------------------------------------------------------------------------


@pytest.fixture
def few_densities(monkeypatch):
    for name, value in {"MARGINS": (3e-3,), "COMPONENTS": (5,), "LOGIT_RIDGES": (0.3,), "DRAWS": 1}.items():
        monkeypatch.setattr(densities, name, value)
    densities.references.cache_clear()
    yield densities.references()
    densities.references.cache_clear()


def test_reference_densities_of_digits(few_densities):
    found = few_densities
    assert set(found) == {"gaussian", "gaussian_logit", "mixture", "mixture_logit"}
    assert found["mixture"] < found["gaussian"] < 0 and found["mixture_logit"] < found["gaussian_logit"] < -75
    # The Gaussian of logits by hand: moments, Cholesky, change of variables.
    data = DequantizedDigits()
    train, rest = data.batch(0, 1257, 0).x.double(), data.rest

    def logit(x):
        return torch.logit(3e-3 + (1 - 6e-3) * x)

    y = logit(train)
    covariance = torch.cov(y.T, correction=0) + 0.3 * torch.eye(64, dtype=F64)
    normal = torch.distributions.MultivariateNormal(y.mean(0), covariance)
    x = rest.clone().requires_grad_()
    slope = torch.autograd.grad(logit(x).sum(), x)[0]
    log_p = normal.log_prob(logit(rest)) + slope.log().sum(1)
    assert found["gaussian_logit"] == pytest.approx(-float(log_p.mean()), abs=1e-6)


def test_likelihood_of_digits_stands_beside_its_references(few_densities):
    data = DequantizedDigits()
    entry = scores(data, data.held_out(50).x, seed=0, model_log_prob=lambda x: torch.zeros(len(x)))["nll"]
    # The uniform law on the cube has density one.
    assert entry["value"] == 0 and entry["n"] == 540 and entry["references"] == few_densities


# -- pictures ---------------------------------------------------------------------------------------------------------


def check_png(path):
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) < 150_000


@pytest.fixture
def no_pyplot(monkeypatch):
    # None makes an import of pyplot fail.
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)


def test_pictures(tmp_path, no_pyplot):
    file = tmp_path / "picture.png"
    line, plane = GaussianMixture1d(), Moons()
    picture(line, line.held_out(5_000, 1).x, file, model_log_prob=line.log_prob, note="a warning")
    check_png(file)
    x = plane.held_out(5_000, 1).x
    x[0], x[1, 0] = 1e9, math.nan
    picture(plane, x, file, title="moons")
    check_png(file)
    for shape in [(1,), (5,), (3, 4, 4)]:
        rows = torch.rand((80, *shape), generator=draw(0))
        data = TensorData(rows, standardize=True)
        picture(data, rows, file)
        check_png(file)
        picture(data, torch.full_like(rows, math.nan), file)
        check_png(file)
    data = fr.digits()
    picture(data, data.to_user(data.train), file)
    check_png(file)


def test_image_grid_places_pixels():
    images = torch.arange(2 * 6, dtype=F64).view(2, 6)
    grid = image_grid(images, (2, 3), 0.0, 11.0)
    assert grid.shape == (8 * 3 + 1, 8 * 4 + 1, 3)
    assert grid[1:3, 1:4, 0].flatten().tolist() == pytest.approx([i / 11 for i in range(6)])
    assert grid[1:3, 5:8, 2].flatten().tolist() == pytest.approx([i / 11 for i in range(6, 12)])
    assert (grid[0] == 1).all() and (grid[:, 4] == 1).all() and (grid[4:] == 1).all()
    colour = image_grid(torch.tensor([[0.0, 0.5, 1.0]]), (3, 1, 1), 0.0, 1.0)
    assert colour[1, 1].tolist() == [0, 0.5, 1]


def test_curves(tmp_path, no_pyplot):
    table, file = tmp_path / "metrics.csv", tmp_path / "curves.png"
    lines = ["round,seconds,phase,L,w2,huge"]
    for i in range(40):
        lines.append(f"{i},{i / 9},train,{'nan' if i % 7 == 3 else i * 0.1},{'' if i % 10 else i},{10.0**i}")
    lines.append("40,4")  # cut short by a crash
    table.write_text("\n".join(lines))
    curves(table, file, note="a warning")
    check_png(file)
    for content in ("round,L\n", "", "round,L\n0,nan\n1,inf\n"):
        table.write_text(content)
        curves(table, file)
        check_png(file)
    table.write_text("step,L\n0,1\n")
    with pytest.raises(RunDirectoryError, match="no column 'round'"):
        curves(table, file)
    with pytest.raises(RunDirectoryError, match="cannot be read .* train first"):
        curves(tmp_path / "missing.csv", file)
