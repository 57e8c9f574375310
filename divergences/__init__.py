"""Divergences D(q, p), a library of its own: duals, primals and declarations, ignorant of training."""

from divergences.base import Divergence, InnerSolution, WeightedPoints
from divergences.f_divergence import FDivergence
from divergences.generators import (
    GAN,
    KL,
    Jeffreys,
    JensenShannon,
    LeCam,
    Neyman,
    Pearson,
    ReverseKL,
    SoftenedReverseKL,
    SquaredHellinger,
)
from divergences.kernels import MMD, EnergyDistance
from divergences.likelihood import CrossEntropy
from divergences.parametric import Alpha, WeightedJensenShannon
from divergences.renyi import Renyi
from divergences.surrogates import SURROGATES, Surrogate
from divergences.total_variation import TotalVariation
from divergences.transport import Sinkhorn, Wasserstein1

__all__ = [
    "GAN",
    "KL",
    "LeCam",
    "Alpha",
    "MMD",
    "CrossEntropy",
    "Divergence",
    "EnergyDistance",
    "FDivergence",
    "InnerSolution",
    "Jeffreys",
    "JensenShannon",
    "Neyman",
    "Pearson",
    "Renyi",
    "ReverseKL",
    "SURROGATES",
    "Sinkhorn",
    "SoftenedReverseKL",
    "SquaredHellinger",
    "Surrogate",
    "TotalVariation",
    "Wasserstein1",
    "WeightedJensenShannon",
    "WeightedPoints",
]
