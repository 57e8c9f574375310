"""Laws of densities: against particles, samples, Jacobians and quadrature."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from models.base import Model
from models.checks.subject import (
    ROUNDING,
    is_continuous,
    labels_of,
    law_of,
    moved,
    near,
    noise_of,
    own_source,
    particles_of,
    require,
)
from models.laws import standard_normal_log_prob


def density_of_particles(model: Model) -> None:
    """The log-density that particles carry is that of the law at their points."""
    twin = moved(model)
    particles = particles_of(twin)
    require(particles.log_prob is not None, "has_log_prob, but the particles carry none")
    assert particles.log_prob is not None
    near(particles.log_prob, law_of(twin).log_prob(particles.x), "the particles' log_prob and the law's")


def density_by_the_jacobian(model: Model) -> None:
    """Log p(x) = log N(z) - log |det dx/dz|, the determinant by automatic differentiation."""
    twin = moved(model)
    law: Any = law_of(twin, 1)
    z = noise_of(twin, 1)
    if z.numel() != model.dimension or model.dimension > 32 or particles_of(twin).log_weights is not None:
        return  # no square Jacobian: a mixture, an alphabet
    for seed in range(3):
        z = noise_of(twin, 1, seed)

        def push(z: Tensor) -> Tensor:
            return law.particles(z[None]).x.flatten()

        jacobian = torch.func.jacrev(push)(z[0]).reshape(model.dimension, -1)
        want = standard_normal_log_prob(z) - torch.linalg.slogdet(jacobian).logabsdet
        near(law.log_prob(law.particles(z).x), want, "log_prob and the change of variables by the Jacobian")


def inverse_inverts(model: Model) -> None:
    """Where the law has ``pull``, it takes particles back to their noise."""
    twin = moved(model)
    law: Any = law_of(twin)
    if getattr(law, "pull", None) is not None:
        noise = noise_of(twin)
        near(law.pull(law.particles(noise).x)[0], noise, "pull(push(z)) and z", 1e-6)


def density_integrates_to_one(model: Model) -> None:
    """The density has mass one on the plane or the line: trapezoids in x = m + s sinh(t), to 1e-2 (kinks included)."""
    twin = moved(model)
    if not is_continuous(model):
        return  # a finite alphabet: its weights have mass one
    n = 4001 if model.dimension == 1 else 321
    reach = math.asinh(40.0)
    sample = twin(labels_of(twin, 512)).sample((512,), generator=own_source()).flatten(1)
    middle, unit = sample.median(0).values, sample.std(0).clamp(min=1e-3) / 2
    t = torch.linspace(-reach, reach, n, dtype=torch.float64)
    axes = [(m + s * torch.sinh(t), s * torch.cosh(t) * (t[1] - t[0])) for m, s in zip(middle, unit, strict=True)]
    x = torch.cartesian_prod(*(a for a, _ in axes)).reshape(-1, model.dimension)
    w = torch.cartesian_prod(*(b for _, b in axes)).reshape(-1, model.dimension).prod(1)
    labels = torch.zeros(len(x), dtype=torch.long) if model.classes else None
    with torch.no_grad():
        mass = float((twin(labels).log_prob(x.unflatten(1, model.event_shape)).exp() * w).sum())
    require(abs(mass - 1) < 1e-2, f"the density has mass {mass:.6g}")


def samples_follow_the_density(model: Model) -> None:
    """E_p log p is the same over samples as over particles: within 5 standard errors (false alarm 1e-6)."""
    twin = moved(model)
    n = 2000
    with torch.no_grad():
        law = law_of(twin, n)
        drawn = law.log_prob(law.sample((n,), generator=torch.Generator().manual_seed(7)))
        particles = particles_of(twin, n)
        assert particles.log_prob is not None
        carried = particles.log_prob
        weights = torch.full_like(carried, 1 / len(carried))
        if particles.log_weights is not None:
            weights = particles.log_weights.exp()
        mean = (weights * carried).sum()
        spread = drawn.var() / n + (weights.square() * (carried - mean).square()).sum() * float(is_continuous(model))
    gap, error = float((drawn.mean() - mean).abs()), float(spread.sqrt())
    found = f"{float(drawn.mean()):.6g} over samples, {float(mean):.6g} over particles"
    require(gap <= 5 * error + ROUNDING, f"E log p is {found}, standard error {error:.2g}")
