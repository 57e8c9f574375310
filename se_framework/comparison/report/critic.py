r"""What a trained critic looks like: landscape, log-ratio against the true one, vector field, weights of q.

The only part of a page for which data and model are built, as :func:`se_framework.load` builds them: nothing that is
neither ours nor torch's nor trusted runs. What cannot be built is a sentence in the place of the pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.laws import Particles
from se_framework.api import load
from se_framework.assembly import Assembly
from se_framework.comparison.report.content import Content
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


def critic_of(content: Content, path: Path, trust: str | Sequence[str] = (), member: int | None = None) -> str:
    """Return pictures of a run's critic, or a sentence that says why there are none.

    Args:
        content: of the page, whose charts are added.
        path: of the run.
        trust: packages that the run may use besides ours and torch.
        member: of an ensemble.
    """
    try:
        assembly = load(path, device="cpu", trust=trust, member=member)
        return look(content, assembly)
    except SEError as error:
        return f'<p class="absent">{text(f"Not shown: {error}", 1200)}</p>'
    except Exception as error:  # noqa: BLE001  parts are users' code, and may raise anything
        why = " ".join(str(error).split())[:300]
        return f'<p class="absent">{text(f"Not shown: {type(error).__name__}: {why}", 1200)}</p>'


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
        """Return log(p_d/p_theta) as the critic reads it: the same in all units, in which both densities scale alike."""
        return self.equation.log_ratio(self._inner(x), self.batch, self.p).double()

    @torch.no_grad()
    def log_weights(self) -> Tensor:
        """Return log dq/dp at the samples."""
        return self.equation.log_ratio(self.p.x, self.batch, self.p, self.p.context).double()

    def log_model(self, x: Tensor) -> tuple[Tensor, str]:
        """Return log p_theta in the user's units at points, and how it is known."""
        if self.equation.model.has_log_prob and not self.data.classes:
            return log_density(self.assembly, self._inner(x)) - self.data.log_scale, ""
        return kernel_log_density(self.samples, x), "p by a kernel estimate"

    def log_data(self, x: Tensor) -> Tensor:
        """Return log p_d in the user's units at points."""
        return self.data.log_prob(x.double().view(-1, *self.data.event_shape))


def look(content: Content, assembly: Assembly) -> str:
    """Return the pictures and figures of an assembly's critic."""
    critic = Critic(assembly)
    if critic.absent:
        return f'<p class="absent">{text(f"Not shown: {critic.absent}.")}</p>'
    charts, rows = "", []
    if critic.reads_ratio:
        log_weights = critic.log_weights()
        charts += weights(content, log_weights)
        size, n = effective_size(log_weights), len(log_weights)
        mass = float(log_weights.exp().mean())
        rows += [["effective sample size of q's weights", f"{figure(size)} of {n:,} ({100 * size / n:.0f} %)"]]
        rows += [["mean weight: the mass of q", figure(mass)]]
    told = ""
    if critic.batch.context is not None:
        told = "the critic reads labels: its landscape would be one for each class"
    elif assembly.data.kind == "curve":
        charts = on_a_line(content, critic) + charts
    elif assembly.data.kind == "points":
        charts = on_the_plane(content, critic) + charts
    else:
        told = f"a landscape is drawn over a line or a plane, and the data has {critic.samples.shape[1]} coordinates"
    if critic.batch.context is None:
        at_samples = slopes(critic.f, critic.samples).norm(dim=1)
        rows.append(["steepest slope of f found (at most its Lipschitz constant)",
                     figure(steepest(critic.f, critic.real, critic.samples))])  # fmt: skip
        rows.append(["mean slope of f at samples", figure(float(at_samples[torch.isfinite(at_samples)].mean()))])
    said = f'<p class="absent">{text(told)}</p>' if told else ""
    shown = f'<div class="grid wide">{charts}</div>' if charts else ""
    lead = f"<p class='note'>{text(f'Trained (averaged) parts after round {assembly.state.round}, in the units of the data; {len(critic.samples):,} samples.')}</p>"
    return lead + shown + said + table(["figure", "value"], rows, "figures of the critic")


def weights(content: Content, log_weights: Tensor) -> str:
    """Return the histogram of q's weights."""
    found = histogram(log_weights.exp())
    edges = short(found.edges.tolist())
    data = {"bars": [{"x": edges[:-1], "x2": edges[1:], "y": short(found.shares.tolist())}]}
    return content.chart("bars", "q's weights: the last bar holds all beyond", data)


def on_a_line(content: Content, critic: Critic) -> str:
    """Return densities, the critic's log-ratio beside the true one (or its potential), and the slope of f."""
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
    slope = slopes(critic.f, x)[:, 0]
    return (
        content.chart("profile", "Densities", {"line": profile(x, densities)})
        + content.chart("profile", readings[0][0], {"line": profile(x, readings)}, how and f"The true ratio has {how}.")
        + content.chart("profile", "Slope of f", {"line": profile(x, [("f'(x)", slope)])},
                        "Samples are drawn to the right where it is positive.")
    )  # fmt: skip


def read(critic: Critic, x: Tensor) -> Tensor:
    """Return what the critic reads at points: a log-ratio, cut, or f."""
    if critic.reads_ratio:
        return critic.log_ratio(x).clamp(-RANGE, RANGE)
    with torch.no_grad():
        return critic.f(x).double()


def profile(x: Tensor, named: Sequence[tuple[str, Tensor]]) -> list[dict[str, Any]]:
    """Return lines over x as a chart takes them."""
    places = short(x[:, 0].tolist())
    return [{"s": name, "x": places, "y": short(values.tolist())} for name, values in named]


def on_the_plane(content: Content, critic: Critic) -> str:
    """Return the critic's landscape with samples and arrows along its slope, and the true log-ratio beside it."""
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
    kind = "plane-signed" if critic.reads_ratio else "plane"
    name = "Critic's log p_d/p" if critic.reads_ratio else "Critic's f"
    values = read(critic, grid)
    own = {"cells": landscape(values), "points": scatter(critic.samples), "arrows": field}
    found = content.chart(kind, name, own, "Arrows: the slope of f at samples, along which they are drawn.",
                          **reach(kind, values))  # fmt: skip
    if critic.reads_ratio and critic.data.has_log_prob:
        log_model, how = critic.log_model(grid)
        truth = (critic.log_data(grid) - log_model).clamp(-RANGE, RANGE)
        beside = {"cells": landscape(truth), "points": scatter(critic.real), "arrows": []}
        note = "Points: data. " + (f"Here {how}; empty where hardly a sample lies." if how else "")
        found += content.chart(kind, "True log p_d/p", beside, note, **reach(kind, truth))
    return found


def reach(kind: str, values: Tensor) -> dict[str, float]:
    """Return the end of a signed scale of colours: the greatest finite value of either sign."""
    finite = values[torch.isfinite(values)].abs()
    top = float(finite.max()) if len(finite) else 0.0
    return {"reach": top if top > 0 else 1.0} if kind == "plane-signed" else {}
