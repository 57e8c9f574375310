r"""Generators of problems together with their exact answers, written without the code under test.

f-divergences are written twice: by generator (h, h') in the style of f-GAN's tables, and by integral. Functions take
the module that supplies ``log`` and ``sqrt``, so they run on arrays (numpy) and at any precision (mpmath).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import optimize, special, stats

from models.laws import Particles

EPS = 2.0**-52
"""Spacing of float64 at one."""
FALSE_ALARM = 1e-3
"""Rate at which a randomised test may fail a right program, over all seeds."""
LOG2 = math.log(2)
ALPHA_ORDERS = (0.5, 2.0, -1.0, 0.0, 1.0, 1.5, 3.0)
"""Orders of the alpha family in the tables."""


def z_score(comparisons: int = 1) -> float:
    """Return how many standard errors a two-sided comparison may be off, at FALSE_ALARM for all of them together."""
    return float(stats.norm.isf(FALSE_ALARM / (2 * comparisons)))


class Generator(NamedTuple):
    r"""One f-divergence from first principles.

    Attributes:
        h: generator, of (u, module).
        slope: h', of (u, module).
        integrand: the integrand of D(q, p) in q and p, from the textbook's integral.
        at_one: h(1).
        at_infinity: h'(inf): the price of a unit of q's mass where p is zero.
        at_zero: h(0): the price of a unit of p's mass where q is zero.
    """

    h: Callable[[Any, Any], Any]
    slope: Callable[[Any, Any], Any]
    integrand: Callable[[Any, Any], Any]
    at_one: float = 0.0
    at_infinity: float = math.inf
    at_zero: float = math.inf


def _kl(a: Any, b: Any) -> Any:
    return a * np.log(a / b)


def alpha_generator(a: float) -> Generator:
    """Return the alpha divergence: h'' = u^(a-2), h(1) = h'(1) = 0, in its three forms."""
    if a == 1:
        return Generator(
            h=lambda u, m: u * m.log(u) - u + 1,
            slope=lambda u, m: m.log(u),
            integrand=lambda q, p: _kl(q, p) - q + p,
            at_zero=1.0,
        )
    if a == 0:
        return Generator(
            h=lambda u, m: u - 1 - m.log(u),
            slope=lambda u, m: 1 - 1 / u,
            integrand=lambda q, p: _kl(p, q) + q - p,
            at_infinity=1.0,
        )
    return Generator(
        h=lambda u, m: (u**a - 1 - a * (u - 1)) / (a * (a - 1)),
        slope=lambda u, m: (u ** (a - 1) - 1) / (a - 1),
        integrand=lambda q, p: (q**a * p ** (1 - a) - a * q - (1 - a) * p) / (a * (a - 1)),
        at_infinity=1 / (1 - a) if a < 1 else math.inf,
        at_zero=1 / a if a > 0 else math.inf,
    )


def weighted_js_generator(w: float) -> Generator:
    def integrand(q: Any, p: Any) -> Any:
        m = w * q + (1 - w) * p
        return w * _kl(q, m) + (1 - w) * _kl(p, m)

    return Generator(
        h=lambda u, m: w * u * m.log(u) - (1 + w * (u - 1)) * m.log(1 + w * (u - 1)),
        slope=lambda u, m: w * m.log(u / (1 + w * (u - 1))),
        integrand=integrand,
        at_infinity=-w * math.log(w),
        at_zero=-(1 - w) * math.log(1 - w),
    )


_NEYMAN = Generator(
    h=lambda u, m: (1 - u) ** 2 / u,
    slope=lambda u, m: 1 - 1 / u**2,
    integrand=lambda q, p: (q - p) ** 2 / q,
    at_infinity=1.0,
)

GENERATORS: dict[str, Generator] = {
    "kl": Generator(
        h=lambda u, m: u * m.log(u),
        slope=lambda u, m: 1 + m.log(u),
        integrand=_kl,
        at_zero=0.0,
    ),
    "reverse_kl": Generator(
        h=lambda u, m: -m.log(u),
        slope=lambda u, m: -1 / u,
        integrand=lambda q, p: _kl(p, q),
        at_infinity=0.0,
    ),
    "jensen_shannon": Generator(
        h=lambda u, m: (u * m.log(u) - (1 + u) * m.log((1 + u) / 2)) / 2,
        slope=lambda u, m: m.log(2 * u / (1 + u)) / 2,
        integrand=lambda q, p: (_kl(q, (q + p) / 2) + _kl(p, (q + p) / 2)) / 2,
        at_infinity=LOG2 / 2,
        at_zero=LOG2 / 2,
    ),
    "gan": Generator(
        h=lambda u, m: u * m.log(u) - (1 + u) * m.log(1 + u),
        slope=lambda u, m: m.log(u / (1 + u)),
        integrand=lambda q, p: q * np.log(q / (q + p)) + p * np.log(p / (q + p)),
        at_one=-2 * LOG2,
        at_infinity=0.0,
        at_zero=0.0,
    ),
    "squared_hellinger": Generator(
        h=lambda u, m: (m.sqrt(u) - 1) ** 2,
        slope=lambda u, m: 1 - 1 / m.sqrt(u),
        integrand=lambda q, p: (np.sqrt(q) - np.sqrt(p)) ** 2,
        at_infinity=1.0,
        at_zero=1.0,
    ),
    "pearson": Generator(
        h=lambda u, m: (u - 1) ** 2,
        slope=lambda u, m: 2 * (u - 1),
        integrand=lambda q, p: (q - p) ** 2 / p,
        at_zero=1.0,
    ),
    "le_cam": Generator(
        h=lambda u, m: (u - 1) ** 2 / (u + 1),
        slope=lambda u, m: 1 - 4 / (1 + u) ** 2,
        integrand=lambda q, p: (q - p) ** 2 / (q + p),
        at_infinity=1.0,
        at_zero=1.0,
    ),
    "jeffreys": Generator(
        h=lambda u, m: (u - 1) * m.log(u),
        slope=lambda u, m: 1 + m.log(u) - 1 / u,
        integrand=lambda q, p: _kl(q, p) + _kl(p, q),
    ),
    "softened_reverse_kl": Generator(
        h=lambda u, m: (1 + u) * m.log((1 + u) / (2 * u)),
        slope=lambda u, m: m.log((1 + u) / (2 * u)) - 1 / u,
        integrand=lambda q, p: 2 * _kl((q + p) / 2, q),
        at_infinity=-LOG2,
    ),
    "neyman": _NEYMAN,
    "weighted_js": weighted_js_generator(0.3),
    **{f"alpha_{order:g}": alpha_generator(order) for order in ALPHA_ORDERS},
    "user": _NEYMAN,
}


# -- finite alphabets -------------------------------------------------------------------------------------------------


def simplex(k: int, seed: int, concentration: float = 2.0) -> np.ndarray:
    """Return a random distribution on k letters, all of them positive."""
    return np.random.default_rng(seed).dirichlet(np.full(k, concentration))


def letters(probabilities: Any) -> Particles:
    """Return a distribution on the letters 0..K-1 as particles."""
    w = torch.as_tensor(np.asarray(probabilities), dtype=torch.float64)
    return Particles(torch.arange(len(w), dtype=torch.float64)[:, None], w.log(), w.log())


def divergence(name: str, q: np.ndarray, p: np.ndarray) -> float:
    """Return D(q, p) on a finite alphabet by its integral."""
    return float(GENERATORS[name].integrand(q, p).sum())


def entropy(q: np.ndarray) -> float:
    """Return H(q) in nats."""
    return float(special.entr(q).sum())


def conjugate_by_search(name: str | Generator, t: np.ndarray, p: np.ndarray) -> float:
    r"""Return :math:`\max_{q\ge0}\sum_k t_k q_k - D(q,p)`, letter by letter, by golden section over log(q/p)."""
    g, total = name if isinstance(name, Generator) else GENERATORS[name], 0.0
    for t_k, p_k in zip(t, p, strict=True):
        best = optimize.minimize_scalar(
            lambda s, t_k=t_k: g.h(math.exp(s), math) - t_k * math.exp(s),
            bounds=(-45, 45),
            method="bounded",
            options={"xatol": 1e-11},
        )
        at_zero = g.at_zero  # u = 0 is a candidate of its own
        total -= p_k * min(best.fun, at_zero)
    return total


def probability_conjugate_by_search(
    name: str, t: np.ndarray, p: np.ndarray, t_outside: np.ndarray | None = None
) -> tuple[float, np.ndarray]:
    r"""Return :math:`\max_q\sum_k t_k q_k - D(q,p)` over probability vectors, and q, by sequential programming.

    Args:
        name: row of GENERATORS.
        t: f/beta on the letters of p.
        p: probabilities, positive.
        t_outside: f/beta on further letters, where p is zero and a unit of mass costs h'(inf).
    """
    g = GENERATORS[name]
    extra = np.zeros(0) if t_outside is None else np.asarray(t_outside)
    n, everything = len(p), np.concatenate([t, extra])
    cost_outside = g.at_infinity if len(extra) else 0.0

    def loss(q: np.ndarray) -> float:
        return float((p * g.h(q[:n] / p, np)).sum() + cost_outside * q[n:].sum() - everything @ q)

    def slope(q: np.ndarray) -> np.ndarray:
        return np.concatenate([g.slope(q[:n] / p, np), np.full(len(extra), cost_outside)]) - everything

    best = None
    for start in (np.concatenate([p, 0 * extra]), np.full(len(everything), 1 / len(everything))):
        found = optimize.minimize(
            loss,
            np.clip(start, 1e-9, 1),
            jac=slope,
            method="SLSQP",
            bounds=[(1e-14, 1)] * len(everything),
            constraints={"type": "eq", "fun": lambda q: q.sum() - 1, "jac": np.ones_like},
            options={"ftol": 1e-15, "maxiter": 2000},
        )
        if best is None or found.fun < best.fun:
            best = found

    # The same in log-coordinates, where stiff rows are well scaled; each search bounds the maximum from below.
    def in_logs(z: np.ndarray) -> tuple[float, np.ndarray]:
        q = special.softmax(z)
        g_q = slope(q)
        return loss(q), q * (g_q - q @ g_q)

    start = np.log(np.clip(best.x, 1e-12, 1))
    again = optimize.minimize(in_logs, start, jac=True, method="BFGS", options={"gtol": 1e-12, "maxiter": 2000})
    if again.fun < best.fun:
        return -float(again.fun), special.softmax(again.x)
    return -float(best.fun), best.x


def renyi(order: float, q: np.ndarray, p: np.ndarray) -> float:
    """Return the Renyi divergence on a finite alphabet, KL at order 1; q need not have mass one."""
    if order == 1:
        return float(special.rel_entr(q, p).sum())
    return float(np.log((q**order * p ** (1 - order)).sum()) / (order - 1))


def renyi_gaussians(order: float, m1: float, s1: float, m2: float, s2: float) -> float:
    """Return the Renyi divergence of N(m1, s1^2) from N(m2, s2^2) (Gil, Alajaji, Linder 2013, Table 2)."""
    if order == 1:
        return math.log(s2 / s1) + (s1 * s1 + (m1 - m2) ** 2) / (2 * s2 * s2) - 0.5
    s = order * s2 * s2 + (1 - order) * s1 * s1
    if s <= 0:
        return math.inf
    return math.log(s2 / s1) + math.log(s2 * s2 / s) / (2 * (order - 1)) + order * (m1 - m2) ** 2 / (2 * s)


def total_variation(q: np.ndarray, p: np.ndarray) -> float:
    """Return half the sum of absolute differences."""
    return float(np.abs(np.asarray(q) - np.asarray(p)).sum() / 2)


# -- Gaussians --------------------------------------------------------------------------------------------------------


class GaussianPair(NamedTuple):
    """Two normal laws on the nodes of a quadrature rule (trapezoidal: it converges exponentially for them)."""

    x: np.ndarray
    step: float
    log_q: np.ndarray
    log_p: np.ndarray

    def particles(self) -> Particles:
        """Return p as particles with its true log-density."""
        log_p = torch.as_tensor(self.log_p)
        return Particles(torch.as_tensor(self.x)[:, None], (log_p.exp() * self.step).log(), log_p)


def gaussian_pair(m1: float, s1: float, m2: float, s2: float, step: float = 0.02, width: float = 12.0) -> GaussianPair:
    """Return N(m1, s1^2) as q and N(m2, s2^2) as p on nodes that reach ``width`` deviations past both means."""
    reach = width * max(s1, s2)
    x = np.arange(min(m1, m2) - reach, max(m1, m2) + reach + step / 2, step)
    return GaussianPair(x, step, stats.norm.logpdf(x, m1, s1), stats.norm.logpdf(x, m2, s2))


def gaussian_closed_forms(m1: float, s1: float, m2: float, s2: float) -> dict[str, float]:
    """Return D(N(m1, s1^2), N(m2, s2^2)) for every row that has a closed form there."""

    def kl(a: float, s: float, b: float, r: float) -> float:
        return math.log(r / s) + (s * s + (a - b) ** 2) / (2 * r * r) - 0.5

    def chi2(a: float, s: float, b: float, r: float) -> float:
        spread = 2 * r * r - s * s
        return math.inf if spread <= 0 else r * r / (s * spread**0.5) * math.exp((a - b) ** 2 / spread) - 1

    def alpha(a: float) -> float:  # from the integral of q^a p^(1-a)
        s = a * s2 * s2 + (1 - a) * s1 * s1
        if s <= 0:
            return math.inf
        integral = s1 ** (1 - a) * s2**a / math.sqrt(s) * math.exp(-a * (1 - a) * (m1 - m2) ** 2 / (2 * s))
        return (integral - 1) / (a * (a - 1))

    affinity = math.sqrt(2 * s1 * s2 / (s1**2 + s2**2)) * math.exp(-((m1 - m2) ** 2) / (4 * (s1**2 + s2**2)))
    forward, backward = kl(m1, s1, m2, s2), kl(m2, s2, m1, s1)
    return {
        "kl": forward,
        "reverse_kl": backward,
        "jeffreys": forward + backward,
        "squared_hellinger": 2 - 2 * affinity,
        "pearson": chi2(m1, s1, m2, s2),
        "neyman": chi2(m2, s2, m1, s1),
        "alpha_0": backward,
        "alpha_1": forward,
        **{f"alpha_{order:g}": alpha(order) for order in ALPHA_ORDERS if order not in (0, 1)},
    }


class TiltedGaussian(NamedTuple):
    """The solution of the inner minimum for Gaussian p and quadratic f: q = N(mean, variance)."""

    mean: float
    variance: float
    entropy: float
    divergence: float
    f_q: float
    minimum: float


def tilted_gaussian(
    mu: float, s: float, a: float, b: float, alpha: float, beta: float, entropy_weight: float
) -> TiltedGaussian:
    r"""Return the minimiser of :math:`-\alpha H(q)+\beta D(q,p)-E_q f`, p = N(mu, s^2), f = a x - b x^2/2.

    D = CE - c H with c = entropy_weight, hence :math:`q\propto\exp((\beta\log p+f)/\tau)`, a normal law.
    """
    tau = alpha + entropy_weight * beta
    precision = (beta / s**2 + b) / tau
    mean, variance = (beta * mu / s**2 + a) / tau / precision, 1 / precision
    h = 0.5 * math.log(2 * math.pi * math.e * variance)
    cross = 0.5 * math.log(2 * math.pi * s * s) + (variance + (mean - mu) ** 2) / (2 * s * s)
    d, f_q = cross - entropy_weight * h, a * mean - b * (variance + mean**2) / 2
    return TiltedGaussian(mean, variance, h, d, f_q, -alpha * h + beta * d - f_q)


# -- differences ------------------------------------------------------------------------------------------------------


def directional(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, step: float = 1e-5) -> tuple:
    """Return a random unit direction (own seed) and the central difference of f along it."""
    e = torch.as_tensor(np.random.default_rng(17).standard_normal(tuple(x.shape)))
    e = e / e.norm()
    return e, (f(x.detach() + step * e) - f(x.detach() - step * e)) / (2 * step)


def central_difference(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, step: float = 1e-5) -> torch.Tensor:
    """Return the gradient of a scalar function by central differences: error step^2 f'''/6 + eps |f| / step."""
    x = x.detach()
    gradient = torch.zeros_like(x)
    for i in range(x.numel()):
        e = torch.zeros_like(x).flatten()
        e[i] = step
        e = e.reshape(x.shape)
        gradient.view(-1)[i] = (f(x + e) - f(x - e)) / (2 * step)
    return gradient


def critic_outputs(k: int, seed: int, scale: float) -> torch.Tensor:
    """Return critic outputs for k letters, shape (k,)."""
    return scale * torch.as_tensor(np.random.default_rng(seed).standard_normal(k))


# -- transport --------------------------------------------------------------------------------------------------------


def transport_by_program(cost: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the least cost of a plan with marginals a and b, and the potential of a, by linear programming."""
    n, m = cost.shape
    rows, columns = np.kron(np.eye(n), np.ones((1, m))), np.kron(np.ones((1, n)), np.eye(m))
    found = optimize.linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([a, b]), method="highs")
    assert found.status == 0, found.message
    return float(found.fun), found.eqlin.marginals[:n]


def pairwise_cost(x: Any, y: Any, order: float) -> np.ndarray:
    """Return |x_i - y_j|^order, shape (N, M)."""
    gap = np.asarray(x)[:, None] - np.asarray(y)[None]
    return np.sqrt((gap**2).sum(-1)) ** order
