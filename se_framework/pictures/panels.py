"""Samples beside real points, each kind of data in its own way: images, a line, a plane."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from se_framework.data.base import Data
from se_framework.data.rows import RowData
from se_framework.pictures.canvas import CRITIC, MODEL, REAL, dress, new_figure
from se_framework.randomness import generator

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A critic's panel and the densities' height keep one scale, so that frames can be compared.
LOG_RATIO_RANGE = 6.0
FRAME_TOP = 1.6
FEW = 3.0
"""Samples within a bandwidth below which a kernel estimate says nothing."""
POINTS = 2_000
"""Points beyond which a scatter says no more, and the file grows."""
_GRID = 8
GRID = _GRID**2
"""Images in a picture of some."""
CHUNK = 2**23
"""Numbers of training images that are looked at together."""

LogProb = Callable[[Tensor], Tensor]


class Reading(NamedTuple):
    """A critic drawn on a line: its name, its values at points of model space, whether they are log-ratios."""

    name: str
    values: Callable[[Tensor], Tensor]
    is_log_ratio: bool


def image_grid(images: Tensor, image_shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    """Arrange up to 64 images on an 8 x 8 grid with white seams.

    Args:
        images: shape (n, numel(image_shape)); grey values are clipped to [low, high] for display only.
        image_shape: (H, W) or (C, H, W) with C = 1 or 3.
        low: value shown black.
        high: value shown white.

    Returns:
        An array (8 (H + 1) + 1, 8 (W + 1) + 1, 3) with values in [0, 1].
    """
    height, width = image_shape[-2:]
    channels = image_shape[0] if len(image_shape) == 3 else 1
    scaled = ((images[:GRID].double() - low) / max(high - low, 1e-12)).clamp(0, 1)
    tiles = torch.ones((GRID, 3, height + 1, width + 1), dtype=torch.float64)
    pixels = rearrange(scaled, "n (c h w) -> n c h w", c=channels, h=height, w=width)
    tiles[: len(pixels), :, 1:, 1:] = pixels.expand(-1, 3, -1, -1)
    grid = rearrange(tiles, "(a b) c h w -> (a h) (b w) c", a=_GRID)
    return np.pad(grid.numpy(), ((0, 1), (0, 1), (0, 0)), constant_values=1.0)


def of_images(data: Data, samples: Tensor, real: Tensor) -> Figure:
    """Draw samples, held-out images, and the training images nearest to the samples."""
    assert data.image_shape is not None
    # Samples may come in an order (of classes, of components): the first 64 need not stand for all.
    chosen = pick(samples, GRID)
    low, high = float(real.min()), float(real.max())
    panels = [("samples", chosen), ("real, held out", pick(real, GRID))]
    if isinstance(data, RowData) and len(chosen):
        # In model space, as rows are handed out, and in parts: a training set may be larger than the memory in floats.
        # Rows are stored before a transform, whose values are then those of the user.
        flat = data.transform is None
        inner = (data.to_model(chosen.view(-1, *data.event_shape)) if flat else chosen).flatten(1)
        inner = inner.to(torch.get_default_dtype())
        count = data.train_size if data.resident else min(POINTS, data.train_size)
        parts = torch.arange(count).split(max(1, min(POINTS, CHUNK // inner.shape[1])))
        trained = (data.rows("train", part).to(inner.dtype).flatten(1) for part in parts)
        distance = torch.cat([torch.cdist(inner, rows) for rows in trained], 1)
        found = data.rows("train", distance.argmin(1)).double()
        among = "" if count == data.train_size else f", of {count:,}"
        shown = data.to_user(found) if flat else data.to_user(data.points("train", distance.argmin(1)).x.double())
        panels.append((f"training images nearest to the samples{among}", shown.flatten(1)))
    figure = new_figure(3.4 * len(panels), 3.9)
    for axes, (name, images) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.imshow(image_grid(images, data.image_shape, low, high), interpolation="antialiased")
        axes.set_title(name, fontsize=10)
        axes.set_axis_off()
    return figure


def of_a_line(
    data: Data,
    samples: Tensor,
    real: Tensor,
    model_log_prob: LogProb | None,
    critic: Reading | None,
    one_of_many: bool = False,
) -> Figure:
    """Draw histogram and densities, and below them the critic; of a frame the data alone sets the axes."""
    figure = new_figure(6.4, 4.0 if critic is None else 6.4)
    axes, *below = figure.subplots(1 if critic is None else 2, 1, squeeze=False, sharex=True)[:, 0]
    both = torch.cat([real, samples]) if len(samples) else real
    # The range holds all real points and nearly all samples: one wild sample must not squeeze the picture.
    low = min(float(real.min()), float(both.quantile(0.005)))
    high = max(float(real.max()), float(both.quantile(0.995)))
    if one_of_many or critic is not None:
        low, high = float(real.min()), float(real.max())
    pad = 0.05 * (high - low) or 1.0
    low, high = low - pad, high + pad
    fewest = len(samples) if data.has_log_prob else min(len(samples), len(real))
    bins = np.linspace(low, high, min(81, max(16, int(2 * fewest**0.5)))).tolist()
    if len(samples):
        # Weighted by hand, so that samples outside the range lower the bars instead of vanishing.
        bar = np.full(len(samples), 1 / (len(samples) * (bins[1] - bins[0])))
        axes.hist(samples.numpy(), bins=bins, weights=bar, color=MODEL, alpha=0.35, label=f"samples ({len(samples):,})")
    x = torch.linspace(low, high, 801, dtype=torch.float64)
    points = x.view(-1, *data.event_shape)
    if data.has_log_prob:
        axes.plot(
            x.numpy(), data.log_prob(points).exp().numpy(), color=REAL, linewidth=1.8, label="density of the data"
        )
    else:
        axes.hist(
            real.numpy(), bins=bins, density=True, histtype="step", color=REAL, linewidth=1.5, label="real, held out"
        )
    if model_log_prob is not None:
        inner = data.to_model(points).to(torch.get_default_dtype())
        model = model_log_prob(inner).detach().cpu().double() - data.log_slope(inner)
        axes.plot(
            x.numpy(), model.exp().numpy(), color=MODEL, linewidth=1.6, linestyle="--", label="density of the model"
        )
    elif critic is not None and len(samples) > 1:
        model, label = kernel_estimate(samples, x).log(), "density of the model (kernel estimate)"
        axes.plot(x.numpy(), model.exp().numpy(), color=MODEL, linewidth=1.6, linestyle="--", label=label)
    axes.set_xlim(low, high)
    axes.set_ylim(0, FRAME_TOP * float(data.log_prob(points).exp().max()) if critic and data.has_log_prob else None)
    if critic is not None:
        truth = (
            data.log_prob(points) - model if critic.is_log_ratio and data.has_log_prob and len(samples) > 1 else None
        )
        _readings(below[0], x, critic.values(data.to_model(points)).detach().cpu(), critic.name, truth)
    (below or [axes])[-1].set_xlabel("x")
    axes.set_ylabel("density")
    axes.legend(fontsize=9, frameon=False)
    dress(axes, None)
    return figure


def _readings(axes: Axes, x: Tensor, values: Tensor, name: str, truth: Tensor | None) -> None:
    """Draw the critic, and the true log-ratio where there is one, on a scale that is the same in every frame."""
    axes.axhline(0, color="#888888", linewidth=0.8)
    axes.plot(x.numpy(), values.numpy(), color=CRITIC, linewidth=1.8, label=name)
    if truth is not None:
        axes.plot(x.numpy(), truth.numpy(), color="black", linewidth=1.2, linestyle=":", label="true log p_d/p")
        axes.set_ylim(-LOG_RATIO_RANGE, LOG_RATIO_RANGE)
    axes.legend(fontsize=9, frameon=False, loc="lower right")
    dress(axes, None)


def kernel_estimate(samples: Tensor, x: Tensor) -> Tensor:
    """Return a Gaussian kernel estimate of the samples' density at x, on a line; NaN where hardly a sample lies.

    The bandwidth is a third of Silverman's, which would wash out a narrow mode beside a wide one.
    """
    n = len(samples)
    spread = torch.minimum(samples.std(), (samples.quantile(0.75) - samples.quantile(0.25)) / 1.34)
    width = float(0.3 * spread.clamp(min=1e-9) * n**-0.2)
    square = ((x[:, None] - samples) / width).square()
    density = torch.exp(torch.logsumexp(-0.5 * square, 1) - math.log(n * width * math.sqrt(2 * math.pi)))
    return torch.where(density * n * width < FEW, torch.nan, density)


def of_points(data: Data, samples: Tensor, real: Tensor, one_of_many: bool = False) -> Figure:
    """Draw two scatters on the same axes, of the first two principal components where there are more coordinates.

    Of a frame (``one_of_many``) the data alone sets the axes.
    """
    labels = ("x1", "x2")
    if data.kind == "table":
        mean = real.mean(0)
        _, sizes, directions = torch.linalg.svd(real - mean, full_matrices=False)
        share = 100 * sizes.square() / sizes.square().sum().clamp(min=torch.finfo(torch.float64).tiny)
        labels = tuple(f"principal component {i + 1} ({float(share[i]):.0f} %)" for i in range(2))  # type: ignore[assignment]
        real, samples = (real - mean) @ directions[:2].T, (samples - mean) @ directions[:2].T
    real, drawn = pick(real, POINTS), pick(samples, POINTS)
    low, high = real.amin(0), real.amax(0)
    if len(drawn) and not one_of_many:
        # One wild sample must not squeeze the picture.
        low, high = torch.minimum(low, drawn.quantile(0.005, 0)), torch.maximum(high, drawn.quantile(0.995, 0))
    pad = (0.2 if one_of_many else 0.06) * (high - low).clamp(min=1e-9)
    outside = int(((samples < low - pad) | (samples > high + pad)).any(1).sum())
    ratio = float((high - low + 2 * pad)[1] / (high - low + 2 * pad)[0]) if data.kind == "points" else 0.9
    figure = new_figure(8.2, 1.0 + 3.6 * min(max(ratio, 0.4), 1.6))
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    names = ("real, held out", "samples" + (f" ({outside} of {len(samples)} outside)" if outside else ""))
    for axes, points, color, name in zip(panels, (real, drawn), (REAL, MODEL), names, strict=True):
        axes.scatter(*points.T.numpy(), s=5, color=color, alpha=0.45, linewidths=0)
        axes.set_xlabel(labels[0], fontsize=9)
        axes.set_aspect("equal" if data.kind == "points" else "auto", adjustable="box")
        dress(axes, name)
    panels[0].set_ylabel(labels[1], fontsize=9)
    panels[0].set_xlim(float(low[0] - pad[0]), float(high[0] + pad[0]))
    panels[0].set_ylim(float(low[1] - pad[1]), float(high[1] + pad[1]))
    return figure


def pick(points: Tensor, count: int) -> Tensor:
    """Return some of the points, chosen at random and always the same."""
    if len(points) <= count:
        return points
    return points[torch.randperm(len(points), generator=generator(0, 0, "picture"))[:count]]
