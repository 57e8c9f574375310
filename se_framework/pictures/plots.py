"""Pictures of samples and curves of a run, as small PNG files in user units."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from se_framework.data.base import Data
from se_framework.errors import RunDirectoryError, printable
from se_framework.pictures.canvas import MODEL, REAL, WARN, dress, new_figure, save, without_latex
from se_framework.pictures.panels import GRID, POINTS, LogProb, Reading, image_grid, of_a_line, of_images, of_points
from se_framework.reading import UnreadableError
from se_framework.runs.tables import table

__all__ = ["MODEL", "REAL", "Reading", "curves", "image_grid", "picture"]
MOST_PANELS = 48
"""Columns that are drawn: the first ones."""
_SKIPPED = ("round", "seconds", "samples", "samples_per_second")


@without_latex()
def picture(
    data: Data,
    samples_user: Tensor,
    path: str | Path,
    *,
    model_log_prob: LogProb | None = None,
    title: str | None = None,
    note: str | None = None,
    critic: Reading | None = None,
    one_of_many: bool = False,
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
        one_of_many: whether it is a frame, whose axes the data alone sets, so that all frames have the same.
    """
    samples = samples_user.detach().cpu().double().flatten(1)
    # A diverged run still gets a picture, of what is left of it.
    finite = torch.isfinite(samples).all(1)
    lost = int((~finite).sum())
    samples = samples[finite]
    if lost:
        note = " | ".join(filter(None, [note, f"{lost} of {len(finite)} samples are NaN or infinite and not drawn"]))
    shown = GRID if data.kind == "image" else POINTS
    real = data.to_user(data.held_out(max(shown, len(samples))).x.double()).flatten(1)
    heading = data.name if title is None else title
    if data.kind == "image":
        figure = of_images(data, samples, real)
    elif data.kind == "curve":
        figure = of_a_line(data, samples[:, 0], real[:, 0], model_log_prob, critic, one_of_many)
    else:
        figure = of_points(data, samples, real, one_of_many)
    save(figure, path, heading, note)


@without_latex()
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
    figure = new_figure(3.6 * across, 2.3 * down + 0.5)
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
        dress(panel, printable(name, 60))
        panel.margins(x=0.02)
        panel.set_xlabel("round", fontsize=8)
    for panel in panels[len(columns) :]:
        panel.set_axis_off()
    if not columns:
        panels[0].text(0.5, 0.5, "no numeric column recorded", ha="center", transform=panels[0].transAxes, fontsize=9)
    save(figure, path, None, note)


def _columns(file: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return name -> (rounds, values) for the numeric columns, without the cells that are empty."""
    try:
        rows = list(table(file))
    except (FileNotFoundError, UnreadableError) as error:
        why = "missing" if isinstance(error, FileNotFoundError) else error
        raise RunDirectoryError(f"the metrics {str(file)!r} cannot be read ({why}); train first") from error
    found = {}
    for name in filter(None, rows[0] if rows else ()):
        cells = [(row["round"], row[name]) for row in rows if row[name]] if name not in _SKIPPED else []
        try:
            pairs = np.array([(float(r), float(v)) for r, v in cells])
        except (TypeError, ValueError):
            continue
        if len(pairs):
            found[name] = (pairs[:, 0], pairs[:, 1])
        if len(found) == MOST_PANELS:
            break
    return found
