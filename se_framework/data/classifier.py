"""A small classifier of images, trained once per machine: its last hidden layer is what scores look at.

The same images and the same processor give the same weights; another processor may round otherwise, so figures name the
digest of the weights that they were made with. They are kept in the user's cache (``XDG_CACHE_HOME``, ``~/.cache``).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from se_framework.data import fingerprint
from se_framework.randomness import generator
from se_framework.reading import UnreadableError, opened

UNITS = 64
EPOCHS, BATCH, RATE = 20, 64, 5e-3
TURN, ZOOM, MOVE = 0.2, 0.1, 0.14
"""Largest turn (radians), change of size (share) and shift (half sides) of a training image."""
LARGEST_FILE = 2**22
PART = 2_000
"""Images that are looked at together."""


class Classifier:
    """A trained classifier of grey images of 28 x 28 pixels from 0 to 255.

    Args:
        net: features, then one linear layer.
    """

    def __init__(self, net: nn.Sequential) -> None:
        self._net = net.eval().requires_grad_(False)
        self.digest = fingerprint.of_tensors(list(net.state_dict().values())).rpartition(":")[2][:8]

    def features(self, x: Tensor) -> Tensor:
        r"""Return the units of the last hidden layer, (n, 64), of images (n, \*E), E holding 784 numbers."""
        return torch.cat([self._net[:-1](part) for part in _images(x).split(PART)])

    def labels(self, x: Tensor) -> Tensor:
        r"""Return the most probable class of images (n, \*E), shape (n,), int64."""
        return self._net[-1](self.features(x)).argmax(1)

    def accuracy(self, x: Tensor, labels: Tensor) -> float:
        """Return the share of images whose class is told right."""
        return float((self.labels(x) == labels).double().mean())


def trained(x: Tensor, labels: Tensor) -> Classifier:
    """Return the classifier of these images: from the cache, or trained (about 15 seconds) and put there.

    Args:
        x: training images of 28 x 28 pixels from 0 to 255, shape (N, 1, 28, 28).
        labels: their classes 0..K-1, shape (N,).
    """
    net = _network(int(labels.max()) + 1)
    file = _cached(x, labels)
    if not _restored(net, file):
        _train(net, _images(x), labels)
        _keep(net, file)
    return Classifier(net)


def _images(x: Tensor) -> Tensor:
    return x.reshape(len(x), 1, 28, 28).float() / 255


def _network(classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16 * 49, UNITS), nn.ReLU(), nn.Linear(UNITS, classes),
    ).to(dtype=torch.float32)  # fmt: skip


def _train(net: nn.Sequential, x: Tensor, labels: Tensor) -> None:
    draw = generator(0, 0, "classifier")
    with torch.no_grad():
        for p in net.parameters():
            bound = (p[0].numel() if p.ndim > 1 else p.numel()) ** -0.5
            p.copy_((torch.rand(p.shape, generator=draw, dtype=p.dtype) * 2 - 1) * bound)
    # A schedule of ours: the optimiser's own is that of torch.
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=1e-2)
    steps = EPOCHS * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(x), generator=draw)
        for chosen in order[: len(x) // BATCH * BATCH].split(BATCH):
            loss = F.cross_entropy(net(_moved(x[chosen], draw)), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def _moved(x: Tensor, draw: torch.Generator) -> Tensor:
    """Return images that are turned, zoomed and shifted at random."""
    u = torch.rand(4, len(x), generator=draw, dtype=x.dtype) * 2 - 1
    angle, size = TURN * u[0], 1 + ZOOM * u[1]
    cosine, sine = size * angle.cos(), size * angle.sin()
    maps = torch.stack([cosine, -sine, MOVE * u[2], sine, cosine, MOVE * u[3]], 1).view(-1, 2, 3)
    return F.grid_sample(x, F.affine_grid(maps, list(x.shape), align_corners=False), align_corners=False)


def _cached(x: Tensor, labels: Tensor) -> Path:
    """Return where the weights for these images, by this recipe, are kept."""
    recipe = f"{fingerprint.of_tensors([x, labels])} {EPOCHS} {BATCH} {RATE} {TURN} {ZOOM} {MOVE} {torch.__version__}"
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "se-framework"
    return folder / f"classifier-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.safetensors"


def _restored(net: nn.Sequential, file: Path) -> bool:
    """Load weights into the network where the file holds such; return whether it did."""
    try:
        with opened(file, LARGEST_FILE) as (stream, _):
            found = load(stream.read())
    except (FileNotFoundError, UnreadableError, OSError, SafetensorError):
        return False
    wanted = net.state_dict()
    fits = found.keys() == wanted.keys() and all(
        found[k].shape == v.shape and found[k].dtype == v.dtype and bool(found[k].isfinite().all())
        for k, v in wanted.items()
    )
    if fits:
        net.load_state_dict(found)
    return fits


def _keep(net: nn.Sequential, file: Path) -> None:
    """Write the weights, whole or not at all; a cache that cannot be written is no loss."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as stream:
            stream.write(save({k: v.contiguous() for k, v in net.state_dict().items()}))
        os.replace(stream.name, file)
    except OSError:
        return
