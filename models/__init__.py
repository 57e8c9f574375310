"""Models: what can stand for p_theta and f_phi. Depends on torch alone."""

from models.base import Critic, Law, Model
from models.critics import GroupSortCritic, MLPCritic
from models.flows import CouplingFlow, RealNVP
from models.generators import Affine, MLPGenerator
from models.laws import Particles, PushForward, Weighted
from models.networks import mlp
from models.splines import SplineFlow
from models.tabular import TabularCritic, TabularModel

__all__ = [
    "Affine",
    "CouplingFlow",
    "Critic",
    "GroupSortCritic",
    "Law",
    "MLPCritic",
    "MLPGenerator",
    "Model",
    "Particles",
    "PushForward",
    "RealNVP",
    "SplineFlow",
    "TabularCritic",
    "TabularModel",
    "Weighted",
    "mlp",
]
