"""Adversarial training loops as people write them by hand: tutorials' loops, and the fastest eager ones.

Every function returns one round as a callable. All play the game of the engine: every critic step has a fresh batch
and fresh noise, and so has the generator's (Goodfellow et al. 2014, algorithm 1; Gulrajani et al. 2017, algorithm 1).
Where ``draws.shared`` says so, the generator steps on the samples of the critic's last step, as DCGAN's tutorial does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Round = Callable[[], object]
MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Draws(Protocol):
    """Where a loop has its random numbers from."""

    shared: bool

    def batch(self) -> Tensor:
        """Return a batch of data."""

    def noise(self) -> Tensor:
        """Return latent noise for a batch."""

    def mix(self) -> Tensor:
        """Return uniform numbers, one per example."""


class RandomDraws:
    """Fresh draws: rows at random positions of a tensor that lies on the device, normal noise, uniform mixing.

    A loader would cost the hand-written loops more; it is left out of all sides.
    """

    shared = False

    def __init__(self, rows: Tensor, batch_size: int, latent_dim: int) -> None:
        self.rows, self.batch_size, self.latent_dim = rows, batch_size, latent_dim

    def batch(self) -> Tensor:
        """Return rows drawn with replacement."""
        return self.rows[torch.randint(len(self.rows), (self.batch_size,), device=self.rows.device)]

    def noise(self) -> Tensor:
        """Return standard normal noise."""
        return torch.randn(self.batch_size, self.latent_dim, dtype=self.rows.dtype, device=self.rows.device)

    def mix(self) -> Tensor:
        """Return uniform numbers."""
        return torch.rand(self.batch_size, dtype=self.rows.dtype, device=self.rows.device)


@dataclass
class Nets:
    """A generator from (B, latent) to (B, *E) and a critic from (B, *E) to (B, 1)."""

    generator: nn.Module
    critic: nn.Module


def default_adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return Adam as the tutorials make it: torch's default implementation."""
    return torch.optim.Adam(parameters, lr=1e-3, betas=(0.0, 0.99))


def fused_adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return Adam in one kernel for all tensors."""
    return torch.optim.Adam(parameters, lr=1e-3, betas=(0.0, 0.99), fused=True)


def tutorial_gan(nets: Nets, draws: Draws, make: MakeOptimizer = default_adam) -> Round:
    """Return the loop of the tutorials: binary cross-entropy, everything differentiated, default optimisers."""
    generator, critic = nets.generator, nets.critic
    optimizer_g, optimizer_d = make(generator.parameters()), make(critic.parameters())
    criterion = nn.BCEWithLogitsLoss()

    def play() -> None:
        real = draws.batch()
        ones, zeros = real.new_ones(len(real), 1), real.new_zeros(len(real), 1)
        fake = generator(draws.noise())
        optimizer_d.zero_grad()
        loss_d = criterion(critic(real), ones) + criterion(critic(fake.detach()), zeros)
        loss_d.backward()
        optimizer_d.step()

        if not draws.shared:
            fake = generator(draws.noise())
        optimizer_g.zero_grad()
        loss_g = criterion(critic(fake), ones)
        loss_g.backward()  # the critic's weight gradients are computed, too, and thrown away
        optimizer_g.step()

    return play


def hand_gan(nets: Nets, draws: Draws, make: MakeOptimizer = fused_adam) -> Round:
    """Return the same game, hand-optimised and eager.

    Fused Adam; samples of the critic's step without a graph; one pass over real and fake; each backward pass only into
    the parameters that step; no gradient is kept to be zeroed.
    """
    generator, critic = nets.generator, nets.critic
    theta, phi = list(generator.parameters()), list(critic.parameters())
    optimizer_g, optimizer_d = make(theta), make(phi)

    def play() -> None:
        real = draws.batch()
        with torch.set_grad_enabled(draws.shared):
            fake = generator(draws.noise())
        scores = critic(torch.cat((real, fake.detach())))
        on_real, on_fake = scores.split((len(real), len(fake)))
        loss_d = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
        optimizer_d.zero_grad(set_to_none=True)
        loss_d.backward(inputs=phi)
        optimizer_d.step()

        loss_g = F.softplus(-critic(fake if draws.shared else generator(draws.noise()))).mean()
        optimizer_g.zero_grad(set_to_none=True)
        loss_g.backward(inputs=theta)
        optimizer_g.step()

    return play


def tutorial_wgan_gp(
    nets: Nets, draws: Draws, make: MakeOptimizer = default_adam, steps: int = 5, weight: float = 10.0
) -> Round:
    """Return the tutorials' loop of WGAN with gradient penalty."""
    generator, critic = nets.generator, nets.critic
    optimizer_g, optimizer_d = make(generator.parameters()), make(critic.parameters())

    def penalty(real: Tensor, fake: Tensor) -> Tensor:
        epsilon = draws.mix().reshape(-1, *(1,) * (real.dim() - 1))
        mixed = (epsilon * real + (1 - epsilon) * fake).requires_grad_(True)
        scores = critic(mixed)
        (gradients,) = torch.autograd.grad(
            outputs=scores, inputs=mixed, grad_outputs=torch.ones_like(scores), create_graph=True, retain_graph=True
        )
        return ((gradients.flatten(1).norm(2, dim=1) - 1) ** 2).mean()

    def play() -> None:
        for _ in range(steps):
            real, fake = draws.batch(), generator(draws.noise()).detach()
            optimizer_d.zero_grad()
            loss_d = critic(fake).mean() - critic(real).mean() + weight * penalty(real, fake)
            loss_d.backward()
            optimizer_d.step()
        optimizer_g.zero_grad()
        loss_g = -critic(generator(draws.noise())).mean()
        loss_g.backward()
        optimizer_g.step()

    return play


def hand_wgan_gp(
    nets: Nets,
    draws: Draws,
    make: MakeOptimizer = fused_adam,
    steps: int = 5,
    weight: float = 10.0,
    first_order: bool = False,
) -> Round:
    """Return the same game, hand-optimised as :func:`hand_gan`.

    Args:
        nets: generator and critic.
        draws: random numbers.
        make: makes the optimisers.
        steps: of the critic in a round.
        weight: of the penalty.
        first_order: take the critic's slope as a product of matrices, see :func:`slope_of_perceptron`, instead of
            differentiating twice.
    """
    generator, critic = nets.generator, nets.critic
    theta, phi = list(generator.parameters()), list(critic.parameters())
    optimizer_g, optimizer_d = make(theta), make(phi)

    def slope(x: Tensor) -> Tensor:
        if first_order:
            assert isinstance(critic, nn.Sequential)
            return slope_of_perceptron(critic, x)
        x.requires_grad_()
        return torch.autograd.grad(critic(x).sum(), x, create_graph=True)[0]

    def play() -> None:
        for _ in range(steps):
            real, epsilon = draws.batch(), draws.mix()
            with torch.no_grad():
                fake = generator(draws.noise())
                mixed = torch.lerp(fake, real, epsilon.reshape(-1, *(1,) * (real.dim() - 1)))
            on_real, on_fake = critic(torch.cat((real, fake))).split((len(real), len(fake)))
            norm = torch.linalg.vector_norm(slope(mixed).flatten(1), dim=1)
            loss_d = on_fake.mean() - on_real.mean() + weight * (norm - 1).square().mean()
            optimizer_d.zero_grad(set_to_none=True)
            loss_d.backward(inputs=phi)
            optimizer_d.step()
        loss_g = -critic(generator(draws.noise())).mean()
        optimizer_g.zero_grad(set_to_none=True)
        loss_g.backward(inputs=theta)
        optimizer_g.step()

    return play


def slope_of_perceptron(critic: nn.Sequential, x: Tensor) -> Tensor:
    r"""Return the gradient of a piecewise linear perceptron in its input, differentiable in the weights, shape (B, d).

    Between kinks :math:`\nabla v = W_1^\top D_1 W_2^\top D_2\dots w`, D the slopes of the activations, which do not
    change with the weights: one pass without a graph finds them, and the product is differentiated once. It saves the
    backward pass through the forward one that differentiating twice makes with zeros.
    """
    linears, slopes, h = [], [], x
    with torch.no_grad():
        for layer in critic[:-1]:
            h = layer(h)
            if isinstance(layer, nn.Linear):
                linears.append(layer)
            elif isinstance(layer, nn.LeakyReLU):
                slopes.append(torch.where(h > 0, 1.0, layer.negative_slope))
            else:
                raise TypeError(f"the slope of a {type(layer).__name__} is not written here")
    gradient = critic[-1].weight
    for linear, slope in zip(reversed(linears), reversed(slopes), strict=True):
        gradient = (gradient * slope) @ linear.weight
    return gradient
