"""Surrogates on a finite alphabet: what each player's side computes, and that no D is claimed."""

from __future__ import annotations

import pytest
import torch

import divergences
from divergences import (
    GAN,
    KL,
    SURROGATES,
    Alpha,
    CrossEntropy,
    JensenShannon,
    Neyman,
    Pearson,
    Renyi,
    ReverseKL,
    SquaredHellinger,
    Surrogate,
    TotalVariation,
    Wasserstein1,
)
from divergences.absent import Absent
from divergences.checks.running import MODEL, Role
from models import Particles, TabularCritic, TabularModel
from se_framework import Dual, Metric, StandardEquation, TrainState, train
from se_framework.training.players import make_players

DEFAULT_DTYPE = torch.float64
P_D = torch.tensor([0.4, 0.1, 0.2, 0.1, 0.15, 0.05], dtype=torch.float64)
LOGITS = torch.tensor([0.3, -0.2, 0.5, 0.1, -0.4, 0.0], dtype=torch.float64)


def alphabet(divergence, scores=None):
    """Return the equation with fixed logits, the data's particles, and the model's law as probabilities."""
    equation = StandardEquation(
        model=TabularModel(), divergence=divergence, auxiliary=Dual(), metric=Metric(TabularCritic())
    )
    with torch.no_grad():
        equation.model.logits.copy_(LOGITS)
        if scores is not None:
            equation.metric.network.scores.copy_(scores)
    data = Particles(torch.arange(6.0)[:, None], P_D.log())
    return equation, data, LOGITS.softmax(0)


def test_hinge_is_the_dual_of_twice_total_variation_for_phi():
    p = LOGITS.softmax(0)
    equation, data, p = alphabet(Surrogate("hinge"), torch.sign(P_D - p))
    best = float(equation.scalar(data, equation.sample(1)).detach())
    assert best == pytest.approx(float((P_D - p).abs().sum()) - 2, abs=1e-14)
    for _ in range(50):  # concave in v, so no other critic is better
        with torch.no_grad():
            equation.metric.network.scores.add_(0.3 * torch.randn(6))
        assert float(equation.scalar(data, equation.sample(1)).detach()) <= best + 1e-14


def test_least_squares_is_the_dual_of_le_cam_for_phi():
    p = LOGITS.softmax(0)
    equation, data, p = alphabet(Surrogate("least_squares"), P_D / (P_D + p))
    scalar = equation.scalar(data, equation.sample(1))
    le_cam = float(((P_D - p).square() / (P_D + p)).sum())
    assert float(scalar.detach()) == pytest.approx(le_cam / 8 - 0.25, abs=1e-14)
    (slope,) = torch.autograd.grad(scalar, equation.metric.network.scores)
    assert float(slope.abs().max()) < 1e-14


@pytest.mark.parametrize("of", [KL, GAN, SquaredHellinger])
def test_raised_link_leaves_phi_the_dual_and_theta_the_link(of):
    scores = torch.linspace(-1, 1, 6)
    surrogate = Surrogate("raised_link", of())
    equation, data, p = alphabet(surrogate, scores)
    plain, _, _ = alphabet(of(), scores)
    assert float(equation.scalar(data, equation.sample(1)).detach()) == float(
        plain.scalar(data, plain.sample(1)).detach()
    )
    seen = equation.parts(data, equation.sample(1), surrogate.view(MODEL))[0]
    assert float(seen.detach()) == pytest.approx(-float(p @ of().link(scores)), abs=1e-14)


@pytest.mark.parametrize(
    ("row", "slope"), [("hinge", lambda v: -1.0 * v), ("least_squares", lambda v: (v - 1) ** 2 / 2)]
)
def test_each_player_steps_on_its_own_loss(row, slope):
    """One step of gradient descent by each player against the losses of the papers, written out."""
    scores = torch.tensor([0.5, -2.0, 1.5, 0.2, -0.3, 3.0])
    equation, data, p = alphabet(Surrogate(row), scores)
    players = make_players(equation, lambda parameters: torch.optim.SGD(parameters, lr=1.0))
    phi, theta = players
    assert phi.view is None and theta.view.for_samples and "loss of the samples" in theta.view.extra_repr()
    logits = LOGITS.clone().requires_grad_()
    (want,) = torch.autograd.grad((logits.softmax(0) * slope(scores)).sum(), logits)
    loss = sum(equation.parts(data, equation.sample(1), theta.view))
    theta.apply(loss, ())
    torch.testing.assert_close(equation.model.logits.detach(), LOGITS - want, atol=1e-14, rtol=0)


def test_the_record_claims_no_divergence():
    equation, data, _ = alphabet(Surrogate("hinge"))
    row = equation.terms(data, equation.sample(1)).as_dict()
    assert set(row) == {"E_pd_f", "total_surrogate"}
    assert row["total_surrogate"] == float(equation.scalar(data, equation.sample(1)).detach())
    state = train(
        TrainState(equation), torch.arange(6.0).repeat(20), rounds=2, batch_size=8, log_every=1, progress=False
    )
    assert "total_surrogate" in state.history[-1] and "D" not in state.history[-1]
    assert "surrogate: Surrogate(hinge" in state.note and "no q and no saddle" in state.note


def test_a_row_says_what_it_borrows():
    with pytest.raises(ValueError, match="no surrogate 'hing': choose one of hinge, least_squares, raised_link"):
        Surrogate("hing")
    with pytest.raises(ValueError, match="raised_link needs `of`: a divergence with a dual that is a mean, got None"):
        Surrogate("raised_link")
    for no_mean in (CrossEntropy(), Renyi(0.5), Surrogate("hinge")):
        with pytest.raises(ValueError, match="needs `of`"):
            Surrogate("raised_link", no_mean)
    with pytest.raises(ValueError, match="the surrogate hinge takes no `of`"):
        Surrogate("hinge", KL())
    with pytest.raises(NotImplementedError, match="Surrogate has no dual over probability measures"):
        Surrogate("hinge").inner_normalised(torch.zeros(2), Particles(torch.zeros(2, 1)))
    assert all(row.borrows == (name == "raised_link") for name, row in SURROGATES.items())


def test_a_view_depends_on_what_a_player_moves_and_where_to():
    """A surrogate's own loss goes to who moves the samples; the dual of less variance to who ascends."""
    for sign in (-1, +1):
        for moves_samples in (False, True):
            role = Role(sign, moves_samples)
            assert (Surrogate("hinge").view(role) is not None) == moves_samples
            for heavy in (KL(), Pearson(), Neyman(), Alpha(1), Alpha(-2.5)):
                assert isinstance(heavy.view(role), GAN) if sign > 0 else heavy.view(role) is None
            for light in (
                GAN(),
                ReverseKL(),
                JensenShannon(),
                Alpha(0.99),
                Alpha(-0.99),
                TotalVariation(),
                Wasserstein1(),
            ):
                assert light.view(role) is None


def test_an_absent_divergence_has_nothing():
    absent = Absent()
    assert not absent.has_dual and absent.primal_needs is None and not absent.surrogate and absent.cost_degree == 0
    assert repr(absent) == "Absent(none)" and absent.view(MODEL) is None and not list(absent.parameters())
    for method in (absent.link, absent.conjugate, absent.value):
        with pytest.raises(NotImplementedError, match="no dual"):
            method(torch.zeros(1))
    with pytest.raises(NotImplementedError, match="no primal"):
        absent.primal(Particles(torch.zeros(1, 1)), None, None)
    assert not hasattr(divergences, "Absent")  # an equation's default, no choice


def test_parameters_of_a_divergence_ascend_unless_it_says_otherwise():
    class Infimum(Wasserstein1):
        parameters_ascend = False

    assert Wasserstein1().parameters_ascend and not Infimum().parameters_ascend
