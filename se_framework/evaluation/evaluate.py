r"""Evaluation of a trained equation: the data's scores, and the dual's value on held-out data.

The held-out value of T says how far p_theta is from p_d *as this metric sees it*: with an unrestricted metric it is a
lower bound of :math:`\beta D(p_d, p_\theta)`, tight at the optimal critic.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from models.laws import Particles
from se_framework.assembly import Assembly, EnsembleAssembly
from se_framework.ensemble import averaged
from se_framework.equation.equation import StandardEquation
from se_framework.equation.legality import show
from se_framework.equation.units import cost_factor, total_shift
from se_framework.errors import ConfigError, nearest
from se_framework.evaluation.scores import scores
from se_framework.randomness import generator
from se_framework.runs.directory import LOSS

CHUNKS = 10
"""Parts of the sample whose spread gives a standard error where T is not a sum over examples."""
SCORES = ("modes", "high_quality", "w2", "sliced_w2", "nll", "frechet", "nearest_train", "held_out_value")
"""Every score there is; which of them a run has depends on its data and model."""
PAIRWISE = 2000
"""Points at most where D compares every pair: its time and memory grow with their square."""


def evaluate(assembly: Assembly, n: int = 10_000, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Return every score of the trained model, and the held-out value of T.

    Args:
        assembly: trained objects.
        n: model samples, and held-out examples at most.
        seed: of the evaluation, independent of training.
    """
    samples = assembly.sample(n, seed)
    log_prob = None
    if assembly.state.equation.model.has_log_prob:
        log_prob = partial(log_density, assembly)
    found = scores(assembly.data, samples, seed=seed, model_log_prob=log_prob)
    return found | {"held_out_value": held_out_value(assembly, n, seed)}


def log_density(assembly: Assembly, x: Tensor, context: Tensor | None = None) -> Tensor:
    """Return the trained model's log-density at points x of model space (given their labels), shape (N,), in nats."""
    like = next(assembly.state.equation.model.parameters())
    with torch.no_grad():
        labels = None if context is None else context.to(like.device)
        return assembly.model(labels).log_prob(x.to(like.device, like.dtype)).double().cpu()


def held_out_value(assembly: Assembly, n: int, seed: int) -> dict[str, Any]:
    """Return T on held-out data and fresh samples, with standard error, direction of the bound, n and seed."""
    equation, data = assembly.equation, assembly.data
    like = next(equation.model.parameters())
    n = min(n, PAIRWISE) if equation.auxiliary.uses in ("primal", "transport") and equation.uses_samples else n
    held_out = data.held_out(n, seed=seed).to(like.device, like.dtype)
    x = Particles(held_out, context=data.held_out_labels(n, seed, like.device) if data.classes else None)
    p = equation.sample(len(held_out), generator(seed, 1, "held-out noise", like.device), x.context)
    factor = cost_factor(equation, data)
    with torch.no_grad():
        value, error = _value_and_error(equation, x, p)
    scale = 1.0 if factor is None else factor
    entry = {"value": value * scale + total_shift(equation, data), "n": len(held_out), "seed": seed}
    if error is not None:
        entry["se"] = error * scale
    return entry | {"bound": bound(equation), "unit": _unit(equation) + (", standardised" if factor is None else "")}


def bound(equation: StandardEquation) -> str:
    """Return what the held-out value of T is, in words, summand by summand."""
    d = type(equation.divergence).__name__
    more = "".join(f" + {w:g} x ({bound(other)})" for _, w, other in equation.summands())
    if equation.divergence.surrogate:
        return f"phi's side of the surrogate {equation.divergence.extra_repr().partition(',')[0]}, no divergence{more}"
    if equation.auxiliary.uses == "primal":
        sampled = equation.divergence.primal_needs == "samples" and not getattr(equation.divergence, "unbiased", False)
        return f"estimate of beta {d}(p_d, p_theta)" + ", biased upward by sampling" * sampled + more
    target = f"{'-alpha H(p_d) + ' if equation.alpha > 0 else ''}beta {d}(p_d, p_theta)"
    if equation.auxiliary.uses == "transport":
        return f"not a bound: beta {d}(p_d, p_theta) by a dual that what the search for sup_y misses raises{more}"
    metric = equation.metric
    assert metric is not None
    if equation.divergence.needs_lipschitz and metric.function_class != "1-Lipschitz by construction":
        detail = "" if metric.penalty is None else f" ({show(metric.penalty)}; see its docstring for the bias)"
        return f"not a bound: {target} with a metric {metric.function_class}{detail}{more}"
    return f"lower bound of {target}" + ("" if _exact(equation) else ", biased upward by sampling") + more


def _unit(equation: StandardEquation) -> str:
    degree = equation.divergence.cost_degree
    return equation.divergence.unit if degree == 0 else "unit of the data" + ("" if degree == 1 else f" ** {degree:g}")


def _exact(equation: StandardEquation) -> bool:
    """Whether the minimum over q is a mean over examples, so that a sample's is unbiased."""
    additive = equation.divergence.additive_dual and not equation.auxiliary.needs_mass_one
    return equation.auxiliary.uses == "dual" and additive


def _additive(equation: StandardEquation) -> bool:
    """Whether T is a sum over examples, so that their spread gives its standard error."""
    return not equation.weights and _exact(equation)


def _value_and_error(equation: StandardEquation, data: Particles, p: Particles | None) -> tuple[float, float | None]:
    """Return T and its standard error: by the spread of examples where T is additive, else by that of chunks.

    The error is None where there are too few examples to tell.
    """
    total, x = equation.terms(data, p).total, data.x
    weighted = p is not None and p.log_weights is not None
    if _additive(equation) and equation.metric is not None and p is not None and not weighted and len(x) > 1:
        f = equation.f(equation.metric(x, data.context).double())
        conjugate = equation.beta * equation.divergence.conjugate(equation.metric(p.x, p.context).double())
        return total, float((f.var() / len(f) + conjugate.var() / len(conjugate)).sqrt())
    chunks = min(CHUNKS, len(x) // 2)
    if weighted or chunks < 2:
        return total, None
    values = []
    for i in range(chunks):
        part = None if p is None else _every(p, i, chunks)
        values.append(equation.terms(_every(data, i, chunks), part).total)
    return total, float(torch.tensor(values, dtype=torch.float64).std() / chunks**0.5)


def _every(p: Particles, start: int, step: int) -> Particles:
    """Return each step-th of equally weighted particles."""
    log_prob, context = (None if t is None else t[start::step] for t in (p.log_prob, p.context))
    return Particles(p.x[start::step], log_prob=log_prob, context=context)


def chosen_name(found: dict[str, dict[str, Any]], name: str | None) -> str:
    """Return the name of the score that stands for a run: the one asked for, else the Frechet distance, else W2.

    Raises:
        ConfigError: there is no such score.
    """
    if name is None:
        return "frechet" if "frechet" in found else "w2"
    if name not in found:
        raise ConfigError(f"score={name}: this data and model have no such score: {nearest(name, found)}")
    return name


def score_row(assembly: Assembly) -> dict[str, float | str]:
    """Return the scores at this round, and beside them the one that ranks checkpoints, least first.

    Raises:
        ConfigError: the score the configuration names is none of this run's.
    """
    if isinstance(assembly, EnsembleAssembly):
        rows = [score_row(assembly.members[k]) for k in assembly.ensemble.alive]
        assembly.ensemble.score_rows = dict(zip(assembly.ensemble.alive, rows, strict=True))
        return averaged(rows)
    found = evaluate(assembly)
    name = chosen_name(found, assembly.config.score)
    loss = float(found[name]["value"]) * (-1 if found[name].get("better") == "higher" else 1)
    return {LOSS: loss, **{key: float(entry["value"]) for key, entry in found.items()}}


def evaluate_members(assembly: EnsembleAssembly) -> dict[str, dict[str, Any]]:
    """Return every score as mean and standard deviation over the living members, with each one's own."""
    found = {k: evaluate(assembly.members[k]) for k in assembly.ensemble.alive}
    summary: dict[str, dict[str, Any]] = {}
    for name, entry in next(iter(found.values())).items():
        values = torch.tensor([own[name]["value"] for own in found.values()], dtype=torch.float64)
        same: dict[str, Any] = {
            key: entry[key] for key in ("n", "seed", "better", "bound", "unit", "references") if key in entry
        }
        spread = {"sd": float(values.std())} if len(values) > 1 else {}
        members = {str(k): own[name]["value"] for k, own in found.items()}
        summary[name] = {"value": float(values.mean()), **spread, "members": members, **same}
    return summary


def score_lines(found: dict[str, dict[str, Any]]) -> list[str]:
    """Return one line per score, with standard error, references, n and seed beside it."""
    lines = []
    for name, entry in found.items():
        error = f" +- {entry['se']:.2g}" if "se" in entry else ""
        error = f" +- {entry['sd']:.2g} (sd of {len(entry['members'])} members)" if "sd" in entry else error
        rest = [f"{k} {v:.4g}" for k, v in entry.get("references", {}).items()]
        rest += [f"feature classifier's held-out accuracy {entry['accuracy']:.4f}"] if "accuracy" in entry else []
        rest += [f"{entry['bound']} [{entry['unit']}]"] if "bound" in entry else []
        beside = "; ".join([f"n {entry['n']}, seed {entry['seed']}", *rest])
        lines.append(f"{name:18} {entry['value']:.5g}{error}  ({beside})")
    return lines
