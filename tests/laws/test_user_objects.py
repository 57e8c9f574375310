"""What the engine does with a user's object follows from its declarations alone."""

import math
import sys
import types

import pytest
import torch

from divergences import GAN, KL, Divergence, Neyman
from models import Affine, MLPCritic, MLPGenerator
from models.laws import Particles
from se_framework.assembly import assembly_of
from se_framework.config.composing import compose
from se_framework.equation.auxiliary import Auxiliary, Dual, Solution
from se_framework.equation.auxiliary.base import target
from se_framework.equation.equation import StandardEquation
from se_framework.equation.legality import Choice, check
from se_framework.equation.metric import Metric
from se_framework.equation.units import cost_factor, in_user_units, total_shift
from se_framework.errors import IncompatibleError
from se_framework.evaluation.held_out import bound
from se_framework.training.players import make_players

DEFAULT_DTYPE = torch.float64


class Entropic(Auxiliary):
    """KL with alpha > 0 over q = p e^s of any mass: (1 + alpha)(s + 1) + alpha log p = f."""

    works_through = "has_dual"
    needs_alpha = True
    keeps_function_class = takes_views = free_mass = True

    def needs_density(self, divergence):
        return True

    def reads_context(self, divergence):
        return False

    def meaning(self, divergence, metric, alpha):
        return f"lower bound of {target(divergence, alpha)}"

    def f(self, v, divergence, beta):
        return v

    def _s(self, problem):
        return (problem.v - problem.alpha * problem.p.log_prob) / (1 + problem.alpha) - 1

    def minimum(self, problem, role=None):
        return -(1 + problem.alpha) * problem.p.mean(self._s(problem).exp())

    def solve(self, problem):
        p, s = problem.p, self._s(problem)
        u = s.exp()
        entropy = -p.mean(u * (s + p.log_prob))
        return Solution(self.minimum(problem), entropy, p.mean(u * s), p.mean(u * problem.v), mass=p.mean(u))


def equation(divergence=None, auxiliary=None, alpha=0.5):
    torch.manual_seed(0)
    return StandardEquation(
        model=Affine((2,)), divergence=divergence or KL(), auxiliary=auxiliary or Entropic(),
        metric=Metric(MLPCritic((2,), width=4)), alpha=alpha,
    )  # fmt: skip


@pytest.mark.parametrize("divergence", [KL, Neyman])
def test_phi_learns_through_another_dual_at_alpha_zero_only(divergence):
    """With alpha > 0 the optimal f holds alpha log p_d besides h'(p_d/p): another D has another optimum."""
    views = [make_players(equation(divergence(), q, alpha))[0].view for q, alpha in ((Dual(), 0.0), (Entropic(), 0.5))]
    assert isinstance(views[0], GAN) and views[1] is None


def test_a_view_is_refused_where_alpha_is_needed():
    metric = Metric(MLPCritic((2,), width=4))
    choice = Choice(Affine, KL(), Entropic(), metric, 0.5, 1.0, views={"phi": GAN()})
    with pytest.raises(IncompatibleError, match="view GAN shares the optimal critic of D at alpha = 0 only.*view=null"):
        check(choice)
    assert check(choice._replace(views={})) == []


def test_a_density_that_the_auxiliary_declares_is_asked_for():
    metric = Metric(MLPCritic((2,), width=4))
    with pytest.raises(
        IncompatibleError, match="auxiliary Entropic needs the model's density, and MLPGenerator has none"
    ):
        check(Choice(MLPGenerator, KL(), Entropic(), metric, 0.5, 1.0))
    labels = Choice(Affine, KL(), Entropic(), metric, 0.5, 1.0, classes=3)
    with pytest.raises(IncompatibleError, match="auxiliary Entropic cannot read any: add data.labels=false"):
        check(labels)


def test_the_held_out_value_bounds_the_equation_with_its_entropy():
    assert bound(equation()) == "lower bound of -alpha H(p_d) + beta KL(p_d, p_theta)"
    assert bound(equation(KL(), Dual(), 0.0)) == "lower bound of beta KL(p_d, p_theta)"


class Standardised:
    """Data whose coordinates were divided by 5."""

    scale = torch.tensor([5.0, 5.0])
    log_scale = 2 * math.log(5)


def test_the_record_adds_up_in_the_users_units():
    """x = 5 y: the same formula evaluated with densities and f of x; the total is that of the scalar less alpha log|s|.

    With f(x) = f(y) - alpha log|s| the minimiser of x is that of y: the optimal f holds alpha log p_d, which moves so.
    """
    game = equation()
    p = game.sample(64, torch.Generator().manual_seed(0))
    data = Particles(torch.randn(32, 2, generator=torch.Generator().manual_seed(1)))
    terms = game.terms(data, p)
    row = in_user_units(terms, game, Standardised())
    total = -game.alpha * row["H_q"] + row["D"] - row["E_q_f"] + row["E_pd_f"]
    assert row["total"] == pytest.approx(total, abs=1e-12) and abs(terms.mass - 1) > 0.01
    assert row["total"] == pytest.approx(terms.total - 0.5 * 2 * math.log(5), abs=1e-12)
    v, log_p = game.metric(p.x).detach() - 0.5 * 2 * math.log(5), p.log_prob.detach() - 2 * math.log(5)
    s = (v - 0.5 * log_p) / 1.5 - 1  # the q-step in the coordinates x
    assert row["H_q"] == pytest.approx(float(-(s.exp() * (s + log_p)).mean()), rel=1e-12)
    assert row["E_q_f"] == pytest.approx(float((s.exp() * v).mean()), rel=1e-12)
    assert total_shift(game, Standardised()) == pytest.approx(-0.5 * 2 * math.log(5))
    assert cost_factor(game, Standardised()) == 1


class Shaped(Divergence):
    """A squared distance of means that wants to know the shape of the data."""

    primal_needs = "samples"

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.event_shape = event_shape

    def primal(self, q, law, p):
        return (q.x.mean(0) - p.x.mean(0)).square().sum()


class ShapedStep(Dual):
    """A q-step that wants to know the shape of the data."""

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.event_shape = event_shape


def test_a_divergence_and_an_auxiliary_receive_the_shape_of_the_data(monkeypatch):
    module = types.ModuleType("shaped")
    module.Shaped, module.ShapedStep = Shaped, ShapedStep
    monkeypatch.setitem(sys.modules, "shaped", module)
    own = ["data=ring8", "device=cpu", "progress=false", "loop.rounds=1", "loop.batch_size=8", "loop.log_every=1"]
    config = compose("gmmn", own)
    config.divergence = {"_target_": "shaped.Shaped"}
    found = assembly_of(config)
    assert found.state.equation.divergence.event_shape == (2,)
    assert found.train().history[-1]["D"] > 0
    config = compose("fgan", own)
    config.auxiliary = {"_target_": "shaped.ShapedStep"}
    assert assembly_of(config).state.equation.auxiliary.event_shape == (2,)
