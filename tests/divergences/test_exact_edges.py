"""``D.exact`` where a plain sum or integral goes wrong: far laws, ends of supports, orders near a limit, other laws."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch import distributions as td
from torch.distributions import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Exponential,
    Gamma,
    Laplace,
    LowRankMultivariateNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    StudentT,
    Uniform,
)

import divergences as d
from divergences.exact import Points
from divergences.lines import _cdf
from tests.support.oracles import EPS

DEFAULT_DTYPE = torch.float64
N01 = Normal(torch.tensor(0.0), torch.tensor(1.0))


def mixed(mean, deviation=1.0):
    """A normal law that the closed forms do not know."""
    return MixtureSameFamily(Categorical(probs=torch.ones(1)), Normal(torch.tensor([mean]), torch.tensor([deviation])))


# -- powers that underflow, orders near a limit -----------------------------------------------------------------------


@pytest.mark.parametrize("order", [0.05, 0.5, 0.95, 1.0, 1 + 1e-12, 2.0, 10.0])
def test_renyi_of_a_shift_is_order_d_squared_over_two(order):
    """At any distance: the power itself is e^-5000 at 100. On the line to 1e-11, what the quadrature is asked for."""
    for shift in (1e-3, 0.1, 5.0, 20.0, 100.0):
        want = order * shift**2 / 2
        assert float(d.Renyi(order).exact(Normal(shift, 1.0), N01)) == pytest.approx(want, rel=16 * EPS)
        assert float(d.Renyi(order).exact(mixed(shift), N01)) == pytest.approx(want, rel=1e-11)
    leaf = torch.tensor(30.0, requires_grad=True)
    (slope,) = torch.autograd.grad(d.Renyi(order).exact(Normal(leaf, 1.0), N01), leaf)
    assert float(slope) == pytest.approx(30 * order, rel=1e-12)


@pytest.mark.parametrize("order", [0.3, 0.95, 1.0, 2.0])
def test_letters_of_masses_that_underflow(order):
    """Masses of e^-2000 are numbers in logarithms: against mpmath."""
    log_q, log_p = (torch.tensor(row).log_softmax(0) for row in ((-2000.0, 0.0, 1.0), (0.0, -1.0, -3000.0)))
    mpmath.mp.dps = 60
    q, p = ([mpmath.e ** mpmath.mpf(float(t)) for t in law] for law in (log_q, log_p))
    if order == 1:
        want = mpmath.fsum(a * mpmath.log(a / b) for a, b in zip(q, p, strict=True))
    else:
        want = mpmath.log(mpmath.fsum(a**order * b ** (1 - order) for a, b in zip(q, p, strict=True))) / (order - 1)
    letters = torch.eye(3)
    got = d.Renyi(order).exact(Points(letters, log_q), Points(letters, log_p))
    assert float(got) == pytest.approx(float(want), rel=1e-12)
    if order != 1:
        points = Points(letters[:2], torch.tensor([-2000.0, 0.0]).log_softmax(0))
        far = torch.tensor([0.0, -2000.0]).log_softmax(0) - points.log_weights
        value = -math.inf if order < 1 else math.inf
        got = float(d.Renyi(order).of_log_ratio(far, points))
        value = max(order, 1 - order) * 2000 / (1 - order) if order < 1 else 2000.0
        value = min(order, 1 - order) * 2000 / (1 - order) if order < 1 else value
        assert got == pytest.approx(value, rel=1e-3)  # up to log 2 over 1 - order


@pytest.mark.parametrize("near", [1e-3, 1e-6, 1e-9, 1e-12, 1e-15])
def test_alpha_near_orders_zero_and_one(near):
    """Against mpmath on letters; between normal laws against the KL divergence, from which it differs by O(order)."""
    mpmath.mp.dps = 60
    q, p = (0.2, 0.5, 0.3), (0.6, 0.3, 0.1)
    laws = [Categorical(probs=torch.tensor(law)) for law in (q, p)]
    normals = Normal(torch.tensor(0.3), torch.tensor(1.2)), Normal(torch.tensor(-0.5), torch.tensor(0.8))
    for base in (0.0, 1.0):
        limit = float((d.KL() if base else d.ReverseKL()).exact(*normals))
        for order in (base - near, base + near):
            a = mpmath.mpf(order)
            masses = [[mpmath.mpf(float(w)) for w in law.probs] for law in laws]
            total = mpmath.fsum(x**a * y ** (1 - a) - a * x - (1 - a) * y for x, y in zip(*masses, strict=True))
            assert float(d.Alpha(order).exact(*laws)) == pytest.approx(float(total / (a * (a - 1))), rel=1e-13)
            assert float(d.Alpha(order).exact(*normals)) == pytest.approx(limit, rel=2 * near + 1e-13)
            on_the_line = d.Alpha(order).exact(mixed(0.3, 1.2), normals[1])
            assert float(on_the_line) == pytest.approx(float(d.Alpha(order).exact(*normals)), rel=1e-10)


def test_infinite_closed_forms_carry_a_graph_of_slope_zero():
    scale = torch.tensor(3.0, requires_grad=True)
    for D in (d.Pearson(), d.Alpha(3.0), d.Renyi(2.0)):
        value = D.exact(Normal(torch.tensor(0.0), scale), N01)
        assert float(value.detach()) == math.inf
        assert float(torch.autograd.grad(value, scale)[0]) == 0


# -- ends of supports, tails ------------------------------------------------------------------------------------------

EDGES = {
    "beta": (Beta(torch.tensor(1.0), torch.tensor(0.9)), Uniform(0.0, 1.0), stats.beta(1, 0.9), stats.uniform()),
    "arcsine": (Beta(torch.tensor(0.5), torch.tensor(0.5)), Beta(torch.tensor(2.0), torch.tensor(2.0)),
                stats.beta(0.5, 0.5), stats.beta(2, 2)),
    "gamma": (Gamma(torch.tensor(0.5), torch.tensor(1.0)), Exponential(1.0), stats.gamma(0.5), stats.expon()),
    "uniform": (Uniform(0.0, 1.0), Laplace(0.3, 1.0), stats.uniform(), stats.laplace(0.3)),
}  # fmt: skip
BOUNDED = {
    "jensen_shannon": lambda q, p: (special.rel_entr(q, (q + p) / 2) + special.rel_entr(p, (q + p) / 2)) / 2,
    "le_cam": lambda q, p: (q - p) ** 2 / (q + p) if q + p else 0.0,
    "squared_hellinger": lambda q, p: (np.sqrt(q) - np.sqrt(p)) ** 2,
    "total_variation": lambda q, p: abs(q - p) / 2,
}


@pytest.mark.parametrize("pair", EDGES)
@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounded_divergences_are_finite(pair, name, dtype):
    """Densities that are infinite at an end; by scipy's quadrature of the textbook's integrand in s, x = s^2 there."""
    q, p, pdf_q, pdf_p = EDGES[pair]
    D = {"jensen_shannon": d.JensenShannon, "le_cam": d.LeCam, "squared_hellinger": d.SquaredHellinger,
         "total_variation": d.TotalVariation}[name]()  # fmt: skip

    def integrand(x):
        return BOUNDED[name](pdf_q.pdf(x), pdf_p.pdf(x))

    def half(s, end, sign):
        return integrand(end + sign * s**4) * 4 * s**3

    ends = [("inner", 0.0, 0.5), ("inner", 0.5, 1.0)]
    want = sum(
        integrate.quad(half, 0, 0.5**0.25, args=(low if low == 0 else high, 1 if low == 0 else -1), limit=500)[0]
        for _, low, high in ends
    )
    for low, high in ((1, 5), (5, 60)) if pair in ("gamma", "uniform") else ():
        want += integrate.quad(integrand, low, high, limit=500)[0]
    if pair == "uniform":
        want += integrate.quad(integrand, -60, 0, limit=500)[0]

    def cast(law):
        return type(law)(*(torch.as_tensor(getattr(law, n)).to(dtype) for n in law.arg_constraints))

    # The argument of the quadrature tells 1e-16 from an end, where a density x^-1/2 has 1e-8 of its mass.
    allowed = 3e-8 if dtype == torch.float64 else 3e-7
    pair = (cast(q), cast(p)) if dtype == torch.float64 else (cast(p), cast(q))
    assert float(D.exact(*pair)) == pytest.approx(want, abs=allowed)


def test_kl_of_a_density_that_is_infinite_at_an_end():
    """log 0.9 + 0.1/0.9 (the mean of -log(1 - x) is 1/0.9); E log x of a gamma law is the digamma function."""
    q, p = Beta(torch.tensor(1.0), torch.tensor(0.9)), Uniform(0.0, 1.0)
    assert float(d.KL().exact(q, p)) == pytest.approx(math.log(0.9) + 0.1 / 0.9, abs=1e-9)
    want = -special.digamma(0.5) / 2 - special.gammaln(0.5)
    assert float(d.KL().exact(*EDGES["gamma"][:2])) == pytest.approx(want, abs=1e-6)


def test_distribution_functions_outside_a_support():
    """0 below and 1 above: W1 of a uniform law and laws on the whole line, against scipy's integral."""
    x = torch.tensor([-3.0, 0.25, 7.0])
    assert _cdf(Uniform(0.0, 1.0), x).tolist() == [0.0, 0.25, 1.0] and float(_cdf(Exponential(1.0), x)[0]) == 0
    q, p = stats.uniform(), stats.norm(0.3, 2)
    want = sum(
        integrate.quad(lambda t: abs(q.cdf(t) - p.cdf(t)), *ends)[0] for ends in ((-30, 0), (0, 0.5), (0.5, 1), (1, 30))
    )
    for D in (d.Wasserstein1(), d.Wasserstein1D(1.0)):
        assert float(D.exact(Uniform(0.0, 1.0), mixed(0.3, 2.0))) == pytest.approx(want, abs=1e-7)


@pytest.mark.parametrize("name", ["kl", "pearson", "alpha", "renyi", "jeffreys"])
def test_mass_of_q_that_p_lacks_is_infinite_and_what_cannot_be_priced_is_no_number(name):
    D = {"kl": d.KL(), "pearson": d.Pearson(), "alpha": d.Alpha(2.0), "renyi": d.Renyi(2.0), "jeffreys": d.Jeffreys()}
    assert float(D[name].exact(Uniform(0.0, 2.0), Uniform(0.0, 1.0))) == math.inf
    assert (
        float(D[name].exact(Categorical(probs=torch.ones(2)), Categorical(probs=torch.tensor([1.0, 0.0])))) == math.inf
    )
    own = d.FDivergence(lambda u: u * torch.log(u) - u + 1)
    # A narrow law against one beyond e^300 of it: float64 does not hold u, so a user's h has no value there.
    with pytest.raises(NotImplementedError, match="does not settle"):
        own.exact(mixed(60.0), N01)


def test_tails_are_followed_to_their_end():
    """E x^2/2 of a Student law of 2.8 degrees of freedom: 1e-3 of it lies beyond 1e4 scales, 1e-8 beyond 1e10."""
    q, nu = StudentT(torch.tensor(2.8)), 2.8
    cross = nu / (nu - 2) / 2 + math.log(2 * math.pi) / 2
    entropy = float(stats.t(nu).entropy())
    assert float(d.CrossEntropy().exact(q, N01)) == pytest.approx(cross, rel=1e-8)
    assert float(d.KL().exact(q, N01)) == pytest.approx(cross - entropy, rel=1e-8)


# -- other laws -------------------------------------------------------------------------------------------------------


def test_finite_laws_of_torch():
    q, p = (stats.binom(4, share).pmf(np.arange(5)) for share in (0.3, 0.6))
    laws = Binomial(4, torch.tensor(0.3)), Binomial(4, torch.tensor(0.6))
    assert float(d.KL().exact(*laws)) == pytest.approx((q * np.log(q / p)).sum(), rel=1e-12)
    want = 0.3 * math.log(0.5) + 0.7 * math.log(0.7 / 0.4)
    assert float(d.KL().exact(Bernoulli(torch.tensor(0.3)), Bernoulli(torch.tensor(0.6)))) == pytest.approx(want)
    assert float(d.KL().exact(Bernoulli(torch.tensor(0.3)), Bernoulli(torch.tensor(0.0)))) == math.inf
    assert float(d.Wasserstein1().exact(*laws)) == pytest.approx(4 * 0.3, rel=1e-12)
    hot = [OneHotCategorical(probs=torch.tensor(law)) for law in ([0.2, 0.5, 0.3], [0.6, 0.3, 0.1])]
    assert float(d.Wasserstein1().exact(*hot)) == pytest.approx(0.4 * math.sqrt(2), rel=1e-7)


def test_normal_laws_of_low_rank_and_their_transport():
    torch.manual_seed(3)
    laws = [LowRankMultivariateNormal(torch.randn(3), torch.randn(3, 1), torch.rand(3) + 0.2) for _ in range(2)]
    full = [MultivariateNormal(law.mean, law.covariance_matrix) for law in laws]
    for D in (d.KL(), d.Renyi(0.3), d.SquaredHellinger(), d.OptimalTransport(2.0), d.SlicedWasserstein(2.0), d.MMD()):
        assert float(D.exact(*laws)) == pytest.approx(float(D.exact(*full)), rel=1e-12)
    (m, s), (n, r) = ((law.mean.numpy(), law.covariance_matrix.numpy()) for law in full)
    from scipy.linalg import sqrtm

    bures = ((m - n) ** 2).sum() + np.trace(s + r - 2 * np.real(sqrtm(sqrtm(s) @ r @ sqrtm(s))))
    assert float(d.OptimalTransport(2.0).exact(*full)) == pytest.approx(bures, rel=1e-9)
    line = Normal(torch.tensor(0.5), torch.tensor(2.0)), N01
    assert float(d.Wasserstein1D().exact(*line)) == pytest.approx(1.25, rel=1e-14)
    assert float(d.Wasserstein1D(root=True).exact(*line)) == pytest.approx(math.sqrt(1.25), rel=1e-14)
    shifted = (
        MultivariateNormal(torch.tensor([3.0, 4.0]), torch.eye(2)),
        MultivariateNormal(torch.zeros(2), torch.eye(2)),
    )
    assert float(d.SlicedWasserstein(2.0).exact(*shifted)) == pytest.approx(
        12.5, rel=1e-12
    )  # |m|^2/2, over whole bases
    assert float(d.OptimalTransport(1.0).exact(*shifted)) == pytest.approx(5.0, rel=1e-12)


LAWS = {
    "TransformedDistribution": td.TransformedDistribution(N01, [td.AffineTransform(1.0, 2.0)]),
    "Geometric": td.Geometric(torch.tensor(0.3)),
    "Poisson": td.Poisson(torch.tensor(3.0)),
    "NegativeBinomial": td.NegativeBinomial(3, torch.tensor(0.5)),
    "VonMises": td.VonMises(torch.tensor(0.0), torch.tensor(1.0)),
    "HalfCauchy": td.HalfCauchy(torch.tensor(1.0)),
    "FisherSnedecor": td.FisherSnedecor(torch.tensor(2.0), torch.tensor(2.0)),
    "Gumbel": td.Gumbel(torch.tensor(0.0), torch.tensor(1.0)),
    "RelaxedBernoulli": td.RelaxedBernoulli(torch.tensor(0.5), torch.tensor(0.3)),
    "Dirichlet": td.Dirichlet(torch.ones(3)),
    "Multinomial": td.Multinomial(4, torch.ones(3)),
    "MixtureSameFamily": MixtureSameFamily(Categorical(probs=torch.ones(2)), td.Poisson(torch.tensor([1.0, 2.0]))),
    "Independent": td.Independent(Bernoulli(torch.tensor([0.3])), 1),
    "Pareto": td.Pareto(torch.tensor(1.0), torch.tensor(1.5)),
    "StudentT": StudentT(torch.tensor(3.0)),
}


@pytest.mark.parametrize("name", LAWS)
def test_no_error_of_another_library_and_none_without_words(name):
    slow = name in ("VonMises", "Pareto")  # refused by the quadrature itself, after all its panels
    for D in (
        [d.KL()] if slow else [d.KL(), d.Wasserstein1(), d.MMD(), d.Renyi(0.5), d.Wasserstein1D(), d.OptimalTransport()]
    ):
        for pair in [(LAWS[name], N01)] if slow else [(LAWS[name], LAWS[name]), (LAWS[name], N01), (N01, LAWS[name])]:
            try:
                value = D.exact(*pair)
            except (NotImplementedError, ValueError) as error:
                assert type(D).__name__ in str(error) and len(str(error)) > 60, error
            else:
                assert value.dtype == torch.float64 and not value.isnan()


def test_wasserstein_in_the_plane_is_float64_and_any_size():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    for default in (torch.float32, torch.float64):
        torch.set_default_dtype(default)
        for scale in (1.0, 1e-9, 1e9):
            laws = [
                Points(scale * x.double(), torch.tensor(w, dtype=torch.float64).log()) for w in ([1.0, 0], [0.25, 0.75])
            ]
            got = d.Wasserstein1().exact(*laws)
            assert got.dtype == torch.float64 and float(got) == pytest.approx(3.75 * scale, rel=1e-7)
