"""Perceptrons, flows and convolutions against the same maps written plainly: rows, formulas, no shared pass.

Values, gradients and second derivatives are compared in float64; both sides are the same sums in another order, so a
difference is some roundings of numbers of order one: 1e-11 leaves room for sums over hundreds of terms.
"""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from models.base import Model
from models.convolutional import ConvCritic, ConvGenerator, Images
from models.critics import GroupSortCritic, MLPCritic
from models.embeddings import MLPEmbedding
from models.flows import CouplingFlow, RealNVP
from models.generators import MLPGenerator
from models.networks import Binding, ColumnPerceptron, Dense, mlp
from models.spectral import SpectralCritic
from models.splines import SplineFlow

DEFAULT_DTYPE = torch.float64
ACTIVATIONS = ("relu", "leaky_relu", "tanh", "silu", "elu", "softplus")


def perturbed(model: nn.Module, size: float = 0.3) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn_like(parameter)
    return model


def slopes(value: torch.Tensor, inputs, twice: bool = False) -> list[torch.Tensor]:
    """Gradients of a scalar; with ``twice`` those of the gradients' squares."""
    inputs = list(inputs)
    found = torch.autograd.grad(value, inputs, create_graph=twice, retain_graph=True, allow_unused=True)
    if not twice:
        return [torch.zeros_like(t) if g is None else g for t, g in zip(inputs, found, strict=True)]
    return slopes(sum(g.square().sum() for g in found if g is not None), inputs)


def assert_same(ours, plain) -> None:
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


# --- perceptrons -------------------------------------------------------------------------------------------------


FORMULAS = {
    None: lambda y: y,
    "relu": lambda y: torch.where(y > 0, y, 0.0),
    "leaky_relu": lambda y: torch.where(y > 0, y, 0.2 * y),
    "tanh": torch.tanh,
    "silu": lambda y: y * torch.sigmoid(y),
    "elu": lambda y: torch.where(y > 0, y, torch.expm1(y.clamp(max=0))),
    "softplus": lambda y: torch.logaddexp(y, torch.zeros_like(y)),
}


def plainly(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The layers' formulas, on rows."""
    layers = [layer for layer in net.children() if not isinstance(layer, nn.Flatten)]
    kinks = [layer.activation if isinstance(layer, Dense) else net.activation for layer in layers[:-1]]
    for layer, kink in zip(layers, [*kinks, None], strict=True):
        x = FORMULAS[kink](x @ layer.weight.T + layer.bias)
    return x


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_perceptrons_on_rows_and_on_columns(activation, depth):
    rows, columns = mlp(3, 4, 5, depth, activation), ColumnPerceptron(3, 4, 5, depth, activation)
    assert not columns(torch.randn(3, 7)).any() and columns.state_dict().keys() == rows.state_dict().keys()
    columns.load_state_dict(perturbed(rows).state_dict())
    x = torch.randn(7, 3, requires_grad=True)
    for net, call in ((rows, rows), (rows, Binding(rows)(rows)), (columns, lambda x: columns(x.T).T)):
        inputs = [x, *net.parameters()]
        assert_same([call(x)], [plainly(rows, x)])
        for twice in (False, True):
            ours, plain = (slopes(f(x).square().sum(), inputs, twice) for f in (call, partial(plainly, net)))
            assert_same(ours, plain)


CRITICS = {
    **{name: lambda name=name: MLPCritic((3,), 4, 2, name) for name in ACTIVATIONS},
    "affine": lambda: MLPCritic((3,), depth=0),
    "labelled": lambda: MLPCritic((3,), 4, 2, classes=2),
    "other layers": lambda: replaced(nn.Flatten(1), nn.Linear(3, 4), nn.LeakyReLU(-0.5), nn.Linear(4, 1)),
    "other last layer": lambda: replaced(nn.Flatten(1), Dense(3, 4, activation="relu"), Dense(4, 1, activation="tanh")),
    "one layer": lambda: replaced(nn.Linear(3, 1)),
}


def replaced(*layers: nn.Module) -> MLPCritic:
    """A critic whose network somebody has exchanged."""
    critic = MLPCritic((3,))
    critic.net = nn.Sequential(*layers)
    return critic


@pytest.mark.parametrize("make", CRITICS.values(), ids=CRITICS.keys())
def test_the_gradient_of_a_perceptron_is_its_derivative(make):
    """In closed form where the nonlinearities are rectifiers, else by differentiation."""
    critic = perturbed(make())
    x = torch.randn(7, 3, requires_grad=True)
    labels = torch.arange(7) % 2 if critic.classes else None
    (want,) = torch.autograd.grad(critic(x, labels).sum(), x, create_graph=True)
    got = critic.gradient(x.detach(), labels)
    assert_same([got], [want])
    assert_same(*(slopes(g.square().sum(), critic.parameters()) for g in (got, want)))


# --- hooks -------------------------------------------------------------------------------------------------------

LISTENED = {
    "perceptron": lambda: MLPCritic((3,), width=4, depth=2),
    "rectified": lambda: MLPCritic((3,), width=4, depth=2, activation="relu"),
    "spectral": lambda: SpectralCritic((3,), width=4, depth=2),
    "group_sort": lambda: GroupSortCritic((3,), width=4, depth=2),
    "convolutional": lambda: ConvCritic((1, 5, 9), width=2),
    "spectral convolutional": lambda: ConvCritic((1, 5, 9), width=2, spectral=True),
    "embedding": lambda: MLPEmbedding((3,), 2, width=4, depth=1),
    "generator": lambda: MLPGenerator((3,), latent_dim=2, width=4, depth=2),
    "convolutional generator": lambda: ConvGenerator((1, 5, 9), latent_dim=2, width=2, output="tanh"),
    "real nvp": lambda: RealNVP((3,), couplings=2, width=4),
    "spline": lambda: SplineFlow((3,), couplings=2, width=4),
}


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is called as one; a perceptron on columns is made of weights."""
    return isinstance(module, ColumnPerceptron) or not (isinstance(module, nn.ParameterDict) or list(module.children()))


def called(module: nn.Module) -> torch.Tensor:
    """Scores, embedded points, or particles with their density, of fixed arguments."""
    source = torch.Generator().manual_seed(3)
    if not isinstance(module, Model):
        return module(torch.randn(5, *module.event_shape, generator=source))
    law = module()
    p = law.particles(law.noise(5, source))
    return p.x.flatten() if p.log_prob is None else torch.cat((p.x.flatten(), law.log_prob(p.x)))


@pytest.mark.parametrize("make", LISTENED.values(), ids=LISTENED.keys())
def test_who_listens_to_a_layer_hears_its_call_and_keeps_what_it_returned(make):
    """Layers are called as modules, and no output is written over afterwards, in the backward pass neither."""
    module, heard = make(), {}
    want = called(module)
    leaves = {name: m for name, m in module.named_modules() if name and is_leaf(m)}
    for name, leaf in leaves.items():
        leaf.register_forward_hook(
            lambda _, __, output, name=name: heard.setdefault(name, []).append((output, output.clone()))
        )
    found = called(module)
    found.square().sum().backward()
    assert torch.equal(found, want) and heard.keys() == leaves.keys()
    for name, outputs in heard.items():
        for output, copy in outputs:
            assert torch.equal(output, copy), f"{name} was overwritten"


def test_the_closed_form_gradient_leaves_what_layers_returned():
    critic, heard = MLPCritic((3,), width=4, depth=2), []
    for layer in critic.net:
        layer.register_forward_hook(lambda _, __, output: heard.append((output, output.clone())))
    critic.gradient(torch.randn(5, 3))
    assert len(heard) == 2 and all(torch.equal(*pair) for pair in heard)  # hidden layers: the last is a row of weights


@pytest.mark.parametrize("register", ["register_forward_pre_hook", "register_full_backward_hook"])
def test_who_listens_before_a_layer_or_to_its_gradient_is_called(register):
    critic, heard = MLPCritic((3,), width=4, depth=2), []
    x = torch.randn(5, 3, requires_grad=True)
    want = critic(x)
    for layer in critic.net:
        getattr(layer, register)(lambda *_: heard.append(1))
    found = critic(x)
    found.sum().backward()
    assert torch.equal(found, want) and len(heard) == len(critic.net)


@pytest.mark.parametrize("make", LISTENED.values(), ids=LISTENED.keys())
def test_arguments_are_left_alone(make):
    module = make()
    inputs = torch.randn(6, *(module().latent_shape if isinstance(module, Model) else module.event_shape))
    before = inputs.clone()
    module().particles(inputs) if isinstance(module, Model) else module(inputs)
    assert torch.equal(inputs, before)


# --- flows -------------------------------------------------------------------------------------------------------

FLOWS = {
    "nvp": lambda d, **kw: RealNVP((d,), couplings=5, width=6, **kw),
    "spline": lambda d, **kw: SplineFlow((d,), couplings=5, width=6, bins=4, **kw),
}
flow_case = pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS.keys())


def pulled(model: CouplingFlow, x: torch.Tensor, labels: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
    """Data to latent, the couplings' halves named by the coordinates they hold; examples stay rows."""
    d = model.dimension
    x = (x - model.loc) / model.log_scale.exp()
    places, ladj = list(range(d)), -model.log_scale.sum()
    for i, net in enumerate(model.conditioners):
        if d > 2 and i % 2 == 0 and i > 0:
            places = places[0::2] + places[1::2]
        first, second = places[: model.split[0]], places[model.split[0] :]
        read, move = (first, second) if i % 2 == 0 else (second, first)
        given = x[:, read].clamp(-model.input_bound, model.input_bound)
        if labels is not None:
            given = torch.cat((given, nn.functional.one_hot(labels, model.classes).to(x)), 1)
        numbers = plainly(net, given).unflatten(1, (-1, len(move))).permute(1, 2, 0)
        moved, slope = model.pull_coordinate(numbers, x[:, move].T)
        x = x.index_copy(1, torch.tensor(move), moved.T)
        ladj = ladj + slope.sum(0)
    return x[:, places], ladj


@flow_case
@pytest.mark.parametrize("d", [2, 3, 6])
@pytest.mark.parametrize("classes", [0, 3])
def test_flows_against_rows_and_named_coordinates(make, d, classes):
    model = perturbed(make(d, classes=classes))
    x = (2 * torch.randn(9, d)).requires_grad_()
    labels = torch.randint(classes, (9,)) if classes else None
    z, ladj = pulled(model, x, labels)
    normal = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)
    plain, ours = normal + ladj, model(labels).log_prob(x)
    assert_same([ours], [plain])
    inputs = [x, *model.parameters()]
    for twice in (False, True):
        assert_same(slopes(ours.mean(), inputs, twice), slopes(plain.mean(), inputs, twice))


@flow_case
@pytest.mark.parametrize("support", ["real", "unit"])
@pytest.mark.parametrize("classes", [0, 3])
def test_samples_are_the_particles(make, support, classes):
    """Samples are made without the determinant, the particles of the same noise with it."""
    model = perturbed(make(3, support=support, classes=classes))
    law = model(torch.randint(classes, (8,)) if classes else None)
    x = law.rsample((8,), torch.Generator().manual_seed(5))
    same = law.particles(law.noise(8, torch.Generator().manual_seed(5))).x
    assert_same([x], [same])
    assert_same(*(slopes(t.square().sum(), model.parameters()) for t in (x, same)))
    assert torch.equal(law.sample((8,), torch.Generator().manual_seed(5)), x.detach())
    assert law.sample((2, 4), torch.Generator().manual_seed(5)).shape == (2, 4, 3)


def test_samples_need_no_part_of_the_determinant(monkeypatch):
    """A logarithm of a slope, a sum over couplings or a normal density would be work thrown away."""

    def refuse(*arguments):
        raise AssertionError("a determinant was computed")

    for model in (RealNVP((3,)), SplineFlow((3,))):
        law = model()
        monkeypatch.setattr("models.laws.standard_normal_log_prob", refuse)
        monkeypatch.setattr("models.splines.rise_and_log_slope", refuse)
        assert law.sample((4,)).shape == (4, 3)
        with pytest.raises(AssertionError, match="a determinant was computed"):
            law.particles(law.noise(4))


def test_a_flow_of_ones_own_needs_no_function_for_samples():
    class Shift(CouplingFlow):
        def __init__(self, event_shape):
            super().__init__(event_shape, 1, 2, 4, 1, "tanh", 5.0, "real", 0)

        def pull_coordinate(self, numbers, x):
            return x + numbers[0], torch.zeros_like(x)

        def push_coordinate(self, numbers, z):
            return z - numbers[0], torch.zeros_like(z)

    law = perturbed(Shift((3,)))()
    z = law.noise(5, torch.Generator().manual_seed(1))
    assert torch.equal(law.sample((5,), torch.Generator().manual_seed(1)), law.push(z)[0].detach())


@flow_case
def test_stacked_members_sample_as_each_alone(make):
    members, z = [perturbed(make(3)) for _ in range(3)], torch.randn(3, 5, 3)
    parameters, buffers = stack_module_state(members)

    class Carrier(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, z):
            return self.model()._carry(z)

    def carried(parameters, buffers, z):
        tensors = {f"model.{name}": t for name, t in (parameters | buffers).items()}
        return functional_call(Carrier(members[0]), tensors, (z,))

    together = vmap(carried)(parameters, buffers, z)
    assert_same(together, [model()._carry(noise) for model, noise in zip(members, z, strict=True)])


# --- convolutions ------------------------------------------------------------------------------------------------


class Reshaped(nn.Module):
    """Examples as images in torch's usual order."""

    def __init__(self, image_shape):
        super().__init__()
        self.image_shape = image_shape

    def forward(self, x):
        return x.reshape(-1, *self.image_shape).contiguous()


def plain_layers(layers: nn.Sequential) -> nn.Sequential:
    """The same layers and parameters, images in the usual order and nothing in place."""
    return nn.Sequential(*(
        Reshaped(layer.unflattened_size) if isinstance(layer, Images)
        else nn.ReLU() if isinstance(layer, nn.ReLU)
        else nn.LeakyReLU(layer.negative_slope) if isinstance(layer, nn.LeakyReLU)
        else layer
        for layer in layers
    ))  # fmt: skip


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 5, 9)])
def test_convolutional_generator_against_plain_layers(shape):
    model = ConvGenerator(shape, latent_dim=3, width=2)
    z = torch.randn(5, 3, requires_grad=True)
    ours = model().push(z)
    plain = plain_layers(model.net)(z)[..., : shape[1], : shape[2]]
    assert_same([ours], [plain])
    inputs = [z, *model.parameters()]
    for twice in (False, True):
        assert_same(*(slopes(out.square().sum(), inputs, twice) for out in (ours, plain)))


@pytest.mark.parametrize("spectral", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_convolutional_critic_against_plain_layers(spectral, flat):
    critic = ConvCritic((3 * 8 * 8,) if flat else (3, 8, 8), (3, 8, 8), width=2, spectral=spectral)
    x = torch.randn(5, *critic.event_shape, requires_grad=True)
    before = x.detach().clone()
    ours, plain = critic(x), critic.last(plain_layers(critic.features)(x)).squeeze(1)
    assert torch.equal(x, before)
    assert_same([ours], [plain])
    inputs = [x, *critic.parameters()]
    for twice in (False, True):
        assert_same(*(slopes(out.square().sum(), inputs, twice) for out in (ours, plain)))


def test_images_lie_channels_last_and_weights_do_not():
    """A fused optimiser walks through memory: weight, gradient and the moments of a checkpoint need one order."""
    critic, model = ConvCritic((3, 8, 8), width=4), ConvGenerator((3, 8, 8), latent_dim=3, width=4)
    images = Images((3, 8, 8))(torch.randn(5, 192))
    assert images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    assert model().push(torch.randn(5, 3)).is_contiguous(memory_format=torch.channels_last)
    critic(model().push(torch.randn(5, 3))).sum().backward()
    for parameter in (*critic.parameters(), *model.parameters()):
        assert parameter.is_contiguous() and parameter.grad is not None and parameter.grad.is_contiguous()
