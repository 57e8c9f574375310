"""The page of many runs: which is best and whether that is sure, maps over two choices, curves, pictures, every run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from se_framework.comparison.comparison import Comparison
from se_framework.comparison.objective import Objective
from se_framework.comparison.outcome import Outcome
from se_framework.comparison.report.content import COLOURS, Content, legend
from se_framework.comparison.report.html import NONE, element, figure, listed, number_cell, section, table, text
from se_framework.comparison.report.mathml import equation, symbols
from se_framework.comparison.report.reading import Shown
from se_framework.comparison.report.series import Series
from se_framework.comparison.report.single import TERMS, name_of, zoom_form
from se_framework.errors import ConfigError, nearest
from se_framework.runs.directory import LOSS

CURVES = 16
"""Columns that are drawn."""
WORDS = {
    "best": "best",
    "tied": "cannot be told from it",
    "worse": "worse",
    "untested": "too few seeds",
    "no value": "no value",
}
Key = tuple[Path, int | None]


def fill(
    content: Content,
    found: Comparison,
    outcomes: Sequence[Outcome],
    runs: dict[Path, Shown],
    x: str | None,
    y: str | None,
) -> None:
    """Add the sections of many runs.

    Args:
        content: of the page.
        found: the comparison.
        outcomes: what became of every run.
        runs: those that could be read, by directory.
        x: the choice along the map's columns; None for the second one that differs.
        y: the choice along its rows; None for the first one that differs.

    Raises:
        ConfigError: no choice of that name differs.
    """
    content.add("head", head(content.title, found, outcomes))
    content.add("compared", section("compared", "Which is best, and is that sure?", compared(found)))
    content.add("map", section("map", "Over two choices", heat(content, found, outcomes, x, y)))
    content.add("what", section("what", "What they are", binding(runs.values())))
    content.add("curves", section("curves", "Through training", curves(content, found, runs)))
    content.add("pictures", section("pictures", "Last samples", pictures(content, found, runs)))
    content.add("runs", section("runs", "Every run", every(outcomes)))
    missing = [*dict.fromkeys(note for run in runs.values() for note in run.missing), *content.notes]
    if content.left_out:
        missing.append(f"{content.left_out} pictures are left out: the page has no room for them")
    content.add("details", section("details", "Not shown", listed(missing[:50], "missing")))


def head(title: str, found: Comparison, outcomes: Sequence[Outcome]) -> str:
    """Return what is compared and how many runs came to what."""
    counts = {s: sum(o.status == s for o in outcomes) for s in dict.fromkeys(o.status for o in outcomes)}
    told = ", ".join(f"{n} {status}" for status, n in counts.items())
    rows = len(found.objectives)
    of = f"{len(outcomes)} runs of {rows} objective{'s' if rows != 1 else ''}: {told}"
    notes = listed(found.notes, "warning")
    warned = f'<div class="told" role="note" aria-label="notes">{notes}</div>' if notes else ""
    return f'<header><h1>{text(title, 120)}</h1><p class="status">{text(of)}</p>{warned}</header>'


def compared(found: Comparison) -> str:
    """Return the sentence and the table that can be sorted."""
    several = len(found.tasks) > 1
    heads = [*(["task"] if several else []), *(found.columns or ["objective"]), found.score or "score"]
    heads += ["interval", "seeds", "from the best", "p", "verdict", "runs", "seconds", "parameters"]
    rows = [cells(found, row, several) for row in found.objectives]
    note = ""
    if found.score:
        unit = f", in {found.unit}" if found.unit else ""
        better = f"; {found.better} is better" if found.better else ""
        level = f"{100 * found.level:g} % intervals of Student's t over seeds; p is corrected for all pairs"
        note = f'<p class="note">{text(f"{found.score}{unit}{better}. {level}.")}</p>'
    shown = table(heads, rows, "comparison", sortable=True)
    return f'<p class="verdict">{text(found.sentence, 1200)}</p>{note}{shown}'


def cells(found: Comparison, row: Objective, several: bool) -> list[str]:
    """Return the cells of one objective."""
    told: list[object] = [row.settings.get(key) for key in found.columns] or [row.label]
    first, *rest = [row.task, *told] if several else told
    known = row.low is not None and row.high is not None
    interval = f"{figure(row.low or 0.0)} to {figure(row.high or 0.0)}" if known else NONE
    counts = ", ".join(f"{n} {status}" for status, n in row.counts.items() if n)
    return [
        text(NONE if first is None else first),
        *map(setting_cell, rest),
        number_cell(row.mean, None if row.mean is None else figure(row.mean) + dots(row)),
        f'<td class="number">{interval}</td>',
        number_cell(row.n, str(row.n)),
        number_cell(row.difference),
        number_cell(row.p, f"{row.p or 0.0:.2g}"),
        f"<td>{text(WORDS[row.verdict])}</td>",
        f"<td>{text(counts)}</td>",
        number_cell(row.seconds, f"{row.seconds or 0.0:,.0f}"),
        number_cell(row.parameters, f"{row.parameters or 0:,}"),
    ]


def setting_cell(value: object) -> str:
    """Return the cell of a setting: sorted by its value where it is a number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return number_cell(float(value), text(value))
    return f"<td>{text(NONE if value is None else value)}</td>"


def dots(row: Objective) -> str:
    """Return every seed's value in small, for who wants to see more than a mean."""
    values = [figure(point.value) for point in row.points if point.value is not None]
    return (
        f'<span class="seeds">{text(", ".join(values[:12]))}{" ..." if len(values) > 12 else ""}</span>'
        if len(values) > 1
        else ""
    )


def heat(content: Content, found: Comparison, outcomes: Sequence[Outcome], x: str | None, y: str | None) -> str:
    """Return the controls of a map over two choices; the page's script draws it, so that both can be changed."""
    axes = list(found.columns)
    for key, axis in (("x", x), ("y", y)):
        if axis is not None and axis not in axes:
            raise ConfigError(f"{key}={axis}: the runs do not differ in it: {nearest(axis, axes)}")
    if len(axes) < 2 and not (x or y):
        return ""
    by_run: dict[Key, Outcome] = {(o.path, o.member): o for o in outcomes}
    names = dict.fromkeys(n for o in outcomes if o.status == "finished" for n, e in o.scores.items() if "value" in e)
    measures = [*filter(None, [found.score]), *(name for name in names if name != found.score)]
    rows = []
    for row in found.objectives:
        of = [by_run[point.path, point.member] for point in row.points if (point.path, point.member) in by_run]
        rows.append({
            "task": row.task,
            "at": [NONE if row.settings.get(axis) is None else str(row.settings[axis])[:60] for axis in axes],
            "values": [_mean(o.scores.get(n, {}).get("value") for o in of if o.status == "finished") for n in measures],
        })  # fmt: skip
    better = [next((str(o.scores[n].get("better", "")) for o in outcomes if n in o.scores), "") for n in measures]
    first = axes.index(y) if y else next(i for i in range(len(axes)) if axes[i] != x)
    second = axes.index(x) if x else next((i for i in range(len(axes)) if i != first), first)
    content.maps["m0"] = {"axes": axes, "measures": measures, "better": better, "rows": rows, "x": second, "y": first}
    picks = "".join(
        f'<label>{text(label)} <select name="{name}"></select></label>'
        for name, label in (("y", "rows"), ("x", "columns"), ("measure", "score"))
    )
    return (
        f'<div data-map="m0"><form class="picker">{picks}</form><div class="box" tabindex="0" role="region" '
        'aria-label="map of scores"></div><p class="note">Means over all runs that share both choices; the stronger '
        "the colour the better, and the best is framed.</p></div>"
    )


def _mean(values: Iterable[Any]) -> float | None:
    known = [float(v) for v in values if isinstance(v, (int, float)) and math.isfinite(v)]
    return float(f"{sum(known) / len(known):.6g}") if known else None


def binding(runs: Iterable[Shown]) -> str:
    """Return the equation, each symbol with what stands for it in all runs, or with what it varies over."""
    configs = [run.config for run in runs if run.config is not None]
    if not configs:
        return ""
    rows: dict[str, tuple[str, str, dict[str, None]]] = {}
    for config in configs:
        for key, symbol, role, value in symbols(config):
            rows.setdefault(key, (symbol, role, {}))[2][value] = None
    body = ""
    for key, (symbol, role, values) in rows.items():
        shown = next(iter(values)) if len(values) == 1 else f"varies: {' | '.join(list(values)[:6])}"
        shown += f" | and {len(values) - 6} more" if len(values) > 6 else ""
        body += (
            f'<tr data-symbol="{key}" tabindex="0"><th scope="row">{symbol}</th><td class="role">{text(role)}</td>'
            f'<td class="value">{text(shown, 1000)}</td></tr>'
        )
    most = max(len(config.get("plus") or {}) for config in configs)
    caption = '<caption class="unseen">what stands for each symbol</caption>'
    return f'{equation(most)}<div class="box"><table class="symbols">{caption}<tbody>{body}</tbody></table></div>'


def curves(content: Content, found: Comparison, runs: dict[Path, Shown]) -> str:
    """Return every column over rounds, one line for each objective with its seeds as a band."""
    ranked = sorted(found.objectives, key=lambda row: (row.rank is None, row.rank or 0.0))
    chosen = ranked[:COLOURS]
    labels = [f"{row.task} {row.label}".strip() for row in chosen]

    def drawn(of: str, names: Sequence[str]) -> str:
        charts = ""
        for name in names[:CURVES]:
            lines = [(label, lines_of(row, of, name)) for label, row in zip(labels, chosen, strict=True)]
            charts += content.curve(name_of(name), lines) if any(own for _, own in lines) else ""
        return charts

    def lines_of(row: Objective, of: str, name: str) -> list[Series]:
        own = {point.path: {p.member for p in row.points if p.path == point.path} for point in row.points}
        return [
            line
            for path, members in own.items()
            if path in runs
            for line in getattr(runs[path], of).get(name, [])
            if line.member is None or line.member in members
        ]

    def names_of(of: str) -> list[str]:
        return list(dict.fromkeys(name for run in runs.values() for name in getattr(run, of)))

    scores = [name for name in names_of("score_series") if name != LOSS]
    columns = names_of("series")
    terms = [n for n in columns if n.rpartition("/")[2] in TERMS or n.rpartition("/")[2].startswith("total")]
    others = [n for n in columns if n not in terms]
    parts = [
        f'<h3>{heading}</h3><div class="grid wide">{charts}</div>'
        for heading, charts in (
            ("Scores", drawn("score_series", scores)), ("Terms of the equation", drawn("series", terms)),
            ("Players, penalties and what else was recorded", drawn("series", others)),
        ) if charts
    ]  # fmt: skip
    if not parts:
        return ""
    few = f" Of {len(ranked)} objectives the best {COLOURS} are drawn." if len(ranked) > COLOURS else ""
    lead = f"A line is the mean over seeds, its band reaches from the least to the greatest.{few}"
    return zoom_form(legend(labels)) + f'<p class="note">{text(lead)}</p>' + "".join(parts)


def pictures(content: Content, found: Comparison, runs: dict[Path, Shown]) -> str:
    """Return the last samples of one run of each objective beside each other."""
    shown = ""
    for row in found.objectives:
        files = [
            (point, file) for point in row.points if point.path in runs
            if (file := runs[point.path].last_picture(point.member)) is not None
        ]  # fmt: skip
        if not files:
            continue
        point, file = files[0]
        label = f"{row.task} {row.label}".strip() + (f", seed {point.seed}" if point.seed is not None else "")
        picture = content.picture(file, f"samples of {label}", 40_000, 600)
        shown += f'<figure class="picture">{picture}<figcaption>{text(label)}</figcaption></figure>' if picture else ""
    return f'<div class="grid">{shown}</div>' if shown else ""


def every(outcomes: Sequence[Outcome]) -> str:
    """Return what became of every run."""
    rows = []
    for own in outcomes[:2000]:
        name = own.path.name + ("" if own.member is None else f", member {own.member}")
        seconds = number_cell(own.seconds, f"{own.seconds or 0.0:,.0f}")
        state, why = f"<td>{text(own.status)}</td>", f"<td>{text(own.why or '')}</td>"
        rows.append(
            [
                text(name),
                number_cell(own.seed, str(own.seed)),
                state,
                number_cell(own.rounds, str(own.rounds)),
                seconds,
                why,
            ]
        )
    more = element("p", text(f"and {len(outcomes) - 2000} more")) if len(outcomes) > 2000 else ""
    return table(["run", "seed", "status", "rounds", "seconds", "why"], rows, "every run", sortable=True) + more
