r"""Single divergences and families: closed forms of their duals, special cases, limits and their rates."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from divergences import (
    KL,
    Alpha,
    Pearson,
    TotalVariation,
    WeightedJensenShannon,
)
from se_framework.equation.auxiliary import Dual
from se_framework.verify import references as ref
from se_framework.verify.alphabet import (
    DUALS,
    equation,
    phi_slope,
    scores,
    theta_slope,
    value,
)
from se_framework.verify.claims import Comparison, claim, equal, rate
from se_framework.verify.equivalences.duality import BEST, TABLE, P, Q, V


@claim("over probabilities KL's dual is log E_p e^f", "Donsker and Varadhan 1983")
def donsker_varadhan() -> Iterator[Comparison]:
    f = 1 + V  # KL's link
    yield equal("value", value(equation(KL(), P, Dual(normalised=True)), Q, V), Q @ f - np.log(P @ np.exp(f)))


@claim(
    "max over c of E_pd (f + c) - E_p e^(f+c-1) is E_pd f - log E_p e^f", "Ruderman et al. 2012; Belghazi et al. 2018"
)
def best_shift_is_donsker_varadhan() -> Iterator[Comparison]:
    of = equation(KL(), P)
    shift = -np.log(P @ np.exp(V))
    yield equal("value", value(of, Q, V + shift), Q @ V - np.log(P @ np.exp(V)))
    yield equal("stationary in c", phi_slope(of, Q, V + shift).sum(), 0.0)


@claim("the gap between the two KL bounds is z - 1 - log z, z = E_p e^v", "Ruderman et al. 2012")
def gap_between_kl_bounds() -> Iterator[Comparison]:
    for seed in range(4):
        v = scores(seed=seed)
        z = P @ np.exp(v)
        loose, tight = (value(equation(KL(), P, dual), Q, v) for dual in DUALS.values())
        yield equal(f"seed {seed}", tight - loose, z - 1 - np.log(z))


@claim("KL(pd, p) less the probability bound is KL(pd, q*), q* = p e^v/Z", "Donsker and Varadhan 1983")
def kl_gap_is_a_kl() -> Iterator[Comparison]:
    q = P * np.exp(V) / (P @ np.exp(V))
    yield equal("value", ref.kl(Q, P) - value(equation(KL(), P, Dual(True)), Q, V), ref.kl(Q, q))


@claim(
    "over probabilities Pearson's dual is E_p f + Var_p f/4, while f - E_p f >= -2", "Agrawal and Horel 2021, table 2"
)
def pearson_is_mean_and_variance() -> Iterator[Comparison]:
    v = 0.2 * V
    f = 2 * np.expm1(v)
    assert np.min(f - P @ f) >= -2
    truth = Q @ f - P @ f - (P @ f**2 - (P @ f) ** 2) / 4
    yield equal("value", value(equation(Pearson(), P, Dual(True)), Q, v), truth)


@claim(
    "over probabilities TV's dual is E_p max(f, sup f - 1); TV is the IPM of functions of range 1",
    "Sriperumbudur et al. 2009, section 2",
)
def total_variation_is_an_ipm() -> Iterator[Comparison]:
    f = np.tanh(V) / 2
    truth = Q @ f - P @ np.maximum(f, f.max() - 1)
    yield equal("dual", value(equation(TotalVariation(), P, Dual(True)), Q, V), truth)
    for which, dual in DUALS.items():
        at_sign = value(equation(TotalVariation(), P, dual), Q, 40 * np.sign(Q - P))
        yield equal(f"at the sign, {which}", at_sign, np.abs(Q - P).sum() / 2)


@claim(
    "TV's bound grows to TV as the critic grows along sign(pd - p): the gap falls like e^(-2s)",
    "Sriperumbudur et al. 2009, section 2",
)
def total_variation_rate() -> Iterator[Comparison]:
    sizes = np.array([3.0, 4.0, 5.0])
    of, truth = equation(TotalVariation(), P), np.abs(Q - P).sum() / 2
    gaps = [truth - value(of, Q, s * np.sign(Q - P)) for s in sizes]
    yield rate("in e^s", np.exp(sizes), gaps, -2.0)


@claim(
    "the alpha family holds KL, reverse KL, half of Pearson and Neyman, and twice Hellinger", "Cressie and Read 1984"
)
def alpha_special_cases() -> Iterator[Comparison]:
    for order, name, factor in (
        (1.0, "kl", 1.0), (0.0, "reverse_kl", 1.0), (2.0, "pearson", 0.5), (-1.0, "neyman", 0.5),
        (0.5, "squared_hellinger", 2.0),
    ):  # fmt: skip
        of = equation(Alpha(order), P)
        yield equal(f"alpha({order:g})", value(of, Q, BEST), factor * ref.INTEGRALS[name](Q, P))
        slope = factor * ref.model_slope(ref.INTEGRALS[name], Q, P)
        yield equal(f"gradient, alpha({order:g})", theta_slope(of, Q, BEST), slope)


@claim("alpha(1 - t) tends to KL, alpha(t) to reverse KL, linearly in t", "Cressie and Read 1984")
def alpha_limits() -> Iterator[Comparison]:
    at = [1e-2, 3e-3, 1e-3]
    for name, order, truth in (("kl", lambda t: 1 - t, ref.kl(Q, P)), ("reverse_kl", lambda t: t, ref.kl(P, Q))):
        gaps = [float(value(equation(Alpha(order(t)), P), Q, BEST)) - truth for t in at]
        yield rate(name, at, gaps, 1.0)


@claim(
    "weighted Jensen-Shannon over its weight tends to KL, linearly in the weight",
    "definitions; Nowozin et al. 2016, table 1",
)
def weighted_js_limit() -> Iterator[Comparison]:
    at = [1e-3, 3e-4, 1e-4]
    gaps = [value(equation(WeightedJensenShannon(w), P), Q, BEST) / w - ref.kl(Q, P) for w in at]
    yield rate("w -> 0", at, gaps, 1.0)


@claim("near p every D_h is h''(1)/2 chi-square: the relative error is of first order", "Csiszar")
def local_expansion() -> Iterator[Comparison]:
    direction = scores(seed=5) * P
    direction -= direction.sum() * P
    curvature = {
        "kl": 1.0, "reverse_kl": 1.0, "jensen_shannon": 0.25, "squared_hellinger": 0.5, "jeffreys": 2.0,
        "neyman": 2.0, "softened_reverse_kl": 0.5, "gan": 0.5, "le_cam": 1.0,
    }  # fmt: skip
    at = [1e-2, 5e-3, 2.5e-3]
    for name, second in curvature.items():
        ratios = []
        for t in at:
            q = P + t * direction
            chi2 = t**2 * (direction**2 / P).sum()
            d = value(equation(TABLE[name], P), q, np.log(q / P)) - TABLE[name].value_at_identity
            ratios.append(d / (second / 2 * chi2) - 1)
        yield rate(name, at, ratios, 1.0)
