"""Five games that one builds in an empty folder (``docs/prototyping.md``, sections 5 to 9) end at their optimum.

Who moves differs from game to game: a learned q as third player, chains in q and no theta, a loss for theta alone, two
networks that settle, a divergence between families. Each optimum has an oracle of its own: eigenvalues, enumeration, a
closed form, a convex program. Games are played as processes, from the page's own files by the page's own commands.
"""

import csv
import io
import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy import linalg, optimize, stats

import se_framework as se
from divergences import KL, OptimalTransport
from models import Particles, TabularCritic, TabularModel
from se_framework.equation.auxiliary import InnerProblem
from tests.support.oracles import z_score
from tests.support.page import Fit, code_lines, files_of, load, page_of, play, row_of

FILES = {5: "vae.py", 6: "chains.py", 7: "pairs.py", 8: "maps.py", 9: "lipschitz.py"}
PLAYERS = {5: {"q", "theta"}, 6: {"phi"}, 7: {"phi", "theta"}, 8: {"phi", "q"}, 9: {"phi"}}
FALSE_ALARM = 1e-3
game = pytest.mark.parametrize("number", FILES)


class Game(NamedTuple):
    """What a run found, and which players its record knows."""

    fit: Fit
    players: set[str]


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Return the game of a section, played when first asked for."""
    found = {}

    def of(number):
        if number not in found:
            folder = tmp_path_factory.mktemp(f"game{number}")
            fit = play(number, folder)
            with (folder / "run" / "metrics.csv").open() as file:
                columns = next(csv.reader(file))
            found[number] = Game(fit, {c.removesuffix("_objective") for c in columns if c.endswith("_objective")})
        return found[number]

    return of


def rows_of(number):
    """Return the training rows of a section's data, float64."""
    return load(number, FILES[number])["rows"]().train.double().numpy()


def frequencies(number):
    """Return the law of the letters among a section's training rows."""
    letters = rows_of(number).astype(int).ravel()
    return np.bincount(letters) / len(letters)


# -- the games end where they should ----------------------------------------------------------------------------------


@game
def test_the_players_are_the_parts_with_parameters(number, played):
    assert played(number).players == PLAYERS[number]


@game
def test_files_are_short_and_the_table_states_their_length_and_figures(number, played):
    """At most 60 lines of code an object's file, 25 an experiment; found and truth are the page's and the oracle's."""
    _, _, lines, _, found, truth = row_of(number)
    files, oracle = files_of(number), ORACLES[number]()
    assert int(lines) == code_lines(files[FILES[number]]) <= 60
    assert all(len(text.splitlines()) <= 25 for name, text in files.items() if name.endswith(".yaml"))
    stated = [[float(word) for word in cell.split(",")] for cell in (found, truth)]
    assert stated[0] == page_of(number).figures[: len(oracle)]
    assert stated[1] == pytest.approx(oracle, abs=6e-4)


def probabilistic_pca():
    """The least NLL of b + W z + s e, two latents: s^2 the mean of the discarded eigenvalues (Tipping, Bishop 1999)."""
    x = rows_of(5)
    values = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
    kept, noise = values[:2], values[2:].mean()
    return [(5 * math.log(2 * math.pi) + np.log(kept).sum() + 3 * math.log(noise) + 5) / 2]


def entropy():
    """The least NLL of any law of letters: the entropy of their frequencies."""
    return [stats.entropy(frequencies(6))]


def moments():
    """Mean and standard deviation of the rows."""
    return [rows_of(7).mean(), rows_of(7).std()]


SOURCE, TARGET = np.array([[1.0, 1.0], [1.0, 2.0]]), np.diag([4.0, 0.25])
MEAN = np.array([2.0, -1.0])


def bures():
    """W2^2 = |m|^2 + tr(S + T - 2 (S^1/2 T S^1/2)^1/2)."""
    root = linalg.sqrtm(SOURCE)
    return [MEAN @ MEAN + np.trace(SOURCE + TARGET - 2 * linalg.sqrtm(root @ TARGET @ root).real)]


def between(h, p, q):
    """Min over eta of sum p h(eta/p) + W1(q, eta) on the letters 0, 1, ...: a convex program with |F - G| as slacks."""
    k = len(p)

    def gaps(z):
        return np.cumsum(z[:k] - q)[:-1]

    constraints = [
        {"type": "eq", "fun": lambda z: z[:k].sum() - 1},
        {"type": "ineq", "fun": lambda z: z[k:] - gaps(z)},
        {"type": "ineq", "fun": lambda z: z[k:] + gaps(z)},
    ]
    start = np.concatenate([p, np.abs(np.cumsum(p - q))[:-1] + 0.1])
    found = optimize.minimize(
        lambda z: (p * h(z[:k] / p)).sum() + z[k:].sum(), start, method="SLSQP", constraints=constraints,
        bounds=[(1e-12, None)] * k + [(0, None)] * (k - 1), options={"ftol": 1e-14, "maxiter": 1000},
    )  # fmt: skip
    assert found.success
    return found.fun


def alpha(order):
    """Return the generator of the alpha divergence."""
    return lambda u: (u**order - 1 - order * (u - 1)) / (order * (order - 1))


FIXED = np.array([0.4, 0.3, 0.1, 0.1, 0.05, 0.05])


def inf_convolution():
    """The value between the alpha divergence of order 2 and W1."""
    return [between(alpha(2.0), FIXED, frequencies(9))]


ORACLES = {5: probabilistic_pca, 6: entropy, 7: moments, 8: bures, 9: inf_convolution}
ROUNDED = 1e-4
"""The page's figures have four decimals, and a float32 mean of some hundred terms below ten is right to 1e-5."""


def both(number, played):
    """Return the figures of run and page."""
    return played(number).fit.figures, page_of(number).figures


def test_the_variational_autoencoder_ends_at_probabilistic_pca(played):
    """Within 0.005 nats of the least NLL, and nothing below it."""
    (least,) = probabilistic_pca()
    for (nll,) in both(5, played):
        assert least - ROUNDED < nll < least + 0.005


def test_the_energy_model_is_the_law_of_the_data_and_its_chains_are_distributed_as_it(played):
    """The law is as near as the frequencies of 1,000 draws of the data would be, which is what one round's chains tell.

    That is: 2,000 times the excess of the NLL, and the chains' own statistic, lie below the quantile of chi-square(7).
    """
    law, limit = frequencies(6), stats.chi2.isf(FALSE_ALARM / 4, 7)
    for nll, *chains in both(6, played):
        assert -ROUNDED < nll - stats.entropy(law) < limit / 2000
        assert sum(chains) == 1000
        assert stats.chisquare(chains, 1000 * law).statistic < limit


def test_the_game_of_pairs_ends_at_the_law_of_the_data(played):
    """Mean and deviation within five percent of the deviation, as every short training here; the value is -log 2.

    For two normal laws whose mean and deviation differ by 5 % JSD over pairs is below KL of the pairs, 2 (0.05^2/2 +
    0.05^2) = 0.0075.
    """
    mean, deviation = moments()
    for figures in both(7, played):
        assert figures == pytest.approx([mean, deviation], abs=0.05 * deviation)
    for fit in (played(7).fit, page_of(7)):
        assert fit.value == pytest.approx(-math.log(2), abs=0.0075 + z_score(2) * fit.error)


def test_two_convex_networks_find_distance_and_map(played):
    """W2^2 within two percent; the map at 0, e1, e2 within a tenth of the target's deviation in each coordinate.

    The value of 200,000 points has a standard error of 0.2 %; a tenth of the deviation is 1 % of the variance.
    """
    (value,) = bures()
    root = linalg.sqrtm(SOURCE)
    inverse = np.linalg.inv(root)
    a = inverse @ linalg.sqrtm(root @ TARGET @ root).real @ inverse
    truth = np.array([[0, 0], [1, 0], [0, 1]]) @ a + MEAN
    for found, *points in both(8, played):
        assert found == pytest.approx(value, rel=0.02)
        assert (np.abs(np.reshape(points, (3, 2)) - truth) < 0.1 * np.sqrt(np.diag(TARGET))).all()


def test_the_divergence_between_families_is_the_convex_program(played):
    """A bound from below, as the critic is 1-Lipschitz by construction; and 0.001 from the value."""
    (value,) = inf_convolution()
    q = frequencies(9)
    assert value < min((FIXED * alpha(2.0)(q / FIXED)).sum(), np.abs(np.cumsum(q - FIXED)).sum())
    for (found,) in both(9, played):
        assert value - 1e-3 < found < value + 1e-5


# -- the objects themselves -------------------------------------------------------------------------------------------


def test_at_the_posterior_the_encoder_s_minimum_is_the_likelihood_whatever_is_drawn():
    """log p(x, z) - log q(z|x) = log p(x) for every z: at pPCA's optimum and posterior the value is the least NLL."""
    space, x = load(5, "vae.py"), torch.tensor(rows_of(5))
    model, q = space["LinearGaussian"]((5,)).double(), space["Encoder"]((5,)).double()
    values, vectors = torch.linalg.eigh(torch.cov(x.T, correction=0))
    noise = values[:3].mean()
    with torch.no_grad():
        model.weight.copy_(vectors[:, 3:] * (values[3:] - noise).sqrt())
        model.bias.copy_(x.mean(0))
        model.log_s.copy_(noise.log() / 2)
        precision = model.weight.T @ model.weight + noise * torch.eye(2, dtype=torch.float64)
        q.mean.weight.copy_(torch.linalg.solve(precision, model.weight.T))
        q.mean.bias.copy_(-q.mean.weight @ model.bias)
        q.log_s.copy_((noise / precision.diagonal()).log() / 2)
    equation = se.StandardEquation(model=model, auxiliary=q, alpha=1.0)
    for seed in range(3):
        e = torch.randn(len(x), 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        value = equation.minimum(Particles(x), None, draws={"auxiliary/own/e": e})
        assert float(value.detach()) == pytest.approx(*probabilistic_pca(), abs=1e-10)
    assert [role.name for role in equation.roles()] == ["q", "theta"]


def energy_model():
    """Return the equation of section 6, and a state that plays it."""
    space = load(6, "chains.py")
    torch.manual_seed(0)
    metric = se.Metric(TabularCritic(letters=8))
    q = space["Chains"]()
    equation = se.StandardEquation(model=space["Base"]((1,)), divergence=KL(), auxiliary=q, metric=metric)
    return se.TrainState(equation), space["rows"]()


def test_chains_go_on_bit_for_bit():
    """Six rounds, and three, a checkpoint through a file, three more: chains, scores and moments are the same."""

    def go_on(state, data, rounds):
        se.train(state, data, rounds=rounds, batch_size=100, log_every=0, progress=False)
        return state

    whole, half, rest = (energy_model() for _ in range(3))
    go_on(*whole, 6)
    file = io.BytesIO()
    torch.save(go_on(*half, 3).state_dict(), file)
    file.seek(0)
    rest[0].load_state_dict(torch.load(file, weights_only=True))
    go_on(*rest, 6)
    for (name, one), other in zip(
        whole[0].equation.state_dict().items(), rest[0].equation.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name
    assert not torch.equal(whole[0].equation.auxiliary.at, half[0].equation.auxiliary.at)
    moments = [s.players[0].optimizer.state_dict()["state"][0]["exp_avg_sq"] for s, _ in (whole, rest)]
    assert torch.equal(*moments)


@pytest.mark.parametrize(("a", "b"), [(0.0, 1.0), (0.3, 0.5)])
def test_a_step_of_the_chains_keeps_their_law(a, b):
    """The transition matrix, by all proposals and a grid of 4,000 acceptances (each entry to 1/8/4,000), keeps q."""
    space, grid = load(6, "chains.py"), 4000
    base, metric = TabularModel(letters=8), TabularCritic(letters=8)
    torch.nn.init.normal_(metric.scores), torch.nn.init.normal_(base.logits)
    letter, accept = torch.meshgrid(torch.arange(8.0), (torch.arange(grid) + 0.5) / grid, indexing="ij")
    drawn = {"letter": ((letter + 0.5) / 8).flatten()[None], "accept": accept.flatten()[None]}
    chains, kernel = space["Chains"](chains=8 * grid, steps=1), []
    for start in range(8):
        chains.at.fill_(start)
        with torch.no_grad():
            chains.advance(InnerProblem(None, None, None, None, base, KL(), a, b, metric, drawn), None)
        kernel.append(torch.bincount(chains.at.flatten().long(), minlength=8).double() / (8 * grid))
    law = ((b * base.logits.log_softmax(0) + metric.scores).double() / (a + b)).softmax(0).detach()
    np.testing.assert_allclose(law @ torch.stack(kernel), law, atol=1 / grid)


def test_theta_s_loss_of_pairs_pulls_the_model_to_the_data():
    """At the optimal f it is -E log sigmoid(f(y) - f(x)) by enumeration, and its slope points from p towards p_d."""
    p, p_d = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.4, 0.1, 0.4, 0.1])
    model, metric = TabularModel(letters=4).double(), se.Metric(TabularCritic(letters=4)).double()
    with torch.no_grad():
        model.logits.copy_(torch.tensor(p).log())
        metric.network.scores.copy_(torch.tensor(np.log(p_d / p)))
    equation = se.StandardEquation(model=model, auxiliary=load(7, "pairs.py")["Pairs"](), metric=metric)
    data = Particles(torch.arange(4.0, dtype=torch.float64)[:, None], torch.tensor(p_d).log())
    phi, theta = equation.roles()
    loss = equation.minimum(data, equation.sample(1), role=theta)
    f = np.log(p_d / p)
    by_pair = np.log1p(np.exp(f[:, None] - f[None]))  # -log sigmoid(f(y) - f(x)), x down, y across
    assert float(loss.detach()) == pytest.approx(p_d @ by_pair @ p, abs=1e-12)
    (slope,) = torch.autograd.grad(loss, model.logits)
    towards = p_d @ by_pair
    np.testing.assert_allclose(slope, p * (towards - towards @ p), atol=1e-12)
    assert towards @ (p_d - p) < 0
    jensen_shannon = -float(equation.scalar(data, equation.sample(1)).detach()) - math.log(2)
    pairs, turned = np.outer(p_d, p), np.outer(p, p_d)
    assert -jensen_shannon == pytest.approx((pairs * np.log(2 * pairs / (pairs + turned))).sum(), abs=1e-12)
    assert theta.moves_samples and not phi.moves_samples


def convex_game():
    """Return the equation of section 8."""
    space = load(8, "maps.py")
    torch.manual_seed(0)
    return se.StandardEquation(
        model=space["Source"]((2,)), divergence=OptimalTransport(2.0), auxiliary=space["GradientMap"]((2,), 8),
        metric=se.Metric(space["Potential"]((2,), 8)),
    ).double()  # fmt: skip


def test_at_the_quadratic_potentials_the_value_is_the_bures_distance():
    """On clouds with the laws' own moments, of which alone the value depends there."""
    equation, root = convex_game(), linalg.sqrtm(SOURCE)
    inverse = np.linalg.inv(root)
    a = inverse @ linalg.sqrtm(root @ TARGET @ root).real @ inverse

    def cloud(covariance, mean, seed):
        z = np.random.default_rng(seed).normal(size=(50, 2))
        z = (z - z.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T, bias=True))).T
        return Particles(torch.tensor(z @ np.linalg.cholesky(covariance).T + mean))

    with torch.no_grad():  # g(y) = y'Ay/2 + m'y and phi its conjugate, (x - m)'A^-1(x - m)/2
        for net, form in ((equation.auxiliary.g, a), (equation.metric.network.phi, np.linalg.inv(a))):
            net.last.weight.zero_()
            net.root.copy_(torch.tensor(np.linalg.cholesky(form)))
        equation.auxiliary.g.linear.copy_(torch.tensor(MEAN))
        equation.metric.network.phi.linear.copy_(torch.tensor(-np.linalg.inv(a) @ MEAN))
    value = equation.scalar(cloud(TARGET, MEAN, 0), cloud(SOURCE, np.zeros(2), 1))
    assert float(value.detach()) == pytest.approx(*bures(), abs=1e-10)


def test_both_networks_settle_after_steps_that_would_leave_the_convex_ones():
    """Steps of length 1 push weights below zero; what is left is convex: g's gradient is a monotone map."""
    equation = convex_game()
    players = se.make_players(equation, lambda parameters: torch.optim.SGD(parameters, lr=1.0))
    state = se.TrainState(equation, players)
    with torch.no_grad():
        for player in players:
            for parameter in player.parameters:
                parameter.grad = torch.ones_like(parameter)
            player.step([])
    for net in (equation.auxiliary.g, equation.metric.network.phi):
        for layer in (net.second, net.last):
            assert (layer.weight == 0).all()
    assert [player.name for player in state.players] == ["phi", "q"]
    torch.nn.init.uniform_(equation.auxiliary.g.second.weight), torch.nn.init.uniform_(equation.auxiliary.g.last.weight)
    y, z = torch.randn(2, 500, 2, dtype=torch.float64)
    moved = equation.auxiliary.map(y) - equation.auxiliary.map(z)
    assert ((moved * (y - z)).sum(1) > 0).all()


@pytest.mark.parametrize("order", [1.5, 2.0, 3.0])
def test_the_dual_of_the_lipschitz_divergence_is_the_convex_program(order):
    """h* is the conjugate of h; the best 1-Lipschitz critic on five letters attains the program over eta."""
    divergence, h = load(9, "lipschitz.py")["LipschitzAlpha"](order), alpha(order)
    v = torch.linspace(-4, 3, 15, dtype=torch.float64)
    for t, conjugate, value, log_u in zip(v, divergence.conjugate(v), divergence.value(v), divergence.log_tilt(v),
                                          strict=True):  # fmt: skip
        found = optimize.minimize_scalar(lambda u, t=float(t): h(u) - t * u, bounds=(0, 200), method="bounded",
                                         options={"xatol": 1e-10})  # fmt: skip
        assert float(conjugate) == pytest.approx(-found.fun, abs=1e-8)
        assert float(value) == pytest.approx(h(float(log_u.exp())), abs=1e-12)
        assert float(log_u.exp()) == pytest.approx(found.x, abs=1e-4)  # a smooth minimum is found to the root of eps
    p, q = np.array([0.4, 0.3, 0.1, 0.1, 0.1]), np.array([0.05, 0.1, 0.25, 0.2, 0.4])

    def bound(f):
        return q @ f - p @ divergence.conjugate(torch.tensor(f)).numpy()

    steps = optimize.LinearConstraint(np.diff(np.eye(5), axis=0), -1, 1)
    best = optimize.minimize(lambda f: -bound(f), np.zeros(5), method="SLSQP", constraints=[steps],
                             options={"ftol": 1e-14, "maxiter": 1000})  # fmt: skip
    assert -best.fun == pytest.approx(between(h, p, q), abs=1e-6)


def test_an_order_without_finite_conjugate_is_refused():
    with pytest.raises(ValueError, match="order must be > 1, got 0.5"):
        load(9, "lipschitz.py")["LipschitzAlpha"](0.5)
