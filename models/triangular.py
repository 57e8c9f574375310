r"""An affine map :math:`u=A(x-\mu)`, A lower triangular with positive diagonal: what turns a Gaussian into N(0, I)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

RIDGE = 1e-6
"""Share of a coordinate's variance that is added to it: a column that follows from the others stays regular."""


class Triangular(NamedTuple):
    r"""The map, of columns.

    It is held by A, not by its inverse: the rows of A are the regression of a coordinate on those before it, divided
    by what is left of it, so a step of an optimiser moves u by as much however narrow the data are.

    Attributes:
        loc: mu, shape (d, 1).
        log_scale: minus the logarithm of the diagonal of A, shape (d, 1).
        below: what is below the diagonal, shape (d, d), zero elsewhere; None where there is nothing.
    """

    loc: Tensor
    log_scale: Tensor
    below: Tensor | None = None

    def pull(self, x: Tensor) -> Tensor:
        """Return u of x, both (d, N)."""
        centred = x - self.loc
        u = centred * (-self.log_scale).exp()
        return u if self.below is None else u + self.below @ centred

    def push(self, u: Tensor) -> Tensor:
        """Return x of u, both (d, N)."""
        if self.below is None:
            return torch.addcmul(self.loc, u, self.log_scale.exp())
        matrix = torch.diag((-self.log_scale).exp().flatten()) + self.below
        return self.loc + torch.linalg.solve_triangular(matrix, u, upper=False)


def of_gaussian(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return loc (d,), log_scale (d,) and the part below the diagonal (d, d) that whiten the Gaussian fitted to rows.

    The fit is that of maximum likelihood, with :data:`RIDGE` of each variance added to it. Where there are no more
    rows than coordinates it is singular, and correlations are left out. A coordinate that is constant in these rows
    says nothing of its scale, and keeps 1.

    Args:
        x: rows, shape (n, d), n >= 2.
    """
    rows = x.double()
    loc, centred = rows.mean(0), rows - rows.mean(0)
    covariance = centred.T @ centred / len(rows)
    spread = covariance.diagonal().clone()
    spread[spread < torch.finfo(torch.float32).tiny] = 1.0
    covariance = covariance + torch.diag(spread - covariance.diagonal())
    if len(rows) <= rows.shape[1] + 1:
        covariance = torch.diag(spread)
    factor = torch.linalg.cholesky(covariance + torch.diag(RIDGE * spread))
    inverse = torch.linalg.solve_triangular(
        factor, torch.eye(len(spread), dtype=rows.dtype, device=rows.device), upper=False
    )
    return loc, -inverse.diagonal().log(), inverse.tril(-1)
