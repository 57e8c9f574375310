"""Laws that every model and critic obeys, over one table of instances; then what single architectures promise.

Identities are checked in float64. Tolerances of 1e-9 to 1e-12 stand for rounding: the spacing 2e-16 times the number
of operations (up to 1e3) times the conditioning of maps with random weights (slopes up to 1e3).
"""

from __future__ import annotations

import importlib
import inspect
import io
import pkgutil
from math import prod

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, jacfwd, jacrev, stack_module_state, vmap

import models
from models.base import Critic, Embedding, Model
from models.critics import GroupSortCritic, MLPCritic, OrthonormalLinear, group_sort
from models.flows import RealNVP
from models.generators import Affine, MLPGenerator
from models.laws import Particles, PushForward, standard_normal_log_prob
from models.networks import mlp
from models.spectral import SpectralCritic
from models.tabular import TabularCritic, TabularModel
from tests.support.modules import CRITICS, EMBEDDINGS, MODELS

F64 = torch.float64

FLOWS = [name for name in MODELS if name.startswith(("affine", "nvp", "spline"))]


def built(make, seed: int = 0):
    """An instance in float64 at random parameters: at the start, some networks are constant."""
    torch.manual_seed(seed)
    module = make().double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return module


def examples(module, n: int, seed: int = 1) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    if isinstance(module, TabularCritic):
        return torch.randint(len(module.scores), (n, 1), generator=g).to(F64)
    return 2 * torch.randn(n, *module.event_shape, generator=g, dtype=F64)


LEARNT = {name: make for name, make in MODELS.items() if list(make().parameters())}

model_case = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
critic_case = pytest.mark.parametrize("make", CRITICS.values(), ids=CRITICS.keys())
flow_case = pytest.mark.parametrize("make", [MODELS[k] for k in FLOWS], ids=FLOWS)
any_case = pytest.mark.parametrize(
    "make",
    [*LEARNT.values(), *CRITICS.values(), *EMBEDDINGS.values()],
    ids=[*(f"model-{k}" for k in LEARNT), *(f"critic-{k}" for k in CRITICS), *(f"embedding-{k}" for k in EMBEDDINGS)],
)


def output(module, seed: int = 2) -> torch.Tensor:
    """A tensor that depends on every parameter of a model, critic or embedding."""
    if not isinstance(module, Model):
        return module(examples(module, 64))
    law = module()
    particles = law.particles(law.noise(64, torch.Generator().manual_seed(seed)))
    parts = [particles.x.flatten()]
    for extra in (particles.log_weights, particles.log_prob):
        parts += [] if extra is None else [extra]
    return torch.cat(parts)


# --- the table ---------------------------------------------------------------------------------------------------


def test_table_holds_every_concrete_class_and_all_are_exported():
    tested = {type(make()) for make in [*MODELS.values(), *CRITICS.values(), *EMBEDDINGS.values()]}
    for module in pkgutil.iter_modules(models.__path__):
        importlib.import_module(f"models.{module.name}")
    found = set()
    queue = [Model, Critic, Embedding]
    while queue:
        for cls in queue.pop().__subclasses__():
            queue.append(cls)
            if cls.__module__.startswith("models.") and not inspect.isabstract(cls):
                found.add(cls)
    assert found == tested
    assert all(getattr(models, cls.__name__) is cls and cls.__name__ in models.__all__ for cls in found)


@any_case
def test_constructor_needs_event_shape_only_and_is_annotated(make):
    cls = type(make())
    first, *rest = inspect.signature(cls).parameters.values()
    assert first.name == "event_shape"
    assert all(p.default is not p.empty for p in rest)
    assert all(p.annotation is not p.empty for p in (first, *rest))


# --- laws of models ----------------------------------------------------------------------------------------------


@model_case
def test_particles_and_samples_have_the_declared_shapes(make):
    model = built(make)
    law = model()
    assert tuple(law.event_shape) == model.event_shape
    assert law.has_rsample is model.has_rsample
    particles = law.particles(law.noise(5))
    n = len(particles.x)
    assert particles.x.shape == (n, *model.event_shape)
    assert n == 5 or particles.log_weights is not None
    assert particles.log_weights is None or torch.allclose(particles.log_weights.exp().sum(), torch.ones((), dtype=F64))
    assert (particles.log_prob is not None) is model.has_log_prob
    assert law.sample((4, 2)).shape == (4, 2, *model.event_shape)
    assert not law.sample((4,)).requires_grad
    if model.has_rsample:
        assert law.rsample((4,)).shape == (4, *model.event_shape) and law.rsample((4,)).requires_grad


@model_case
def test_log_prob_at_own_particles_is_theirs(make):
    model = built(make)
    law = model()
    particles = law.particles(law.noise(50))
    if not model.has_log_prob:
        with pytest.raises(NotImplementedError, match="implicit"):
            law.log_prob(particles.x)
        return
    assert particles.log_prob.shape == (len(particles.x),)
    torch.testing.assert_close(law.log_prob(particles.x), particles.log_prob, rtol=1e-9, atol=1e-9)


@model_case
def test_noise_is_a_function_of_the_generator(make):
    law = built(make)()
    noise = [law.noise(7, torch.Generator().manual_seed(s)) for s in (3, 3, 4)]
    assert torch.equal(noise[0], noise[1])
    if law.has_rsample:
        assert not torch.equal(noise[0], noise[2]) and noise[0].dtype == F64


@flow_case
def test_pull_inverts_push(make):
    law = built(make)()
    z = law.noise(64)
    x, forward = law.push(z)
    back, inverse = law.pull(x)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-10)
    torch.testing.assert_close(forward, -inverse, rtol=0, atol=1e-10)


@flow_case
@pytest.mark.parametrize("jacobian", [jacfwd, jacrev])
def test_ladj_is_the_log_determinant_of_the_jacobian(make, jacobian):
    model = built(make)
    law, d = model(), model.dimension
    for point in law.noise(3):
        for map_, start in ((law.push, point), (law.pull, point.reshape(model.event_shape))):
            matrix = jacobian(lambda p, m=map_: m(p[None])[0][0].flatten())(start).reshape(d, d)
            ladj = map_(start[None])[1]
            assert ladj.shape == (1,)
            torch.testing.assert_close(ladj[0], torch.linalg.slogdet(matrix)[1], rtol=0, atol=1e-9)


@flow_case
def test_jacobians_of_pull_and_push_are_inverse(make):
    """Sees a graph that is cut somewhere: a log-determinant of triangular blocks does not."""
    model = built(make)
    law, d = model(), model.dimension
    z = law.noise(1)[0]
    x = law.push(z[None])[0][0].detach()
    push = jacrev(lambda p: law.push(p[None])[0][0])(z).reshape(d, d)
    pull = jacrev(lambda p: law.pull(p[None])[0][0])(x).reshape(d, d)
    torch.testing.assert_close(pull @ push, torch.eye(d, dtype=F64), rtol=0, atol=1e-9)


DENSE = {
    "1d": MODELS["affine-1"],
    "2d": lambda: Affine((2,)),
    "nvp": MODELS["nvp-2"],
    "mixture": MODELS["mixture-2"],
    "spline": MODELS["spline-2"],
}


@pytest.mark.parametrize("make", DENSE.values(), ids=DENSE.keys())
def test_density_integrates_to_one(make):
    model = built(make, seed=3)
    law = model()
    spread = law.sample((4000,)).abs().amax(0) * 1.6
    axes = [torch.linspace(-float(s), float(s), 700, dtype=F64) for s in spread]
    grid = torch.cartesian_prod(*axes).reshape(-1, model.dimension)
    cell = prod(float(a[1] - a[0]) for a in axes)
    # Beyond 1.6 times the largest of 4000 draws lies less than 1/4000 of the mass; a midpoint rule with hundreds of
    # points per scale adds less than that on a density that is continuous between the kinks of the network.
    assert law.log_prob(grid).exp().sum().item() * cell == pytest.approx(1, abs=2e-3)


def test_affine_is_the_normal_law():
    model = built(lambda: Affine((2, 2)))
    law, x = model(), examples(model, 20)
    scale = model.scale_tril()
    assert torch.equal(scale, scale.tril()) and (scale.diagonal() > 0).all()
    reference = torch.distributions.MultivariateNormal(model.loc, scale_tril=scale)
    torch.testing.assert_close(law.log_prob(x), reference.log_prob(x.flatten(1)))
    start = Affine((3,), init_scale=2.0)
    assert torch.equal(start.loc, torch.zeros(3))
    torch.testing.assert_close(start.scale_tril(), 2 * torch.eye(3))


def test_real_nvp_starts_at_the_standard_normal_law():
    x = torch.randn(30, 5, dtype=F64)
    torch.testing.assert_close(RealNVP((5,)).double()().log_prob(x), standard_normal_log_prob(x))


@pytest.mark.parametrize("dimension", [2, 3, 6])
def test_every_coordinate_of_a_flow_depends_on_every_latent(dimension):
    law = built(lambda: RealNVP((dimension,), couplings=6, width=8))()
    jacobian = jacrev(lambda z: law.push(z[None])[0][0])(torch.randn(dimension, dtype=F64))
    assert (jacobian != 0).all()


def test_couplings_form_new_halves():
    """For d = 4, the first coupling moves coordinates 2, 3; after the permutation 0, 2, 1, 3 the third moves 1, 3."""
    model = RealNVP((4,), couplings=4, width=8).double()
    with torch.no_grad():
        for i in (0, 2):
            model.conditioners[i].weights()[-1][1][2:] = 0.5
    law = model()
    jacobian = jacrev(lambda z: law.pull(z[None])[0][0])(torch.randn(4, dtype=F64))
    step = 2.0 * np.tanh(0.5)
    torch.testing.assert_close(jacobian.sum(0).log() / step, torch.tensor([0.0, 1.0, 1.0, 2.0], dtype=F64))
    assert ((jacobian != 0).sum(0) == 1).all()


@pytest.mark.parametrize("activation", ["relu", "tanh", "silu"])
def test_real_nvp_is_finite_far_from_the_data(activation):
    torch.manual_seed(0)
    model = RealNVP((4,), activation=activation).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter)
    x = torch.cartesian_prod(*[torch.tensor([-1e4, 0.0, 1e4], dtype=torch.float32)] * 4)
    value = model().log_prob(x)
    assert value.dtype == torch.float32 and value.isfinite().all()
    gradients = torch.autograd.grad(value.sum(), list(model.parameters()))
    assert all(g.isfinite().all() for g in gradients)
    assert model().push(x)[0].isfinite().all()


# --- laws of all modules -----------------------------------------------------------------------------------------


@any_case
def test_every_parameter_receives_gradient(make):
    module = built(make)
    weights = torch.randn(output(module).shape, generator=torch.Generator().manual_seed(5), dtype=F64)
    (weights * output(module)).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or parameter.numel() == 0, name


@any_case
def test_saved_state_restores_the_module(make):
    module, other = built(make), built(make, seed=9)
    assert not torch.equal(output(module), output(other))
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(output(module), output(other))


@any_case
def test_vmap_over_stacked_members_equals_separate_calls(make):
    members = [built(make, seed) for seed in (0, 1)]
    parameters, buffers = stack_module_state(members)
    skeleton = make().double()
    if not isinstance(skeleton, Model):
        x = examples(skeleton, 6)

        def one(p, b):
            return functional_call(skeleton, (p, b), (x,))

        separate = [m(x) for m in members]
    else:
        noise = skeleton().noise(6)
        points = skeleton().particles(noise).x.detach()

        def of(law):
            particles = law.particles(noise)
            density = law.log_prob(points) if skeleton.has_log_prob else particles.x.flatten(1)[:, 0]
            weights = density if particles.log_weights is None else particles.log_weights
            return torch.cat((particles.x.flatten(), density, weights))

        def one(p, b):
            # Used after functional_call has returned: the law must have kept the substituted parameters.
            return of(functional_call(skeleton, (p, b), ()))

        separate = [of(m()) for m in members]
    together = vmap(one)(parameters, buffers)
    torch.testing.assert_close(together, torch.stack(separate), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(together[0], together[1])


@any_case
def test_float32_stays_finite_far_from_the_data(make):
    module = built(make).float()
    if isinstance(module, (TabularCritic, TabularModel)):
        return  # there is no far on an alphabet
    x = torch.stack([torch.full(module.event_shape, v, dtype=torch.float32) for v in (-1e4, 0.0, 1e4)])
    if not isinstance(module, Model) or module.has_log_prob:
        value = module().log_prob(x) if isinstance(module, Model) else module(x)
        assert value.dtype == torch.float32 and value.isfinite().all()


# --- critics -----------------------------------------------------------------------------------------------------


@critic_case
def test_critic_gives_one_score_per_example_independently(make):
    critic = built(make)
    x = examples(critic, 6)
    scores = critic(x)
    assert scores.shape == (6,)
    torch.testing.assert_close(critic(x.flip(0)), scores.flip(0))
    torch.testing.assert_close(torch.cat([critic(row[None]) for row in x]), scores)
    assert type(critic).lipschitz == (1.0 if isinstance(critic, (GroupSortCritic, SpectralCritic)) else None)


def trained(critic: GroupSortCritic, steps: int = 30) -> GroupSortCritic:
    """Move the parameters a long way, as an optimiser does."""
    optimiser = torch.optim.Adam(critic.parameters(), lr=0.1)
    x, y = examples(critic, 64), 1 + 0.5 * examples(critic, 64, seed=3)
    for _ in range(steps):
        optimiser.zero_grad()
        (critic(x).mean() - critic(y).mean()).backward()
        optimiser.step()
    return critic


GROUP_SORT = [name for name in CRITICS if name.startswith("groupsort")]
lipschitz_case = pytest.mark.parametrize("name", GROUP_SORT)


@lipschitz_case
def test_group_sort_weights_stay_orthonormal(name):
    critic = trained(built(CRITICS[name]))
    for layer in critic.layers:
        weight = layer.weight()
        rows, columns = weight.shape
        gram = weight @ weight.mT if rows <= columns else weight.mT @ weight
        torch.testing.assert_close(gram, torch.eye(min(rows, columns), dtype=F64), rtol=0, atol=1e-12)


@lipschitz_case
def test_group_sort_critic_is_1_lipschitz(name):
    critic = trained(built(CRITICS[name]))
    x = examples(critic, 500)
    for y in (examples(critic, 500, seed=4), x + 1e-3 * examples(critic, 500, seed=5), 100 * x):
        distance = (x - y).flatten(1).norm(dim=1)
        assert ((critic(x) - critic(y)).abs() <= distance * (1 + 1e-9)).all()


@lipschitz_case
def test_group_sort_gradient_norm(name):
    """Equal to one where no layer widens; at most one after a layer that does."""
    critic = trained(built(CRITICS[name]))
    x = examples(critic, 500).requires_grad_()
    norm = torch.autograd.grad(critic(x).sum(), x)[0].flatten(1).norm(dim=1)
    assert (norm <= 1 + 1e-9).all()
    if critic.layers[0].weight().shape[0] <= critic.dimension:
        torch.testing.assert_close(norm, torch.ones_like(norm), rtol=0, atol=1e-9)
    else:
        assert norm.mean() > 0.9  # training against a shift drives the norm towards its bound


def test_group_sort_sorts_pairs_and_keeps_gradient_norm_at_ties():
    x = torch.tensor([[1.0, 3.0, 2.0, 1.0, 5.0, 2.0]], dtype=F64)
    assert group_sort(x).tolist() == [[1.0, 5.0, 2.0, 1.0, 3.0, 2.0]]
    jacobian = jacrev(group_sort)(x).reshape(6, 6)
    torch.testing.assert_close(jacobian @ jacobian.mT, torch.eye(6, dtype=F64))


def test_orthonormal_weight_in_float32_with_large_parameters():
    torch.manual_seed(0)
    layer = OrthonormalLinear(32, 32).float()
    with torch.no_grad():
        layer.square *= 30
    weight = layer.weight()
    # The condition number of I + A, about 30 * 2 * sqrt(2) here, times the float32 spacing 1.2e-7.
    torch.testing.assert_close(weight @ weight.mT, torch.eye(32, dtype=torch.float32), rtol=0, atol=2e-5)


def test_group_sort_critic_reaches_the_distance_between_circles():
    """W1 between circles of radius 1 and 3 is 2, which no linear map sees; the dual value may not exceed it."""
    torch.manual_seed(0)
    critic = GroupSortCritic((2,), width=32, depth=2).double()
    optimiser = torch.optim.Adam(critic.parameters(), lr=5e-3)
    angle = torch.linspace(0, 2 * torch.pi, 257, dtype=F64)[1:]
    x = torch.stack((angle.cos(), angle.sin()), 1)
    for _ in range(200):
        gap = critic(3 * x).mean() - critic(x).mean()
        optimiser.zero_grad()
        (-gap).backward()
        optimiser.step()
    assert 1.9 < gap.item() <= 2 * (1 + 1e-9)


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: RealNVP((1,)), r"at least 2 coordinates, got event_shape \(1,\)"),
        (lambda: RealNVP((2,), couplings=1), "couplings must be at least 2, got 1"),
        (lambda: RealNVP((2,), log_scale_bound=0.0), "log_scale_bound must be positive, got 0"),
        (lambda: RealNVP((2,), input_bound=-1.0), "input_bound must be positive, got -1"),
        (lambda: RealNVP((2,), activation="swish"), "activation must be one of relu, .*got 'swish'"),
        (lambda: MLPCritic(()), r"event_shape of positive sizes, got \(\)"),
        (lambda: Affine((2, 0)), r"event_shape of positive sizes, got \(2, 0\)"),
        (lambda: Affine((2,), init_scale=0.0), "init_scale must be positive and finite, got 0"),
        (lambda: MLPGenerator((2,), latent_dim=0), "latent_dim must be at least 1, got 0"),
        (lambda: MLPCritic((2,), width=0), "width must be at least 1, got 0"),
        (lambda: mlp(2, 1, depth=-1), "depth must be at least 0, got -1"),
        (lambda: GroupSortCritic((2,), width=7), "width must be even, got 7"),
        (lambda: GroupSortCritic((2,), depth=0), "depth must be at least 1, got 0"),
        (lambda: TabularModel((2,)), r"examples of shape \(1,\), got \(2,\)"),
        (lambda: TabularCritic(letters=1), "letters must be at least 2, got 1"),
        (lambda: MLPCritic((2,))(torch.zeros(4, 3)), r"shape \(2,\), got a tensor of shape \(4, 3\)"),
        (lambda: MLPCritic((1,))(torch.zeros(4)), r"shape \(1,\), got a tensor of shape \(4,\)"),
        (lambda: Particles(torch.zeros(4, 2)).mean(torch.zeros(4, 1)), r"shape \(4,\), got \(4, 1\)"),
    ],
)
def test_refusals_say_what_and_what_was_got(attempt, message):
    with pytest.raises(ValueError, match=message):
        attempt()


def test_critic_with_a_trailing_axis_is_refused():
    class Trailing(Critic):
        def score(self, x):
            return x

    with pytest.raises(ValueError, match=r"one score per example, shape \(4,\), got \(4, 1\)"):
        Trailing((1,))(torch.zeros(4, 1))


def test_networks_of_any_depth():
    for depth, linear in ((0, 1), (1, 2), (3, 4)):
        net = mlp(6, 2, width=5, depth=depth, activation="elu")
        assert sum(isinstance(layer, nn.Linear) for layer in net) == linear
        assert net(torch.zeros(4, 3, 2)).shape == (4, 2)
    assert not mlp(6, 2, zero_last=True)(torch.randn(4, 6)).any()


def test_implicit_law_pushes_noise():
    law = PushForward(lambda z: 2 * z, (3,), (3,), like=torch.zeros(1, dtype=F64))
    z = law.noise(5)
    assert torch.equal(law.particles(z).x, 2 * z) and law.particles(z).log_prob is None


def test_detached_particles_have_no_graph():
    law = built(MODELS["nvp-2"])()
    particles = law.particles(law.noise(4)).detach()
    assert not particles.x.requires_grad and not particles.log_prob.requires_grad and particles.log_weights is None
