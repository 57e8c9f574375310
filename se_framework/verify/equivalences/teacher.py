r"""Claims on the q-step with alpha > 0, :math:`q^*\propto\exp((\beta\log p + f)/\tau)`, and on q = data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy import optimize
from torch.distributions import Normal

from divergences import KL, CrossEntropy
from models import Affine, RealNVP
from models.laws import Particles
from se_framework.equation.auxiliary import Dual, Empirical, Tilted
from se_framework.equation.equation import StandardEquation
from se_framework.verify import references as ref
from se_framework.verify.alphabet import equation, scores, simplex, terms, theta_slope, tilt, value
from se_framework.verify.claims import Comparison, at_most, claim, equal, rate

Q, P, F = simplex(seed=21), simplex(seed=22), scores(seed=23)


def _normal(log_weights: np.ndarray) -> np.ndarray:
    """Return exp of it with sum one."""
    weights = np.exp(log_weights - np.max(log_weights))
    return weights / weights.sum()


def _teacher(alpha: float, beta: float, p: np.ndarray = P, kl: bool = False) -> StandardEquation:
    """Return the equation whose q-step has a closed form."""
    return equation(KL() if kl else CrossEntropy(), p, Tilted(), alpha=alpha, beta=beta)


def _minimum(of: StandardEquation, f: np.ndarray, data: np.ndarray = Q) -> float:
    """Return min over q of -alpha H + beta D - E_q f: the scalar less its last term."""
    return value(of, data, f) - data @ f


@claim("min_q -alpha H + beta CE - E_q f = -alpha log sum exp((beta log p + f)/alpha)", "Hu and Xing 2022")
def teacher_value() -> Iterator[Comparison]:
    for alpha, beta in ((1.0, 1.0), (0.5, 1.0), (2.0, 0.3), (0.2, 3.0)):
        truth = -alpha * np.log(np.exp((beta * np.log(P) + F) / alpha).sum())
        yield equal(f"alpha {alpha}, beta {beta}", _minimum(_teacher(alpha, beta), F), truth)


@claim("that minimum is what a direct search over q finds", "Hu and Xing 2022")
def teacher_against_search() -> Iterator[Comparison]:
    for alpha, beta, c in ((0.5, 1.0, 0), (2.0, 0.3, 0), (0.5, 1.0, 1), (2.0, 0.3, 1)):

        def loss(a: np.ndarray, alpha: float = alpha, beta: float = beta, c: int = c) -> np.ndarray:
            q = np.exp(a) / np.exp(a).sum()
            return ((alpha + c * beta) * q * np.log(q) - beta * q * np.log(P) - q * F).sum()

        found = optimize.minimize(
            loss, np.zeros(len(P)), jac=lambda a, loss=loss: ref.complex_slope(loss, a), options={"gtol": 1e-11}
        )
        yield equal(f"alpha {alpha}, beta {beta}, c {c}", _minimum(_teacher(alpha, beta, kl=bool(c)), F), found.fun)


@claim("q* is proportional to exp((beta log p + f)/alpha) under CE, to .../(alpha + beta) under KL", "Hu and Xing 2022")
def teacher_solution() -> Iterator[Comparison]:
    for alpha, beta in ((1.0, 1.0), (0.5, 1.0), (2.0, 0.3)):
        tilted = beta * np.log(P) + F
        yield equal(f"CE, {alpha}, {beta}", tilt(_teacher(alpha, beta), Q, F), _normal(tilted / alpha))
        kl = tilt(_teacher(alpha, beta, kl=True), Q, F)
        yield equal(f"KL, {alpha}, {beta}", kl, _normal(tilted / (alpha + beta)))


@claim("the record is that of q*: H, D and E_q f by their sums", "Hu and Xing 2022")
def teacher_record() -> Iterator[Comparison]:
    for kl in (False, True):
        q = _normal((0.7 * np.log(P) + F) / (0.4 + 0.7 * kl))
        row = terms(_teacher(0.4, 0.7, kl=kl), Q, F)
        entropy, cross = -(q * np.log(q)).sum(), -(q * np.log(P)).sum()
        yield equal(f"H, kl={kl}", row.entropy, entropy)
        yield equal(f"D, kl={kl}", row.divergence, cross - entropy * kl)
        yield equal(f"E_q f, kl={kl}", row.f_q, q @ F)
        yield equal(f"total, kl={kl}", row.total, -0.4 * entropy + 0.7 * (cross - entropy * kl) - q @ F + Q @ F)


@claim("alpha = 0, beta = 1 under KL is alpha = beta = 1 under CE, for q and for the value", "Hu and Xing 2022")
def two_routes_to_one_q() -> Iterator[Comparison]:
    yield equal("q", tilt(_teacher(1.0, 1.0), Q, F), tilt(equation(KL(), P, Dual(normalised=True)), Q, F))
    # KL's link adds one to f, which the probability dual does not see.
    yield equal("value", _minimum(_teacher(1.0, 1.0), F),
                value(equation(KL(), P, Dual(normalised=True)), Q, F) - Q @ F)  # fmt: skip


@claim("biconjugation with alpha: max_f min_q = -alpha H(pd) + beta D(pd, p)", "Jaynes 1957; Fenchel-Moreau")
def maximum_entropy_duality() -> Iterator[Comparison]:
    for kl in (False, True):
        alpha, beta = 0.6, 1.4
        best = (alpha + kl * beta) * np.log(Q) - beta * np.log(P)
        of = _teacher(alpha, beta, kl=kl)
        entropy = -(Q * np.log(Q)).sum()
        truth = -alpha * entropy + beta * (-(Q * np.log(P)).sum() - kl * entropy)
        yield equal(f"kl={kl}", value(of, Q, best), truth)
        yield equal(f"q is the data, kl={kl}", tilt(of, Q, best), Q)
        for seed in range(3):
            other = value(of, Q, best + 0.3 * scores(seed=seed))
            yield at_most(f"kl={kl}, critic {seed}", other, truth, tolerance=1e-12)


@claim("alpha = beta = 1, p a prior, f a log-likelihood: q is the posterior, the minimum -log evidence", "Zellner 1988")
def bayes() -> Iterator[Comparison]:
    likelihood = simplex(seed=31)
    of = _teacher(1.0, 1.0)
    yield equal("posterior", tilt(of, Q, np.log(likelihood)), P * likelihood / (P @ likelihood))
    yield equal("evidence", _minimum(of, np.log(likelihood)), -np.log(P @ likelihood))


@claim("the free energy at any q is -log evidence plus KL(q, posterior): an ELBO", "Neal and Hinton 1998")
def free_energy() -> Iterator[Comparison]:
    likelihood, q = simplex(seed=31), simplex(seed=32)
    posterior = P * likelihood / (P @ likelihood)
    elbo = (q * (np.log(P * likelihood) - np.log(q))).sum()
    yield equal("gap", -elbo - _minimum(_teacher(1.0, 1.0), np.log(likelihood)), ref.kl(q, posterior))


@claim("temperature gamma: q is proportional to posterior^(1/gamma)", "Samdani et al. 2012, unified EM")
def unified_em() -> Iterator[Comparison]:
    likelihood = simplex(seed=31)
    posterior = P * likelihood / (P @ likelihood)
    for gamma in (0.25, 1.0, 4.0):
        q = tilt(_teacher(gamma, 1.0), Q, np.log(likelihood))
        yield equal(f"gamma {gamma}", q, _normal(np.log(posterior) / gamma))


@claim("alpha -> 0: q collapses to argmax(beta log p + f), the minimum to -max", "Hu and Xing 2022; hard EM")
def hard_limit() -> Iterator[Comparison]:
    tilted = np.log(P) + F
    q = tilt(_teacher(1e-3, 1.0), Q, F)
    yield equal("q", q, np.eye(len(P))[tilted.argmax()])
    yield equal("minimum", _minimum(_teacher(1e-3, 1.0), F), -tilted.max())
    first, second = np.sort(tilted)[[-1, -2]]
    at = np.array([0.1, 0.08, 0.06]) * (first - second)
    gaps = [-np.log(-(_minimum(_teacher(t, 1.0), F) + first) / t) for t in at]  # gap = t exp(-(difference)/t)
    yield rate("the exponent's size", at, gaps, -1.0)


@claim("alpha -> inf: q tends to the uniform law, like 1/alpha", "Hu and Xing 2022")
def uniform_limit() -> Iterator[Comparison]:
    at = [1e2, 3e2, 1e3]
    yield rate("TV", at, [np.abs(tilt(_teacher(t, 1.0), Q, F) - 1 / len(P)).sum() / 2 for t in at], -1.0)


@claim("under CE, beta only scales theta's step, argmin_theta is the same: theta_slope/beta at q", "Hu and Xing 2022")
def beta_scales_theta() -> Iterator[Comparison]:
    for alpha, beta in ((1.0, 0.5), (0.3, 2.0)):
        q = _normal((beta * np.log(P) + F) / alpha)
        yield equal(f"{alpha}, {beta}", theta_slope(_teacher(alpha, beta), Q, F) / beta, P - q)


@claim("f = log empirical, beta -> 0: q tends to the empirical law, linearly in beta", "Hu and Xing 2022")
def supervised_limit() -> Iterator[Comparison]:
    at = [1e-2, 1e-3, 1e-4]
    gaps = [np.abs(tilt(_teacher(1.0, b), Q, np.log(Q)) - Q).sum() / 2 for b in at]
    yield rate("TV", at, gaps, 1.0)


@claim("q = data: theta's gradient is p - pd, that of CE and of KL(pd, p)", "maximum likelihood")
def maximum_likelihood() -> Iterator[Comparison]:
    of = equation(CrossEntropy(), P, Empirical(), alpha=1.0, beta=1.0)
    slope = theta_slope(of, Q)
    yield equal("p - pd", slope, P - Q)
    yield equal("KL", slope, ref.logit_slope(lambda p: ref.kl(Q, p), P))
    yield equal("value", value(of, Q), -(Q * np.log(P)).sum())


@claim("the likelihood of a flow is log N(z) + log|det dz/dx|", "Dinh et al. 2017, eq. 3")
def change_of_variables() -> Iterator[Comparison]:
    for name, model in (("affine", Affine((3,))), ("couplings", RealNVP((3,), couplings=4, width=8))):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        law, x = model(), torch.randn(5, 3)

        def inverse(row: torch.Tensor, law: object = law) -> torch.Tensor:
            return law.pull(row[None])[0][0]  # type: ignore[attr-defined]

        jacobian = torch.stack([torch.func.jacrev(inverse)(row) for row in x])
        z = torch.stack([inverse(row) for row in x])
        truth = Normal(0.0, 1.0).log_prob(z).sum(1) + torch.linalg.slogdet(jacobian)[1]
        of = StandardEquation(model=model, divergence=CrossEntropy(), auxiliary=Empirical(), alpha=1.0)
        yield equal(name, of.scalar(Particles(x), None), -truth.mean())


@claim("posterior regularisation: q = p e^(-lambda b)/Z with lambda from a 1-D dual", "Ganchev et al. 2010")
def posterior_regularisation() -> Iterator[Comparison]:
    feature = scores(seed=33)
    bound = 0.5 * (P @ feature) + 0.5 * feature.min()  # below its mean under p: the constraint E_q b <= bound is active

    def dual(multiplier: float) -> float:
        return -np.log(P @ np.exp(-multiplier * feature)) - multiplier * bound

    best = optimize.minimize_scalar(lambda t: -dual(t), bounds=(0, 100), method="bounded", options={"xatol": 1e-12}).x
    q = tilt(_teacher(1.0, 1.0), Q, -best * feature)
    yield equal("constraint", q @ feature, bound)
    yield equal("duality", ref.kl(q, P), dual(best))


@claim("rewards: q is proportional to e^(R/tau), and theta's gradient is p - q", "Norouzi et al. 2016")
def reward_augmentation() -> Iterator[Comparison]:
    tau, beta = 0.7, 1e-9
    q = _normal(F / tau)
    of = _teacher(tau, beta)
    yield equal("q", tilt(of, Q, F), q)
    yield equal("gradient", theta_slope(of, Q, F) / beta, P - q)


@claim("f = log R, alpha = beta = 1: theta ascends on log E_p R", "policy gradient")
def policy_gradient() -> Iterator[Comparison]:
    reward = np.exp(F)
    truth = -ref.logit_slope(lambda p: np.log((p * reward).sum()), P)
    yield equal("gradient", theta_slope(_teacher(1.0, 1.0), Q, np.log(reward)), truth)


@claim("soft values: the minimum is -rho log E_p e^(f/rho), between -max f and -E_p f", "Levine 2018")
def soft_value() -> Iterator[Comparison]:
    for rho in (0.5, 1.0, 3.0):
        yield equal(f"rho {rho}", _minimum(_teacher(rho, rho), F), -rho * np.log(P @ np.exp(F / rho)))
    at = [1e-2, 3e-3, 1e-3]
    yield rate("rho -> 0", at, [_minimum(_teacher(t, t), F) + F.max() for t in at], 1.0)
    at = [1e2, 1e3, 1e4]
    yield rate("rho -> inf", at, [_minimum(_teacher(t, t), F) + P @ F for t in at], -1.0)
    slope = ref.logit_slope(lambda p: -(p * F).sum(), P)
    gaps = [np.abs(theta_slope(_teacher(t, t), Q, F) - slope).max() for t in at]
    yield rate("gradient in theta to the policy gradient", at, gaps, -1.0)


@claim("online rounds q <- q e^(f_t/rho)/Z are multiplicative weights", "Freund and Schapire 1997")
def multiplicative_weights() -> Iterator[Comparison]:
    rho, q = 2.5, np.full(6, 1 / 6)
    rewards = [scores(seed=40 + t) for t in range(12)]
    for f in rewards:
        q = tilt(_teacher(rho, rho, p=q), Q, f)
    yield equal("12 rounds", q, _normal(np.sum(rewards, axis=0) / rho))


@claim("distillation at a high temperature matches centred logits: T^2 grad -> (s - t)/K, like 1/T", "Hinton 2015")
def distillation() -> Iterator[Comparison]:
    student, teacher = scores(seed=51), scores(seed=52)
    student, teacher = student - student.mean(), teacher - teacher.mean()
    at, gaps = [10.0, 30.0, 100.0], []
    for t in at:
        of = equation(CrossEntropy(), _normal(student / t), Empirical(), alpha=1.0)
        slope = theta_slope(of, _normal(teacher / t)) / t  # the logits enter over T
        gaps.append(np.abs(t**2 * slope - (student - teacher) / len(student)).max())
    yield rate("gap", at, gaps, -1.0)


@claim(
    "a cross-entropy of factors is the sum of their cross-entropies: the chain rule", "the chain rule of probability"
)
def chain_rule() -> Iterator[Comparison]:
    joint, model = simplex(12, seed=61).reshape(3, 4), simplex(12, seed=62).reshape(3, 4)

    def cross_entropy(data: np.ndarray, p: np.ndarray) -> float:
        of = equation(CrossEntropy(), p / p.sum(), Empirical(), alpha=1.0)
        return value(of, data / data.sum())

    factors = sum(joint[i].sum() * cross_entropy(joint[i], model[i]) for i in range(3))
    yield equal("CE", cross_entropy(joint.ravel(), model.ravel()), cross_entropy(joint.sum(1), model.sum(1)) + factors)


@claim(
    "EM: with q = pd(x) posterior(z|x), the M-step's gradient is that of the marginal likelihood",
    "Dempster, Laird, Rubin 1977",
)
def em_gradient() -> Iterator[Comparison]:
    # Joint letters (x, z), 3 x 2. The x-marginal of q is the data's: one teacher step for each x over z.
    p, data = simplex(6, seed=71), simplex(3, seed=72)
    joint = p.reshape(3, 2)
    q = np.concatenate([data[i] * tilt(_teacher(1.0, 1.0, p=np.full(2, 0.5)), np.full(2, 0.5), np.log(joint[i]))
                        for i in range(3)])  # fmt: skip
    slope = theta_slope(equation(CrossEntropy(), p, Empirical(), alpha=1.0), q)
    truth = ref.logit_slope(lambda p: -(data * np.log(p.reshape(3, 2).sum(1))).sum(), p)
    yield equal("gradient", slope, truth)


@claim("EM never lowers the likelihood", "Dempster, Laird, Rubin 1977")
def em_is_monotone() -> Iterator[Comparison]:
    # Their table 1: 125, 18, 20, 34 with cells (1/2 + t/4, (1-t)/4, (1-t)/4, t/4); the first cell hides two.
    counts, t = np.array([125, 18, 20, 34]), np.float64(0.5)
    printed = [0.608247423, 0.624321050, 0.626488879, 0.626777322, 0.626815632, 0.626820719, 0.626821394, 0.626821484]
    before: np.ndarray = np.array(-np.inf)
    for step, truth in enumerate(printed):
        hidden = tilt(_teacher(1.0, 1.0, p=np.full(2, 0.5)), np.full(2, 0.5), np.log([0.5, t / 4]))
        successes = counts[0] * hidden[1] + counts[3]
        t = successes / (successes + counts[1] + counts[2])
        now = counts @ np.log([0.5 + t / 4, (1 - t) / 4, (1 - t) / 4, t / 4])
        yield equal(f"step {step + 1}", t, truth, tolerance=1e-9)
        yield at_most(f"likelihood {step + 1}", before, now)
        before = now
