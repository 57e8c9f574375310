"""The rows of ``benchmarks/quality.py``: command, goal in words, and how the trained model is read."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

NEED_NO_SCORES = ("read_w1",)
"""Readers that look at the critic alone."""
Reader = Callable[[Any, dict[str, Any]], dict[str, float]]
RING = "data=ring8 model=mlp_generator metric=mlp_r1 loop.batch_size=256 loop.rounds=16000 players.theta.lr=1e-3"
UNIVARIATE = (
    "kl", "reverse_kl", "jensen_shannon", "squared_hellinger", "jeffreys", "pearson",
    "neyman", "softened_reverse_kl", "gan", "weighted_js", "alpha",
)  # fmt: skip
# alpha of order 1/2 is twice the squared Hellinger, gan twice Jensen-Shannon: the same games but for a factor.
RING8 = tuple(d for d in UNIVARIATE if d not in ("alpha", "gan"))
# f-GAN, table 1 (Nowozin et al. 2016): D of the trained model's bound, mean and standard deviation; JS there is 2 JSD.
PUBLISHED = {
    "kl": (0.2801, 1.0335, 1.8236),
    "reverse_kl": (0.2415, 1.5624, 1.6403),
    "jensen_shannon": (0.1226, 1.2854, 1.7659),
    "jeffreys": (0.5151, 1.2295, 1.8087),
    "pearson": (0.6379, 0.6157, 1.9031),
}


class Outcome(NamedTuple):
    """What became of a command under one seed.

    Attributes:
        figures: as they were read.
        seconds: of training.
        cpu_seconds: of training, of the processor.
        rounds: that were wanted.
    """

    figures: dict[str, float]
    seconds: float
    cpu_seconds: float
    rounds: int


def one(command: str, read: Reader, seed: int, more: Sequence[str] = (), n: int = 10_000) -> Outcome:
    """Train a command under a seed and return what became of it.

    Args:
        command: the words after ``se-train``.
        read: from the trained objects and their scores to the figures.
        seed: of the run.
        more: further overrides.
        n: examples of the scores.
    """
    import se_framework as se
    from se_framework.errors import NonFiniteError
    from se_framework.evaluation.evaluate import evaluate

    quiet = [f"seed={seed}", "progress=false", "loop.log_every=0"]
    assembly = se.compose(None, [*command.split(), *quiet, *more])
    started, cpu_started = time.monotonic(), time.process_time()
    stopped = {}
    try:
        assembly.train()
    except NonFiniteError as error:  # the last good state is judged, and the row says where it stopped
        stopped = {"stopped_at_round": float(assembly.state.round)}
        print(f"  seed {seed}: {error}", flush=True)
    seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu_started
    found = {} if read.__name__ in NEED_NO_SCORES else evaluate(assembly, n)
    return Outcome(read(assembly, found) | stopped, seconds, cpu_seconds, assembly.config.loop.rounds)


def optimum(name: str) -> tuple[float, float, float]:
    """Return mean, standard deviation and D of the best Gaussian for f-GAN's mixture, by quadrature alone."""
    import numpy as np
    from scipy.optimize import minimize

    x = np.linspace(-25, 30, 110_001)
    step = x[1] - x[0]

    def log_normal(m: float, s: float) -> Any:
        return -0.5 * ((x - m) / s) ** 2 - math.log(s * math.sqrt(2 * math.pi))

    log_p = np.logaddexp(math.log(0.33) + log_normal(-1, 0.25), math.log(0.67) + log_normal(2, math.sqrt(2)))
    p = np.exp(log_p)

    def divergence(t: Any) -> float:
        log_q = log_normal(t[0], math.exp(t[1]))
        q, ratio = np.exp(log_q), log_p - log_q
        log_m = np.logaddexp(log_p, log_q) - math.log(2)
        log_w = np.logaddexp(math.log(0.3) + log_p, math.log(0.7) + log_q)
        kl, reverse = (p * ratio).sum(), -(q * ratio).sum()
        value = {
            "kl": kl, "reverse_kl": reverse, "jeffreys": kl + reverse,
            "jensen_shannon": ((p * (log_p - log_m)).sum() + (q * (log_q - log_m)).sum()) / 2,
            "squared_hellinger": ((np.sqrt(p) - np.sqrt(q)) ** 2).sum(),
            "pearson": np.exp(np.minimum(2 * log_p - log_q, 700)).sum() - 1 / step,
            "neyman": np.exp(np.minimum(2 * log_q - log_p, 700)).sum() - 1 / step,
            "softened_reverse_kl": 2 * (np.exp(log_m) * (log_m - log_p)).sum(),
            "gan": ((p * (log_p - log_m)).sum() + (q * (log_q - log_m)).sum()) - math.log(4) / step,
            "weighted_js": 0.3 * (p * (log_p - log_w)).sum() + 0.7 * (q * (log_q - log_w)).sum(),
            "alpha": -4 * (np.exp((log_p + log_q) / 2).sum() - 1 / step),
        }[name]  # fmt: skip
        return float(value * step)

    best = minimize(divergence, [1.0, math.log(1.8)], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10})
    return float(best.x[0]), math.exp(best.x[1]), float(best.fun)


def tilted(assembly: Any, found: dict[str, Any]) -> dict[str, float]:
    """Read the fit's errors, and that of the total against -alpha H(p_d) + beta KL by quadrature."""
    import numpy as np

    row = univariate("kl")(assembly, found)
    value = row.pop("D")
    row.pop("D_error_percent")
    x = np.linspace(-25, 30, 110_001)
    p = 0.33 * np.exp(-8 * (x + 1) ** 2) / math.sqrt(math.pi / 8) + 0.67 * np.exp(-((x - 2) ** 2) / 4) / math.sqrt(
        4 * math.pi
    )
    entropy = -float((p * np.log(p + 1e-300)).sum() * (x[1] - x[0]))
    truth = -assembly.config.equation.alpha * entropy + assembly.config.equation.beta * optimum("kl")[2]
    return row | {"total": value, "total_truth": truth, "total_error_percent": 100 * abs(value / truth - 1)}


def scores_of(*names: str) -> Reader:
    """Return a reader of the named scores."""
    return lambda assembly, found: {name: found[name]["value"] for name in names}


def univariate(name: str) -> Reader:
    """Return a reader of the fit's errors against the quadrature optimum."""

    def read(assembly: Any, found: dict[str, Any]) -> dict[str, float]:
        from se_framework.evaluation.held_out import held_out_value

        mean, std, least = optimum(name)  # takes seconds: not before it is needed
        x = assembly.sample(1_000_000, seed=1).double()
        value = held_out_value(assembly, 1_000_000, seed=1)["value"]
        return {
            "mean": float(x.mean()), "std": float(x.std()), "D": value,
            "mean_error_percent": 100 * abs(float(x.mean()) - mean) / std,
            "std_error_percent": 100 * abs(float(x.std()) / std - 1), "D_error_percent": 100 * abs(value / least - 1),
        }  # fmt: skip

    return read


def wasserstein(truth: float) -> Reader:
    """Return a reader of the relative error of the estimated W1."""

    def read_w1(assembly: Any, found: dict[str, Any]) -> dict[str, float]:
        from se_framework.evaluation.held_out import held_out_value

        value = held_out_value(assembly, 200_000, seed=1)["value"]
        return {"W1": value, "W1_error_percent": 100 * (value / truth - 1)}

    return read_w1


def digits(assembly: Any, found: dict[str, Any]) -> dict[str, float]:
    """Read the digits' scores with their references."""
    frechet, nearest = found["frechet"], found["nearest_train"]
    references = {f"frechet_{k}": v for k, v in frechet["references"].items()}
    row = {"frechet": frechet["value"], **references, "nearest_train": nearest["value"]}
    return row | {"nearest_train_real": nearest["references"]["real"]}


def log_likelihood(assembly: Any, found: dict[str, Any]) -> dict[str, float]:
    """Read the held-out log-likelihood in nats with its references."""
    entry = found["nll"]
    return {"log_likelihood": -entry["value"], **{k: -v for k, v in entry["references"].items()}}


def clipped() -> list[tuple[str, str, Reader]]:
    """Return the rows of clipped and spectrally normalised critics between two fixed clouds."""
    fixed = (
        "experiment=wgan_gp model=affine model.init_scale=1 players.theta.steps=0 loop.batch_size=512 loop.rounds=400"
    )
    target = "data._target_=se_framework.data.GaussianMixture"
    shift = (f"{target} +data.means=[[1.0,0.0]] +data.sigmas=[1.0]", 1.0)
    scale = (f"{target} +data.means=[[0.0,0.0]] +data.sigmas=[2.0]", math.sqrt(math.pi / 2))
    kinds = [("metric=mlp_clip", f"metric.clip={c}") for c in (0.01, 0.1)] + [("metric=spectral", "")]
    return [
        (" ".join(f"{fixed} {kind} {option} metric.network.width={w} metric.network.depth={k} {cloud}".split()),
         f"its bias: W1 = {truth:.4f}", wasserstein(truth))
        for kind, option in kinds for w in (32, 128) for k in (1, 3) for cloud, truth in (shift, scale)
    ]  # fmt: skip


def groups() -> dict[str, list[tuple[str, str, Reader]]]:
    """Return every group of rows: command, goal in words, reader."""
    modes = scores_of("modes", "high_quality")
    ring = [
        ("experiment=vanilla_gan", "8 modes, high quality >= 0.95", modes),
        ("experiment=nonsaturating_gan", "8 modes, high quality >= 0.95", modes),
        (f"experiment=fgan divergence=kl {RING}", "8 modes, high quality >= 0.93", modes),
        ("experiment=wgan_gp", "8 modes, high quality >= 0.85", modes),
    ]
    fit = [
        (f"experiment=fgan divergence={d}", "mean, std within 2 %, D within 3 %, of quadrature", univariate(d))
        for d in UNIVARIATE
    ]
    own = "experiment=fgan divergence=pearson divergence@players.phi.view=pearson"
    fit.append((own, "the same by its own dual", univariate("pearson")))
    critic = (
        "experiment=wgan_gp model=affine model.init_scale=1 players.theta.steps=0 loop.batch_size=512 loop.rounds=800"
    )
    target = "data._target_=se_framework.data.GaussianMixture"
    one_sided, two_sided = "metric=mlp_gradient_penalty_one_sided", "metric=mlp_gradient_penalty"
    shifts = []
    for metric, dimensions, goal in (
        ("metric=groupsort", (1, 2, 16), "within 3 %"),
        (f"{one_sided} metric.penalty.weight=100", (1, 2, 16), "within 3 % (derived: +{:.1f} %)"),
        (one_sided, (1, 2, 16), "the derived bias, +{:.1f} %"),
        (f"{two_sided} metric.penalty.weight=100", (1, 2, 16), "within 3 % (derived: +{:.1f} %)"),
    ):
        for d in dimensions:
            for shift in (1, 4):
                means = f"[[{','.join([str(shift)] + ['0'] * (d - 1))}]]"
                weight = 100 if "weight=100" in metric else 10
                command = f"{critic} {metric} {target} +data.means={means} +data.sigmas=[1.0]"
                shifts.append((command, goal.format(50 * shift / weight), wasserstein(shift)))
    scales = [
        (
            f"{critic} {metric} {target} +data.means=[[0.0]] +data.sigmas=[2.0]",
            goal,
            wasserstein(math.sqrt(2 / math.pi)),
        )
        for metric, goal in (
            ("metric=groupsort", "within 3 %"),
            (f"{one_sided} metric.penalty.weight=100", "within 3 %"),
            (f"{two_sided} metric.penalty.weight=100", "its failure, measured"),
        )
    ]
    grid = [
        ("experiment=wgan_gp data=grid25 loop.rounds=20000", "25 modes, high quality >= 0.90", modes),
        ("experiment=vanilla_gan data=grid25 loop.rounds=30000", "25 modes, high quality >= 0.95", modes),
    ]
    table = [
        (f"experiment=fgan divergence={d} {RING.replace('16000', '8000')}", "8 modes; the share is what it is", modes)
        for d in (*RING8, "total_variation")
    ]
    own = table[0][0] + " divergence@players.phi.view=kl"
    table.append((own, "the same by its own dual", modes))
    spline = "experiment=mle_flow model=spline_flow model.whiten=false loop.warmup=0"
    splines = [
        (f"{spline} data={data}", f"NLL <= {entropy:.4f} + {margin}", scores_of("nll"))
        for data, entropy, margin in (
            ("gaussians8", 2.831880, 0.02), ("ring8", -2.906727, 0.04), ("grid25", 0.065288, 0.10),
            ("checkerboard", 3.465736, 0.05),
        )
    ]  # fmt: skip
    flow = (
        f"{spline} model.support=unit model.bound=8 model.width=32 data=digits_dequantized optimizer=adamw "
        "optimizer.weight_decay=1.5 optimizer.lr=2e-3 loop.rounds=1000 loop.batch_size=256 "
        "players.theta.ema=0.99 loop.early_stop=null"
    )
    below = "Frechet below the Gaussian's"
    methods = [
        ("experiment=gmmn", below, digits),
        (
            "experiment=sinkhorn divergence=sinkhorn_w1 divergence.blur=4 divergence.scaling=0.8 data=digits "
            "model=mlp_generator_wide loop.rounds=3000",
            below,
            digits,
        ),
        ("experiment=wgan_gp data=digits metric=mlp_gradient_penalty loop.rounds=12000", below, digits),
        ("experiment=flow_gan", below, digits),
    ]
    goal = "mean, std as at alpha = 0 within 2 %, total within 3 % of -alpha H(p_d) + beta KL"
    return {
        "ring8": ring,
        "grid25": grid,
        "ring8_divergences": table,
        "univariate": fit,
        "w1_shift": shifts,
        "w1_scale": scales,
        "w1_clip": clipped(),
        "splines": splines,
        "digits_flow": [(flow, "above every Gaussian's and mixture's, in nats", log_likelihood)],
        "digits_methods": methods,
        "flow": [("experiment=mle_flow model=realnvp loop.warmup=0", "NLL <= 2.831880 + 0.08", scores_of("nll"))],
        "digits": [("experiment=digits", "Frechet below the Gaussian's", digits)],
        "tilted": [("experiment=tilted", goal, tilted)],
    }
