"""One table per kind of plug-in: the laws run over all rows, and a concrete class without a row fails a test.

Models and critics have theirs in ``modules.py``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
import torch

import divergences as d
from divergences import Divergence, FDivergence
from se_framework.equation.auxiliary import Auxiliary, Conditional, Dual, Embedded, Empirical, Paired, Tilted
from se_framework.equation.auxiliary.transported import Transported
from se_framework.equation.auxiliary.weights import OrthogonalWeights
from se_framework.equation.penalties import R1, GradientPenalty, Penalty
from tests.support.oracles import ALPHA_ORDERS


def user_generator(u: torch.Tensor) -> torch.Tensor:
    """Neyman's (1 - u)^2 / u, as a user would write it."""
    return (1 - u).square() / u


DIVERGENCES: dict[str, Callable[[], Divergence]] = {
    "kl": d.KL,
    "reverse_kl": d.ReverseKL,
    "jensen_shannon": d.JensenShannon,
    "gan": d.GAN,
    "squared_hellinger": d.SquaredHellinger,
    "pearson": d.Pearson,
    "le_cam": d.LeCam,
    "jeffreys": d.Jeffreys,
    "softened_reverse_kl": d.SoftenedReverseKL,
    "neyman": d.Neyman,
    "weighted_js": lambda: d.WeightedJensenShannon(0.3),
    **{f"alpha_{order:g}": lambda order=order: d.Alpha(order) for order in ALPHA_ORDERS},
    "user": lambda: FDivergence(user_generator),
    **{f"renyi_{order:g}": lambda order=order: d.Renyi(order) for order in (0.5, 1.0, 2.0)},
    "cross_entropy": d.CrossEntropy,
    "total_variation": d.TotalVariation,
    "lipschitz_alpha": lambda: d.LipschitzRegularised(d.Alpha(2.0)),
    "wasserstein1": d.Wasserstein1,
    "sinkhorn": d.Sinkhorn,
    "surrogate": lambda: d.Surrogate("hinge"),
    "wasserstein_1d": d.Wasserstein1D,
    "wasserstein_1d_root": lambda: d.Wasserstein1D(order=3, root=True),
    "sliced_wasserstein": lambda: d.SlicedWasserstein(order=1, directions=8),
    "optimal_transport": lambda: d.OptimalTransport(order=1.5),
    "fisher": d.FisherIPM,
    "paired": d.PairedJensenShannon,
    "paired_swapped": lambda: d.PairedJensenShannon(swapped=True),
    "sinkhorn_w1": lambda: d.Sinkhorn(p=1),
    "sinkhorn_unbalanced": lambda: d.Sinkhorn(reach=1.0),
    "energy": d.EnergyDistance,
    "energy_unbiased": lambda: d.EnergyDistance(unbiased=True),
    "mmd": d.MMD,
    "mmd_laplacian": lambda: d.MMD("laplacian", unbiased=True),
}
AUXILIARIES: dict[str, Callable[[], Auxiliary]] = {
    "dual": Dual,
    "dual_probability": lambda: Dual(normalised=True),
    "dual_conditional": Conditional,
    "paired": Paired,
    "data": Empirical,
    "embedded": Embedded,
    "tilted": Tilted,
    "transported": Transported,
    "orthogonal": OrthogonalWeights,
}
PENALTIES: dict[str, Callable[..., Penalty]] = {
    "two_sided": GradientPenalty,
    "one_sided": lambda weight=10.0, every=1: GradientPenalty(weight, sides="one", every=every),
    "r1": R1,
    "r1_r2": lambda weight=0.1, every=1: R1(weight, fake=True, every=every),
}
F_DIVERGENCES = {name: make for name, make in DIVERGENCES.items() if isinstance(make(), FDivergence)}
NAMED_F_DIVERGENCES = {name: make for name, make in F_DIVERGENCES.items() if type(make()) is not FDivergence}
f_case = pytest.mark.parametrize("name", F_DIVERGENCES)
named_case = pytest.mark.parametrize("name", NAMED_F_DIVERGENCES)
DUAL_DIVERGENCES = {name: make for name, make in DIVERGENCES.items() if make().has_dual and not make().surrogate}


def leaves(base: type, package: str) -> set[type]:
    """Return the classes of a package below ``base`` from which nothing of it derives (what tests define is not)."""

    def below(c: type) -> set[type]:
        return {s for s in c.__subclasses__() if s.__module__.startswith(package)}

    found, queue = set(), [base]
    while queue:
        children = below(queue.pop())
        queue += children
        found |= {c for c in children if not below(c)}
    return found


INSTALLED = {
    name: make
    for name, make in DIVERGENCES.items()
    if make().primal_extra is None or importlib.util.find_spec(make().primal_extra[0])
}
"""The divergences that can be evaluated here: extras may be missing."""
