"""Growing networks: published sizes, each layer against its formula, fades, canvas, what they refuse."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import se_framework as se
from models import GrowingCritic, GrowingGenerator, Particles
from models.images.equalised import Deviation, EqualisedConv2d, EqualisedLinear, normalised
from models.images.stages import Canvas, Fade

DEFAULT_DTYPE = torch.float64
EPS = torch.finfo(torch.float64).eps
SMALL = {"base": 8, "most": 4}
NETWORKS = {
    "generator": lambda shape, **more: GrowingGenerator(shape, latent_dim=3, **(SMALL | more)),
    "critic": lambda shape, **more: GrowingCritic(shape, **(SMALL | more)),
}
network = pytest.mark.parametrize("kind", NETWORKS)


def grown(kind, before, shape=(1, 16, 16), **more):
    """Return the network of the next stage, with what fits of the one before."""
    after = NETWORKS[kind](shape, **more)
    theirs, ours = before.state_dict(), after.state_dict()
    after.load_state_dict({n: theirs[n] if n in theirs and theirs[n].shape == t.shape else t for n, t in ours.items()})
    return after


def told(network, *samples):
    """Tell a network how many examples have been seen, in this order."""
    for part in network.modules():
        for n in samples if isinstance(part, Fade) else ():
            part.at(n)
    return network


def randomised(network):
    with torch.no_grad():
        for p in network.parameters():
            p.normal_()
    return network


# -- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "base", "most", "latent", "generator", "critic"),
    [
        ((3, 1024, 1024), 8192, 512, 512, 23_079_115, 23_087_249),  # 23.08M and 23.09M
        ((1, 32, 32), 512, 64, 64, 278_180, 279_073),  # 278k and 279k
        ((3, 32, 32), 1024, 128, 128, 1_112_268, 1_114_049),  # 1.11M
    ],
)
def test_the_layers_of_all_stages_are_as_many_as_published(shape, base, most, latent, generator, critic):
    sides = [4 << k for k in range(shape[1].bit_length() - 2)]
    with torch.device("meta"):
        for make, truth in (
            (lambda **m: GrowingGenerator(shape, latent_dim=latent, base=base, most=most, **m), generator),
            (lambda **m: GrowingCritic(shape, base=base, most=most, **m), critic),
        ):
            found = {}
            for side in sides:
                for fade in {0, 8 * (side > 4)}:
                    for name, p in make(resolution=side, fade=fade).named_parameters():
                        assert found.setdefault(name, p.shape) == p.shape  # one name, one shape
            assert sum(s.numel() for s in found.values()) == truth


# -- layers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [1.0, math.sqrt(2)])
def test_equalised_layers_multiply_by_he_constant_at_run_time(gain):
    dense, conv = EqualisedLinear(5, 7, gain), EqualisedConv2d(3, 4, 3, gain)
    with torch.no_grad():
        dense.bias.normal_(), conv.bias.normal_()
    x, images = torch.randn(2, 5), torch.randn(2, 3, 6, 6)
    truth = x @ dense.weight.T * gain / math.sqrt(5) + dense.bias
    torch.testing.assert_close(dense(x), truth, rtol=0, atol=64 * EPS)
    truth = F.conv2d(images, conv.weight, padding=1) * gain / math.sqrt(27) + conv.bias[:, None, None]
    torch.testing.assert_close(conv(images), truth, rtol=0, atol=512 * EPS)


def test_equalised_weights_start_at_unit_variance_and_zero_bias():
    for layer in (EqualisedLinear(64, 64), EqualisedConv2d(16, 32)):
        n = layer.weight.numel()
        assert not layer.bias.any()
        assert abs(float(layer.weight.detach().square().mean()) - 1) < 3.3 * math.sqrt(2 / n)  # 1e-3, two-sided


def test_gains_are_the_published_ones():
    """sqrt 2 before nonlinearities, sqrt 2 / 4 at the first dense map, 1 at images and scores."""
    model = NETWORKS["generator"]((1, 16, 16), fade=8)
    critic = NETWORKS["critic"]((1, 16, 16), fade=8)

    def gain(layer):
        return layer.factor * math.sqrt(layer.weight[0].numel())

    linear = [model.first, *model.to_image.values(), critic.last]
    wanted = {id(layer): 1.0 for layer in linear} | {id(model.first): math.sqrt(2) / 4}
    for each in (model, critic):
        for layer in each.modules():
            if hasattr(layer, "factor"):
                assert gain(layer) == pytest.approx(wanted.get(id(layer), math.sqrt(2)), rel=8 * EPS)


def test_pixels_are_normalised_and_a_latent_point_by_its_length_alone():
    x = 3 * torch.randn(2, 5, 4, 4)
    torch.testing.assert_close(normalised(x).square().mean(1), torch.ones(2, 4, 4), rtol=0, atol=1e-7)  # 1e-8 / x^2
    model, z = randomised(NETWORKS["generator"]((1, 8, 8))), torch.randn(4, 3)
    torch.testing.assert_close(model.push(z, None), model.push(7 * z, None), rtol=1e-6, atol=1e-6)  # 1e-8 in the root
    assert float((model.push(z, None) - model.push(-z, None)).abs().max().detach()) > 1e-3


def test_the_deviation_is_that_of_groups_of_four_taken_apart_by_quarters():
    x = torch.randn(8, 3, 2, 2)
    found = Deviation()(x)
    assert torch.equal(found[:, :3], x)
    for i in range(8):
        group = x[i % 2 :: 2].numpy()  # i, i + 2, i + 4, i + 6
        truth = np.sqrt(group.var(0) + 1e-8).mean()
        np.testing.assert_allclose(found[i, 3], np.full((2, 2), truth), rtol=0, atol=16 * EPS)
    np.testing.assert_allclose(Deviation()(x[:1])[0, 3], 1e-4, rtol=1e-12)
    assert Deviation()(x[:6]).shape == (6, 4, 2, 2)  # groups of 3: scores may be asked of any number


def test_a_critic_with_deviations_is_coupled_by_declaration_and_keeps_the_laws_of_metrics():
    for more in ({}, {"resolution": 4}, {"deviation": False}):
        metric = se.Metric(NETWORKS["critic"]((1, 8, 8), **more), se.GradientPenalty(drift=0.1))
        assert metric.batch_coupled == more.get("deviation", True) == (metric.network.batch_multiple == 4)
        assert metric.coupled_by == ("the deviation of a group" if metric.batch_coupled else "")
        se.check_metric(metric)


# -- the canvas -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [8, 28, 32, 33])
def test_what_was_spread_is_given_back_and_averaging_changes_no_sample(side):
    """Means of up to 16 x 16 equal numbers of size 4: 256 roundings of 4 EPS at most."""
    full = {8: 8, 28: 32, 32: 32, 33: 64}[side]
    for resolution in (r for r in (4, 8, 16, 32, 64) if r <= full):
        canvas = Canvas((2, side, side), None, resolution, 0, "x")
        assert canvas.full == full
        small = torch.randn(3, 2, resolution, resolution)
        spread = canvas.spread(small)
        assert spread.shape == (3, 2, side, side)
        once = canvas.averaged(spread)
        torch.testing.assert_close(canvas.spread(once), spread, rtol=0, atol=1024 * EPS)
        if (full - side + 1) // 2 < full // resolution:  # no square lies in the border as a whole
            torch.testing.assert_close(once, small, rtol=0, atol=1024 * EPS)


def test_averages_are_of_squares_of_pixels_with_the_border_repeated():
    x = torch.randn(1, 1, 6, 6)
    found = Canvas((1, 6, 6), None, 4, 0, "x").averaged(x)  # canvas of 8: a border of one pixel around
    wide = np.pad(x[0, 0].numpy(), 1, mode="edge")
    np.testing.assert_allclose(found[0, 0], wide.reshape(4, 2, 4, 2).mean((1, 3)), rtol=0, atol=16 * EPS)


# -- fades ------------------------------------------------------------------------------------------------------------


@network
def test_at_fade_zero_a_new_stage_is_the_old_one_upsampled_to_the_bit(kind):
    old = randomised(NETWORKS[kind]((1, 16, 16), resolution=4))
    new = told(grown(kind, old, resolution=8, fade=100), 1000)
    if kind == "generator":
        z = torch.randn(4, 3)
        small = F.avg_pool2d(old.push(z, None), 4)
        assert torch.equal(new.push(z, None), old.push(z, None))
        torch.testing.assert_close(
            new.push(z, None), F.interpolate(small, scale_factor=4, mode="nearest"), rtol=0, atol=1e3 * EPS
        )
    else:
        x = torch.randn(4, 1, 16, 16)
        scores = new(x), old(x)  # means of means and means differ by rounding
        torch.testing.assert_close(*scores, rtol=1e3 * EPS, atol=1e3 * EPS)


@network
def test_a_finished_fade_is_the_stage_at_rest(kind):
    faded = told(randomised(NETWORKS[kind]((1, 16, 16), resolution=8, fade=100)), 50, 150)
    rest = grown(kind, faded, resolution=8)
    x = torch.randn(4, 3) if kind == "generator" else torch.randn(4, 1, 16, 16)
    one, other = (n.push(x, None) if kind == "generator" else n(x) for n in (faded, rest))
    torch.testing.assert_close(one, other, rtol=64 * EPS, atol=64 * EPS)


def test_half_way_all_three_are_mixed_by_halves():
    model = told(randomised(NETWORKS["generator"]((1, 16, 16), resolution=8, fade=100)), 200, 250)
    ends = []
    for alpha in (0.0, 1.0):
        end = copy.deepcopy(model)
        end.fade["8"].alpha.fill_(alpha)
        ends.append(end)
    z, x = torch.randn(4, 3), torch.randn(4, 1, 16, 16)
    images = [m.push(z, None) for m in (model, *ends)]
    torch.testing.assert_close(images[0], (images[1] + images[2]) / 2, rtol=0, atol=64 * EPS)
    seen = [m.seen(Particles(x)).x for m in (model, *ends)]
    at_8 = np.kron(x.reshape(4, 8, 2, 8, 2).mean((2, 4)).numpy(), np.ones((1, 2, 2)))
    at_4 = np.kron(x.reshape(4, 4, 4, 4, 4).mean((2, 4)).numpy(), np.ones((1, 4, 4)))
    np.testing.assert_allclose(seen[2][:, 0], at_8, rtol=0, atol=16 * EPS)
    np.testing.assert_allclose(seen[1][:, 0], at_4, rtol=0, atol=16 * EPS)
    np.testing.assert_allclose(seen[0][:, 0], (at_4 + at_8) / 2, rtol=0, atol=16 * EPS)
    critic = told(randomised(NETWORKS["critic"]((1, 16, 16), resolution=8, fade=100, deviation=False)), 200, 250)
    below = []
    critic.convolution.register_forward_pre_hook(lambda _, given: below.append(given[0]))
    for alpha in (0.5, 0.0, 1.0):
        critic.fade["8"].alpha.fill_(alpha)
        critic(x)
    torch.testing.assert_close(below[0], (below[1] + below[2]) / 2, rtol=0, atol=64 * EPS)


def test_alpha_counts_from_the_first_examples_of_its_stage():
    fade, found = Fade(40), []
    for samples in (100, 100, 110, 130, 140, 300):
        fade.at(samples)
        found.append(float(fade.alpha))
    assert found == [0.0, 0.0, 0.25, 0.75, 1.0, 1.0]
    assert Fade(40).alpha == 0 and int(Fade(40).start) == -1


def test_labels_and_context_of_data_are_kept_when_it_is_faded():
    model = told(NETWORKS["generator"]((1, 8, 8), resolution=8, fade=8, classes=3), 0)
    batch = Particles(torch.randn(2, 1, 8, 8), context=torch.tensor([2, 0]))
    assert torch.equal(model.seen(batch).context, batch.context)
    whole = NETWORKS["generator"]((1, 8, 8))
    assert whole.seen(batch) is batch


def test_labels_move_both_networks():
    model = randomised(NETWORKS["generator"]((1, 8, 8), classes=3))
    critic = randomised(NETWORKS["critic"]((1, 8, 8), classes=3, deviation=False))
    z, labels = torch.randn(1, 3).expand(3, 3), torch.arange(3)
    images = model.push(z, labels).detach()
    assert len({float(image.sum()) for image in images}) == 3
    assert len(set(critic(images[:1].expand(3, 1, 8, 8), labels).tolist())) == 3


# -- refusals ---------------------------------------------------------------------------------------------------------


@network
@pytest.mark.parametrize(
    ("shape", "more", "message"),
    [
        ((1, 8, 12), {}, "grows square images, got 8 x 12 pixels"),
        ((1, 16, 16), {"resolution": 12}, "resolution must be one of 4, 8, 16 for images of 16 x 16 pixels, got 12"),
        (
            (1, 28, 28),
            {"resolution": 64},
            "must be one of 4, 8, 16, 32 for images of 28 x 28 pixels, got 64",
        ),
        ((1, 8, 8), {"resolution": 4, "fade": 3}, "fade=3 brings resolution 4 in, and there is none below"),
        ((1, 8, 8), {"fade": -1}, "fade must be at least 0"),
        ((1, 8, 8), {"base": 0}, "base must be at least 1"),
        ((1, 8, 8), {"most": 0}, "most must be at least 1"),
        ((5,), {}, "is for images"),
    ],
)
def test_what_cannot_be_made_is_refused(kind, shape, more, message):
    with pytest.raises(ValueError, match=message):
        NETWORKS[kind](shape, **more)


@network
@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({"resolution": 8}, {"resolution": 4}, "of resolution 4 follows one of 8: a stage cannot shrink; set resol"),
        ({"resolution": 4}, {"resolution": 16}, "follows one of 4: put a stage of resolution=8 between"),
        ({"resolution": 8}, {"resolution": 8, "fade": 9}, "fades resolution 8 in, which the stage before has already"),
    ],
)
def test_stages_that_cannot_follow_are_refused(kind, before, after, message):
    networks = [NETWORKS[kind]((1, 16, 16), **each) for each in (before, after)]
    with pytest.raises(ValueError, match=message):
        networks[1].check_follows(networks[0])


@network
def test_stages_that_may_follow(kind):
    def make(**more):
        return NETWORKS[kind]((1, 16, 16), **more)

    make(resolution=8).check_follows(make(resolution=4))
    make(resolution=8, fade=9).check_follows(make(resolution=4))
    make(resolution=8).check_follows(make(resolution=8, fade=9))
    make(resolution=8, fade=9).check_follows(make(resolution=8, fade=9))
    make(resolution=16).check_follows(torch.nn.Linear(1, 1))
