"""Errors that were planted by hand and went unnoticed: a test for each kind, of the step, its views, its record."""

from __future__ import annotations

import pytest
import torch

from divergences import GAN, KL, MMD, Alpha, CrossEntropy, Pearson, SoftenedReverseKL
from models import Affine, GroupSortCritic, MLPCritic, Particles
from se_framework import Dual, Empirical, GradientPenalty, Metric, StandardEquation, TrainState, train
from se_framework.training.draws import draw_step, step_stream
from se_framework.training.objective import objective
from se_framework.training.players import make_players
from tests.support.parts import Shifted

DEFAULT_DTYPE = torch.float64


def game(divergence=None, penalty=None, **settings) -> StandardEquation:
    metric = Metric(MLPCritic((2,), width=8), penalty)
    return StandardEquation(
        model=Affine((2,)), divergence=divergence or KL(), auxiliary=Dual(), metric=metric, **settings
    )


def test_a_lazy_penalty_is_due_in_the_first_step_and_every_third():
    player = TrainState(game(penalty=GradientPenalty(1.0, every=3))).player("phi")
    due = []
    for player.steps_taken in range(7):
        due.append(bool(player.due()))
    assert due == [True, False, False, True, False, False, True]


def test_every_step_of_every_round_mixes_by_numbers_of_its_own():
    equation, x = game(penalty=GradientPenalty(1.0)), Particles(torch.randn(8, 2))
    mixes = [
        draw_step(equation, ("own",), x, step_stream(0, round_index, "phi", k, x.x))["penalty/own/mix"]
        for round_index in (0, 1, 2)
        for k in (0, 1)
    ]
    assert all(bool(((m >= 0) & (m < 1)).all()) for m in mixes)
    assert not any(torch.equal(a, b) for i, a in enumerate(mixes) for b in mixes[:i])


def test_what_networks_draw_by_themselves_is_of_the_step_too():
    """Dropout draws on torch's own generator: another number in every step, the same when it is played again."""

    def drawn(round_index, name, k):
        torch.manual_seed(int(torch.randint(99, ())))  # whatever was drawn before
        draw_step(game(), (), x, step_stream(5, round_index, name, k, x.x))
        return float(torch.rand(()))

    x = Particles(torch.randn(8, 2))
    steps = [(t, name, k) for t in (0, 1, 2) for name in ("phi", "theta") for k in (0, 1)]
    once = [drawn(*step) for step in steps]
    assert len(set(once)) == len(steps) and [drawn(*step) for step in steps] == once


def test_each_player_reads_its_own_view():
    """phi sees the GAN's dual, theta the softened reverse KL's, of one v: losses by the two divergences' integrands."""
    equation, x = game(), Particles(torch.randn(16, 2))
    views = {"phi": GAN(), "theta": SoftenedReverseKL()}
    players = {p.name: p for p in make_players(equation, **{name: {"view": d} for name, d in views.items()})}
    draws = draw_step(equation, (), x, step_stream(0, 0, "phi", 0, x.x))
    y = equation.particles(draws).x
    v, v_data = equation.metric(y).detach(), equation.metric(x.x).detach()
    phi = objective(equation, players["phi"], (), draws)[0]
    want = -(views["phi"].link(v_data).mean() - views["phi"].conjugate(v).mean())
    assert float(phi.detach()) == pytest.approx(float(want), abs=1e-14)
    theta = objective(equation, players["theta"], (), draws)[0]
    assert float(theta.detach()) == pytest.approx(-float(views["theta"].conjugate(v).mean()), abs=1e-14)


def test_a_minimum_weighs_its_summands_as_the_scalar_does():
    """The loss of theta (the minimum alone) and the scalar less E_pd f agree, for weights that are not one."""
    equation = game()
    nll = StandardEquation(model=equation.model, divergence=CrossEntropy(), auxiliary=Empirical(), beta=2.0)
    keys = {"model": equation.model, "divergence": equation.divergence, "auxiliary": equation.auxiliary}
    total = StandardEquation(**keys, metric=equation.metric, plus={"nll": (0.25, nll)})
    x, p = Particles(torch.randn(16, 2)), total.sample(16)
    got = total.minimum(x, p) - equation.minimum(x, p)
    assert float(got.detach()) == pytest.approx(-0.5 * float(equation.model().log_prob(x.x).mean().detach()), abs=1e-13)


def test_the_record_of_a_weighted_cloud_is_in_float64():
    """Weights are stored in single precision and raised to e^w in double: in single each would be off by 6e-8."""
    torch.set_default_dtype(torch.float32)
    metric = Metric(MLPCritic((2,), width=8))
    equation = StandardEquation(model=Affine((2,)), divergence=KL(), auxiliary=Dual(), metric=metric)
    x, p = Particles(torch.randn(5, 2)), Particles(torch.randn(5, 2), torch.randn(5).log_softmax(0))
    assert p.log_weights is not None and p.log_weights.dtype == torch.float32
    terms = equation.terms(x, p)
    with torch.no_grad():
        v, v_data = metric(p.x).double(), metric(x.x).double()
        minimum = -(p.log_weights.double().exp() * torch.exp(v)).sum()
    assert terms.total == pytest.approx(float(minimum + (1 + v_data).mean()), abs=1e-14)  # a dozen roundings


@pytest.mark.parametrize(("order", "seen"), [(1.0, True), (-1.0, True), (2.0, True), (0.99, False), (-0.5, False)])
def test_alphas_view_from_kl_and_half_of_neyman_on(order, seen):
    """At order 1 alpha is KL, whose gradients have infinite variance on separated laws as well."""
    assert isinstance(make_players(game(Alpha(order)))[0].view, GAN) is seen


def test_views_are_taken_where_the_optimal_critics_agree_and_only_there():
    def view(auxiliary, metric):
        equation = StandardEquation(model=Affine((2,)), divergence=Pearson(), auxiliary=auxiliary, metric=metric)
        return make_players(equation)[0].view

    free, narrow = Metric(MLPCritic((2,), width=8)), Metric(GroupSortCritic((2,), width=8))
    penalised = Metric(MLPCritic((2,), width=8), GradientPenalty(1.0))
    assert isinstance(view(Dual(), free), GAN)
    assert view(Dual(normalised=True), free) is view(Dual(), narrow) is view(Dual(), penalised) is None


def test_who_moves_the_parameters_of_d_looks_through_d():
    """Another dual would not hold them: their gradient would be none, while phi may look through it."""

    class Light(Shifted):
        def view(self, role):
            return None if role.moves_samples else GAN()

    equation = game(Light())
    seen = {role.name: equation.view(role) for role in equation.roles()}
    assert isinstance(seen["phi"], GAN) and seen["D"] is seen["theta"] is None
    state = TrainState(equation, make_players(equation, lambda p: torch.optim.SGD(p, lr=0.1)))
    train(state, torch.randn(32, 2), rounds=1, batch_size=16, log_every=0, progress=False)
    assert float(equation.divergence.c.detach()) != 0


def test_a_declared_constant_above_one_is_no_1_lipschitz_class():
    class Steep(MLPCritic):
        lipschitz = 2.0

    class Flat(MLPCritic):
        lipschitz = 1.0

    assert Metric(Steep((2,))).function_class == "unrestricted"
    assert Metric(Flat((2,))).function_class == "1-Lipschitz by construction"


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_a_primal_total_is_a_number_only_where_no_entropy_is_missing(alpha):
    equation = StandardEquation(model=Affine((2,)), divergence=MMD(), auxiliary=Empirical(), alpha=alpha)
    terms = equation.terms(Particles(torch.randn(9, 2)), equation.sample(9))
    assert terms.up_to_constant is (alpha > 0) and terms.total_name == "total" + "_up_to_const" * (alpha > 0)
