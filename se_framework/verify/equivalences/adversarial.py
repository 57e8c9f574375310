"""Claims on the games in use: what generator and critic do when one of them is at its optimum."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from divergences import GAN, KL, JensenShannon, ReverseKL, SoftenedReverseKL, Surrogate
from divergences.checks.running import MODEL
from models import Affine
from se_framework.equation.auxiliary import Dual
from se_framework.equation.equation import StandardEquation
from se_framework.verify import references as ref
from se_framework.verify.alphabet import best_critic, equation, phi_slope, scores, simplex, theta_slope, value
from se_framework.verify.claims import Comparison, at_most, claim, equal, rate

Q, P = simplex(seed=11), simplex(seed=12)
BEST = np.log(Q / P)


def _game() -> StandardEquation:
    return equation(GAN(), P)


def _slope(functional: ref.Functional) -> np.ndarray:
    """Return the gradient of D(pd, p) in the model's logits, by complex steps."""
    return ref.logit_slope(lambda p: functional(Q, p), P)


@claim("max over critics of E_pd log s(v) + E_p log s(-v) = -log 4 + 2 JSD", "Goodfellow et al. 2014, theorem 1")
def optimum_of_the_first_game() -> Iterator[Comparison]:
    truth = -np.log(4) + 2 * ref.jensen_shannon(Q, P)
    yield equal("by ascent", value(_game(), Q, best_critic(_game(), Q)), truth)
    v = scores(seed=4)
    sigmoid = 1 / (1 + np.exp(-v))
    yield equal("at any critic", value(_game(), Q, v), Q @ np.log(sigmoid) + P @ np.log(1 - sigmoid))


@claim("the game's value is -log 4 at p = pd, and above it elsewhere", "Goodfellow et al. 2014, theorem 1")
def value_at_equilibrium() -> Iterator[Comparison]:
    at_rest = equation(GAN(), Q)
    yield equal("p = pd", value(at_rest, Q, np.zeros(len(Q))), -np.log(4))
    yield equal("theta rests", theta_slope(at_rest, Q), np.zeros(len(Q)))
    yield equal("phi rests", phi_slope(at_rest, Q), np.zeros(len(Q)))
    yield at_most("p != pd", -np.log(4), value(_game(), Q, BEST))


@claim("the critic's optimum is s(v) = pd/(pd + p)", "Goodfellow et al. 2014, proposition 1")
def optimal_discriminator() -> Iterator[Comparison]:
    v = best_critic(_game(), Q)
    yield equal("sigmoid", 1 / (1 + np.exp(-v)), Q / (Q + P))


@claim(
    "the saturating generator's gradient at the optimal critic is that of 2 JSD",
    "Goodfellow et al. 2014, theorem 1, with Danskin",
)
def saturating_gradient() -> Iterator[Comparison]:
    yield equal("gradient", theta_slope(_game(), Q, BEST), _slope(lambda q, p: 2 * ref.jensen_shannon(q, p)))


@claim(
    "the non-saturating generator's gradient at the optimal critic is that of KL(p, pd) - 2 JSD",
    "Arjovsky and Bottou 2017, theorem 2.5",
)
def non_saturating_gradient() -> Iterator[Comparison]:
    slope = theta_slope(_game(), Q, BEST, view=SoftenedReverseKL())
    yield equal("gradient", slope, _slope(lambda q, p: ref.kl(p, q) - 2 * ref.jensen_shannon(q, p)))
    by_hand = ref.logit_slope(lambda p: -(p * np.log(Q / (Q + P))).sum(), P)
    yield equal("it is that of -E_p log s(v)", slope, by_hand)


@claim("it is as well the gradient of 2 KL(m, pd), the softened reverse KL", "Shannon et al. 2020")
def non_saturating_is_softened_reverse_kl() -> Iterator[Comparison]:
    slope = theta_slope(_game(), Q, BEST, view=SoftenedReverseKL())
    yield equal("gradient", slope, _slope(ref.softened_reverse_kl))
    own = equation(SoftenedReverseKL(), P)
    yield equal("its own game has this value", value(own, Q, BEST), ref.softened_reverse_kl(Q, P))
    yield equal("and this critic", best_critic(own, Q), BEST)


@claim(
    "the value -E_p log s(v) is 2 KL(m, pd) + KL(pd, m) + log 2, not that divergence",
    "by hand from Arjovsky and Bottou 2017, 2.2",
)
def non_saturating_value() -> Iterator[Comparison]:
    m = (P + Q) / 2
    truth = 2 * ref.kl(m, Q) + ref.kl(Q, m) + np.log(2)
    # Minus the conjugate of the softened reverse KL is E_p softplus(-v) + 1 - log 2; subtract pd's part and the shift.
    link = Q @ SoftenedReverseKL().link(torch.as_tensor(BEST)).cpu().numpy()
    ours = value(_game(), Q, BEST, view=SoftenedReverseKL()) - link - 1 + np.log(2)
    yield equal("value", ours, truth)


@claim("theta through KL's view at the optimal critic follows the gradient of KL(pd, p)", "Goodfellow 2014")
def likelihood_generator() -> Iterator[Comparison]:
    yield equal("gradient", theta_slope(_game(), Q, BEST, view=KL()), _slope(ref.kl))


@claim("theta through reverse KL's view, E_p(-v), follows the gradient of KL(p, pd)", "Sonderby et al. 2017")
def log_ratio_generator() -> Iterator[Comparison]:
    yield equal("gradient", theta_slope(_game(), Q, BEST, view=ReverseKL()), _slope(lambda q, p: ref.kl(p, q)))


@claim(
    "the class-posterior lemma: with an even prior it is half the non-saturating gradient", "Hu et al. 2018, lemma 1"
)
def posterior_lemma() -> Iterator[Comparison]:
    def lemma(p: np.ndarray) -> np.ndarray:  # p(x|y=0) = p, p(x|y=1) = pd, p(y) = 1/2, q^r the flipped posterior
        reversed_joint = np.stack([Q / (Q + P), P / (Q + P)])  # q^r(y|x), frozen
        return -(p * np.log(reversed_joint[0])).sum() / 2 - (Q * np.log(reversed_joint[1])).sum() / 2

    ours = theta_slope(_game(), Q, BEST, view=SoftenedReverseKL()) / 2
    yield equal("gradient", ours, ref.logit_slope(lemma, P))
    bound = _slope(lambda q, p: ref.kl(p, q) / 2 - ref.jensen_shannon(q, p))
    yield equal("KL less JSD", ours, bound)


@claim("least squares: the critic's least loss is 1 - LeCam/2 (labels -1, 1)", "Mao et al. 2017")
def least_squares_is_le_cam() -> Iterator[Comparison]:
    of = equation(Surrogate("least_squares"), P)
    best = Q / (Q + P)
    # phi's maximum is LeCam/8 - 1/4 with labels 0 and 1, losses halved: the loss on -1, 1 is eight times as large.
    loss = -4 * value(of, Q, best)
    yield equal("loss", loss, 1 - ref.le_cam(Q, P) / 2)
    yield equal("stationary", phi_slope(of, Q, best), np.zeros(len(Q)))
    yield equal("by ascent", best_critic(of, Q), best)


@claim("least squares: theta descends on E_p (v - 1)^2/2, v = pd/(pd + p)", "Mao et al. 2017, eq. 2")
def least_squares_generator() -> Iterator[Comparison]:
    of = equation(Surrogate("least_squares"), P)
    best = Q / (Q + P)
    slope = theta_slope(of, Q, best, view=of.divergence.view(MODEL))
    yield equal("gradient", slope, ref.logit_slope(lambda p: (p * (best - 1) ** 2).sum() / 2, P))


@claim("hinge: the critic's least loss is 2 - 2 TV, at v = sign(pd - p)", "Lim and Ye 2017")
def hinge_is_total_variation() -> Iterator[Comparison]:
    of, sign = equation(Surrogate("hinge"), P), np.sign(Q - P)
    yield equal("loss", -value(of, Q, sign), 2 - 2 * ref.total_variation(Q, P))
    for seed in range(5):
        yield at_most(f"critic {seed}", value(of, Q, scores(seed=seed)), value(of, Q, sign))


@claim("hinge: theta's gradient at that critic is that of 2 TV", "Lim and Ye 2017")
def hinge_gradient() -> Iterator[Comparison]:
    of, sign = equation(Surrogate("hinge"), P), np.sign(Q - P)
    slope = theta_slope(of, Q, sign, view=of.divergence.view(MODEL))
    yield equal("gradient", slope, _slope(lambda q, p: 2 * ref.total_variation(q, p)))


@claim("the raised link: theta ascends on E_p h'(e^v) in the place of E_p h*(h'(e^v))", "Nowozin et al. 2016, 3.2")
def raised_link_generator() -> Iterator[Comparison]:
    for name, d, link in (
        ("gan", GAN(), -np.log1p(np.exp(-BEST))), ("kl", KL(), 1 + BEST), ("reverse_kl", ReverseKL(), -np.exp(-BEST)),
    ):  # fmt: skip
        of = equation(Surrogate("raised_link", of=d), P)
        slope = theta_slope(of, Q, BEST, view=of.divergence.view(MODEL))
        yield equal(name, slope, ref.model_slope(lambda link, p: -(p * link).sum(), link, P))
    yield equal("phi has D's own dual", value(equation(Surrogate("raised_link", of=GAN()), P), Q, BEST),
                value(_game(), Q, BEST))  # fmt: skip


@claim(
    "JSD of laws that do not overlap is log 2, and its gradient in theta vanishes", "Arjovsky et al. 2017, example 1"
)
def parallel_lines_saturate() -> Iterator[Comparison]:
    # Letters 0..2 hold the data, 3..5 the model: two lines apart. Zero weights would be NaN in a log: let them vanish.
    gaps, slopes, at = [], [], [1e-4, 1e-5, 1e-6]
    for t in at:
        q = np.array([1 - 3 * t] * 3 + [3 * t] * 3) / 3
        p = q[::-1].copy()
        of = equation(JensenShannon(), p)
        gaps.append(np.log(2) - value(of, q, np.log(q / p)))
        slopes.append(np.abs(theta_slope(of, q)).max())
    # d/dt of t log t: the exponent of t log(1/t) between 1e-4 and 1e-6 is 1 - 1/log(1/t).
    yield rate("gap", [t * np.log(1 / t) for t in at], gaps, 1.0)
    yield rate("gradient", [t * np.log(1 / t) for t in at], slopes, 1.0)


@claim("KL's game on a Gaussian model is at rest at the data's moments", "Nowozin et al. 2016, 4")
def kl_matches_moments() -> Iterator[Comparison]:
    # f-GAN's univariate mixture. The model's expectation is a trapezoidal sum over its latent variable, which converges
    # geometrically for an analytic integrand that vanishes at both ends.
    mean = 0.33 * -1 + 0.67 * 2
    std = np.sqrt(0.33 * (0.0625 + 1) + 0.67 * (2 + 4) - mean**2)
    z = torch.linspace(-12, 12, 6001)[:, None]
    weights = torch.exp(-0.5 * z.squeeze(1).square())
    model = Affine((1,), init_scale=float(std))
    with torch.no_grad():
        model.loc.fill_(mean)
    x = model().particles(z).x
    yield equal("x = mean + std z", x.squeeze(1), mean + std * z.squeeze(1))
    v = _mixture_log_ratio(x.squeeze(1), mean, std)  # a critic: its own numbers are frozen
    slopes = torch.autograd.grad(-(weights @ KL().conjugate(v)) / weights.sum(), [model.loc, model.log_diagonal])
    yield equal("rest", torch.cat(slopes), np.zeros(2))


def _mixture_log_ratio(x: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    """Return log(pd/p) of f-GAN's mixture and N(mean, std^2)."""

    def log_normal(m: float, s: float) -> torch.Tensor:
        return -0.5 * ((x - m) / s) ** 2 - np.log(s)

    data = torch.logaddexp(log_normal(-1, 0.25) + np.log(0.33), log_normal(2, np.sqrt(2)) + np.log(0.67))
    return data - log_normal(mean, std)


@claim(
    "over probabilities the game has the same critic up to a constant in f, and the same D", "Agrawal and Horel 2021"
)
def game_over_probabilities() -> Iterator[Comparison]:
    of = equation(GAN(), P, Dual(normalised=True))
    v = best_critic(of, Q, start=0.1 * scores(seed=2))
    f = -np.logaddexp(0, -v)
    truth = -np.logaddexp(0, -BEST)
    yield equal("f but for a constant", f - f[0], truth - truth[0])
    yield equal("value", value(of, Q), 2 * ref.jensen_shannon(Q, P) - np.log(4))
