r"""What flows have in common: an invertible map g, so exact density, inverse, temperature and interpolation."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.base import Model
from models.laws import Particles, PushForward
from models.triangular import Triangular, of_gaussian


class Flow(Model):
    r"""A model :math:`x=g_\theta(z)`, :math:`z\sim N(0,I)`, whose g has an inverse; base of our flows.

    Data are pulled to noise and noise is pushed to data. So two images are interpolated by their noise: with
    ``z, _ = law.pull(pair)``, by ``law.push(torch.lerp(z[:1], z[1:], t))`` for t of shape (n, 1).

    Samples have a temperature T: they are :math:`g(Tz)`, see :meth:`models.laws.PushForward.tempered`.
    """

    has_log_prob: ClassVar[bool] = True
    has_rsample: ClassVar[bool] = True
    has_context: ClassVar[bool] = True
    sampling: ClassVar[frozenset[str]] = frozenset({"temperature"})

    @abstractmethod
    def forward(self, context: Tensor | None = None) -> PushForward:
        """Return the law of the flow; a conditional one has one row per label."""

    def at_sampling(self, context: Tensor | None = None, temperature: float = 1.0, **settings: float) -> PushForward:
        """Return the law at a temperature.

        Raises:
            ValueError: not a positive number, or another setting.
        """
        super().at_sampling(context, **settings)
        return self(context).tempered(temperature)


class WithEnd(Flow):
    """A flow of vectors with an affine map at the data end, which may start at what whitens the first batch.

    Attributes:
        loc, log_scale: of each coordinate, shape (d,).
        below: what is below the diagonal of the map, shape (d, d); None for an elementwise one.
    """

    loc: nn.Parameter
    log_scale: nn.Parameter
    below: nn.Parameter | None

    def add_end(self, whiten: bool) -> None:
        """Make the map, the identity at first; with ``whiten`` a triangular one that :meth:`prepare` sets."""
        d = self.dimension
        self.loc, self.log_scale = nn.Parameter(torch.zeros(d)), nn.Parameter(torch.zeros(d))
        self.below = nn.Parameter(torch.zeros(d, d)) if whiten else None

    def end(self) -> Triangular:
        """Return the map at the present parameters."""
        below = None if self.below is None else self.below.tril(-1)
        return Triangular(self.loc[:, None], self.log_scale[:, None], below)

    def at_end(self, x: Tensor) -> Tensor:
        """Return rows of data, shape (N, d), as the map sees them."""
        return x

    def prepare(self, batch: Particles) -> None:
        """Whiten the first batch, where that is wanted."""
        if self.below is not None and len(batch.x) > 1:
            fitted = of_gaussian(self.at_end(batch.x.flatten(1)))
            for mine, its in zip((self.loc, self.log_scale, self.below), fitted, strict=True):
                mine.copy_(its)
