"""The held-out value's standard error, and what it rests on: kinds of errors that were planted and went unnoticed.

Oracles as in ``test_held_out.py``, by hand in float64.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from divergences import KL, CrossEntropy, Wasserstein1
from divergences.estimates import tail
from models import Affine, GroupSortCritic, MLPCritic, Particles, RealNVP
from se_framework import Dual, Empirical, GradientPenalty, Metric, Solution, StandardEquation, Transported
from se_framework.data import TensorData
from se_framework.evaluation import held_out
from se_framework.evaluation.held_out import bound, held_out_value, value_and_error
from se_framework.randomness import Stream

DEFAULT_DTYPE = torch.float64
N = 60
ROUNDING = 1e-12  # sums of sixty numbers of order ten


def standardised(scale=5.0, d=2, n=600) -> TensorData:
    return TensorData(scale * torch.randn(n, d) + 7, standardize=True)


class Slope(torch.nn.Module):
    """v = 5 x."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(5.0))

    def forward(self, x):
        return self.w * x[:, 0]


class Kicked(Dual):
    """KL's dual with noise of its own on every score: each summand draws its own, for every example."""

    def draws(self, n, stream):
        return {"kick": stream.normal("kick", (n,))}

    def scores(self, problem):
        return problem.v + problem.draws["kick"].to(problem.v)

    def minimum(self, problem, role=None):
        return -problem.beta * torch.expm1(self.scores(problem)).mean()

    def values(self, problem):
        return -problem.beta * torch.expm1(self.scores(problem))

    def solve(self, problem):
        return Solution(self.minimum(problem), None, None, None)


class KickedTogether(Kicked):
    """The same as Donsker and Varadhan's bound, which is no mean."""

    def minimum(self, problem, role=None):
        return -problem.beta * problem.p.log_mean_exp(self.scores(problem))

    def values(self, problem):
        return None


@pytest.mark.parametrize(("kind", "parts_of"), [(Kicked, 1), (KickedTogether, 10)])
def test_errors_of_summands_that_draw_are_by_their_own_draws(kind, parts_of):
    """By hand: noise of both summands from the record of draws, that of an example with the example."""
    model, more = Affine((2,)), Metric(MLPCritic((2,), width=8))
    metric = Metric(MLPCritic((2,), width=8))
    other = StandardEquation(model=model, divergence=KL(), auxiliary=kind(), metric=more)
    total = StandardEquation(
        model=model, divergence=KL(), auxiliary=kind(), metric=metric, plus={"more": (0.5, other)}, beta=2.0
    )
    x, stream = Particles(torch.randn(N, 2)), Stream(0, 1, "held-out", dtype=torch.float64)
    draws = total.draws(N, stream)
    p, own, theirs = total.particles(draws), draws["auxiliary/own/kick"], draws["auxiliary/more/kick"]

    with torch.no_grad():
        value, error = value_and_error(total, standardised(1.0), x, p, draws)
        f = 2 * (1 + metric(x.x)) + 0.5 * (1 + more(x.x))
        first, second = metric(p.x) + own, more(p.x) + theirs
        if parts_of == 1:
            values = -2 * first.expm1() - 0.5 * second.expm1()
            want, squares = f.mean() + values.mean(), f.var() / N + values.var() / N
        else:
            at = [slice(i, None, 10) for i in range(10)]
            means = [
                f[i].mean() - 2 * (first[i].logsumexp(0) - math.log(6)) - 0.5 * (second[i].logsumexp(0) - math.log(6))
                for i in at
            ]
            whole = [t.logsumexp(0) - math.log(N) for t in (first, second)]
            want, squares = f.mean() - 2 * whole[0] - 0.5 * whole[1], torch.stack(means).var() / 10
    assert value == pytest.approx(float(want), abs=ROUNDING)
    assert error == pytest.approx(float(squares.sqrt()), rel=1e-10)


@pytest.mark.parametrize("heavy", ["own", "more", None])
def test_a_sum_rests_on_as_few_points_as_its_heaviest_summand(heavy):
    """The slope 5 between clouds five apart tells next to nothing, whichever summand it is in; 0.01 all."""
    model, data = Affine((1,)), TensorData(torch.randn(2000, 1) + 5.0, standardize=False)
    metrics = {name: Metric(Slope()) for name in ("own", "more")}
    for name, metric in metrics.items():
        metric.network.w.data.fill_(5.0 if name == heavy else 0.01)
    made = [StandardEquation(model=model, divergence=KL(), auxiliary=Dual(), metric=metrics["more"])]
    made.append(
        StandardEquation(
            model=model, divergence=KL(), auxiliary=Dual(), metric=metrics["own"], plus={"more": (0.5, made[0])}
        )
    )
    found = held_out_value(SimpleNamespace(equation=made[1], data=data), 400, 0)
    assert ("interval" in found) is (heavy is not None)
    if heavy:
        assert found["effective_sample_size"] < 20


def test_the_error_of_float32_scores_is_taken_in_float64():
    """e^v of a score of 95 is beyond float32; of those below, single precision would be off by 1e-7."""
    torch.set_default_dtype(torch.float32)
    metric = Metric(Slope())
    equation = StandardEquation(model=Affine((1,)), divergence=KL(), auxiliary=Dual(), metric=metric)
    x, p = (Particles(t) for t in (torch.randn(N, 1), torch.linspace(-1, 19, N)[:, None]))
    with torch.no_grad():
        _, error = value_and_error(equation, standardised(1.0, 1), x, p, {})
        v, v_data = metric(p.x), metric(x.x)
    assert v.dtype == torch.float32 and float(v.max()) == 95
    squares = (v_data.double().var() + v.double().exp().var()) / N
    assert error == pytest.approx(float(squares.sqrt()), rel=1e-12)


def test_the_error_of_a_labelled_likelihood_is_that_of_the_printed_scalar():
    """beta log p(x | y): each example given its own label, and weighed as the value is."""
    model = RealNVP((2,), classes=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    equation = StandardEquation(model=model, divergence=CrossEntropy(), auxiliary=Empirical(), beta=3.0)
    labels = torch.arange(N) % 2
    x = Particles(torch.randn(N, 2) + labels[:, None], context=labels)
    with torch.no_grad():
        data = standardised()
        value, error = value_and_error(equation, data, x, None, {})
        given, other = (-3 * model(y).log_prob(x.x) for y in (labels, labels.flip(0)))
    assert value == pytest.approx(float(given.mean()) + 3 * data.log_scale, abs=ROUNDING)
    assert error == pytest.approx(float(given.std() / N**0.5), rel=1e-10)
    assert abs(float(other.std() / given.std()) - 1) > 1e-3


def test_the_seed_chooses_the_examples_of_the_held_out_value():
    """Twenty of 400 rows: by hand from those that the data gives for the seed; another seed, other rows."""
    model, data = Affine((2,)), standardised(n=4000)
    equation = StandardEquation(model=model, divergence=CrossEntropy(), auxiliary=Empirical())
    found = [held_out_value(SimpleNamespace(equation=equation, data=data), 20, seed)["value"] for seed in (3, 4)]
    for seed, value in zip((3, 4), found, strict=True):
        by_hand = -model().log_prob(data.held_out(20, seed).x).mean() + data.log_scale
        assert value == pytest.approx(float(by_hand.detach()), abs=ROUNDING)
    assert abs(found[0] - found[1]) > 1e-3


def test_points_of_a_quadrature_are_no_sample_and_have_no_error():
    """Their spread says nothing of the error: the value stands alone."""
    equation = StandardEquation(
        model=Affine((2,)), divergence=KL(), auxiliary=Dual(), metric=Metric(MLPCritic((2,), width=8))
    )
    x, y = Particles(torch.randn(N, 2)), torch.randn(N, 2)
    equal = torch.full((N,), -math.log(N))
    data = standardised(1.0)
    with torch.no_grad():
        plain, weighted = (value_and_error(equation, data, x, Particles(y, w), {}) for w in (None, equal))
    assert weighted == (pytest.approx(plain[0], abs=ROUNDING), None) and plain[1] > 0


def test_transported_summands_cap_the_number_of_points_too(monkeypatch):
    """The supremum runs over all pairs: held-out points of W1's c-transform are as few as those of a kernel."""
    monkeypatch.setattr(held_out, "PAIRWISE", 30)
    equation = StandardEquation(
        model=Affine((2,)), divergence=Wasserstein1(), auxiliary=Transported(steps=0),
        metric=Metric(GroupSortCritic((2,), width=8)),
    )  # fmt: skip
    assert held_out_value(SimpleNamespace(equation=equation, data=standardised(n=2000)), 1000, 0)["n"] == 30


def test_the_dual_of_w1_bounds_from_below_by_construction_only():
    """A penalty drives the critic there, clipping leaves an unknown constant: the value may lie above W1."""

    def said(metric):
        equation = StandardEquation(model=Affine((2,)), divergence=Wasserstein1(), auxiliary=Dual(), metric=metric)
        return bound(equation)

    critic, of = MLPCritic((2,), width=4), "beta Wasserstein1(p_d, p_theta)"
    assert said(Metric(GroupSortCritic((2,), width=8))) == f"lower bound of {of}"
    by_penalty = said(Metric(critic, GradientPenalty(3.0)))
    assert by_penalty.startswith(f"not a bound: {of} with a metric 1-Lipschitz by penalty (GradientPenalty(weight=3")
    clipped = said(Metric(critic, clip=0.1))
    assert clipped == f"not a bound: {of} with a metric Lipschitz by clipping, of unknown constant"


@pytest.mark.parametrize(
    ("n", "effective", "holds"), [(4000, 201, True), (4000, 199, False), (100, 26, True), (100, 24, False)]
)
def test_two_hundred_effective_points_or_a_quarter_of_the_sample_carry_an_error(n, effective, holds):
    """So many equal scores, all others far below: Kish's size is their number."""
    v = torch.full((n,), -1000.0)
    v[:effective] = 0.0
    size, found = tail(KL(), torch.zeros(9), v)
    assert size == pytest.approx(effective, rel=1e-12) and found is holds
