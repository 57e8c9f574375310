"""Objects as a notebook shows them: no script and no style sheet of ours, since a notebook may drop both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from se_framework.comparison.report.html import text, uncertain
from se_framework.comparison.report.images import data_uri
from se_framework.comparison.report.mathml import F_PHI, P_THETA, Q, equation, inline, mi, short_choice
from se_framework.comparison.report.reading import Shown, read_run
from se_framework.errors import RunDirectoryError
from se_framework.reading import UnreadableError

if TYPE_CHECKING:
    from se_framework.equation.equation import StandardEquation

WIDTH, BUDGET = 900, 150_000
MOST = 40
"""Scores that are listed."""


def of_run(path: Path) -> str:
    """Return a run: its state, its choices, its scores, curves and last samples; a sentence where there is no run."""
    try:
        run = read_run(path)
    except RunDirectoryError as error:
        return f"<p>{text(error)}</p>"
    parts = [f"<p><b>{text(run.name)}</b> {text(run.status)}<br>{short_choice(run.config or {})}</p>"]
    parts += [f"<p>{text(said)}</p>" for said in (*run.failures, *run.warnings)]
    rows = [
        (text(name), uncertain(entry["value"], entry.get("sd", entry.get("se"))), text(entry.get("unit", "")))
        for name, entry in list(run.scores.items())[:MOST]
        if "value" in entry
    ]
    parts += [grid(("score", "value", "unit"), rows)] if rows else []
    parts += [picture(path / "curves.png", "curves"), *map(last, sorted(run.samples.items(), key=str)[:3])]
    parts += [picture(file, "last frame") for file in [_last_frame(run)] if file and not run.samples]
    return f'<div class="se-run">{"".join(parts)}</div>'


def _last_frame(run: Shown) -> Path | None:
    return next((frames[-1][1] for frames in run.frames.values()), None)


def last(of: tuple[int | None, Path]) -> str:
    """Return the last samples of a run, or of a member."""
    member, file = of
    return picture(file, "samples" if member is None else f"samples of member {member}")


def picture(file: Path, label: str) -> str:
    """Return a picture of a run as an element; nothing where there is none that can be read."""
    try:
        uri = data_uri(file, BUDGET, WIDTH)
    except (UnreadableError, FileNotFoundError):
        return ""
    return f'<p><img src="{uri}" alt="{text(label)}" style="max-width:100%;background:#fff"></p>'


def grid(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a plain table of HTML cells."""
    head = "".join(f"<th style='text-align:left'>{text(name)}</th>" for name in heads)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{cell}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def of_equation(found: StandardEquation) -> str:
    """Return an equation: typeset, the object for each symbol, who moves, and how each summand's minimum is taken."""
    from se_framework.equation.legality import show

    def named(part: Any) -> str:
        return "none" if part is None else text(show(part))

    summands = list(found.summands())
    symbols = [
        (inline(P_THETA), "the model", named(found.model)),
        (inline(F_PHI), "the metric", named(found.metric)),
        (inline(mi("D")), "the divergence", named(found.divergence)),
        (inline(Q), "the auxiliary", named(found.auxiliary)),
        (inline(mi("&alpha;")), "weight of the entropy", f"{found.alpha:g}"),
        (inline(mi("&beta;")), "weight of the divergence", f"{found.beta:g}"),
    ]
    symbols += [
        (text(f"plus.{name}"), f"added with weight {weight:g}", f"{named(other.divergence)}, {named(other.auxiliary)}")
        for name, weight, other in summands
    ]
    players = [
        (
            text(role.name),
            "ascends" if role.sign > 0 else "descends",
            f"{sum(p.numel() for p in role.module.parameters()):,} parameters",
        )
        for role in found.roles()
    ]
    terms = f"<p>T = {text(found.auxiliary.scalar_name)}</p>"
    warned = "".join(f"<p>{text(warning)}</p>" for warning in found.warnings)
    return (
        f'<div class="se-equation">{equation(len(summands))}{grid(("symbol", "what", "object"), symbols)}{terms}'
        f"{grid(('player', 'direction', 'moves'), players)}{warned}</div>"
    )
