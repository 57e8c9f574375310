r"""Surrogates: pairs of losses in use that are no divergence, as rows of one table.

The metric ascends on :math:`\mathbb E_{p_d}a(v) - \mathbb E_p b(v)` while the model descends on
:math:`\mathbb E_p c(v)` with a c that is not :math:`-b`: the players do not share one scalar, so there is no D, no q
and no saddle. The record says ``surrogate`` in the name of its total, which is the metric's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from divergences.base import Divergence, Mover

Loss = Callable[[Tensor, Divergence | None], Tensor]


class Row(NamedTuple):
    """A surrogate: integrands of the critic's output v (and of the divergence it borrows from, where it does).

    Attributes:
        data: a, under p_d, for the metric.
        model: b, under p, for the metric.
        generator: c, under p, for who moves the samples.
        borrows: it is made from another divergence.
        sources: keys of references.
    """

    data: Loss
    model: Loss
    generator: Loss
    borrows: bool = False
    sources: tuple[str, ...] = ()


def _link(v: Tensor, of: Divergence | None) -> Tensor:
    assert of is not None
    return of.link(v)


def _conjugate(v: Tensor, of: Divergence | None) -> Tensor:
    assert of is not None
    return of.conjugate(v)


RowName = Literal["hinge", "least_squares", "raised_link"]
SURROGATES: dict[str, Row] = {
    # Lim and Ye 2017, eq. 4; Miyato et al. 2018, eq. 16. The metric's maximum is 2 TV - 2, at v = sign(p_d - p).
    "hinge": Row(
        data=lambda v, of: -torch.relu(1 - v),
        model=lambda v, of: torch.relu(1 + v),
        generator=lambda v, of: -v,
        sources=("lim2017geometric", "miyato2018spectral"),
    ),
    # Mao et al. 2017, eq. 2 with a = 0, b = c = 1. The metric's maximum is LeCam/8 - 1/4, at v = p_d/(p_d + p).
    "least_squares": Row(
        data=lambda v, of: -(v - 1).square() / 2,
        model=lambda v, of: v.square() / 2,
        generator=lambda v, of: (v - 1).square() / 2,
        sources=("mao2017least",),
    ),
    # Nowozin et al. 2016, section 3.2: the model ascends on E_p h'(e^v) for E_p h*(h'(e^v)); the rest is D's own dual.
    "raised_link": Row(
        data=_link,
        model=_conjugate,
        generator=lambda v, of: -_link(v, of),
        borrows=True,
        sources=("nowozin2016fgan",),
    ),
}
"""Every surrogate by its name."""
assert set(SURROGATES) == set(get_args(RowName))


class Surrogate(Divergence):
    r"""A row of :data:`SURROGATES` in the place of D.

    Args:
        row: its name.
        of: the divergence that the row borrows from; None where it borrows from none.

    Raises:
        ValueError: no such row, or ``of`` missing, superfluous or without a dual.
    """

    has_dual = True
    surrogate = True
    has_normalised_dual = False

    def __init__(self, row: RowName, of: Divergence | None = None) -> None:
        super().__init__()
        if row not in SURROGATES:
            raise ValueError(f"no surrogate {row!r}: choose one of {', '.join(SURROGATES)}")
        lends = of is not None and of.has_dual and of.additive_dual and not of.surrogate
        if SURROGATES[row].borrows != lends:
            need = "needs `of`: a divergence with a dual that is a mean" if SURROGATES[row].borrows else "takes no `of`"
            raise ValueError(f"the surrogate {row} {need}, got {of}")
        self.row, self.of, self.for_samples = row, of, False

    @property
    def sources(self) -> tuple[str, ...]:
        """Keys of references, of the row."""
        return SURROGATES[self.row].sources

    def extra_repr(self) -> str:
        """Show the row, and whose loss it is."""
        return f"{self.row}, a surrogate" + (", loss of the samples" if self.for_samples else "")

    def view(self, role: Mover) -> Divergence | None:
        """Return the same row as who moves the samples sees it."""
        if not role.moves_samples:
            return None
        view = Surrogate(self.row, self.of)
        view.for_samples = True
        return view

    def link(self, v: Tensor) -> Tensor:
        """Return a(v), the integrand under the data."""
        return SURROGATES[self.row].data(v, self.of)

    def conjugate(self, v: Tensor) -> Tensor:
        """Return b(v), or -c(v) to who moves the samples: it descends on minus the mean of this."""
        row = SURROGATES[self.row]
        return -row.generator(v, self.of) if self.for_samples else row.model(v, self.of)
