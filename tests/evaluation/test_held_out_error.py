"""T on held-out data: of the averaged weights, with the error of what it is."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from divergences import KL
from models import Affine, MLPCritic, Particles
from se_framework import Dual, Metric, StandardEquation
from se_framework.assembly import assembly_of
from se_framework.config.composing import compose
from se_framework.data import Moons
from se_framework.evaluation.held_out import held_out_value, value_and_error

F64 = torch.float64


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_held_out_value_is_that_of_the_averaged_weights():
    small = ["loop.rounds=3", "loop.batch_size=16", "progress=false", "device=cpu", "players.theta.ema=0.9"]
    assembly = assembly_of(compose("fgan", small))
    theta = assembly.train().player("theta")
    first = held_out_value(assembly, 50, 0)["value"]
    last, average = copy.deepcopy(theta.module.state_dict()), copy.deepcopy(theta.averaged.state_dict())
    theta.average = None
    theta.module.load_state_dict(average)
    assert held_out_value(assembly, 50, 0)["value"] == first
    theta.module.load_state_dict(last)
    assert held_out_value(assembly, 50, 0)["value"] != first


def clouds(auxiliary: Dual) -> tuple[StandardEquation, Particles, Particles]:
    """An equation of KL with forty examples of data and forty particles, in float64."""
    critic = MLPCritic((2,), width=8).double()
    equation = StandardEquation(model=Affine((2,)), divergence=KL(), auxiliary=auxiliary, metric=Metric(critic))
    x, y = torch.randn(2, 40, 2, generator=draw(0), dtype=F64)
    return equation, Particles(x), Particles(y + 1)


def test_the_standard_error_is_that_of_a_mean_over_examples():
    """T = E v - E (e^v - 1): two independent means, whose variances add up."""
    equation, data, p = clouds(Dual())
    with torch.no_grad():
        v, u = equation.metric(data.x), equation.metric(p.x).exp()
        value, error = value_and_error(equation, Moons(), data, p, {})
    assert value == pytest.approx(float(v.mean() - (u - 1).mean()), abs=1e-14)  # forty numbers of order one
    assert error == pytest.approx(float((v.var() / 40 + u.var() / 40).sqrt()), rel=1e-12)


def test_the_standard_error_of_what_is_no_mean_is_that_of_ten_parts():
    """T = E v - log E e^v, over every tenth example: each belongs to one part."""
    equation, data, p = clouds(Dual(normalised=True))
    with torch.no_grad():
        v, w = equation.metric(data.x), equation.metric(p.x)
        error = value_and_error(equation, Moons(), data, p, {})[1]
    parts = torch.stack([v[i::10].mean() - w[i::10].logsumexp(0) + math.log(4) for i in range(10)])
    assert error == pytest.approx(float(parts.std() / 10**0.5), rel=1e-12)
