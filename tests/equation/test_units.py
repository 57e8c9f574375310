"""Standardising a user's data is undone: samples, densities and costs come back in the user's units."""

import math
from types import SimpleNamespace

import pytest
import torch

from divergences import KL, CrossEntropy, Wasserstein1
from models import Affine, GroupSortCritic, MLPCritic
from se_framework import Auxiliary, Dual, Metric, Solution, StandardEquation, Tilted, compose
from se_framework.data import TensorData
from se_framework.equation.units import cost_factor, in_user_units

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
    found = evaluate(mmd, n=200, names=("held_out_value",))["held_out_value"]
    assert found["unit"] == "squared kernel norm" and found["bound"].startswith("estimate of beta MMD(p_d, p_theta)")
    assert ("biased upward by sampling" in found["bound"]) is not unbiased


# -- kinds of errors that were planted and went unnoticed --------------------------------------------------------------


class FreeMass(Auxiliary):
    r"""alpha > 0 over q of any mass, D = int q log(q/p) - q + p: q = exp((f + beta log p - alpha) / (alpha + beta))."""

    needs_alpha = True
    free_mass = True
    works_through = "has_dual"

    def needs_density(self, divergence):
        return True

    def minimum(self, problem, role=None):
        return self.solve(problem).minimum

    def solve(self, problem):
        alpha, beta, log_p = problem.alpha, problem.beta, problem.p.log_prob
        return Solution(*minimum_of(problem.v, log_p, alpha, beta), mass=masses(problem.v, log_p, alpha, beta).mean())


def masses(f, log_p, alpha, beta):
    """Return q/p at particles of p."""
    return torch.exp((f + beta * log_p - alpha) / (alpha + beta) - log_p)


def minimum_of(f, log_p, alpha, beta):
    """Return the minimum over q of free mass, H(q), D and E_q f, from f and log p at particles of p."""
    u = masses(f, log_p, alpha, beta)
    log_q = u.log() + log_p
    entropy, divergence, f_q = -(u * log_q).mean(), (u * u.log() - u + 1).mean(), (u * f).mean()
    return -alpha * entropy + beta * divergence - f_q, entropy, divergence, f_q


def on_scaled_data(divergence, auxiliary, alpha, beta):
    """Return the row in user units on data times five, and f, f on data, and log p in user units at p's particles."""
    torch.set_default_dtype(torch.float64)
    data = TensorData(5 * torch.randn(100, 2) + 7, standardize=True)
    equation = StandardEquation(
        model=Affine((2,)), divergence=divergence, auxiliary=auxiliary, metric=Metric(MLPCritic((2,), width=8)),
        alpha=alpha, beta=beta,
    )  # fmt: skip
    x = data.held_out(40)
    p = equation.sample(50, torch.Generator().manual_seed(0))
    with torch.no_grad():
        row = in_user_units(equation.terms(x, p), equation, data)
        return row, equation.metric(p.x), equation.metric(x.x), p.log_prob.detach() - data.log_scale, data.log_scale


def test_terms_over_q_of_free_mass_are_those_of_the_densities_in_user_units():
    """f gains -alpha log|s|, so that q in user units is the minimiser there; then the whole game is played there."""
    row, f, f_data, log_p, log_scale = on_scaled_data(KL(), FreeMass(), 0.5, 2.0)
    shift = -0.5 * log_scale
    assert abs(shift) > 1 and abs(float(masses(f + shift, log_p, 0.5, 2.0).mean()) - 1) > 0.1
    minimum, entropy, divergence, f_q = minimum_of(f + shift, log_p, 0.5, 2.0)
    f_d = (f_data + shift).mean()
    want = {"H_q": entropy, "D": divergence, "E_q_f": f_q, "E_pd_f": f_d, "total": minimum + f_d}
    assert row == pytest.approx({k: float(t) for k, t in want.items()}, abs=1e-12)  # fifty terms of order ten


@pytest.mark.parametrize(("divergence", "c"), [(CrossEntropy, 0), (KL, 1)])
def test_terms_of_the_tilted_form_are_those_of_the_densities_in_user_units(divergence, c):
    """Over probabilities f stays as it is; D = CE - c H and the total are those of p's density in user units."""
    alpha, beta = 0.5, 2.0
    row, f, f_data, log_p, _ = on_scaled_data(divergence(), Tilted(), alpha, beta)
    tau = alpha + c * beta
    tilt = ((beta - tau) * log_p + f) / tau  # of q/p, up to its normaliser
    log_z = tilt.logsumexp(0) - math.log(len(tilt))
    u = (tilt - log_z).exp()
    entropy, cross = -(u * (tilt - log_z + log_p)).mean(), -(u * log_p).mean()
    want = {
        "H_q": entropy, "D": cross - c * entropy, "E_q_f": (u * f).mean(), "E_pd_f": f_data.mean(),
        "total": -tau * log_z + f_data.mean(),
    }  # fmt: skip
    assert row == pytest.approx({k: float(t) for k, t in want.items()}, abs=1e-12)


def test_a_scale_of_minus_five_multiplies_costs_by_five():
    """Data that the user has turned over: distances do not change their sign."""
    data = SimpleNamespace(scale=-5.0, transform=None)
    w1 = StandardEquation(
        model=Affine((2,)), divergence=Wasserstein1(), auxiliary=Dual(), metric=Metric(GroupSortCritic((2,), width=8))
    )
    assert cost_factor(w1, data) == 5.0
