"""The minimum over q with p's margin of x: by loops over all pairs, by enumeration, by quadrature."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

import se_framework as se
from divergences import KL, JensenShannon, Pearson, Renyi, TotalVariation, Wasserstein1
from models import Critic, Given, MLPCritic, MLPGenerator, Particles, SeparableCritic
from se_framework.data import CorrelatedGaussians, Paired, TwoSamples
from se_framework.data.pairs import Product
from se_framework.equation.auxiliary import Conditional, Dual, InnerProblem
from se_framework.errors import ConfigError, IncompatibleError
from se_framework.evaluation.held_out import held_out_value, tails
from tests.support.oracles import EPS, z_score

DEFAULT_DTYPE = torch.float64
WORDS = ["experiment=mutual_information", "auxiliary=dual_conditional", "progress=false", "device=cpu"]


class Pairwise(Critic):
    """a x y + b x^2 + c y, a critic of pairs of numbers."""

    row_wise = True

    def __init__(self, a=0.8, b=0.0, c=0.0):
        super().__init__((2,))
        self.coefficients = torch.nn.Parameter(torch.tensor([a, b, c]))

    def score(self, x, context=None):
        a, b, c = self.coefficients
        return a * x[:, 0] * x[:, 1] + b * x[:, 0].square() + c * x[:, 1]


class Best(Critic):
    """The log-ratio of correlated Gaussians."""

    def __init__(self, data):
        super().__init__(data.event_shape)
        self.data = data
        self.unmoved = torch.nn.Parameter(torch.zeros(()))

    def score(self, x, context=None):
        return self.data.log_ratio(x) + 0 * self.unmoved


class Table(Pairwise):
    """A number for every pair of letters."""

    def __init__(self, scores):
        super().__init__()
        self.register_buffer("scores", torch.tensor(scores))

    def score(self, x, context=None):
        return self.scores[x[:, 0].long(), x[:, 1].long()] + 0 * self.coefficients.sum()


def rows(n, d=2, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def given(first=1, d=2):
    return Given((d,), Product(rows(9, d), rows(8, d), first))


def equation(network=None, divergence=None, candidates=64, model=None, **more):
    return se.StandardEquation(
        model=model or given(), divergence=divergence or KL(), auxiliary=Conditional(candidates),
        metric=se.Metric(network or Pairwise()), **more,
    )  # fmt: skip


def value(built, x, log_weights=None):
    return built.scalar(Particles(x, log_weights), Particles(x)).detach()


def by_loops(x, sizes, score):
    """The mean over all rows of v(x_i, y_i) - log mean_j e^v(x_i, y_j), j in the group of i."""
    total, start = 0.0, 0
    for size in sizes:
        group = x[start : start + size]
        for i in range(size):
            across = [score(float(group[i, 0]), float(group[j, 1])) for j in range(size)]
            total += across[i] - math.log(sum(math.exp(v) for v in across) / size)
        start += size
    assert start == len(x)
    return total / len(x)


@pytest.mark.parametrize(("n", "candidates", "sizes"), [(6, 64, [6]), (10, 3, [4, 3, 3]), (8, 4, [4, 4]), (7, 4, [7])])
def test_the_value_is_that_of_loops_over_all_pairs(n, candidates, sizes):
    x = rows(n)
    want = by_loops(x, sizes, lambda a, b: 0.8 * a * b - 0.3 * a * a + 0.5 * b)
    found = value(equation(Pairwise(0.8, -0.3, 0.5), candidates=candidates), x)
    assert float(found) == pytest.approx(want, abs=100 * n * EPS)


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_beta_weighs_d_and_f_is_beta_times_the_link(beta):
    x = rows(6)
    one, other = equation(), equation(beta=beta)
    assert float(value(other, x)) == pytest.approx(beta * float(value(one, x)), abs=1e-13)
    terms = other.terms(Particles(x), Particles(x))
    assert terms.total == pytest.approx(beta * terms.divergence - terms.f_q + terms.f_data, abs=1e-13)
    assert terms.total == pytest.approx(float(value(other, x)), abs=1e-13) and terms.entropy is None


def test_weights_are_repeated_rows():
    x, times = rows(3), [2, 1, 3]
    repeated = x.repeat_interleave(torch.tensor(times), 0)
    weighted = value(equation(candidates=2), x, (torch.tensor(times) / 6).log())
    assert float(weighted) == pytest.approx(float(value(equation(), repeated)), abs=1e-13)


@pytest.mark.parametrize("divergence", [KL(), JensenShannon(), Pearson(), TotalVariation()])
def test_the_laws_of_a_q_step_hold(divergence):
    se.check_auxiliary(Conditional(), divergence)


@pytest.mark.parametrize("size", [2, 8])
def test_the_value_is_at_most_the_logarithm_of_the_group_s_size_and_comes_near_it(size):
    x = torch.stack([torch.linspace(-1, 1, size)] * 2, 1)
    sharp = Pairwise(200 * size**2, -100 * size**2)  # with v(y) left out: -100 s^2 (x - y)^2 but for a term in y
    for seed in range(20):
        wild = Pairwise(*(30 * rows(1, 3, seed)[0]).tolist())
        assert float(value(equation(wild, candidates=size), rows(3 * size, seed=seed))) <= math.log(size) + 1e-12

    class Near(Pairwise):
        def score(self, x, context=None):
            return -1e4 * (x[:, 0] - x[:, 1]).square() + 0 * self.coefficients.sum()

    assert float(value(equation(Near()), x)) == pytest.approx(math.log(size), abs=1e-12)
    assert float(value(equation(sharp), x)) <= math.log(size) + 1e-12


@pytest.mark.parametrize("size", [2, 3])
def test_its_expectation_is_below_the_mutual_information_whatever_the_critic(size):
    """All samples of a group from a joint law of two letters each, by enumeration."""
    joint = np.array([[0.4, 0.1], [0.2, 0.3]])
    product = joint.sum(1, keepdims=True) * joint.sum(0)
    information = float((joint * np.log(joint / product)).sum())
    letters = list(itertools.product(range(2), range(2)))
    samples = list(itertools.product(letters, repeat=size))
    weights = [math.prod(joint[a, b] for a, b in sample) for sample in samples]
    critics = [np.log(joint / product), *np.random.default_rng(0).normal(size=(3, 2, 2))]
    for k, table in enumerate(critics):
        built = equation(Table(table))
        found = [float(value(built, torch.tensor(sample, dtype=torch.float64))) for sample in samples]
        mean = sum(w * v for w, v in zip(weights, found, strict=True))
        assert mean < information
        if k == 0:  # half of the way and more at the log-ratio: not a bound that says nothing
            assert mean > 0.4 * information


def expected(rho, information, points=40):
    """E of a group of two at the log-ratio, d = 1, by quadrature over x and both y."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(points)
    weights = weights / weights.sum()
    x, e, other = np.meshgrid(nodes, nodes, nodes, indexing="ij")
    w = weights[:, None, None] * weights[None, :, None] * weights[None, None, :]
    y = rho * x + math.sqrt(1 - rho**2) * e

    def ratio(y):
        return information - (rho**2 * (x**2 + y**2) - 2 * rho * x * y) / (2 * (1 - rho**2))

    return float((w * -np.log((1 + np.exp(ratio(other) - ratio(y))) / 2)).sum())


def test_at_the_best_critic_it_is_what_quadrature_says():
    data = CorrelatedGaussians(1, 0.3)
    want = expected(data.rho, 0.3)
    assert want == pytest.approx(expected(data.rho, 0.3, 60), abs=1e-7)  # the rule has converged
    model = Given(data.event_shape, data.reference)
    assembly = se.compose(None, [*WORDS, "data.dimension=1", "data.information=0.3", "auxiliary.candidates=2"])
    built = equation(Best(data), candidates=2, model=model)
    assembly.state.equation.metric = built.metric
    found = held_out_value(assembly, 3_000, seed=3)
    assert abs(found["value"] - want) < z_score() * 1.5 * found["se"] and found["se"] < 0.02  # t of 9 degrees
    assert found["bound"].endswith("at most beta 0.6931, with 2 candidates")


@pytest.mark.parametrize("make", [lambda: MLPCritic((3,), width=5, activation="silu"),
                                  lambda: SeparableCritic((3,), 1, outputs=2, width=5, activation="silu")])  # fmt: skip
@pytest.mark.parametrize("divergence", [KL(), JensenShannon()])
def test_slopes_are_those_of_difference_quotients(make, divergence):
    torch.manual_seed(0)
    built, x = equation(make(), divergence, candidates=4, model=given(d=3)), rows(9, 3)
    parameters = list(built.metric.parameters())
    for p in parameters:  # as they are drawn, scores are nearly even
        p.data *= 2.5
    slopes = torch.autograd.grad(built.scalar(Particles(x), Particles(x)), parameters)
    directions = [torch.randn_like(p) for p in parameters]
    got = sum(float((s * d).sum()) for s, d in zip(slopes, directions, strict=True))
    step, sides = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p += sign * step * d
            sides.append(float(value(built, x)))
            for p, d in zip(parameters, directions, strict=True):
                p -= sign * step * d
    # h^2 times a third derivative of the size of one, and rounding of eps / h
    assert got == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-8) and abs(got) > 1e-3


def test_a_function_of_x_alone_is_free():
    x, plain, shifted = rows(6), equation(Pairwise(0.8)), equation(Pairwise(0.8, 5.0))
    assert float(value(plain, x)) == pytest.approx(float(value(shifted, x)), abs=1e-12)
    data, p = Particles(x), Particles(rows(5, seed=1))
    ratios = [built.log_ratio(p.x, data, p) for built in (plain, shifted)]
    torch.testing.assert_close(*ratios, atol=1e-12, rtol=0)
    for point, ratio in zip(p.x.tolist(), ratios[0].tolist(), strict=True):
        across = [0.8 * point[0] * float(y) for y in x[:, 1]]
        want = 0.8 * point[0] * point[1] - math.log(sum(map(math.exp, across)) / len(across))
        assert ratio == pytest.approx(want, abs=1e-13)
    q = plain.auxiliary.q(plain.inner_problem(data, p))
    torch.testing.assert_close(q.log_weights, ratios[0].log_softmax(0), atol=1e-13, rtol=0)


def test_p_of_the_log_ratio_are_the_first_candidates():
    x, point = rows(8), rows(2, seed=1)
    few, fewer = equation(candidates=3), equation()
    p, three = Particles(point), Particles(x[:3])
    want = fewer.log_ratio(point, three, p)
    torch.testing.assert_close(few.log_ratio(point, Particles(x), p), want, atol=1e-13, rtol=0)


def test_a_separable_critic_scores_all_pairs_at_once():
    torch.manual_seed(1)
    network = SeparableCritic((5,), 2, outputs=3, width=4)
    x, y = rows(3, 5), rows(4, 5, 1)
    one_by_one = torch.stack([network(torch.cat([a[:2], b[2:]])[None])[0] for a in x for b in y]).view(3, 4)
    torch.testing.assert_close(network.on_pairs(x, y), one_by_one, atol=1e-13, rtol=0)
    built = equation(network, model=given(2, 5))
    at_once = float(value(built, x))
    seen = []

    def slowly(points):
        seen.append(len(points))
        return network(points)

    problem = built.inner_problem(Particles(x), Particles(x))
    minimum = built.auxiliary.minimum(problem._replace(metric=slowly))
    assert seen == [9] and float((minimum + built.f(problem.v_data).mean()).detach()) == pytest.approx(
        at_once, abs=1e-12
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: equation(model=MLPGenerator((2,))), "p is no product of the margins of pairs of data"),
        (lambda: equation(divergence=Renyi(0.5)), "Renyi is no mean over x"),
        (lambda: equation(divergence=Wasserstein1(), allow=["lipschitz"]), "Wasserstein1 is no mean over x"),
        (lambda: equation(alpha=0.1), "the minimum over q at alpha = 0"),
        (lambda: Conditional(1), "auxiliary.candidates=1.*give at least 2"),
    ],
)
def test_where_no_margin_is_kept_it_is_refused(make, message):
    with pytest.raises((IncompatibleError, ConfigError), match=message):
        make()


def test_a_configuration_is_refused_by_what_data_and_model_declare(tmp_path):
    np.save(tmp_path / "x.npy", rows(60, 3).numpy())
    file = f"data.path={tmp_path}/x.npy"
    pairs = ["data=paired", file, "data.first=1", "loop.batch_size=8"]
    two = ["loop.batch_size=8", "data=two_samples", file, f"data.against={tmp_path}/x.npy"]
    with pytest.raises(IncompatibleError, match=r"Conditional takes q\(y \| x\).*pairs of data: add auxiliary=dual"):
        se.compose(None, [*WORDS, *two])
    with pytest.raises(IncompatibleError, match=r"Conditional takes q\(y \| x\)"):
        se.compose(None, [*WORDS, *pairs, "model=mlp_generator"])
    with pytest.raises(IncompatibleError, match=r"scores pairs \(x, y\), and the data .*: add metric="):
        se.compose(None, ["experiment=vanilla_gan", "metric=separable"]).state  # noqa: B018
    built = se.compose(None, [*WORDS, *pairs, "metric=separable"])
    assert built.equation.model.pairs == built.equation.metric.network.first == 1
    assert Paired(tmp_path / "x.npy", 2).reference.first == 2
    assert Given((3,), TwoSamples(tmp_path / "x.npy", tmp_path / "x.npy").reference).pairs is None


def test_critics_of_no_pairs_are_refused():
    for shape, first in (((3,), None), ((3,), 3), ((3,), 0), ((1, 3), 1)):
        with pytest.raises(ValueError, match="give the number of coordinates of x"):
            SeparableCritic(shape, first)


def test_members_of_an_ensemble_train_as_alone():
    words = [*WORDS, "data.dimension=2", "loop.rounds=3", "loop.batch_size=9", "auxiliary.candidates=4",
             "metric.network.width=8", "loop.log_every=1"]  # fmt: skip
    together = se.compose(None, [*words, "ensemble.size=2"])
    together.train()
    for k, member in enumerate(together.members):
        alone = se.compose(None, [*words, f"seed={k}"])
        alone.train()
        x = Particles(alone.data.held_out(12).x)
        ours, theirs = (float(value(one.equation, x.x)) for one in (alone, member))
        assert ours == pytest.approx(theirs, abs=1e-9)


def test_its_error_holds_however_uneven_the_scores_are():
    """Every x has its own normaliser, so p's particles do not weigh: the dual over them warns at the same scores."""
    x, p = Particles(rows(50)), Particles(rows(50, seed=1))
    with torch.no_grad():
        assert tails(equation(Pairwise(30.0)), x, p, {}) == (50.0, True)
    whole = se.StandardEquation(model=given(), divergence=KL(), auxiliary=Dual(), metric=se.Metric(Pairwise(30.0)))
    with torch.no_grad():
        size, holds = tails(whole, x, p, {})
    assert size < 5 and not holds


def test_what_is_said_of_the_value():
    kl, js, pearson = (Conditional(8).meaning(d, None, 0.0) for d in (KL(), JensenShannon(), Pearson()))
    assert kl == "lower bound of beta KL(p_d, p_theta); at most beta 2.079, with 8 candidates"  # log 8
    assert "biased by sampling" in js and "biased by sampling" in pearson
    # Of one letter against eight: Pearson is 8 - 1, JS by its integral
    js_most = 0.5 * math.log(2 / (1 + 1 / 8)) + 0.5 * (1 / 8 * math.log(2 / 9) + 7 / 8 * math.log(2))
    assert pearson.endswith("at most beta 7, with 8 candidates") and f"at most beta {js_most:.4g}" in js


def test_a_problem_without_a_metric_is_named():
    data = Particles(rows(3))
    problem = InnerProblem(None, None, data, data, given(), KL(), 0.0, 1.0)
    with pytest.raises(IncompatibleError, match="pairs .*of data: data=paired"):
        Conditional().minimum(problem)
