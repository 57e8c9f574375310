"""Rows of ensembles: many seeds in one process against as many single runs, one after another."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import se_framework as se
from benchmarks.speed import engine
from benchmarks.speed.contest import Contest, Goal, Row, Size, largest_difference, must_agree
from benchmarks.speed.timer import Side

WIDTH, DEPTH, BATCH = 64, 2, 128
ROUNDS = 5  # in a turn


def rows(device: str = "cuda") -> list[Row]:
    """Return the rows of this file, that of a GPU for a device; on another they are only tried."""
    return [
        Row("ensemble", "ensemble of 32 seeds, MLP 2x64, batch 128, one thread, CPU: a round",
            partial(contest, 32, "cpu"), (Goal("32 single runs", ("singles",), 0.40),), quick_pairs=5),
        Row("gpu_ensemble", "ensemble of 64 seeds, MLP GAN: a round",
            partial(contest, 64, device), (Goal("64 single runs, each as fast as above", ("singles",), 0.06),),
            clock="wall", gpu=device == "cuda", quick_pairs=0),
    ]  # fmt: skip


def contest(members: int, device: str, size: Size) -> Contest:
    """Return an ensemble beside its single runs, each played by the public loop."""
    count = members if size == "full" else 2
    together, alone = both(count, device)
    singles = [engine.side(single, ROUNDS) for single in alone]
    sides = {
        "ours": engine.side(together, ROUNDS),
        "singles": Side(lambda: [s.run() for s in singles], ROUNDS, lambda: [s.logging() for s in singles]),  # type: ignore[misc]
    }
    return Contest(sides, partial(agree, device))


def both(members: int, device: str) -> tuple[se.EnsembleAssembly, list[se.Assembly]]:
    """Return an ensemble and the single runs that its members are."""

    def compose(more: Sequence[str]) -> se.Assembly:
        return engine.compose("nonsaturating_gan", [
            "metric=mlp", f"model.width={WIDTH}", f"model.depth={DEPTH}", f"metric.network.width={WIDTH}",
            f"metric.network.depth={DEPTH}", f"loop.batch_size={BATCH}", f"device={device}", *more,
        ])  # fmt: skip

    together = compose([f"ensemble.size={members}"])
    assert isinstance(together, se.EnsembleAssembly)
    return together, [compose([f"seed={k}"]) for k in range(members)]


def agree(device: str) -> dict[str, float]:
    """Train three members and their single runs in float64 and compare all parameters."""
    with engine.in_float64():
        together, alone = both(3, device)
        for assembly in (together, *alone):
            engine.play(assembly, engine.ROUNDS_OF_A_CHECK)
    pairs = zip(together.members, alone, strict=True)
    found = max(largest_difference(*(a.state.equation.state_dict() for a in pair)) for pair in pairs)
    return {"singles": must_agree(f"members after {engine.ROUNDS_OF_A_CHECK} rounds", found, engine.TOLERANCE)}
