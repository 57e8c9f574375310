r"""Samples beside the data that judge them, and the references that a score of theirs stands beside.

Every score of two samples has two references, computed by the same code from as many points: ``real_vs_real``, training
rows (or fresh draws) against held-out ones, the floor, a mean over draws with its spread ``_sd``; and ``mixture``, the
best mixture of Gaussians by validation (:mod:`se_framework.evaluation.mixture`), the bar. They are kept for the process
by the content of the rows that they come from: evaluations during training compute them once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.laws import Particles
from se_framework.data import fingerprint
from se_framework.data.base import Data
from se_framework.evaluation import mixture
from se_framework.evaluation.kernels import median_distance
from se_framework.evaluation.likelihood import Held, LogProb
from se_framework.evaluation.pair import Figure, Pair, view
from se_framework.evaluation.transport import unit_directions
from se_framework.randomness import generator

DRAWS = 5
"""With few modes one pair of real samples can differ by twice as much as another: a reference is a mean over pairs."""
KEPT = 32
"""Sets of references that a process keeps."""

Measure = Callable[[Pair], Figure]
_references: OrderedDict[tuple[Any, ...], dict[str, Any]] = OrderedDict()


class Sizes(NamedTuple):
    """How many points are looked at, at most.

    Attributes:
        points: of everything.
        assigned: of an exact assignment, whose cost grows with the cube.
        pairs: where every pair is compared.
        directions: of slices.
    """

    points: int
    assigned: int
    pairs: int
    directions: int


class Judged:
    r"""Samples of a model beside held-out data, all in user units and in float64.

    Args:
        data: the law that was to be learnt.
        samples: shape (n, \*E), finite.
        seed: selects held-out draws, subsets and directions.
        model_log_prob: of the model, in model space; None for an implicit one.
        sizes: of what is looked at.
    """

    def __init__(self, data: Data, samples: Tensor, seed: int, model_log_prob: LogProb | None, sizes: Sizes) -> None:
        self.data, self.samples, self.seed, self.sizes = data, samples, seed, sizes
        self.model_log_prob = model_log_prob
        self._dim = torch.Size(data.event_shape).numel()
        available = sizes.points if data.train_size is None else min(sizes.points, data.train_size)
        self._most = min(available, len(samples))

    @cached_property
    def held_out(self) -> Tensor:
        r"""As many held-out points as there are samples, at most, shape (n, \*E)."""
        return self.data.to_user(self.data.held_out(self._most, self.seed).x.double()).cpu()

    @cached_property
    def pair(self) -> Pair:
        """As many samples as there are held-out points, chosen by the seed, beside them."""
        n = len(self.held_out)
        order = torch.randperm(len(self.samples), generator=generator(self.seed, 0, "scores/subset"))
        return self._pair(self.samples[order[:n]], self.held_out, self._directions)

    @cached_property
    def held(self) -> Held:
        """Held-out points with the model's density at them."""
        assert self.model_log_prob is not None
        return Held(self.data, self.model_log_prob, self.sizes.points, self.seed)

    @cached_property
    def mixture(self) -> mixture.Mixture | None:
        """The best mixture of Gaussians, fitted once per process."""
        return mixture.best(self.data, self.rows)

    @cached_property
    def rows(self) -> Particles:
        """Rows in model space that simple laws are fitted to."""
        return self.data.reference_rows(min(mixture.ROWS, max(2, mixture.NUMBERS // self._dim)))

    def train(self, most: int) -> Tensor:
        r"""Return training rows, all or ``most`` of them by a fixed draw, shape (m, \*E)."""
        assert self.data.train_size is not None
        return self.data.to_user(self.data.batch(0, min(most, self.data.train_size), 0).x.double()).cpu()

    def reference(self, name: str, n: int, compute: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Return references of a score over n points, computed unless this process has them."""
        known = self._known(n)
        if name not in known:
            known[name] = compute()
        return dict(known[name])

    def references(self, measures: Mapping[str, Measure]) -> dict[str, dict[str, float]]:
        """Return the references of scores of a pair, by name: those that are not known yet are computed together."""
        known = self._known(len(self.held_out))
        missing = {name: measure for name, measure in measures.items() if name not in known}
        if missing:
            values: dict[str, list[float]] = {name: [] for name in missing}
            for real in self._real_pairs():
                for name, value in _measured(missing, real):
                    values[name].append(value)
            for name, found in values.items():
                spread = torch.tensor(found, dtype=torch.float64)
                known[name] = {"real_vs_real": float(spread.mean()), "real_vs_real_sd": float(spread.std())}
            law = self.mixture
            if law is not None:
                n = len(self.held_out)
                for name, value in _measured(
                    missing, self._pair(law.sample(n), self.held_out, self._directions, errors=False)
                ):
                    known[name]["mixture"] = value
        return {name: dict(known[name]) for name in measures}

    def _real_pairs(self) -> Iterable[Pair]:
        n, few = len(self.held_out), self._directions[: max(1, len(self._directions) // DRAWS)]
        for i in range(DRAWS):
            # Training points are real points disjoint from the held-out ones.
            real = self.data.to_user(self.data.batch(i * n, n, self.seed).x.double()).cpu()
            other = self.data.to_user(self.data.held_out(n, self.seed + i).x.double()).cpu()
            yield self._pair(real, other, few, errors=False)

    def _pair(self, x: Tensor, y: Tensor, directions: Tensor, errors: bool = True) -> Pair:
        return Pair(
            self.data, x, y, bandwidth=self._bandwidth, pairs=self.sizes.pairs, assigned=self.sizes.assigned,
            directions=directions, seed=self.seed, errors=errors,
        )  # fmt: skip

    @cached_property
    def _bandwidth(self) -> float:
        """Median distance between training rows: no model and no seed moves it."""
        rows = self.rows.x[: self.sizes.pairs].double()
        return median_distance(view(self.data, self.data.to_user(rows).cpu()))

    @cached_property
    def _directions(self) -> Tensor:
        return unit_directions(self.sizes.directions, self._dim, generator(self.seed, 0, "scores/directions"))

    @cached_property
    def _content(self) -> str:
        return fingerprint.of_tensors([self.rows.x.cpu(), self.held_out])

    def _known(self, n: int) -> dict[str, Any]:
        key = (self._content, self.data.train_size, n, self.seed, self.sizes)
        found = _references.setdefault(key, {})
        _references.move_to_end(key)
        while len(_references) > KEPT:
            _references.popitem(last=False)
        return found


def _measured(measures: Mapping[str, Measure], pair: Pair) -> Iterable[tuple[str, float]]:
    for name, measure in measures.items():
        yield name, measure(pair).value
