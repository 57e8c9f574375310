"""Claims on transport costs and kernel distances, on finite alphabets and clouds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy import optimize

from divergences import KL, MMD, Divergence, EnergyDistance, FisherIPM, Sinkhorn, Wasserstein1, Wasserstein1D
from models import Affine, GroupSortCritic, SpectralCritic
from models.laws import Particles
from se_framework.equation.auxiliary import Dual, Empirical
from se_framework.equation.auxiliary.transported import Transported
from se_framework.equation.equation import StandardEquation
from se_framework.equation.metric import Metric
from se_framework.equation.penalties import R1, GradientPenalty
from se_framework.verify import references as ref
from se_framework.verify.alphabet import cloud, equation, scores, simplex, theta_slope, value
from se_framework.verify.claims import Comparison, at_most, claim, equal, rate, sampled

Q, P = simplex(seed=81), simplex(seed=82)
LETTERS = np.arange(len(Q))
DISTANCE = np.abs(LETTERS[:, None] - LETTERS[None]).astype(float)
POTENTIAL, W1 = ref.potential(Q, P, DISTANCE)


def _critic_game(p: np.ndarray = P, beta: float = 1.0) -> StandardEquation:
    """Return W1's equation with any function of a letter as its metric: the claim sees to its slope."""
    return equation(Wasserstein1(), p, beta=beta, allow=["lipschitz"])


@claim("W1 by linear programming, by distribution functions and by quantiles", "Villani 2003, 2.18")
def one_dimensional_transport() -> Iterator[Comparison]:
    of = _critic_game()
    ours = value(of, Q, POTENTIAL)
    yield equal("coupling", ours, ref.transport(Q, P, DISTANCE))
    yield equal("distribution functions", ours, ref.steps(Q, P))
    yield equal("quantiles", ours, ref.quantiles(Q, P))


@claim("max over 1-Lipschitz f of E_pd f - E_p f = W1", "Kantorovich and Rubinstein; Arjovsky et al. 2017, eq. 2")
def kantorovich_rubinstein() -> Iterator[Comparison]:
    of, pairs = _critic_game(), [(i, i + 1) for i in range(len(Q) - 1)]
    slopes = np.array([np.eye(len(Q))[i] - np.eye(len(Q))[j] for i, j in pairs])

    def loss(v: np.ndarray) -> float:
        return -value(of, Q, v)

    bound = optimize.LinearConstraint(slopes, -1, 1)  # neighbours: letters lie on a line
    found = optimize.minimize(loss, np.zeros(len(Q)), method="SLSQP", constraints=[bound], options={"ftol": 1e-14})
    yield equal("by ascent on our scalar", -found.fun, ref.transport(Q, P, DISTANCE))
    for seed in range(5):
        v = scores(seed=seed)
        v = v / np.abs(np.diff(v)).max()
        yield at_most(f"critic {seed}", value(of, Q, v), W1)
    yield equal("beta", value(_critic_game(beta=2.5), Q, POTENTIAL), 2.5 * W1)


@claim("max over any f of E_pd f - E_p f^c = the transport cost, f^c(x) = max_y f(y) - c(x, y)", "Villani 2003, 1.3")
def c_transform_duality() -> Iterator[Comparison]:
    for order in (1.0, 1.5, 2.0):
        cost = DISTANCE**order
        divergence = Wasserstein1() if order == 1 else Wasserstein1D(order=order, root=False)
        of = equation(divergence, P, Transported())
        yield equal(f"order {order:g}", value(of, Q, ref.c_potential(Q, P, cost)), ref.transport(Q, P, cost))
        for seed in range(3):
            any_f = 2 * scores(seed=seed)
            transform = (any_f[None] - cost).max(1)
            yield equal(f"order {order:g}, f {seed}", value(of, Q, any_f), Q @ any_f - P @ transform)
            yield at_most(f"order {order:g}, f {seed}, bound", value(of, Q, any_f), ref.transport(Q, P, cost))


@claim(
    "f^c = f exactly where f is 1-Lipschitz: the constraint and the c-transform give one scalar", "Villani 2003, 1.14"
)
def c_transform_of_lipschitz_functions() -> Iterator[Comparison]:
    free = equation(Wasserstein1(), P, Transported())
    for seed in range(3):
        f = scores(seed=seed)
        f = f / np.abs(np.diff(f)).max()
        yield equal(f"value {seed}", value(free, Q, f), value(_critic_game(), Q, f))
        yield equal(f"theta {seed}", theta_slope(free, Q, f), theta_slope(_critic_game(), Q, f))
        yield at_most(f"steeper {seed}", value(free, Q, 2 * f), value(_critic_game(), Q, 2 * f))


@claim("transport of any order on the line couples quantiles", "Villani 2003, 2.18; Santambrogio 2015, 2.9")
def transport_of_any_order() -> Iterator[Comparison]:
    for order in (1.0, 1.5, 2.0, 3.0):
        for root in (False, True):
            power = 1 / order if root else 1
            ours = _primal(Wasserstein1D(order=order, root=root))
            yield equal(f"order {order:g}, root={root}", ours, ref.transport(Q, P, DISTANCE**order) ** power)
            yield equal(f"quantiles, {order:g}, root={root}", ours, ref.quantiles(Q, P, order) ** power)


@claim("the Fisher IPM over all functions is the root of twice LeCam's distance", "Mroueh and Sercu 2017, theorem 1")
def fisher_is_le_cam() -> Iterator[Comparison]:
    # One coordinate for each letter: every function is linear in this embedding.
    yield equal("value", _primal(FisherIPM(ridge=0.0), points=np.eye(len(Q))), np.sqrt(2 * ref.le_cam(Q, P)))


@claim("the gradient in theta at the best 1-Lipschitz critic is that of W1", "Arjovsky et al. 2017, theorem 3")
def transport_gradient() -> Iterator[Comparison]:
    # Between changes of the sign of F - G, W1 = sum of sign(F - G) (F - G) is linear in p.
    def smooth(p: np.ndarray) -> np.ndarray:
        gap = np.cumsum(Q - p)[:-1]
        return (gap * np.sign(gap.real)).sum()

    yield equal("gradient", theta_slope(_critic_game(), Q, POTENTIAL), ref.logit_slope(smooth, P))


@claim("parallel lines: W1 is the distance |theta| and its gradient the sign", "Arjovsky et al. 2017, example 1")
def parallel_lines() -> Iterator[Comparison]:
    heights = np.linspace(0, 1, 7)
    for theta in (-0.8, 0.3, 2.0):
        model = Affine((2,))
        x = torch.as_tensor(np.stack([np.full(7, theta), heights], 1)).to(model.loc.device).requires_grad_()
        data = torch.as_tensor(np.stack([np.zeros(7), heights], 1)).to(x.device)
        # The potential is linear: -sign(theta) x_1; a critic of one orthonormal layer can hold it.
        v, v_data = -np.sign(theta) * x[:, 0], -np.sign(theta) * data[:, 0]
        w1 = Wasserstein1()
        scalar = w1.link(v_data).mean() - w1.mean_conjugate(v, Particles(x))
        cost = np.linalg.norm(data.cpu().numpy()[:, None] - x.detach().cpu().numpy()[None], axis=2)
        yield equal(f"value at {theta}", scalar, ref.transport(np.full(7, 1 / 7), np.full(7, 1 / 7), cost))
        (slope,) = torch.autograd.grad(scalar, x)
        yield equal(f"slope at {theta}", slope.sum(0)[0], np.sign(theta))


@claim("KL with 1-Lipschitz f over probabilities: max = min over eta of KL(eta, p) + W1(pd, eta)",
       "Wu et al. 2020; Birrell et al. 2022, theorem 15")  # fmt: skip
def lipschitz_kl_is_an_infimal_convolution() -> Iterator[Comparison]:
    of = equation(KL(), P, Dual(normalised=True))
    k = len(Q)

    def loss(v: np.ndarray) -> float:
        return -value(of, Q, v)

    neighbours = optimize.LinearConstraint(np.diff(np.eye(k), axis=0), -1, 1)
    ours = optimize.minimize(loss, np.zeros(k), method="SLSQP", constraints=[neighbours], options={"ftol": 1e-15})

    # eta = exp(a)/sum, W1 through slacks s >= |F - G|: a smooth convex programme, by SLSQP too but in the primal.
    def split(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return z[:k], z[k:]

    def primal(z: np.ndarray) -> float:
        eta, slack = split(z)
        return float((eta * np.log(eta / P)).sum() + slack.sum())

    def gaps(z: np.ndarray) -> np.ndarray:
        eta, slack = split(z)
        gap = np.cumsum(Q - eta)[:-1]
        return np.r_[slack - gap, slack + gap]

    start = np.r_[(Q + P) / 2, np.abs(np.cumsum(Q - (Q + P) / 2))[:-1] + 0.01]
    theirs = optimize.minimize(
        primal, start, method="SLSQP", bounds=[(1e-9, 1)] * k + [(0, None)] * (k - 1), options={"ftol": 1e-15},
        constraints=[{"type": "eq", "fun": lambda z: split(z)[0].sum() - 1}, {"type": "ineq", "fun": gaps}],
    )  # fmt: skip
    yield equal("value", -ours.fun, theirs.fun)
    yield at_most("below KL and W1", [-ours.fun, -ours.fun], [ref.kl(Q, P), W1])


def _primal(divergence: Divergence, q: np.ndarray = Q, p: np.ndarray = P, points: np.ndarray | None = None) -> float:
    """Return D between laws on letters, or on points, as a float."""
    return float(divergence.primal(cloud(q, points), None, cloud(p, points)))


@claim("Sinkhorn's divergence tends to the transport cost as blur -> 0, like blur^p", "Feydy 2019, theorem 1")
def sinkhorn_sharp_limit() -> Iterator[Comparison]:
    # Four points apart, on which the annealed iteration has converged at these widths: what is left is
    # blur^p (KL(plan, q x p) - H(q)/2 - H(p)/2).
    points, q, p = np.random.default_rng(1).standard_normal((4, 2)), simplex(4, seed=1), simplex(4, seed=2)
    for exponent in (1, 2):
        cost = np.linalg.norm(points[:, None] - points[None], axis=2) ** exponent / exponent
        truth, at = ref.transport(q, p, cost), [0.01, 0.02, 0.04]
        gaps = [_primal(Sinkhorn(exponent, b ** (1 / exponent), scaling=0.99), q, p, points) - truth for b in at]
        yield rate(f"p = {exponent}", at, gaps, 1.0)


@claim("Sinkhorn's divergence tends to half the MMD^2 of -|x-y|^p as blur -> inf, like blur^-p", "Feydy 2019")
def sinkhorn_blunt_limit() -> Iterator[Comparison]:
    for exponent in (1, 2):
        cost = DISTANCE**exponent / exponent
        truth = -((Q - P) @ cost @ (Q - P)) / 2
        at = [1e2, 2e2, 4e2]  # blur^p
        gaps = [_primal(Sinkhorn(p=exponent, blur=b ** (1 / exponent), scaling=0.99)) - truth for b in at]
        yield rate(f"p = {exponent}", at, gaps, -1.0)


@claim("the energy distance is 2 int (F - G)^2 in one dimension", "Szekely and Rizzo 2004")
def energy_distance_by_distribution_functions() -> Iterator[Comparison]:
    gap = np.cumsum(Q - P)[:-1]
    yield equal("letters", _primal(EnergyDistance()), 2 * (gap**2).sum())
    points = np.sort(scores(letters=6, seed=7))[:, None]
    truth = 2 * (gap**2 * np.diff(points[:, 0])).sum()
    yield equal("on a line", _primal(EnergyDistance(), points=points), truth)


@claim("MMD^2 is the quadratic form of (q - p) in the kernel", "Gretton et al. 2012, lemma 6")
def mmd_is_a_quadratic_form() -> Iterator[Comparison]:
    for sigma in (0.5, 2.0):
        kernel = np.exp(-(DISTANCE**2) / (2 * sigma**2))
        yield equal(f"Gaussian {sigma}", _primal(MMD(bandwidths=(sigma,))), (Q - P) @ kernel @ (Q - P))


@claim("moment matching: theta's gradient is that of a critic frozen at twice the witness mu_pd - mu_p",
       "Li et al. 2015; Gretton et al. 2012, 2.3")  # fmt: skip
def witness() -> Iterator[Comparison]:
    kernel = np.exp(-(DISTANCE**2) / (2 * 1.5**2))
    of = equation(MMD(bandwidths=(1.5,)), P, Empirical(), alpha=1.0)
    slope = theta_slope(of, Q)
    yield equal("gradient of MMD^2", slope, ref.logit_slope(lambda p: (Q - p) @ kernel @ (Q - p), P))
    frozen = theta_slope(_critic_game(), Q, 2 * kernel @ (Q - P))
    yield equal("frozen critic", frozen, slope)


@claim(
    "the U-statistic of MMD^2 has mean MMD^2, the V-statistic is high by its diagonal", "Gretton et al. 2012, lemma 6"
)
def statistics_of_mmd() -> Iterator[Comparison]:
    sigma, n, repeats = 1.5, 12, 400
    kernel = np.exp(-(DISTANCE**2) / (2 * sigma**2))
    truth = float((Q - P) @ kernel @ (Q - P))
    for unbiased in (True, False):
        d = MMD(bandwidths=(sigma,), unbiased=unbiased)
        values = []
        for _ in range(repeats):
            x, y = (torch.multinomial(torch.as_tensor(law), n, replacement=True)[:, None].double() for law in (Q, P))
            values.append(float(d.primal(Particles(x), None, Particles(y))))
        bias = 0.0 if unbiased else ((1 - Q @ kernel @ Q) + (1 - P @ kernel @ P)) / n
        se = float(np.std(values, ddof=1) / np.sqrt(repeats))
        yield sampled(f"unbiased={unbiased}", np.mean(values), se, truth + bias)


@claim("critics declared 1-Lipschitz have no steeper chord", "Anil et al. 2019; Miyato et al. 2018")
def lipschitz_by_construction() -> Iterator[Comparison]:
    for critic in (GroupSortCritic((3,), width=16), SpectralCritic((3,), width=16)):
        x = torch.randn(200, 3)
        y = x + 0.1 * torch.randn(200, 3)
        v, w = (Metric(critic)(t) for t in (x, y))
        steepest = ((v - w).abs() / (x - y).norm(dim=1)).max()
        slack = 0.0 if isinstance(critic, GroupSortCritic) else 0.01  # n^(1/2048) per layer, its docstring
        yield at_most(type(critic).__name__, steepest, 1.0 + slack, tolerance=1e-9)


@claim(
    "gradient penalties of v = a.x + |x|^2 b/2 by hand: norms over all axes", "Gulrajani 2017; Mescheder 2018, eq. 9"
)
def penalties_by_hand() -> Iterator[Comparison]:
    a, b = torch.tensor([[0.5, -0.6], [0.3, 0.2]]), 0.4  # gradient norms on both sides of one
    x, y, mix = torch.randn(9, 2, 2), torch.randn(9, 2, 2), torch.rand(9)

    def critic(x: torch.Tensor) -> torch.Tensor:
        return (a * x).sum((1, 2)) + b * x.square().sum((1, 2)) / 2

    def norm(x: torch.Tensor) -> torch.Tensor:
        return (a + b * x).square().sum((1, 2)).sqrt()

    between = mix[:, None, None] * x + (1 - mix)[:, None, None] * y
    yield equal("two-sided", GradientPenalty(weight=3.0)(critic, x, y, mix), 3 * (norm(between) - 1).square().mean())
    one = GradientPenalty(weight=3.0, sides="one")(critic, x, y, mix)
    yield equal("one-sided", one, 3 * (norm(between) - 1).clamp(min=0).square().mean())
    yield equal("R1", R1(weight=0.4)(critic, x, y, mix), 0.2 * norm(x).square().mean())
    both = R1(weight=0.4, fake=True)(critic, x, y, mix)
    yield equal("R1 and R2", both, 0.2 * (norm(x).square().mean() + norm(y).square().mean()))
    lazy = GradientPenalty(weight=3.0, every=4)(critic, x, y, mix)
    yield equal("every fourth step, four times", lazy, 12 * (norm(between) - 1).square().mean())


@claim("with penalty weight w, shifted clouds a distance s apart read s (1 + s/(2w))", "Petzka et al. 2018; our docs")
def bias_of_the_penalty() -> Iterator[Comparison]:
    # Along the shift v = k x: phi ascends on beta s k - w (k - 1)^2, whose maximum is k = 1 + s/(2w).
    for weight, shift in ((10.0, 1.0), (10.0, 4.0), (100.0, 4.0)):
        x, y, mix = torch.zeros(3, 1) + shift, torch.zeros(3, 1), torch.full((3,), 0.5)
        critic, w1 = torch.nn.Linear(1, 1, bias=False), Wasserstein1()
        torch.nn.init.ones_(critic.weight)  # on the right side of zero, where the two-sided penalty has a kink
        for _ in range(3):  # Newton's steps on a quadratic
            metric = Metric(torch.nn.Sequential(critic, torch.nn.Flatten(0)), GradientPenalty(weight=weight))
            scalar = w1.link(metric(x)).mean() - w1.mean_conjugate(metric(y), Particles(y))
            loss = scalar - metric.penalty(metric, x, y, mix)  # type: ignore[misc]
            (first,) = torch.autograd.grad(loss, critic.weight, create_graph=True)
            (second,) = torch.autograd.grad(first, critic.weight)
            with torch.no_grad():
                critic.weight.sub_(first / second)
        slope = critic.weight.squeeze()
        yield equal(f"weight {weight:g}, shift {shift:g}", shift * slope, shift * (1 + shift / (2 * weight)))
