"""Data: toy laws with a density, tensors, files, digits."""

from __future__ import annotations

from se_framework.data.base import Data, Kind, Sampler
from se_framework.data.tensors import ArrayData, DequantizedDigits, Digits, TensorData, as_data
from se_framework.data.toys import GaussianMixture, GaussianMixture1d, Gaussians8, Moons, Ring8

__all__ = [
    "ArrayData",
    "Data",
    "DequantizedDigits",
    "Digits",
    "GaussianMixture",
    "GaussianMixture1d",
    "Gaussians8",
    "Kind",
    "Moons",
    "Ring8",
    "Sampler",
    "TensorData",
    "as_data",
]
