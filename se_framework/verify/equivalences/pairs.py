r"""Claims on the game of pairs: what a critic of differences finds, and where its two players go."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from divergences import PairedJensenShannon
from se_framework.equation.auxiliary import Paired
from se_framework.verify import references as ref
from se_framework.verify.alphabet import (
    best_critic,
    cloud,
    equation,
    phi_slope,
    scores,
    set_critic,
    simplex,
    theta_slope,
    tilt,
    value,
)
from se_framework.verify.claims import Comparison, at_most, claim, equal

Q, P, V = simplex(seed=91), simplex(seed=92), scores(seed=93)
BEST = np.log(Q / P)


def _game(p: np.ndarray = P):  # noqa: ANN202
    return equation(PairedJensenShannon(), p, Paired())


def _pairs(q: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return JSD of the law of a pair (x, y) and that of (y, x), pair by pair."""
    return ref.jensen_shannon(np.outer(q, p).ravel(), np.outer(p, q).ravel())


def _by_hand(q: np.ndarray, p: np.ndarray, v: np.ndarray) -> float:
    """Return E log 2 s(v(x) - v(y)) by a loop over pairs."""
    k = range(len(q))
    return sum(q[i] * p[j] * (np.log(2) - np.logaddexp(0, v[j] - v[i])) for i in k for j in k)


@claim(
    "max over critics of E log s(v(x) - v(y)) over pairs = JSD(pd x p, p x pd) - log 2, at v = log(pd/p) + const",
    "Huang et al. 2024, eq. 2; Jolicoeur-Martineau 2019",
)
def optimum_of_the_game_of_pairs() -> Iterator[Comparison]:
    of = _game()
    yield equal("at any critic", value(of, Q, V), _by_hand(Q, P, V))
    found = best_critic(of, Q)
    yield equal("by ascent, plus log 2", value(of, Q), _pairs(Q, P))
    yield equal("critic", found - found.mean(), BEST - BEST.mean())
    yield equal("phi rests there", phi_slope(of, Q, BEST), np.zeros(len(Q)))
    exact = PairedJensenShannon().between_letters(torch.empty(0), *(torch.tensor(np.log(law)) for law in (Q, P)))
    yield equal("the closed form", exact, _pairs(Q, P))


@claim("the gradient of theta at that critic is that of JSD(pd x p, p x pd)", "by Danskin, in the model's logits")
def gradient_of_the_game_of_pairs() -> Iterator[Comparison]:
    yield equal("gradient", theta_slope(_game(), Q, BEST), ref.logit_slope(lambda p: _pairs(Q, p), P))
    yield equal("theta rests at p = pd", theta_slope(_game(Q), Q, 0 * Q), np.zeros(len(Q)))


@claim(
    "with f = E_p log 2s(v(.) - v(y)) the minimum over probability q of D(q, p) - E_q f is 0, at q = p e^v / Z",
    "by linearity of the mean over pairs in q",
)
def minimum_of_the_game_of_pairs() -> Iterator[Comparison]:
    f = np.array([_by_hand(letter, P, V) for letter in np.eye(len(P))])
    found = tilt(_game(), Q, V)
    yield equal("mass of q*", found.sum(), 1.0)
    yield equal("q*", found, P * np.exp(V) / (P * np.exp(V)).sum())
    yield equal("minimum", _pairs(found, P) - found @ f, 0.0)
    for seed in range(5):
        other = simplex(seed=100 + seed)
        yield at_most(f"q {seed}", other @ f, _pairs(other, P))
    yield equal("the scalar is E_pd f", value(_game(), Q, V), Q @ f)


@claim("swapped, theta descends on -E log s(v(y) - v(x)), and phi's game is the same", "Huang et al. 2024, eq. 2")
def swapped_generator_of_pairs() -> Iterator[Comparison]:
    of = _game()
    set_critic(of, V)
    theta, p = of.roles()[-1], of.sample(0)
    seen = of.minimum(cloud(Q), p, PairedJensenShannon(swapped=True), theta)
    (slope,) = torch.autograd.grad(seen, list(of.model.parameters()))

    def loss(p: np.ndarray) -> np.ndarray:
        return (np.outer(Q, p) * np.log(1 + np.exp(V[:, None] - V[None]))).sum()

    yield equal("slope of theta", slope, ref.logit_slope(loss, P))
    phi = of.roles()[0]
    minimum, f_data = of.parts(cloud(Q), p, PairedJensenShannon(swapped=True), phi)
    yield equal("value of phi", minimum + f_data, _by_hand(Q, P, V))
