"""Small instances of every model, critic and embedding; a concrete class without a row fails a test."""

from __future__ import annotations

import torch

from models.autoregressive import AutoregressiveFlow
from models.convolutional import ConvCritic, ConvGenerator
from models.critics import GroupSortCritic, MLPCritic
from models.embeddings import GroupSortEmbedding, MLPEmbedding, Projection
from models.flows import RealNVP
from models.generators import Affine, MLPGenerator
from models.given import Given
from models.glow.model import Glow
from models.images.growing import GrowingCritic, GrowingGenerator
from models.images.r3gan import R3GANCritic, R3GANGenerator
from models.images.residual import ResidualGenerator
from models.images.residual_critic import ResidualCritic
from models.images.transposed import StridedCritic, TransposedGenerator
from models.mixtures import GaussianMixture
from models.separable import SeparableCritic
from models.spectral import SpectralCritic
from models.splines import SplineFlow
from models.tabular import TabularCritic, TabularModel


class Cloud:
    """A second law: N(0, 1) in two dimensions."""

    def draw(self, n, generator, held_out=False):
        """Draw points, shape (n, 2)."""
        return torch.randn(n, 2, generator=generator)


def half_way(network):
    """Return a growing network in the midst of its fade, where all of its layers are read."""
    for samples in (0, 1):
        for fade in network.fade.values():
            fade.at(samples)
    return network


MODELS = {
    "affine-1": lambda: Affine((1,)),
    "affine-3": lambda: Affine((3,), init_scale=1.5),
    "affine-image": lambda: Affine((1, 4, 4)),
    "mlp-2": lambda: MLPGenerator((2,), latent_dim=3, width=8, activation="silu"),
    "mlp-image": lambda: MLPGenerator((1, 4, 4), latent_dim=5, width=8, activation="tanh"),
    "nvp-2": lambda: RealNVP((2,), couplings=4, width=8),
    "nvp-3": lambda: RealNVP((3,), couplings=5, width=8, activation="tanh"),
    "nvp-7": lambda: RealNVP((7,), couplings=4, width=8, depth=1),
    "nvp-image": lambda: RealNVP((1, 4, 4), couplings=6, width=8, activation="relu"),
    "conv-4x4": lambda: ConvGenerator((1, 4, 4), latent_dim=3, width=4),
    "conv-flat": lambda: ConvGenerator((90,), (2, 5, 9), latent_dim=3, width=3, output="tanh"),
    "r3gan-8": lambda: R3GANGenerator((1, 8, 8), latent_dim=3, width=4, per_group=2),
    "growing-8": lambda: GrowingGenerator((1, 8, 8), latent_dim=3, base=8, most=4),
    "growing-fade": lambda: half_way(GrowingGenerator((36,), (6, 6), 3, base=8, most=4, resolution=8, fade=2)),
    "transposed-flat": lambda: TransposedGenerator((90,), (2, 5, 9), latent_dim=3, width=2),
    "residual-8": lambda: ResidualGenerator((8, 8), latent_dim=3, width=4),
    "residual-skip": lambda: ResidualGenerator(
        (2, 16, 16),
        latent_dim=6,
        width=2,
        multipliers=(2, 1, 1),
        skip=True,
        spectral=True,
        start="orthogonal",
        attention=16,
    ),
    "mixture-1": lambda: GaussianMixture((1,), components=2),
    "mixture-2": lambda: GaussianMixture((2,), components=3),
    "mixture-image": lambda: GaussianMixture((1, 4, 4), components=7, min_scale=0.5),
    "spline-2": lambda: SplineFlow((2,), couplings=4, width=8),
    "spline-3": lambda: SplineFlow((3,), couplings=5, width=8, activation="tanh", bins=5),
    "spline-image": lambda: SplineFlow((1, 4, 4), couplings=4, width=4, depth=1, bins=4, activation="tanh"),
    "spline-white": lambda: SplineFlow((3,), couplings=4, width=8, whiten=True),
    "nvp-white": lambda: RealNVP((2,), couplings=2, width=8, whiten=True),
    "tabular-6": lambda: TabularModel((1,)),
    "tabular-3": lambda: TabularModel(letters=3),
    "glow-image": lambda: Glow((1, 4, 4), levels=2, steps=2, width=4),
    "glow-flat": lambda: Glow((32,), (2, 4, 4), levels=1, steps=2, width=3, coupling="additive", mixing="plain"),
    "glow-spline": lambda: Glow((4, 4), levels=1, steps=1, width=3, coupling="spline", bins=3),
    "maf-2": lambda: AutoregressiveFlow((2,), layers=2, width=8),
    "maf-5": lambda: AutoregressiveFlow((5,), layers=3, width=7, activation="tanh", whiten=True),
    "iaf-3": lambda: AutoregressiveFlow((3,), "sampling", layers=2, width=8, depth=1),
    "iaf-image": lambda: AutoregressiveFlow((1, 2, 2), "sampling", layers=2, width=6, activation="silu", whiten=True),
    "given-2": lambda: Given((2,), Cloud()),
}
CRITICS = {
    "mlp-1": lambda: MLPCritic((1,), width=8),
    "mlp-image": lambda: MLPCritic((1, 4, 4), width=8, depth=2, activation="softplus"),
    "groupsort-1": lambda: GroupSortCritic((1,), width=8),
    "groupsort-3": lambda: GroupSortCritic((3,), width=8, depth=2),
    "groupsort-narrow": lambda: GroupSortCritic((9,), width=6),
    "groupsort-image": lambda: GroupSortCritic((1, 4, 4), width=16),
    "separable-3": lambda: SeparableCritic((3,), 1, outputs=2, width=8),
    "spectral-1": lambda: SpectralCritic((1,), width=8),
    "spectral-image": lambda: SpectralCritic((1, 4, 4), width=12, depth=2, activation="relu"),
    "conv-4x4": lambda: ConvCritic((1, 4, 4), width=4),
    "conv-flat": lambda: ConvCritic((90,), (2, 5, 9), width=3, spectral=True),
    "r3gan-8": lambda: R3GANCritic((64,), (1, 8, 8), width=4, per_group=2),
    "growing-8": lambda: GrowingCritic((1, 8, 8), base=8, most=4, deviation=False),
    "growing-fade": lambda: half_way(GrowingCritic((36,), (6, 6), 8, 4, 8, fade=2, deviation=False)),
    "strided-batch": lambda: StridedCritic((8, 8), width=3),
    "strided-flat": lambda: StridedCritic((90,), (2, 5, 9), width=3, norm="none"),
    "residual-8": lambda: ResidualCritic((8, 8), width=3),
    "residual-wide": lambda: ResidualCritic(
        (2, 16, 16), width=2, multipliers=(1, 2, 2), plain=1, start="orthogonal", attention=8
    ),
    "tabular-6": lambda: TabularCritic((1,)),
}
EMBEDDINGS = {
    "groupsort-3": lambda: GroupSortEmbedding((3,), outputs=2, width=8),
    "mlp-image": lambda: MLPEmbedding((1, 4, 4), outputs=3, width=8),
    "mlp-free": lambda: MLPEmbedding((2,), outputs=1, width=8, activation="silu", bounded=False),
    "projection": lambda: Projection((1, 2, 2)),
    "projection-2": lambda: Projection((3,), outputs=2),
}
