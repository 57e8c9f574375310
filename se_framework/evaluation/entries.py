"""From measures to entries: each score as value, error, size, seed, unit and references."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from se_framework.data.base import Data
from se_framework.evaluation import densities, known_modes, likelihood
from se_framework.evaluation import frechet as gaussians
from se_framework.evaluation.copies import nearest, share_of_training
from se_framework.evaluation.judged import Judged
from se_framework.evaluation.pair import Figure, Pair
from se_framework.evaluation.transport import sliced_w2_and_error, w2_and_error

Entry = dict[str, Any]
ROWS, SAMPLES = 10_000, 1_000
"""Training rows, and samples, at most, of which copies are looked for; both fewer where points are wide."""
PRODUCTS = 2**32
WIDE = 1_024
"""Coordinates up to which a Gaussian with full covariance is a reference."""


# -- of two samples ---------------------------------------------------------------------------------------------------


def w2(pair: Pair) -> Figure:
    """Return the exact W2 distance: of some points, of all on a line."""
    m = len(pair.x) if pair.x[0].numel() == 1 else min(len(pair.x), pair.assigned)
    return Figure(*w2_and_error(pair.x[:m], pair.y[:m], pair.errors), m)


def sliced_w2(pair: Pair) -> Figure:
    """Return the sliced W2 distance."""
    return Figure(*sliced_w2_and_error(pair.x, pair.y, pair.directions), len(pair.x))


def of_figure(figure: Figure, references: dict[str, float]) -> Entry:
    """Return the entry of a figure of two samples."""
    known = references if figure.perfect is None else references | {"perfect": figure.perfect}
    return {"value": figure.value, "se": figure.se, "n": figure.n, **figure.more, "references": known}


# -- of known modes ---------------------------------------------------------------------------------------------------


def captured(judged: Judged) -> Entry:
    """Return how many modes are captured."""
    data = judged.data

    def found(x: Tensor) -> float:
        if data.mode_of is not None:
            return float(len(data.mode_of(x).unique()))
        return float(known_modes.modes(x, *_modes(data))[0])

    known = data.mode_weights if data.mode_of is not None else data.modes
    references = {} if known is None else {"all": float(len(known))}
    return {"value": found(judged.samples), "references": references | _of_mixture(judged, "modes", found)}


def high_quality(judged: Judged) -> Entry:
    """Return the share of samples of high quality."""
    data, (centres, sigma) = judged.data, _modes(judged.data)

    def share(x: Tensor) -> float:
        return known_modes.modes(x, centres, sigma)[1]

    real = data.to_user(data.held_out(judged.sizes.points, judged.seed).x.double())
    perfect = known_modes.perfect_quality(data)
    references = {"real": share(real)} | ({} if perfect is None else {"perfect": perfect})
    value = share(judged.samples)
    se = (value * (1 - value) / len(judged.samples)) ** 0.5
    return {"value": value, "se": se, "references": references | _of_mixture(judged, "high_quality", share)}


def mode_kl(judged: Judged) -> Entry:
    """Return the divergence of the shares of modes from what they should be."""
    weights, n = judged.data.mode_weights, len(judged.samples)
    assert weights is not None

    def found(x: Tensor) -> tuple[float, float]:
        if judged.data.mode_of is None:
            return known_modes.mode_kl(known_modes.counts(x, _modes(judged.data)[0]), weights)
        return known_modes.mode_kl(torch.bincount(judged.data.mode_of(x), minlength=len(weights)), weights)

    references = {"perfect": known_modes.perfect_mode_kl(n, weights)}
    references |= _of_mixture(judged, "mode_kl", lambda x: found(x)[0])
    value, se = found(judged.samples)
    return {"value": value, "se": se, "references": references}


def _modes(data: Data) -> tuple[Tensor, float]:
    assert data.modes is not None and data.mode_sigma is not None
    return data.modes, data.mode_sigma


def _of_mixture(
    judged: Judged, name: str, measure: Callable[[Tensor], float], most: int | None = None
) -> dict[str, float]:
    """Return the score of samples of the mixture, as many as there are of the model, or are looked at."""
    law, n = judged.mixture, len(judged.samples) if most is None else most
    return {} if law is None else judged.reference(name, n, lambda: {"mixture": measure(law.sample(n))})


# -- of copies --------------------------------------------------------------------------------------------------------


def memorised(judged: Judged) -> Entry:
    """Return the share of samples that are nearer to a training row than to all held-out ones."""
    data, n, rows = judged.data, *_looked_at(judged)
    train = data.to_model(judged.train(rows)).flatten(1)
    apart = data.held_out(max(1, rows // 4), judged.seed).x.double().cpu().flatten(1)

    def share(x: Tensor) -> tuple[float, float]:
        return share_of_training(data.to_model(x[:n]).flatten(1), train, apart)

    value, se = share(judged.samples)
    references = {"perfect": len(train) / (len(train) + len(apart))}
    references |= _of_mixture(judged, "memorised", lambda x: share(x)[0], n)
    return {"value": value, "se": se, "n": n, "rows": len(train), "references": references}


def nearest_train(judged: Judged) -> Entry:
    """Return the mean distance to the nearest training row."""
    n, rows = _looked_at(judged, judged.sizes.points)
    train = judged.train(rows).flatten(1)

    def distance(x: Tensor) -> Tensor:
        return nearest(x[:n].flatten(1), train)[0]

    found = distance(judged.samples)
    se = float(found.std() / n**0.5)
    # Below the figure of real rows the samples are copies, not better.
    real = judged.data.to_user(judged.data.held_out(n, judged.seed).x.double()).cpu()
    references = {"real": float(distance(real).mean())}
    references |= _of_mixture(judged, "nearest_train", lambda x: float(distance(x).mean()), n)
    return {"value": float(found.mean()), "se": se, "n": n, "rows": len(train), "references": references}


def _looked_at(judged: Judged, most: int = SAMPLES) -> tuple[int, int]:
    """Return of how many samples, and among how many rows, copies are looked for."""
    size = judged.samples[0].numel()
    n = min(most, len(judged.samples), max(2, int((PRODUCTS / 8 / size) ** 0.5)))
    return n, max(2, min(ROWS, PRODUCTS // (n * size)))


# -- of features and densities ----------------------------------------------------------------------------------------


def frechet(judged: Judged) -> Entry:
    """Return the Frechet distance of the features to those of all held-out rows."""
    data, features = judged.data, judged.data.features
    assert features is not None
    most = judged.sizes.points
    real = features(data.to_user(data.held_out(most, judged.seed).x.double()))
    samples = features(judged.samples[:most])
    n = len(samples)

    def distance(x: Tensor) -> float:
        return gaussians.frechet_distance(features(x[:n]), real)

    def references() -> dict[str, float]:
        rows = data.to_user(judged.rows.x.double()).cpu()
        found = {}
        if rows[0].numel() <= WIDE:
            drawn = gaussians.fitted_gaussian(rows.flatten(1), n)
            found["gaussian"] = distance(drawn.unflatten(1, data.event_shape))
        if judged.mixture is not None:
            found["gaussian_mixture"] = distance(judged.mixture.sample(n))
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        return found | {"real_vs_real": distance(rows[order])}

    return {
        "value": gaussians.frechet_distance(samples, real),
        "se": gaussians.frechet_error(samples, real),
        "n": n,
        "references": judged.reference("frechet", n, references),
        "features": features.name,
        **({} if features.accuracy is None else {"accuracy": features.accuracy}),
    }


def nll(judged: Judged) -> Entry:
    """Return the held-out negative log-likelihood."""
    data, held = judged.data, judged.held
    known: dict[str, float] = {}
    entropy = likelihood.entropy_of(data, held.labels)
    if entropy is not None:
        known["entropy"] = entropy
    if held.labels is None and data.support == (0.0, 1.0):
        known |= densities.references(data)
    elif held.labels is None and data.train_size is not None:
        known |= judged.reference("nll", held.n, lambda: densities.of_rows(data, judged.sizes.points, judged.seed))
    elif held.labels is None and judged.mixture is not None and judged.mixture.has_log_prob:
        known["mixture"] = -float(judged.mixture.log_prob(data.to_user(held.x.double()).cpu()).mean())
    more = {} if data.transform is None else {"transform": data.transform.name}
    return _of_mean(held.nll(), known) | more


def bits_per_dim(judged: Judged) -> Entry:
    """Return the held-out negative log-likelihood of the values, at most, in bits per coordinate."""
    entry = nll(judged)
    found = {key: likelihood.bits_per_dim(value, judged.data) for key, value in entry.get("references", {}).items()}
    size = torch.Size(judged.data.event_shape).numel()
    return entry | {
        "value": likelihood.bits_per_dim(entry["value"], judged.data),
        "se": entry["se"] / (size * math.log(2)),
        "references": found,
    }


def kl(judged: Judged) -> Entry:
    """Return KL(p_d || p_theta)."""
    held, law = judged.held, judged.mixture
    known = {"perfect": 0.0}
    if law is not None and law.has_log_prob and held.labels is None:
        x = judged.data.to_user(held.x.double()).cpu()
        known["mixture"] = held.kl(law.log_prob(x)).value
    return _of_mean(held.kl(), known)


def reverse_kl(judged: Judged) -> Entry:
    """Return KL(p_theta || p_d)."""
    data, log_prob, most, law = judged.data, judged.model_log_prob, judged.sizes.points, judged.mixture
    assert log_prob is not None
    x = judged.samples[:most]
    known = {"perfect": 0.0}
    if law is not None and law.has_log_prob:
        drawn = law.sample(len(x))
        known["mixture"] = float((law.log_prob(drawn) - data.log_prob(drawn).cpu()).mean())
    own = likelihood.log_density(data, log_prob, data.to_model(x).to(data.dtype), None)
    return _of_mean(likelihood.mean(own - data.log_prob(x).cpu()), known)


def _of_mean(found: likelihood.Mean, references: dict[str, float]) -> Entry:
    return {"value": found.value, "se": found.se, "n": found.n, **({"references": references} if references else {})}
