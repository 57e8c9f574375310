r"""Scores: figures that judge samples against data, in user units, each with its size, its seed and its references.

A score is measured, never trained on. Each is returned as ``{"value", "unit", "n", "seed", "better"}`` and, where they
exist, ``"se"`` (standard error) and ``"references"`` (the same figure for real data or known laws of as many points, to
put the value in scale; ``_sd`` is the spread of one over draws). ``better`` is ``"lower"``, ``"higher"``, or
``"nearer"`` to the reference ``perfect``, or ``real`` where there is none:

* ``modes``, ``high_quality``: a sample is of high quality within three standard deviations of its nearest centre; a
  mode is captured if it is the nearest centre of a sample of high quality (Metz et al., "Unrolled GANs", 2017).
* ``w2``: the 2-Wasserstein distance :math:`\min_\pi \sqrt{\tfrac1n\sum_i|x_i-y_{\pi(i)}|^2}` to held-out data, exact.
* ``sliced_w2``: :math:`\sqrt{E_\theta W_2^2(\theta\cdot x, \theta\cdot y)}` over directions (Rabin et al., 2012).
* ``nll``: :math:`-\frac1n\sum_i\log p_\theta(x_i)` over held-out data, in nats, given the labels where there are some
  (its reference is then H(x | y)); for the dequantised digits beside Gaussians and mixtures, see
  :mod:`se_framework.evaluation.densities`.
* ``frechet``, ``nearest_train``: for the digits only, see :mod:`se_framework.evaluation.frechet`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from se_framework.data.base import Data
from se_framework.data.digits import DequantizedDigits, Digits
from se_framework.errors import DataError, NonFiniteError
from se_framework.evaluation.transport import EXACT, sliced_w2_and_error, unit_directions, w2_and_error
from se_framework.randomness import generator

# The cost of an exact assignment grows with the cube of the number of points.
ASSIGNMENT_POINTS = 1_000
POINTS = 10_000
DIRECTIONS = 500
NUMBERS = 2**20
"""Numbers of examples whose densities are computed together."""
# With few modes one pair of real samples can differ by twice as much as another: the reference is a mean over pairs.
REFERENCE_DRAWS = 5
QUALITY_SIGMAS = 3.0
# Beyond this many standard deviations between centres, other components add less than 1e-10 to a ball of three.
_SEPARATED_SIGMAS = 10.0

LogProb = Callable[..., Tensor]


def scores(
    data: Data, samples_user: Tensor, *, seed: int, model_log_prob: LogProb | None = None
) -> dict[str, dict[str, Any]]:
    r"""Judge samples against data.

    Args:
        data: the law that was to be learnt.
        samples_user: samples of the model in user units, shape (n, \*E).
        seed: selects held-out draws, subsets and directions; the figures are a function of it and of the samples.
        model_log_prob: log-density of the model *in model space* at points of model space, (n, \*E) to (n,), in
            torch's default type, with their labels as second argument where the data
            has some; None for an implicit model.

    Returns:
        One entry per score, as described above.

    Raises:
        DataError: the shape of the samples is not that of the data, or there are fewer than two.
        NonFiniteError: samples hold NaN or infinite values.
    """
    samples = _checked(data, samples_user)
    found: dict[str, dict[str, Any]] = {}
    if data.modes is not None and data.mode_sigma is not None:
        found |= _mode_scores(data, samples, seed)
    found |= _transport_scores(data, samples, seed)
    if model_log_prob is not None:
        found["nll"] = _nll(data, model_log_prob, seed)
    if isinstance(data, Digits):
        found |= _digit_scores(data, samples, seed)
    return found


def modes(samples: Tensor, centres: Tensor, sigma: float) -> tuple[int, float]:
    r"""Count captured modes and the share of samples of high quality.

    Args:
        samples: shape (n, \*E).
        centres: shape (K, \*E).
        sigma: standard deviation common to the components.

    Returns:
        The number of captured modes, and the share in [0, 1].
    """
    nearest = torch.cdist(samples.double().flatten(1), centres.double().flatten(1), compute_mode=EXACT).min(1)
    good = nearest.values <= QUALITY_SIGMAS * sigma
    return len(nearest.indices[good].unique()), float(good.double().mean())


def _mode_scores(data: Data, samples: Tensor, seed: int) -> dict[str, dict[str, Any]]:
    assert data.modes is not None and data.mode_sigma is not None
    count, share = modes(samples, data.modes, data.mode_sigma)
    real = data.to_user(data.held_out(POINTS, seed).x.double())
    references = {"real": modes(real, data.modes, data.mode_sigma)[1]}
    flat = data.modes.double().flatten(1)
    if len(flat) < 2 or float(torch.pdist(flat).min()) >= _SEPARATED_SIGMAS * data.mode_sigma:
        # The chi-square law with d degrees of freedom at 3^2; 0.98889 in the plane.
        half = torch.tensor([flat.shape[1] / 2, QUALITY_SIGMAS**2 / 2], dtype=torch.float64)
        references["perfect"] = float(torch.special.gammainc(half[0], half[1]))
    entry = {"n": len(samples), "seed": seed}
    se = (share * (1 - share) / len(samples)) ** 0.5
    known = {"all": float(len(flat))}
    return {
        "modes": {"value": float(count), "unit": "modes", "better": "higher", **entry, "references": known},
        "high_quality": {
            "value": share,
            "se": se,
            "unit": "share",
            "better": "nearer",
            **entry,
            "references": references,
        },
    }


def _transport_scores(data: Data, samples: Tensor, seed: int) -> dict[str, dict[str, Any]]:
    dim = torch.Size(data.event_shape).numel()
    available = POINTS if data.train_size is None else min(POINTS, data.train_size)
    held_out = data.to_user(data.held_out(min(available, len(samples)), seed).x.double())
    n = len(held_out)
    samples = samples[torch.randperm(len(samples), generator=generator(seed, 0, "scores/subset"))[:n]]
    m = n if dim == 1 else min(n, ASSIGNMENT_POINTS)
    directions = unit_directions(DIRECTIONS, dim, generator(seed, 0, "scores/directions"))
    few = directions[: DIRECTIONS // REFERENCE_DRAWS]
    real_w2, real_sliced = [], []
    for i in range(REFERENCE_DRAWS):
        # Training points are real points disjoint from the held-out ones.
        real = data.to_user(data.batch(i * n, n, seed).x.double())
        other = data.to_user(data.held_out(n, seed + i).x.double())
        real_w2.append(w2_and_error(real[:m], other[:m])[0])
        if dim > 1:
            real_sliced.append(sliced_w2_and_error(real, other, few)[0])

    def entry(found: tuple[float, float], size: int, real: list[float]) -> dict[str, Any]:
        spread = torch.tensor(real, dtype=torch.float64)
        references = {"real_vs_real": float(spread.mean()), "real_vs_real_sd": float(spread.std())}
        (value, se), settings = found, {"n": size, "seed": seed, "better": "lower", "unit": "unit of the data"}
        return {"value": value, "se": se, **settings, "references": references}

    found = {"w2": entry(w2_and_error(samples[:m], held_out[:m]), m, real_w2)}
    if dim > 1:
        found["sliced_w2"] = entry(sliced_w2_and_error(samples, held_out, directions), n, real_sliced)
    return found


def _nll(data: Data, model_log_prob: LogProb, seed: int) -> dict[str, Any]:
    held_out = data.held_out(min(POINTS, 32 * max(1, NUMBERS // torch.Size(data.event_shape).numel())), seed)
    x, labels = held_out.x, held_out.context
    part = max(1, min(2_000, NUMBERS // x[0].numel()))
    pieces = [x.split(part)] if labels is None else [x.split(part), labels.split(part)]
    log_prob = (
        torch.cat([model_log_prob(*piece).detach().cpu().double() for piece in zip(*pieces, strict=True)])
        - data.log_scale
    )
    if log_prob.shape != (len(x),):
        raise ValueError(f"model_log_prob must return one number per point: ({len(x)},), got {tuple(log_prob.shape)}")
    # A density that vanishes on held-out data gives an infinite likelihood: a finding, not a failure.
    entry: dict[str, Any] = {"value": -float(log_prob.mean()), "n": len(x), "seed": seed, "better": "lower"}
    entry["unit"] = "nats"
    entry["se"] = float(log_prob.std() / len(x) ** 0.5) if len(x) > 1 else float("nan")
    entropy = data.entropy if labels is None else data.conditional_entropy
    if entropy is not None:
        entry["references"] = {"entropy": entropy}
    if isinstance(data, DequantizedDigits) and labels is None:
        from se_framework.evaluation import densities

        entry["references"] = dict(densities.references())
    return entry


def _digit_scores(data: Digits, samples: Tensor, seed: int) -> dict[str, dict[str, Any]]:
    from se_framework.evaluation import frechet

    samples = samples[: frechet.SAMPLES]
    distance = frechet.nearest_train(samples)[0]
    real = frechet.nearest_train(data.to_user(data.rest))[0]
    entry = {"n": len(samples), "seed": seed, "better": "lower"}
    return {
        "frechet": {
            "value": frechet.frechet(samples),
            **entry,
            "unit": "squared unit of the features",
            "references": dict(frechet.references(len(samples))),
            "accuracy": frechet.classifier().accuracy,
        },
        "nearest_train": {
            "value": float(distance.mean()),
            "se": float(distance.std() / len(distance) ** 0.5),
            **entry,
            "unit": "unit of the data",
            # Below the figure of real digits the samples are copies, not better.
            "references": {"real": float(real.mean())},
        },
    }


def _checked(data: Data, samples: Tensor) -> Tensor:
    if tuple(samples.shape[1:]) != tuple(data.event_shape) or samples.ndim == 0 or len(samples) < 2:
        raise DataError(
            f"samples of {data.name} need shape (n, {', '.join(map(str, data.event_shape))}) with n >= 2, "
            f"got {tuple(samples.shape)}"
        )
    samples = samples.detach().cpu().double()
    bad = int((~torch.isfinite(samples.flatten(1))).any(1).sum())
    if bad:
        raise NonFiniteError(f"{bad} of {len(samples)} samples hold NaN or infinite values; the run has diverged")
    return samples
