r"""Claims on the conjugate :math:`D^*_p`: what the inner minimum over q is, and where the critic ends."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from divergences import (
    GAN,
    KL,
    Alpha,
    FDivergence,
    Jeffreys,
    JensenShannon,
    LeCam,
    Neyman,
    Pearson,
    Renyi,
    ReverseKL,
    SoftenedReverseKL,
    SquaredHellinger,
    WeightedJensenShannon,
)
from se_framework.equation.auxiliary import Dual
from se_framework.verify import references as ref
from se_framework.verify.alphabet import (
    DUALS,
    best_critic,
    cloud,
    equation,
    phi_slope,
    scores,
    simplex,
    terms,
    theta_slope,
    tilt,
    value,
)
from se_framework.verify.claims import Comparison, at_most, claim, equal

TABLE: dict[str, FDivergence] = {
    "kl": KL(), "reverse_kl": ReverseKL(), "jensen_shannon": JensenShannon(), "gan": GAN(), "pearson": Pearson(),
    "squared_hellinger": SquaredHellinger(), "jeffreys": Jeffreys(), "neyman": Neyman(),
    "softened_reverse_kl": SoftenedReverseKL(), "le_cam": LeCam(),
}  # fmt: skip
FAMILIES = {f"alpha({a:g})": (Alpha(a), ref.alpha(a)) for a in (-1.0, 0.0, 0.3, 0.5, 1.0, 1.5, 2.0, 3.0)} | {
    f"weighted_js({w:g})": (WeightedJensenShannon(w), ref.weighted_jensen_shannon(w)) for w in (0.1, 0.3, 0.5, 0.8)
}
SMOOTH: dict[str, tuple[FDivergence, ref.Functional]] = {
    name: (d, ref.INTEGRALS[name]) for name, d in TABLE.items()
} | FAMILIES
"""Every smooth f-divergence with its integral, written independently."""
Q, P, V = simplex(seed=1), simplex(seed=2), scores(seed=3)
BEST = np.log(Q / P)


@claim("min_q D - E_q f + E_pd f = D_h(pd, p) at f = h'(pd/p)", "Nowozin et al. 2016, eq. 4-6; Nguyen et al. 2010")
def envelope_value() -> Iterator[Comparison]:
    for name, (d, integral) in SMOOTH.items():
        for which, dual in DUALS.items():
            yield equal(f"{name}, {which}", value(equation(d, P, dual), Q, BEST), integral(Q, P))


@claim(
    "the gradient of -D*_p(f) in theta, f frozen at its optimum, is that of D_h(pd, p)",
    "Danskin 1966; Nowozin et al. 2016, 2.3",
)
def envelope_gradient() -> Iterator[Comparison]:
    for name, (d, integral) in SMOOTH.items():
        truth = ref.model_slope(integral, Q, P)
        for which, dual in DUALS.items():
            yield equal(f"{name}, {which}", theta_slope(equation(d, P, dual), Q, BEST), truth)


@claim("the gradient in phi vanishes at v = log(pd/p), for every smooth D and both duals", "Nowozin et al. 2016, eq. 5")
def optimal_critic_is_stationary() -> Iterator[Comparison]:
    for name, (d, _) in SMOOTH.items():
        for which, dual in DUALS.items():
            yield equal(f"{name}, {which}", phi_slope(equation(d, P, dual), Q, BEST), np.zeros(len(Q)))


@claim("ascending the scalar from v = 0 ends at v = log(pd/p)", "Nowozin et al. 2016, eq. 5")
def optimal_critic_is_found() -> Iterator[Comparison]:
    for name, (d, _) in SMOOTH.items():
        yield equal(name, best_critic(equation(d, P), Q), BEST)


@claim("max_phi min_q = -alpha H(pd) + beta D(pd, p): biconjugation", "Fenchel-Moreau")
def biconjugation() -> Iterator[Comparison]:
    for name in (*TABLE, "alpha(0.3)", "weighted_js(0.3)"):
        d, integral = SMOOTH[name]
        for which, dual in DUALS.items():
            of = equation(d, P, dual, beta=1.7)
            yield equal(f"{name}, {which}", value(of, Q, best_critic(of, Q)), 1.7 * integral(Q, P))


@claim(
    "min_q beta D(q, p) - E_q f over q >= 0, at any f, is what a direct search over q finds",
    "Fenchel's conjugate; Nguyen, Wainwright, Jordan 2010",
)
def conjugate_over_measures() -> Iterator[Comparison]:
    for name, d in TABLE.items():
        yield _against_search(name, d, probability=False)


@claim("the same over probability q", "Ruderman et al. 2012; Agrawal and Horel 2021")
def conjugate_over_probabilities() -> Iterator[Comparison]:
    for name, d in TABLE.items():
        yield _against_search(name, d, probability=True)


def _against_search(name: str, d: FDivergence, probability: bool) -> Comparison:
    h, beta, v = ref.GENERATORS[name], 0.8, 0.4 * V
    slope = ref.complex_slope(lambda u: h(u).sum(), np.exp(v))

    def divergence(q: np.ndarray, p: np.ndarray) -> np.ndarray:
        return (p * h(q / p)).sum()

    best = ref.conjugate_by_search(divergence, P, slope, probability)
    of = equation(d, P, Dual(normalised=probability), beta=beta)
    return equal(name, value(of, Q, v), -beta * best + beta * Q @ slope)


@claim("E_pd f - D*_p(f) over q >= 0 <= the same over probabilities <= D, for any f", "Ruderman et al. 2012, section 3")
def order_of_the_bounds() -> Iterator[Comparison]:
    for name, (d, integral) in SMOOTH.items():
        for seed in range(5):
            v = 0.5 * scores(seed=seed)
            loose, tight = (value(equation(d, P, dual), Q, v) for dual in DUALS.values())
            yield at_most(f"{name}, {seed}", [loose, tight], [tight, integral(Q, P)], tolerance=1e-12)


@claim(
    "over probabilities D* moves by c when f does: the scalar is blind to constants in f",
    "Fenchel's conjugate; Nguyen, Wainwright, Jordan 2010",
)
def shift_equivariance() -> Iterator[Comparison]:
    for name, d in TABLE.items():
        of, shift = equation(d, P, Dual(normalised=True)), -0.05
        f = d.link(torch.as_tensor(0.3 * V)) + shift
        moved = d.inverse_link(f).cpu().numpy()
        yield equal(name, value(of, Q, moved), value(of, Q, 0.3 * V))


@claim(
    "beta D(q*, p) - E_q* f = -beta D*_p(f/beta): the terms on record add up to the scalar",
    "Fenchel's conjugate; Nguyen, Wainwright, Jordan 2010",
)
def record_adds_up() -> Iterator[Comparison]:
    for name, (d, _) in SMOOTH.items():
        for which, dual in DUALS.items():
            of = equation(d, P, dual, beta=1.3)
            row = terms(of, Q, 0.5 * V)
            added = 1.3 * row.divergence - row.f_q + row.f_data  # type: ignore[operator]
            yield equal(f"{name}, {which}", added, value(of, Q), tolerance=1e-10)


@claim("q* = p (h*)'(f - lambda): a law, and the D on record is D_h(q*, p)", "Agrawal and Horel 2021, section 4")
def tilted_law() -> Iterator[Comparison]:
    for name, (d, integral) in SMOOTH.items():
        of = equation(d, P, Dual(normalised=True))
        q = tilt(of, Q, 0.5 * V)
        yield equal(f"{name}, mass", q.sum(), 1.0)
        yield equal(f"{name}, D", terms(of, Q).divergence, integral(q, P))


@claim(
    "Jeffreys is KL plus reverse KL, and GAN's D is 2 JSD - log 4, with their gradients",
    "definitions; Nowozin et al. 2016, table 1",
)
def sums_of_divergences() -> Iterator[Comparison]:
    for name, whole, parts, constant in (
        ("jeffreys", Jeffreys(), [(1.0, KL()), (1.0, ReverseKL())], 0.0),
        ("gan", GAN(), [(2.0, JensenShannon())], -np.log(4)),
    ):
        total = sum(w * value(equation(d, P), Q, BEST) for w, d in parts) + constant
        yield equal(name, value(equation(whole, P), Q, BEST), total)
        slope = np.sum([w * ref.model_slope(_integral_of(d), Q, P) for w, d in parts], axis=0)
        yield equal(f"gradient, {name}", theta_slope(equation(whole, P), Q, BEST), slope)


def _integral_of(d: FDivergence) -> ref.Functional:
    return next(integral for known, integral in SMOOTH.values() if type(known) is type(d))


@claim("a critic trained under one D is read under another: v is the same log-ratio", "Poole et al. 2016, section 3")
def views_share_the_critic() -> Iterator[Comparison]:
    v = best_critic(equation(GAN(), P), Q)
    for name, (d, integral) in SMOOTH.items():
        yield equal(name, value(equation(GAN(), P), Q, v, view=d), integral(Q, P))


@claim("the game of Renyi's divergence, order up to 1, has its value and gradient", "Birrell et al. 2023, theorem 2.2")
def renyi_game() -> Iterator[Comparison]:
    for order in (0.3, 0.5, 0.9, 1.0):
        integral = renyi(order)
        for which, dual in DUALS.items():
            of = equation(Renyi(order), P, dual)
            v = best_critic(of, Q)
            yield equal(f"value, {order:g}, {which}", value(of, Q, v), integral(Q, P))
            yield equal(f"theta, {order:g}, {which}", theta_slope(of, Q, v), ref.model_slope(integral, Q, P))
            yield equal(f"log-ratio, {order:g}, {which}", np.log(tilt(of, Q, v) / P), BEST)
            yield at_most(f"bound, {order:g}, {which}", value(of, Q, 0.5 * V), integral(Q, P))


@claim(
    "Renyi's own bound is tight at the log-ratio but for a constant, at every order", "Birrell et al. 2021, theorem 2.1"
)
def renyi_bound() -> Iterator[Comparison]:
    data, model = cloud(Q), cloud(P)
    for order in (0.5, 1.0, 2.0, 5.0):
        for shift in (0.0, 1.3):
            v = torch.as_tensor(BEST + shift).to(data.x.device)
            yield equal(f"order {order:g}", Renyi(order).variational_bound(v, v, data, model), renyi(order)(Q, P))
        other = torch.as_tensor(V).to(data.x.device)
        bound = Renyi(order).variational_bound(other, other, data, model)
        yield at_most(f"any critic, {order:g}", bound, renyi(order)(Q, P))


def renyi(order: float) -> ref.Functional:
    """Return log sum q^a p^(1-a)/(a - 1), KL at a = 1."""
    if order == 1:
        return ref.kl
    return lambda q, p: np.log((q**order * p ** (1 - order)).sum()) / (order - 1)
