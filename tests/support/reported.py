"""Runs to be shown, without training: a configuration, tables, scores and frames of choice; and a page, taken apart."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.fake_runs import fake_run

VOID = {"meta", "link", "img", "input", "br"}


def write_table(file: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns as a table."""
    with open(file, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def rows_of(n: int, every: int = 10) -> dict[str, list[float]]:
    """Return the columns that a GAN's run has, n rows of numbers that tell where they stand."""
    rounds = [every * (k + 1) for k in range(n)]
    names = ("D", "E_q_f", "E_pd_f", "total", "phi_objective", "phi_gradient", "penalty", "theta_objective")
    found: dict[str, list[float]] = {"round": rounds, "samples": [256 * t for t in rounds]}
    return found | {name: [j + k / 1024 for k in range(n)] for j, name in enumerate(names)}


def frame(file: Path, shade: int, size: tuple[int, int] = (200, 100)) -> None:
    """Write a picture of one shade of grey."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, shade, shade)).save(file)


def shown_run(
    path: Path,
    words: Sequence[str] = (),
    seed: int = 0,
    scores: Any = 0.5,
    rows: Mapping[str, Sequence[Any]] | None = None,
    frames: Sequence[int] = (),
    **summary: Any,
) -> Path:
    """Write a run with rows, and frames of the rounds given, the k-th of the shade 10 (k + 1)."""
    fake_run(path, words, seed, scores, **summary)
    write_table(path / "metrics.csv", rows_of(5) if rows is None else rows)
    (path / "versions.json").write_text(json.dumps({"torch": "2.0", "device": "cpu"}))
    for k, t in enumerate(frames):
        frame(path / "frames" / f"{t:08d}.png", 10 * (k + 1))
    return path


@contextmanager
def without_vega() -> Iterator[None]:
    """Make pages without the charts' own script, which takes seconds to be bundled: what it draws a browser tests."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("build", "page"):
            patch.setattr(f"se_framework.comparison.report.{module}.runtime", lambda: "window.seEmbed = null;")
        yield


class Page(HTMLParser):
    """A page taken apart by the standard library's parser.

    Attributes:
        elements: (name, attributes) of every element, in order.
        scripts: (attributes, text) of every script.
        text: of everything else, styles left out.
        problems: ends without a beginning, and beginnings without an end.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.problems: list[str] = []
        self._open: list[str] = []
        self._texts: list[str] = []
        self.html = html
        self.feed(html)
        self.close()
        self.problems += [f"<{name}> is not closed" for name in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()
        else:
            self.problems.append(f"</{tag}> within {self._open[-3:]}")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            attributes, text = self.scripts.pop()
            self.scripts.append((attributes, text + data))
        elif not (self._open and self._open[-1] == "style"):
            self._texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._texts).split())

    @property
    def data(self) -> dict[str, Any]:
        """What the page's script reads."""
        (found,) = [json.loads(text) for attributes, text in self.scripts if attributes.get("id") == "page-data"]
        return found  # type: ignore[no-any-return]

    def all(self, element: str, /, **attributes: str) -> list[dict[str, str | None]]:
        """Return the attributes of the elements of a kind that have these."""
        wanted = {key.replace("_", "-"): value for key, value in attributes.items()}
        return [a for n, a in self.elements if n == element and all(a.get(k) == v for k, v in wanted.items())]

    def charts(self) -> dict[str, dict[str, Any]]:
        """Return the data of every chart by what stands above it."""
        names = dict(re.findall(r'data-chart="(c\d+)".*?<span class="name">(.*?)</span>', self.html, flags=re.S))
        return {names[key]: chart for key, chart in self.data["charts"].items()}

    def table(self, caption: str) -> list[list[str]]:
        """Return the cells of the table of a caption as text, its head first."""
        (found,) = re.findall(rf'<caption class="unseen">{caption}</caption>(.*?)</table>', self.html, flags=re.S)
        rows = re.findall(r"<tr.*?>(.*?)</tr>", found, flags=re.S)
        cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, flags=re.S) for row in rows]
        return [[Page(f"<p>{cell}</p>").text for cell in row] for row in cells]
