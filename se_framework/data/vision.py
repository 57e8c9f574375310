"""Data sets of torchvision, an extra that is imported where it is asked for and nowhere else."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from se_framework.data.images import to_pixels
from se_framework.data.pixels import PixelData
from se_framework.data.rows import MIN_ROWS, check_labels
from se_framework.errors import DataError, nearest


class TorchvisionData(PixelData):
    """A data set of torchvision with its own training and test images; needs ``pip install 'se-framework[images]'``.

    Args:
        name: a class of ``torchvision.datasets`` with a training and a test part, e.g. MNIST, FashionMNIST, CIFAR10.
        root: the folder of its files; ``~`` is expanded.
        size: height and width of the images, scaled and cut as by ImageFolder; None leaves them as they are.
        grey: one channel of grey values in place of three of colour (grey images have one channel always).
        labels: give the models the labels of the data set.
        download: fetch the files where they are absent.

    Raises:
        DataError: torchvision, the data set or its files are absent, or the images differ in shape.
    """

    def __init__(
        self,
        name: str,
        root: str | Path,
        size: int | None = None,
        grey: bool = False,
        labels: bool = False,
        download: bool = False,
    ) -> None:
        if size is not None and size < 1:
            raise DataError(f"data.size must be at least 1 pixel, got {size}")
        parts = [_torchvision_part(name, Path(root).expanduser(), training, download) for training in (True, False)]
        counts = [len(part) for part in parts]
        if min(counts) < 1 or counts[0] < MIN_ROWS:
            raise DataError(f"data.name: {name} holds {counts[0]} training and {counts[1]} test images; give more")
        pixels, targets = _stacked(parts, name, size, grey)
        order = torch.arange(sum(counts))
        numbers, classes = (
            check_labels(np.asarray(targets), sum(counts), f"data.labels: {name}") if labels else (None, 0)
        )
        super().__init__(pixels, order[: counts[0]], order[counts[0] :], name.lower(), numbers, classes)


def _torchvision_part(name: str, root: Path, training: bool, download: bool) -> Any:
    """Return the training or the test part of a data set of torchvision, of (image, target) pairs."""
    try:
        datasets = importlib.import_module("torchvision.datasets")
    except (ImportError, RuntimeError, OSError) as error:
        raise DataError(
            f"data=torchvision needs torchvision ({str(error).splitlines()[0]}): pip install 'se-framework[images]'"
        ) from error
    known = [n for n in dir(datasets) if not n.startswith("_") and isinstance(getattr(datasets, n), type)]
    if name not in known:
        raise DataError(f"data.name: torchvision.datasets has no {name!r}; {nearest(name, known)}")
    cls = getattr(datasets, name)
    accepted = inspect.signature(cls).parameters
    if "train" in accepted:
        options: dict[str, Any] = {"train": training}
    elif "split" in accepted:
        options = {"split": "train" if training else "test"}
    else:
        raise DataError(
            f"data.name: {name} has neither train=True/False nor split='train'/'test'; choose a data set with a "
            "training and a test part, e.g. MNIST"
        )
    if "download" in accepted:
        options["download"] = download
    elif download:
        raise DataError(f"data.download: {name} cannot be downloaded; put its files under data.root, set it to false")
    try:
        return cls(str(root), **options)
    except Exception as error:  # noqa: BLE001  absent, damaged and refused files raise what each data set chooses
        reason = (str(error).splitlines() or [""])[0][:160] or type(error).__name__
        mend = "" if download or "download" not in accepted else ", or add data.download=true"
        raise DataError(
            f"data.root: {name} cannot be read from {str(root)!r} ({reason}); put its files there{mend}"
        ) from error


def _stacked(parts: Sequence[Any], name: str, size: int | None, grey: bool) -> tuple[Tensor, list[Any]]:
    """Return the images of all parts as bytes (N, C, H, W), and their targets."""
    pixels: Tensor | None = None
    targets: list[Any] = []
    for part in parts:
        for i in range(len(part)):
            image, target = part[i]
            if not hasattr(image, "convert"):
                raise DataError(f"data.name: {name} holds a {type(image).__name__}, not images; choose another")
            array = torch.from_numpy(to_pixels(image, size, grey or image.mode in ("1", "L")))
            if pixels is None:
                pixels = torch.empty((sum(map(len, parts)), *array.shape), dtype=torch.uint8)
            if array.shape != pixels.shape[1:]:
                raise DataError(
                    f"data.name: image {len(targets)} of {name} has shape {tuple(array.shape)} and image 0 "
                    f"{tuple(pixels.shape[1:])}; bring them to one with data.size, and data.grey=true"
                )
            pixels[len(targets)] = array
            targets.append(target)
    assert pixels is not None
    return pixels, targets
