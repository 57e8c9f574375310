"""Data: toy laws with a density, tensors, files, digits, images, and what is read when it is needed."""

from __future__ import annotations

from se_framework.data.base import Data, Kind
from se_framework.data.datasets import StreamedData
from se_framework.data.digits import DequantizedDigits, Digits
from se_framework.data.files import StreamedArray, StreamedImages
from se_framework.data.images import ImageFolder
from se_framework.data.mnist import DequantizedMnist5k, Mnist5k, StackedMnist
from se_framework.data.pairs import CorrelatedGaussians, Paired, TwoSamples
from se_framework.data.pixels import PixelData
from se_framework.data.rows import RowData
from se_framework.data.sampler import Sampler
from se_framework.data.shapes import Checkerboard, SwissRoll
from se_framework.data.tensors import ArrayData, TensorData, as_data
from se_framework.data.toys import GaussianMixture, GaussianMixture1d, Gaussians8, Grid25, Moons, Ring8
from se_framework.data.vision import TorchvisionData

__all__ = [
    "ArrayData",
    "Checkerboard",
    "CorrelatedGaussians",
    "Data",
    "DequantizedDigits",
    "DequantizedMnist5k",
    "Digits",
    "GaussianMixture",
    "GaussianMixture1d",
    "Gaussians8",
    "Grid25",
    "ImageFolder",
    "Kind",
    "Mnist5k",
    "Moons",
    "Paired",
    "PixelData",
    "Ring8",
    "RowData",
    "Sampler",
    "StreamedArray",
    "StreamedData",
    "StreamedImages",
    "StackedMnist",
    "SwissRoll",
    "TensorData",
    "TorchvisionData",
    "TwoSamples",
    "as_data",
]
