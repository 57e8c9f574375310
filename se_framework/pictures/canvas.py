"""What every picture is drawn on: a figure without a window, plain axes, a PNG file written whole or not at all."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from se_framework.runs.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REAL, MODEL, WARN = "#3b6ea8", "#d1603d", "#a02020"
CRITIC = "#3d8b55"


@contextmanager
def without_latex() -> Iterator[None]:
    """Draw text without LaTeX: a ``matplotlibrc`` in the working directory, whose ever it is, could ask for it."""
    import matplotlib

    with matplotlib.rc_context({"text.usetex": False}):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return a figure without pyplot: no window system, no global state, no figure that is never closed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def dress(axes: Axes, title: str | None) -> None:
    """Give axes a light grid, small labels and their title."""
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, color="#888888")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#888888")
    if title:
        axes.set_title(title, fontsize=10, parse_math=False)  # a column of a table may have any name


def save(figure: Figure, path: str | Path, title: str | None, note: str | None) -> None:
    """Write a figure with its heading, and a note in red at the bottom."""
    if title:
        figure.suptitle(title, fontsize=12)
    if note:
        lines = textwrap.fill(note, int(figure.get_figwidth() * 14))
        figure.supxlabel(lines, fontsize=9, color=WARN)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(Path(path), buffer.getvalue())
