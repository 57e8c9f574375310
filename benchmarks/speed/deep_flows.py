"""Rows of Glow and of masked autoregressive flows against the libraries that have them.

normflows' Glow has the same levels, steps and width, without the authors' actnorms in hidden convolutions and channels
of the padding: 8 % fewer parameters. zuko's MAF has ours' parameters within 1 %; those of nflows and normflows hold a
layer more in every network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.speed import engine
from benchmarks.speed.contest import OURS, Absent, Contest, Goal, Row, Size, must_agree
from benchmarks.speed.flows import is_a_law, nll_step, our_flow
from benchmarks.speed.loops import RandomDraws
from benchmarks.speed.peers import Flow
from benchmarks.speed.timer import Side

LAYERS, WIDTH, BATCH = 5, 128, 512
LEVELS, STEPS, HIDDEN, SIDE, IMAGES = 2, 8, 64, 16, 64
TINY = {"levels": 1, "steps": 1, "hidden": 3, "side": 4}


def rows() -> list[Row]:
    """Return the rows of this file."""
    size = f"{SIDE} px, {LEVELS} levels of {STEPS} steps, hidden {HIDDEN}, batch {IMAGES}"
    goal = Goal("normflows", ("normflows",), 0.90)
    found = [Row("glow", f"Glow, {size}: NLL step", glow_step, (goal,), quick_pairs=5)]
    for d in (2, 64):
        words = (
            f"masked autoregressive flow, {LAYERS} layers, hidden {WIDTH}x{WIDTH}, d = {d}: log_prob of {BATCH} points"
        )
        goal = Goal("fastest of zuko, nflows", ("zuko", "nflows"), 0.90)
        found.append(Row(f"maf_{d}_log_prob", words, partial(maf_log_prob, d), (goal,), quick_pairs=7))
    return found


def glow_of_normflows(levels: int, steps: int, hidden: int, side: int) -> Flow:
    """Return a Glow of normflows for one channel, in the vocabulary of the others."""
    import normflows as nf

    bases, merges, flows = [], [], []
    for i in range(levels):
        channels, pixels = 2 ** (levels + 1 - i), side >> (levels - i)
        blocks = [nf.flows.GlowBlock(channels, hidden, split_mode="channel", scale=True) for _ in range(steps)]
        flows.append([*blocks, nf.flows.Squeeze()])
        merges += [nf.flows.Merge()] * (i > 0)
        bases.append(nf.distributions.DiagGaussian((channels if i == 0 else channels // 2, pixels, pixels)))
    law = nf.MultiscaleFlow(bases, flows, merges)
    return Flow(law, lambda x: law.log_prob(x, None), lambda n: law.sample(n)[0], lambda x: x)


def maf_of_zuko(d: int, width: int) -> Flow:
    """Return a masked autoregressive flow of zuko."""
    import zuko

    flow = zuko.flows.MAF(d, transforms=LAYERS, hidden_features=(width, width))
    return Flow(flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,)), lambda x: flow().transform(x))


def maf_of_nflows(d: int, width: int) -> Flow:
    """Return a masked autoregressive flow of nflows."""
    from nflows import transforms
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow as Law

    layers: list[nn.Module] = []
    for _ in range(LAYERS):
        layers.append(transforms.MaskedAffineAutoregressiveTransform(d, width, use_residual_blocks=False))
        layers.append(transforms.ReversePermutation(d))
    law = Law(transforms.CompositeTransform(layers), StandardNormal([d]))
    return Flow(law, law.log_prob, law.sample, law.transform_to_noise)


def found(makers: dict[str, Callable[[], Flow]]) -> dict[str, Flow]:
    """Return the flows of the libraries that are here.

    Raises:
        Absent: none is.
    """
    made = {}
    for name, make in makers.items():
        try:
            made[name] = make()
        except ModuleNotFoundError:
            continue
    if not made:
        raise Absent(f"none of {', '.join(makers)} is installed: pip install -e '.[bench]'")
    return made


def glow_step(size: Size, device: str = "cpu") -> Contest:
    """Return a step of maximum likelihood: ours by the real loop, theirs with fused Adam, rows drawn at random."""
    of = {"levels": LEVELS, "steps": STEPS, "hidden": HIDDEN, "side": SIDE} if size == "full" else TINY
    flows = found({"normflows": partial(glow_of_normflows, **of)})
    side, batch = of["side"], IMAGES if size == "full" else 4
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(2_000 if size == "full" else 40, 1, side, side, generator=draw)
    more = [f"loop.batch_size={batch}", f"device={device}"]
    assembly = engine.compose("mle_flow", [*_words(of), *more], data=images)
    rounds = 2 if size == "full" else 1
    sides = {OURS: engine.side(assembly, rounds)}
    for name, flow in flows.items():
        flow.module.to(device)
        with torch.no_grad():
            flow.log_prob(images[:batch])  # its actnorms are set by the first batch
        draws = RandomDraws(images.flatten(1).to(device), batch, side * side)
        shaped = Flow(flow.module, partial(_of_rows, flow.log_prob, side), flow.sample, flow.latent)
        sides[name] = engine.hand_side(nll_step(shaped, draws), rounds)
    return Contest(sides, images_agree)


def maf_log_prob(d: int, size: Size, device: str = "cpu") -> Contest:
    """Return log-densities without a graph."""
    width, n = (WIDTH, BATCH) if size == "full" else (8, 8)
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(1))
    flows, turns = _vectors(rows, width, device), 10 if size == "full" else 1
    rows = rows.to(device)
    sides = {name: Side(partial(_repeat, flow.log_prob, rows, turns), turns) for name, flow in flows.items()}
    return Contest(sides, partial(vectors_agree, d))


def images_agree() -> dict[str, float]:
    """Check that Glows are laws: the mean over N(0, I) of p / N is 1, at most 5 standard errors off.

    Raises:
        Disagreement: one is none.
    """
    n, off = 2_000, {}
    assembly = engine.compose("mle_flow", _words(TINY), data=torch.randn(40, 1, 4, 4))
    flows = {OURS: our_flow(assembly), **found({"normflows": partial(glow_of_normflows, **TINY)})}
    x = torch.randn(n, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    base = -0.5 * (x.flatten(1).square() + math.log(2 * math.pi)).sum(1)
    for name, flow in flows.items():
        with torch.no_grad():
            weight = (flow.log_prob(x) - base).exp()
        error, off[name] = float(weight.std()) / math.sqrt(n), abs(float(weight.mean()) - 1)
        must_agree(f"mass of {name}, standard errors", off[name] / error, 5.0)
    return off


def vectors_agree(d: int) -> dict[str, float]:
    """Check every flow in float64, in at most 6 dimensions and width 8, as those of couplings are checked.

    Raises:
        Disagreement: one is no law.
    """
    d = min(d, 6)
    with engine.in_float64():
        flows = _vectors(torch.randn(8, d), 8, "cpu")
        return {name: is_a_law(name, flow, d) for name, flow in flows.items()}


def _of_rows(log_prob: Callable[[Tensor], Tensor], side: int, rows: Tensor) -> Tensor:
    return log_prob(rows.reshape(-1, 1, side, side))


@torch.no_grad()
def _repeat(log_prob: Callable[[Tensor], Tensor], x: Tensor, turns: int) -> None:
    for _ in range(turns):
        log_prob(x)


def _words(of: dict[str, int]) -> list[str]:
    named = (("levels", "levels"), ("steps", "steps"), ("width", "hidden"))
    return ["model=glow", "loop.early_stop=null", *(f"model.{key}={of[name]}" for key, name in named)]


def _vectors(rows: Tensor, width: int, device: str) -> dict[str, Flow]:
    words = ["model=maf", f"model.layers={LAYERS}", f"model.width={width}", "model.whiten=false", f"device={device}"]
    more = ["loop.batch_size=2", "loop.early_stop=null"]  # nothing is trained
    assembly, d = engine.compose("mle_flow", [*words, *more], data=rows), rows.shape[1]
    peers = found({"zuko": partial(maf_of_zuko, d, width), "nflows": partial(maf_of_nflows, d, width)})
    for flow in peers.values():
        flow.module.to(device)
    return {OURS: our_flow(assembly), **peers}
