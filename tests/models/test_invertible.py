"""Settings of samples: the temperature of a flow, from the law to the command line; refused by name elsewhere."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import se_framework as se
from models import Glow, MLPGenerator, RealNVP, SplineFlow
from models.laws import standard_normal_log_prob
from se_framework.commands import sample
from se_framework.errors import ConfigError

DEFAULT_DTYPE = torch.float64
SHORT = ["loop.rounds=2", "loop.batch_size=16", "loop.early_stop=null", "progress=false", "device=cpu", "data=ring8"]
SMALL = ["model.width=8", "model.couplings=2"]


def moved(model, size=0.3):
    """Return a copy away from its start, where a flow is not the identity."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for i, p in enumerate(twin.parameters()):
            p.add_(size * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return twin


@pytest.mark.parametrize("support", ["real", "unit"])
def test_a_temperature_scales_the_noise_and_the_density_follows(support):
    model, t = moved(RealNVP((3,), couplings=4, width=8, support=support)), 0.6
    law, cool = model(), model.at_sampling(temperature=t)
    z = torch.randn(5, 3)
    x, _ = law.push(t * z)
    p = cool.particles(z)
    assert torch.equal(p.x, x)
    # log p_T(x) = log N(z) - log |det d g(T z) / dz|, the determinant by autograd; a dozen slopes of size one.
    jacobians = [torch.func.jacrev(lambda one: law.push(t * one[None])[0][0])(row) for row in z]
    want = standard_normal_log_prob(z) - torch.stack([j.slogdet().logabsdet for j in jacobians])
    assert torch.allclose(p.log_prob, want, atol=1e-10)
    assert torch.allclose(cool.log_prob(x), want, atol=1e-8)
    draws = [one.sample((4,), torch.Generator().manual_seed(1)) for one in (cool, model.at_sampling(temperature=1.0))]
    noise = law.noise(4, torch.Generator().manual_seed(1))
    assert torch.allclose(draws[0], law.push(t * noise)[0]) and torch.allclose(draws[1], law.push(noise)[0])


def test_images_are_interpolated_by_their_noise():
    model = moved(Glow((1, 4, 4), levels=2, steps=2, width=3), 0.03)
    law, pair = model(), torch.randn(2, 1, 4, 4)
    z = law.pull(pair)[0]
    path = law.push(torch.lerp(z[:1], z[1:], torch.linspace(0, 1, 5)[:, None]))[0]
    assert path.shape == (5, 1, 4, 4) and torch.allclose(path[[0, -1]], pair, atol=1e-10)
    assert not torch.allclose(path[2], pair.mean(0), atol=1e-3)


def test_samples_of_a_real_nvp_are_what_push_makes_of_their_noise():
    law = moved(RealNVP((5,), couplings=4, width=8), 1.0)()
    noise = law.noise(50, torch.Generator().manual_seed(1))
    x = law.sample((50,), torch.Generator().manual_seed(1))
    assert torch.allclose(x, law.push(noise)[0], rtol=1e-12, atol=1e-12)


def test_labels_reach_a_tempered_law():
    model, labels = moved(SplineFlow((2,), couplings=2, width=4, classes=3)), torch.tensor([0, 2, 1, 1])
    law = model.at_sampling(labels, temperature=0.5)
    z = law.noise(4, torch.Generator().manual_seed(2))
    assert torch.equal(law.particles(z).x, model(labels).push(0.5 * z)[0])
    with pytest.raises(ValueError, match=r"shape \(4, 2\)"):
        law.log_prob(torch.ones(3, 2))


@pytest.mark.parametrize("t", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_is_a_positive_number(t):
    with pytest.raises(ValueError, match="temperature must be a positive number"):
        RealNVP((2,), couplings=2, width=4).at_sampling(temperature=t)


def test_settings_that_a_family_lacks_are_refused_by_name():
    flow, gan = RealNVP((2,), couplings=2, width=4), MLPGenerator((2,), width=4)
    with pytest.raises(
        ValueError, match=r"truncation=0\.5 is no setting of RealNVP's samples, which have temperature;"
    ):
        flow.at_sampling(truncation=0.5)
    with pytest.raises(ValueError, match=r"temperature=0\.5 is no setting of MLPGenerator's samples, which have"):
        gan.at_sampling(temperature=0.5)
    with pytest.raises(NotImplementedError, match="only a flow has a temperature"):
        gan().tempered(0.5)


def test_se_sample_and_a_loaded_run_take_a_temperature(tmp_path, monkeypatch, capsys):
    run, out = tmp_path / "run", tmp_path / "x.npy"
    torch.set_default_dtype(torch.float32)
    se.compose("mle_flow", [*SHORT, *SMALL]).train(se.RunDirectory(run))
    loaded = se.load(run)

    def command(*words):
        monkeypatch.setattr("sys.argv", ["se-sample", str(run), "n=300", f"out={out}", "device=cpu", *words])
        sample.main()
        return capsys.readouterr()

    command("temperature=0.25")
    assert np.array_equal(np.load(out), loaded.sample(300, temperature=0.25).numpy())
    x = loaded.data.to_model(loaded.sample(300, temperature=0.25))
    z = loaded.model().pull(x)[0]
    assert abs(z.std() / 0.25 - 1) < 0.1  # 600 numbers: a standard error of 0.03
    assert torch.equal(loaded.sample(300, temperature=1.0), loaded.sample(300))
    for words, message in (
        (["truncation=0.5"], "truncation=0.5 is no setting of SplineFlow's samples"),
        (["temperature=0"], "temperature must be a positive number, got '0'"),
        (["temperature=warm"], "temperature must be a positive number, got 'warm'"),
        (["temperature=0.5", "from=q"], "temperature=0.5 is a setting of p_theta's samples: leave out from=q"),
    ):
        with pytest.raises(SystemExit):
            command(*words)
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1, said
    with pytest.raises(ConfigError, match="no setting of SplineFlow's"):
        loaded.sample(3, truncation=1.0)


def test_a_generator_has_no_temperature():
    torch.set_default_dtype(torch.float32)
    with pytest.raises(ConfigError, match=r"temperature=0\.5 is no setting of MLPGenerator's samples"):
        se.compose("vanilla_gan", [w for w in SHORT if "early" not in w]).sample(3, temperature=0.5)
