"""Glow: against numpy (the claims of se-verify), its convolutions against torch's, and when its actnorms are set.

Float64 unless runs are the subject; a dozen steps with slopes of size one, so errors are multiples of 1e-15.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import se_framework as se
from models import Glow, Particles
from models.glow.mixing import LEAST_SPREAD, Mixing, set_by
from models.glow.model import squeezed, unsqueezed
from models.glow.windows import Gather, Scatter, gather, scatter, with_edge
from se_framework.errors import ConfigError, IncompatibleError
from se_framework.verify import check, collect, flows
from se_framework.verify.flows import moved

DEFAULT_DTYPE = torch.float64
SHORT = ["model=glow", "data=digits_dequantized", "loop.batch_size=16", "loop.log_every=0", "loop.early_stop=null",
         "progress=false", "device=cpu", "model.steps=2", "model.width=4", "loop.horizon=4"]  # fmt: skip


@pytest.mark.parametrize("this", collect(flows), ids=lambda c: c.name)
def test_claim_holds(this):
    verdict = check(this)
    assert verdict.failure is None and verdict.comparisons
    assert verdict.holds, [c for c in verdict.comparisons if not c.holds]


# --- convolutions ----------------------------------------------------------------------------------------------------


def test_windows_and_shifted_sums_are_torchs_convolutions():
    """Products of order 50 terms of size one: rounding 1e-14."""
    x, kernel, bias = torch.randn(4, 5, 7, 3), torch.randn(6, 4, 3, 3), torch.randn(6, 1)
    images = x.permute(3, 0, 1, 2)
    rows = kernel.permute(0, 2, 3, 1).reshape(6, 9, 4)
    got = (with_edge(rows, torch.zeros(6, 9), bias) @ gather(x)).reshape(6, 5, 7, 3).permute(3, 0, 1, 2)
    assert torch.allclose(got, F.conv2d(images, kernel, bias.flatten(), padding=1), atol=1e-12)
    columns = kernel.permute(2, 3, 0, 1).reshape(54, 4) @ x.reshape(4, -1)
    got = scatter(columns, 5, 7).permute(3, 0, 1, 2)
    assert torch.allclose(got, F.conv_transpose2d(images, kernel.transpose(0, 1), padding=1), atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (3, 2)])
def test_shifted_sums_are_the_transpose_of_windows(size):
    x, windows = torch.randn(1, *size, 1), torch.randn(3, 3, 1, *size, 1)
    assert torch.allclose((Gather.apply(x) * windows).sum(), (x * Scatter.apply(windows)).sum(), atol=1e-12)
    for function, at in ((Gather, x), (Scatter, windows)):
        assert torch.autograd.gradcheck(lambda t, f=function: f.apply(t).square(), at.requires_grad_())
        assert torch.autograd.gradgradcheck(lambda t, f=function: f.apply(t).square(), at.requires_grad_())


def test_a_squeeze_takes_squares_of_pixels_apart_and_puts_them_back():
    x = torch.arange(48.0).reshape(1, 4, 6, 2)
    squares = squeezed(x)
    assert squares.shape == (4, 2, 3, 2) and torch.equal(squares[:, 1, 2, 0], x[0, 2:, 4:, 0].flatten())
    assert torch.equal(unsqueezed(squares), x)


# --- parameters ------------------------------------------------------------------------------------------------------


def test_both_forms_of_a_1x1_convolution_are_one_map_and_start_as_rotations():
    lu, plain = Mixing(3, 6, "lu"), Mixing(3, 6, "plain")
    moved(lu, 0.2)
    with torch.no_grad():
        plain.weight.copy_(lu._weights()[0])
        plain.bias.copy_(lu.bias)
        plain.log_scale.copy_(lu.log_scale)
    for one, other in zip(lu.at_present(), plain.at_present(), strict=True):
        assert torch.allclose(one, other, atol=1e-12)
    for parametrisation in ("lu", "plain"):
        new = Mixing(3, 6, parametrisation).at_present()
        assert torch.allclose(new.matrices @ new.matrices.mT, torch.eye(6).expand(3, 6, 6), atol=1e-12)
        assert abs(new.log_det) < 1e-12 and not torch.allclose(new.matrices[0], new.matrices[1])


def test_a_channel_that_does_not_vary_is_centred_alone():
    rows, bias, log_scale = torch.stack((torch.full((9,), 4.0), torch.arange(9.0))), torch.ones(2, 1), torch.ones(2, 1)
    set_by(rows, bias, log_scale)
    assert torch.equal(bias.flatten(), torch.tensor([-4.0, -4.0])) and log_scale[0] == 0
    assert torch.allclose((3 * log_scale[1]).exp() * rows[1].std(correction=0), torch.ones(()), atol=1e-14)
    assert LEAST_SPREAD < 1e-3
    model = Glow((1, 4, 4), steps=2, width=3)
    with torch.no_grad():
        model.prepare(Particles(torch.zeros(5, 1, 4, 4)))
    assert model().log_prob(torch.zeros(2, 1, 4, 4)).isfinite().all()


def test_a_new_glow_without_a_first_batch_is_n01_but_for_its_couplings_scales():
    """Rotations and sigmoid(2) alone: log p(x) = log N(z) + the logarithms of the scales, 4 of 8 channels moved."""
    model, x = Glow((2, 4, 4), levels=1, steps=1, width=3), torch.randn(3, 2, 4, 4)
    scale = 1e-3 + (1 - 1e-3) * torch.sigmoid(torch.tensor(2.0))
    z, ladj = model().pull(x)
    assert torch.allclose(ladj, 16 * scale.log(), atol=1e-12)
    length = z[:, :16].square().sum(1) + (z[:, 16:] / scale).square().sum(1)
    assert torch.allclose(length, x.square().sum((1, 2, 3)), atol=1e-12)


def test_labels_reach_the_prior_and_every_coupling():
    model, x = Glow((1, 4, 4), levels=2, steps=2, width=4, classes=3), torch.randn(1, 1, 4, 4).expand(3, 1, 4, 4)
    assert len(set(model(torch.arange(3)).log_prob(x).tolist())) == 1  # they start without effect
    moved(model)
    for level in model.levels:
        before = model(torch.arange(3)).log_prob(x)
        with torch.no_grad():
            level.conditioner.of_label[:, :, 2] += 1
        after = model(torch.arange(3)).log_prob(x)
        assert torch.equal(after[:2], before[:2]) and after[2] != before[2]
    assert model.levels[0].of_label is None
    with torch.no_grad():
        model.levels[1].of_label[:, 1] += 1
    assert [bool(t) for t in model(torch.arange(3)).log_prob(x) == after] == [True, False, True]
    se.check_model(Glow((1, 4, 4), levels=1, steps=1, width=2, classes=2))


def test_flat_rows_are_the_same_images():
    image, flat = Glow((2, 4, 8), steps=1, width=3), Glow((64,), (2, 4, 8), steps=1, width=3)
    flat.load_state_dict(image.state_dict())
    x = torch.randn(4, 2, 4, 8)
    assert torch.equal(image().log_prob(x), flat().log_prob(x.flatten(1)))
    z = torch.randn(4, 64)
    assert torch.equal(image().push(z)[0].flatten(1), flat().push(z)[0])


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((1, 28, 28), {"levels": 3}, "levels=3 times, and 28 x 28 pixels can be halved 2 times; set levels=2 or less"),
        ((1, 8, 12), {"levels": 3}, "8 x 12 pixels can be halved 2 times"),
        ((3, 7, 8), {}, "7 x 8 pixels can be halved 0 times; choose images with even sides"),
        ((1, 2, 8), {}, "at least 4 x 4 pixels"),
        ((64,), {}, "Glow is for images"),
        ((1, 8, 8), {"levels": 0}, "levels must be at least 1"),
        ((1, 8, 8), {"steps": 0}, "steps must be at least 1"),
        ((1, 8, 8), {"width": 0}, "width must be at least 1"),
        ((1, 8, 8), {"coupling": "linear"}, "coupling must be one of affine, additive, spline, got 'linear'"),
        ((1, 8, 8), {"mixing": "qr"}, "mixing must be one of lu, plain, got 'qr'"),
        ((1, 8, 8), {"coupling": "spline", "bins": 1}, "bins must be at least 2"),
        ((1, 8, 8), {"coupling": "spline", "bound": 0.0}, "bound must be positive"),
    ],
)
def test_what_glow_is_not_for(shape, settings, message):
    with pytest.raises(ValueError, match=message):
        Glow(shape, **settings)


def test_sides_that_are_odd_suit_no_number_of_levels():
    assert Glow.unmakeable((28, 28)) is None and Glow.unmakeable((3, 6, 4)) is None
    assert Glow.unmakeable((1, 28, 27)) == "Glow halves both sides of an image, and 28 x 27 pixels cannot be"


def test_an_image_that_cannot_be_halved_and_vectors_are_refused_in_a_configuration():
    torch.set_default_dtype(torch.float32)
    with pytest.raises(ConfigError, match="halves both sides of an image levels=4 times, and 8 x 8"):
        se.compose("mle_flow", [*SHORT, "model.levels=4"])
    with pytest.raises(IncompatibleError, match="Glow is for images, and the data has no image_shape"):
        se.compose("mle_flow", [*SHORT, "data=ring8"])


# --- the first batch -------------------------------------------------------------------------------------------------


def test_actnorms_are_set_once_and_come_back_from_a_checkpoint(tmp_path, monkeypatch):
    torch.set_default_dtype(torch.float32)
    seen = []
    real = Glow.prepare
    monkeypatch.setattr(Glow, "prepare", lambda self, batch: (seen.append(len(batch.x)), real(self, batch))[1])

    def bias(assembly):
        return [level.mixing.bias.clone() for level in assembly.model.levels]

    whole = se.compose("mle_flow", [*SHORT, "loop.rounds=4"])
    assert not any(b.any() for b in bias(whole))
    whole.train()
    assert seen == [16] and all(b.abs().amax(1).gt(0).all() for b in bias(whole))

    first = se.compose("mle_flow", [*SHORT, "loop.rounds=2"])
    first.train(se.RunDirectory(tmp_path / "run"))
    assert seen == [16, 16]
    loaded = se.load(tmp_path / "run")
    loaded.config.loop.rounds = 4
    loaded.train()
    assert seen == [16, 16] and loaded.state.round == 4
    for name, t in whole.model.state_dict().items():
        assert torch.equal(t, loaded.model.state_dict()[name]), name
    assert torch.equal(whole.sample(3, temperature=0.7), loaded.sample(3, temperature=0.7))


@pytest.mark.parametrize("coupling", ["additive", "spline"])
def test_other_couplings_train(coupling):
    torch.set_default_dtype(torch.float32)
    state = se.compose("mle_flow", [*SHORT, "loop.rounds=2", "loop.log_every=1", f"model.coupling={coupling}"]).train()
    assert [row["round"] for row in state.history] == [1, 2] and all(row["D"] < 1e4 for row in state.history)
