"""Standardising a user's data is undone: samples, densities and costs come back in the user's units."""

import math

import pytest
import torch

from se_framework import compose

MEAN, STD = 1000.0, 5.0
N = 4000
# Sampling error of the data itself: 3.3 standard errors of a mean and of a standard deviation (false-alarm rate 1e-3).
MEAN_ERROR, STD_ERROR = 3.3 * STD / N**0.5, 3.3 * STD / (2 * N) ** 0.5


@pytest.fixture
def file(tmp_path):
    import numpy as np

    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).normal(MEAN, STD, (N, 1)))
    return path


def trained(file, experiment, *overrides):
    settings = [f'data.path="{file}"', "progress=false", "device=cpu", *overrides]
    assembly = compose(experiment, ["data=array", "model=affine", *settings])
    assembly.train()
    return assembly


def test_samples_and_densities_of_a_flow(file):
    """The affine model is the truth's family: its cross-entropy is log(5 sqrt(2 pi e)) in the user's units."""
    assembly = trained(
        file, "mle_flow", "loop.rounds=600", "loop.log_every=600", "loop.batch_size=512", "optimizer.lr=2e-2"
    )
    samples = assembly.sample(20000).double()
    assert abs(float(samples.mean()) - MEAN) < MEAN_ERROR + 3.3 * STD / 20000**0.5 + 0.01 * STD
    assert abs(float(samples.std()) - STD) < STD_ERROR + 3.3 * STD / 40000**0.5 + 0.01 * STD
    truth = math.log(STD * math.sqrt(2 * math.pi * math.e))
    row = assembly.state.history[-1]
    # The spread of -log p is 1/sqrt(2) per example; the row has 512 of them.
    assert row["total_up_to_const"] == row["D"] == pytest.approx(truth, abs=3.3 * 0.71 / 512**0.5 + 0.02)
    from se_framework.evaluation.evaluate import evaluate

    scores = evaluate(assembly, n=2000)
    assert scores["nll"]["value"] == pytest.approx(truth, abs=3.3 * 0.71 / 400**0.5 + 0.02)
    assert scores["held_out_value"]["value"] == pytest.approx(truth, abs=3.3 * 0.71 / 400**0.5 + 0.02)


def test_transport_costs_and_potentials(file):
    """Before training the model is N(0, 4) in standardised units: W1 and W2 to N(0, 1) are known."""
    sinkhorn = trained(file, "sinkhorn", "divergence.scaling=0.5", "loop.rounds=1", "optimizer.lr=0",
                       "loop.log_every=1", "loop.batch_size=1024")  # fmt: skip
    # S with cost |x-y|^2/2 is W2^2/2 = (2-1)^2/2 in standardised units; clouds of 1024 move it by percents.
    assert sinkhorn.state.history[-1]["D"] == pytest.approx(0.5 * STD**2, rel=0.25)
    energy = trained(file, "gmmn", "divergence=energy", "loop.rounds=1", "optimizer.lr=0", "loop.log_every=1",
                     "loop.batch_size=1024")  # fmt: skip
    exact = math.sqrt(2 / math.pi) * (2 * math.sqrt(5) - math.sqrt(8) - math.sqrt(2))  # E|N(0, v)| = sqrt(2 v / pi)
    assert energy.state.history[-1]["D"] == pytest.approx(STD * exact, rel=0.25)
    critic = ["metric=groupsort", "metric.network.width=16", "metric.network.depth=1", "players.theta.steps=0"]
    rounds = ["optimizer.lr=1e-2", "loop.rounds=90", "loop.log_every=90", "loop.batch_size=1024"]
    wgan = trained(file, "wgan_gp", *critic, *rounds)
    truth = STD * math.sqrt(2 / math.pi)  # |2 - 1| E|Z|
    row = wgan.state.history[-1]
    assert row["total"] == pytest.approx(truth, rel=0.25) and "total_standardised" not in row


def test_entropy_of_an_unnormalised_q_shifts_by_its_mass(file):
    """With v constant, q = p e^v has mass e^v, and -int q log q = e^v (H(p) - v): the same formula in user's units."""
    assembly = trained(file, "fgan", "loop.rounds=1", "loop.log_every=0", "loop.batch_size=512")
    equation, v = assembly.state.equation, 1.0
    with torch.no_grad():
        for parameter in equation.metric.parameters():
            parameter.zero_()
        list(equation.metric.parameters())[-1].fill_(v)
    from models import Particles
    from se_framework.equation.units import in_user_units

    p = equation.sample(20000, torch.Generator().manual_seed(0))
    row = in_user_units(equation.terms(Particles(p.x), p), equation, assembly.data)
    entropy = float(-p.log_prob.detach().double().mean()) + assembly.data.log_scale
    assert row["H_q"] == pytest.approx(math.exp(v) * (entropy - v), rel=1e-5)


def test_unequal_scales_say_that_costs_are_standardised(tmp_path):
    path = tmp_path / "two.csv"
    rows = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 100.0])
    path.write_text("\n".join(",".join(map(str, r)) for r in rows.tolist()))
    assembly = compose("sinkhorn", ["data=array", f'data.path="{path}"', "loop.rounds=1", "loop.log_every=1",
                                    "loop.batch_size=32", "progress=false", "device=cpu"])  # fmt: skip
    row = assembly.train().history[-1]
    assert "D_standardised" in row and "D" not in row
    samples = assembly.sample(1000)
    assert samples[:, 1].std() > 20 * samples[:, 0].std()


@pytest.mark.parametrize("unbiased", [True, False])
def test_a_kernel_distance_says_its_unit_and_its_bias(file, unbiased):
    from se_framework.evaluation.evaluate import evaluate

    mmd = trained(file, "gmmn", f"divergence.unbiased={unbiased}", "loop.rounds=1", "loop.log_every=0")
    found = evaluate(mmd, n=200)["held_out_value"]
    assert found["unit"] == "squared kernel norm" and found["bound"].startswith("estimate of beta MMD(p_d, p_theta)")
    assert ("biased upward by sampling" in found["bound"]) is not unbiased
