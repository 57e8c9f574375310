"""Legality: every rule is broken once, names its parts, and its fix mends it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from divergences import (
    GAN,
    KL,
    MMD,
    CrossEntropy,
    OptimalTransport,
    Pearson,
    Renyi,
    Sinkhorn,
    Surrogate,
    TotalVariation,
    Wasserstein1,
    Wasserstein1D,
)
from divergences.absent import Absent
from models import Affine, GroupSortCritic, MLPCritic, MLPGenerator, Projection, RealNVP, TabularCritic
from se_framework.assembly import assembly_of
from se_framework.config.composing import compose
from se_framework.config.mending import mending
from se_framework.equation.auxiliary import Conditional, Dual, Embedded, Empirical, Tilted
from se_framework.equation.auxiliary.transported import Transported
from se_framework.equation.equation import StandardEquation
from se_framework.equation.legality import ALLOWABLE, RULES, Choice, of_data, refuse
from se_framework.equation.legality import check as check_legality
from se_framework.equation.metric import Metric
from se_framework.equation.penalties import R1, GradientPenalty
from se_framework.errors import ConfigError, IncompatibleError
from tests.support.cases import NAMED_F_DIVERGENCES
from tests.support.parts import Chain

DEFAULT_DTYPE = torch.float64


def check(choice, allow=()):
    """Check as a configuration of two-dimensional data does: a refusal says which choices mend it."""
    made_for = {"event_shape": (2,), "image_shape": None, "classes": choice.classes}
    return check_legality(choice, allow, mending(made_for))


def mlp(penalty=None):
    return Metric(MLPCritic((2,), width=4), penalty)


def coupled(penalty):
    return Metric(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1), nn.Flatten(0)), penalty)


class Embedding(nn.Module):
    """A linear embedding: neither Lipschitz nor bounded."""

    def __init__(self, bounded=False):
        super().__init__()
        self.outputs, self.bounded, self.layer = 3, bounded, nn.Linear(2, 3)

    def forward(self, x):
        return self.layer(x)


class Unavailable(MMD):
    """A divergence whose primal needs a package that nobody has."""

    primal_extra = ("no_such_package", "nothing")


PLAIN = {"alpha": 0.0, "beta": 1.0}


class Curved(Dual):
    """An auxiliary of one's own, for divergences that declare what ours do not."""

    works_through = "curvature"


class Silent(Dual):
    """An auxiliary of one's own that reads data alone."""

    def needs_samples(self, divergence):
        return False


BROKEN = {
    "metric_missing": (
        Choice(Affine, GAN(), Dual(), None, **PLAIN),
        "auxiliary Dual needs a metric f_phi, got none: add metric=mlp",
    ),
    "metric_unused": (
        Choice(Affine, CrossEntropy(), Empirical(), mlp(), **PLAIN),
        "auxiliary Empirical has no f_phi: the metric would never learn: add metric=none",
    ),
    "works_through/dual_missing": (
        Choice(Affine, Sinkhorn(), Dual(), mlp(), **PLAIN),
        "auxiliary Dual works through the dual of D, and Sinkhorn has none: add auxiliary=data metric=none",
    ),
    "works_through/primal_missing": (
        Choice(Affine, GAN(), Empirical(), None, **PLAIN),
        r"auxiliary Empirical evaluates D\(p_d, p_theta\) on samples, and GAN is known by its dual only: "
        "add auxiliary=dual metric=mlp",
    ),
    "works_through/ground_cost": (
        Choice(Affine, GAN(), Transported(), mlp(), **PLAIN),
        "auxiliary Transported moves p at a ground cost, and GAN has none: add divergence=wasserstein1",
    ),
    "extra": (
        Choice(Affine, Unavailable(), Empirical(), None, **PLAIN),
        r"Unavailable is computed by the package no_such_package, which is not installed "
        r"\(pip install 'se-framework\[nothing\]'\): add divergence=sinkhorn",
    ),
    "works_through/entropy_form": (
        Choice(Affine, GAN(), Tilted(), mlp(), 0.5, 1.0),
        "auxiliary Tilted has no closed form of q under GAN: add divergence=kl",
    ),
    "lipschitz": (
        Choice(Affine, Wasserstein1(), Dual(), mlp(R1()), **PLAIN),
        r"Wasserstein1 needs a 1-Lipschitz metric, got an unrestricted one: add metric=groupsort "
        r"\(or study it anyway: allow=\[lipschitz\]\)",
    ),
    "pairs": (
        Choice(Affine, GAN(), Conditional(), mlp(), **PLAIN),
        r"auxiliary Conditional takes q\(y \| x\) for every x, and p is no product of the margins of pairs of data: "
        "add auxiliary=dual",
    ),
    "pairs/of a mean": (
        Choice(Affine, Renyi(0.5), Conditional(), mlp(), **PLAIN, pairs=1),
        r"auxiliary Conditional takes q\(y \| x\) for every x, and Renyi is no mean over x: add auxiliary=dual",
    ),
    "alpha": (
        Choice(Affine, GAN(), Dual(), mlp(), 0.5, 1.0),
        "auxiliary Dual is the minimum over q at alpha = 0, got alpha = 0.5: add equation.alpha=0",
    ),
    "beta": (
        Choice(Affine, GAN(), Dual(), mlp(), 0.0, 0.0),
        "beta = 0 removes GAN and with it the model's gradient: add equation.beta=1",
    ),
    "density": (
        Choice(MLPGenerator, CrossEntropy(), Empirical(), None, **PLAIN),
        "CrossEntropy needs the model's density, and MLPGenerator has none: add model=affine",
    ),
    "dimension": (
        Choice(RealNVP, CrossEntropy(), Empirical(), None, **PLAIN, dimension=1),
        "RealNVP needs data of at least 2 dimensions, got 1: add model=affine",
    ),
    "batch_coupled": (
        Choice(Affine, GAN(), Dual(), coupled(R1()), **PLAIN),
        "R1 takes each example's gradient, and Sequential couples the examples by batch normalisation: add metric=mlp",
    ),
    "normaliser": (
        Choice(Affine, Surrogate("hinge"), Dual(normalised=True), mlp(), **PLAIN),
        "auxiliary Dual takes q of mass one, Surrogate has no such dual: add auxiliary=dual",
    ),
    "embedding": (
        Choice(Affine, Sinkhorn(), Embedded(), mlp(), **PLAIN),
        "auxiliary Embedded needs an embedding, and MLPCritic returns one score per example: add metric=embedding",
    ),
    "embedding_bound": (
        Choice(Affine, Sinkhorn(), Embedded(), Metric(Embedding()), **PLAIN),
        "Sinkhorn grows with the scale of its points, and Embedding is neither Lipschitz nor bounded: "
        r"add metric=embedding \(or study it",
    ),
    "context": (
        Choice(Affine, GAN(), Dual(), Metric(TabularCritic()), **PLAIN, classes=3),
        "the data has labels, and Affine and TabularCritic cannot read any: add data.labels=false",
    ),
    "works_through/divergence_missing": (
        Choice(Affine, Absent(), Dual(), mlp(), **PLAIN),
        "auxiliary Dual needs a divergence D, got none: add divergence=kl",
    ),
    "works_through/need": (
        Choice(Affine, GAN(), Curved(), mlp(), **PLAIN),
        "auxiliary Curved works through curvature of D, and GAN has none",
    ),
    "penalty": (
        Choice(Affine, GAN(), Silent(), mlp(GradientPenalty()), **PLAIN),
        "GradientPenalty acts at the model's samples, and auxiliary Silent draws none: add metric.penalty=null",
    ),
    "view": (
        Choice(Affine, GAN(), Dual(), mlp(), **PLAIN, views={"theta": CrossEntropy()}),
        "a player's view CrossEntropy reads the critic through a dual, .*: add players.theta.view=null",
    ),
    "view_reads": (
        Choice(Affine, KL(), Dual(), mlp(), **PLAIN, views={"phi": TotalVariation()}),
        "a player's view TotalVariation does not go with KL: the critic's output stands for its sign under "
        "TotalVariation, and KL reads a log-ratio: add players.phi.view=null",
    ),
}


def test_every_rule_is_broken_once():
    assert {name.partition("/")[0] for name in BROKEN} == set(RULES)


def test_convolutions_need_images():
    class ForImages(MLPGenerator):
        needs_image = True

    flat = {"event_shape": (2,), "image_shape": None, "classes": 0, "reference": None}
    refuse(of_data(ForImages, MLPCritic, flat | {"image_shape": (8, 8)}))
    mend = mending(flat)
    for part, divergence, auxiliary, fix in (
        ("model", GAN(), Dual(), "model=mlp_generator"),
        ("model", CrossEntropy(), Empirical(), "model=affine"),
        ("metric", GAN(), Dual(), "metric=mlp"),
        ("metric", Wasserstein1(), Dual(), "metric=groupsort"),
        ("metric", CrossEntropy(), Empirical(), "metric=none"),
        ("metric", Sinkhorn(), Embedded(), "metric=embedding"),
    ):
        critic = mlp() if auxiliary.uses_metric else None
        choice = Choice(ForImages, divergence, auxiliary, critic, **PLAIN)
        found = of_data(ForImages, None, flat) if part == "model" else of_data(Affine, ForImages, flat)
        choice = choice if part == "model" else choice._replace(model=Affine, metric=None)
        with pytest.raises(IncompatibleError, match=f"ForImages is for images, and the data has no.*: add {fix}$"):
            refuse(found, mend(choice, found, ()))


def test_embeddings_and_labels_find_their_place():
    bounded, free = Metric(Embedding(bounded=True)), Metric(Embedding())
    assert check(Choice(Affine, Sinkhorn(), Embedded(), bounded, **PLAIN)) == []
    for wrong, fix in (
        (Choice(Affine, GAN(), Dual(), free, **PLAIN), "metric=mlp"),
        (Choice(Affine, Wasserstein1(), Dual(), free, **PLAIN), "metric=groupsort"),
        (Choice(Affine, Sinkhorn(), Embedded(), Metric(Embedding(), R1()), **PLAIN), "metric.penalty=null"),
        (Choice(Affine, CrossEntropy(), Embedded(), bounded, **PLAIN), "divergence=sinkhorn"),
        (Choice(MLPGenerator, Sinkhorn(), Empirical(), None, **PLAIN, classes=2), "data.labels=false"),
        (Choice(MLPGenerator, KL(), Tilted(), mlp(), 0.5, 1.0, classes=2), "data.labels=false"),
    ):
        with pytest.raises(IncompatibleError, match=f"add .*{fix}"):
            check(wrong)
    assert check(Choice(MLPGenerator, GAN(), Dual(), mlp(), **PLAIN, classes=2)) == []


def test_a_parameter_may_decide_whether_there_is_a_dual():
    for auxiliary in (Dual(), Dual(normalised=True)):
        assert check(Choice(Affine, Renyi(1.0), auxiliary, mlp(), **PLAIN)) == []
        with pytest.raises(IncompatibleError, match="the dual of D, and Renyi has none.*: add divergence=kl"):
            check(Choice(Affine, Renyi(1.5), auxiliary, mlp(), **PLAIN))
    with pytest.raises(IncompatibleError, match="Renyi is known by its dual only: add auxiliary=dual metric=mlp"):
        check(Choice(Affine, Renyi(0.5), Empirical(), None, **PLAIN))
    with pytest.raises(IncompatibleError, match="neither that nor a dual: add divergence=cross_entropy"):
        check(Choice(Affine, Renyi(1.5), Empirical(), None, **PLAIN))
    with pytest.raises(IncompatibleError, match="a player's view Renyi"):
        check(Choice(Affine, GAN(), Dual(), mlp(), **PLAIN, views={"theta": Renyi(2.0)}))


def test_what_breaks_no_rule_is_not_refused():
    """A penalty that does not take each example's gradient may meet batch normalisation; no D needs no weight of D."""

    class OfTheBatch(R1):
        per_example = False

    assert check(Choice(Affine, GAN(), Dual(), coupled(OfTheBatch()), **PLAIN)) == []
    assert check(Choice(Affine, Absent(), Chain(), None, 0.0, 0.0)) == []


def test_surrogates_are_flagged():
    (remark,) = check(Choice(Affine, Surrogate("hinge"), Dual(), mlp(), **PLAIN))
    assert remark.startswith("surrogate: Surrogate(hinge, a surrogate): each player has a loss of its own")


@pytest.mark.parametrize("rule", BROKEN)
def test_rules_name_the_parts_and_the_fix(rule):
    (choice, message), rule = BROKEN[rule], rule.partition("/")[0]
    with pytest.raises(IncompatibleError, match=message):
        check(choice)
    if rule in ALLOWABLE:
        (warning,) = check(choice, allow=[rule])
        assert warning.startswith(f"allowed: {rule}: ")
    else:
        with pytest.raises(ConfigError, match=f"allow: '{rule}' is no rule that can be allowed"):
            check(choice, allow=[rule])


def test_more_ways_to_break_the_rules():
    with pytest.raises(IncompatibleError, match="add divergence=kl equation.alpha=0.5$"):  # another part, and a value
        check(Choice(Affine, GAN(), Tilted(), mlp(), **PLAIN))
    with pytest.raises(IncompatibleError, match=r"auxiliary Tilted needs alpha > 0, got 0: add equation.alpha=0.5"):
        check(Choice(Affine, KL(), Tilted(), mlp(), **PLAIN))
    with pytest.raises(
        IncompatibleError, match="auxiliary Tilted needs the model's density, and MLPGenerator has none"
    ):
        check(Choice(MLPGenerator, KL(), Tilted(), mlp(), 0.5, 1.0))
    with pytest.raises(IncompatibleError, match="Wasserstein1 needs a 1-Lipschitz metric"):  # in a view as well
        check(Choice(Affine, GAN(), Dual(), mlp(), **PLAIN, views={"theta": Wasserstein1()}))
    with pytest.raises(ConfigError, match="'lipshitz' is no rule that can be allowed: did you mean 'lipschitz'"):
        check(BROKEN["lipschitz"][0], allow=["lipshitz"])
    with pytest.raises(IncompatibleError, match="needs a metric.*; .*alpha"):  # all faults at once
        check(Choice(Affine, GAN(), Dual(), None, 0.5, 1.0))


def test_transport_finds_its_place():
    """A ground cost without a dual is served by transported, which needs no Lipschitz metric; the line is a line."""
    assert check(Choice(Affine, Wasserstein1(), Transported(), mlp(R1()), **PLAIN)) == []
    assert check(Choice(Affine, OptimalTransport(), Transported(), mlp(), **PLAIN, dimension=5)) == []  # needs no POT
    assert check(Choice(Affine, Wasserstein1D(), Transported(), mlp(), **PLAIN, dimension=5)) == []
    assert check(Choice(Affine, Wasserstein1D(), Empirical(), None, **PLAIN, dimension=1)) == []
    line = Metric(Projection((5,)))
    assert check(Choice(Affine, Wasserstein1D(), Embedded(), line, **PLAIN, dimension=5)) == []
    for wrong, message in (
        (Choice(Affine, OptimalTransport(), Dual(), mlp(), **PLAIN), "has none: add auxiliary=transported_particles$"),
        (Choice(Affine, Wasserstein1D(root=True), Dual(), mlp(), **PLAIN), "add auxiliary=data metric=none"),
        (Choice(Affine, Wasserstein1D(root=True), Transported(), mlp(), **PLAIN), "Wasserstein1D has none: add diverg"),
        (
            Choice(Affine, Wasserstein1(), Transported(), None, **PLAIN),
            "needs a metric f_phi, got none: add metric=mlp",
        ),
        (Choice(Affine, Wasserstein1(), Transported(), mlp(), 0.5, 1.0), "at alpha = 0, got .*: add equation.alpha=0"),
        (
            Choice(Affine, Wasserstein1(), Transported(), coupled(None), **PLAIN),
            "takes v at points of its own, and Sequential couples the examples by batch normalisation: add metric=mlp",
        ),
        (
            Choice(Affine, Wasserstein1D(), Empirical(), None, **PLAIN, dimension=2),
            "Wasserstein1D is for data of at most 1 dimension, got 2: add divergence=sinkhorn",
        ),
        (
            Choice(Affine, Wasserstein1D(), Embedded(), Metric(Embedding(bounded=True)), **PLAIN, dimension=1),
            "Wasserstein1D is for embedded points of at most 1 dimension, got 3: add metric=projection",
        ),
        (
            Choice(MLPGenerator, Wasserstein1(), Transported(), mlp(), **PLAIN, classes=2),
            "the data has labels, and Wasserstein1 cannot read any: add data.labels=false",
        ),
    ):
        with pytest.raises(IncompatibleError, match=message):
            check(wrong)


@pytest.mark.parametrize("model", [Affine, MLPGenerator])
def test_legal_choices_pass(model):
    for d in NAMED_F_DIVERGENCES.values():
        for auxiliary in (Dual(), Dual(normalised=True)):
            assert check(Choice(model, d(), auxiliary, mlp(R1()), **PLAIN)) == []
    assert check(Choice(model, Wasserstein1(), Dual(), mlp(GradientPenalty()), **PLAIN)) == []
    assert check(Choice(model, Sinkhorn(), Empirical(), None, **PLAIN)) == []
    assert check(Choice(Affine, CrossEntropy(), Empirical(), None, **PLAIN)) == []


@pytest.mark.parametrize("weight", ["alpha", "beta"])
@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_bad_weights_are_refused(weight, bad):
    with pytest.raises(ConfigError, match=f"equation.{weight} must be a finite number >= 0, got"):
        StandardEquation(
            model=Affine((2,)), divergence=GAN(), auxiliary=Dual(), metric=mlp(), **{weight: bad}
        )  # fmt: skip


def test_equation_checks_legality_and_keeps_the_warnings():
    with pytest.raises(IncompatibleError, match="Wasserstein1 needs"):
        StandardEquation(model=Affine((2,)), divergence=Wasserstein1(), auxiliary=Dual(), metric=mlp())
    studied = StandardEquation(
        model=Affine((2,)), divergence=Wasserstein1(), auxiliary=Dual(), metric=mlp(), allow=["lipschitz"]
    )
    assert studied.warnings == ["allowed: lipschitz: Wasserstein1 needs a 1-Lipschitz metric, got an unrestricted one"]


SEEN = {
    "phi learns a sign, D reads a log-ratio": (KL, "phi", TotalVariation, "sign under TotalVariation, and KL reads"),
    "phi learns a potential": (KL, "phi", Wasserstein1, "potential under Wasserstein1, and KL reads a log-ratio"),
    "theta reads a potential off a log-ratio": (GAN, "theta", Wasserstein1, "log-ratio under GAN, and"),
    "theta reads a log-ratio off a sign": (TotalVariation, "theta", KL, "sign under TotalVariation, and KL reads"),
    "theta reads a log-ratio off a potential": (Wasserstein1, "theta", KL, "potential under Wasserstein1, and"),
    "theta reads a sign off a potential": (Wasserstein1, "theta", TotalVariation, "potential under Wasserstein1, and"),
    "D reads a sign off a potential": (TotalVariation, "phi", Wasserstein1, "and TotalVariation reads a sign"),
    "theta reads a potential off a sign": (TotalVariation, "theta", Wasserstein1, "sign under TotalVariation, and"),
    "phi learns v up to a constant": (KL, "phi", lambda: Renyi(0.5), "Renyi is no mean over examples and leaves v a"),
    "theta reads what is up to a constant": (lambda: Renyi(0.5), "theta", GAN, "Renyi is no mean over examples"),
}  # fmt: skip


@pytest.mark.parametrize("case", SEEN)
def test_a_view_reads_what_the_critics_output_stands_for(case):
    d, player, view, message = SEEN[case]
    network = GroupSortCritic((2,), width=4) if d is Wasserstein1 or view is Wasserstein1 else MLPCritic((2,))
    choice = Choice(Affine, d(), Dual(), Metric(network), **PLAIN, views={player: view()})
    with pytest.raises(IncompatibleError, match=f"a player's view .*{message}.*add players.{player}.view=null"):
        check(choice)
    (warning,) = check(choice, allow=["view_reads"])
    assert warning.startswith("allowed: view_reads: ")


@pytest.mark.parametrize("player", ["phi", "theta"])
def test_views_that_fit_are_named_with_the_override_that_chooses_them(player):
    """Of the smooth f-divergences each reads the same v; a sign can be read off it, but not learnt in its place."""
    view = TotalVariation() if player == "phi" else Wasserstein1()
    choice = Choice(Affine, KL(), Dual(), Metric(GroupSortCritic((2,), width=4)), **PLAIN, views={player: view})
    with pytest.raises(IncompatibleError) as found:
        check(choice)
    said = str(found.value)
    names = said.partition(f"divergence@players.{player}.view=CHOICE, one of ")[2].partition(")")[0].split(", ")
    assert {"gan", "jeffreys", "jensen_shannon", "kl", "pearson", "reverse_kl"} <= set(names)
    assert not {"wasserstein1", "renyi", "mmd", "hinge", "cross_entropy", "fisher"} & set(names)
    assert ("total_variation" in names) is (player == "theta")


def test_views_over_probabilities_share_no_optimum():
    views = {"phi": GAN()}
    with pytest.raises(IncompatibleError, match="over q of mass one their optimal critics differ"):
        check(Choice(Affine, Pearson(), Dual(normalised=True), mlp(), **PLAIN, views=views))
    check(Choice(Affine, GAN(), Dual(normalised=True), mlp(), **PLAIN, views=views))
    check(Choice(Affine, TotalVariation(), Dual(), mlp(), **PLAIN, views=views))  # a sign is read off a log-ratio


def test_a_view_written_as_a_word_is_told_the_override_that_chooses_it():
    said = "players.phi.view must be a choice .*, got 'jeffreys': choose it by divergence@players.phi.view=jeffreys"
    with pytest.raises(ConfigError, match=said):
        assembly_of(compose("vanilla_gan", ["players.phi.view=jeffreys"]))
