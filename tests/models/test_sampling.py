"""Settings of a generator's samples: truncation of its noise, and standing statistics of its norms.

float64; 1e-12 stands for rounding: the spacing 2e-16 times some thousands of terms of a mean.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import se_framework as se
from models import Affine, GaussianMixture, MLPGenerator, RealNVP, ResidualGenerator, TransposedGenerator
from models.generators import Generator, truncated
from models.images.normalised import BATCH
from models.laws import PushForward
from se_framework.commands import sample
from se_framework.errors import ConfigError
from se_framework.runs.directory import RunDirectory

DEFAULT_DTYPE = torch.float64
ONE = torch.zeros((), dtype=torch.float64)


def source(seed=0):
    return torch.Generator().manual_seed(seed)


# --- truncation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [0.04, 0.5, 2.0, 50.0])
def test_truncated_noise_has_the_law_of_scipy(bound):
    z = truncated((4000,), bound, ONE, source())
    assert z.abs().max() <= bound
    # Dvoretzky, Kiefer, Wolfowitz: beyond this distance with probability 1e-3.
    allowed = math.sqrt(math.log(2 / 1e-3) / (2 * len(z)))
    assert stats.ks_1samp(z.numpy(), stats.truncnorm(-bound, bound).cdf).statistic < allowed
    assert torch.equal(truncated((10, 3), bound, ONE, source())[:4], truncated((4, 3), bound, ONE, source()))
    assert truncated((10**6,), bound, torch.zeros((), dtype=torch.float32), source()).isfinite().all()


def test_samples_at_a_truncation_are_those_of_truncated_noise():
    for model in (MLPGenerator((2,), width=4), MLPGenerator((2,), width=4, classes=3)):
        labels = torch.tensor([2, 0, 1, 1, 0]) if model.classes else None
        law = model.at_sampling(labels, truncation=0.3)
        z = truncated((5, model.latent_dim), 0.3, ONE, source(4))
        assert torch.equal(law.sample((5,), source(4)), model.push(z, labels).detach())
        assert not law.normal_noise and law.event_shape == (2,)
        plain = model.at_sampling(labels)
        assert torch.equal(plain.sample((5,), source(4)), model(labels).sample((5,), source(4)))


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_a_truncation_is_a_positive_number(bad):
    with pytest.raises(ValueError, match="truncation must be a positive number"):
        MLPGenerator((2,), width=4).at_sampling(truncation=bad)


def test_what_has_no_such_noise_is_not_truncated():
    for model in (Affine((2,)), GaussianMixture((2,)), RealNVP((2,), couplings=2, width=4)):
        with pytest.raises(ValueError, match=f"truncation=0.5 is no setting of {type(model).__name__}'s samples.*out"):
            model.at_sampling(truncation=0.5)

    class Own(MLPGenerator):
        def forward(self, context=None):
            return PushForward(lambda z: self.net(z).exp(), (self.latent_dim,), (2,), like=ONE)

    with pytest.raises(ValueError, match="Own has a law of its own, which has no truncation; leave it out"):
        Own((2,), width=4).at_sampling(truncation=0.5)


# --- standing statistics ---------------------------------------------------------------------------------------------

MODELS = {
    "plain": lambda: TransposedGenerator((8, 8), latent_dim=3, width=2),
    "labels": lambda: ResidualGenerator((8, 8), latent_dim=4, width=2, classes=3, shared=2, skip=True, start="normal"),
}


def norms(model):
    return [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("truncation", [math.inf, 0.5])
def test_standing_statistics_are_means_over_batches(make, truncation):
    """The inputs of every norm while the network trains, seen by hooks: their means and variances, averaged."""
    model, batches, generator = make(), 3, source()
    twin, seen = copy.deepcopy(model).train(), []
    for norm in norms(twin):
        norm.register_forward_hook(lambda own, inputs, output: seen.append(inputs[0].detach()))
    labels = torch.arange(BATCH) % 3 if model.classes else None
    for _ in range(batches):
        twin.push(truncated((BATCH, model.latent_dim), truncation, ONE, generator), labels)
    count = len(norms(model))
    means, variances = ([getattr(x, name)((0, 2, 3)) for x in seen] for name in ("mean", "var"))

    asked = labels[:5] if model.classes else None
    law = model.at_sampling(asked, truncation=truncation, standing=batches)
    x = law.sample((5,), source(1))
    for k, norm in enumerate(norms(twin.eval())):
        norm.running_mean.copy_(sum(means[k::count]) / batches)
        norm.running_var.copy_(sum(variances[k::count]) / batches)
    z = truncated((5, 3 + bool(model.classes)), truncation, ONE, source(1)) if truncation < math.inf else None
    z = torch.randn((5, model.latent_dim), generator=source(1)) if z is None else z
    torch.testing.assert_close(x, twin.push(z, asked).detach(), rtol=1e-12, atol=1e-12)
    # No sample depends on another, nor the model on having been asked.
    assert torch.allclose(law.sample((2,), source(1)) if asked is None else x[:2], x[:2], rtol=0, atol=1e-14)
    assert all(not norm.running_mean.any() and norm.training for norm in norms(model))


def test_standing_statistics_follow_the_weights():
    model = MODELS["plain"]()
    draw = lambda: model.at_sampling(standing=2).sample((2,), source())  # noqa: E731
    before, kept = draw(), model._kept[1]
    assert torch.equal(draw(), before) and model._kept[1] is kept
    with torch.no_grad():
        model.net[3].weight *= 2
        model.net[0].weight += 0.1 * torch.randn_like(model.net[0].weight)
    assert model.at_sampling(standing=2) is not None and model._kept[1] is not kept
    assert not torch.equal(draw(), before)
    assert set(model.state_dict()) == set(MODELS["plain"]().state_dict())  # what is kept is no part of the model
    copy.deepcopy(model)


@pytest.mark.parametrize("bad", [0.5, -1.0])
def test_standing_is_a_number_of_batches(bad):
    with pytest.raises(ValueError, match="standing must be a whole number of batches"):
        MODELS["plain"]().at_sampling(standing=bad)
    with pytest.raises(ValueError, match="standing=2 is no setting of MLPGenerator's samples, which have truncation"):
        MLPGenerator((2,), width=4).at_sampling(standing=2.0)
    assert Generator.sampling == {"truncation"}


# --- from a run ------------------------------------------------------------------------------------------------------


WORDS = [
    "model=biggan_small", "metric=biggan_small", "divergence=hinge", "data=digits", "data.labels=true", "model.width=2",
    "metric.network.width=2", "loop.rounds=2", "loop.batch_size=16", "device=cpu", "progress=false",
    "model.latent_dim=4", "model.shared=2",
]  # fmt: skip


def test_samples_of_a_run_by_label_truncation_and_standing_statistics(tmp_path, capsys):
    torch.set_default_dtype(torch.float32)
    se.compose("digits", WORDS).train(RunDirectory(tmp_path / "run"))
    loaded, out = se.load(tmp_path / "run"), tmp_path / "x.npy"
    sample._sample([str(tmp_path / "run"), "n=6", "label=3", f"out={out}", "standing=2", "truncation=0.5"])
    settings = ({}, {"truncation": 0.5}, {"standing": 2}, {"truncation": 0.5, "standing": 2})
    drawn = [loaded.sample(6, label=3, **chosen).numpy() for chosen in settings]
    assert np.array_equal(drawn[3], np.load(out)) and len({x.sum() for x in drawn}) == 4
    assert np.array_equal(drawn[0], loaded.sample(300, label=3)[:6].numpy())
    with pytest.raises(ConfigError, match="standing must be a whole number of batches, got 0.5"):
        loaded.sample(2, standing=0.5)
