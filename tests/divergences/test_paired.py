"""The divergence between pairs, and the auxiliary that compares them, against enumeration and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Normal

from divergences import GAN, KL, PairedJensenShannon
from divergences.exact import Points
from models import Particles, TabularCritic, TabularModel
from se_framework import Dual, IncompatibleError, Metric, Paired, StandardEquation
from se_framework.checks import check_auxiliary, check_divergence
from se_framework.equation.legality import Choice, check
from se_framework.training.objective import objective
from se_framework.training.players import make_players

DEFAULT_DTYPE = torch.float64
P_D, LOGITS, V = (0.4, 0.1, 0.3, 0.2), (0.3, -0.2, 0.5, 0.1), (0.7, -1.1, 0.2, 0.9)
EPS = torch.finfo(torch.float64).eps


def game(divergence=None, view=None, logits=LOGITS, beta=1.0):
    equation = StandardEquation(
        model=TabularModel(letters=4), divergence=divergence or PairedJensenShannon(), auxiliary=Paired(),
        metric=Metric(TabularCritic(letters=4)), beta=beta,
    ).double()  # fmt: skip
    with torch.no_grad():
        equation.model.logits.copy_(torch.tensor(logits))
        equation.metric.network.scores.copy_(torch.tensor(V))
    players = {p.name: p for p in make_players(equation, theta={"view": view})}
    return equation, Particles(torch.arange(4.0)[:, None], torch.tensor(P_D).log()), players


def enumerated(weight_of, p=None):
    """Return the sum over pairs (i, j) of p_d(i) p(j) times a function of v_i - v_j."""
    p = np.exp(LOGITS) / np.exp(LOGITS).sum() if p is None else p
    return sum(P_D[i] * p[j] * weight_of(V[i] - V[j]) for i in range(4) for j in range(4))


def test_laws_hold():
    for swapped in (False, True):
        check_divergence(PairedJensenShannon(swapped))
        check_auxiliary(Paired(), PairedJensenShannon(swapped))


def test_value_on_letters_is_a_sum_over_pairs_and_takes_letters_that_one_law_lacks():
    q, p = np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.25, 0.75])
    truth = sum(
        q[i] * p[j] * math.log(2 * q[i] * p[j] / (q[i] * p[j] + p[i] * q[j]))
        for i in range(3) for j in range(3) if q[i] * p[j]
    )  # fmt: skip
    found = PairedJensenShannon().exact(Categorical(torch.tensor(q)), Categorical(torch.tensor(p)))
    assert float(found) == pytest.approx(truth, abs=16 * EPS)
    apart = [Categorical(torch.tensor([float(k == i) for k in range(2)])) for i in range(2)]
    assert float(PairedJensenShannon().exact(*apart)) == pytest.approx(math.log(2), abs=4 * EPS)


def test_value_moves_with_the_letters_masses():
    q = torch.tensor([0.5, 0.3, 0.2])
    z = torch.tensor([0.1, -0.4, 0.2], requires_grad=True)
    points = torch.arange(3.0)[:, None]

    def of(z):
        return PairedJensenShannon().exact(Points(points, q.log()), Points(points, z.log_softmax(0)))

    assert torch.autograd.gradcheck(of, [z])


def test_laws_on_a_line_are_refused_with_what_would_work():
    with pytest.raises(NotImplementedError, match="PairedJensenShannon is not written as an integral"):
        PairedJensenShannon().exact(Normal(0.0, 1.0), Normal(1.0, 1.0))


@pytest.mark.parametrize("beta", [1.0, 0.7])
def test_scalar_and_both_steps_are_those_of_the_enumerated_pairs(beta):
    equation, data, _ = game(beta=beta)
    log_2s = lambda gap: math.log(2) - math.log1p(math.exp(-gap))  # noqa: E731
    assert float(equation.scalar(data, equation.sample(0)).detach()) == pytest.approx(
        beta * enumerated(log_2s), abs=32 * EPS
    )
    # theta sees the same number less what does not move with it: its slope is that of the sum, in the logits.
    for swapped, loss in ((False, log_2s), (True, lambda gap: math.log1p(math.exp(gap)) - math.log(2))):
        role = equation.roles()[-1]
        seen = equation.minimum(data, equation.sample(0), PairedJensenShannon(swapped), role)
        (slope,) = torch.autograd.grad(seen, equation.model.logits)
        p = np.exp(LOGITS) / np.exp(LOGITS).sum()
        letter = [enumerated(loss, np.eye(4)[k]) for k in range(4)]
        truth = beta * p * (np.array(letter) - p @ np.array(letter))
        np.testing.assert_allclose(slope.numpy(), truth, rtol=0, atol=32 * EPS)


def test_samples_are_compared_all_with_all_and_rows_of_unequal_number():
    metric = Metric(TabularCritic(letters=4)).double()
    with torch.no_grad():
        metric.network.scores.copy_(torch.tensor(V))
    equation = StandardEquation(
        model=TabularModel(letters=4), divergence=PairedJensenShannon(), auxiliary=Paired(), metric=metric
    )
    x, y = torch.tensor([0.0, 2.0, 2.0])[:, None], torch.tensor([1.0, 3.0])[:, None]
    gaps = [V[int(a)] - V[int(b)] for a in x for b in y]
    truth = np.mean([math.log(2) - math.log1p(math.exp(-g)) for g in gaps])
    assert float(equation.scalar(Particles(x), Particles(y)).detach()) == pytest.approx(truth, abs=16 * EPS)


def test_a_constant_in_v_changes_no_slope_and_no_log_ratio():
    equation, data, _ = game()
    problem = equation.inner_problem(data, equation.sample(0))
    ratio = equation.auxiliary.log_ratio(data.x, problem.v, problem)
    weights = problem.p.log_weights + ratio
    assert float(weights.logsumexp(0).detach()) == pytest.approx(0.0, abs=16 * EPS)
    moved = problem._replace(v=problem.v + 5, v_data=problem.v_data + 5)
    one, other = (equation.auxiliary.compared(each) for each in (problem, moved))
    assert float((one - other).detach()) == pytest.approx(0.0, abs=64 * EPS)
    torch.testing.assert_close(
        equation.auxiliary.q(problem).log_weights, weights.detach().double(), rtol=0, atol=64 * EPS
    )


def test_a_step_of_theta_through_the_swapped_view_is_its_own_loss():
    """The step itself, as it is played: the player's loss is -E log 2 s(v(y) - v(x)) less E_pd v."""
    equation, data, players = game(view=PairedJensenShannon(swapped=True))
    draws = {"x": torch.arange(4.0)[:, None], "model/noise": torch.zeros(0)}
    loss, _ = objective(equation, players["theta"], (), draws)
    p = np.exp(LOGITS) / np.exp(LOGITS).sum()
    pairs = np.mean([[math.log1p(math.exp(a - b)) - math.log(2) for b in V] for a in V], axis=0) @ p
    assert float(loss.detach()) == pytest.approx(pairs - np.mean(V), abs=32 * EPS)
    phi, _ = objective(equation, players["phi"], (), draws)
    ascent = np.mean([[math.log(2) - math.log1p(math.exp(b - a)) for b in V] for a in V], axis=0) @ p
    assert float(phi.detach()) == pytest.approx(-ascent, abs=32 * EPS)


def choice(**other):
    parts = {
        "model": TabularModel(letters=4), "divergence": PairedJensenShannon(), "auxiliary": Paired(),
        "metric": Metric(TabularCritic(letters=4)), "alpha": 0.0, "beta": 1.0,
    }  # fmt: skip
    return Choice(**(parts | other))


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"divergence": KL()}, "auxiliary Paired compares pairs of an example and a particle, and KL is no mean"),
        ({"auxiliary": Dual()}, "works through the dual of D, and PairedJensenShannon has none"),
        ({"alpha": 0.5}, "Paired is the minimum over q at alpha = 0"),
        ({"views": {"theta": GAN()}}, "a player's view GAN reads the critic through a dual, which auxiliary Paired"),
        ({"metric": None}, "Paired needs a metric"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(other, told):
    with pytest.raises(IncompatibleError, match=told):
        check(choice(**other))


def test_views_of_the_same_pairs_are_legal_and_the_swapped_one_is_remarked():
    assert check(choice()) == []
    (remark,) = check(choice(views={"theta": PairedJensenShannon(swapped=True)}))
    assert "a loss of its own" in remark and "swapped" in remark
