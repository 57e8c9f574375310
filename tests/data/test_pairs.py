"""A second law that data brings along: its points, the law without theta, and D between the two at the exact critic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import se_framework as se
from divergences import KL, JensenShannon
from models import Critic, Given
from se_framework.data import CorrelatedGaussians, Paired, TwoSamples
from se_framework.equation.auxiliary import Dual
from se_framework.equation.modes import evaluating
from se_framework.errors import ConfigError, DataError, IncompatibleError
from se_framework.evaluation.held_out import value_and_error
from se_framework.randomness import Stream
from tests.support.oracles import z_score

DEFAULT_DTYPE = torch.float64
DRAW = torch.Generator


class LogRatio(Critic):
    """The critic that no training can better."""

    row_wise = True

    def __init__(self, data):
        super().__init__(data.event_shape)
        self.data = data
        self.unmoved = torch.nn.Parameter(torch.zeros(()))

    def score(self, x, context=None):
        return self.data.log_ratio(x) + 0 * self.unmoved


@pytest.fixture
def files(tmp_path):
    """Two files of 400 and 300 rows (row, 10 row, noise), the second beyond the first."""
    noise = torch.randn(700, 1, generator=DRAW().manual_seed(1))
    rows = torch.arange(700.0)[:, None]
    table = torch.cat([rows, 10 * rows, noise], 1).numpy()
    np.save(tmp_path / "x.npy", table[:400])
    np.save(tmp_path / "y.npy", table[400:])
    return tmp_path / "x.npy", tmp_path / "y.npy"


@pytest.mark.parametrize(("dimension", "information", "cubic"), [(1, 0.5, False), (3, 2.0, False), (2, 1.0, True)])
def test_the_mutual_information_is_what_was_asked_for(dimension, information, cubic):
    """Mean of log dp_d/dp under p_d is I; of dp_d/dp under p, 1, with variance e^(2I) - 1."""
    data, n = CorrelatedGaussians(dimension, information, cubic), 40_000
    joint, product = data.held_out(n).x, data.reference.draw(n, DRAW().manual_seed(4))
    inside = data.log_ratio(joint)
    assert abs(inside.mean() - information) < z_score(2) * inside.std() / n**0.5
    bound = z_score(2) * math.sqrt(math.expm1(2 * information) / n)
    assert abs(data.log_ratio(product).exp().mean() - 1) < bound
    y = joint[:, dimension:] if not cubic else joint[:, dimension:].sign() * joint[:, dimension:].abs() ** (1 / 3)
    correlation = torch.corrcoef(torch.stack([joint[:, 0], y[:, 0]]))[0, 1]
    # Fisher's z of a sample correlation has the standard error (n - 3)^(-1/2)
    assert abs(correlation.atanh() - math.atanh(data.rho)) < z_score() / (n - 3) ** 0.5


@pytest.mark.parametrize(
    ("divergence", "value"),
    # JSD = E_p[r log 2r/(1+r) + log 2/(1+r)] / 2 with r = dq/dp
    [
        (KL(), lambda r: r * r.log()),
        (JensenShannon(), lambda r: (r * (2 * r / (1 + r)).log() + (2 / (1 + r)).log()) / 2),
    ],
)
def test_d_between_the_two_at_the_exact_critic(divergence, value):
    data = CorrelatedGaussians(1, 0.4)
    model = Given(data.event_shape, data.reference)
    equation = se.StandardEquation(
        model=model, divergence=divergence, auxiliary=Dual(), metric=se.Metric(LogRatio(data))
    )
    side = torch.linspace(-9, 9, 1201)  # e^(-40) beyond; the trapezium rule of a smooth integrand errs by far less
    grid = torch.cartesian_prod(side, side)
    density = torch.exp(-grid.square().sum(1) / 2) / (2 * math.pi) * float(side[1] - side[0]) ** 2
    exact = float((density * value(data.log_ratio(grid).exp())).sum())
    n = 20_000
    with torch.no_grad(), evaluating(equation):
        draws = equation.draws(n, Stream(0, 1, "held-out", torch.device("cpu"), torch.float64))
        found, error = value_and_error(equation, data, data.held_out(n), equation.particles(draws), draws)
    assert abs(found - exact) < z_score(2) * error and error < 0.02


def test_two_samples_share_one_map_and_one_split(files):
    data = TwoSamples(*files)
    assert data.train_size == 280 and len(data.reference.train) == 210 and len(data.reference.rest) == 90
    seen = data.to_user(torch.cat([data.train, data.rest]))[:, 0].round().sort()[0]
    theirs = data.to_user(torch.cat([data.reference.train, data.reference.rest]))[:, 0].round().sort()[0]
    assert torch.equal(seen, torch.arange(400.0)) and torch.equal(theirs, torch.arange(400.0, 700.0))
    with pytest.raises(DataError, match=r"data.against.*rows of shape \(2,\).*\(3,\)"):
        np.save(files[1], np.zeros((9, 2)))
        TwoSamples(*files)


def test_the_fingerprint_is_of_both_files(files):
    before = TwoSamples(*files).fingerprint()
    np.save(files[1], np.load(files[1]) + 1)
    assert TwoSamples(*files).fingerprint() != before


def test_the_product_puts_x_of_one_row_beside_y_of_another(files):
    data = Paired(files[0], first=1, standardize=False)
    assert (data.rest_size, len(data.reference.rest)) == (60, 60)
    assert not set(data.rest[:, 0].tolist()) & set(data.reference.rest[:, 0].tolist())
    held = data.reference.draw(1_000, DRAW().manual_seed(0), held_out=True)
    x, y = held[:, 0], held[:, 1] / 10
    used = torch.cat([x, y]).tolist()
    assert len(held) == 30 and len(set(used)) == 60 and set(used) <= set(data.reference.rest[:, 0].tolist())
    drawn = data.reference.draw(5_000, DRAW().manual_seed(0))
    assert set(drawn[:, 0].tolist()) == set(data.train[:, 0].tolist()) == set((drawn[:, 1] / 10).tolist())
    same = (drawn[:, 0] == drawn[:, 1] / 10).double().mean()  # one in 280
    assert abs(same - 1 / 280) < z_score() * (1 / 280 / 5_000) ** 0.5


def test_a_given_law_takes_training_rows_in_steps_and_held_out_rows_once_elsewhere(files):
    data = TwoSamples(*files, standardize=False)
    model = Given(data.event_shape, data.reference)
    train, rest = set(data.reference.train[:, 0].tolist()), set(data.reference.rest[:, 0].tolist())
    law = model()
    drawn = law.particles(law.noise(2_000, DRAW().manual_seed(1))).x[:, 0].tolist()
    assert set(drawn) == train
    law = model.eval()()
    drawn = law.particles(law.noise(2_000, DRAW().manual_seed(1))).x[:, 0].tolist()
    assert sorted(drawn) == sorted(rest)
    sampled = law.sample((500,), DRAW().manual_seed(1))[:, 0].tolist()
    assert len(sampled) == 500 and set(sampled) <= rest
    assert torch.equal(law.noise(9, DRAW().manual_seed(3)), law.noise(9, DRAW().manual_seed(3)))
    assert not list(model.parameters()) and not model.state_dict()
    with pytest.raises(NotImplementedError, match="no log_prob"):
        law.log_prob(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=given"], "Given is a second law of the data's, and the data brings none: add model=mlp_generator"),
        (["experiment=mutual_information", "data.information=0"], "positive number of nats"),
        (
            ["experiment=mutual_information", "data=paired", "data.path=X", "data.first=3"],
            r"data.first=3 .*: give 1 to 2",
        ),
        (["experiment=density_ratio", "data=two_samples", "data.path=X"], "data.against is missing"),
        (["experiment=density_ratio", "data=two_samples", "data.path=X", "data.against=Z"], "data.against: no file"),
    ],
)
def test_what_cannot_be_compared_is_refused(overrides, message, files):
    with pytest.raises((ConfigError, DataError, IncompatibleError), match=message):
        se.compose(overrides=[word.replace("=X", f"={files[0]}") for word in overrides]).state  # noqa: B018


def test_the_divergence_of_two_files_is_learnt(tmp_path):
    """N(0, 1) against N(1, 1): KL is 1/2, and the log-ratio is 1/2 - x."""
    draw = DRAW().manual_seed(0)
    for name, shift in (("x", 0.0), ("y", 1.0)):
        np.save(tmp_path / f"{name}.npy", (shift + torch.randn(20_000, 1, generator=draw)).numpy())
    words = ["divergence=kl", "data=two_samples", f"data.path={tmp_path}/x.npy", f"data.against={tmp_path}/y.npy",
             "loop.rounds=250", "loop.decay=cosine", "optimizer.lr=3e-3",
             "metric.network.width=16", "device=cpu"]  # fmt: skip
    assembly = se.compose("density_ratio", words)
    assembly.train()
    found = se.evaluate(assembly, names=("held_out_value",))["held_out_value"]
    assert found["n"] == 6_000 and found["value"] < 0.5 + z_score(2) * found["se"]  # a lower bound
    assert found["value"] > 0.5 - z_score(2) * found["se"] - 0.01  # the critic's own distance from the best
