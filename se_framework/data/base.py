r"""What the engine needs from data: batches as pure functions of (seed, index), held-out points, and units.

The model works in *model space*; people read *user units*. The two are tied by an affine map, feature by feature,

.. math:: x_{user} = \text{loc} + \text{scale}\cdot x_{model}, \qquad
          \log p_{user}(x_{user}) = \log p_{model}(x_{model}) - \sum_i \log|\text{scale}_i| ,

so that a score or a likelihood is always reported in the units of the file it came from.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor

from se_framework.data import fingerprint
from se_framework.errors import DataError
from se_framework.randomness import generator

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
        loc: shift from model space to user units, broadcastable to E.
        scale: factor from model space to user units, broadcastable to E.
        image_shape: (H, W) or (C, H, W) where a point is an image; None elsewhere.
        resident: whether points are cheap: in memory, or computed; else pictures look at few of them.
        classes: number K of classes whose labels 0..K-1 come with the points; 0 where the models are given no labels.
    """

    name: str = "data"
    event_shape: tuple[int, ...]
    train_size: int | None = None
    has_log_prob: bool = False
    modes: Tensor | None = None
    mode_sigma: float | None = None
    loc: Tensor | float = 0.0
    scale: Tensor | float = 1.0
    image_shape: tuple[int, ...] | None = None
    resident: bool = True
    classes: int = 0

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
    def log_scale(self) -> float:
        r""":math:`\sum_i\log|\text{scale}_i|` over the event, so that log p_user = log p_model - log_scale."""
        return torch.as_tensor(self.scale, dtype=torch.float64).abs().log().expand(self.event_shape).sum().item()

    @abstractmethod
    def batch(
        self, n: int, seed: int, index: int, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> Tensor:
        r"""Return the ``index``-th training batch of n points in model space: a pure function of (seed, index, n).

        Args:
            n: number of points.
            seed: the seed of the run.
            index: which batch, from 0.
            device: where the batch is put; the draw itself is made on the CPU, so it does not depend on the device.
            dtype: type of the batch; torch's default type if None.

        Returns:
            Points of shape (n, \*E).

        Raises:
            DataError: the data has fewer than n training rows, or a row cannot be read.
        """

    def batches(
        self,
        n: int,
        seeds: Sequence[int],
        index: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        r"""Return ``batch(n, seed, index)`` of several seeds, shape (len(seeds), n, \*E)."""
        return torch.stack([self.batch(n, seed, index, device, dtype) for seed in seeds])

    @abstractmethod
    def held_out(
        self, n: int, seed: int = 0, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> Tensor:
        r"""Return points that are never trained on, in model space: at most n rows, shape (m, \*E) with m <= n.

        Args:
            n: how many are wanted.
            seed: selects the draw (a sampler) or the subset (a tensor with more than n held-out rows).
            device: where the points are put.
            dtype: their type; torch's default type if None.
        """

    def labels(self, n: int, seed: int, index: int, device: torch.device | str = "cpu") -> Tensor | None:
        """Return the labels of exactly the rows of ``batch(n, seed, index)``.

        Returns:
            Labels in 0..classes-1, shape (n,), int64; None where ``classes`` is 0.
        """
        return None

    def held_out_labels(self, n: int, seed: int = 0, device: torch.device | str = "cpu") -> Tensor | None:
        """Return the labels of exactly the rows of ``held_out(n, seed)``, shape (m,), int64, or None as above."""
        return None

    def prefetch(
        self, n: int, seed: int, index: int, device: torch.device | str = "cpu"
    ) -> AbstractContextManager[None]:
        """Return a context within which the batches ``batch(n, seed, i)`` from i = index on are prepared ahead.

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
        return (x.double() * _double(self.scale, x) + _double(self.loc, x)).to(x.dtype)

    def to_model(self, x: Tensor) -> Tensor:
        r"""Map points of shape (n, \*E) from user units to model space; the inverse of :meth:`to_user`."""
        return ((x.double() - _double(self.loc, x)) / _double(self.scale, x)).to(x.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Return the log-density in user units at points in user units, (n, \*E) to (n,), in float64.

        Raises:
            NotImplementedError: the density is not known (``has_log_prob`` is False).
        """
        raise NotImplementedError(f"the density of {self.name} is not known: it has no log_prob, only samples")

    def __repr__(self) -> str:
        rows = "sampler" if self.train_size is None else f"{self.train_size} training rows"
        return f"{type(self).__name__}(name={self.name!r}, event_shape={self.event_shape}, {rows})"


class Sampler(Data):
    """A law that can be sampled without end: a subclass sets ``event_shape`` and writes :meth:`draw`."""

    @abstractmethod
    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        r"""Draw n points in model space with the given CPU generator, shape (n, \*E), in float64."""

    def batch(
        self, n: int, seed: int, index: int, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> Tensor:
        r"""Draw batch ``index`` from its own stream, shape (n, \*E)."""
        # float64 before the cast: a run in float32 and one in float64 see the same points.
        return self.draw(n, generator(seed, index, "data")).to(device, dtype or torch.get_default_dtype())

    def held_out(
        self, n: int, seed: int = 0, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> Tensor:
        r"""Draw n fresh points from a stream that no batch uses, shape (n, \*E)."""
        return self.draw(n, generator(seed, 0, "held_out")).to(device, dtype or torch.get_default_dtype())


def epoch_slices(n: int, index: int, rows: int) -> list[tuple[int, int, int]]:
    """Split batch ``index`` into (epoch, start, stop): one slice, or the tail of an epoch and the head of the next.

    Args:
        n: batch size, at most ``rows``.
        index: which batch.
        rows: number of training rows.

    Raises:
        DataError: n exceeds the number of rows, or is not positive.
    """
    if not 1 <= n <= rows:
        raise DataError(
            f"loop.batch_size is {n} but the data has {rows} training rows: set loop.batch_size between 1 and {rows}"
        )
    epoch, start = divmod(index * n, rows)
    stop = start + n
    if stop <= rows:
        return [(epoch, start, stop)]
    return [(epoch, start, rows), (epoch + 1, 0, stop - rows)]


def image_shape_of(event_shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return E where it is that of an image, (H, W) or (C, H, W) with C = 1 or 3; else None."""
    if len(event_shape) == 2 and min(event_shape) > 1:
        return event_shape
    if len(event_shape) == 3 and event_shape[0] in (1, 3):
        return event_shape
    return None


def _double(value: Tensor | float, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64, device=like.device)
