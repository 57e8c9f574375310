r"""From model space to the units of the user and back.

The model works in *model space*; people read *user units*. The two are tied by an affine map, feature by feature,

.. math:: x_{user} = \text{loc} + \text{scale}\cdot x_{model}, \qquad
          \log p_{user}(x_{user}) = \log p_{model}(x_{model}) - \sum_i \log|\text{scale}_i| ,

so that a score or a likelihood is always reported in the units of the file it came from. Where data declares a
:mod:`transform <se_framework.data.transforms>`, it lies between the affine map and the model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from se_framework.data.transforms import Transform

RESOLUTION = 1e-3
"""Spacing of numbers in standard deviations that nobody sees."""


class Units:
    r"""What points are counted in.

    Attributes:
        event_shape: E, the shape of one point; the sizes of models are taken from here.
        loc: shift from model space to user units, broadcastable to E.
        scale: factor from model space to user units, broadcastable to E.
        transform: an elementwise map after shift and scale, see :mod:`se_framework.data.transforms`; None for none.
        level_width: width of the noise that points carry in the place of a step between their values, in user units,
            broadcastable to E; None where a coordinate carries none. A density then bounds the values' probability.
    """

    event_shape: tuple[int, ...]
    loc: Tensor | float = 0.0
    scale: Tensor | float = 1.0
    transform: Transform | None = None
    level_width: Tensor | float | None = None

    @property
    def log_scale(self) -> float:
        r""":math:`\sum_i\log|\text{scale}_i|` over the event, so that log p_user = log p_model - log_scale."""
        return torch.as_tensor(self.scale, dtype=torch.float64).abs().log().expand(self.event_shape).sum().item()

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

    def _keeps(self, x: Tensor) -> bool:
        """Whether x are whole numbers in user units already: float64 would cost those beyond 2^53 their last digits."""
        return not x.is_floating_point() and plain_units(self)


def plain_units(data: Units) -> bool:
    """Return whether model space is user space: loc 0 and scale 1 by number."""
    affine = not any(isinstance(t, Tensor) for t in (data.loc, data.scale)) and (data.loc, data.scale) == (0, 1)
    return affine and data.transform is None


def _double(value: Tensor | float, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64, device=like.device)
