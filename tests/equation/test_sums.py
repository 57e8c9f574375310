"""Sums of equations over one theta: values, terms, gradients, players, units, and what is refused."""

from __future__ import annotations

import pytest
import torch

from divergences import GAN, KL, Alpha, CrossEntropy, Neyman, Pearson, Surrogate, Wasserstein1
from models import Affine, GroupSortCritic, MLPCritic, MLPGenerator, Particles
from se_framework import (
    R1,
    Auxiliary,
    Dual,
    Empirical,
    GradientPenalty,
    Metric,
    Solution,
    StandardEquation,
    TrainState,
    train,
)
from se_framework.assembly import assembly_of
from se_framework.config.composing import compose
from se_framework.data import TensorData
from se_framework.equation.units import in_user_units
from se_framework.errors import ConfigError, IncompatibleError
from se_framework.randomness import Stream
from se_framework.training.draws import draw_step, step_stream
from se_framework.training.objective import objective
from se_framework.training.players import make_players
from tests.support.parts import Chain

DEFAULT_DTYPE = torch.float64


def parts():
    """Return a model, a GAN's equation, a likelihood and a W1 of it."""
    model = Affine((2,))
    gan = {"divergence": GAN(), "auxiliary": Dual(), "metric": Metric(MLPCritic((2,), width=8), R1(0.5))}
    likelihood = StandardEquation(model=model, divergence=CrossEntropy(), auxiliary=Empirical(), alpha=1.0)
    w1 = StandardEquation(
        model=model, divergence=Wasserstein1(), auxiliary=Dual(), metric=Metric(GroupSortCritic((2,), width=8))
    )
    return model, gan, likelihood, w1


def test_value_terms_and_gradient_are_weighted_sums():
    model, gan, likelihood, w1 = parts()
    alone = StandardEquation(model=model, **gan)
    total = StandardEquation(model=model, **gan, plus={"nll": (0.3, likelihood), "w1": (2.0, w1)})
    data, p = Particles(torch.randn(32, 2)), alone.sample(32, torch.Generator().manual_seed(1))
    pieces = [(1.0, alone), (0.3, likelihood), (2.0, w1)]
    want = sum(weight * equation.scalar(data, p) for weight, equation in pieces)
    got = total.scalar(data, p)
    assert float(got.detach()) == pytest.approx(float(want.detach()), abs=1e-13)
    for parameter in model.parameters():
        a, b = (torch.autograd.grad(t, parameter, retain_graph=True)[0] for t in (got, want))
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)
    terms = total.terms(data, p)
    assert terms.total == pytest.approx(float(want.detach()), abs=1e-12) and terms.up_to_constant
    row = terms.as_dict()
    assert {"D", "E_pd_f", "total_up_to_const", "nll/D", "nll/total_up_to_const", "w1/total", "w1/E_q_f"} <= set(row)
    assert row["nll/D"] == pytest.approx(float(-model().log_prob(data.x).mean().detach()), abs=1e-12)


def test_phi_holds_every_metric_with_its_own_penalty():
    model, gan, likelihood, w1 = parts()
    w1 = StandardEquation(
        model=model, divergence=Wasserstein1(), auxiliary=Dual(), metric=Metric(MLPCritic((2,)), GradientPenalty(1.0))
    )
    total = StandardEquation(model=model, **gan, plus={"w1": (0.5, w1)})
    state = TrainState(total)
    phi = state.player("phi")
    assert len(phi.penalised) == 2 and len(phi.parameters) == sum(
        1 for m in total.metrics().values() for _ in m.parameters()
    )
    before = {name: [p.clone() for p in metric.parameters()] for name, metric in total.metrics().items()}
    train(state, torch.randn(64, 2), rounds=2, batch_size=16, log_every=1, progress=False)
    for name, metric in total.metrics().items():
        assert any(not torch.equal(a, b) for a, b in zip(before[name], metric.parameters(), strict=True)), name
    assert state.trained().plus["w1"].metric is total.plus["w1"].metric
    assert state.trained().scalar(*_clouds(total)) == total.scalar(*_clouds(total))


def test_the_penalty_is_the_sum_of_the_summands_own():
    model, gan, _, _ = parts()
    w1 = StandardEquation(
        model=model, divergence=Wasserstein1(), auxiliary=Dual(), metric=Metric(MLPCritic((2,)), GradientPenalty(1.0))
    )
    total = StandardEquation(model=model, **gan, plus={"w1": (0.5, w1)})
    batch, due = Particles(torch.randn(16, 2)), ("own", "w1")
    draws = draw_step(total, due, batch, step_stream(0, 0, "phi", 0, batch.x))
    found = objective(total, TrainState(total).player("phi"), due, draws)[1][2]
    y = total.particles(draws).x.detach()
    own = {k: metric.penalty(metric, batch.x, y, draws[f"penalty/{k}/mix"]) for k, metric in total.metrics().items()}
    assert float(own["own"].detach()) != float(own["w1"].detach())
    assert float(found.detach()) == pytest.approx(float(sum(own.values()).detach()), rel=1e-14)  # one addition


def test_auxiliaries_of_a_sum_draw_apart():
    model, stream = Affine((2,)), Stream(0, 3, "theta/0")
    other = StandardEquation(model=model, auxiliary=Chain())
    total = StandardEquation(model=model, auxiliary=Chain(), plus={"more": (0.5, other)})
    found = total.draws(4, stream)
    for name in ("own", "more"):
        assert torch.equal(found[f"auxiliary/{name}/kick"], stream.below(f"auxiliary/{name}").normal("kick", (8, 2)))
    assert not torch.equal(found["auxiliary/own/kick"], found["auxiliary/more/kick"])


def _clouds(equation):
    return Particles(torch.ones(4, 2)), equation.sample(4, torch.Generator().manual_seed(0))


def test_units_are_undone_summand_by_summand():
    model, gan, likelihood, w1 = parts()
    total = StandardEquation(model=model, **gan, plus={"nll": (0.3, likelihood)})
    data = TensorData(5 * torch.randn(100, 2) + 7, standardize=True)
    batch, p = Particles(data.train[:32].double()), total.sample(32)
    row = in_user_units(total.terms(batch, p), total, data)
    nll = float(-(model().log_prob(batch.x) - data.log_scale).mean().detach())
    assert row["nll/D"] == pytest.approx(nll, abs=1e-10)
    own = float(StandardEquation(model=model, **gan).scalar(batch, p).detach())
    assert row["total_up_to_const"] == pytest.approx(own + 0.3 * nll, abs=1e-10)


def test_what_is_no_sum_is_refused():
    model, gan, likelihood, _ = parts()
    with pytest.raises(ConfigError, match="plus.nll must be one equation of the same model"):
        StandardEquation(model=Affine((2,)), **gan, plus={"nll": (1.0, likelihood)})
    with pytest.raises(ConfigError, match="plus.nll.weight must be a finite number >= 0, got -1"):
        StandardEquation(model=model, **gan, plus={"nll": (-1.0, likelihood)})
    with pytest.raises(ConfigError, match="plus.own must be one equation of the same model, not called own"):
        StandardEquation(model=model, **gan, plus={"own": (1.0, likelihood)})
    hinge = StandardEquation(model=model, **(gan | {"divergence": Surrogate("hinge")}))
    with pytest.raises(ConfigError, match="plus.hinge is a surrogate: a sum is one scalar"):
        StandardEquation(model=model, **gan, plus={"hinge": (1.0, hinge)})
    with pytest.raises(IncompatibleError, match="MLPGenerator has none"):
        StandardEquation(model=MLPGenerator((2,)), divergence=CrossEntropy(), auxiliary=Empirical())


SHORT = ["loop.rounds=2", "loop.batch_size=16", "loop.log_every=1", "progress=false", "device=cpu"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["plus.likelihood.weight=-2"], "plus.likelihood.weight must be a finite number >= 0"),
        (["plus.likelihood.weight=much"], "plus.likelihood.weight must be a number, got 'much'"),
        (["+plus.likelihood.wieght=2"], "unknown key 'plus.likelihood.wieght': did you mean 'weight'"),
        (["+plus.more.weight=2"], r"plus.more.divergence must be chosen: add \+divergence@plus.more.divergence=CHOICE"),
        (["+plus.more=3"], "plus.more must be a mapping of weight, divergence"),
        (["model=mlp_generator"], "plus.likelihood: CrossEntropy needs the model's density.*: add model=affine"),
    ],
)
def test_bad_summands_are_one_sentence(overrides, message):
    with pytest.raises((ConfigError, IncompatibleError), match=message):
        assembly_of(compose("flow_gan", [*SHORT, *overrides]))


def test_a_summand_joins_any_experiment_from_the_command_line():
    torch.set_default_dtype(torch.float32)
    more = ["+divergence@plus.kl.divergence=kl", "+auxiliary@plus.kl.auxiliary=dual", "+metric@plus.kl.metric=mlp"]
    assembly = assembly_of(compose("mle_flow", [*SHORT, *more]))
    assert isinstance(assembly.equation.plus["kl"].divergence, KL)
    assert "kl/E_q_f" in assembly.train().history[-1]
    from se_framework.describe import describe
    from se_framework.evaluation.evaluate import evaluate

    assert "+ 1 (-beta D*_p(f/beta) + E_pd f)   plus.kl: alpha 0, KL(), Dual(normalised=False)" in describe(assembly)
    bound = evaluate(assembly, n=200, names=("held_out_value",))["held_out_value"]["bound"]
    assert bound == "estimate of beta CrossEntropy(p_d, p_theta) + 1 x (lower bound of beta KL(p_d, p_theta))"


def heavy_sum(divergence, **settings):
    """Return the sum of W1's dual and, with weight 0.3, of one whose gradients have infinite variance; its metric."""
    model, _, _, w1 = parts()
    metric = Metric(MLPCritic((2,), width=8))
    heavy = StandardEquation(model=model, divergence=divergence, auxiliary=Dual(), metric=metric, **settings)
    own = {"divergence": w1.divergence, "auxiliary": w1.auxiliary, "metric": w1.metric}
    return StandardEquation(model=model, **own, plus={"heavy": (0.3, heavy)}), metric


@pytest.mark.parametrize("heavy", [Pearson, Neyman, KL, lambda: Alpha(2.0)], ids=["pearson", "neyman", "kl", "alpha"])
def test_phi_sees_every_summand_through_the_dual_with_finite_gradients_and_theta_sees_d(heavy):
    """As alone: phi ascends on E_pd log s(v) + E_p log s(-v), s the sigmoid, by hand; theta on D*."""
    torch.manual_seed(0)
    divergence = heavy()
    total, metric = heavy_sum(divergence, beta=2.0)
    state, x = TrainState(total), Particles(torch.randn(32, 2))
    phi, theta = state.player("phi"), state.player("theta")
    draws = draw_step(total, (), x, step_stream(0, 0, "phi", 0, x.x))
    y = total.particles(draws).x
    loss = objective(total, phi, (), draws)[0]
    log_sigmoid = torch.nn.functional.logsigmoid
    by_hand = -0.3 * 2.0 * (log_sigmoid(metric(x.x)).mean() + log_sigmoid(-metric(y.detach())).mean())
    for parameter in metric.parameters():
        got, want = (torch.autograd.grad(t, parameter, retain_graph=True)[0] for t in (loss, by_hand))
        torch.testing.assert_close(got, want, atol=1e-13, rtol=1e-10)
    loss = objective(total, theta, (), draws)[0]
    w1 = -total.metric(y).mean()
    by_hand = w1 - 0.3 * 2.0 * divergence.conjugate(metric(y)).mean()
    for parameter in total.model.parameters():
        got, want = (torch.autograd.grad(t, parameter, retain_graph=True)[0] for t in (loss, by_hand))
        torch.testing.assert_close(got, want, atol=1e-13, rtol=1e-10)


def test_a_heavy_summand_trains_where_it_trains_alone():
    """Pearson's e^(2v) on clouds twelve apart: without the view phi's loss is inf after some rounds."""
    torch.manual_seed(0)
    total, metric = heavy_sum(Pearson())
    adam = {"optimizer": lambda p: torch.optim.Adam(p, lr=0.05)}
    still = {"optimizer": lambda p: torch.optim.SGD(p, lr=0.0)}
    state = TrainState(total, make_players(total, phi=adam, theta=still))
    train(state, torch.randn(256, 2) + 12, rounds=60, batch_size=64, log_every=0, progress=False)
    assert state.round == 60 and all(bool(p.isfinite().all()) for p in metric.parameters())


# -- kinds of errors that were planted and went unnoticed --------------------------------------------------------------


class Told(Auxiliary):
    """What it was told: the mean of its own noise, times two to theta; and a sum of all noise that it has met."""

    uses_metric = False

    def __init__(self):
        super().__init__()
        self.register_buffer("met", torch.zeros(()))

    def draws(self, n, stream):
        return {"kick": stream.normal("kick", (n,))}

    def advance(self, problem, role):
        self.met += (2.0 if role.moves_samples else 1.0) * problem.draws["kick"].sum()

    def minimum(self, problem, role=None):
        return (2.0 if role is not None and role.moves_samples else 1.0) * problem.draws["kick"].mean()

    def solve(self, problem):
        return Solution(self.minimum(problem), None, None, None)


def told(*weights):
    """Return a sum of as many equations of one model, its draws, and what each summand drew."""
    model = Affine((2,))
    plus = {f"more{i}": (w, StandardEquation(model=model, auxiliary=Told())) for i, w in enumerate(weights)}
    total = StandardEquation(model=model, auxiliary=Told(), plus=plus)
    draws = total.draws(6, Stream(0, 3, "theta/0", dtype=torch.float64))
    return total, draws, [draws[f"auxiliary/{name}/kick"] for name, _ in total.equations()]


def test_summands_are_given_their_own_draws_and_the_role_of_the_step():
    total, draws, kicks = told(0.5, 3.0)
    x, p, (theta,) = Particles(torch.randn(6, 2)), total.particles(draws), total.roles()
    by_hand = float(sum(w * k.mean() for w, k in zip((1.0, 0.5, 3.0), kicks, strict=True)))
    for role, factor in ((theta, 2.0), (None, 1.0)):
        of_parts = sum(total.parts(x, p, role=role, draws=draws))
        for found in (total.minimum(x, p, role=role, draws=draws), of_parts):
            assert float(found.detach()) == pytest.approx(factor * by_hand, abs=1e-14)  # a dozen roundings
    assert total.terms(x, p, draws).total == pytest.approx(by_hand, abs=1e-14)


def test_what_summands_carry_moves_by_their_own_draws():
    total, draws, kicks = told(0.5)
    (theta,) = total.roles()
    total.advance(Particles(torch.randn(6, 2)), total.particles(draws), theta, draws)
    for (_, own), kick in zip(total.equations(), kicks, strict=True):
        assert float(own.auxiliary.met) == pytest.approx(2 * float(kick.sum()), abs=1e-14)


def test_an_equation_of_averages_is_the_same_sum():
    """Weights, alpha, beta and parts of every summand, where the averages differ from the last weights."""
    model, gan, likelihood, w1 = parts()
    likelihood = StandardEquation(model=model, divergence=CrossEntropy(), auxiliary=Empirical(), alpha=0.5, beta=2.0)
    total = StandardEquation(model=model, **gan, plus={"nll": (0.3, likelihood), "w1": (2.0, w1)}, beta=3.0)
    state = TrainState(total, make_players(total, theta={"ema": 0.9}, phi={"ema": 0.5}))
    train(state, torch.randn(64, 2), rounds=2, batch_size=16, log_every=0, progress=False)
    found, x = state.trained(), Particles(torch.randn(9, 2))
    p = found.sample(9, torch.Generator().manual_seed(1))
    theta, phi = (state.player(name).average.module for name in ("theta", "phi"))
    assert found.model is theta is not model
    metrics = dict(phi.named_children())
    assert all(own is metrics[name] for name, own in found.metrics().items())
    v, v_data = metrics["own"](p.x), metrics["own"](x.x)
    softplus = torch.nn.functional.softplus
    gan_value = -3 * softplus(-v_data).mean() - 3 * softplus(v).mean()
    w1_value = metrics["w1"](x.x).mean() - metrics["w1"](p.x).mean()
    want = gan_value - 0.3 * 2 * theta().log_prob(x.x).mean() + 2 * w1_value
    assert float(found.scalar(x, p).detach()) == pytest.approx(float(want.detach()), abs=1e-13)
    assert (found.plus["nll"].alpha, found.plus["nll"].beta) == (0.5, 2.0)
