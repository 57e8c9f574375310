r"""An auxiliary without q: a penalty of theta's own weights, as a summand of the equation (``plus``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor, nn

from divergences.base import Divergence
from models.base import Model
from se_framework.equation.auxiliary.base import Auxiliary, InnerProblem, Solution
from se_framework.equation.roles import Role


class OrthogonalWeights(Auxiliary):
    r"""The sum over theta's weight matrices W, one row for each output, of :math:`\|WW^\top\odot(1-I)\|_F^2`.

    It is zero where the filters of a layer are orthogonal, whatever their lengths (Brock, Donahue, Simonyan, "Large
    scale GAN training for high fidelity natural image synthesis", ICLR 2019, eq. 3; their weight is 1e-4). Matrices are
    the parameters of two axes and more, flattened behind the first, but for tables of embeddings.

    It is a term of the scalar and not an option of an optimiser: so the record shows it under its name, every optimiser
    sees its gradient, and its weight is one of the equation's. Only who moves the model computes it.
    """

    sources: tuple[str, ...] = ("brock2019large",)
    uses_metric: ClassVar[bool] = False
    minimum_reads_data = False
    counts_entropy: ClassVar[bool] = False
    minimum_name: ClassVar[str] = "sum |W W^T off its diagonal|^2"

    def needs_samples(self, divergence: Divergence) -> bool:
        """Whether particles are looked at: they are not."""
        return False

    def additive(self, divergence: Divergence) -> bool:
        """Whether pieces of a batch have the mean of the whole: each has the same number."""
        return True

    def minimum(self, problem: InnerProblem, role: Role | None = None) -> Tensor:
        """Return the sum over matrices, shape (); zero in the steps of who does not move the model."""
        total = next(problem.model.parameters()).new_zeros(())
        if role is not None and not role.moves_samples:
            return total
        for weight in matrices(problem.model):
            gram = weight.flatten(1) @ weight.flatten(1).mT
            total = total + gram.square().sum() - gram.diagonal().square().sum()
        return total

    def solve(self, problem: InnerProblem) -> Solution:
        """Return the sum; there is no q, so no entropy and no E_q f."""
        return Solution(self.minimum(problem).double(), None, None, None)

    def meaning(self, divergence: Divergence, metric: nn.Module | None, alpha: float) -> str:
        """Return what the value is."""
        return "a penalty of theta's weights, which has no held-out value"

    def cost_degree(self, divergence: Divergence, metric: nn.Module | None) -> float:
        """Return 0: weights do not follow the units of the data."""
        return 0.0

    def unit(self, divergence: Divergence, metric: nn.Module | None) -> str:
        """Return that there is none."""
        return "no unit"


def matrices(model: Model) -> Iterator[Tensor]:
    """Yield a model's weights of two axes and more, tables of embeddings apart."""
    for part in model.modules():
        if not isinstance(part, nn.Embedding):
            yield from (p for p in part.parameters(recurse=False) if p.ndim > 1)
