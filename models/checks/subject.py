"""What the laws of models look at: a moved copy in float64, its law, its particles; and how they fail."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from models.base import Law, Model
from models.laws import Particles

N = 12
ROUNDING = 1e-8
"""Spacing 2e-16 times the operations (1e3) times the conditioning of maps with slopes up to 1e3, with room."""


def require(holds: bool | Tensor, message: str) -> None:
    """Fail with a message unless the condition holds (everywhere)."""
    if not bool(torch.as_tensor(holds).all()):
        raise AssertionError(message)


def near(got: Tensor, want: Tensor, what: str, rounding: float = ROUNDING) -> None:
    """Fail unless two results agree relative to their size."""
    got, want = got.detach(), want.detach()
    gap = float((got - want).abs().max()) if got.numel() else 0.0
    size = 1 + float(want.abs().max()) if want.numel() else 1.0
    require(gap <= rounding * size, f"{what} differ by {gap:.3g}, values are of size {size:.3g}")


def moved(model: Model, dtype: torch.dtype = torch.float64) -> Model:
    """Return a copy in the given type with moved parameters."""
    twin, source = copy.deepcopy(model).to(torch.float64), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in twin.parameters():
            noise = torch.randn(parameter.shape, generator=source, dtype=torch.float64)
            parameter.add_(0.1 * noise.to(parameter.device))
    for part in twin.modules():
        settle = getattr(part, "settle", None)
        if callable(settle):
            settle()
    return twin.to(dtype)


def own_source() -> torch.Generator:
    """Return random numbers of its own, so that a check moves nobody's seed."""
    return torch.Generator().manual_seed(4)


def labels_of(model: Model, n: int) -> Tensor | None:
    """Return n labels where the model is conditional."""
    return torch.arange(n) % model.classes if model.classes else None


def law_of(model: Model, n: int = N) -> Law:
    """Return the law at the present parameters, with labels where it needs them."""
    return model(labels_of(model, n))


def noise_of(model: Model, n: int = N, seed: int = 1) -> Tensor:
    """Return what n particles are made of."""
    return law_of(model, n).noise(n, torch.Generator().manual_seed(seed))


def particles_of(model: Model, n: int = N) -> Particles:
    """Return n particles of the law."""
    return law_of(model, n).particles(noise_of(model, n))


def is_continuous(model: Model) -> bool:
    """Whether particles sit at random points: a finite alphabet's stay where they are."""
    twin = moved(model)
    law = law_of(twin)
    return not torch.equal(law.particles(noise_of(twin, seed=1)).x, law.particles(noise_of(twin, seed=2)).x)
