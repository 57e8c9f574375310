"""Rows of adversarial models on the CPU: the general loop against tutorials and hand-optimised loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

import se_framework as se
from benchmarks.speed import engine, loops
from benchmarks.speed.contest import OURS, Contest, Goal, Row, Size

LATENT = 16
MLP = ["model.depth=3", "metric.network.depth=3", f"model.latent_dim={LATENT}"]
ROWS_OF_DATA = {"tiny": 64, "full": 50_000}
IMAGES_OF_DATA = {"tiny": 64, "full": 5_000}


def rows() -> list[Row]:
    """Return the rows of this file: each game on one thread, the default of ``se-train``, and on two."""
    tutorial = "tutorial loop (eager, default Adam, the critic's weight gradients computed in the generator's step)"
    best = "best hand-optimised eager loop"
    games = (
        ("vanilla", "vanilla GAN, MLP 3x256, batch 256, 2-D: a round", vanilla, 15, (
            Goal(tutorial, ("tutorial",), 0.95, beyond=0.85),
            Goal(best, ("hand",), 1.08, counts_if=("tutorial", 0.95)),
        )),
        ("wgan_gp", "WGAN-GP, MLP 3x256, batch 256, 2-D, 5 critic steps: a round", wgan_gp, 15, (
            Goal(tutorial, ("tutorial",), 0.85, beyond=0.80),
            Goal(best, ("hand", "hand_first_order"), 1.05, counts_if=("tutorial", 0.85)),
        )),
        ("convolutional", "convolutional GAN, 32x32x3, batch 64: a round", convolutional, 5, (
            Goal(best, ("hand", "hand_channels_last"), 1.0),
        )),
    )  # fmt: skip
    found = []
    for name, work, make, quick, goals in games:
        found.append(Row(name, work, make, goals, quick_pairs=quick))
        found.append(Row(f"{name}_2_threads", work, make, goals, threads=2, clock="wall", pairs=40, quick_pairs=0))
    return found


def vanilla(size: Size, device: str = "cpu", rounds: int = 10) -> Contest:
    """Return the game of Goodfellow et al. 2014 with the generator's loss -log D, which tutorials play."""
    width, batch_size = (256, 256) if size == "full" else (8, 16)
    overrides = [*MLP, f"model.width={width}", f"metric.network.width={width}", f"loop.batch_size={batch_size}"]
    make = partial(_compose, "nonsaturating_gan", [*overrides, "metric=mlp", f"device={device}"], (2,), size)
    return _contest(make, {"tutorial": loops.tutorial_gan, "hand": loops.hand_gan}, rounds)


def wgan_gp(size: Size, device: str = "cpu", rounds: int = 3) -> Contest:
    """Return WGAN with the paper's penalty weight 10 and 5 critic steps, which tutorials take over."""
    width, batch_size = (256, 256) if size == "full" else (8, 16)
    overrides = [*MLP, f"model.width={width}", f"metric.network.width={width}", f"loop.batch_size={batch_size}",
                 "metric=mlp_gradient_penalty", "players.phi.steps=5", f"device={device}"]  # fmt: skip
    hand = {
        "tutorial": loops.tutorial_wgan_gp,
        "hand": loops.hand_wgan_gp,
        "hand_first_order": partial(loops.hand_wgan_gp, first_order=True),
    }
    return _contest(partial(_compose, "wgan_gp", overrides, (2,), size), hand, rounds)  # type: ignore[arg-type]


def convolutional(size: Size) -> Contest:
    """Return the vanilla game between convolutional networks on images of 32 x 32 pixels in three colours."""
    width, side, batch_size = (32, 32, 64) if size == "full" else (2, 8, 4)
    overrides = [f"model.width={width}", f"metric.network.width={width}", f"loop.batch_size={batch_size}",
                 "model=conv_generator", "metric=conv"]  # fmt: skip
    make = partial(_compose, "nonsaturating_gan", overrides, (3, side, side), size)
    smaller = ["model.width=8", "metric.network.width=8", "loop.batch_size=8"] if size == "full" else []
    return _contest(make, {"hand": loops.hand_gan, "hand_channels_last": channels_last_gan}, 1, smaller)


def channels_last_gan(
    nets: loops.Nets, draws: loops.Draws, make: loops.MakeOptimizer = loops.fused_adam
) -> loops.Round:
    """Return :func:`loops.hand_gan` with the weights of convolutions channels-last, which makes their outputs so."""
    for net in (nets.generator, nets.critic):
        net.to(memory_format=torch.channels_last)
    return loops.hand_gan(nets, draws, make)


def _compose(
    experiment: str, overrides: Sequence[str], shape: tuple[int, ...], size: Size, more: Sequence[str] = ()
) -> se.Assembly:
    count = (IMAGES_OF_DATA if len(shape) == 3 else ROWS_OF_DATA)[size]
    rows = torch.randn(count, *shape, generator=torch.Generator().manual_seed(1)).clamp(-2, 2)
    return engine.compose(experiment, [*overrides, *more], data=rows)


def _contest(
    make: Callable[..., se.Assembly], hand: dict[str, engine.Loop], rounds: int, smaller: Sequence[str] = ()
) -> Contest:
    """Return the engine beside hand-written loops.

    Args:
        make: composes the experiment with further overrides.
        hand: the loops by name.
        rounds: in a turn.
        smaller: overrides under which their agreement is checked, where float64 would take minutes at full size.
    """
    assembly = make()
    batch_size = assembly.config.loop.batch_size
    latent_dim = assembly.state.equation.model.latent_dim
    data = assembly.data.train.to(next(assembly.state.equation.model.parameters()))  # type: ignore[attr-defined]
    sides = {OURS: engine.side(assembly, rounds)}
    for name, loop in hand.items():
        draws = loops.RandomDraws(data, batch_size, latent_dim)  # type: ignore[arg-type]
        sides[name] = engine.hand_side(loop(engine.plain_nets(assembly), draws), rounds)  # type: ignore[call-arg]
    return Contest(sides, lambda: engine.agreement(lambda more: make(more=[*smaller, *more]), hand))
