"""Rows of ensembles: many seeds in one process against as many single runs. Not there yet: see :func:`contest`."""

from __future__ import annotations

from functools import partial

from benchmarks.speed.contest import Absent, Contest, Goal, Row, Size


def rows() -> list[Row]:
    """Return the rows of this file."""
    return [
        Row("ensemble", "ensemble of 32 seeds, MLP 2x64, batch 128, one thread, CPU: a round",
            partial(contest, 32, "cpu"), (Goal("32 single runs", ("singles",), 0.40),), quick_pairs=5),
        Row("gpu_ensemble", "ensemble of 64 seeds, MLP GAN: a round",
            partial(contest, 64, "cuda"), (Goal("64 single runs, each as fast as above", ("singles",), 0.06),),
            clock="wall", gpu=True, quick_pairs=0),
    ]  # fmt: skip


def contest(members: int, device: str, size: Size) -> Contest:
    """Return an ensemble beside its single runs.

    The sides are to be ``{"ours": engine.side(ensemble, rounds), "singles": Side(every single run in turn, rounds)}``,
    with ``ensemble = engine.compose("nonsaturating_gan", [..., f"ensemble.size={members}"])`` and the single runs
    composed with the seeds of its members; ``agree`` compares each member's parameters with its single run's after two
    rounds in float64 (``engine.in_float64``).

    Raises:
        Absent: this version has no ensembles.
    """
    raise Absent("this version has no ensemble.size")
