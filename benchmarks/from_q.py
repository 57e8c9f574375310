"""Samples of q beside those of p_theta: what the critic of a game that was stopped early still tells.

    python benchmarks/from_q.py             every row, seed by seed (two minutes of one core each); those there are kept
    python benchmarks/from_q.py --table     only rewrite benchmarks/quality/from_q.md from the results

Two short games: ``vanilla_gan`` (1500 rounds; on digits the experiment of that name) and ``wgan_gp`` (1000), batches of
128, theta averaged over a hundred rounds. After the first, with theta frozen, the critic alone goes on for 300 rounds
without its penalty, and another is trained for 400 on the dual of squared W2 (``divergence=optimal_transport
auxiliary=transported``): what is gained under these two is gained by training of a critic. Samples of p and of q
(``se-sample RUN_DIR from=q``) are judged by the same scores, 2000 of each; ``high_quality`` is the share within three
standard deviations of a mode. A row says what it was trained with; the first, of ring8, had 2000 rounds, 400 further
ones with the penalty, 800 of W2, and 4000 samples.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from pathlib import Path
from typing import Any

from quality import machine

HERE = Path(__file__).parent / "quality"
DATA = {"ring8": ("high_quality", "mode_kl", "sliced_w2"), "grid25": ("high_quality", "mode_kl", "sliced_w2"),
        "digits": ("frechet", "memorised")}  # fmt: skip
"""Data, and the scores there."""
GAMES = {"vanilla_gan": (1500, ("resample", "reject", "langevin")), "wgan_gp": (1000, ("transport",))}
"""Experiments: rounds, and the methods that their critics have."""
SEEDS, N = (0, 1, 2), 2000
PICTURE = ("grid25", "vanilla_gan", 0)
W2 = ["divergence=optimal_transport", "auxiliary=transported", "metric=mlp"]
FURTHER = (("critic trained on, no penalty", 300, [], ("resample", "reject", "langevin")),
           ("critic of W2", 400, W2, ("transport",)))  # fmt: skip
"""What is trained with theta frozen: rounds, overrides, methods."""


def words(data: str, game: str, seed: int, rounds: int) -> list[str]:
    """Return the words after ``se-train``."""
    experiment = "digits" if (data, game) == ("digits", "vanilla_gan") else game
    return [f"experiment={experiment}", f"data={data}", f"seed={seed}", f"loop.rounds={rounds}", "loop.batch_size=128",
            "loop.early_stop=null"]  # fmt: skip


def row(data: str, game: str, seed: int) -> dict[str, Any]:
    """Play one game, and return the scores of p and of q under both critics."""
    import se_framework as se

    rounds, methods = GAMES[game]
    started, quiet = time.process_time(), ["progress=false", "loop.log_every=0", "device=cpu"]
    typed = [*words(data, game, seed, rounds), "players.theta.ema=0.99"]
    played = se.compose(None, [*typed, *quiet])
    played.train()
    samples = {"p": played.sample(N, seed)}
    figures = {"p": judged(played, samples["p"], seed)}
    for method in methods:
        figures[f"{method}, critic of the game"] = of_q(played, method, seed)
    for said, chosen, more, methods in FURTHER if game == "vanilla_gan" else ():
        parts = {"model": copy.deepcopy(played.equation.model)}
        if not more:
            parts["metric"] = copy.deepcopy(played.equation.metric)
            parts["metric"].penalty = None
        further = se.compose(
            None, [*words(data, game, seed, chosen), "players.theta.frozen=true", *more, *quiet], **parts
        )
        further.train()
        for method in methods:
            figures[f"{method}, {said}"] = of_q(further, method, seed, samples)
    if (data, game, seed) == PICTURE:
        picture(samples, HERE / f"from_q_{data}.png")
    seconds = time.process_time() - started
    return {"command": f"se-train {' '.join(typed)}", "data": data, "game": game, "seed": seed, "figures": figures,
            "cpu_seconds": seconds, "machine": machine()}  # fmt: skip


def judged(assembly: Any, x: Any, seed: int) -> dict[str, Any]:
    """Return the scores of samples."""
    from se_framework.evaluation.scores import scores

    found = scores(assembly.data, x, seed=seed, names=DATA[assembly.data.name])
    return {name: {"value": entry["value"], "se": entry.get("se")} for name, entry in found.items() if "value" in entry}


def of_q(assembly: Any, method: str, seed: int, kept: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the scores of samples of q, and what is said of how they came about; or why there are none."""
    from se_framework.errors import SEError

    try:
        drawn = assembly.sample_q(N, seed, method)
    except SEError as error:
        return {"why": str(error)}
    if kept is not None:
        kept[method] = drawn.x
    return judged(assembly, drawn.x, seed) | {"said": drawn.said}


def picture(samples: dict[str, Any], path: Path) -> None:
    """Draw samples of p beside those of q, of the critic that was trained on or of that of W2."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(samples), figsize=(3 * len(samples), 3.2), sharex=True, sharey=True)
    for axis, (name, x) in zip(axes, samples.items(), strict=True):
        axis.scatter(*x[:2000].T.numpy(), s=1, linewidths=0)
        axis.set(title=name, aspect="equal", xlim=(-5.5, 5.5), ylim=(-5.5, 5.5))
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    plt.close(figure)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = [
        "# Samples of q",
        "",
        "Written by `python benchmarks/from_q.py`: mean over seeds, +- the standard error of the mean "
        "over seeds, or of the score where there is one seed.",
        "",
        *(__doc__ or "").split("\n\n")[2].splitlines(),
        "",
    ]
    for data, names in DATA.items():
        for game in GAMES:
            of = [found for found in rows if (found["data"], found["game"]) == (data, game)]
            if not of:
                continue
            lines += [f"## {data}, {game}: {len(of)} seed(s)", "", f"`{of[0]['command']}`", ""]
            lines += [
                f"| samples | {' | '.join(names)} | said, seed {of[0]['seed']} |",
                "|---" * (len(names) + 2) + "|",
            ]
            for kind in of[0]["figures"]:
                found = [one["figures"][kind] for one in of]
                said = found[0].get("said", found[0].get("why", ""))
                lines.append(f"| {kind} | {' | '.join(shown(found, name) for name in names)} | {said} |")
            lines.append("")
    return "\n".join(lines)


def shown(found: list[dict[str, Any]], name: str) -> str:
    """Return mean and standard error of a score over seeds."""
    values = [one[name]["value"] for one in found if name in one]
    if not values:
        return "none"
    alone = found[0].get(name, {}).get("se")
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else alone
    some = "" if len(values) == len(found) else f" ({len(values)} of {len(found)} seeds)"
    return f"{statistics.mean(values):.4g}" + ("" if error is None else f" +- {error:.2g}") + some


def main() -> None:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only rewrite the table")
    arguments = parser.parse_args()
    file = HERE / "from_q.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    there = {(found["data"], found["game"], found["seed"]) for found in rows}
    every = [(data, game, seed) for seed in SEEDS for game in GAMES for data in DATA]
    for key in () if arguments.table else [key for key in every if key not in there]:
        rows.append(row(*key))
        print(key, rows[-1]["cpu_seconds"], json.dumps(rows[-1]["figures"], indent=1), flush=True)
        file.write_text(json.dumps(rows, indent=1) + "\n")
    (HERE / "from_q.md").write_text(table(rows))


if __name__ == "__main__":
    main()
