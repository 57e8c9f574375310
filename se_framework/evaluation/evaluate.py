"""Evaluation of a trained equation: the data's scores, and the value of its scalar on held-out data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from se_framework.assembly import Assembly, EnsembleAssembly
from se_framework.equation.modes import evaluating
from se_framework.errors import ConfigError, SEError, nearest
from se_framework.evaluation.held_out import held_out_value
from se_framework.evaluation.losses import loss_of
from se_framework.evaluation.scores import NAMES, POINTS, SHOWN, lacks, scores
from se_framework.evaluation.two_samples import two_sample_test
from se_framework.runs.directory import LOSS
from se_framework.training.draws import like
from se_framework.training.sampling import fitting, widest
from se_framework.training.state import TrainState

Result = TypeVar("Result")
KEPT = 2**25
"""Numbers of all examples that are in memory at once, and of the widest activation: 128 MiB in float32."""
HELD_OUT = "held_out_value"
VALIDATION = "validation"
"""The entry of ``summary.json`` by which a sweep may choose: ``loop.early_stop`` over rows neither trained on nor held
out. It is none of :data:`SCORES`, which judge."""
SCORES = (*NAMES, HELD_OUT)
"""Every score there is; which of them a run has depends on its data and model."""


def evaluate(
    assembly: Assembly, n: int | None = None, seed: int = 0, names: Sequence[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Return scores of the trained model, and the held-out value of T.

    What a part cannot compute is an entry without a value that says why; the others stand.

    Args:
        assembly: trained objects.
        n: model samples, and held-out examples at most; None for as many of 10,000 as keep memory flat.
        seed: of the evaluation, independent of training.
        names: of the scores; None for those that are shown, and the one that stands for the run. Those that this data
            and model do not have are left out.
    """
    wanted = shown(assembly) if names is None else tuple(names)
    at_once = n
    if n is None:
        equation = assembly.equation
        n = points_of(assembly)
        network = None if equation.metric is None else equation.metric.network
        at_once = fitting(KEPT, widest(equation.model, network), n)
    found: dict[str, dict[str, Any]] = {}
    if wanted != (HELD_OUT,):
        found = _of_samples(assembly, n, seed, wanted)
    if HELD_OUT in wanted:
        value, why = attempt(lambda: held_out_value(assembly, at_once or n, seed))
        found[HELD_OUT] = {"why": why, "n": n, "seed": seed} if value is None else value
        test, _ = attempt(lambda: two_sample_test(assembly, at_once or n, seed))
        found |= {"two_sample": test} if test is not None else {}
    return found


def points_of(assembly: Assembly) -> int:
    """Return how many samples are judged where nobody says: :data:`POINTS`, fewer of large examples."""
    return fitting(KEPT, assembly.equation.model.dimension, POINTS)


def _of_samples(assembly: Assembly, n: int, seed: int, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return scores of samples and of the density; where the density raises, why, and the scores of samples."""
    found: dict[str, dict[str, Any]] = {}
    samples, why = attempt(lambda: assembly.sample(n, seed))
    if samples is not None:
        of_samples, why = None, ""
        if has_density(assembly):
            log_prob = partial(log_density, assembly)
            of_samples, why = attempt(
                lambda: scores(assembly.data, samples, seed=seed, model_log_prob=log_prob, names=names)
            )
            if of_samples is None:
                found["nll"] = {"why": why, "n": n, "seed": seed}
        if of_samples is None:
            of_samples, why = attempt(lambda: scores(assembly.data, samples, seed=seed, names=names))
        found |= of_samples or {}
    return found | ({"samples": {"why": why, "n": n, "seed": seed}} if why else {})


def has_density(assembly: Assembly) -> bool:
    """Return whether the trained model says that it has a density."""
    return bool(assembly.state.equation.model.has_log_prob)


def shown(assembly: Assembly) -> tuple[str, ...]:
    """Return the names of the scores that are computed at the end of a run, or while it is trained."""
    chosen = judging(assembly.config.score)
    return (*SHOWN, HELD_OUT) if chosen is None else tuple(dict.fromkeys((*SHOWN, chosen, HELD_OUT)))


def judging(name: str | None) -> str | None:
    """Return the score over held-out rows that ``score=`` asks for; None where it asks for none."""
    return None if name == VALIDATION else name


def refuse_unknown(name: str | None, option: str = "score") -> None:
    """Refuse a name that no score has.

    Raises:
        ConfigError: see above.
    """
    if name is not None and name not in SCORES:
        raise ConfigError(f"{option}={name}: no such score; {nearest(name, SCORES)}")


def refuse_absent(assembly: Assembly, name: str | None, option: str = "score") -> None:
    """Refuse a score that this data and model do not have, before anything is trained.

    Raises:
        ConfigError: it says why.
    """
    why = "" if name in (None, HELD_OUT) else lacks(assembly.data, has_density(assembly), str(name))
    if why:
        raise ConfigError(f"{option}={name}: this data and model have no such score ({why}): choose another")


def attempt(compute: Callable[[], Result]) -> tuple[Result | None, str]:
    """Return what a computation gives, or None and why a part does not give it.

    Parts are users' code: what one of them does not have shall not take the rest of a finished run with it.
    """
    try:
        return compute(), ""
    except SEError:
        raise
    except Exception as error:  # noqa: BLE001  parts may raise anything
        kind = "" if isinstance(error, (ValueError, NotImplementedError)) else f"{type(error).__name__}: "
        return None, kind + (" ".join(str(error).split()) or type(error).__name__)


def log_density(assembly: Assembly, x: Tensor, context: Tensor | None = None) -> Tensor:
    """Return the trained model's log-density at points x of model space (given their labels), shape (N,), in nats."""
    model, kind = assembly.model, like(assembly.state.equation)
    points = x if model.discrete and not x.is_floating_point() else x.to(kind.dtype)
    labels = None if context is None else context.to(kind.device)
    with torch.no_grad(), evaluating(model):
        return model(labels).log_prob(points.to(kind.device)).double().cpu()


def chosen_name(found: dict[str, dict[str, Any]], name: str | None) -> str:
    """Return the name of the score that stands for a run: the one asked for, else Frechet, else W2, else T held out.

    Raises:
        ConfigError: there is no such score.
    """
    known = [key for key, entry in found.items() if "value" in entry]
    wanted = name or next((key for key in ("frechet", "w2") if key in known), "held_out_value")
    if wanted not in known:
        why = "; ".join(dict.fromkeys(entry["why"] for entry in found.values() if "why" in entry))
        reason = f" ({why})" if why else ""
        raise ConfigError(f"score={wanted}: this data and model have no such score{reason}: {nearest(wanted, known)}")
    return wanted


def score_row(assembly: Assembly, state: TrainState) -> dict[str, float | str]:
    """Return the scores of a run at this round, and beside them the one that ranks checkpoints, least first.

    Args:
        assembly: of the run, or of the ensemble that it is a member of.
        state: of the run.

    Raises:
        ConfigError: the score the configuration names is none of this run's.
    """
    own = next((member for member in getattr(assembly, "members", ()) if member.state is state), assembly)
    found = {name: entry for name, entry in evaluate(own).items() if "value" in entry}
    name = chosen_name(found, judging(assembly.config.score))
    return {LOSS: loss_of(found[name]), **{key: float(entry["value"]) for key, entry in found.items()}}


def evaluate_members(assembly: EnsembleAssembly) -> dict[str, dict[str, Any]]:
    """Return every score as mean and standard deviation over the living members that have it, with each one's own."""
    found = {k: evaluate(assembly.members[k]) for k in assembly.ensemble.living}
    summary: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for own in found.values() for name in own):
        entries = {k: own[name] for k, own in found.items() if name in own}
        known = {k: entry for k, entry in entries.items() if "value" in entry}
        if not known:
            summary[name] = next(iter(entries.values()))
            continue
        entry = next(iter(known.values()))
        values = torch.tensor([own["value"] for own in known.values()], dtype=torch.float64)
        same: dict[str, Any] = {
            key: entry[key] for key in ("n", "seed", "better", "bound", "unit", "references") if key in entry
        }
        spread = {"sd": float(values.std())} if len(values) > 1 else {}
        members = {str(k): own["value"] for k, own in known.items()}
        summary[name] = {"value": float(values.mean()), **spread, "members": members, **same}
    return summary


def warnings_of(found: dict[str, dict[str, Any]]) -> list[str]:
    """Return what scores warn of: a density that is worse than the fitted Gaussian, beyond its standard error."""
    entry = found.get("nll", {})
    gaussian = entry.get("references", {}).get("gaussian")
    if gaussian is None or "value" not in entry or entry["value"] <= gaussian + entry.get("se", 0.0):
        return []
    return [
        f"held-out rows are less likely under the model than under a Gaussian fitted to the training rows (NLL "
        f"{entry['value']:.4g} against {gaussian:.4g}): it has too few rows for its size, or learnt them by heart: set "
        "loop.early_stop=nll, or choose a smaller model"
    ]


BESIDE = {
    "accuracy": "feature classifier's held-out accuracy {:.4f}",
    "p_value": "p {:.2g}",
    "classifier": "{}",
    "kernel": "{}",
    "neighbours": "k {}",
    "rows": "{} training rows",
    "chosen_by": "{} over validation points, least is best",
}
"""What else a line says, by the key of its entry."""


def score_lines(found: dict[str, dict[str, Any]]) -> list[str]:
    """Return one line per score, with standard error, references, n and seed beside it."""
    lines = []
    for name, entry in found.items():
        if "value" not in entry:
            lines.append(f"{name:18} not computed  ({entry['why']})")
            continue
        error = f" +- {entry['se']:.2g}" if "se" in entry else ""
        error = f" +- {entry['sd']:.2g} (sd of {len(entry['members'])} members)" if "sd" in entry else error
        rest = [f"{k} {v:.4g}" for k, v in entry.get("references", {}).items()]
        rest += [text.format(entry[key]) for key, text in BESIDE.items() if key in entry]
        if "interval" in entry:
            rest.append(f"two standard errors: anything up to {entry['interval'][1]:.5g}")
        rest += [entry["bound"]] if "bound" in entry else []
        rest += [f"f_phi of {entry['of']}, steepest slope {entry['steepest']:.4g}"] if "of" in entry else []
        unit = f" [{entry['unit']}]" if "unit" in entry else ""
        beside = "; ".join([f"n {entry['n']}, seed {entry['seed']}", *rest])
        lines.append(f"{name:18} {entry['value']:.5g}{error}{unit}  ({beside})")
    return lines
