r"""What the engine needs from data: batches as pure functions of (start, n, seed), held-out points, and units.

The model works in *model space*; people read *user units*. The two are tied by an affine map, feature by feature,

.. math:: x_{user} = \text{loc} + \text{scale}\cdot x_{model}, \qquad
          \log p_{user}(x_{user}) = \log p_{model}(x_{model}) - \sum_i \log|\text{scale}_i| ,

so that a score or a likelihood is always reported in the units of the file it came from. Where data declares a
:mod:`transform <se_framework.data.transforms>`, it lies between the affine map and the model.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor

from models.laws import Particles, Source
from se_framework.data import fingerprint
from se_framework.data.features import Features
from se_framework.data.transforms import Transform
from se_framework.errors import DataError

RESOLUTION = 1e-3
"""Spacing of numbers in standard deviations that nobody sees."""
Kind = Literal["curve", "points", "image", "table"]


class Data(ABC):
    r"""A law known through its samples.

    Attributes:
        name: short name for tables and file names.
        event_shape: E, the shape of one point; the sizes of models are taken from here.
        train_size: number of training rows; None for a sampler that never runs out.
        has_log_prob: whether :meth:`log_prob` is known.
        modes: centres of a mixture, shape (K, \*E), in user units; None where there are none.
        mode_sigma: standard deviation common to all components, in user units; None where it is not common.
        mode_weights: shares of the modes, shape (K,), which add up to one; None where they are not known.
        mode_of: tells the modes 0..K-1 of points in user units, (n, \*E) to (n,), where they have no centres (a
            classifier); None elsewhere.
        loc: shift from model space to user units, broadcastable to E.
        scale: factor from model space to user units, broadcastable to E.
        transform: an elementwise map after shift and scale, see :mod:`se_framework.data.transforms`; None for none.
        level_width: width of the noise that points carry in the place of a step between their values, in user units,
            broadcastable to E; None where a coordinate carries none. A density then bounds the values' probability.
        image_shape: (H, W) or (C, H, W) where a point is an image; None elsewhere.
        resident: whether points are cheap: in memory, or computed; else pictures look at few of them.
        classes: number K of classes whose labels 0..K-1 come with the points; 0 where the models are given no labels.
        reference: the points of a second law in model space, for :class:`models.Given`; None where there is none.
        support: least and largest value that any feature can take, in model space; None where there is no such bound.
        features: what scores look at in the place of raw points; None for the points themselves.
        scores: names of the scores that say something about such points; None for all whose needs the data meets.
    """

    name: str = "data"
    event_shape: tuple[int, ...]
    train_size: int | None = None
    has_log_prob: bool = False
    modes: Tensor | None = None
    mode_sigma: float | None = None
    mode_weights: Tensor | None = None
    mode_of: Callable[[Tensor], Tensor] | None = None
    loc: Tensor | float = 0.0
    scale: Tensor | float = 1.0
    transform: Transform | None = None
    level_width: Tensor | float | None = None
    image_shape: tuple[int, ...] | None = None
    resident: bool = True
    classes: int = 0
    reference: Source | None = None
    support: tuple[float, float] | None = None
    features: Features | None = None
    scores: Sequence[str] | None = None

    @property
    def kind(self) -> Kind:
        """How a picture of the data is drawn."""
        if self.image_shape is not None:
            return "image"
        size = torch.Size(self.event_shape).numel()
        return "curve" if size == 1 else "points" if size == 2 else "table"

    @property
    def entropy(self) -> float | None:
        """Differential entropy of the law in user units, in nats; None where it is unknown."""
        return None

    @property
    def conditional_entropy(self) -> float | None:
        """Entropy H(x | y) of the law given its labels y, in user units, in nats; None where it is unknown."""
        return None

    @property
    def log_scale(self) -> float:
        r""":math:`\sum_i\log|\text{scale}_i|` over the event, so that log p_user = log p_model - log_scale."""
        return torch.as_tensor(self.scale, dtype=torch.float64).abs().log().expand(self.event_shape).sum().item()

    @property
    def dtype(self) -> torch.dtype:
        """Type of the points of a batch: torch's default type, or int64 where the data holds whole numbers."""
        return torch.get_default_dtype()

    @property
    def user_dtype(self) -> torch.dtype:
        """Type of samples in user units: torch's default, or float64 where that would cost them their digits.

        That is where the numbers next to each other around the shift are more than :data:`RESOLUTION` of the scale
        apart.
        """
        default = torch.get_default_dtype()
        loc, scale = (torch.as_tensor(t, dtype=torch.float64).abs() for t in (self.loc, self.scale))
        coarse = bool((torch.finfo(default).eps * loc > RESOLUTION * scale).any())
        return torch.float64 if coarse else default

    @abstractmethod
    def batch(self, start: int, n: int, seed: int, device: torch.device | str = "cpu") -> Particles:
        r"""Return rows start .. start + n - 1 of the endless training sequence that ``seed`` fixes, in model space.

        A pure function of its arguments. A row is the same however the sequence is cut into batches:
        ``batch(0, 3, s)`` and then ``batch(3, 5, s)`` are the rows of ``batch(0, 8, s)``.

        Args:
            start: number of the first row, from 0: how many examples were seen before.
            n: number of rows.
            seed: the seed of the run.
            device: where the batch is put; the draw itself is made on the CPU, so it does not depend on the device.

        Returns:
            A copy: points x of shape (n, \*E) and of type :attr:`dtype`; ``context`` holds their labels, shape (n,),
            int64 in 0..classes-1, where ``classes`` is positive. Data of another kind may give any context, one row
            of it per point, or None.

        Raises:
            DataError: the data has fewer than n training rows, n is not positive, or a row cannot be read.
        """

    def batches(self, start: int, n: int, seeds: Sequence[int], device: torch.device | str = "cpu") -> Particles:
        r"""Return ``batch(start, n, seed)`` of several seeds: x of shape (len(seeds), n, \*E), context likewise."""
        found = [self.batch(start, n, seed, device) for seed in seeds]
        contexts = [p.context for p in found if p.context is not None]
        return Particles(torch.stack([p.x for p in found]), context=torch.stack(contexts) if contexts else None)

    @abstractmethod
    def held_out(self, n: int, seed: int = 0, device: torch.device | str = "cpu") -> Particles:
        r"""Return points that are never trained on, in model space, with their context as in :meth:`batch`.

        Args:
            n: how many are wanted.
            seed: selects the draw (a sampler) or the subset (data with more than n held-out rows).
            device: where the points are put.

        Returns:
            At most n rows: x of shape (m, \*E) with m <= n.
        """

    def with_validation(self, fraction: float) -> Data:
        """Return this data with rows that :meth:`validation` gives and :meth:`batch` does not.

        Args:
            fraction: their share of the training rows.

        Raises:
            DataError: this data cannot set rows apart.
        """
        raise DataError(
            f"{self.name} has no validation rows, so nothing can say when to stop: set loop.early_stop=null, "
            "or write with_validation and validation"
        )

    def validation(self, n: int, device: torch.device | str = "cpu") -> Particles:
        r"""Return points that are neither trained on nor held out, always the same: they choose when to stop.

        Args:
            n: how many are wanted.
            device: where they are put.

        Returns:
            At most n rows: x of shape (m, \*E) with m <= n, in model space, with their context as in :meth:`batch`.

        Raises:
            DataError: it has none, see :meth:`with_validation`.
        """
        raise DataError(f"{self.name} has no validation rows: take those of data.with_validation(0.2)")

    def reference_rows(self, n: int) -> Particles:
        r"""Return rows that simple laws are fitted to, beside whose scores a model's stand: at most n, always the same.

        None of them is held out. ``context`` holds their labels where they are known.
        """
        return self.batch(0, n if self.train_size is None else min(n, self.train_size), 0)

    def prefetch(
        self, start: int, n: int, seed: int, device: torch.device | str = "cpu"
    ) -> AbstractContextManager[None]:
        """Return a context within which ``batch(start, n, seed)``, ``batch(start + n, n, seed)``, ... come sooner.

        Batches are the same within and outside, and any of them may be asked for; only their price differs.
        """
        return nullcontext()

    @property
    def origin(self) -> str:
        """How a message names the data: the option and the file where it comes from one."""
        return f"data ({self.name})"

    def fingerprint(self) -> str:
        """Return a line that is the same as long as the data is the same.

        A run records it and, resumed, refuses data that gives another. It must not depend on the process, the machine
        or where files lie. Here, for a law that is computed, type and ``repr``; data with rows hashes them.
        """
        cls = type(self)
        return fingerprint.of_text(f"{cls.__module__}.{cls.__qualname__} {re.sub(r' at 0x[0-9a-f]+', '', repr(self))}")

    def to_user(self, x: Tensor) -> Tensor:
        r"""Map points of shape (n, \*E) from model space to user units, in float64 inside, keeping the type of x."""
        if self._keeps(x):
            return x.clone()
        inner = x.double() if self.transform is None else self.transform.inverse(x)
        return (inner * _double(self.scale, x) + _double(self.loc, x)).to(x.dtype)

    def samples_to_user(self, x: Tensor) -> Tensor:
        r"""Map a model's samples, (n, \*E), to user units, in :attr:`user_dtype` where they are floats."""
        return self.to_user(x.to(self.user_dtype) if x.is_floating_point() else x)

    def to_model(self, x: Tensor) -> Tensor:
        r"""Map points of shape (n, \*E) from user units to model space; the inverse of :meth:`to_user`."""
        if self._keeps(x):
            return x.clone()
        inner = (x.double() - _double(self.loc, x)) / _double(self.scale, x)
        return (inner if self.transform is None else self.transform.forward(inner)).to(x.dtype)

    def log_slope(self, x: Tensor) -> Tensor:
        r"""Return :math:`\log|\det\partial x_{user}/\partial x_{model}|` at points of model space, (n, \*E) to (n,).

        So log p_user = log p_model - log_slope; in float64.
        """
        shift = torch.full((len(x),), self.log_scale, dtype=torch.float64, device=x.device)
        return shift if self.transform is None else shift - self.transform.log_slope(self.transform.inverse(x))

    def covers(self, x: Tensor) -> Tensor:
        r"""Return which points in user units, (n, \*E), the map to model space reaches, (n,): all without transform."""
        if self.transform is None:
            return torch.ones(len(x), dtype=torch.bool, device=x.device)
        inner = ((x.double() - _double(self.loc, x)) / _double(self.scale, x)).flatten(1)
        return ((inner >= 0) & (inner <= 1)).all(1)

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Return the log-density in user units at points in user units, (n, \*E) to (n,), in float64.

        Raises:
            NotImplementedError: the density is not known (``has_log_prob`` is False).
        """
        raise NotImplementedError(f"the density of {self.name} is not known: it has no log_prob, only samples")

    def _keeps(self, x: Tensor) -> bool:
        """Whether x are whole numbers in user units already: float64 would cost those beyond 2^53 their last digits."""
        return not x.is_floating_point() and plain_units(self)

    def __repr__(self) -> str:
        rows = "sampler" if self.train_size is None else f"{self.train_size} training rows"
        return f"{type(self).__name__}(name={self.name!r}, event_shape={self.event_shape}, {rows})"


def epoch_slices(start: int, n: int, rows: int) -> list[tuple[int, int, int]]:
    """Split rows start .. start + n - 1 of the endless sequence into (epoch, first, last + 1).

    Args:
        start: number of the first row, over all epochs.
        n: number of rows, at most ``rows``, so that two slices suffice.
        rows: number of training rows, the length of an epoch.

    Raises:
        DataError: n exceeds the number of rows, or is not positive.
    """
    if not 1 <= n <= rows:
        raise DataError(
            f"loop.batch_size is {n} but the data has {rows} training rows: set loop.batch_size between 1 and {rows}"
        )
    epoch, first = divmod(start, rows)
    stop = first + n
    if stop <= rows:
        return [(epoch, first, stop)]
    return [(epoch, first, rows), (epoch + 1, 0, stop - rows)]


def at_least_one(n: int) -> None:
    """Refuse a batch of no rows with a DataError."""
    if n < 1:
        raise DataError(f"loop.batch_size must be at least 1, got {n}")


def point_type(stored: Tensor) -> torch.dtype:
    """Return the type in which a batch gives stored points: torch's default for floats, int64 for whole numbers."""
    return torch.get_default_dtype() if stored.is_floating_point() else torch.int64


def plain_units(data: Data) -> bool:
    """Return whether model space is user space: loc 0 and scale 1 by number."""
    affine = not any(isinstance(t, Tensor) for t in (data.loc, data.scale)) and (data.loc, data.scale) == (0, 1)
    return affine and data.transform is None


def image_shape_of(event_shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return E where it is that of an image, (H, W) or (C, H, W) with C = 1 or 3; else None."""
    if len(event_shape) == 2 and min(event_shape) > 1:
        return event_shape
    if len(event_shape) == 3 and event_shape[0] in (1, 3):
        return event_shape
    return None


def _double(value: Tensor | float, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64, device=like.device)
