"""``D.exact``: closed forms, alphabets and quadrature, each against what shares no code with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, linalg, stats
from torch.distributions import (
    Categorical,
    Cauchy,
    Exponential,
    Independent,
    Laplace,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    StudentT,
    Uniform,
)

import divergences as d
from divergences import gaussians
from divergences.gaussians import Gaussian, as_gaussian
from divergences.limits import limit_at_zero, slope_at_infinity
from divergences.quadrature import integrate as adaptive
from models.laws import Weighted
from tests.support.cases import DIVERGENCES, F_DIVERGENCES, f_case
from tests.support.oracles import (
    GENERATORS,
    directional,
    divergence,
    entropy,
    gaussian_closed_forms,
    simplex,
    total_variation,
)

DEFAULT_DTYPE = torch.float64
PAIRS = [(0.0, 1.0, 1.0, 1.0), (0.0, 1.0, 1.0, 1.5), (0.5, 0.9, -0.3, 1.1), (0.0, 1.2, 0.4, 1.0)]
CLOSED = sorted(gaussian_closed_forms(0, 1, 1, 1))


def normals(m1, s1, m2, s2):
    return Normal(torch.tensor(m1), torch.tensor(s1)), Normal(torch.tensor(m2), torch.tensor(s2))


# -- pairs of normal laws ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("pair", PAIRS)
def test_normal_laws_on_the_line(name, pair):
    got, want = float(DIVERGENCES[name]().exact(*normals(*pair))), gaussian_closed_forms(*pair)[name]
    assert got == pytest.approx(want, rel=1e-12, abs=1e-13)


@pytest.mark.parametrize(
    ("name", "pair", "published"),
    [
        ("jensen_shannon", (0, 1, 1, 1), 0.11142148),
        ("jensen_shannon", (0, 1, 1, 1.5), 0.09929010),
        ("jensen_shannon", (0, 1, 3, 1), 0.52677731),
        ("total_variation", (0, 1, 1, 1), 0.38292492),
        ("total_variation", (0, 1, 1, 1.5), 0.34612308),
        ("total_variation", (0, 1, 3, 1), 0.86638560),
        ("gan", (0, 1, 1, 1), -1.16345140),
        ("gan", (0, 1, 3, 1), -0.33273975),
        ("wasserstein1", (0, 1, 1, 1), 1.0),
        ("wasserstein1", (0, 1, 1, 1.5), 1.008491),
    ],
)
def test_reference_numbers(name, pair, published):
    got = float(DIVERGENCES[name]().exact(*normals(*map(float, pair))))
    assert got == pytest.approx(published, abs=5.1e-9 if name != "wasserstein1" else 5.1e-7)  # half a unit as quoted


def plane():
    """Two normal laws in the plane that do not commute, and a grid with its step: trapezoids converge exponentially."""
    q = MultivariateNormal(torch.tensor([0.3, -0.2]), torch.tensor([[1.0, 0.4], [0.4, 0.7]]))
    p = MultivariateNormal(torch.tensor([-0.1, 0.5]), torch.tensor([[1.3, -0.3], [-0.3, 0.9]]))
    x = torch.arange(-9, 9.01, 0.06)
    return q, p, torch.cartesian_prod(x, x), 0.06**2


@pytest.mark.parametrize("name", [name for name in CLOSED if name not in ("alpha_3", "alpha_-1", "neyman")])
def test_normal_laws_in_the_plane(name):
    q, p, x, cell = plane()
    a, b = (np.exp(law.log_prob(x).numpy()) for law in (q, p))
    inside = (a > 1e-290) & (b > 1e-290)
    want = GENERATORS[name].integrand(a[inside], b[inside]).sum() * cell
    assert float(DIVERGENCES[name]().exact(q, p)) == pytest.approx(want, abs=1e-9)


def test_cross_entropy_and_distances_in_the_plane():
    q, p, x, cell = plane()
    a, b = (law.log_prob(x) for law in (q, p))
    want = float(-(a.exp() * b).sum()) * cell
    assert float(d.CrossEntropy().exact(q, p)) == pytest.approx(want, abs=1e-9)

    s, r = q.covariance_matrix.numpy(), p.covariance_matrix.numpy()
    root = linalg.sqrtm(r)
    bures = np.trace(s + r - 2 * linalg.sqrtm(root @ s @ root).real)
    got = gaussians.wasserstein2_squared(as_gaussian(q), as_gaussian(p))
    assert float(got) == pytest.approx(float((q.mean - p.mean).square().sum()) + bures, abs=1e-12)
    moved = MultivariateNormal(q.mean + torch.tensor([3.0, 4.0]), q.covariance_matrix)
    assert float(d.Wasserstein1().exact(q, moved)) == pytest.approx(5, abs=1e-14)  # a shift of five
    delta = math.sqrt(np.array([3.0, 4.0]) @ np.linalg.solve(s, [3.0, 4.0]))
    assert float(d.TotalVariation().exact(q, moved)) == pytest.approx(2 * stats.norm.cdf(delta / 2) - 1, abs=1e-14)


def test_the_normal_laws_of_several_axes_are_one_vector():
    law = Independent(Normal(torch.zeros(2, 3), torch.full((2, 3), 2.0)), 2)
    other = Independent(Normal(torch.ones(2, 3), torch.full((2, 3), 2.0)), 2)
    assert float(d.KL().exact(law, other)) == pytest.approx(6 / 8, abs=1e-14)
    assert as_gaussian(Normal(torch.zeros(2), torch.ones(2))) is None  # a batch of laws is no law


@pytest.mark.parametrize("pair", PAIRS)
def test_kernel_distances_of_normal_laws(pair):
    """By a double sum over nodes: the energy distance as an integral of distribution functions, MMD with kernels."""
    m1, s1, m2, s2 = pair
    x = np.arange(-14, 14, 0.05)
    gap = stats.norm.cdf(x, m1, s1) - stats.norm.cdf(x, m2, s2)
    assert float(d.EnergyDistance().exact(*normals(*pair))) == pytest.approx(2 * (gap**2).sum() * 0.05, abs=1e-10)
    difference = (stats.norm.pdf(x, m1, s1) - stats.norm.pdf(x, m2, s2)) * 0.05
    squared = (x[:, None] - x) ** 2
    want = np.mean([difference @ np.exp(-squared / (2 * b * b)) @ difference for b in (0.5, 2.0)])
    assert float(d.MMD(bandwidths=(0.5, 2.0)).exact(*normals(*pair))) == pytest.approx(want, abs=1e-12)


def test_closed_forms_are_infinite_where_the_integral_diverges():
    for name, pair in (("pearson", (0, 1.5, 0, 1)), ("neyman", (0, 1, 0, 1.5)), ("alpha_3", (0, 1.3, 0, 1))):
        assert float(DIVERGENCES[name]().exact(*normals(*map(float, pair)))) == math.inf
    with pytest.raises(NotImplementedError, match="quadrature does not settle.*may be infinite"):
        mixture = MixtureSameFamily(Categorical(probs=torch.ones(2)), Normal(torch.zeros(2), torch.tensor([1.0, 3.0])))
        d.Pearson().exact(mixture, Normal(torch.tensor(0.0), torch.tensor(1.0)))


def test_closed_forms_have_gradients():
    for name in ("kl", "reverse_kl", "jeffreys", "squared_hellinger", "pearson", "alpha_0.5", "energy", "mmd"):
        D = DIVERGENCES[name]()

        def value(z, D=D):
            return D.exact(Normal(z[0], z[1].exp()), Normal(z[2], z[3].exp()))

        z = torch.tensor([0.3, 0.1, -0.2, 0.3], requires_grad=True)
        (slope,) = torch.autograd.grad(value(z), z)
        e, numeric = directional(value, z)
        assert float(slope @ e) == pytest.approx(float(numeric), rel=1e-7)  # difference of second order, step 1e-5


# -- finite alphabets -------------------------------------------------------------------------------------------------


def with_zeros(seed):
    q, p = simplex(5, seed), simplex(5, seed + 9)
    q[0], p[1] = 0.0, 0.0
    return q / q.sum(), p / p.sum()


@f_case
def test_alphabets_with_and_without_zeros(name):
    D, g = F_DIVERGENCES[name](), GENERATORS[name]
    q, p = simplex(5, 1), simplex(5, 2)
    laws = Categorical(probs=torch.as_tensor(q)), Categorical(probs=torch.as_tensor(p))
    assert float(D.exact(*laws)) == pytest.approx(divergence(name, q, p), rel=1e-11)
    q, p = with_zeros(3)
    both = (q > 0) & (p > 0)
    want = float(g.integrand(q[both], p[both]).sum() + p[0] * g.at_zero + q[1] * g.at_infinity)
    got = float(D.exact(Categorical(probs=torch.as_tensor(q)), Categorical(probs=torch.as_tensor(p))))
    assert got == pytest.approx(want, rel=1e-9)  # limits found by probing settle to 1e-9


def test_alphabets_of_other_divergences():
    q, p = with_zeros(4)
    laws = Categorical(probs=torch.as_tensor(q)), Categorical(probs=torch.as_tensor(p))
    assert float(d.TotalVariation().exact(*laws)) == pytest.approx(total_variation(q, p), abs=1e-15)
    letters = np.arange(5)
    w1 = stats.wasserstein_distance(letters, letters, q, p)
    assert float(d.Wasserstein1().exact(*laws)) == pytest.approx(w1, abs=1e-14)
    energy = stats.energy_distance(letters, letters, q, p) ** 2  # scipy's is the root
    for unbiased in (False, True):  # of the laws, whichever the statistic
        assert float(d.EnergyDistance(unbiased).exact(*laws)) == pytest.approx(energy, abs=1e-14)
    q, p = simplex(5, 4), simplex(5, 5)
    laws = Categorical(probs=torch.as_tensor(q)), Categorical(probs=torch.as_tensor(p))
    assert float(d.CrossEntropy().exact(*laws)) == pytest.approx(divergence("kl", q, p) + entropy(q), abs=1e-14)
    assert float(d.CrossEntropy().exact(laws[0], Categorical(probs=torch.tensor([0.0, 1, 1, 1, 1])))) == math.inf


def test_alphabets_of_points_are_merged():
    """Letters that both laws have meet, in any order; the laws of ``models`` are read without importing them."""
    x, y = torch.tensor([[0.0, 0], [3, 4], [1, 1]]), torch.tensor([[1.0, 1], [0, 0], [-1, 2]])
    a, b = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.3, 0.3, 0.4])
    laws = Weighted(x, a.log()), Weighted(y, b.log())
    assert float(d.TotalVariation().exact(*laws)) == pytest.approx((0.1 + 0.5 + 0.0 + 0.4) / 2, abs=1e-15)
    if hasattr(stats, "wasserstein_distance_nd"):
        want = stats.wasserstein_distance_nd(x.numpy(), y.numpy(), a.numpy(), b.numpy())
        assert float(d.Wasserstein1().exact(*laws)) == pytest.approx(want, abs=1e-9)
    assert float(d.KL().exact(*laws)) == math.inf


@pytest.mark.parametrize("name", ["kl", "pearson", "jensen_shannon", "user", "wasserstein1", "mmd", "alpha_0.5"])
def test_alphabets_have_gradients(name):
    D, p = DIVERGENCES[name](), torch.as_tensor(simplex(4, 2))

    def value(z):
        return D.exact(Categorical(probs=z.softmax(0)), Categorical(probs=p))

    z = torch.tensor([0.3, -0.2, 0.5, 0.1], requires_grad=True)
    (slope,) = torch.autograd.grad(value(z), z)
    e, numeric = directional(value, z)
    assert float(slope @ e) == pytest.approx(float(numeric), rel=1e-6, abs=1e-9)


# -- laws of one real number ------------------------------------------------------------------------------------------


def f64(*values):
    return torch.tensor(values if len(values) > 1 else values[0], dtype=torch.float64)


MIXTURE = MixtureSameFamily(Categorical(probs=f64(0.33, 0.67)), Normal(f64(2.0, -1.0), f64(2.0**0.5, 0.25)))
WIDE_LAPLACE = Laplace(f64(1.0), f64(2.0))


def mixture_pdf(x):
    return 0.33 * stats.norm.pdf(x, 2, 2**0.5) + 0.67 * stats.norm.pdf(x, -1, 0.25)


LINES = {
    "mixture, normal": (MIXTURE, Normal(f64(1.0), f64(1.8)), mixture_pdf, lambda x: stats.norm.pdf(x, 1, 1.8), (-1, 2)),
    "laplace, normal": (Laplace(f64(0.5), f64(1.0)), Normal(f64(0.0), f64(2.0)), lambda x: stats.laplace.pdf(x, 0.5, 1),
                        lambda x: stats.norm.pdf(x, 0, 2), (0.5,)),
    "uniform, wider": (Uniform(f64(0.0), f64(1.0)), Uniform(f64(-1.0), f64(3.0)), lambda x: stats.uniform.pdf(x, 0, 1),
                       lambda x: stats.uniform.pdf(x, -1, 4), (0, 1, -1, 3)),
    "student, laplace": (StudentT(f64(5.0)), WIDE_LAPLACE, lambda x: stats.t.pdf(x, 5),
                         lambda x: stats.laplace.pdf(x, 1, 2), (0, 1, -100, 100, 1000, -1000)),
    "event of one axis": (Independent(Normal(f64(0.0).reshape(1), 1.0), 1), WIDE_LAPLACE, stats.norm.pdf,
                          lambda x: stats.laplace.pdf(x, 1, 2), (0, 1)),
}  # fmt: skip


@pytest.mark.parametrize("case", LINES)
@pytest.mark.parametrize("name", ["kl", "jensen_shannon", "squared_hellinger", "total_variation", "gan", "alpha_0.5"])
def test_laws_on_the_line(case, name):
    """Against scipy's quadrature of the integral as the textbook has it."""
    q, p, pdf_q, pdf_p, breaks = LINES[case]

    def integrand(x):
        a, b = pdf_q(x), pdf_p(x)
        if name == "total_variation":
            return abs(a - b) / 2
        g = GENERATORS[name]
        if a == 0 or b == 0:
            return b * g.at_zero if b else 0.0
        return g.integrand(a, b)

    want, error = 0.0, 0.0
    ends = sorted({-30, -10, 10, 30, *breaks})
    for low, high in zip(ends, ends[1:], strict=False):
        part, e = integrate.quad(integrand, low, high, limit=500, epsabs=1e-12)
        want, error = want + part, error + e
    # Beyond the ends lie the tails: exp(-15) of a Laplace law of scale 2, 1e-15 of Student's at 1000.
    tail = {"student, laplace": 1e-9, "event of one axis": 4 * math.exp(-14.5)}.get(case, 1e-10)
    assert float(DIVERGENCES[name]().exact(q, p)) == pytest.approx(want, abs=tail + 10 * error)


def test_distances_on_the_line():
    x = np.arange(-20, 20, 1e-3)
    cdf_q = 0.33 * stats.norm.cdf(x, 2, 2**0.5) + 0.67 * stats.norm.cdf(x, -1, 0.25)
    gap = np.abs(cdf_q - stats.norm.cdf(x, 1, 1.8))
    p = Normal(torch.tensor(1.0), torch.tensor(1.8))
    assert float(d.Wasserstein1().exact(MIXTURE, p)) == pytest.approx(gap.sum() * 1e-3, abs=1e-6)  # step^2, kinks
    assert float(d.EnergyDistance().exact(MIXTURE, p)) == pytest.approx(2 * (gap**2).sum() * 1e-3, abs=1e-6)
    for n in (3, 7, 10):  # shares of 1/n: the distribution function ends at 1 - 1e-16, over 1e19 scales
        many = MixtureSameFamily(Categorical(probs=torch.ones(n)), Normal(torch.arange(n) * 0.5, torch.ones(n)))
        shifted = d.Wasserstein1().exact(many, Normal(f64(-1.0), f64(1.0)))
        assert float(shifted) == pytest.approx(1 + (n - 1) / 4, abs=1e-9)  # of the means: the laws are ordered
    assert float(d.Wasserstein1().exact(Uniform(0.0, 1.0), Uniform(2.0, 4.0))) == pytest.approx(2.5, abs=1e-12)
    assert float(d.Wasserstein1().exact(Exponential(1.0), Exponential(0.5))) == pytest.approx(1, abs=1e-7)  # means


def test_disjoint_supports():
    q, p = Uniform(0.0, 1.0), Uniform(2.0, 3.0)
    assert float(d.JensenShannon().exact(q, p)) == pytest.approx(math.log(2), abs=1e-12)
    assert float(d.TotalVariation().exact(q, p)) == pytest.approx(1, abs=1e-12)
    assert float(d.GAN().exact(q, p)) == pytest.approx(0, abs=1e-12)
    assert float(d.KL().exact(q, p)) == float(d.ReverseKL().exact(q, p)) == math.inf


def test_far_and_narrow_laws():
    """N(50, 0.01) against N(0, 1): log-ratios of 1e7, a peak 5000 of its widths away."""
    q, p = normals(0.0, 1.0, 50.0, 0.01)
    assert float(d.JensenShannon().exact(q, p)) == pytest.approx(math.log(2), abs=1e-9)
    mixture = MixtureSameFamily(Categorical(probs=torch.ones(1)), Normal(torch.tensor([50.0]), torch.tensor([0.01])))
    want = float(d.KL().exact(q, p))
    assert float(d.KL().exact(q, mixture)) == pytest.approx(want, rel=1e-10)


# -- what is refused --------------------------------------------------------------------------------------------------

N01, TWO = Normal(0.0, 1.0), MultivariateNormal(torch.zeros(2), torch.eye(2))
WIDE = MultivariateNormal(torch.zeros(2), 2 * torch.eye(2))


@pytest.mark.parametrize(
    ("attempt", "error", "message"),
    [
        (lambda: d.Sinkhorn().exact(Categorical(probs=torch.ones(2)), Categorical(probs=torch.ones(2))),
         NotImplementedError, "Sinkhorn has no exact value here.*estimate from samples"),
        (lambda: d.Surrogate("hinge").exact(N01, N01), NotImplementedError, "Surrogate is a surrogate.*no D"),
        (lambda: d.JensenShannon().exact(TWO, WIDE), NotImplementedError,
         r"JensenShannon has no exact value for MultivariateNormal \(event shape \(2,\)\).*discretise the laws"),
        (lambda: d.KL().exact(Categorical(probs=torch.ones(2)), N01), NotImplementedError, "KL has no exact value"),
        (lambda: d.KL().exact(Normal(torch.zeros(3), 1.0), N01), NotImplementedError, r"batch shape \(3,\)"),
        (lambda: d.KL().exact(N01, TWO), ValueError, "KL: q has 1 coordinates, p has 2"),
        (lambda: d.KL().exact(Weighted(torch.zeros(1, 2), torch.zeros(1)), Weighted(torch.zeros(1, 3), torch.zeros(1))),
         ValueError, "letters of q have 2 coordinates, letters of p have 3"),
        (lambda: d.Wasserstein1().exact(StudentT(3.0), N01), NotImplementedError, "no distribution function"),
        (lambda: d.Wasserstein1().exact(Cauchy(0.0, 1.0), N01), NotImplementedError, "does not settle"),
        (lambda: d.KL().exact(Cauchy(0.0, 1.0), N01), NotImplementedError, "does not settle"),
        (lambda: d.MMD().exact(Uniform(0.0, 1.0), N01), NotImplementedError, "MMD is not written as an integral"),
        (lambda: d.Wasserstein1().exact(*[Weighted(torch.randn(501, 2), torch.full((501,), -math.log(501)))] * 2),
         NotImplementedError, "up to 250000 pairs of letters, got 501 x 501"),
    ],
)  # fmt: skip
def test_what_is_refused_and_what_to_do(attempt, error, message):
    with pytest.raises(error, match=message):
        attempt()


# -- parts ------------------------------------------------------------------------------------------------------------


def test_limits_of_generators():
    for name, make in F_DIVERGENCES.items():
        D, g = make(), GENERATORS[name]
        assert limit_at_zero(D.h) == pytest.approx(g.at_zero, abs=1e-9)
        assert slope_at_infinity(D.h) == pytest.approx(g.at_infinity, abs=1e-9)
    assert limit_at_zero(lambda u: u * torch.log(u)) == pytest.approx(0, abs=1e-15)  # 0 log 0 as users write it
    assert limit_at_zero(lambda u: u * torch.log(u) - torch.log(u)) == math.inf
    with pytest.raises(ValueError, match="cannot be told from its values.*declares `supremum`"):
        slope_at_infinity(lambda u: 1 - u**0.99)


def test_quadrature_estimates_its_error():
    edges = torch.tensor([0.0, 1.0])
    for f, want in ((torch.sin, 1 - math.cos(1)), (torch.sqrt, 2 / 3), (lambda x: (x - 0.3).abs(), 0.29)):
        value, error, _ = adaptive(f, edges)
        assert abs(value - want) <= max(error, 1e-15) and error < 1e-8
    assert adaptive(lambda x: (x - 1 / 3).abs(), edges)[1] > 0  # what the kink's panels still differ by
    assert adaptive(lambda x: torch.where(x > 0.5, torch.inf, x), edges)[0] == math.inf
    assert not adaptive(lambda x: torch.where(x > 0.5, torch.nan, x), edges)[1] < math.inf
    assert not adaptive(lambda x: 1 / x, edges)[1] < 1e-8  # the integral diverges at an end


def test_gaussian_of_a_plain_pair_is_kept_in_float64():
    found = as_gaussian(Normal(torch.tensor(1.0, dtype=torch.float32), 2.0))
    assert isinstance(found, Gaussian) and found.covariance.dtype == torch.float64 and float(found.covariance) == 4
