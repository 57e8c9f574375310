"""Divergences D(q, p), a library of its own: duals, primals and declarations, ignorant of training."""

from divergences.base import Divergence, InnerSolution, WeightedPoints
from divergences.bounded import GAN, JensenShannon, LeCam, SquaredHellinger
from divergences.f_divergence import FDivergence
from divergences.fisher import FisherIPM
from divergences.generators import KL, Jeffreys, Neyman, Pearson, ReverseKL, SoftenedReverseKL
from divergences.kernels import MMD, EnergyDistance
from divergences.likelihood import CrossEntropy
from divergences.one_dimensional import Wasserstein1D
from divergences.optimal_transport import OptimalTransport
from divergences.paired import PairedJensenShannon
from divergences.parametric import Alpha, WeightedJensenShannon
from divergences.regularised import LipschitzRegularised
from divergences.renyi import Renyi
from divergences.sliced import SlicedWasserstein
from divergences.surrogates import SURROGATES, Surrogate
from divergences.total_variation import TotalVariation
from divergences.transport import Sinkhorn, Wasserstein1

__all__ = [
    "GAN",
    "KL",
    "LeCam",
    "LipschitzRegularised",
    "Alpha",
    "MMD",
    "CrossEntropy",
    "Divergence",
    "EnergyDistance",
    "FDivergence",
    "FisherIPM",
    "InnerSolution",
    "Jeffreys",
    "JensenShannon",
    "Neyman",
    "OptimalTransport",
    "PairedJensenShannon",
    "Pearson",
    "Renyi",
    "ReverseKL",
    "SURROGATES",
    "Sinkhorn",
    "SlicedWasserstein",
    "SoftenedReverseKL",
    "SquaredHellinger",
    "Surrogate",
    "TotalVariation",
    "Wasserstein1",
    "Wasserstein1D",
    "WeightedJensenShannon",
    "WeightedPoints",
]
