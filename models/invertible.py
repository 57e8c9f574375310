r"""What flows have in common: an invertible map g, so exact density, inverse, temperature and interpolation."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from models.base import Model
from models.laws import PushForward


class Flow(Model):
    r"""A model :math:`x=g_\theta(z)`, :math:`z\sim N(0,I)`, whose g has an inverse; base of our flows.

    Its samples have a temperature T: they are :math:`g(Tz)`, see :meth:`models.laws.PushForward.tempered`.
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
