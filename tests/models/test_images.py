"""Networks for images: published sizes, blocks against compositions of plain operations, norms, attention, sizes.

float64; 1e-10 stands for rounding: the spacing 2e-16 times the products of a layer (some thousands) and a few layers.
"""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional as F

from models import ResidualCritic, ResidualGenerator, StridedCritic, TransposedGenerator
from models.checks import check_model
from models.images.attention import SelfAttention
from models.images.blocks import CriticBlock, DoublingBlock
from models.images.conditional import norm_of
from models.images.layers import Conv, Layers, SpectralConv
from models.spectral import SQUARINGS
from se_framework import Metric, check_metric
from se_framework.config.build import build
from se_framework.config.files import config_dir, read_yaml

DEFAULT_DTYPE = torch.float64
NEAR = {"rtol": 1e-10, "atol": 1e-10}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def preset(key: str, shape: tuple[int, ...], classes: int = 0, **changed):
    """Build a choice of configs without memory, for images of a shape."""
    file = config_dir() / f"{key}.yaml"
    node = OmegaConf.to_container(read_yaml(file, file.name))
    inner = node["network"] if "network" in node else node
    inner.update(changed)
    with torch.device("meta"):
        return build(node, key.split("/")[0], event_shape=shape, image_shape=shape, classes=classes)


# --- sizes -----------------------------------------------------------------------------------------------------------

COLOUR = (3, 32, 32)
PUBLISHED = {  # of the authors' code, or of the reference named beside it
    "dcgan": (64, 0, {}, {}, 3_576_704, 2_765_568),
    "sngan": (32, 0, {}, {}, 4_276_739, 1_053_825),
    # Mimicry's SAGAN on CIFAR: 4.386M, 1.076M
    "sngan+attention": (32, 10, {"attention": 16, "spectral": True}, {"attention": 16}, 4_386_308, 1_075_586),
    # ajbrock's CIFAR script
    "sngan+labels": (32, 10, {"spectral": True, "start": "normal"}, {"width": 256}, 4_304_387, 4_207_361),
    "biggan_128": (128, 1000, {}, {}, 70_433_988, 87_982_370),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_networks_have_their_published_sizes(name):
    side, classes, model, metric, ours, theirs = PUBLISHED[name]
    file, shape = name.partition("+")[0], (3, side, side)
    assert count(preset(f"model/{file}", shape, classes, **model)) == ours
    assert count(preset(f"metric/{file}", shape, classes, **metric)) == theirs


SMALL = [
    (f"{name}_small", f"{name}_small{'_r1' * (name == 'dcgan')}") for name in ("dcgan", "sngan", "sagan", "biggan")
]


@pytest.mark.parametrize("side", [28, 32])
def test_the_small_presets_are_for_digits(side):
    for model, metric in SMALL:
        generator = preset(f"model/{model}", (1, side, side), 10)
        critic = preset(f"metric/{metric}", (1, side, side), 10)
        assert generator.dimension == critic.network.dimension == side * side
    attended = [b.attention is not None for b in generator.blocks]  # outputs of 14 and 28, or 8, 16 and 32 pixels
    assert attended == ([True, False] if side == 28 else [False, True, False])


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 28, 28), (1, 12, 20), (3, 40, 32)])
def test_images_have_the_shape_of_the_data(shape):
    c = {"width": 2, "latent_dim": 4}
    for model in (ResidualGenerator(shape, **c), TransposedGenerator(shape, **c)):
        x = model().sample((3,))
        assert x.shape == (3, *shape) and x.abs().max() <= 1
        assert type(model)((shape[0] * shape[1] * shape[2],), shape, output="linear", **c)().sample((2,)).ndim == 2
    for critic in (ResidualCritic(shape, width=2), StridedCritic(shape, width=2), StridedCritic(shape, norm="none")):
        assert critic(x).shape == (3,)


LABELLED = {
    "transposed": lambda: TransposedGenerator((6, 9), latent_dim=3, width=2, classes=2),
    "tables": lambda: ResidualGenerator((1, 8, 12), latent_dim=3, width=2, classes=2, attention=8, output="linear"),
    "embedding": lambda: ResidualGenerator((8, 8), latent_dim=3, width=2, classes=3, shared=4, start="orthogonal"),
    "skip": lambda: ResidualGenerator(
        (16, 16), latent_dim=6, width=2, classes=3, shared=4, skip=True, spectral=True, multipliers=(2, 1, 1)
    ),
}


@pytest.mark.parametrize("make", LABELLED.values(), ids=LABELLED)
def test_conditional_generators_keep_the_laws_of_models(make):
    check_model(make())


def test_conditional_critics_keep_the_laws_of_metrics():
    for critic in (
        ResidualCritic((1, 8, 12), width=2, classes=2, attention=4),
        ResidualCritic((16, 16), width=2, multipliers=(1, 2, 2), plain=1, classes=3, start="orthogonal"),
        StridedCritic((8, 8), width=2, norm="none", classes=2),
        StridedCritic((16, 16), width=2, classes=2),
    ):
        check_metric(Metric(critic))
    # Batch normalisation couples; the first and the last layer have none, so two layers alone couple nothing.
    for one, coupled in (
        (critic, True),
        (StridedCritic((16, 16), norm="none"), False),
        (StridedCritic((8, 8)), False),
    ):
        assert Metric(one).batch_coupled is coupled and one.row_wise is not coupled


# --- layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spectral", [False, True])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("resample", ["double", "halve"])
def test_a_convolution_that_resamples_is_the_composition(resample, kernel, spectral):
    layer = (SpectralConv if spectral else Conv)(3, 5, kernel, True, resample)
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, 6, 8, requires_grad=True)
    weight = layer.matrix()

    def plain(x):
        if resample == "double":
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        y = F.conv2d(x, weight, layer.bias, padding=kernel // 2)
        return y if resample == "double" else (y[..., ::2, :] + y[..., 1::2, :]).unfold(3, 2, 2).sum(-1) / 4

    got, want = layer(x), plain(x)
    torch.testing.assert_close(got, want, **NEAR)
    slopes = [torch.autograd.grad(y.sin().sum(), [x, layer.weight, layer.bias], retain_graph=True) for y in (got, want)]
    torch.testing.assert_close(*slopes, **NEAR)


def test_blocks_are_residual():
    """The block written with plain operations: norm, ReLU, doubling, convolution, norm, ReLU, convolution; shortcut."""
    layers = Layers()
    block, x = DoublingBlock(3, 4, layers), torch.randn(5, 3, 4, 4)

    def conv(layer, x):
        return F.conv2d(x, layer.weight, layer.bias, padding=layer.padding)

    def normed(x):
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        return ((x - mean) / (var + 1e-5).sqrt()).clamp(min=0)

    def doubled(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    h = conv(block.conv2, normed(conv(block.conv1, doubled(normed(x)))))
    torch.testing.assert_close(block(x, None), h + conv(block.shortcut, doubled(x)), **NEAR)

    for halve in (False, True):
        for first in (False, True):
            critic = CriticBlock(3, 3, layers, halve, first)
            assert (critic.shortcut is None) is not halve
            h = conv(critic.conv2, conv(critic.conv1, x if first else x.relu()).relu())
            h = (F.avg_pool2d(h, 2) if halve else h) + (F.avg_pool2d(conv(critic.shortcut, x), 2) if halve else x)
            torch.testing.assert_close(critic(x), h, **NEAR)
    assert CriticBlock(3, 5, layers, False).shortcut is not None


def test_starts():
    conv = Layers().conv(8, 16, gain=3.0)
    bound = 3 * (6 / (9 * (8 + 16))) ** 0.5  # Glorot and Bengio 2010, eq. 16
    assert 0.9 * bound < conv.weight.abs().max() <= bound and not conv.bias.any()
    rows = Layers(start="orthogonal").linear(20, 6).weight
    torch.testing.assert_close(rows @ rows.mT, torch.eye(6), rtol=0, atol=1e-6)
    # The deviation of n normal numbers: 0.02 +- 0.02 / sqrt(2 n), at four standard errors.
    for weight in (Layers(start="normal").conv(32, 32).weight, TransposedGenerator((8, 8)).net[0].weight):
        assert abs(weight.std() / 0.02 - 1) < 4 / (2 * weight.numel()) ** 0.5
    assert not Layers().offsets(3, 4).weight.any() and Layers(start="normal").offsets(3, 4).weight.any()
    for model in (Layers(start="orthogonal").embedding(5, 3), Layers().embedding(5, 3)):
        assert model.weight.any()
    with pytest.raises(ValueError, match="start must be one of xavier, normal, orthogonal, got 'he'"):
        ResidualGenerator((8, 8), start="he")
    with pytest.raises(ValueError, match="start must be normal or torch"):
        StridedCritic((8, 8), start="xavier")


def test_spectral_networks_have_norms_of_one_everywhere_but_in_the_embedding():
    model = ResidualGenerator(
        (16, 16), latent_dim=6, width=3, classes=3, shared=4, skip=True, attention=8, spectral=True
    )
    critic = ResidualCritic((16, 16), width=3, classes=3, attention=8)
    for network in (model, critic):
        layers = [part for part in network.modules() if hasattr(part, "matrix")]
        norms = [torch.linalg.svdvals(part.matrix().detach().flatten(1))[0] for part in layers]
        embedding = [part is getattr(network, "shared", None) for part in layers]
        assert len(layers) > 12 and sum(embedding) == (network is model)
        for norm, free in zip(norms, embedding, strict=True):
            # After settling sigma is low by at most the smaller side (here below 30) to the power 2**-11.
            assert (abs(norm - 1) > 0.1) if free else 1 - 1e-12 <= norm <= 30 ** (0.5 / 2**SQUARINGS) + 1e-12


# --- norms, labels, parts of z ---------------------------------------------------------------------------------------


def test_a_conditional_norm_scales_by_one_plus_the_gain():
    x, labels = torch.randn(6, 4, 3, 3), torch.arange(6) % 3
    plain = F.batch_norm(x, None, None, training=True)
    for norm, condition in (
        (norm_of(4, Layers(), classes=3), labels),
        (norm_of(4, Layers(start="orthogonal"), inputs=5), torch.randn(6, 5)),
    ):
        gain, shift = (part(condition)[:, :, None, None] for part in (norm.gain, norm.shift))
        torch.testing.assert_close(norm(x, condition), ((1 + gain) * plain + shift).relu(), **NEAR)
    start = norm_of(4, Layers(), classes=3)
    torch.testing.assert_close(start(x, labels), plain.relu(), **NEAR)  # at its start every class passes through


def outputs_of(model, z, labels):
    """Return what the linear map and every block give."""
    seen: list[torch.Tensor] = []
    hooks = [part.register_forward_hook(lambda *a: seen.append(a[2].clone())) for part in (model.first, *model.blocks)]
    model.eval().push(z, labels)
    for hook in hooks:
        hook.remove()
    return seen


def test_each_block_reads_its_own_part_of_z_and_the_label():
    model = ResidualGenerator((32, 32), latent_dim=8, width=2, classes=2, shared=3, skip=True, start="orthogonal")
    z, labels = torch.randn(3, 8), torch.zeros(3, dtype=torch.long)
    before = outputs_of(model, z, labels)
    for part in range(4):
        other = z.clone()
        other[:, 2 * part : 2 * part + 2] += 1
        moved = [not torch.equal(a, b) for a, b in zip(before, outputs_of(model, other, labels), strict=True)]
        assert moved == [i >= part for i in range(4)]
    moved = [not torch.equal(a, b) for a, b in zip(before, outputs_of(model, z, labels + 1), strict=True)]
    assert moved == [False, True, True, True]


def test_labels_enter_a_critic_by_projection():
    critic, x = ResidualCritic((8, 8), width=3, classes=4, plain=0), torch.randn(5, 8, 8)
    h = critic.blocks(critic.images(x)).relu().sum((2, 3))
    labels = torch.tensor([0, 3, 1, 1, 2])
    vectors = critic.projection.weight / torch.linalg.matrix_norm(critic.projection.weight, 2)
    w = critic.last.weight / torch.linalg.matrix_norm(critic.last.weight, 2)
    want = h @ w.mT.squeeze(1) + critic.last.bias + (vectors[labels] * h).sum(1)
    torch.testing.assert_close(critic(x, labels), want, rtol=1e-6, atol=1e-6)  # sigma by settling: see above
    strided = StridedCritic((8, 8), width=3, classes=4, norm="none")
    gap = strided(x, labels) - strided(x, labels * 0)
    vectors = strided.projection.weight
    torch.testing.assert_close(gap, ((vectors[labels] - vectors[0]) * strided.features(x)).sum(1), **NEAR)


def test_attention_is_that_of_torch_and_the_identity_at_its_start():
    part, x = SelfAttention(16, Layers()), torch.randn(2, 16, 4, 6)
    assert torch.equal(part(x), x)
    nn.init.constant_(part.scale, 0.7)
    q, k, v = (layer(x) for layer in (part.query, part.key, part.value))
    assert q.shape[1] == 2 and v.shape[1] == 8
    q, k, v = (t.flatten(2).mT for t in (q, F.max_pool2d(k, 2), F.max_pool2d(v, 2)))
    seen = F.scaled_dot_product_attention(q, k, v, scale=1.0).mT.unflatten(2, (4, 6))
    torch.testing.assert_close(part(x), x + 0.7 * part.out(seen), **NEAR)
    x = x[:1, :, :2, :2].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(part, x)  # penalties on gradients need it
