"""A penalty of theta's weights as a summand: its value, its slope, who computes it, and where the record shows it.

float64; 1e-12 stands for rounding of sums of some dozens of terms.
"""

from __future__ import annotations

import pytest
import torch

from divergences import GAN
from models import MLPGenerator, ResidualGenerator, StridedCritic
from se_framework import Metric, StandardEquation, TrainState, check_auxiliary
from se_framework.equation.auxiliary import Dual, InnerProblem, OrthogonalWeights
from se_framework.equation.auxiliary.weights import matrices
from se_framework.training.loop import train
from se_framework.training.players import make_players
from tests.support.composing import compose
from tests.support.parts import Rows

DEFAULT_DTYPE = torch.float64


def by_loops(model):
    """Return the sum over pairs of different rows of every matrix, of their squared inner product."""
    total = 0.0
    for name, p in model.named_parameters():
        if p.ndim > 1 and not name.startswith(("shared", "table")):
            rows = p.detach().flatten(1)
            total += sum(float(a @ b) ** 2 for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j)
    return total


def problem(model):
    return InnerProblem(None, None, None, None, model, GAN(), 0.0, 1.0)


def test_value_is_the_sum_over_pairs_of_rows():
    model = ResidualGenerator((8, 8), latent_dim=4, width=2, classes=3, shared=2, skip=True, spectral=True)
    value = OrthogonalWeights().minimum(problem(model))
    assert float(value.detach()) == pytest.approx(by_loops(model), rel=1e-12)
    counted = sum(p.ndim > 1 for p in model.parameters()) - 1  # but for the embedding
    assert len(list(matrices(model))) == counted
    start = ResidualGenerator((8, 8), latent_dim=3, width=2, classes=2, shared=2, start="orthogonal")
    wide = [p for p in matrices(start) if len(p) <= p[0].numel()]
    assert len(wide) > 3 and all(abs(OrthogonalWeights().minimum(problem(Holder(p))).item()) < 1e-10 for p in wide)


class Holder(MLPGenerator):
    """A model of one matrix."""

    def __init__(self, weight):
        super().__init__((1,), width=1, depth=0, latent_dim=1)
        del self.net
        self.weight = torch.nn.Parameter(weight.detach().flatten(1).clone())


def summed(weight=0.5):
    torch.manual_seed(0)
    model = MLPGenerator((8, 8), latent_dim=3, width=6)
    own = StandardEquation(model=model, auxiliary=OrthogonalWeights())
    return StandardEquation(
        model=model, divergence=GAN(), auxiliary=Dual(), metric=Metric(StridedCritic((8, 8), width=2, norm="none")),
        plus={"weights": (weight, own)},
    )  # fmt: skip


def test_only_who_moves_the_model_computes_it():
    equation = summed()
    phi, theta = equation.roles()
    own = equation.plus["weights"]
    assert float(own.minimum(None, None, role=phi).detach()) == 0.0
    assert float(own.minimum(None, None, role=theta).detach()) == pytest.approx(by_loops(equation.model), rel=1e-12)


def test_it_trains_beside_the_rest_and_has_a_column():
    found, data = [], Rows(torch.randn(60, 8, 8, generator=torch.Generator().manual_seed(1)))
    for weight in (0.0, 5.0):
        equation = summed(weight)
        players = make_players(equation, lambda p: torch.optim.SGD(p, lr=1e-3))
        state = TrainState(equation, players)
        before = by_loops(equation.model)
        rows = train(state, data, rounds=30, batch_size=12, log_every=30, progress=False).history
        found.append(by_loops(equation.model) / before)
        assert rows[-1]["weights/total"] == pytest.approx(by_loops(equation.model), rel=1e-9)
    assert found[1] < 0.5 < found[0]


def test_it_keeps_the_laws_of_auxiliaries():
    check_auxiliary(OrthogonalWeights())


def test_the_experiment_has_it_and_says_so():
    torch.set_default_dtype(torch.float32)
    small = ["model.width=2", "metric.network.width=2", "data=digits", "data.labels=true", "device=cpu"]
    assembly = compose("biggan", small)
    assert assembly.equation.weights == {"orthogonal": 1e-4} and assembly.equation.model.classes == 10
