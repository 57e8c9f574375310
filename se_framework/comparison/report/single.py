"""The page of one run: what it is, whether it worked, why, and the details, in this order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from se_framework.comparison.report.content import Content
from se_framework.comparison.report.html import (
    details,
    element,
    listed,
    number_cell,
    section,
    table,
    text,
    uncertain,
)
from se_framework.comparison.report.mathml import equation, short_choice, symbols
from se_framework.comparison.report.reading import Shown
from se_framework.runs.directory import LOSS

TERMS = ("H_q", "D", "E_q_f", "E_pd_f")
MEANING = {
    "H_q": "entropy H(q)", "D": "divergence D(q, p)", "E_q_f": "mean of f under q",
    "E_pd_f": "mean of f under the data",
}  # fmt: skip
AS_THEY_STAND = "The players as they stand in each round, without the averages that scores are taken of."
SAME_ROUNDS = "loop.log_every and loop.evaluate_every set how often rows are written"


def fill(content: Content, run: Shown, critic: str = "") -> None:
    """Add the sections of one run.

    Args:
        content: of the page.
        run: what was read of it.
        critic: HTML of what its critic looks like, made where its parts can be built.
    """
    content.add("head", head(run))
    content.add("what", section("what", "What it is", binding(run)))
    judged = columns(scores(run), last_samples(content, run))
    content.add("worked", section("worked", "Did it work?", judged, lead_of(run)))
    content.add(
        "samples", section("samples", "Samples through training", through_training(content, run), AS_THEY_STAND)
    )
    content.add("curves", section("curves", "Terms and players", curves(content, run)))
    content.add("critic", section("critic", "Critic and weights", critic))
    content.add("details", section("details", "Details", facts(run, content)))


def head(run: Shown) -> str:
    """Return name, state and choices of a run, and above all else what went wrong."""
    chosen = f'<p class="choices">{short_choice(run.config)}</p>' if run.config else ""
    alarms = listed(run.failures, "alarm") + listed(run.warnings, "warning")
    told = f'<div class="told" role="note" aria-label="warnings and failures">{alarms}</div>' if alarms else ""
    status = element("p", text(run.status), class_="status")
    return f"<header><h1>{text(run.name, 120)}</h1>{chosen}{status}{told}</header>"


def binding(run: Shown) -> str:
    """Return the equation and the table of its symbols."""
    if run.config is None:
        return f"<p>{text('The configuration cannot be read; see the details.')}</p>"
    rows = "".join(
        f'<tr data-symbol="{key}" tabindex="0"><th scope="row">{symbol}</th><td class="role">{text(role)}</td>'
        f'<td class="value">{text(value)}</td></tr>'
        for key, symbol, role, value in symbols(run.config)
    )
    shown = equation(len(run.config.get("plus") or {}))
    return (
        f'{shown}<div class="box"><table class="symbols"><caption class="unseen">what stands for each symbol</caption>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def lead_of(run: Shown) -> str:
    """Return when and on what the scores were taken."""
    if not run.scores:
        return (
            ""
            if run.config is None
            else "There are no scores yet: they are written at the end of a run, or by se-eval."
        )
    return "" if run.scored_at is None else f"Scores of the trained (averaged) model after round {run.scored_at}."


def scores(run: Shown) -> str:
    """Return the table of scores with standard errors, references, and which direction is better."""
    rows = []
    for name, entry in run.scores.items():
        if "value" not in entry:
            why = text(f"not computed: {entry.get('why', '')}")
            rows.append([text(name), f'<td colspan="3" class="absent">{why}</td>'])
            continue
        value = uncertain(entry["value"], entry.get("sd", entry.get("se")))
        of = f"sd of {len(entry['members'])} members" if "sd" in entry else ""
        unit = str(entry.get("unit", ""))
        of = "; ".join(filter(None, [unit, of, f"n {entry.get('n', '?')}, seed {entry.get('seed', '?')}"]))
        bound = f'<span class="small">{text(entry["bound"])}</span>' if entry.get("bound") else ""
        shown = number_cell(entry["value"], f'{value}<span class="small">{text(of)}</span>')
        better = text(entry.get("better", "")) or "\u2013"
        rows.append([text(name) + bound, shown, references(entry["references"]), better])
    return table(["score", "value", "references", "better"], rows, "scores") if rows else ""


def references(known: dict[str, float]) -> str:
    """Return what a score is judged beside, each with its spread where that is known."""
    shown = ""
    for name, value in list(known.items())[:10]:
        if not (name.endswith("_sd") and name.removesuffix("_sd") in known):
            shown += f'<span class="ref">{text(name, 40)} {uncertain(value, known.get(f"{name}_sd"))}</span>'
    return shown or "\u2013"


def last_samples(content: Content, run: Shown) -> str:
    """Return the picture of the last samples: that of the run's end, else the last frame."""
    files = dict(list(run.samples.items())[:4]) or {k: frames[-1][1] for k, frames in list(run.frames.items())[:1]}
    shown = []
    for member, file in files.items():
        whose = "" if member is None else f" of member {member}"
        picture = content.picture(file, f"samples{whose} beside data", 90_000)
        if picture:
            shown.append(
                f'<figure class="picture">{picture}<figcaption>{text(f"last samples{whose}")}</figcaption></figure>'
            )
    content.left_out += max(0, len(run.samples) - 4)
    return "".join(shown)


def columns(left: str, right: str) -> str:
    """Return two things beside each other where there is room."""
    return f'<div class="pair"><div>{left}</div><div>{right}</div></div>' if left and right else left + right


def through_training(content: Content, run: Shown) -> str:
    """Return sliders over the pictures of rounds, of an ensemble those of its first members."""
    chosen = list(run.frames.items())[:3]
    parts = []
    for k, (member, frames) in enumerate(chosen):
        label = "samples" if member is None else f"samples of member {member}"
        slider = content.slider(frames, label, 1 / (len(chosen) - k))
        parts.append((f"<h3>{text(label)}</h3>" if member is not None else "") + slider)
    content.left_out += sum(len(frames) for frames in list(run.frames.values())[3:])
    return "".join(parts)


def groups(names: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield headings with the columns below them: terms, players, penalties, and all else that was recorded."""
    left = dict.fromkeys(names)

    def taken(wanted: Any) -> list[str]:
        found = [name for name in left if wanted(name.rpartition("/")[2])]
        for name in found:
            del left[name]
        return found

    yield "Terms of the equation", taken(lambda name: name in TERMS or name.startswith("total"))
    yield "What each player saw", taken(lambda name: name.endswith("_objective"))
    yield "Gradient norms", taken(lambda name: name.endswith("_gradient"))
    yield "Penalties", taken(lambda name: name.startswith("penalty"))
    yield "Other columns", list(left)


def zoom_form(beside: str = "") -> str:
    """Return the controls by which all charts over rounds are zoomed together, with what shall stay in sight too."""
    return (
        '<form class="zoom" aria-label="rounds shown">'
        '<label>from round <input type="number" name="from" placeholder="first" min="0" step="1"></label>'
        '<label>to <input type="number" name="to" placeholder="last" min="0" step="1"></label>'
        '<button type="button" name="reset">All rounds</button>'
        '<span class="hint">Drag across a chart to zoom, double-click to see all rounds.</span>'
        f"{beside}</form>"
    )


def curves(content: Content, run: Shown) -> str:
    """Return every column over rounds, in groups, with the lines of members as a band, and the scores over rounds."""
    parts = []
    for heading, names in groups(list(run.series)):
        charts = "".join(content.curve(name_of(name), [("", run.series[name])]) for name in names)
        parts += [f'<h3>{heading}</h3><div class="grid">{charts}</div>'] if charts else []
    charts = ""
    for name, lines in run.score_series.items():
        if name == LOSS:  # a score under another name
            continue
        known = run.scores.get(name, {}).get("references", {})
        marks = [v for k, v in known.items() if not k.endswith("_sd")]
        charts += content.curve(name, [("", lines)], marks[:4])
    parts += [f'<h3>Scores over rounds</h3><p class="note">Dashed: the references of the score table.</p>'
              f'<div class="grid">{charts}</div>'] if charts else []  # fmt: skip
    count = max((len(lines) for lines in run.series.values()), default=0)
    several = f"<p>The line is the mean of {count} members, the band reaches from the least to the greatest.</p>"
    if not parts:
        return f"<p>{text(f'No rows are logged yet: {SAME_ROUNDS}.')}</p>"
    return zoom_form() + (several if count > 1 else "") + "".join(parts)


def name_of(column: str) -> str:
    """Return what a column is called above its chart."""
    owner, _, last = column.rpartition("/")
    known = f"{last}: {MEANING[last]}" if last in MEANING else last
    return f"{owner}/{known}" if owner else known


def facts(run: Shown, content: Content) -> str:
    """Return configuration, versions, data, and what is not shown, folded."""
    parts = []
    if run.config is not None:
        plain = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
        parts.append(details("Configuration", f'<pre tabindex="0">{text(plain, 60_000)}</pre>', key="config"))
    for title, found in (("Versions", run.versions), ("Data", run.data)):
        rows = [[text(key), text(value)] for key, value in list(found.items())[:100]]
        parts += [details(title, table(["what", "value"], rows, title))] if rows else []
    missing = [*run.missing, *content.notes]
    if content.left_out:
        missing.append(f"{content.left_out} pictures are left out: the page has no room for them")
    parts += [details("Not shown", listed(missing, "missing"), opened=True)] if missing else []
    return "".join(parts)
