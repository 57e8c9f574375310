"""Rows that need a GPU: rounds of the games and a spline flow's step, on the clock of the wall.

Data lies on the device on both sides. The engine runs with its defaults; what it does there to be fast (graphs of whole
steps, compilation) it chooses itself.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.speed import adversarial, engine, flows, loops
from benchmarks.speed.contest import OURS, Contest, Disagreement, Goal, Row, Size
from benchmarks.speed.peers import BINS

DEVICE = "cuda"
IMAGES = "convolutional GAN, 64x64x3, batch 256, bf16: a round"


def rows(device: str = DEVICE) -> list[Row]:
    """Return the rows of this file; on another device they are only tried."""
    on_device = {"threads": 1, "clock": "wall", "gpu": device == DEVICE, "quick_pairs": 0}
    tutorial = "tutorial loop on the same GPU"
    return [
        Row("gpu_vanilla", "vanilla GAN, MLP 3x256, batch 256, 2-D: a round",
            partial(adversarial.vanilla, device=device, rounds=50), (Goal(tutorial, ("tutorial",), 0.12),),
            **on_device),
        Row("gpu_wgan_gp", "WGAN-GP, MLP 3x256, batch 256, 2-D, 5 critic steps: a round",
            partial(adversarial.wgan_gp, device=device, rounds=10), (Goal(tutorial, ("tutorial",), 0.20),),
            **on_device),
        Row("gpu_convolutional", IMAGES, partial(convolutional, device=device),
            (
                Goal("tutorial loop, eager, float32", ("tutorial",), 0.35),
                Goal("best hand-written (channels-last, bf16, compiled)", ("hand_compiled", "hand_eager"), 1.0),
            ),
            **on_device),
        Row("gpu_spline_2", f"neural spline flow ({BINS} bins), batch {flows.BATCH}, d = 2: NLL step",
            partial(flows.step, "spline", 2, device=device),
            (Goal("fastest of nflows, zuko, normflows", flows.RIVALS, 0.25),), **on_device),
        Row("gpu_spline_64", f"neural spline flow ({BINS} bins), batch {flows.BATCH}, d = 64: NLL step",
            partial(flows.step, "spline", 64, device=device),
            (Goal("fastest of nflows, zuko, normflows", flows.RIVALS, 0.25),), **on_device),
    ]  # type: ignore[arg-type]  # fmt: skip


def convolutional(size: Size, device: str = DEVICE) -> Contest:
    """Return the vanilla game on larger images: ours with its own choice of precision, theirs in float32 and bf16."""
    width, side, batch_size = (32, 64, 256) if size == "full" else (2, 8, 4)
    overrides = [f"model.width={width}", f"metric.network.width={width}", f"loop.batch_size={batch_size}",
                 "model=conv_generator", "metric=conv", f"device={device}"]  # fmt: skip
    rows = torch.randn(2048 if size == "full" else 64, 3, side, side).clamp(-2, 2)

    def make(more: tuple[str, ...] = ()) -> engine.se.Assembly:
        return engine.compose("nonsaturating_gan", [*overrides, *more], data=rows)

    assembly = make(_precision())
    latent = assembly.state.equation.model.latent_dim
    draws: loops.RandomDraws = loops.RandomDraws(rows.to(device), batch_size, latent)  # type: ignore[arg-type]
    sides = {OURS: engine.side(assembly, 5)}
    sides["tutorial"] = engine.hand_side(loops.tutorial_gan(engine.plain_nets(assembly), draws), 5)
    for name, compiled in (("hand_eager", False), ("hand_compiled", True)):
        nets = engine.plain_nets(assembly)
        compiler = ("inductor" if size == "full" else "eager") if compiled else None
        sides[name] = engine.hand_side(bf16_gan(nets, draws, compiler=compiler), 5)
    notes = "" if _precision() else "ours in float32: this version has no bf16"
    in_float32 = {"tutorial": loops.tutorial_gan, "hand": loops.hand_gan}
    return Contest(
        sides,
        lambda: engine.agreement(lambda more: make(tuple(more)), in_float32) | {"bf16": _bf16_is_near(make(), device)},
        notes,
    )


def bf16_gan(
    nets: loops.Nets, draws: loops.Draws, make: loops.MakeOptimizer = loops.fused_adam, compiler: str | None = None
) -> loops.Round:
    """Return :func:`loops.hand_gan` with networks channels-last, in bf16 by autocast, compiled if it is said how."""
    wrapped = []
    for net in (nets.generator, nets.critic):
        net.to(memory_format=torch.channels_last)
        wrapped.append(InBF16(torch.compile(net, backend=compiler) if compiler else net))
    return loops.hand_gan(loops.Nets(*wrapped), draws, make)


class InBF16(nn.Module):
    """A network whose products are taken in bf16; weights and outputs are float32."""

    def __init__(self, net: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's output in float32."""
        cast: AbstractContextManager = torch.autocast(x.device.type, torch.bfloat16)
        with cast:
            y = self.net(x)
        return y.float()


def _precision() -> tuple[str, ...]:
    """Return the override that gives ours bf16, where this version has one."""
    from se_framework.errors import ConfigError

    try:
        engine.compose("nonsaturating_gan", ["performance.precision=bf16"])
    except ConfigError:
        return ()
    return ("performance.precision=bf16",)


def _bf16_is_near(assembly: engine.se.Assembly, device: str) -> float:
    """Compare the critic's scores in bf16 with float32: 8 bits of mantissa, some tens of layers' roundings."""
    critic = engine.plain_nets(assembly).critic
    x = torch.randn(16, *assembly.data.event_shape, device=device)
    with torch.no_grad():
        full, half = critic(x), InBF16(critic)(x)
    difference = float((full - half).abs().max() / full.abs().max())
    if not difference < 0.1:
        raise Disagreement(f"the critic in bf16 differs by {difference:.2g} from float32")
    return difference
