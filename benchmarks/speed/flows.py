"""Rows of flows: a step of maximum likelihood, sampling and log-densities against the fastest of three libraries."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

import se_framework as se
from benchmarks.speed import engine, peers
from benchmarks.speed.contest import OURS, Contest, Disagreement, Goal, Row, Size, must_agree
from benchmarks.speed.loops import RandomDraws, fused_adam
from benchmarks.speed.timer import Side

COUPLINGS, WIDTH, BATCH = 8, 128, 512
CHOICE = {"realnvp": "realnvp", "spline": "spline_flow"}
WORDS = {"realnvp": "RealNVP", "spline": f"neural spline flow ({peers.BINS} bins)"}
STEP_GOAL = {"realnvp": 0.88, "spline": 0.60}
RIVALS = tuple(peers.LIBRARIES)


def rows() -> list[Row]:
    """Return the rows of this file."""
    found = []
    for kind in ("realnvp", "spline"):
        for d in (2, 64):
            size = f"{COUPLINGS} couplings, hidden {WIDTH}x{WIDTH}, batch {BATCH}, d = {d}"
            goal = Goal("fastest of nflows, zuko, normflows", RIVALS, STEP_GOAL[kind])
            found.append(
                Row(f"{kind}_{d}", f"{WORDS[kind]}, {size}: NLL step", partial(step, kind, d), (goal,), quick_pairs=7)
            )
            goal = Goal("fastest of nflows, zuko, normflows", RIVALS, 0.80)
            for what in ("sample", "log_prob"):
                found.append(
                    Row(f"{kind}_{d}_{what}", f"{WORDS[kind]}, d = {d}: {what} of {BATCH} points",
                        partial(use, kind, d, what), (goal,), quick_pairs=7)
                )  # fmt: skip
    return found


def step(kind: peers.Kind, d: int, size: Size, device: str = "cpu") -> Contest:
    """Return a step of maximum likelihood: ours by the real loop, theirs with fused Adam, rows drawn at random."""
    assembly, flows, rows = _build(kind, d, size, device)
    rounds = _repeats(kind, d, size, 10)
    sides = {OURS: engine.side(assembly, rounds)}
    for name, flow in flows.items():
        draws = RandomDraws(rows, assembly.config.loop.batch_size, d)
        sides[name] = engine.hand_side(nll_step(flow, draws), rounds)
    return Contest(sides, partial(agreement, kind, d, size))


def use(kind: peers.Kind, d: int, what: str, size: Size, device: str = "cpu") -> Contest:
    """Return sampling or log-densities without a graph."""
    assembly, flows, rows = _build(kind, d, size, device)
    x, turns = rows[:BATCH], _repeats(kind, d, size, 4)
    law, every = our_flow(assembly), {}
    for name, flow in {OURS: law, **flows}.items():
        every[name] = Side(partial(_repeat, flow, what, x, turns), turns)
    return Contest(every, partial(agreement, kind, d, size))


def our_flow(assembly: se.Assembly) -> peers.Flow:
    """Return our flow in the vocabulary of the others."""
    model = assembly.state.equation.model
    return peers.Flow(
        model, lambda x: model().log_prob(x), lambda n: model().sample((n,)), lambda x: model().pull(x)[0]
    )


def agreement(kind: peers.Kind, d: int, size: Size) -> dict[str, float]:
    """Check every flow in float64, with moved parameters and at most 6 dimensions, against Jacobians by autograd.

    Raises:
        Disagreement: a log-density is wrong, samples do not come from that law, or parameters differ by more than 1 %.
    """
    found: dict[str, float] = {}
    d = min(d, 6)
    with engine.in_float64():
        assembly, flows, _ = _build(kind, d, size)
        for name, flow in {OURS: our_flow(assembly), **flows}.items():
            found[name] = is_a_law(name, flow, d)
    count = _parameters(our_flow(assembly))
    for name, flow in (
        flows.items() if size == "full" else ()
    ):  # narrow networks leave our affine map at the end visible
        if abs(_parameters(flow) / count - 1) > 0.01:
            raise Disagreement(f"{name} has {_parameters(flow)} parameters, ours {count}: more than 1 % apart")
    return found


def is_a_law(name: str, flow: peers.Flow, d: int) -> float:
    """Move the parameters, check samples and density by the change of variables, and return how far the latter is off.

    Raises:
        Disagreement: a log-density is wrong, or samples do not come from that law.
    """
    with torch.no_grad():
        for parameter in flow.module.parameters():
            parameter += 0.03 * torch.randn_like(parameter)
        noise = flow.latent(flow.sample(2000))  # standard normal, or the samples are not of this law
    off = float(max(noise.mean(0).abs().max(), (noise.square().mean(0) - 1).abs().max() / math.sqrt(2)))
    must_agree(f"samples of {name} carried back, moments", off, 5 / math.sqrt(len(noise)))
    x = torch.randn(3, d)
    z = flow.latent(x)
    volumes = [torch.autograd.functional.jacobian(partial(_latent_of_one, flow), row).slogdet()[1] for row in x]
    exact = torch.stack(volumes) - 0.5 * (z.square() + math.log(2 * math.pi)).sum(1)
    difference = float((flow.log_prob(x) - exact).abs().max().detach())
    return must_agree(f"log-density of {name}", difference, 1e-6)


def _build(
    kind: peers.Kind, d: int, size: Size, device: str = "cpu"
) -> tuple[se.Assembly, dict[str, peers.Flow], Tensor]:
    batch_size, width = (BATCH, WIDTH) if size == "full" else (8, 8)
    rows = torch.randn(20_000 if size == "full" else 64, d, generator=torch.Generator().manual_seed(1))
    overrides = [f"model={CHOICE[kind]}", f"model.couplings={COUPLINGS}", f"model.width={width}",
                 f"loop.batch_size={batch_size}", f"device={device}", "loop.early_stop=null",
                 *(["model.whiten=false"] if CHOICE[kind] == "spline_flow" else [])]  # fmt: skip
    assembly = engine.compose("mle_flow", overrides, data=rows)
    flows = peers.installed(kind, d, COUPLINGS, width)
    rows = rows.to(next(assembly.state.equation.model.parameters()))
    for flow in flows.values():
        flow.module.to(rows.device, rows.dtype)
    return assembly, flows, rows


def _repeats(kind: peers.Kind, d: int, size: Size, usual: int) -> int:
    """Return how often the work is done in a turn, which shall not last longer than a second or so."""
    if size == "tiny":
        return 1
    return usual // 4 if (kind, d) == ("spline", 64) else usual


def nll_step(flow: peers.Flow, draws: RandomDraws) -> engine.Round:
    """Return a step of maximum likelihood with fused Adam."""
    optimizer = fused_adam(flow.module.parameters())

    def play() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = -flow.log_prob(draws.batch()).mean()
        loss.backward()
        optimizer.step()

    return play


@torch.no_grad()
def _repeat(flow: peers.Flow, what: str, x: Tensor, turns: int) -> None:
    for _ in range(turns):
        flow.sample(len(x)) if what == "sample" else flow.log_prob(x)


def _latent_of_one(flow: peers.Flow, x: Tensor) -> Tensor:
    return flow.latent(x[None])[0]


def _parameters(flow: peers.Flow) -> int:
    return sum(p.numel() for p in flow.module.parameters() if p.requires_grad)
