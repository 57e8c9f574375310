"""R3GAN's networks: published sizes, resampling against a direct sum, how they start, sizes that they cannot make."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

import se_framework as se
from models import R3GANCritic, R3GANGenerator
from models.images.r3gan import GAIN, Block
from models.images.resampling import Bilinear
from se_framework.errors import IncompatibleError

DEFAULT_DTYPE = torch.float64
EPS = torch.finfo(torch.float64).eps


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def by_hand(image, channels, steps, width, latent=64):
    """Return the sizes of both networks by the formula of a block, 2 (w 2w) + 2w/g 2w/g 9 g + 2 (2w), g = w/8."""
    block = 4 * width * width + (2 * width) * 16 * 9 + 4 * width
    generator = block * (steps + 1) + width * 16 + latent * width + width * channels
    return generator, block * (steps + 1) + width * channels + width * 16 + width


def test_sizes_are_those_published():
    with torch.device("meta"):
        cifar = {"event_shape": (3, 32, 32), "width": 768, "most": 768, "per_group": 8, "blocks": 2, "classes": 10}
        assert parameters(R3GANGenerator(**cifar, class_dim=64)) == 20_781_952  # 20.78M
        assert parameters(R3GANCritic(**cifar, class_dim=768)) == 21_280_512  # 21.28M
        for side, steps, told in ((16, 2, (111, 106)), (32, 3, (146, 142))):
            found = parameters(R3GANGenerator((3, side, side))), parameters(R3GANCritic((3, side, side)))
            assert found == by_hand(side, 3, steps, 64) and tuple(round(n / 1000) for n in found) == told
            grey = parameters(R3GANGenerator((1, side, side))), parameters(R3GANCritic((1, side, side)))
            assert grey == by_hand(side, 1, steps, 64)


def resampled(x, up):
    """Return one channel (H, W) resampled by the definition: a sum over the filter's nine entries, zero outside."""
    line, (h, w) = np.array([1.0, 2.0, 1.0]) / 4, x.shape
    at = lambda i, j: x[i, j] if 0 <= i < h and 0 <= j < w else 0.0  # noqa: E731
    if not up:
        return np.array([
            [sum(line[a] * line[b] * at(2 * i + a - 1, 2 * j + b - 1) for a in range(3) for b in range(3))
             for j in range(w // 2)] for i in range(h // 2)
        ])  # fmt: skip
    inserted = np.zeros((2 * h + 2, 2 * w + 2))  # pixel i at 2i + 2: two zeros before the first
    inserted[2::2, 2::2] = x
    return np.array([
        [4 * sum(line[a] * line[b] * inserted[i + a, j + b] for a in range(3) for b in range(3)) for j in range(2 * w)]
        for i in range(2 * h)
    ])  # fmt: skip


@pytest.mark.parametrize("up", [True, False])
def test_resampling_is_the_filter_and_keeps_each_channel_to_itself(up):
    x = torch.randn(2, 3, 4, 6)
    found = Bilinear(up).double()(x)
    for n in range(2):
        for c in range(3):
            np.testing.assert_allclose(found[n, c], resampled(x[n, c].numpy(), up), rtol=0, atol=64 * EPS)
    inside = Bilinear(up).double()(torch.ones(1, 1, 8, 8))[..., 1:-1, 1:-1]
    torch.testing.assert_close(inside, torch.ones_like(inside), rtol=0, atol=8 * EPS)


def test_blocks_start_as_the_identity_and_what_they_will_add_keeps_the_published_gain():
    block = Block(width=64, per_group=8, gain=GAIN * 8**-0.25)
    x = torch.randn(2, 64, 4, 4)
    assert torch.equal(block(x), x)
    for layer, inputs in ((block.first, 64), (block.second, 16 * 9)):
        assert not layer.bias.any()
        n = layer.weight.numel()
        truth = GAIN**2 * 8**-0.5 / inputs  # a variance, whose estimate from n normal numbers has deviation sqrt(2/n)
        assert abs(float(layer.weight.detach().square().mean()) / truth - 1) < 3.3 * math.sqrt(2 / n)
    assert block.last.bias is None and block.second.groups == 8


@pytest.mark.parametrize("blocks", [1, 2])
def test_the_gain_counts_all_blocks_of_the_network(blocks):
    network = R3GANCritic((1, 16, 16), width=64, most=64, per_group=8, blocks=blocks)
    found = [m.first.weight for m in network.modules() if isinstance(m, Block)]
    assert len(found) == 3 * blocks
    everything = torch.cat([w.detach().flatten() for w in found])
    truth = GAIN**2 * (3 * blocks) ** -0.5 / 64
    assert abs(float(everything.square().mean()) / truth - 1) < 3.3 * math.sqrt(2 / len(everything))


def test_biases_stand_in_blocks_alone_and_the_score_starts_linear_in_the_pixels():
    critic = R3GANCritic((1, 8, 8), width=4, per_group=2)
    assert {n.rpartition(".")[0].rpartition(".")[2] for n, _ in critic.named_parameters() if n.endswith("bias")} == {
        "first", "second",
    }  # fmt: skip
    x, y = torch.randn(2, 5, 1, 8, 8)
    torch.testing.assert_close(critic(x + 2 * y), critic(x) + 2 * critic(y), rtol=0, atol=1e3 * EPS)


def test_28_pixels_start_from_7_and_flat_examples_are_images():
    model = R3GANGenerator((784,), (28, 28), latent_dim=2, width=2, most=4, per_group=2, output="tanh")
    assert model.basis.shape == (4, 7, 7)
    x = model().sample((3,))
    assert x.shape == (3, 784) and float(x.abs().max()) < 1
    critic = R3GANCritic((1, 28, 28), width=2, most=4, per_group=2)
    assert critic.features[-2].weight.shape == (4, 1, 7, 7)
    assert critic(torch.zeros(3, 1, 28, 28)).shape == (3,)


def test_labels_move_both_networks():
    model = R3GANGenerator((1, 8, 8), latent_dim=2, width=4, per_group=2, classes=3, class_dim=5)
    critic = R3GANCritic((1, 8, 8), width=4, per_group=2, classes=3, class_dim=5)
    z, labels = torch.randn(1, 2).expand(3, 2), torch.arange(3)
    images = model.push(z, labels)
    assert len({float(image.detach().sum()) for image in images}) == 3
    h = critic.last(critic.features(images[:1]))
    truth = [float((h[0] @ critic.embedding.weight[:, k]).detach()) for k in range(3)]
    np.testing.assert_allclose(critic(images[:1].expand(3, 1, 8, 8), labels).detach(), truth, rtol=0, atol=1e3 * EPS)


@pytest.mark.parametrize("network", [R3GANGenerator, R3GANCritic])
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"event_shape": (1, 30, 30)}, "halves its images 2 times, got sides of 30 and 30 pixels: use sides that are"),
        ({"event_shape": (1, 28, 30)}, "multiples of 4"),
        ({"event_shape": (1, 8, 8), "width": 12}, "width and most must give multiples of per_group=8, got 12"),
        ({"event_shape": (1, 8, 8), "width": 64, "most": 12}, "must give multiples of per_group=8, got 12"),
        ({"event_shape": (1, 8, 8), "blocks": 0}, "blocks"),
        ({"event_shape": (1, 8, 8), "class_dim": 0}, "class_dim"),
        ({"event_shape": (5,)}, "is for images"),
    ],
)
def test_what_they_cannot_make_is_refused(network, arguments, told):
    with pytest.raises(ValueError, match=told):
        network(**arguments)


def test_an_unknown_output_is_refused():
    with pytest.raises(ValueError, match="output must be linear or tanh, got 'relu'"):
        R3GANGenerator((1, 8, 8), output="relu")


def test_for_data_that_are_no_images_both_networks_are_replaced_and_the_fix_works():
    with pytest.raises(IncompatibleError, match="add metric=mlp model=") as caught:
        se.compose("r3gan", ["data=ring8"])
    fix = re.search(r": add ([^(]*)", str(caught.value)).group(1).split()
    se.compose("r3gan", ["data=ring8", *fix])
