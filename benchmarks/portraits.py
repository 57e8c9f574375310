"""The picture of the Dirac game in docs: paths of theta and psi under steps of 0.2, with the field's eigenvalues.

Command: ``python benchmarks/portraits.py [FILE.png]``, by default docs/dirac.png; about a minute.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from divergences import GAN, SoftenedReverseKL, Wasserstein1
from se_framework.equation.penalties import R1, GradientPenalty
from se_framework.pictures.plots import MODEL, REAL
from se_framework.verify.dynamics import DiracGame, consensus, eigenvalues, simulate


def main() -> None:
    """Draw eight games."""
    torch.set_default_dtype(torch.float64)
    games = {
        "one scalar": DiracGame(GAN()).field,
        "non-saturating": DiracGame(GAN(), view=SoftenedReverseKL()).field,
        "transport, unpenalised": DiracGame(Wasserstein1()).field,
        "transport, target one": DiracGame(Wasserstein1(), penalty=GradientPenalty(weight=0.35)).field,
        "zero-centred 0.3": DiracGame(GAN(), penalty=R1(0.3)).field,
        "zero-centred 1 (critical)": DiracGame(GAN(), penalty=R1(1.0)).field,
        "instance noise 0.7": DiracGame(GAN(), noise=0.7).field,
        "consensus 1": consensus(DiracGame(GAN()).field, 1.0),
    }
    figure, panels = plt.subplots(2, 4, figsize=(11, 5.8), layout="constrained")
    for axes, (name, field) in zip(panels.flat, games.items(), strict=True):
        for how, colour in (("simultaneous", MODEL), ("alternating", REAL)):
            path = simulate(field, how, steps=100)
            axes.plot(path[:, 0], path[:, 1], color=colour, linewidth=1, label=how)
        axes.plot(0, 0, "+", color="black")
        # A field that is discontinuous at the equilibrium has no Jacobian there.
        spectrum = "no Jacobian at 0" if "target" in name else f"{eigenvalues(field)[0]:.2g}".replace("j", "i")
        axes.set_title(f"{name}: {spectrum}", fontsize=9)
        axes.set_aspect("equal")
        axes.tick_params(labelsize=7)
    panels[1, 1].legend(fontsize=7, frameon=False)
    figure.supxlabel("theta", fontsize=9)
    figure.supylabel("psi", fontsize=9)
    out = Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent.parent / "docs" / "dirac.png"
    figure.savefig(out, dpi=80)
    print(f"written to {out}")


if __name__ == "__main__":
    main()
