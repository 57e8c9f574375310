"""A trained metric judges the samples of another model: by its own dual, in its own units."""

from __future__ import annotations

import sys

import pytest
import torch

import se_framework as se
from models import Critic
from se_framework.commands import evaluate as command
from se_framework.data import TensorData
from se_framework.errors import IncompatibleError
from se_framework.evaluation.by_metric import by_metric
from tests.support.runs import unscored

DEFAULT_DTYPE = torch.float64
SLOPE, SCALE = 0.7, 3.0


class Line(Critic):
    """0.7 x."""

    row_wise = True

    def __init__(self):
        super().__init__((1,))
        self.slope = torch.nn.Parameter(torch.tensor(SLOPE))

    def score(self, x, context=None):
        return self.slope * x.flatten(1)[:, 0]


@pytest.fixture(scope="module")
def judge():
    draw = torch.Generator().manual_seed(0)
    rows = 10 + SCALE * torch.randn(400, 1, generator=draw, dtype=torch.float64)
    words = ["divergence=kl", "model=affine", "loop.batch_size=16", "device=cpu", "progress=false"]
    return se.compose("fgan", words, data=TensorData(rows, standardize=True), metric=se.Metric(Line()))


def test_the_value_is_the_dual_at_the_other_s_samples(judge):
    """Under KL, f = 1 + v: T = E_pd[1 + v] - E_p[e^v], with v = 0.7 (x - loc) / scale."""
    samples = 12 + 2 * torch.randn(40, 1, generator=torch.Generator().manual_seed(1))
    found = by_metric(judge, samples, 0)
    v = SLOPE * (samples - judge.data.loc) / judge.data.scale
    v_data = SLOPE * judge.data.held_out(40).x
    assert found["value"] == pytest.approx(float((1 + v_data).mean() - v.exp().mean()), rel=1e-6)  # in float32
    variance = v_data.var() / 40 + v.exp().var() / 40
    assert found["se"] == pytest.approx(float(variance.sqrt()), rel=1e-6) and found["n"] == 40
    assert found["bound"] == "lower bound of beta KL(p_d, p_theta)"
    assert found["steepest"] == pytest.approx(SLOPE / float(judge.data.scale), rel=1e-6)
    farther = by_metric(judge, samples - 40, 0)["value"]
    assert farther == pytest.approx(float((1 + v_data).mean()), abs=0.01)  # e^v vanishes there


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: se.compose("mle_flow", ["device=cpu"]), r"no f_phi that scores samples \(Empirical\)"),
        (lambda: se.compose("gmmn", ["device=cpu"]), "no f_phi that scores samples"),
        (lambda: se.compose("tilted", ["device=cpu"]), "reads a density at the samples"),
        (lambda: se.compose("vanilla_gan", ["device=cpu", "data.labels=true"]), "reads labels"),
        (lambda: se.compose("vanilla_gan", ["device=cpu"]), r"of shape \(2,\), and the samples have shape \(1,\)"),
    ],
)
def test_what_cannot_judge_says_why(make, message):
    with pytest.raises(IncompatibleError, match=message):
        by_metric(make(), torch.zeros(8, 1), 0)


def test_by_the_command(tmp_path, monkeypatch, capsys):
    small = [
        "model.width=4",
        "metric.network.width=4",
        "loop.rounds=2",
        "loop.batch_size=8",
        "device=cpu",
        "data=ring8",
    ]
    runs = [
        unscored(tmp_path / str(k), ["experiment=vanilla_gan", *small, f"seed={k}", "progress=false"]) for k in (0, 1)
    ]
    monkeypatch.setattr(sys, "argv", ["se-eval", str(runs[0]), f"metric={runs[1]}", "n=50", "scores=modes"])
    command.main()
    said = capsys.readouterr().out
    assert f"f_phi of {runs[1]}, steepest slope" in said and "by_metric" in said
    monkeypatch.setattr(sys, "argv", ["se-eval", str(runs[0]), f"metric={tmp_path / 'none'}"])
    with pytest.raises(SystemExit):
        command.main()
    assert "is not a run directory" in capsys.readouterr().err
