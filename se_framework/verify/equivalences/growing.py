r"""Claims on networks that grow: the learning rate that is equalised, and how a resolution comes in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from models import GrowingCritic, GrowingGenerator
from models.images.equalised import Deviation, EqualisedConv2d, EqualisedLinear
from models.images.stages import Canvas, Fade
from models.laws import Particles
from se_framework.verify.claims import Comparison, claim, equal

SIDE = 8
SIZES: dict[str, Any] = {"base": 8, "most": 4}


def _random(*shape: int, seed: int) -> torch.Tensor:
    home = torch.get_default_device()
    return torch.as_tensor(np.random.default_rng(seed).standard_normal(shape)).to(home)


def _told(network: torch.nn.Module, *samples: int) -> torch.nn.Module:
    """Give a network random weights and tell its fade how many examples have been seen."""
    network = network.double()
    for k, parameter in enumerate(network.parameters()):
        parameter.data.copy_(_random(*parameter.shape, seed=k))
    for fade in (part for part in network.modules() if type(part) is Fade):
        for n in samples:
            fade.at(n)
    return network


def _mean(x: np.ndarray, side: int) -> np.ndarray:
    """Return images (..., H, W) with each square of H/side pixels replaced by its mean, by a matrix of averages."""
    n = x.shape[-1] // side
    average = np.kron(np.eye(side), np.full((n, n), 1 / n))
    return average @ x @ average


@claim(
    "a layer at equalised rate is one whose weights are N(0, g^2/inputs), and Adam moves each by g/sqrt(inputs) lr",
    "Karras et al. 2018, section 4.1; He et al. 2015",
)
def equalised_rate_is_he_at_run_time() -> Iterator[Comparison]:
    x, images = _random(4, 6, seed=1), _random(2, 3, 5, 5, seed=2)
    for gain in (1.0, 2**0.5):
        dense, conv = EqualisedLinear(6, 5, gain).double(), EqualisedConv2d(3, 4, 3, gain).double()
        w, kernel = (layer.weight.detach().cpu().numpy() for layer in (dense, conv))
        yield equal("dense", dense(x), x.cpu().numpy() @ (w * gain / 6**0.5).T)
        wide = np.pad(images.cpu().numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
        patches = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), axis=(2, 3))
        truth = np.einsum("nchwij,ocij->nohw", patches, kernel * gain / 27**0.5)
        yield equal("convolution", conv(images), truth)
    for inputs in (16, 1024):
        layer = EqualisedLinear(inputs, 64).double()
        start = layer.weight.detach().clone()
        optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3, eps=0.0)
        layer(_random(8, inputs, seed=3)).square().sum().backward()
        optimizer.step()
        moved = (layer.weight.detach() - start).abs() * layer.factor  # the first step of Adam is its rate
        yield equal(f"{inputs} inputs", moved, np.full((64, inputs), 1e-3 * (2 / inputs) ** 0.5))


@claim("at alpha = 0 a new resolution's samples are the old ones upsampled, and the critic is the old one",
       "Karras et al. 2018, figure 2")  # fmt: skip
def a_fade_begins_with_what_was_there() -> Iterator[Comparison]:
    z, x, shape = _random(4, 3, seed=4), _random(4, 1, SIDE, SIDE, seed=5), (1, SIDE, SIDE)
    old = _told(GrowingGenerator(shape, latent_dim=3, resolution=4, **SIZES))
    new = _told(GrowingGenerator(shape, latent_dim=3, resolution=8, fade=10, **SIZES), 70)
    new.load_state_dict(old.state_dict(), strict=False)
    before = old.push(z, None).detach()  # type: ignore[operator]
    yield equal("samples", new.push(z, None), before)  # type: ignore[operator]
    yield equal("upsampled", before, _mean(before.cpu().numpy(), 4))
    critic = _told(GrowingCritic(shape, resolution=4, **SIZES))
    grown = _told(GrowingCritic(shape, resolution=8, fade=10, **SIZES), 70)
    grown.load_state_dict(critic.state_dict(), strict=False)
    yield equal("scores", grown(x), critic(x).detach())


@claim("reals are faded as samples are: their details of the new resolution have weight alpha",
       "Karras et al. 2018, section 2; their code")  # fmt: skip
def reals_are_faded() -> Iterator[Comparison]:
    x = _random(4, 1, 16, 16, seed=6)
    for alpha, seen in ((0.0, 0), (0.25, 10), (1.0, 40)):
        model = _told(GrowingGenerator((1, 16, 16), latent_dim=3, resolution=8, fade=40, **SIZES), 100, 100 + seen)
        found = model.seen(Particles(x)).x  # type: ignore[operator]
        low, here = (_mean(x.cpu().numpy(), side) for side in (4, 8))
        yield equal(f"alpha {alpha:g}", found, (1 - alpha) * low + alpha * here)
        z = _random(4, 3, seed=7)
        details = []
        for samples in (100 + seen, 1000):  # as it stands, and at rest
            images = _told(model, samples).push(z, None).detach().cpu().numpy()  # type: ignore[operator]
            details.append(images - _mean(images, 4))
        yield equal("of samples", details[0], alpha * details[1])


@claim("averaging to the present resolution changes no sample of it, at 28 pixels as at 32", "by hand")
def averaging_is_a_projection() -> Iterator[Comparison]:
    for side in (28, 32):
        for resolution in (4, 8, 16, 32):
            canvas = Canvas((1, side, side), None, resolution, 0, "canvas")
            sample = canvas.spread(_random(3, 1, resolution, resolution, seed=8))
            yield equal(f"{resolution} of {side}", canvas.spread(canvas.averaged(sample)), sample)


@claim("the batch's deviation is the mean over channels and pixels of the spread in a group of four",
       "Karras et al. 2018, section 3; their code")  # fmt: skip
def deviation_of_groups() -> Iterator[Comparison]:
    x = _random(12, 2, 3, 3, seed=9)
    found = Deviation()(x)[:, 2].cpu().numpy()
    for i in range(12):
        group = x[i % 3 :: 3].cpu().numpy()
        yield equal(f"example {i}", found[i], np.full((3, 3), np.sqrt(group.var(0) + 1e-8).mean()))
