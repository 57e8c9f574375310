r"""What a trained critic looks like: landscape, log-ratio against the true one, vector field, weights of q.

The only part of a page for which data and model are built, as :func:`se_framework.load` builds them: nothing that is
neither ours nor torch's nor trusted runs. What cannot be built is a sentence in the place of the pictures.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.laws import Particles
from se_framework.api import load
from se_framework.assembly import Assembly
from se_framework.comparison.report.content import Content, colour
from se_framework.comparison.report.fields import (
    arrows,
    effective_size,
    histogram,
    kernel_log_density,
    slopes,
    steepest,
)
from se_framework.comparison.report.html import figure, table, text
from se_framework.comparison.report.series import short
from se_framework.equation.modes import evaluating
from se_framework.errors import SEError
from se_framework.evaluation.evaluate import log_density
from se_framework.randomness import Stream
from se_framework.training.draws import draw_batch, like

POINTS = 2_000
"""Samples of the model, and points of the data."""
SHOWN, ARROWS = 400, 120
"""Samples and arrows that are drawn."""
SIDE, LINE = 40, 240
"""Cells along a side of the plane, and points on a line."""
RANGE = 6.0
"""Log-ratios beyond are drawn as this: one far point must not take all colours."""


@dataclass
class Looks:
    """What a critic looks like, before it is put on a page.

    Attributes:
        lead: of which round.
        charts: what :meth:`Content.chart` is called with, and numbers that a kind of chart asks for.
        rows: figures by name.
        absent: why something is not shown, sentences.
    """

    lead: str = ""
    charts: list[tuple[str, str, dict[str, Any], str, dict[str, float]]] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    def chart(self, kind: str, title: str, data: dict[str, Any], note: str = "", **signals: float) -> None:
        """Add a chart."""
        self.charts.append((kind, title, data, note, signals))

    def on(self, content: Content) -> str:
        """Put it on a page and return its HTML."""
        drawn = "".join(content.chart(*of) for of in self.charts)
        parts = [f'<p class="note">{text(self.lead)}</p>' if self.lead else ""]
        parts += [f'<div class="grid wide">{drawn}</div>'] if drawn else []
        parts += [f'<p class="absent">Not shown: {text(why, 1200)}</p>' for why in self.absent]
        parts += [table(["figure", "value"], self.rows, "figures of the critic")] if self.rows else []
        return "".join(parts)


def critic_of(
    path: Path, trust: str | Sequence[str] = (), member: int | None = None, checkpoint: str = "last",
    device: str | None = "cpu",
) -> Looks:  # fmt: skip
    """Return what a run's critic looks like, or why that is not shown.

    Args:
        path: of the run.
        trust: packages that the run may use besides ours and torch.
        member: of an ensemble.
        checkpoint: which.
        device: where the parts are built.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a spoilt checkpoint, of networks: the page is no place for them
            return look(load(path, device=device, trust=trust, member=member, checkpoint=checkpoint))
    except SEError as error:
        return Looks(absent=[" ".join(str(error).split())])
    except Exception as error:  # noqa: BLE001  parts are users' code, and may raise anything
        return Looks(absent=[f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"])


class Critic:
    """A trained equation with particles of both sides, and its critic as functions of points in the user's units.

    Args:
        assembly: the trained objects.
    """

    def __init__(self, assembly: Assembly) -> None:
        self.assembly, self.data, self.equation = assembly, assembly.data, assembly.equation
        self.kind = like(self.equation)
        n = min(POINTS, self.data.train_size or POINTS)
        self.batch = draw_batch(self.data, 0, n, 0, self.equation)
        with torch.no_grad(), evaluating(self.equation):
            stream = Stream(0, 0, "picture", self.kind.device, self.kind.dtype)
            drawn = self.equation.model.draws(n, stream, self.batch.context)
            self.p: Particles = self.equation.model.particles(drawn, self.batch.context)
        self.real = self.data.to_user(self.batch.x.double()).flatten(1)
        self.samples = self.data.to_user(self.p.x.detach().double()).flatten(1)

    @property
    def absent(self) -> str:
        """Why there is nothing to look at; empty where there is."""
        if self.equation.metric is None:
            return "this equation has no metric: there is no critic to look at"
        if not self.equation.auxiliary.has_scores:
            return "the metric is an embedding, in which D is computed: it has no values to draw"
        if self.equation.divergence.surrogate:
            return "the players have losses of their own: the critic's output stands for no f of the equation"
        return ""

    @property
    def reads_ratio(self) -> bool:
        """Whether the critic reads log(p_d/p_theta)."""
        return self.equation.divergence.critic_reads == "log_ratio"

    def _inner(self, x: Tensor) -> Tensor:
        return self.data.to_model(x.double()).view(-1, *self.data.event_shape).to(self.kind)

    def f(self, x: Tensor) -> Tensor:
        """Return f_phi at points of the user's units, (n, d) to (n,)."""
        metric = self.equation.metric
        assert metric is not None
        with evaluating(self.equation):
            return self.equation.f(metric(self._inner(x)))

    @torch.no_grad()
    def log_ratio(self, x: Tensor) -> Tensor:
        """Return log(p_d/p_theta) as the critic reads it: the same in all units."""
        return self.equation.log_ratio(self._inner(x), self.batch, self.p).double()

    @torch.no_grad()
    def log_weights(self) -> Tensor:
        """Return log dq/dp at the samples."""
        return self.equation.log_ratio(self.p.x, self.batch, self.p, self.p.context).double()

    def log_model(self, x: Tensor) -> tuple[Tensor, str]:
        """Return log p_theta in the user's units at points, and how it is known."""
        if self.equation.model.has_log_prob and not self.data.classes:
            inner = self._inner(x)
            return log_density(self.assembly, inner) - self.data.log_slope(inner).cpu(), ""
        return kernel_log_density(self.samples, x), "p by a kernel estimate"

    def log_data(self, x: Tensor) -> Tensor:
        """Return log p_d in the user's units at points."""
        return self.data.log_prob(x.double().view(-1, *self.data.event_shape))


def look(assembly: Assembly) -> Looks:
    """Return what the critic of an assembly looks like."""
    critic, looks = Critic(assembly), Looks()
    if critic.absent:
        looks.absent.append(critic.absent)
        return looks
    n = len(critic.samples)
    looks.lead = f"Trained (averaged) parts after round {assembly.state.round}; units of the data; {n:,} samples."
    if critic.batch.context is not None:
        looks.absent.append("a critic that reads labels has a landscape for each class")
    elif assembly.data.kind == "curve":
        on_a_line(looks, critic)
    elif assembly.data.kind == "points":
        on_the_plane(looks, critic)
    else:
        looks.absent.append(
            f"a landscape is drawn over a line or a plane, and the data has {critic.samples.shape[1]} coordinates"
        )
    if critic.reads_ratio:
        weights(looks, critic.log_weights())
    if critic.batch.context is None:
        at_samples = slopes(critic.f, critic.samples).norm(dim=1)
        top = steepest(critic.f, critic.real, critic.samples)
        looks.rows.append(["steepest slope of f found (at most its Lipschitz constant)", figure(top)])
        looks.rows.append(["mean slope of f at samples", figure(float(at_samples[torch.isfinite(at_samples)].mean()))])
    return looks


def weights(looks: Looks, log_weights: Tensor) -> None:
    """Add the histogram of q's weights, their effective sample size and their mean, the mass of q."""
    finite = log_weights[~torch.isnan(log_weights)]
    if not len(finite):
        looks.absent.append("no weight of q is a number")
        return
    size, n = effective_size(finite), len(log_weights)
    looks.rows.append(["effective sample size of q's weights", f"{figure(size)} of {n:,} ({100 * size / n:.0f} %)"])
    looks.rows.append(["mean weight: the mass of q", figure(float(finite.exp().mean()))])
    found = histogram(finite.exp())
    edges = short(found.edges.tolist())
    data = {"bars": [{"x": edges[:-1], "x2": edges[1:], "y": short(found.shares.tolist())}]}
    looks.chart("bars", "q's weights", data, "The last bar holds all weights beyond it.")


def on_a_line(looks: Looks, critic: Critic) -> None:
    """Add densities, the critic's log-ratio beside the true one (or its potential), and the slope of f."""
    low, high = float(critic.real.min()), float(critic.real.max())
    pad = 0.05 * (high - low) or 1.0
    x = torch.linspace(low - pad, high + pad, LINE, dtype=torch.float64)[:, None]
    log_model, how = critic.log_model(x)
    densities = [("density of the model" + (" (kernel estimate)" if how else ""), log_model.exp())]
    readings = [("critic's log p_d/p" if critic.reads_ratio else "critic's f", read(critic, x))]
    if critic.data.has_log_prob:
        log_data = critic.log_data(x)
        densities.insert(0, ("density of the data", log_data.exp()))
        if critic.reads_ratio:
            readings.append(("true log p_d/p", (log_data - log_model).clamp(-RANGE, RANGE)))
    looks.chart("profile", "Densities", {"line": profile(x, densities)})
    note = f"The true ratio takes {how}." if how and len(readings) > 1 else ""
    looks.chart("profile", readings[0][0], {"line": profile(x, readings)}, note)
    slope = {"line": profile(x, [("f'(x)", slopes(critic.f, x)[:, 0])])}
    looks.chart("profile", "Slope of f", slope, "Samples are drawn to the right where it is positive.")


def read(critic: Critic, x: Tensor) -> Tensor:
    """Return what the critic reads at points: a log-ratio, cut, or f."""
    if critic.reads_ratio:
        return critic.log_ratio(x).clamp(-RANGE, RANGE)
    with torch.no_grad():
        return critic.f(x).double()


def profile(x: Tensor, named: Sequence[tuple[str, Tensor]]) -> list[dict[str, Any]]:
    """Return lines over x as a chart takes them."""
    places = short(x[:, 0].tolist())
    return [
        {"s": name, "c": colour(k), "x": places, "y": short(values.tolist())} for k, (name, values) in enumerate(named)
    ]


def on_the_plane(looks: Looks, critic: Critic) -> None:
    """Add the critic's landscape with samples and arrows along its slope, and the true log-ratio beside it."""
    both = torch.cat([critic.real, critic.samples[torch.isfinite(critic.samples).all(1)]])
    middle = (both.quantile(0.002, 0) + both.quantile(0.998, 0)) / 2
    half = 0.58 * float((both.quantile(0.998, 0) - both.quantile(0.002, 0)).max())
    half = half if half > 0 else 1.0
    edges = middle + half * torch.linspace(-1, 1, SIDE + 1, dtype=torch.float64)[:, None]
    centres = (edges[1:] + edges[:-1]) / 2
    grid = torch.cartesian_prod(centres[:, 0], centres[:, 1])

    def landscape(values: Tensor) -> list[dict[str, Any]]:
        i, j = (t.flatten() for t in torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij"))
        sides = {"x": edges[i, 0], "x2": edges[i + 1, 0], "y": edges[j, 1], "y2": edges[j + 1, 1], "v": values}
        return [{name: short(side.tolist()) for name, side in sides.items()}]

    def scatter(points: Tensor) -> list[dict[str, Any]]:
        inside = points[((points - middle).abs() < half).all(1)][:SHOWN]
        return [{"x": short(inside[:, 0].tolist()), "y": short(inside[:, 1].tolist())}]

    start = critic.samples[((critic.samples - middle).abs() < half).all(1)][:ARROWS]
    drawn = arrows(start, slopes(critic.f, start), 0.12 * half).segments
    field = [{name: short(drawn[:, k].tolist()) for k, name in enumerate(("x", "y", "x2", "y2"))}]
    ends = short([*(middle - half).tolist(), *(middle + half).tolist()])
    corners = {name: float(end or 0) for name, end in zip(("left", "low", "right", "high"), ends, strict=True)}
    kind = "plane-signed" if critic.reads_ratio else "plane"
    name = "Critic's log p_d/p" if critic.reads_ratio else "Critic's f"
    values = read(critic, grid)
    own = {"cells": landscape(values), "points": scatter(critic.samples), "arrows": field}
    looks.chart(kind, name, own, "Arrows: the slope of f at samples, along which they are drawn.",
                **corners, **reach(kind, values))  # fmt: skip
    if critic.reads_ratio and critic.data.has_log_prob:
        log_model, how = critic.log_model(grid)
        truth = (critic.log_data(grid) - log_model).clamp(-RANGE, RANGE)
        beside = {"cells": landscape(truth), "points": scatter(critic.real), "arrows": []}
        note = "Points: data. " + (f"Here {how}; empty where hardly a sample lies." if how else "")
        looks.chart(kind, "True log p_d/p", beside, note, **corners, **reach(kind, truth))


def reach(kind: str, values: Tensor) -> dict[str, float]:
    """Return the end of a signed scale of colours: the greatest finite value of either sign."""
    finite = values[torch.isfinite(values)].abs()
    top = float(finite.max()) if len(finite) else 0.0
    return {"reach": top if top > 0 else 1.0} if kind == "plane-signed" else {}
