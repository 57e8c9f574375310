"""The mixture of Gaussians against closed forms and torch.distributions.

Expectations over particles are random: they are compared at the false-alarm rate of tests/conftest.py, with the
standard error measured over independent repetitions (thousands of them, so its own error does not matter).
"""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from models.mixtures import GaussianMixture, MixtureLaw
from tests.support.oracles import z_score

DEFAULT_DTYPE = torch.float64


def made(d: int = 2, components: int = 3, seed: int = 0) -> GaussianMixture:
    """A mixture whose components differ in weight, place and scale."""
    torch.manual_seed(seed)
    model = GaussianMixture((d,), components=components)
    with torch.no_grad():
        model.logits.copy_(torch.randn(components))
        model.log_excess.copy_(0.4 * torch.randn(components, d))
    return model


def exact(model: GaussianMixture, a: torch.Tensor, b: float) -> torch.Tensor:
    r""":math:`\mathbb E_p\cos(a\cdot x+b)=\sum_k w_k\cos(a\cdot\mu_k+b)\,e^{-\|a\odot s_k\|^2/2}`, differentiable."""
    weights, scale = model.logits.softmax(0), 0.01 + model.log_excess.exp()
    return (weights * torch.cos(model.loc @ a + b) * torch.exp(-(scale**2 @ a**2) / 2)).sum()


def values(x: torch.Tensor, a: torch.Tensor, b: float) -> torch.Tensor:
    return torch.cos(x @ a + b)


def agrees(repetitions: torch.Tensor, truth: torch.Tensor) -> None:
    """Compare means over the first axis with the truth, all entries together at the false-alarm rate."""
    error = repetitions.std(0) / len(repetitions) ** 0.5
    assert ((repetitions.mean(0) - truth).abs() <= z_score(truth.numel()) * error).all()


def test_log_prob_is_that_of_torch():
    for d, components in ((1, 1), (1, 4), (3, 5)):
        model = made(d, components)
        scale = 0.01 + model.log_excess.exp()
        reference = MixtureSameFamily(Categorical(logits=model.logits), Independent(Normal(model.loc, scale), 1))
        x = 3 * torch.randn(50, d)
        torch.testing.assert_close(model().log_prob(x), reference.log_prob(x), rtol=1e-12, atol=1e-12)
        ours, theirs = (torch.autograd.grad(f(x).sum(), list(model.parameters())) for f in
                        (model().log_prob, reference.log_prob))  # fmt: skip
        for got, wanted in zip(ours, theirs, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n", [3, 7, 12])
def test_particles_carry_expectations_and_their_derivatives_in_every_parameter(n):
    """Seven particles on three components: shares of 3, 2 and 2, still without bias."""
    model, a, b = made(), torch.tensor([0.7, -1.1]), 0.4
    law = model()
    parameters = list(model.parameters())
    truth = exact(model, a, b)
    slopes = torch.cat([g.flatten() for g in torch.autograd.grad(truth, parameters)])
    means, gradients = [], []
    for _ in range(2000):
        particles = law.particles(law.noise(n))
        mean = particles.mean(values(particles.x, a, b))
        means.append(mean.detach())
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(mean, parameters, retain_graph=True)]))
    agrees(torch.stack(means), truth.detach())
    agrees(torch.stack(gradients), slopes)


def test_gradient_in_the_weights_is_the_closed_form():
    r"""For one component per point: :math:`\partial\,\mathbb E g/\partial\theta_k=w_k(g_k-\sum_jw_jg_j)`."""
    model = made(1, 4)
    with torch.no_grad():
        model.log_excess.fill_(-30.0)  # components are points, up to min_scale
    law = model()
    particles = law.particles(torch.zeros(8, 1))
    (gradient,) = torch.autograd.grad(particles.mean(particles.x.squeeze(1)), model.logits)
    w, g = model.logits.softmax(0), model.loc.squeeze(1)
    torch.testing.assert_close(gradient, (w * (g - (w * g).sum())).detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [1, 3, 10, 11])
def test_particles_are_shared_out_evenly_and_weigh_one(n):
    model = made(2, 3)
    law = model()
    particles = law.particles(torch.zeros_like(law.noise(n)))
    assert len(particles.x) == max(n, 3)
    hits = (particles.x[:, None] == model.loc).all(-1)
    shares = hits.sum(0)
    assert shares.min() >= 1 and shares.max() - shares.min() <= 1
    weights = particles.log_weights.exp()
    torch.testing.assert_close((hits * weights[:, None]).sum(0), model.logits.softmax(0), rtol=1e-12, atol=1e-12)
    (slope,) = torch.autograd.grad(weights.sum(), model.logits)
    assert slope.abs().max() < 1e-15  # identically one: constants in a function carry no noise


def test_samples_are_independent_draws_of_the_mixture():
    model = made(2, 3)
    n, law = 40_000, model()
    x = law.sample((n,), generator=torch.Generator().manual_seed(5))
    assert torch.equal(x, law.sample((n,), generator=torch.Generator().manual_seed(5))) and not x.requires_grad
    w, scale = model.logits.softmax(0).detach(), (0.01 + model.log_excess.exp()).detach()
    loc = model.loc.detach()
    mean = w @ loc
    agrees(x, mean)
    agrees(x.square(), w @ (loc**2 + scale**2))
    agrees(values(x, torch.tensor([2.0, 1.0]), 0.1)[:, None], exact(model, torch.tensor([2.0, 1.0]), 0.1).detach())
    agrees(x.prod(1, keepdim=True), (w @ loc.prod(1)).reshape(1))
    narrow = MixtureLaw(law.log_weights, loc, 0 * scale + 1e-9, (2,)).sample((n,))
    agrees(((narrow[:, None] - loc).norm(dim=-1) < 1e-6).double(), w)


def test_it_starts_spread_out_with_equal_weights():
    model = GaussianMixture((1, 4), components=2000, init_scale=1.5)
    law = model()
    torch.testing.assert_close(law.log_weights.exp(), torch.full((2000,), 1 / 2000))
    torch.testing.assert_close(law.scale, torch.full((2000, 4), 1.5))
    agrees(law.loc.detach().square(), torch.full((4,), 1.5**2))
    assert law.sample((5, 2)).shape == (5, 2, 1, 4)
    with torch.no_grad():
        model.log_excess.fill_(-1e4)
    assert (model().scale >= 0.01).all() and model().log_prob(torch.zeros(3, 1, 4)).isfinite().all()


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: GaussianMixture((2,), components=0), "components must be at least 1, got 0"),
        (lambda: GaussianMixture((2,), init_scale=0.005), "min_scale < init_scale is needed, .*init_scale=0.005"),
        (lambda: GaussianMixture((2,), min_scale=0.0), "0 < min_scale"),
        (lambda: GaussianMixture((2,))(torch.zeros(3, dtype=torch.long)), "GaussianMixture is not conditional"),
    ],
)
def test_refusals_say_what_and_what_was_got(attempt, message):
    with pytest.raises(ValueError, match=message):
        attempt()
