"""Estimates of mutual information on correlated Gaussians (d = 20; 2 to 10 nats), beside the exact critic's.

    python benchmarks/mutual_information.py            every row (a quarter of an hour on one core); rows that are there
                                                       are kept
    python benchmarks/mutual_information.py --table    only rewrite benchmarks/quality/mutual_information.md

The set-up of Poole et al. 2019 and Song, Ermon 2020: batches of 64, a separable critic of two perceptrons (256, 256,
32), Adam at 5e-4. A critic starts anew at each level and has 2000 rounds, where theirs goes on from level to level and
has 4000 at each; and in training p's points are as many as the pairs, where theirs are all pairs across the batch.
Every row is a command of ``se-train``. An estimate is what one batch of 64 pairs says, with the 64 x 63 pairs across as
p's, as in the papers; its mean and standard deviation are over 400 fresh batches. ``held-out`` is what ``se-eval`` says
of 10,000 pairs and 10,000 independent points of p.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from quality import machine
from torch import Tensor

HERE = Path(__file__).parent / "quality"
LEVELS = (2, 4, 6, 8, 10)
BATCH, BATCHES, ROUNDS = 64, 400, 2000
METHODS = {
    "NWJ": "divergence@players.phi.view=kl",
    "DV": "auxiliary=dual_probability",
    "JS": "",
    "InfoNCE": "auxiliary=dual_conditional",
}
"""What is added to ``experiment=mutual_information``: its critic ascends on Jensen-Shannon unless it is told otherwise,
and the value is that of KL's dual at it."""
# The absolute bias of a trained joint critic at batches of 64 (Song, Ermon 2020, appendix B).
PUBLISHED = {"InfoNCE": (0.25, 0.99, 2.31, 4.00, 5.89)}


def command(method: str, information: float) -> str:
    """Return the words after ``se-train``."""
    words = f"experiment=mutual_information data.information={information} metric=separable"
    return " ".join([words, f"loop.batch_size={BATCH} loop.rounds={ROUNDS}", *METHODS[method].split()])


def across(x: Tensor) -> Tensor:
    """Return x of every pair beside y of every other, shape (K (K - 1), 2 d)."""
    k, half = len(x), x.shape[1] // 2
    i, j = (~torch.eye(k, dtype=torch.bool)).nonzero(as_tuple=True)
    return torch.cat([x[i, :half], x[j, half:]], 1)


def estimates(equation: Any, data: Any) -> dict[str, float]:
    """Return mean and standard deviation of what batches say, and the standard error of the mean."""
    from models import Particles
    from se_framework import InnerProblem

    kind, found = next(equation.parameters()), []
    for seed in range(1_000, 1_000 + BATCHES):
        x = data.held_out(BATCH, seed).x.to(kind)
        with torch.no_grad():
            v = equation.metric.on_pairs(x, x).double()
            parts = Particles(x), Particles(across(x)), equation.model, equation.divergence, 0.0, 1.0, equation.metric
            minimum = equation.auxiliary.minimum(InnerProblem(v[~torch.eye(BATCH, dtype=torch.bool)], v.diag(), *parts))
            found.append(float(minimum + equation.f(v.diag()).mean()))
    return {"mean": statistics.mean(found), "sd": statistics.stdev(found), "se": statistics.stdev(found) / BATCHES**0.5}


def row(method: str, information: float) -> dict[str, Any]:
    """Train one critic and return what it says."""
    import se_framework as se

    assembly = se.compose(
        None, [*command(method, information).split(), "progress=false", "loop.log_every=0", "device=cpu"]
    )
    started = time.process_time()
    assembly.train()
    seconds = time.process_time() - started
    held = se.evaluate(assembly, n=10_000, names=("held_out_value",))["held_out_value"]
    return {
        "command": f"se-train {command(method, information)}", "method": method, "information": information,
        "batches": estimates(assembly.equation, assembly.data), "exact": exact(method, information),
        "held_out": {"value": held["value"], "se": held.get("se")}, "cpu_seconds": seconds, "machine": machine(),
    }  # fmt: skip


def exact(method: str, information: float) -> dict[str, float]:
    """Return what batches say at the critic that no training can better: the log-ratio itself."""
    import se_framework as se
    from models import Critic, Given
    from se_framework.data import CorrelatedGaussians

    data = CorrelatedGaussians(information=information)

    class LogRatio(Critic):
        """log dp_d/dp, in the type of the points."""

        def __init__(self) -> None:
            super().__init__(data.event_shape)
            self.unmoved = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

        def score(self, x: Tensor, context: Tensor | None = None) -> Tensor:
            return data.log_ratio(x).to(x.dtype)

        def on_pairs(self, x: Tensor, y: Tensor) -> Tensor:
            half = x.shape[1] // 2
            left, right = x[:, None, :half].expand(-1, len(y), -1), y[None, :, half:].expand(len(x), -1, -1)
            return self.score(torch.cat([left, right], 2).flatten(0, 1)).view(len(x), len(y))

    equation = se.compose(None, command(method, information).split()).equation
    parts = {"divergence": equation.divergence, "auxiliary": equation.auxiliary, "metric": se.Metric(LogRatio())}
    return estimates(se.StandardEquation(model=Given(data.event_shape, data.reference), **parts), data)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = ["# Mutual information", "", "Written by `python benchmarks/mutual_information.py`.", "",
             *(__doc__ or "").split("\n\n")[2].splitlines(), ""]  # fmt: skip
    machines = {
        f"{m['device']}, {m['threads']} thread(s), torch {m['torch']}" for m in (row["machine"] for row in rows)
    }
    columns = ["estimate", "I", "one batch: mean +- sd", "bias", "exact critic: mean +- sd", "published bias",
               "held-out +- se", "CPU seconds"]  # fmt: skip
    lines += ["; ".join(sorted(machines)), "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for found in rows:
        one, best, held, level = found["batches"], found["exact"], found["held_out"], found["information"]
        theirs = PUBLISHED.get(found["method"])
        published = f"{-theirs[LEVELS.index(level)]:.2f}" if theirs else ""
        lines.append(
            f"| {found['method']} | {level} | {one['mean']:.3f} +- {one['sd']:.2g} | {one['mean'] - level:+.2f} | "
            f"{best['mean']:.3f} +- {best['sd']:.2g} | {published} | {held['value']:.3f} +- {held['se'] or 0:.2g} | "
            f"{found['cpu_seconds']:.0f} |"
        )
    return "\n".join([*lines, ""])


def ordered(done: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows that are there, method by method."""
    keys = [f"se-train {command(method, level)}" for method in METHODS for level in LEVELS]
    return [done[key] for key in keys if key in done]


def main() -> None:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only rewrite the table")
    arguments = parser.parse_args()
    file = HERE / "mutual_information.json"
    done = {found["command"]: found for found in (json.loads(file.read_text()) if file.exists() else [])}
    for method, level in () if arguments.table else [(method, level) for level in LEVELS for method in METHODS]:
        key = f"se-train {command(method, level)}"
        if key not in done:
            done[key] = row(method, level)
            print(key, done[key]["batches"], flush=True)
            file.write_text(json.dumps(ordered(done), indent=1) + "\n")
    (HERE / "mutual_information.md").write_text(table(ordered(done)))


if __name__ == "__main__":
    main()
