r"""Scores: figures that judge samples against data, in user units, each with its size, its seed and its references.

A score is measured, never trained on. Each is returned as ``{"value", "unit", "n", "seed", "better"}`` and, where they
exist, ``"se"`` (standard error) and ``"references"`` (the same figure for real data, known laws or a mixture of
Gaussians, of as many points, to put the value in scale: :mod:`se_framework.evaluation.judged`; ``_sd`` is the spread
of one over draws). ``better`` is ``"lower"``, ``"higher"``, or ``"nearer"`` to the reference ``perfect``, or ``real``
where there is none. What cannot be computed is ``{"why", "n", "seed"}``.

=====================================================  ==============================================================
``modes``, ``high_quality``, ``mode_kl``               :mod:`~se_framework.evaluation.known_modes`
``w2``, ``sliced_w2``                                  :mod:`~se_framework.evaluation.transport`, to held-out data
``mmd``, ``energy``                                    :mod:`~se_framework.evaluation.kernels`
``c2st``                                               :mod:`~se_framework.evaluation.classifier`
``precision``, ``recall``, ``density``, ``coverage``   :mod:`~se_framework.evaluation.neighbours`
``memorised``, ``nearest_train``                       :mod:`~se_framework.evaluation.copies`
``frechet``                                            :mod:`~se_framework.evaluation.frechet`
``nll``, ``bits_per_dim``, ``kl``, ``reverse_kl``      :mod:`~se_framework.evaluation.likelihood`
=====================================================  ==============================================================

Which of them a model has follows from what its data declares (``modes``, ``features``, rows that end, a density) and
whether it has a density itself; ``Data.scores`` names fewer. Of scores that ask the same, one is shown unless all are
asked for: mmd stands for energy, density and coverage for precision and recall, which one far point moves, kl for
reverse_kl.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from se_framework.data.base import Data
from se_framework.errors import DataError, NonFiniteError
from se_framework.evaluation import classifier, entries, kernels, needs, neighbours
from se_framework.evaluation.entries import Entry
from se_framework.evaluation.judged import Judged, Measure, Sizes
from se_framework.evaluation.likelihood import LogProb
from se_framework.evaluation.pair import Figure, TooFewError

ASSIGNMENT_POINTS = 1_000
"""The cost of an exact assignment grows with the cube of the number of points."""
POINTS = 10_000
PAIRS = 1_000
"""Points of each sample of which every pair is compared; fewer where the numbers in all pairs exceed :data:`PRICE`."""
PRICE = 2**30
DIRECTIONS = 500


class Score(NamedTuple):
    """A score.

    Attributes:
        name: as in tables and ``score=NAME``.
        unit: of the value.
        better: lower, higher, or nearer (to what a perfect sample has).
        shown: whether it is computed where none is asked for by name.
        lacks: why data, and a model with or without a density, do not have it; nothing where they do.
        measure: of two samples: its references are two samples of the same code. None for others.
        own: the entry of others.
        sources: keys of references.
    """

    name: str
    unit: str
    better: str
    shown: bool
    lacks: Callable[[Data, bool], str]
    measure: Measure | None = None
    own: Callable[[Judged], Entry] | None = None
    sources: tuple[str, ...] = ()


UNIT, OF_FEATURES = "unit of the data", "squared unit of the features"
METZ, KYNKAANNIEMI, NAEEM = ("metz2017unrolled",), ("kynkaanniemi2019improved",), ("naeem2020reliable",)
ALL = (
    Score("modes", "modes", "higher", True, needs.counted_modes, own=entries.captured, sources=METZ),
    Score("high_quality", "share", "nearer", True, needs.known_modes, own=entries.high_quality, sources=METZ),
    Score("mode_kl", "nats", "lower", True, needs.separate_modes, own=entries.mode_kl, sources=METZ),
    Score("w2", UNIT, "lower", True, needs.nothing, entries.w2),
    Score("sliced_w2", UNIT, "lower", True, needs.width, entries.sliced_w2, sources=("bonneel2015sliced",)),
    Score("mmd", "squared kernel norm", "lower", True, needs.comparable, kernels.mmd, sources=("gretton2012kernel",)),
    Score("energy", UNIT, "lower", False, needs.comparable, kernels.energy, sources=("szekely2004testing",)),
    Score("c2st", "accuracy", "nearer", True, needs.comparable, classifier.c2st, sources=("lopezpaz2017revisiting",)),
    Score("precision", "share", "higher", False, needs.comparable, neighbours.precision, sources=KYNKAANNIEMI),
    Score("recall", "share", "higher", False, needs.comparable, neighbours.recall, sources=KYNKAANNIEMI),
    Score("density", "balls over k", "nearer", True, needs.comparable, neighbours.density, sources=NAEEM),
    Score("coverage", "share", "nearer", True, needs.comparable, neighbours.coverage, sources=NAEEM),
    Score("memorised", "share", "nearer", True, needs.finite_rows, own=entries.memorised),
    Score("frechet", OF_FEATURES, "lower", True, needs.features, own=entries.frechet, sources=("heusel2017gans",)),
    Score("nearest_train", UNIT, "lower", True, needs.finite_rows, own=entries.nearest_train),
    Score("nll", "nats", "lower", True, needs.model_density, own=entries.nll),
    Score("bits_per_dim", "bits", "lower", True, needs.levels, own=entries.bits_per_dim, sources=("theis2016note",)),
    Score("kl", "nats", "lower", True, needs.known_density, own=entries.kl),
    Score("reverse_kl", "nats", "lower", False, needs.both_densities, own=entries.reverse_kl),
)
"""Every score of samples or a density, in the order in which they are told."""
NAMES = tuple(score.name for score in ALL)
SHOWN = tuple(score.name for score in ALL if score.shown)
"""Those that are computed unless others are asked for."""


def scores(
    data: Data,
    samples_user: Tensor,
    *,
    seed: int,
    model_log_prob: LogProb | None = None,
    names: Sequence[str] | None = None,
) -> dict[str, dict[str, Any]]:
    r"""Judge samples against data.

    Args:
        data: the law that was to be learnt.
        samples_user: samples of the model in user units, shape (n, \*E).
        seed: selects held-out draws, subsets and directions; the figures are a function of it and of the samples.
        model_log_prob: log-density of the model *in model space* at points of model space, (n, \*E) to (n,), in
            torch's default type, with their labels as second argument where the data
            has some; None for an implicit model.
        names: of the scores; None for those that are shown (:data:`SHOWN`). Those that this data and model do not
            have are left out.

    Returns:
        One entry per score, as described above.

    Raises:
        DataError: the shape of the samples is not that of the data, or there are fewer than two.
        NonFiniteError: samples hold NaN or infinite values.
    """
    samples = _checked(data, samples_user)
    wanted = SHOWN if names is None else names
    chosen = [s for s in ALL if s.name in wanted and not lacks(data, model_log_prob is not None, s.name)]
    few = max(2, min(PAIRS, int((PRICE / samples[0].numel()) ** 0.5)))
    judged = Judged(data, samples, seed, model_log_prob, Sizes(POINTS, ASSIGNMENT_POINTS, few, DIRECTIONS))
    found: dict[str, dict[str, Any]] = {}
    figures: dict[str, Figure] = {}
    for score in chosen:
        try:
            if score.measure is not None:
                figures[score.name] = score.measure(judged.pair)
            elif score.own is not None:
                found[score.name] = score.own(judged)
        except TooFewError as error:
            found[score.name] = {"why": str(error)}
    known = judged.references({s.name: s.measure for s in chosen if s.measure is not None and s.name in figures})
    found |= {name: entries.of_figure(figure, known[name]) for name, figure in figures.items()}
    return {s.name: _entry(s, found[s.name], {"n": len(samples), "seed": seed}) for s in chosen}


def lacks(data: Data, density: bool, name: str) -> str:
    """Return why this data, and a model with or without a density, have no such score; nothing where they have it."""
    if data.scores is not None and name not in data.scores:
        return f"{data.name} declares other scores: {', '.join(data.scores)}"
    return next(score.lacks(data, density) for score in ALL if score.name == name)


def _entry(score: Score, found: Entry, settings: Entry) -> Entry:
    """Return an entry with what all have, the value first."""
    if "why" in found:
        return found | settings
    value = {"value": found["value"]} | ({"se": found["se"]} if "se" in found else {})
    return value | settings | {"better": score.better, "unit": score.unit} | found


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
