"""Models: what can stand for p_theta and f_phi. Depends on torch alone."""

from models.autoregressive import AutoregressiveFlow
from models.base import Critic, Embedding, Law, Model, Stream
from models.convolutional import ConvCritic, ConvGenerator
from models.critics import GroupSortCritic, MLPCritic
from models.embeddings import GroupSortEmbedding, MLPEmbedding, Projection
from models.flows import CouplingFlow, RealNVP
from models.generators import Affine, MLPGenerator
from models.given import Given
from models.glow.model import Glow
from models.images.growing import GrowingCritic, GrowingGenerator
from models.images.r3gan import R3GANCritic, R3GANGenerator
from models.images.residual import ResidualGenerator
from models.images.residual_critic import ResidualCritic
from models.images.transposed import StridedCritic, TransposedGenerator
from models.invertible import Flow
from models.laws import Particles, PushForward, Weighted
from models.mixtures import GaussianMixture
from models.networks import mlp
from models.separable import SeparableCritic
from models.spectral import SpectralCritic
from models.splines import SplineFlow
from models.tabular import TabularCritic, TabularModel

__all__ = [
    "Affine",
    "AutoregressiveFlow",
    "ConvCritic",
    "ConvGenerator",
    "CouplingFlow",
    "Critic",
    "Embedding",
    "Flow",
    "GaussianMixture",
    "Given",
    "Glow",
    "GroupSortCritic",
    "GroupSortEmbedding",
    "GrowingCritic",
    "GrowingGenerator",
    "Law",
    "MLPCritic",
    "MLPEmbedding",
    "MLPGenerator",
    "Model",
    "Particles",
    "Projection",
    "PushForward",
    "R3GANCritic",
    "R3GANGenerator",
    "RealNVP",
    "SeparableCritic",
    "ResidualCritic",
    "ResidualGenerator",
    "SpectralCritic",
    "SplineFlow",
    "Stream",
    "StridedCritic",
    "TabularCritic",
    "TabularModel",
    "TransposedGenerator",
    "Weighted",
    "mlp",
]
