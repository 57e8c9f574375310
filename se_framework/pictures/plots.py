"""Pictures of samples and curves of a run, as small PNG files in user units."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from se_framework.data.base import Data
from se_framework.data.rows import RowData
from se_framework.errors import RunDirectoryError
from se_framework.randomness import generator
from se_framework.runs.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REAL, MODEL, WARN = "#3b6ea8", "#d1603d", "#a02020"
CRITIC = "#3d8b55"
# A critic's panel and the densities' height keep one scale, so that frames can be compared.
LOG_RATIO_RANGE = 6.0
FRAME_TOP = 1.6
FEW = 3.0
"""Samples within a bandwidth below which a kernel estimate says nothing."""
# Beyond this many points a scatter says no more, and the file grows.
_POINTS = 2_000
_GRID = 8
_SKIPPED = ("round", "seconds", "samples", "samples_per_second")

LogProb = Callable[[Tensor], Tensor]


class Critic(NamedTuple):
    """A critic drawn on a line: its name, its values at points of model space, whether they are log-ratios."""

    name: str
    values: Callable[[Tensor], Tensor]
    is_log_ratio: bool


@contextmanager
def _without_latex() -> Iterator[None]:
    """Draw text without LaTeX: a ``matplotlibrc`` in the working directory, whose ever it is, could ask for it."""
    import matplotlib

    with matplotlib.rc_context({"text.usetex": False}):
        yield


@_without_latex()
def picture(
    data: Data,
    samples_user: Tensor,
    path: str | Path,
    *,
    model_log_prob: LogProb | None = None,
    title: str | None = None,
    note: str | None = None,
    critic: Critic | None = None,
) -> None:
    r"""Draw samples next to real points.

    Images: 64 samples, 64 held-out images, the training images nearest to the samples. A line: histogram and densities,
    and below them the critic, beside the true log-ratio where it reads one.
    A plane: two scatters on the same axes. Anything else: the first two principal components of the real points.

    Args:
        data: the law that was to be learnt.
        samples_user: samples in user units, shape (n, \*E).
        path: the PNG file.
        model_log_prob: log-density of the model in model space; drawn on a line only.
        title: heading; the name of the data if None.
        note: printed in red at the bottom, e.g. a warning.
        critic: drawn on a line only.
    """
    samples = samples_user.detach().cpu().double().flatten(1)
    # A diverged run still gets a picture, of what is left of it.
    finite = torch.isfinite(samples).all(1)
    lost = int((~finite).sum())
    samples = samples[finite]
    if lost:
        note = " | ".join(filter(None, [note, f"{lost} of {len(finite)} samples are NaN or infinite and not drawn"]))
    real = data.to_user(data.held_out(max(_POINTS, len(samples))).x.double()).flatten(1)
    heading = data.name if title is None else title
    if data.kind == "image":
        figure = _images(data, samples, real)
    elif data.kind == "curve":
        figure = _line(data, samples[:, 0], real[:, 0], model_log_prob, critic)
    else:
        figure = _scatters(data, samples, real)
    _save(figure, path, heading, note)


@_without_latex()
def curves(metrics_csv_path: str | Path, path: str | Path, note: str | None = None) -> None:
    """Draw every numeric column of a metrics file against the round, one small panel each.

    An empty cell was not recorded and is skipped; a NaN or infinite value leaves a gap and a red tick.

    Args:
        metrics_csv_path: a csv file with a column ``round``; clock, sample counts and columns of text are left out.
        path: the PNG file.
        note: printed in red at the bottom.

    Raises:
        RunDirectoryError: the file is missing or has no column ``round``.
    """
    columns = _columns(Path(metrics_csv_path))
    across = min(3, max(1, len(columns)))
    down = max(1, math.ceil(len(columns) / across))
    figure = _figure(3.6 * across, 2.3 * down + 0.5)
    panels = figure.subplots(down, across, squeeze=False).flatten()
    for panel, (name, (rounds, values)) in zip(panels, columns.items(), strict=False):
        finite = np.isfinite(values)
        mark = "o-" if len(values) <= 30 else "-"
        panel.plot(rounds, np.where(finite, values, np.nan), mark, color=REAL, linewidth=1.2, markersize=2.5)
        # A finite value between two gaps makes no line, so it is drawn as a dot.
        lonely = finite & ~np.r_[False, finite[:-1]] & ~np.r_[finite[1:], False]
        panel.plot(rounds[lonely], values[lonely], ".", color=REAL, markersize=4)
        for bad in rounds[~finite][:200]:
            panel.axvline(bad, ymax=0.06, color=WARN, linewidth=1.5)
        if not finite.all():
            panel.text(0.02, 0.09, f"{(~finite).sum()} not finite", color=WARN, fontsize=7, transform=panel.transAxes)
        good = values[finite]
        if len(good) and good.min() > 0 and good.max() > 1e3 * good.min():
            panel.set_yscale("log")
        _dress(panel, name)
        panel.margins(x=0.02)
        panel.set_xlabel("round", fontsize=8)
    for panel in panels[len(columns) :]:
        panel.set_axis_off()
    if not columns:
        panels[0].text(0.5, 0.5, "no numeric column recorded", ha="center", transform=panels[0].transAxes, fontsize=9)
    _save(figure, path, None, note)


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
    scaled = ((images[: _GRID**2].double() - low) / max(high - low, 1e-12)).clamp(0, 1)
    tiles = torch.ones((_GRID**2, 3, height + 1, width + 1), dtype=torch.float64)
    pixels = rearrange(scaled, "n (c h w) -> n c h w", c=channels, h=height, w=width)
    tiles[: len(pixels), :, 1:, 1:] = pixels.expand(-1, 3, -1, -1)
    grid = rearrange(tiles, "(a b) c h w -> (a h) (b w) c", a=_GRID)
    return np.pad(grid.numpy(), ((0, 1), (0, 1), (0, 0)), constant_values=1.0)


def _images(data: Data, samples: Tensor, real: Tensor) -> Figure:
    assert data.image_shape is not None
    # Samples may come in an order (of classes, of components): the first 64 need not stand for all.
    chosen = _pick(samples, _GRID**2)
    low, high = float(real.min()), float(real.max())
    panels = [("samples", chosen), ("real, held out", _pick(real, _GRID**2))]
    if isinstance(data, RowData) and len(chosen):
        # In model space, as rows are handed out, and in parts: a training set may be larger than the memory in floats.
        inner = data.to_model(chosen.view(-1, *data.event_shape)).flatten(1).to(torch.get_default_dtype())
        count = data.train_size if data.resident else min(_POINTS, data.train_size)
        parts = torch.arange(count).split(_POINTS)
        trained = (data.rows("train", part).to(inner.dtype).flatten(1) for part in parts)
        distance = torch.cat([torch.cdist(inner, rows) for rows in trained], 1)
        found = data.rows("train", distance.argmin(1)).double()
        among = "" if count == data.train_size else f", of {count:,}"
        panels.append((f"training images nearest to the samples{among}", data.to_user(found).flatten(1)))
    figure = _figure(3.4 * len(panels), 3.9)
    for axes, (name, images) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.imshow(image_grid(images, data.image_shape, low, high), interpolation="antialiased")
        axes.set_title(name, fontsize=10)
        axes.set_axis_off()
    return figure


def _line(data: Data, samples: Tensor, real: Tensor, model_log_prob: LogProb | None, critic: Critic | None) -> Figure:
    figure = _figure(6.4, 4.0 if critic is None else 6.4)
    axes, *below = figure.subplots(1 if critic is None else 2, 1, squeeze=False, sharex=True)[:, 0]
    both = torch.cat([real, samples]) if len(samples) else real
    # The range holds all real points and nearly all samples: one wild sample must not squeeze the picture.
    low = min(float(real.min()), float(both.quantile(0.005)))
    high = max(float(real.max()), float(both.quantile(0.995)))
    if critic is not None:  # frames share their axes: the data alone sets them
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
        model = model_log_prob(inner).detach().cpu().double() - data.log_scale
        axes.plot(
            x.numpy(), model.exp().numpy(), color=MODEL, linewidth=1.6, linestyle="--", label="density of the model"
        )
    elif critic is not None and len(samples) > 1:
        model, label = _kernel_estimate(samples, x).log(), "density of the model (kernel estimate)"
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
    _dress(axes, None)
    return figure


def _readings(axes: Axes, x: Tensor, values: Tensor, name: str, truth: Tensor | None) -> None:
    """Draw the critic, and the true log-ratio where there is one, on a scale that is the same in every frame."""
    axes.axhline(0, color="#888888", linewidth=0.8)
    axes.plot(x.numpy(), values.numpy(), color=CRITIC, linewidth=1.8, label=name)
    if truth is not None:
        axes.plot(x.numpy(), truth.numpy(), color="black", linewidth=1.2, linestyle=":", label="true log p_d/p")
        axes.set_ylim(-LOG_RATIO_RANGE, LOG_RATIO_RANGE)
    axes.legend(fontsize=9, frameon=False, loc="lower right")
    _dress(axes, None)


def _kernel_estimate(samples: Tensor, x: Tensor) -> Tensor:
    """Return a Gaussian kernel estimate of the samples' density at x, on a line; NaN where hardly a sample lies.

    The bandwidth is a third of Silverman's, which would wash out a narrow mode beside a wide one.
    """
    n = len(samples)
    spread = torch.minimum(samples.std(), (samples.quantile(0.75) - samples.quantile(0.25)) / 1.34)
    width = float(0.3 * spread.clamp(min=1e-9) * n**-0.2)
    square = ((x[:, None] - samples) / width).square()
    density = torch.exp(torch.logsumexp(-0.5 * square, 1) - math.log(n * width * math.sqrt(2 * math.pi)))
    return torch.where(density * n * width < FEW, torch.nan, density)


def _scatters(data: Data, samples: Tensor, real: Tensor) -> Figure:
    labels = ("x1", "x2")
    if data.kind == "table":
        mean = real.mean(0)
        _, sizes, directions = torch.linalg.svd(real - mean, full_matrices=False)
        share = 100 * sizes.square() / sizes.square().sum().clamp(min=torch.finfo(torch.float64).tiny)
        labels = tuple(f"principal component {i + 1} ({float(share[i]):.0f} %)" for i in range(2))  # type: ignore[assignment]
        real, samples = (real - mean) @ directions[:2].T, (samples - mean) @ directions[:2].T
    real, drawn = _pick(real, _POINTS), _pick(samples, _POINTS)
    low, high = real.amin(0), real.amax(0)
    if len(drawn):
        # One wild sample must not squeeze the picture.
        low, high = torch.minimum(low, drawn.quantile(0.005, 0)), torch.maximum(high, drawn.quantile(0.995, 0))
    pad = 0.06 * (high - low).clamp(min=1e-9)
    outside = int(((samples < low - pad) | (samples > high + pad)).any(1).sum())
    ratio = float((high - low + 2 * pad)[1] / (high - low + 2 * pad)[0]) if data.kind == "points" else 0.9
    figure = _figure(8.2, 1.0 + 3.6 * min(max(ratio, 0.4), 1.6))
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    names = ("real, held out", "samples" + (f" ({outside} of {len(samples)} outside)" if outside else ""))
    for axes, points, color, name in zip(panels, (real, drawn), (REAL, MODEL), names, strict=True):
        axes.scatter(*points.T.numpy(), s=5, color=color, alpha=0.45, linewidths=0)
        axes.set_xlabel(labels[0], fontsize=9)
        axes.set_aspect("equal" if data.kind == "points" else "auto", adjustable="box")
        _dress(axes, name)
    panels[0].set_ylabel(labels[1], fontsize=9)
    panels[0].set_xlim(float(low[0] - pad[0]), float(high[0] + pad[0]))
    panels[0].set_ylim(float(low[1] - pad[1]), float(high[1] + pad[1]))
    return figure


def _columns(file: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return name -> (rounds, values) for the numeric columns, without the cells that are empty."""
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as error:
        raise RunDirectoryError(f"the metrics {str(file)!r} cannot be read ({error}); train first") from error
    if rows and "round" not in rows[0]:
        raise RunDirectoryError(
            f"{str(file)!r} has no column 'round' (columns: {', '.join(rows[0])}); give metrics.csv"
        )
    found = {}
    for name in filter(None, rows[0] if rows else ()):
        cells = [(row["round"], row[name]) for row in rows if row[name]] if name not in _SKIPPED else []
        try:
            pairs = np.array([(float(r), float(v)) for r, v in cells])
        except (TypeError, ValueError):
            continue
        if len(pairs):
            found[name] = (pairs[:, 0], pairs[:, 1])
    return found


def _pick(points: Tensor, count: int) -> Tensor:
    if len(points) <= count:
        return points
    return points[torch.randperm(len(points), generator=generator(0, 0, "picture"))[:count]]


def _figure(width: float, height: float) -> Figure:
    # Without pyplot: no window system, no global state, no figure that is never closed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _dress(axes: Axes, title: str | None) -> None:
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, color="#888888")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#888888")
    if title:
        axes.set_title(title, fontsize=10)


def _save(figure: Figure, path: str | Path, title: str | None, note: str | None) -> None:
    if title:
        figure.suptitle(title, fontsize=12)
    if note:
        lines = textwrap.fill(note, int(figure.get_figwidth() * 14))
        figure.supxlabel(lines, fontsize=9, color=WARN)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(Path(path), buffer.getvalue())
