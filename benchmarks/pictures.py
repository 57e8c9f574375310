"""The picture of the data sets in docs: samples of each, over the exact density where it is known.

Command: ``python benchmarks/pictures.py [FILE.png]``, by default docs/data.png; about ten seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from se_framework import data as laws
from se_framework.data import Data, Digits
from se_framework.pictures.plots import MODEL, REAL, image_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 1_000
SHADES = ("#fdeee4", "#fbdcc8", "#f8c6a6", "#f4ad82")
PANELS: dict[str, type[Data]] = {
    "digits": laws.Digits,
    "ring8": laws.Ring8,
    "gaussians8": laws.Gaussians8,
    "grid25": laws.Grid25,
    "moons": laws.Moons,
    "checkerboard": laws.Checkerboard,
    "swissroll": laws.SwissRoll,
    "gaussian_mixture_1d": laws.GaussianMixture1d,
}


def panel(axes: Axes, law: Data) -> None:
    """Draw samples of a law and its density."""
    x = law.to_user(law.held_out(POINTS).x.double())
    if isinstance(law, Digits):
        axes.imshow(image_grid(x, (8, 8), 0, 16), interpolation="nearest")
        axes.set_axis_off()
        return
    if law.kind == "curve":
        line = torch.linspace(-3, 7, 801, dtype=torch.float64)
        axes.hist(x[:, 0].numpy(), bins=60, range=(-3, 7), density=True, color=REAL, alpha=0.45)
        axes.plot(line.numpy(), law.log_prob(line[:, None]).exp().numpy(), color=MODEL, linewidth=1.4)
        axes.set_yticks([])
        return
    middle = torch.tensor([0.5, 0.25] if law.name == "moons" else [0.0, 0.0], dtype=torch.float64)
    reach = 1.08 * float((x - middle).abs().max())
    across, up = (torch.linspace(float(m) - reach, float(m) + reach, 301, dtype=torch.float64) for m in middle)
    density = law.log_prob(torch.cartesian_prod(across, up)).exp().view(301, 301).T
    levels = [float(density.max()) * share for share in (0.02, 0.15, 0.4, 0.7, 1.01)]
    axes.contourf(across.numpy(), up.numpy(), density.numpy(), levels=levels, colors=SHADES)
    axes.scatter(*x.T.numpy(), s=1.6, color=REAL, alpha=0.8, linewidths=0)
    axes.set_aspect("equal")


def main(file: Path) -> None:
    """Draw every panel and write the file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 5.1), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, family) in zip(figure.subplots(2, 4).flatten(), PANELS.items(), strict=True):
        law = family()
        panel(axes, law)
        entropy = "" if law.entropy is None else f", H = {law.entropy:.3f}"
        axes.set_box_aspect(1)
        axes.set_title(f"{name}{entropy}", fontsize=9)
        axes.tick_params(labelsize=7, color="#888888")
        for spine in axes.spines.values():
            spine.set_color("#bbbbbb")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, format="png")
    print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "docs" / "data.png")
