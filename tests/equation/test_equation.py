"""The equation: biconjugation, the inner minimum, Danskin's gradient, signs, records, penalties, legality."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from divergences import GAN, KL, CrossEntropy, JensenShannon, Pearson, ReverseKL, Sinkhorn, Wasserstein1
from models import Affine, GroupSortCritic, MLPCritic, MLPGenerator, TabularCritic, TabularModel
from models.base import Model
from models.laws import Particles, Weighted
from se_framework.equation.auxiliary import Auxiliary, Dual, Empirical, Tilted
from se_framework.equation.equation import StandardEquation, Terms
from se_framework.equation.metric import Metric
from se_framework.equation.penalties import Penalty
from se_framework.errors import IncompatibleError
from tests.support.cases import AUXILIARIES, DIVERGENCES, F_DIVERGENCES, NAMED_F_DIVERGENCES, PENALTIES, leaves
from tests.support.oracles import (
    EPS,
    GENERATORS,
    central_difference,
    conjugate_by_search,
    directional,
    divergence,
    entropy,
    gaussian_pair,
    letters,
    probability_conjugate_by_search,
    simplex,
    tilted_gaussian,
)

DEFAULT_DTYPE = torch.float64
K = 6
named_case = pytest.mark.parametrize("name", NAMED_F_DIVERGENCES)
both_duals = pytest.mark.parametrize("normalised", [False, True], ids=["unnormalised", "probability"])
f_dual_case = pytest.mark.parametrize(("name", "normalised"), [(n, k) for n in F_DIVERGENCES for k in (False, True)])
betas = pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
tilted_case = pytest.mark.parametrize(("name", "c"), [("kl", 1.0), ("cross_entropy", 0.0)])
weights_case = pytest.mark.parametrize(("alpha", "beta"), [(0.5, 1.0), (1.0, 1.0), (2.0, 0.3), (0.2, 3.0)])


def finite(d, auxiliary, p, alpha=0.0, beta=1.0) -> StandardEquation:
    """The equation on an alphabet: p_theta = p, any critic, every expectation a finite sum."""
    model, critic = TabularModel(letters=len(p)), TabularCritic(letters=len(p))
    with torch.no_grad():
        model.logits.copy_(torch.as_tensor(np.log(p)))
    metric = Metric(critic) if auxiliary.uses_metric else None
    return StandardEquation(model=model, divergence=d, auxiliary=auxiliary, metric=metric, alpha=alpha, beta=beta)


def value(equation: StandardEquation, pd, scores=None) -> torch.Tensor:
    """The scalar at given scores of the letters."""
    if scores is not None:
        with torch.no_grad():
            equation.metric.network.scores.copy_(torch.as_tensor(scores))
    return equation.scalar(letters(pd), equation.sample(0))


def record(equation: StandardEquation, pd) -> Terms:
    return equation.terms(letters(pd), equation.sample(0))


def laws(seed: int) -> tuple[np.ndarray, np.ndarray]:
    return simplex(K, seed), simplex(K, seed + 31)


def test_tables_are_complete():
    assert leaves(Auxiliary, "se_framework.") == {type(make()) for make in AUXILIARIES.values()}
    assert leaves(Penalty, "se_framework.") == {type(make()) for make in PENALTIES.values()}


# -- biconjugation ----------------------------------------------------------------------------------------------------


@f_dual_case
@betas
def test_biconjugation_of_f_divergences(name, normalised, beta):
    r"""max_f min_q T = beta D(p_d, p): attained at v = log(p_d/p), stationary there, and never beaten."""
    d = F_DIVERGENCES[name]()
    for seed in range(2 if normalised else 3):
        pd, p = laws(seed)
        equation = finite(d, Dual(normalised), p, beta=beta)
        exact, best = beta * divergence(name, pd, p), np.log(pd / p)
        at_best = value(equation, pd, best)
        t_size = 1 + float(d.link(torch.as_tensor(best)).abs().max())
        assert float(at_best.detach()) == pytest.approx(exact, abs=1e-12 * t_size)
        (gradient,) = torch.autograd.grad(at_best, equation.metric.network.scores)
        assert gradient.abs().max() < 1e-9 * t_size  # the multiplier of the probability dual is known to 1e-15 t/t'
        random = np.random.default_rng(seed)
        for scale in (1e-3, 0.1, 1.0, 3.0):
            for _ in range(1 if normalised else 3):
                v = np.clip(best + scale * random.standard_normal(K), -15, 15)
                other = value(equation, pd, v)
                allowed = 1e-12 * (
                    1 + float(d.link(torch.as_tensor(v)).abs().max() + d.conjugate(torch.as_tensor(v)).abs().max())
                )
                assert float(other.detach()) <= exact + allowed
                assert float(other.detach()) < exact or scale < 1


@tilted_case
@weights_case
def test_biconjugation_of_the_tilted_form(name, c, alpha, beta):
    r"""At f* = grad of -alpha H + beta D at p_d the value is -alpha H(p_d) + beta D(p_d, p), and no f beats it."""
    for seed in range(3):
        pd, p = laws(seed)
        equation = finite(DIVERGENCES[name](), Tilted(), p, alpha, beta)
        kl = divergence("kl", pd, p)
        exact = -alpha * entropy(pd) + beta * (kl if c else kl + entropy(pd))
        best = (alpha + c * beta) * np.log(pd) - beta * np.log(p)
        at_best = value(equation, pd, best + 0.7)  # constants in f cancel
        assert float(at_best.detach()) == pytest.approx(exact, abs=1e-12)
        (gradient,) = torch.autograd.grad(at_best, equation.metric.network.scores)
        assert gradient.abs().max() < 1e-13
        terms = record(equation, pd)
        assert terms.entropy == pytest.approx(entropy(pd), abs=1e-12)  # q* is the data there
        assert terms.divergence == pytest.approx(kl if c else kl + entropy(pd), abs=1e-12)
        random = np.random.default_rng(seed)
        for scale in (1e-3, 0.1, 1.0, 5.0):
            assert float(value(equation, pd, best + scale * random.standard_normal(K)).detach()) <= exact + 1e-12


# -- the inner minimum ------------------------------------------------------------------------------------------------


@f_dual_case
@betas
def test_minimum_over_q_equals_the_search(name, normalised, beta):
    d = F_DIVERGENCES[name]()
    pd, p = laws(3)
    equation = finite(d, Dual(normalised), p, beta=beta)
    v = np.random.default_rng(5).standard_normal(K)
    got = float(value(equation, pd, v).detach())
    t = d.link(torch.as_tensor(v)).numpy()
    star = probability_conjugate_by_search(name, t, p)[0] if normalised else conjugate_by_search(name, t, p)
    assert got == pytest.approx(beta * (float(pd @ t) - star), abs=1e-7 * (1 + np.abs(t).max()))


@tilted_case
@weights_case
def test_tilted_minimum_is_below_every_q(name, c, alpha, beta):
    pd, p = laws(1)
    f = np.random.default_rng(2).standard_normal(K)
    equation = finite(DIVERGENCES[name](), Tilted(), p, alpha, beta)
    minimum = float(value(equation, pd, f).detach() - torch.as_tensor(pd @ f))

    def objective(q):
        kl = divergence("kl", q, p)
        return -alpha * entropy(q) + beta * (kl if c else kl + entropy(q)) - q @ f

    tau = alpha + c * beta
    q = np.exp((beta * np.log(p) + f) / tau)
    assert minimum == pytest.approx(objective(q / q.sum()), abs=1e-12)
    for seed in range(20):
        assert minimum <= objective(simplex(K, seed, 1.0)) + 1e-12
    terms = record(equation, pd)
    assert -alpha * terms.entropy + beta * terms.divergence - terms.f_q == pytest.approx(minimum, abs=1e-12)


class QuadratureGaussian(Model):
    """N(mean, scale^2) as weighted nodes with its true log-density."""

    has_log_prob, has_rsample = True, False

    def __init__(self, mean: float, scale: float, nodes: torch.Tensor) -> None:
        super().__init__((1,))
        self.mean, self.log_scale = nn.Parameter(torch.tensor(mean)), nn.Parameter(torch.tensor(scale).log())
        self.register_buffer("nodes", nodes)

    def forward(self, context=None) -> Weighted:
        law = torch.distributions.Normal(self.mean, self.log_scale.exp())
        log_density = law.log_prob(self.nodes)
        return Weighted(self.nodes[:, None], log_density.log_softmax(0), log_density)


class Quadratic(nn.Module):
    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(a)), nn.Parameter(torch.tensor(b))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a * x[:, 0] - self.b * x[:, 0].square() / 2


@tilted_case
@weights_case
def test_tilted_gaussian(name, c, alpha, beta):
    mu, s, a, b = 0.4, 1.3, 0.8, 0.5
    exact = tilted_gaussian(mu, s, a, b, alpha, beta, c)
    reach = 14 * max(s, exact.variance**0.5)
    nodes = torch.linspace(-reach, reach, 8001)
    data = Particles(torch.tensor([[0.3], [-1.2], [2.0]]))

    def equation_at(mu, s):
        return StandardEquation(
            model=QuadratureGaussian(mu, s, nodes), divergence=DIVERGENCES[name](), auxiliary=Tilted(),
            metric=Metric(Quadratic(a, b)), alpha=alpha, beta=beta,
        )  # fmt: skip

    equation = equation_at(mu, s)
    terms, f_data = equation.terms(data, equation.sample(0)), float(equation.metric(data.x).detach().mean())
    assert terms.entropy == pytest.approx(exact.entropy, abs=1e-6)
    assert terms.divergence == pytest.approx(exact.divergence, abs=1e-6)
    assert terms.f_q == pytest.approx(exact.f_q, abs=1e-6)
    assert terms.f_data == pytest.approx(f_data, abs=1e-12)
    assert terms.total == pytest.approx(exact.minimum + f_data, abs=1e-6)
    # E_q f = a m - b (v + m^2)/2 at two critics gives both moments; the gradients in (a, b) are they (Danskin).
    scalar = equation.scalar(data, equation.sample(0))
    d_a, d_b, d_mu, d_s = torch.autograd.grad(
        scalar, [*equation.metric.parameters(), equation.model.mean, equation.model.log_scale]
    )
    assert float(data.x.mean() - d_a) == pytest.approx(exact.mean, abs=1e-6)
    assert float(data.x.square().mean() + 2 * d_b) == pytest.approx(exact.variance + exact.mean**2, abs=1e-6)
    h = 1e-5
    by_mu = [tilted_gaussian(mu + e, s, a, b, alpha, beta, c).minimum for e in (-h, h)]
    by_s = [tilted_gaussian(mu, s * math.exp(e), a, b, alpha, beta, c).minimum for e in (-h, h)]
    assert float(d_mu) == pytest.approx((by_mu[1] - by_mu[0]) / (2 * h), abs=1e-6)
    assert float(d_s) == pytest.approx((by_s[1] - by_s[0]) / (2 * h), abs=1e-6)


def test_tilted_on_samples_of_a_flow():
    """Equal weights: a Gaussian given as quantiles, N points that are not weighted; the same closed form, to O(1/N)."""
    equation = StandardEquation(
        model=Affine((1,)), divergence=KL(), auxiliary=Tilted(), metric=Metric(Quadratic(0.5, 0.3)), alpha=0.4, beta=1.0
    )
    z = torch.special.ndtri((torch.arange(200_000) + 0.5) / 200_000)[:, None]
    data = Particles(torch.zeros(1, 1))
    terms = equation.terms(data, equation.particles({"model/noise": z}))
    x = equation.particles({"model/noise": z}).x
    exact = tilted_gaussian(float(x.mean().detach()), float(x.std().detach()), 0.5, 0.3, 0.4, 1.0, 1.0)
    for got, want in ((terms.entropy, exact.entropy), (terms.divergence, exact.divergence), (terms.f_q, exact.f_q)):
        assert got == pytest.approx(want, abs=2e-3)


# -- gradients --------------------------------------------------------------------------------------------------------


@f_dual_case
def test_theta_gradient_is_the_total_derivative(name, normalised):
    """Danskin: q re-solved at moved theta, against autograd that treats q as constant."""
    d = F_DIVERGENCES[name]()
    pd, p = laws(7)
    equation = finite(d, Dual(normalised), p, beta=1.5)
    v = 0.8 * np.random.default_rng(1).standard_normal(K)
    (gradient,) = torch.autograd.grad(value(equation, pd, v), equation.model.logits)
    t = d.link(torch.as_tensor(v)).numpy()

    def full(logits):  # by the oracles alone
        q = torch.softmax(logits, 0).numpy()
        if not normalised:
            return torch.tensor(-1.5 * conjugate_by_search(name, t, q))
        with torch.no_grad():
            equation.model.logits.copy_(logits)
        return value(equation, pd).detach()  # its value is checked against the search above

    e, numeric = directional(full, equation.model.logits.detach().clone(), step=1e-4)
    assert gradient.norm() > 1e-3
    torch.testing.assert_close(gradient @ e, numeric, rtol=1e-6, atol=1e-7 * (1 + float(np.abs(t).max())))


@tilted_case
@weights_case
def test_theta_gradient_of_the_tilted_form(name, c, alpha, beta):
    pd, p = laws(8)
    equation = finite(DIVERGENCES[name](), Tilted(), p, alpha, beta)
    f = np.random.default_rng(1).standard_normal(K)
    (gradient,) = torch.autograd.grad(value(equation, pd, f), equation.model.logits)
    tau = alpha + c * beta

    def full(logits):
        return -tau * torch.logsumexp((beta * logits.log_softmax(0) + torch.as_tensor(f)) / tau, 0)

    numeric = central_difference(full, equation.model.logits)
    torch.testing.assert_close(gradient, numeric, rtol=1e-7, atol=1e-9)


@f_dual_case
def test_theta_gradient_at_the_optimal_critic_is_that_of_the_divergence(name, normalised):
    pd, p = laws(9)
    equation = finite(F_DIVERGENCES[name](), Dual(normalised), p, beta=0.7)
    (gradient,) = torch.autograd.grad(value(equation, pd, np.log(pd / p)), equation.model.logits)

    def primal(logits):
        return torch.tensor(0.7 * divergence(name, pd, torch.softmax(logits, 0).numpy()))

    numeric = central_difference(primal, equation.model.logits.detach())
    # Difference quotients: step^2 D''' + eps D / step, sizes up to the largest ratio cubed.
    size = 1 + float((pd / p).max() + (p / pd).max()) ** 3
    torch.testing.assert_close(gradient, numeric, rtol=1e-7, atol=1e-10 * size + 1e-9)


@named_case
@both_duals
def test_signs(name, normalised):
    """phi ascends towards the data, theta descends towards high scores."""
    pd, p = laws(2)
    equation = finite(NAMED_F_DIVERGENCES[name](), Dual(normalised), p)
    (ascent,) = torch.autograd.grad(value(equation, pd, np.zeros(K)), equation.metric.network.scores)
    assert np.array_equal(np.sign(ascent.numpy()), np.sign(pd - p))
    v = np.zeros(K)
    v[2] = 0.5
    (slope,) = torch.autograd.grad(value(equation, pd, v), equation.model.logits)
    assert slope[2] < 0 and (slope[[0, 1, 3, 4, 5]] > 0).all()
    if name in ("kl", "gan", "reverse_kl"):  # raising f on data alone raises the scalar, by its weight in the data
        l_prime = {"kl": 1.0, "gan": 0.5, "reverse_kl": 1.0}[name]
        assert ascent.numpy() == pytest.approx(l_prime * (pd - p), abs=1e-9)


def test_a_view_changes_the_minimum_but_not_the_critic():
    pd, p = laws(4)
    equation = finite(GAN(), Dual(), p)
    with torch.no_grad():
        equation.metric.network.scores.copy_(torch.as_tensor(np.log(pd / p)))
    for name, make in NAMED_F_DIVERGENCES.items():
        seen = equation.scalar(letters(pd), equation.sample(0), make())
        assert float(seen.detach()) == pytest.approx(divergence(name, pd, p), abs=1e-12)


def test_wasserstein_scalar_is_a_difference_of_means():
    x, z = torch.randn(7, 2), torch.randn(5, 2)
    equation = StandardEquation(
        model=Affine((2,)), divergence=Wasserstein1(), auxiliary=Dual(), metric=Metric(GroupSortCritic((2,), width=8)),
        beta=3.0,
    )  # fmt: skip
    p = equation.particles({"model/noise": z})
    exact = 3 * (equation.metric(x).mean() - equation.metric(p.x).mean())
    torch.testing.assert_close(equation(x, z), exact, rtol=0, atol=1e-14)
    terms = equation.terms(Particles(x), p)
    assert terms.divergence == 0 and terms.f_data - terms.f_q == pytest.approx(float(exact.detach()), abs=1e-14)


# -- q is the data ----------------------------------------------------------------------------------------------------


def test_data_auxiliary_weighs_the_divergence_and_has_no_metric():
    pd, p = laws(5)
    equation = finite(CrossEntropy(), Empirical(), p, beta=2.5)
    scalar = equation.scalar(letters(pd), None)
    exact = 2.5 * (divergence("kl", pd, p) + entropy(pd))
    assert float(scalar.detach()) == pytest.approx(exact, abs=1e-12) and not equation.uses_samples
    (gradient,) = torch.autograd.grad(scalar, equation.model.logits)
    assert gradient.numpy() == pytest.approx(2.5 * (p - pd), abs=1e-12)
    assert equation.terms(letters(pd), None).as_dict() == {
        "D": pytest.approx(exact / 2.5), "total_up_to_const": pytest.approx(exact)
    }  # fmt: skip
    x, z = torch.randn(6, 2), torch.randn(4, 2)
    moved = StandardEquation(model=Affine((2,)), divergence=Sinkhorn(), auxiliary=Empirical(), beta=0.5)
    got, direct = moved(x, z), Sinkhorn().primal(Particles(x), None, moved.particles({"model/noise": z}))
    torch.testing.assert_close(got, 0.5 * direct, rtol=1e-12, atol=0)
    assert list(moved.terms(Particles(x), moved.particles({"model/noise": z})).as_dict()) == ["D", "total"]


# -- the record -------------------------------------------------------------------------------------------------------


@f_dual_case
@betas
def test_terms_add_up_to_the_scalar(name, normalised, beta):
    pd, p = laws(6)
    equation = finite(F_DIVERGENCES[name](), Dual(normalised), p, beta=beta)
    scalar = float(value(equation, pd, 1.5 * np.random.default_rng(3).standard_normal(K)).detach())
    terms = record(equation, pd)
    size = beta * abs(terms.divergence) + abs(terms.f_q) + abs(terms.f_data)
    assert terms.total == pytest.approx(scalar, abs=1e-12 * size)
    assert beta * terms.divergence - terms.f_q + terms.f_data == pytest.approx(scalar, abs=1e-12 * size)
    assert list(terms.as_dict()) == ["H_q", "D", "E_q_f", "E_pd_f", "total"] and terms.unrepresentable() == []


@both_duals
def test_entropy_of_q_under_the_dual(normalised):
    pd, p = laws(6)
    equation = finite(KL(), Dual(normalised), p)
    value(equation, pd, np.log(pd / p))
    assert record(equation, pd).entropy == pytest.approx(entropy(pd), abs=1e-12)


def test_entropy_where_q_vanishes():
    """Pearson's q over probabilities is cut off at zero: 0 log 0 is 0."""
    pd, p = simplex(4, 0), np.full(4, 0.25)
    equation = finite(Pearson(), Dual(normalised=True), p)
    value(equation, pd, [3.0, -20.0, -20.0, -20.0])
    terms = record(equation, pd)
    assert terms.entropy == pytest.approx(0.0, abs=1e-9) and terms.unrepresentable() == []


def test_terms_that_float64_cannot_hold_are_named():
    pd, p = laws(0)
    equation = finite(JensenShannon(), Dual(), p)
    scores = np.zeros(K)
    scores[0] = 800.0
    scalar = value(equation, pd, scores)
    terms = record(equation, pd)
    assert math.isfinite(scalar.detach()) and terms.total == pytest.approx(float(scalar.detach()), rel=1e-12)
    assert terms.unrepresentable() == ["H_q", "D", "E_q_f"]
    equation = finite(Pearson(), Dual(), p)
    assert not math.isfinite(value(equation, pd, scores).detach()) and "D" in record(equation, pd).unrepresentable()
    known = Terms(None, 1.0, None, None, 2.0, up_to_constant=True)
    assert known.as_dict() == {"D": 1.0, "total_up_to_const": 2.0}


def test_record_is_in_float64_for_a_float32_run():
    pd, p = laws(0)
    equation = finite(KL(), Dual(), p).float()
    data = Particles(torch.arange(K, dtype=torch.float32)[:, None], letters(pd).log_weights.float())
    v = np.full(K, 95.0)  # e^95 is no float32
    with torch.no_grad():
        equation.metric.network.scores.copy_(torch.as_tensor(v))
    terms = equation.terms(data, equation.sample(0))
    assert terms.unrepresentable() == [] and terms.divergence == pytest.approx(95 * math.exp(95), rel=1e-5)


# -- log-ratio --------------------------------------------------------------------------------------------------------


@named_case
@both_duals
def test_log_ratio_is_read_off_the_optimal_critic(name, normalised):
    """Under probability q the critic is free up to a constant in f, which the reading removes."""
    d = NAMED_F_DIVERGENCES[name]()
    pd, p = laws(3)
    best = torch.as_tensor(np.log(pd / p))
    equation = finite(d, Dual(normalised), p, beta=2.0)
    shift = (0.05 if math.isinf(d.supremum) else -0.05) * normalised  # away from the end of the link's range
    value(equation, pd, d.inverse_link(d.link(best) + shift))
    x = torch.arange(float(K))[:, None]
    got = equation.log_ratio(x, letters(pd), equation.sample(0)).detach()
    torch.testing.assert_close(got, best, rtol=0, atol=1e-7)


def test_log_ratio_of_the_tilted_form():
    pd, p = laws(3)
    equation = finite(KL(), Tilted(), p, alpha=0.5, beta=2.0)
    value(equation, pd, 2.5 * np.log(pd) - 2.0 * np.log(p) + 0.3)
    got = equation.log_ratio(torch.arange(float(K))[:, None], letters(pd), equation.sample(0)).detach().numpy()
    assert got == pytest.approx(np.log(pd / p), abs=1e-12)


def test_log_ratio_of_any_critic_under_the_probability_dual_of_kl():
    pd, p = laws(3)
    v = np.random.default_rng(0).standard_normal(K)
    equation = finite(KL(), Dual(normalised=True), p)
    value(equation, pd, v)
    got = equation.log_ratio(torch.arange(float(K))[:, None], letters(pd), equation.sample(0)).detach().numpy()
    assert got == pytest.approx(v - math.log(float(p @ np.exp(v))), abs=1e-12)


def test_log_ratio_is_refused_where_there_is_none():
    x, p = torch.zeros(2, 2), Particles(torch.zeros(2, 2))
    for metric, d in (
        (Metric(GroupSortCritic((2,), width=8)), Wasserstein1()),
        (Metric(GroupSortCritic((2,), width=8)), KL()),
    ):
        equation = StandardEquation(model=Affine((2,)), divergence=d, auxiliary=Dual(), metric=metric)
        with pytest.raises(IncompatibleError, match="log-ratio"):
            equation.log_ratio(x, p, p)
    plain = StandardEquation(model=Affine((2,)), divergence=CrossEntropy(), auxiliary=Empirical())
    with pytest.raises(IncompatibleError, match="no log-ratio: metric=NoneType, divergence=CrossEntropy"):
        plain.log_ratio(x, p, p)


# -- ensembles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NAMED_F_DIVERGENCES, "user"])
def test_vmap_over_stacked_members_equals_separate_calls(name):
    def member(seed):
        torch.manual_seed(seed)
        return StandardEquation(
            model=MLPGenerator((2,), latent_dim=3, width=8), divergence=DIVERGENCES[name](), auxiliary=Dual(),
            metric=Metric(MLPCritic((2,), width=8)),
        )  # fmt: skip

    members = [member(s) for s in (0, 1)]
    parameters, buffers = stack_module_state(members)
    x, noise = torch.randn(5, 2), torch.randn(2, 5, 3)

    def call(p, b, z):
        return functional_call(members[0], (p, b), (x, z))

    together = vmap(call)(parameters, buffers, noise)
    apart = torch.stack([m(x, z) for m, z in zip(members, noise, strict=True)])
    torch.testing.assert_close(together, apart, rtol=1e-12, atol=1e-12)
    slopes = vmap(torch.func.grad(call))(parameters, buffers, noise)
    own = torch.autograd.grad(apart[1], list(members[1].parameters()))
    for a, b in zip([slopes[k][1] for k, _ in members[1].named_parameters()], own, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


# -- metric and penalties ---------------------------------------------------------------------------------------------


def test_oracles_agree_with_each_other():
    """The integral and the generator of every row are the same divergence; Gaussian closed forms are its values."""
    for name, g in GENERATORS.items():
        q, p = laws(11)
        assert float((p * g.h(q / p, np)).sum()) == pytest.approx(divergence(name, q, p), abs=256 * EPS)
    rule = gaussian_pair(0, 1, 1, 1.5)
    assert float(np.exp(rule.log_q).sum() * rule.step) == pytest.approx(1, abs=1e-12)


def test_auxiliaries_say_what_they_miss():
    pd, p = laws(0)
    equation = finite(ReverseKL(), Dual(), p)
    problem = equation.inner_problem(letters(pd), None)
    with pytest.raises(IncompatibleError, match="needs a metric f_phi"):
        equation.auxiliary.minimum(problem)
    tilt = finite(KL(), Tilted(), p, alpha=0.5)
    problem = tilt.inner_problem(letters(pd), tilt.sample(0))
    with pytest.raises(IncompatibleError, match="TabularModel has no density"):
        tilt.auxiliary.minimum(problem._replace(p=Particles(problem.p.x)))
    with pytest.raises(IncompatibleError, match="GAN is not of the form CE - c H"):
        tilt.auxiliary.minimum(problem._replace(divergence=GAN()))


@pytest.mark.parametrize("d", [JensenShannon, ReverseKL, KL])
@pytest.mark.parametrize("off", [False, True])
def test_the_entropy_over_probabilities_is_that_of_all_of_q_or_none(d, off):
    """Where h'(inf) is finite and the best score lies on data off p, mass of q sits there: what lies on p is no H(q).

    With all of it on p, H(q) of q on p's letters by hand from the multiplier's equation, solved by bisection.
    """
    p, q_data = simplex(K, 3), simplex(K, 4)
    p[-1], p = 0, p / (1 - p[-1])
    model, critic = TabularModel(letters=K), TabularCritic(letters=K)
    shift = 3.0 if off else 0.0  # of the scores on p, below the one off p
    v = torch.as_tensor([0.1 - shift, -0.2 - shift, 0.3 - shift, -shift, -0.1 - shift, 0.1])
    with torch.no_grad():
        critic.scores.copy_(v)
    equation = StandardEquation(model=model, divergence=d(), auxiliary=Dual(normalised=True), metric=Metric(critic))
    on = letters(p[:-1])
    terms = equation.terms(letters(q_data), on)
    t = equation.divergence.link(v[:-1]).numpy()

    def mass(multiplier):
        s = t - multiplier
        u = {"KL": lambda: np.exp(s - 1), "ReverseKL": lambda: -1 / s,
             "JensenShannon": lambda: 1 / (2 * np.exp(-2 * s) - 1)}[d.__name__]()  # fmt: skip
        return p[:-1] * u

    if off and d is not KL:
        assert terms.entropy is None and "H_q" not in terms.as_dict()
        return
    limit = {"KL": -np.inf, "ReverseKL": t.max(), "JensenShannon": t.max() - np.log(2) / 2}[d.__name__]
    low, high = max(limit, -50) + 1e-12, 50.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if mass(middle).sum() > 1 else (low, middle)
    assert terms.entropy == pytest.approx(entropy(mass(low)), abs=1e-6)
