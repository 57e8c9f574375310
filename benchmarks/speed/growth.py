"""How the cost of a round grows with batch, width, dimension, rows of data and members: exponents and ``growth.png``.

The exponent is that of a straight line through the last three points in logarithms, where arithmetic outweighs what a
round costs anyhow. A round is that of the vanilla game, on one thread, in processor time, the least of several.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.speed import engine
from benchmarks.speed.contest import Figure, Verdict
from benchmarks.speed.timer import Side, take_turns

PICTURE = Path(__file__).parent / "growth.png"
SLACK = 0.1  # of an exponent, for what three points on a shared machine can tell
BATCH, WIDTH, DIMENSION = 256, 256, 2
# What is varied: its values, and the exponent of its arithmetic.
AXES: dict[str, tuple[Sequence[int], float]] = {
    "batch": ((64, 256, 1024, 4096, 8192), 1.0),
    "width": ((32, 64, 128, 256, 512, 1024), 2.0),
    "dimension": ((2, 32, 512, 2048, 8192), 1.0),
    "rows": ((10**3, 10**4, 10**5, 10**6, 10**7), 0.0),
    "members": ((2, 4, 8, 16, 32, 64), 1.0),
}
SMALL = {"batch": 128, "width": 64}  # where members are varied: networks for which one trains many
WORK = "cost of a round, growth with "


def rows() -> list[Figure]:
    """Return the rows of this file: one, since all curves are drawn together."""
    lines = [
        (f"{WORK}{axis}", "exponent of its arithmetic", _goal(arithmetic)) for axis, (_, arithmetic) in AXES.items()
    ]
    return [Figure("growth", *lines[0], run=curves, in_quick=False, more_lines=tuple(lines[1:]))]


def curves(quick: bool = False) -> tuple[list[Verdict], dict[str, Any]]:
    """Measure every curve, draw them, and return exponents."""
    torch.set_num_threads(1)
    verdicts, record = [], {}
    for axis, (values, arithmetic) in AXES.items():
        milliseconds = [1e3 * seconds(axis, value) for value in values]
        found = exponent(values[-3:], milliseconds[-3:])
        words = f"{found:.2f} (from {values[-3]} on)"
        note = "rows left in the file, which is mapped" if axis == "rows" else ""
        against = "exponent of its arithmetic"
        verdicts.append(
            Verdict(f"{WORK}{axis}", against, _goal(arithmetic), words, found <= arithmetic + SLACK, note, found)
        )
        record[axis] = {"values": list(values), "milliseconds": milliseconds, "exponent": found}
    if not quick:
        draw(record)
    return verdicts, record


def seconds(axis: str, value: int, turns: int = 5) -> float:
    """Return the processor seconds of a round where one thing has another value."""
    size = {"batch": BATCH, "width": WIDTH, "dimension": DIMENSION, "rows": 2 * BATCH, "members": 1}
    size |= (SMALL if axis == "members" else {}) | {axis: value}
    size["rows"] = max(size["rows"], 2 * size["batch"])
    overrides = ["metric=mlp", f"model.width={size['width']}", f"metric.network.width={size['width']}",
                 f"loop.batch_size={size['batch']}", f"ensemble.size={size['members']}", "device=cpu"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        if axis == "rows":
            file = Path(folder) / "rows.npy"
            np.save(file, np.random.default_rng(0).standard_normal((size["rows"], size["dimension"]), np.float32))
            overrides += ["data=array_streamed", f"data.path={file}", "data.standardize=false"]
            assembly = engine.compose("nonsaturating_gan", overrides)
        else:
            assembly = engine.compose("nonsaturating_gan", overrides, torch.randn(size["rows"], size["dimension"]))
        times = take_turns({"round": Side(lambda: engine.play(assembly, 2), 2)}, turns, warmup=1)
        return min(times.seconds["round"]["process"])


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return the slope of the straight line through the logarithms, by least squares."""
    x, y = ([math.log(value) for value in values] for values in (sizes, costs))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - mean_x) ** 2 for a in x)


def draw(record: dict[str, Any]) -> None:
    """Draw all curves over the size relative to the first."""
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=(5, 3.2), layout="constrained")
    axes = picture.subplots()
    for axis, curve in record.items():
        sizes = [value / curve["values"][0] for value in curve["values"]]
        label = f"{axis} from {curve['values'][0]}: exponent {curve['exponent']:.2f}"
        axes.loglog(sizes, curve["milliseconds"], "o-", markersize=3, linewidth=1, label=label)
    axes.set(xlabel="size over its first value", ylabel="a round, processor ms")
    axes.legend(fontsize=7, frameon=False)
    picture.savefig(PICTURE, dpi=100)


def _goal(arithmetic: float) -> str:
    return f"<= {arithmetic:g} + {SLACK:g}"
