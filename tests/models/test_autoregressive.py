"""Masked autoregressive flows and their inverse; their Jacobians are claims of se-verify (test_glow.py plays those)."""

from __future__ import annotations

import pytest
import torch
from torch.func import jacrev

import se_framework as se
from models import AutoregressiveFlow, Particles
from models.autoregressive import MaskedPerceptron
from se_framework.verify.flows import moved

DEFAULT_DTYPE = torch.float64
D = 5


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("width", [D, 12])
def test_a_coordinate_reads_every_one_before_it_and_no_other(reverse, width):
    """With positive weights and ReLUs that are open the Jacobian has no other zeros than the masks'."""
    net = MaskedPerceptron(D, 2, reverse, width, 2, "relu", classes=2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.5)
    jacobian = jacrev(lambda x: net(x[:, None])[:, 0])(torch.rand(D + 2)).reshape(2, D, D + 2)
    before = torch.ones(D, D).triu(1) if reverse else torch.ones(D, D).tril(-1)
    assert torch.equal((jacobian[:, :, :D] != 0).double(), before.expand(2, D, D))
    assert (jacobian[:, :, D:] != 0).all()  # labels reach all of them, the first in the order too


@pytest.mark.parametrize("direction", ["density", "sampling"])
def test_one_way_takes_one_pass_and_the_other_one_for_each_coordinate(direction, monkeypatch):
    model, calls = AutoregressiveFlow((D,), direction, layers=3, width=6), []
    real = MaskedPerceptron.forward
    monkeypatch.setattr(MaskedPerceptron, "forward", lambda self, *a, **k: (calls.append(1), real(self, *a, **k))[1])
    law, x = model(), torch.randn(2, D)
    fast, slow = (law.pull, law.push) if direction == "density" else (law.push, law.pull)
    for way, passes in ((fast, 3), (slow, 3 * D)):
        calls.clear()
        way(x)
        assert len(calls) == passes


@pytest.mark.parametrize("direction", ["density", "sampling"])
def test_labels_move_every_coordinate(direction):
    model = moved(AutoregressiveFlow((3,), direction, layers=1, width=6, classes=2), 0.5)
    x = torch.randn(1, 3).expand(2, 3)
    z, _ = model(torch.tensor([0, 1])).pull(x)
    assert (z[0] != z[1]).all()
    se.check_model(model)


@pytest.mark.parametrize("direction", ["density", "sampling"])
def test_a_whitened_flow_starts_at_the_gaussian_of_the_first_batch(direction):
    model, d = AutoregressiveFlow((3,), direction, layers=2, width=6, whiten=True), 3
    x = 5 + torch.randn(200, d) @ torch.tril(torch.ones(d, d))
    with torch.no_grad():
        model.prepare(Particles(x))
    want = torch.distributions.MultivariateNormal(x.mean(0), torch.cov(x.T, correction=0)).log_prob(x)
    # The ridge adds 1e-6 of each variance: to -log p it adds at most 1e-6 times the largest condition (36) and |z|^2.
    assert torch.allclose(model().log_prob(x), want, atol=1e-6 * 36 * 40)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"direction": "both"}, "direction must be density or sampling, got 'both'"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"width": 0}, "width must be at least 1"),
        ({"log_scale_bound": 0.0}, "log_scale_bound must be positive"),
        ({"input_bound": -1.0}, "input_bound must be positive"),
        ({"activation": "step"}, "activation must be one of"),
        ({"event_shape": (1,)}, "needs examples of at least 2 coordinates"),
    ],
)
def test_what_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AutoregressiveFlow(**{"event_shape": (3,), **settings})


@pytest.mark.parametrize("choice", ["maf", "iaf"])
def test_it_trains_by_name(choice):
    torch.set_default_dtype(torch.float32)
    short = ["loop.rounds=3", "loop.batch_size=64", "loop.log_every=1", "loop.early_stop=null", "progress=false"]
    assembly = se.compose("mle_flow", [f"model={choice}", "model.width=16", "data=moons", "device=cpu", *short])
    history = assembly.train().history
    assert len(history) == 3 and history[-1]["D"] < history[0]["D"] < 10
    assert assembly.sample(4, temperature=0.5).isfinite().all()
