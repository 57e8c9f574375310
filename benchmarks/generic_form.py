"""What the generic form of an f-divergence costs beside the hand-written one, and the dual over probability q.

    python benchmarks/generic_form.py          writes benchmarks/speed/generic_form.json

A critic step is one ascent of a 3x128 MLP on E_pd f - D*_p(f) at batch 1024 with Adam, eager. Both forms take turns on
one thread and the median of the ratios of neighbours is told; times are the processor's, not the clock's, so that what
else the machine does is not counted.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import divergences as d
from models import MLPCritic
from models.laws import Particles

BATCH, DIMENSIONS, PAIRS = 1024, 2, 60
GENERATORS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], type[d.FDivergence]]] = {
    "kl": (lambda u: u * torch.log(u), d.KL),
    "neyman": (lambda u: (1 - u) ** 2 / u, d.Neyman),
    "le_cam": (lambda u: (u - 1) ** 2 / (u + 1), d.LeCam),
    "jensen_shannon": (lambda u: (u * torch.log(u) - (1 + u) * torch.log((1 + u) / 2)) / 2, d.JensenShannon),
}


def critic_step(divergence: d.FDivergence) -> Callable[[], None]:
    """Return one ascent of a critic of its own."""
    torch.manual_seed(0)
    critic = MLPCritic((DIMENSIONS,), width=128, depth=3)
    optimizer = torch.optim.Adam(critic.parameters(), 1e-4)
    x, y = torch.randn(BATCH, DIMENSIONS), torch.randn(BATCH, DIMENSIONS) + 0.3
    p = Particles(y)

    def step() -> None:
        loss = divergence.mean_conjugate(critic(y), p) - divergence.link(critic(x)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def dual_alone(divergence: d.FDivergence, normalised: bool) -> Callable[[], None]:
    """Return the dual at given scores with its gradient."""
    torch.manual_seed(0)
    v, p = torch.randn(BATCH, requires_grad=True), Particles(torch.zeros(BATCH, 1))

    def dual() -> None:
        conjugate = divergence.inner_normalised(v, p).conjugate if normalised else divergence.mean_conjugate(v, p)
        torch.autograd.grad(conjugate, v)

    return dual


def compare(generic: Callable[[], None], named: Callable[[], None], pairs: int = PAIRS) -> dict[str, float]:
    """Return medians in milliseconds of both in turns, and the median ratio."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(-5, pairs):
        for store, run in zip(times, (generic, named), strict=True):
            started = time.process_time()
            run()
            if turn >= 0:
                store.append(1e3 * (time.process_time() - started))
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    return {"generic_ms": statistics.median(times[0]), "named_ms": statistics.median(times[1]), "ratio": ratio}


def main() -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    rows: dict[str, Any] = {}
    for name, (h, named) in GENERATORS.items():
        pair = d.FDivergence(h), named()
        rows[name] = {
            "critic_step": compare(*map(critic_step, pair)),
            "dual_alone": compare(*(dual_alone(one, normalised=False) for one in pair)),
            "probability_dual_alone": compare(*(dual_alone(one, normalised=True) for one in pair), pairs=20),
        }
        for what, row in rows[name].items():
            print(f"{name:15} {what:23}", "  ".join(f"{k} {v:.3f}" for k, v in row.items()))
    machine = {"device": "cpu", "processor": platform.machine(), "torch": torch.__version__}
    machine |= {"threads": torch.get_num_threads(), "mode": "eager, processor time", "batch": BATCH, "pairs": PAIRS}
    target = Path(__file__).parent / "speed" / "generic_form.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
