"""The auxiliary distribution q: one file for each way in which the minimum over q is taken."""

from se_framework.equation.auxiliary.base import Auxiliary, Draws, InnerProblem, Solution, drawn_for
from se_framework.equation.auxiliary.conditional import Conditional
from se_framework.equation.auxiliary.dual import Dual
from se_framework.equation.auxiliary.paired import Paired
from se_framework.equation.auxiliary.primal import Embedded, Empirical, Primal
from se_framework.equation.auxiliary.tilted import Tilted
from se_framework.equation.auxiliary.transported import Transported
from se_framework.equation.auxiliary.weights import OrthogonalWeights

__all__ = [
    "Auxiliary", "Conditional", "Draws", "Dual", "Embedded", "Empirical", "InnerProblem", "OrthogonalWeights", "Paired",
    "Primal", "Solution", "Tilted", "Transported", "drawn_for",
]  # fmt: skip
