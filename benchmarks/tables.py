"""Flows on real tables: ``mle_flow`` beside the fitted Gaussian, a Gaussian mixture, and zuko's spline flow.

    python benchmarks/tables.py                    four tables, seeds 0 to 4 (half an hour on one core)
    python benchmarks/tables.py --table            only rewrite benchmarks/quality/tables.md from the results
    python benchmarks/tables.py --seeds 2 loop.warmup=0    another setting, printed only

scikit-learn's wine, breast cancer, diabetes without its two-valued column, and digits after PCA to 16; 70 of 100 rows
for training, by seed, standardised over them. Figures are mean log-likelihoods of the held-out rows in nats, of
standardised values. Both flows have the same fifth of the training rows for validation and the same patience; the
Gaussian and the mixture are fitted to all of the training rows. zuko's flow: NSF(d, transforms=3,
hidden_features=(64, 64)), its defaults otherwise, Adam at 1e-3, batches of 128, looked at every six rounds.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent / "quality"


def tables() -> dict[str, np.ndarray]:
    """Return the tables by name, shape (rows, columns)."""
    from sklearn import datasets
    from sklearn.decomposition import PCA

    return {
        "wine": datasets.load_wine().data,
        "breast cancer": datasets.load_breast_cancer().data,
        "diabetes": np.delete(datasets.load_diabetes().data, 1, axis=1),
        "digits, PCA 16": PCA(16, random_state=0).fit_transform(datasets.load_digits().data),
    }


def split(rows: np.ndarray, seed: int) -> Any:
    """Return the rows as data whose split is that of the seed."""
    from se_framework.data import TensorData

    return TensorData(rows[np.random.default_rng(seed).permutation(len(rows))], 0.3, standardize=True)


def ours(data: Any, seed: int, more: list[str]) -> dict[str, float]:
    """Return the held-out log-likelihood of ``mle_flow`` with standard error, the references, and the round kept."""
    import se_framework as se

    assembly = se.compose("mle_flow", [f"seed={seed}", "progress=false", "loop.log_every=0", *more], data=data)
    assembly.train()
    found = assembly.scores()["nll"]
    shift = data.log_scale
    best = assembly.state.best
    figures = {"flow": shift - found["value"], "flow_se": found["se"], "round": 0 if best is None else best.round}
    return figures | {name: shift - value for name, value in found["references"].items()}


def theirs(data: Any, seed: int, rounds: int = 6000, patience: int = 300, every: int = 6) -> float:
    """Return the held-out log-likelihood of zuko's spline flow with the same early stopping."""
    import zuko

    torch.manual_seed(seed)
    apart = data.with_validation(0.2)
    train, validation = apart.rows("train", torch.arange(apart.train_size)), apart.validation(10**6).x
    flow = zuko.flows.NSF(train.shape[1], transforms=3, hidden_features=(64, 64))
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
    best, kept, at = float("inf"), None, 0
    for t in range(rounds):
        loss = -flow().log_prob(train[torch.randperm(len(train))[:128]]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if t % every == 0:
            with torch.no_grad():
                value = -float(flow().log_prob(validation).mean())
            if value < best:
                best, kept, at = value, copy.deepcopy(flow), t
            if t - at >= patience:
                break
    assert kept is not None
    with torch.no_grad():
        return float(kept().log_prob(data.held_out(10**6).x).mean())


def measure(rows: np.ndarray, seed: int, more: list[str]) -> dict[str, float]:
    """Return all figures of one table under one seed."""
    started = time.process_time()
    found = ours(split(rows, seed), seed, more)
    found["cpu_seconds"] = time.process_time() - started
    return found | {"zuko": theirs(split(rows, seed), seed)}


def table(content: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = ["# Tables", "", f"Written by `python benchmarks/tables.py` on {content['machine']['device']}, torch "]
    lines[-1] += f"{content['machine']['torch']}, zuko {content['zuko']}; mean held-out log-likelihood in nats."
    lines += ["", "Means over seeds 0 to 4, and in brackets the least margin of a seed over the Gaussian, in standard"]
    lines += ["errors of the flow's figure.", ""]
    lines += ["| table | mle_flow | Gaussian | mixture | zuko's spline flow | round kept | CPU seconds |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for name, seeds in content["tables"].items():
        mean = {key: statistics.mean(s[key] for s in seeds) for key in seeds[0]}
        least = min((s["flow"] - s["gaussian"]) / s["flow_se"] for s in seeds)
        rounds = ", ".join(f"{s['round']:.0f}" for s in seeds)
        lines.append(
            f"| {name} | {mean['flow']:.2f} ({least:+.2f}) | {mean['gaussian']:.2f} | {mean['mixture']:.2f} | "
            f"{mean['zuko']:.2f} | {rounds} | {mean['cpu_seconds']:.0f} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only rewrite the table")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("overrides", nargs="*", help="of se-train: the figures are printed and not kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    file = HERE / "tables.json"
    if not arguments.table:
        import zuko
        from quality import machine

        found: dict[str, Any] = {}
        for name, rows in tables().items():
            found[name] = []
            for seed in range(arguments.seeds):
                found[name].append(measure(rows, seed, arguments.overrides))
                print(name, {k: round(v, 3) for k, v in found[name][-1].items()}, flush=True)
        content = {"machine": machine(), "zuko": zuko.__version__, "tables": found}
        if arguments.overrides or arguments.seeds != 5:
            print(table(content))
            return
        file.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    (HERE / "tables.md").write_text(table(json.loads(file.read_text())))


if __name__ == "__main__":
    main()
