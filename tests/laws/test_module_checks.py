"""The laws of models, metrics and auxiliaries: shipped ones keep them, wrong ones fail by the law's name."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributions import Normal

import se_framework as se
from divergences import GAN, KL, CrossEntropy, EnergyDistance, ReverseKL
from divergences.absent import Absent
from models import (
    Affine,
    GaussianMixture,
    GroupSortCritic,
    MLPCritic,
    MLPEmbedding,
    MLPGenerator,
    Particles,
    RealNVP,
    SpectralCritic,
    TabularModel,
)
from models.checks import model_laws
from models.laws import PushForward
from se_framework.checks import CheckError, check_auxiliary, check_metric, check_model, laws_of, parametrize_with_laws
from se_framework.equation.auxiliary import Auxiliary, Dual, Embedded, Empirical, Tilted
from se_framework.equation.metric import Metric
from se_framework.equation.penalties import R1, GradientPenalty
from tests.support.cases import AUXILIARIES, F_DIVERGENCES, INSTALLED, NAMED_F_DIVERGENCES
from tests.support.modules import CRITICS, EMBEDDINGS, MODELS

CONDITIONAL = [
    MLPGenerator((2,), width=8, classes=3),
    RealNVP((2,), couplings=4, width=8, classes=3),
]


@parametrize_with_laws([*(make() for make in MODELS.values()), *CONDITIONAL])
def test_shipped_models(law):
    law()


METRICS = [
    *(Metric(make()) for make in [*CRITICS.values(), *EMBEDDINGS.values()]),
    *(Metric(make(), penalty) for name, make in CRITICS.items() if "tabular" not in name
      for penalty in (GradientPenalty(), GradientPenalty(sides="one"), R1(fake=True))),
    Metric(MLPCritic((2,), width=8, classes=3)),
    Metric(SpectralCritic((2,), width=8, classes=3)),
    Metric(MLPCritic((2,), width=8), clip=0.05),
]  # fmt: skip


@parametrize_with_laws(METRICS)
def test_shipped_metrics(law):
    law()


def pairs():
    """Every auxiliary with every divergence that legality lets it have (the slow generic form once)."""
    for make_q in AUXILIARIES.values():
        if make_q().works_through is None:  # it needs no D
            yield make_q(), Absent()
            continue
        for name, make in INSTALLED.items():
            q, d = make_q(), make()
            needed = getattr(d, q.works_through)
            fits = not (needed is None or needed is False)  # a weight of zero is there
            fits &= not (q.needs_mass_one and not d.has_normalised_dual)
            fits &= not (q.keeps_margin and (d.critic_reads == "potential" or not d.additive_dual))
            fits &= not (q.embeds and d.primal_needs == "log_prob")
            generic = name in F_DIVERGENCES and name not in NAMED_F_DIVERGENCES
            if fits and not (generic and q.needs_mass_one):
                yield q, d


@parametrize_with_laws(pairs())
def test_shipped_auxiliaries(law):
    law()


def test_names_are_loaded_on_first_use():
    assert se.check_model is check_model and se.check_metric is check_metric
    assert se.check_auxiliary is check_auxiliary and se.parametrize_with_laws is parametrize_with_laws
    se.check_divergence(GAN())


# -- wrong models -----------------------------------------------------------------------------------------------------


def wrong_law(change):
    """Return an affine model whose law is changed: log_prob, particles, noise or sample."""

    class Changed(PushForward):
        pass

    for name, method in change.items():
        setattr(Changed, name, method)

    class Wrong(Affine):
        def forward(self, context=None):
            law = super().forward(context)
            return Changed(law.push, law.latent_shape, law.event_shape, law.like, law.pull)

    return Wrong


class Deaf(MLPGenerator):
    def forward(self, context=None):
        return super().forward(None if context is None else torch.zeros_like(context))


class Frozen(Affine):
    def forward(self, context=None):
        law = super().forward(context)
        return PushForward(
            lambda z: (law.push(z)[0].detach() + self.loc, law.push(z)[1].detach()),
            law.latent_shape, law.event_shape, law.like, law.pull,
        )  # fmt: skip


class Forgets(Affine):
    """Its law reads the module's own parameters when it is used."""

    def forward(self, context=None):
        return PushForward(
            lambda z: Affine.forward(self).push(z), (self.dimension,), self.event_shape, self.loc,
            lambda x: Affine.forward(self).pull(x),
        )  # fmt: skip


class TakesLabels(Affine):
    def forward(self, context=None):
        return super().forward(None)


class Undeclared(Affine):
    has_log_prob = False


class DrawsByItself(Affine):
    def draws(self, n, stream, context=None):
        return {"noise": torch.randn(n, self.dimension, dtype=self.loc.dtype)}


class DropsLabels(MLPGenerator):
    def particles(self, draws, context=None):
        return self(context).particles(draws["noise"])


class HalfMixture(GaussianMixture):
    def forward(self, context=None):
        law = super().forward(context)
        law.log_weights = law.log_weights - 0.1
        return law


def _shifted(self, value):
    return PushForward.log_prob(self, value) + 0.1


def _carries(self, noise):
    found = PushForward.particles(self, noise)
    return Particles(found.x, None, found.log_prob - 0.2)


def _draws(self, sample_shape=(), generator=None):
    return 0.5 * PushForward.rsample(self, sample_shape, generator).detach()


WRONG_MODELS = [
    (wrong_law({"log_prob": _shifted}), "density_integrates_to_one: the density has mass 1.10"),
    (wrong_law({"particles": _carries}), "density_of_particles: the particles' log_prob and the law's differ by 0.2"),
    (wrong_law({"sample": _draws}), "rsample_is_sample: rsample and sample of the same generator differ by"),
    (wrong_law({"sample": lambda self, s=(), generator=None: self.rsample(s, generator)}), "sample\\(\\) has a graph"),
    (wrong_law({"noise": lambda self, n, generator=None: torch.randn(n, 1, dtype=self.like.dtype)}),
     "determined_by_noise: noise of the same generator differs"),
    (wrong_law({"noise": lambda self, n, generator=None: torch.randn(n, 1, generator=generator)}), "dtype_kept"),
    (DrawsByItself, "determined_by_draws: draws of streams differ"),
    (lambda shape: DropsLabels(shape, width=8, classes=3), "determined_by_draws: the particles do not carry"),
    (Frozen, "gradient_reaches_every_parameter: .* has no gradient"),
    (Forgets, "law_keeps_its_parameters: particles of a law made by functional_call"),
    (TakesLabels, "context_is_read: classes = 0, but a call with labels is taken"),
    (Undeclared, "shapes: has_log_prob is False, but the law's log_prob returns numbers"),
    (HalfMixture, "shapes: the particles' weights have mass 0.9"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), WRONG_MODELS)
def test_wrong_models(make, message):
    with pytest.raises(AssertionError, match=message):
        check_model(make((1,)))


def test_a_deaf_conditional_model():
    with pytest.raises(AssertionError, match="context_is_read: particles do not depend on the label"):
        check_model(Deaf((2,), width=8, classes=2))


class WrongDeterminant(Affine):
    """The density and its particles agree, and the change of variables does not."""

    def forward(self, context=None):
        law = super().forward(context)
        return PushForward(
            lambda z: (law.push(z)[0], 0 * law.push(z)[1]), law.latent_shape, law.event_shape, law.like,
            lambda x: (law.pull(x)[0], 0 * law.pull(x)[1]),
        )  # fmt: skip


def test_a_wrong_determinant():
    with pytest.raises(AssertionError, match="density_by_the_jacobian: log_prob and the change of variables") as caught:
        check_model(WrongDeterminant((3,)))
    assert "WrongDeterminant breaks" in str(caught.value)


def test_checks_leave_the_object_alone():
    model, critic = TabularModel(), SpectralCritic((2,), width=8)
    before = {k: v.clone() for k, v in [*model.state_dict().items(), *critic.state_dict().items()]}
    state = torch.random.get_rng_state()
    check_model(model)
    check_metric(Metric(critic))
    after = {**model.state_dict(), **critic.state_dict()}
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert torch.equal(torch.random.get_rng_state(), state)


# -- wrong metrics ----------------------------------------------------------------------------------------------------


class SaysLipschitz(MLPCritic):
    lipschitz = 1.0


class Coupled(MLPCritic):
    def score(self, x, context=None):
        scores = super().score(x)
        return scores - scores.mean()


class Counts(MLPCritic):
    def __init__(self, event_shape):
        super().__init__(event_shape, width=8)
        self.register_buffer("seen", torch.zeros(()))

    def score(self, x, context=None):
        self.seen += 1
        return super().score(x)


class Creeps(MLPCritic):
    def settle(self):
        with torch.no_grad():
            for p in self.parameters():
                p.mul_(0.9)


class NoGradient(MLPCritic):
    def score(self, x, context=None):
        return super().score(x).detach() + self.net[-1].bias


class FreeEmbedding(MLPEmbedding):
    def __init__(self, event_shape):
        super().__init__(event_shape, width=8, bounded=True)

    def embed(self, x):
        return self.net(x)


class Firm(R1):
    def penalty(self, metric, x_data, x_model, mix):
        return super().penalty(metric, x_data, x_model, mix).detach() + 0 * metric(x_data).sum()


class Wide(MLPCritic):
    def score(self, x, context=None):
        return super().score(x).double()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Metric(SaysLipschitz((2,))),
            "slopes_at_most_one: declared 1-Lipschitz by",
        ),
        (lambda: Metric(Coupled((2,))), "coupling_is_declared: a score moves by .* with the other"),
        (lambda: Metric(Counts((2,))), "forward_is_pure: reading has changed network.seen"),
        (lambda: Metric(Creeps((2,))), "settle_is_idempotent: outputs after settling again"),
        (lambda: Metric(NoGradient((2,))), "gradient_reaches_every_parameter: network.net.1.weight has no gradient"),
        (lambda: Metric(FreeEmbedding((2,))), "bounded_far_out: declared bounded, but outputs are"),
        (lambda: Metric(MLPCritic((2,)), Firm()), "penalty_is_differentiable: gradient of the penalty in phi: got 0"),
        (lambda: Metric(Wide((2,))), "dtype_kept: outputs of a torch.float32 metric are torch.float64"),
    ],
)
def test_wrong_metrics(make, message):
    with pytest.raises(CheckError, match=message):
        check_metric(make())


def test_a_network_without_event_shape():
    metric = Metric(nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)))
    check_metric(metric, (3,))
    with pytest.raises(ValueError, match="Sequential has no event_shape: pass the shape of one example"):
        check_metric(metric)
    with pytest.raises(TypeError, match=r"wrap the network, Metric\(network\)"):
        check_metric(MLPCritic((2,)))
    norm = Metric(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1), nn.Flatten(0)))
    check_metric(norm, (3,))  # declared by its layer: the score does depend on the batch


# -- wrong auxiliaries ------------------------------------------------------------------------------------------------


class Stale(Dual):
    def minimum(self, problem, role=None):
        return super().minimum(problem).detach() + 0 * problem.v.sum() + 0 * problem.p.log_weights.sum()


class WrongSign(Dual):
    def minimum(self, problem, role=None):
        return -super().minimum(problem)


class WrongRecord(Dual):
    def solve(self, problem):
        found = super().solve(problem)
        return found._replace(divergence=2 * found.divergence)


class HalfBeta(Dual):
    def f(self, v, divergence, beta):
        return divergence.link(v)


class WrongReading(Dual):
    def log_ratio(self, x, v, problem):
        return 2 * v


class NotTheOptimum(Tilted):
    """Its minimum is that of a q without the entropy's share in the temperature."""

    def _temperature(self, problem):
        return problem.divergence.entropy_weight, problem.alpha + 0.5


class TwiceTheData(Empirical):
    def evaluate(self, problem):
        return 2 * super().evaluate(problem)


@pytest.mark.parametrize(
    ("auxiliary", "divergence", "message"),
    [
        (Stale(), KL(), "gradient_is_danskin: gradient of the minimum in v: got 0, expected "),
        (WrongSign(), KL(), "solve_is_minimum: solve's minimum against minimum"),
        (WrongRecord(), KL(), "record_adds_up: minimum against -alpha H"),
        (HalfBeta(), KL(), "no_q_does_better: minimum against a search over q"),
        (WrongReading(), ReverseKL(), r"log_ratio_reads_q: objective at q\* against minimum"),
        (NotTheOptimum(), KL(), "no_q_does_better: minimum against a search over q"),
        (TwiceTheData(), EnergyDistance(), "minimum_is_the_primal: minimum against beta D"),
    ],
)
def test_wrong_auxiliaries(auxiliary, divergence, message):
    with pytest.raises(CheckError, match=message) as caught:
        check_auxiliary(auxiliary, divergence)
    assert str(caught.value).startswith(f"{type(auxiliary).__name__} breaks")


def test_what_has_no_laws():
    with pytest.raises(TypeError, match="takes an Auxiliary and a Divergence"):
        check_auxiliary(Dual, KL())
    with pytest.raises(TypeError, match="laws are known of"):
        laws_of(Normal(0.0, 1.0))
    with pytest.raises(TypeError, match="takes an instance of Model"):
        list(model_laws(Affine))
    assert issubclass(Embedded, Auxiliary) and GroupSortCritic.lipschitz == 1 and CrossEntropy.primal_needs
