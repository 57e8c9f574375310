"""Spectral normalisation, embeddings, convolutions, and the binding of networks to their parameters.

What every model, critic and embedding obeys is in ``test_models.py``. Identities are checked in float64; 1e-12 stands
for rounding, the spacing 2e-16 times a few thousand operations.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn.utils import parametrizations

from models.base import Embedding
from models.convolutional import ConvCritic, ConvGenerator, halvings
from models.critics import GroupSortCritic
from models.embeddings import GroupSortEmbedding, MLPEmbedding
from models.networks import Binding, Dense, mlp
from models.spectral import SQUARINGS, SpectralConv2d, SpectralCritic, SpectralLinear
from se_framework.equation.penalties import R1
from tests.support.oracles import directional

DEFAULT_DTYPE = torch.float64


def worst_ratio(*sides: int) -> float:
    """The factor by which settled sigmas of weights with these smaller sides may be small, all together."""
    return torch.tensor(sides, dtype=torch.float64).prod().item() ** (0.5 / 2**SQUARINGS) * (1 + 1e-12)


def settle(module: nn.Module) -> None:
    for part in module.modules():
        if hasattr(part, "settle"):
            part.settle()


def trained(module: nn.Module, steps: int = 30) -> nn.Module:
    """Move the parameters a long way, as an optimiser does, and settle after each step as the engine does."""
    optimiser = torch.optim.Adam(module.parameters(), lr=0.1)
    x, y = torch.randn(64, *module.event_shape), 1 + 0.5 * torch.randn(64, *module.event_shape)
    for _ in range(steps):
        optimiser.zero_grad()
        (module(x).mean() - module(y).mean()).backward()
        optimiser.step()
        settle(module)
    return module


# --- bound calls -------------------------------------------------------------------------------------------------

NETS = {
    "perceptron": lambda: mlp(4, 3, 5, 2),
    "spectral": lambda: mlp(4, 3, 5, 2, layer=SpectralLinear),
    "prelu": lambda: nn.Sequential(nn.Linear(4, 2), nn.PReLU()),
    "conv": lambda: ConvGenerator((2, 5, 9), latent_dim=4, width=2).net,
    "one layer": lambda: nn.Linear(4, 3),
    "buffer": lambda: nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2, affine=False)).eval(),
}


@pytest.mark.parametrize("make", NETS.values(), ids=NETS.keys())
def test_a_bound_call_keeps_the_tensors_it_was_made_with(make):
    class Binder(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = make()

        def forward(self):
            return Binding(self)(self.net)

    own, other, z = Binder(), Binder(), torch.randn(6, 4)
    for state in other.buffers():
        if state.is_floating_point():
            state += 0.1
    parameters = {name: t.detach().clone().requires_grad_() for name, t in other.named_parameters()}
    call = functional_call(own, {**dict(other.named_buffers()), **parameters}, ())
    torch.testing.assert_close(call(z), other.net(z), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(call(z), own.net(z))
    gradients = torch.autograd.grad(call(z).square().sum(), list(parameters.values()))
    assert all(g.any() for g in gradients)
    torch.testing.assert_close(own()(z), own.net(z), rtol=1e-12, atol=1e-12)


# --- spectral normalisation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 5), (3, 40), (40, 3), (1, 7), (7, 1), (64, 64)])
def test_sigma_is_the_largest_singular_value(shape):
    layer, n = SpectralLinear(shape[1], shape[0]), min(shape)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    spectra = {
        "flat": torch.ones(n),
        "crowded": torch.linspace(0.99, 1, n).flip(0),
        "one": torch.eye(n)[0],
        "steep": 10.0 ** -torch.arange(n, dtype=torch.float64).clamp(max=12),
    }
    matrices = [((left * spectrum) @ right, spectrum.max()) for spectrum in spectra.values()]
    axes = torch.zeros(shape)  # singular vectors along the axes: most columns never see the leading one
    axes.diagonal().copy_(torch.arange(1, n + 1))
    for matrix, largest in [*matrices, (axes, torch.tensor(float(n)))]:
        for scale in (1e-12, 1.0, 1e12):
            with torch.no_grad():
                layer.weight.copy_(scale * matrix)
            layer.settle()
            assert layer.u.norm().item() == pytest.approx(1, rel=1e-12)
            assert 1 - 1e-12 <= float(scale * largest / layer.sigma().detach()) <= worst_ratio(n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sigma_of_a_new_layer_and_after_a_change_of_its_weight(dtype):
    layers = [SpectralLinear(20, 30).to(dtype), SpectralConv2d(3, 8, 4, 2, 1).to(dtype)]
    rounding = 30 * torch.finfo(dtype).eps
    for layer in layers:
        for change in (False, True):
            if change:
                with torch.no_grad():
                    layer.weight += torch.randn_like(layer.weight)
                before = layer.u.clone()
                layer.settle()
                assert not torch.allclose(before, layer.u)
            matrix = layer.weight.detach().flatten(1)
            true = torch.linalg.svdvals(matrix.double())[0]
            assert 1 - rounding <= float(true / layer.sigma().detach()) <= worst_ratio(min(matrix.shape)) + rounding


def test_gradient_of_sigma_is_the_outer_product_of_the_singular_vectors():
    layer = SpectralLinear(6, 4)
    (gradient,) = torch.autograd.grad(layer.sigma(), layer.weight)
    left, _, right = torch.linalg.svd(layer.weight.detach())
    torch.testing.assert_close(gradient, torch.outer(left[:, 0], right[0]), rtol=0, atol=1e-6)
    x, weight = torch.randn(3, 6), layer.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: functional_call(layer, {"weight": w}, (x,)), weight)


SPECTRAL = {
    "perceptron": lambda: SpectralCritic((2, 3), width=8),
    "relu": lambda: SpectralCritic((2, 3), width=6, depth=1, activation="relu"),
    "convolutions": lambda: ConvCritic((2, 5, 6), width=3, spectral=True),
}
spectral_case = pytest.mark.parametrize("make", SPECTRAL.values(), ids=SPECTRAL.keys())


@spectral_case
def test_spectral_forward_changes_nothing(make):
    critic, x = make(), torch.randn(5, *make().event_shape)
    settled = copy.deepcopy(critic.state_dict())
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    state = copy.deepcopy(critic.state_dict())
    first = critic(x)
    first.sum().backward()
    assert torch.equal(critic.eval()(x), first) and torch.equal(critic.train()(x), first)
    assert all(torch.equal(t, state[name]) for name, t in critic.state_dict().items())
    assert any(name.endswith(".u") for name in state)
    settle(critic)
    after = critic.state_dict()
    assert all(torch.equal(t, state[n]) is not n.endswith(".u") or t.numel() == 1 for n, t in after.items())
    assert not torch.allclose(critic(x), first)
    assert set(settled) == set(after)


@spectral_case
def test_spectral_critic_is_that_of_torch(make):
    """torch's own normalisation, after as many power iterations as its start needs."""
    critic = trained(make(), steps=5)
    theirs = copy.deepcopy(critic).train()
    for layer in [m for m in theirs.modules() if hasattr(m, "settle")]:
        plain = nn.Conv2d if isinstance(layer, nn.Conv2d) else Dense
        layer.__class__ = plain
        parametrizations.spectral_norm(layer, n_power_iterations=500)
    x = torch.randn(7, *critic.event_shape)
    # Both know the singular vectors to the gap of the spectrum, and sigma to its square.
    torch.testing.assert_close(critic(x), theirs.eval()(x), rtol=1e-6, atol=1e-6)


@spectral_case
def test_spectral_critic_does_not_see_the_scale_of_its_weights(make):
    critic, x = make(), torch.randn(5, *make().event_shape)
    before = critic(x)
    with torch.no_grad():
        for module in critic.modules():
            if hasattr(module, "settle"):
                module.weight *= 7.0
    torch.testing.assert_close(critic(x), before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ["leaky_relu", "relu"])
@pytest.mark.parametrize("classes", [0, 3])
def test_spectral_critic_is_1_lipschitz(activation, classes):
    critic = SpectralCritic((2, 2), width=24, depth=3, activation=activation, classes=classes)
    labels = torch.randint(classes, (500,)) if classes else None
    optimiser = torch.optim.Adam(critic.parameters(), lr=0.1)
    x, y = torch.randn(500, 2, 2), 1 + torch.randn(500, 2, 2)
    for _ in range(30):
        optimiser.zero_grad()
        (critic(x, labels).mean() - critic(y, labels).mean()).backward()
        optimiser.step()
        settle(critic)
    bound = worst_ratio(4 + classes, 24, 24, 1)
    x = x.requires_grad_()
    slope = torch.autograd.grad(critic(x, labels).sum(), x)[0].flatten(1).norm(dim=1)
    assert slope.max() <= bound and slope.max() > 0.5  # trained against a shift, it uses its slope
    with torch.no_grad():
        for other in (y, 100 * y, x + 1e-3 * y):
            distance = (x - other).flatten(1).norm(dim=1)
            assert ((critic(x, labels) - critic(other, labels)).abs() <= distance * bound * (1 + 1e-9)).all()


def test_spectral_critic_stays_below_the_distance_between_circles():
    """W1 between circles of radius 1 and 3 is 2; GroupSort reaches it (test_models), this class does not."""
    critic = SpectralCritic((2,), width=32, depth=2)
    optimiser = torch.optim.Adam(critic.parameters(), lr=5e-3)
    angle = torch.linspace(0, 2 * torch.pi, 257)[1:]
    x = torch.stack((angle.cos(), angle.sin()), 1)
    for _ in range(200):
        gap = critic(3 * x).mean() - critic(x).mean()
        optimiser.zero_grad()
        (-gap).backward()
        optimiser.step()
        settle(critic)
    assert 0.5 < gap.item() < 1.9


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (4, 2, 1)])
def test_norm_of_a_spectral_convolution_is_between_one_and_the_overlap_of_its_patches(kernel, stride, padding):
    layer = SpectralConv2d(2, 3, kernel, stride, padding)
    with torch.no_grad():
        layer.weight.fill_(1.0)  # patches add up where all weights agree
        layer.bias.zero_()
    layer.settle()
    matrix = jacrev(lambda x: layer(x[None]).flatten())(torch.zeros(2, 8, 8)).flatten(1)
    norm = torch.linalg.svdvals(matrix)[0].item()
    assert 1.5 < norm <= -(-kernel // stride) * (1 + 1e-9)


def test_spectral_networks_have_an_outline_without_memory():
    with torch.device("meta"):
        for critic in (SpectralCritic((784,)), ConvCritic((784,), (28, 28), spectral=True)):
            assert all(t.is_meta for t in critic.state_dict().values())


# --- embeddings --------------------------------------------------------------------------------------------------


def test_embeddings_declare_what_they_are():
    flat = (GroupSortEmbedding((3,), outputs=5), MLPEmbedding((3,), outputs=5), MLPEmbedding((3,), 5, bounded=False))
    assert [(e.lipschitz, e.bounded, e.outputs) for e in flat] == [(1.0, False, 5), (None, True, 5), (None, False, 5)]
    assert not any(e.has_context or e.needs_image for e in flat)


@pytest.mark.parametrize(("outputs", "width"), [(2, 16), (9, 6), (12, 12)])
def test_group_sort_embedding_is_1_lipschitz(outputs, width):
    embedding = trained(GroupSortEmbedding((3, 3), outputs=outputs, width=width))
    x = 2 * torch.randn(400, 3, 3)
    with torch.no_grad():
        for y in (2 * torch.randn(400, 3, 3), x + 1e-3 * torch.randn(400, 3, 3), 100 * x):
            distance = (x - y).flatten(1).norm(dim=1)
            moved = (embedding(x) - embedding(y)).norm(dim=1)
            assert (moved <= distance * (1 + 1e-9)).all() and moved.max() > 0


def test_group_sort_embedding_in_one_dimension_is_the_critic():
    critic, embedding, x = GroupSortCritic((4,), 6), GroupSortEmbedding((4,), 1, 6), torch.randn(5, 4)
    embedding.load_state_dict(critic.state_dict())
    assert torch.equal(embedding(x).squeeze(1), critic(x))


def test_bounded_embedding_stays_in_the_cube():
    bounded, free = MLPEmbedding((2,), outputs=3, width=8), MLPEmbedding((2,), outputs=3, width=8, bounded=False)
    free.load_state_dict(bounded.state_dict())
    x = 10.0 ** torch.arange(6)[:, None] * torch.randn(6, 2)
    assert bounded(x).abs().max() <= 1 < free(x).abs().max()
    torch.testing.assert_close(bounded(x), free(x).tanh())


def test_embedding_checks_shapes():
    class Flat(Embedding):
        def embed(self, x):
            return x.sum(1)

    with pytest.raises(ValueError, match=r"Flat.embed must return shape \(4, 2\), got \(4,\)"):
        Flat((3,), 2)(torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"MLPEmbedding embeds a batch of examples of shape \(3,\), got .* \(4, 2\)"):
        MLPEmbedding((3,))(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="outputs must be at least 1, got 0"):
        GroupSortEmbedding((3,), outputs=0)


# --- convolutions ------------------------------------------------------------------------------------------------

SIZES = [(4, 4), (5, 7), (7, 4), (8, 8), (9, 30), (17, 16)]
size_case = pytest.mark.parametrize("size", SIZES, ids=[f"{h}x{w}" for h, w in SIZES])


@size_case
def test_every_pixel_is_made_and_every_pixel_is_scored(size):
    generator, critic = ConvGenerator((2, *size), latent_dim=3, width=2), ConvCritic((2, *size), width=2)
    law = generator()
    z = law.noise(8)
    x = law.particles(z).x.detach()
    assert x.shape == (8, 2, *size) and (x.var(0) > 0).all()
    (slope,) = torch.autograd.grad(critic(x.requires_grad_()).sum(), x)
    assert (slope.abs().sum(0) > 0).all()
    h, w = size
    coarse = generator.net[1].unflattened_size[1:]
    assert tuple(coarse) == (-(-h // 2 ** halvings(h, w)), -(-w // 2 ** halvings(h, w)))
    # What is too much lies at the bottom and on the right.
    assert torch.equal(generator.net(z)[..., :h, :w], law.particles(z).x)


def test_ladder_of_resolutions_ends_at_four_to_seven_pixels():
    assert [halvings(n, n) for n in (4, 5, 7, 8, 15, 16, 28, 31, 32, 64)] == [1, 1, 1, 1, 1, 2, 2, 2, 3, 4]
    assert halvings(8, 64) == halvings(64, 8) == 1


def test_flat_examples_are_the_images_row_by_row():
    for cls in (ConvGenerator, ConvCritic):
        image, vector = cls((2, 5, 7), width=2), cls((70,), (2, 5, 7), width=2)
        vector.load_state_dict(image.state_dict())
        if cls is ConvGenerator:
            z = image().noise(4)
            assert torch.equal(image().particles(z).x.flatten(1), vector().particles(z).x)
        else:
            x = torch.randn(4, 2, 5, 7)
            assert torch.equal(image(x), vector(x.flatten(1)))


def test_particles_are_independent_of_each_other():
    law = ConvGenerator((1, 6, 6), latent_dim=3, width=4)()
    z = law.noise(5)
    torch.testing.assert_close(law.particles(z).x[2:3], law.particles(z[2:3]).x, rtol=1e-12, atol=1e-12)


def test_output_range():
    for output, inside in (("tanh", True), ("linear", False)):
        generator = ConvGenerator((1, 6, 6), latent_dim=3, width=4, output=output)
        with torch.no_grad():
            for parameter in generator.parameters():
                parameter *= 5
        assert bool((generator().sample((50,)).abs() <= 1).all()) is inside


def test_labels_enter_the_generator_beside_z_and_the_critic_by_projection():
    labels = torch.tensor([2, 0, 1, 2])
    generator = ConvGenerator((1, 6, 6), latent_dim=3, width=4, classes=3)
    law, z = generator(labels), torch.randn(4, 3)
    one_hot = torch.eye(3)[labels]
    assert torch.equal(law.particles(z).x, generator.net(torch.cat((z, one_hot), 1)))
    assert not torch.allclose(law.particles(z).x, generator(labels.flip(0)).particles(z).x)
    for spectral in (False, True):
        critic, x = ConvCritic((36,), (6, 6), width=4, classes=3, spectral=spectral), torch.randn(4, 36)
        h = critic.features(x)
        head = critic.projection.weight / (critic.projection.sigma() if spectral else 1)
        expected = critic.last(h).squeeze(1) + (h * head[labels]).sum(1)
        torch.testing.assert_close(critic(x, labels), expected, rtol=1e-12, atol=1e-12)
        scores = [critic(x, torch.full((4,), y)) for y in range(3)]
        assert not torch.allclose(scores[0], scores[1]) and not torch.allclose(scores[1], scores[2])
    for network in (lambda: generator(), lambda: critic(x)):
        with pytest.raises(ValueError, match=r"is conditional: it needs one label in 0\.\.2 per example, got none"):
            network()


def test_r1_through_convolutions_is_differentiated_right():
    """The second derivative of convolutions, against a difference quotient of step h: error h^2 + eps/h, ~1e-9."""
    critic, x = ConvCritic((1, 5, 5), width=2), torch.randn(6, 1, 5, 5)
    kernel = critic.features[1].weight

    class Penalty(nn.Module):
        def __init__(self):
            super().__init__()
            self.critic = critic

        def forward(self):
            return R1(1.0)(self.critic, x, x, torch.zeros(6))

    def penalty(weight):
        return functional_call(Penalty(), {"critic.features.1.weight": weight}, ())

    (gradient,) = torch.autograd.grad(penalty(kernel), kernel)
    direction, quotient = directional(lambda w: penalty(w).detach(), kernel)
    torch.testing.assert_close((gradient * direction).sum(), quotient, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: ConvGenerator((64,)), r"is for images, got image_shape None for examples of shape \(64,\)"),
        (lambda: ConvCritic((64,), (1, 1, 8, 8)), "is for images, got image_shape"),
        (lambda: ConvCritic((64,), (8, 9)), r"\(64,\) are no images of shape \(8, 9\)"),
        (lambda: ConvGenerator((8, 8, 3), (3, 8, 8)), "channels first"),
        (lambda: ConvCritic((1, 64), (8, 8)), r"\(1, 64\) are no images of shape \(8, 8\)"),
        (lambda: ConvGenerator((3, 9)), "at least 4 x 4 pixels, got 3 x 9"),
        (lambda: ConvGenerator((8, 8), latent_dim=0), "latent_dim must be at least 1, got 0"),
        (lambda: ConvGenerator((8, 8), output="sigmoid"), "output must be linear or tanh, got 'sigmoid'"),
        (lambda: ConvCritic((8, 8), width=0), "width must be at least 1, got 0"),
        (lambda: SpectralCritic((2,), activation="silu"), "slope of at most one, .*got 'silu'"),
    ],
)
def test_refusals_say_what_and_what_was_got(attempt, message):
    with pytest.raises(ValueError, match=message):
        attempt()
