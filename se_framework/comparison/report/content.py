"""What a page holds before it is written: sections of HTML, data of charts, frames, and the budget of pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from se_framework.comparison.report.charts import SPECS, compiled
from se_framework.comparison.report.html import element, text
from se_framework.comparison.report.images import SMALLEST, data_uri, spread
from se_framework.comparison.report.series import Series, band, short, spans, thinned
from se_framework.errors import printable
from se_framework.reading import UnreadableError

COLOURS = 8
"""Colours of lines that are told apart."""
PICTURES = 5 * 2**20
"""Bytes that all pictures of a page have together."""
FRAME = 60_000
"""Bytes of a picture at most."""
FEW = 30
"""Points up to which each is drawn as a dot: a line of two tells little of where they are."""
LEAST = 12_000
"""Bytes below which a picture shows too little: then fewer are shown."""


@dataclass
class Content:
    """Parts of a page, which grow while it is made.

    Attributes:
        title: of the page.
        sections: HTML, in order, by key.
        charts: data by key.
        frames: pictures of rounds by key, each with its round.
        maps: means over choices by key.
        points: points that a line may have.
        room: bytes left for pictures.
        left_out: pictures that found no room.
        notes: sentences on what is missing.
    """

    title: str
    sections: dict[str, str] = field(default_factory=dict)
    charts: dict[str, dict[str, Any]] = field(default_factory=dict)
    frames: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    maps: dict[str, dict[str, Any]] = field(default_factory=dict)
    points: int = 2000
    room: int = PICTURES
    left_out: int = 0
    notes: list[str] = field(default_factory=list)

    def chart(self, kind: str, title: str, data: dict[str, Any], note: str = "", signals: Any = None) -> str:
        """Add a chart and return the element in which it is drawn.

        Args:
            kind: a name of :data:`~se_framework.comparison.report.charts.SPECS`.
            title: what it shows.
            data: rows by the name of their data set, in columns.
            note: a sentence below it.
            signals: numbers that the chart's kind asks for.
        """
        key = f"c{len(self.charts)}"
        self.charts[key] = {"kind": kind, "data": data, "signals": signals or {}}
        readable = not kind.startswith(("plane", "bars"))
        hint = "; left and right arrows read its values" if readable else ""
        plot = element(
            "div", "", class_="plot", tabindex="0" if readable else None, role="group" if readable else "img",
            aria_label=f"{title}{hint}",
        )  # fmt: skip
        shown = element("span", text(title, 80), class_="name")
        caption = element("figcaption", shown + element("output", "", class_="readout", aria_live="polite"))
        below = element("p", text(note), class_="note") if note else ""
        below = (legend(line["s"] for line in data["line"]) if kind == "profile" else "") + below
        return element("figure", caption + plot + below, class_="chart", data_chart=key, data_kind=kind)

    def curve(self, title: str, runs: Sequence[tuple[str, Sequence[Series]]], marks: Sequence[float] = ()) -> str:
        """Add a chart of lines over rounds: for each name one line, or the band of several.

        A name without a line keeps its colour, so that all charts of a page agree.

        Args:
            title: what it shows.
            runs: the lines by name.
            marks: values at which a dashed line is drawn.
        """
        line, areas, dots = [], [], []
        everything = [s for _, lines in runs for s in lines]
        lost = sum(int((~_finite(s)).sum()) for s in everything)
        log = (
            bool(everything)
            and all(spans_or_positive(s) for s in everything)
            and any(spans(s.values) for s in everything)
        )
        for k, (name, lines) in enumerate(runs):
            if not lines:
                continue
            of = band(lines)
            chosen = thinned(of.mean, self.points)
            one = {"s": printable(name, 60), "c": colour(k), "x": short(of.rounds[chosen]), "y": short(of.mean[chosen])}
            line.append(one)
            dots += [one] if len(chosen) <= FEW else []
            if len(lines) > 1:
                areas.append(one | {"low": short(of.low[chosen]), "high": short(of.high[chosen])})
        kind = ("many" if len(runs) > 1 else "rounds") + ("-log" if log else "")
        note = f"{lost} value{'s' if lost != 1 else ''} not finite: gaps" if lost else ""
        finite_marks = [mark for mark in short(marks) if mark is not None and (not log or mark > 0)]
        data = {"line": line, "band": areas, "dots": dots, "marks": [{"y": finite_marks}] if finite_marks else []}
        return self.chart(kind, title, data, note)

    def picture(self, file: Path, alt: str, budget: int = FRAME, width: int = 820) -> str:
        """Return a picture as an element, or nothing where it cannot be read or finds no room."""
        uri = self.uri(file, budget, width)
        return f'<img src="{uri}" alt="{text(alt)}" loading="lazy">' if uri else ""

    def uri(self, file: Path, budget: int, width: int) -> str:
        """Return a picture as an address and take its bytes off the room; empty where there is none."""
        if self.room < LEAST:
            self.left_out += 1
            return ""
        try:
            found = data_uri(file, min(budget, self.room), width)
        except (UnreadableError, FileNotFoundError) as error:
            self.notes.append(f"{file} is not shown: {error or 'it is gone'}")
            return ""
        self.room -= len(found)
        return found

    def slider(self, frames: Sequence[tuple[int, Path]], label: str, share: float = 1.0) -> str:
        """Add pictures through training and return their slider.

        Args:
            frames: rounds and files in their order.
            label: what they show.
            share: of the room that is left.
        """
        room = int(self.room * share)
        most = max(1, room // LEAST)
        chosen = spread(frames, most)
        budget = min(FRAME, room // max(1, len(chosen)))
        shown = [{"round": t, "uri": uri} for t, file in chosen if (uri := self.uri(file, budget, max(SMALLEST, 820)))]
        self.left_out += len(frames) - len(chosen)
        if not shown:
            return ""
        key = f"f{len(self.frames)}"
        self.frames[key] = shown
        last = len(shown) - 1
        name = text(label)
        return (
            f'<div class="frames" data-frames="{key}"><img alt="{name}"><div class="controls">'
            f'<button type="button" class="play" aria-pressed="false">Play</button>'
            f'<label>round <input type="range" min="0" max="{last}" value="{last}" step="1" aria-label="round of '
            f'{name}"></label><output></output></div></div>'
        )

    def add(self, key: str, html: str) -> None:
        """Add a section under its key, if it is not empty."""
        if html:
            self.sections[key] = html

    def as_data(self) -> dict[str, Any]:
        """Return what the page's script reads."""
        kinds = dict.fromkeys(chart["kind"] for chart in self.charts.values())
        specs = {kind: compiled(SPECS[kind]) for kind in kinds}
        return {"specs": specs, "charts": self.charts, "frames": self.frames, "maps": self.maps}

    def stamps(self) -> dict[str, str]:
        """Return a digest of every section, by which a live page knows those that are new."""
        return {key: hashlib.sha256(html.encode()).hexdigest()[:16] for key, html in self.sections.items()}


def colour(k: int) -> str:
    """Return the colour of the k-th line of a chart, from 0."""
    return f"var(--series-{k % COLOURS + 1})"


def legend(names: Iterable[str]) -> str:
    """Return which colour is whose."""
    keys = "".join(
        f'<li><span class="key" style="background:{colour(k)}"></span>{text(name, 120)}</li>'
        for k, name in enumerate(names)
    )
    return f'<ul class="legend">{keys}</ul>'


def _finite(line: Series) -> Any:
    return np.isfinite(line.values)


def spans_or_positive(line: Series) -> bool:
    """Whether a logarithmic scale can show the line: what is finite of it is positive."""
    good = line.values[_finite(line)]
    return bool((good > 0).all())
