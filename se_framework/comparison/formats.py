"""Tables as text, Markdown, LaTeX and HTML. Names and texts of runs are escaped: they may be a stranger's."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable
from html import escape
from typing import Any

from se_framework.comparison.cells import LITTLE, SETTING, Column, Table
from se_framework.comparison.records import as_csv, json
from se_framework.errors import printable

NARROWEST, WIDEST = 80, 160
SHORT_SETTING, SHORTEST_SETTING = 16, 8
"""Characters of a setting at least, where a table must fit a terminal: with all figures, and else."""
_LATEX = {
    "\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def text(found: Table, width: int | None = None) -> str:
    """Return the tables for a terminal.

    Args:
        found: the comparison, or another table.
        width: in characters; None for the terminal's. Columns of least worth are left out, and named.
    """
    width = min(max(width or shutil.get_terminal_size((100, 24)).columns, NARROWEST), WIDEST)
    first, *others = found.tables()
    lines, left = _plain(first, width)
    told = [line for said in found.told() for line in textwrap.wrap(printable(said), width)]
    if left:
        told += textwrap.wrap(f"left out for want of room: {', '.join(left)}; format=markdown has them", width)
    ranked = [line for made in others for line in ("", *_plain(made, width)[0])]
    return "\n".join([*lines, *ranked, "", *told])


def _plain(made: list[Column], width: int) -> tuple[list[str], list[str]]:
    """Return a table's lines, and the heads of columns that had no room.

    First the columns of little worth go, then settings are cut, then other figures go but the score and what became of
    the runs, then settings are cut again, and the last of them go.
    """
    left: list[str] = []
    made = list(made)
    sizes = [max(map(len, (c.head, *c.cells))) for c in made]

    def drop(at: int) -> None:
        left.append(made.pop(at).head)
        del sizes[at]

    def cut(least: int) -> bool:
        shortest = [max(map(len, (*c.cells, c.head[:8]))) if c.worth != SETTING else least for c in made]
        over = [size - own for size, own in zip(sizes, shortest, strict=True)]
        if max(over) > 0:
            sizes[over.index(max(over))] -= 1
        return max(over) > 0

    while sum(sizes) + 2 * len(sizes) - 2 > width:
        worth = min(c.worth for c in made)
        if worth <= LITTLE or (worth < SETTING and not cut(SHORT_SETTING)):
            drop([c.worth for c in made].index(worth))
        elif worth >= SETTING and not cut(SHORTEST_SETTING):
            if worth > SETTING:
                break
            drop(max(k for k, c in enumerate(made) if c.worth == SETTING))

    def line(cells: list[str]) -> str:
        short = (c if len(c) <= n else f"{c[: n - 2]}.." for c, n in zip(cells, sizes, strict=True))
        set_ = (c.rjust(n) if col.number else c.ljust(n) for c, n, col in zip(short, sizes, made, strict=True))
        return "  ".join(set_).rstrip()

    body = [line([c.cells[i] for c in made]) for i in range(len(made[0].cells))]
    return [line([c.head for c in made]), "  ".join("-" * n for n in sizes), *body], left


def markdown(found: Table) -> str:
    """Return the tables in Markdown."""

    def table(made: list[Column]) -> list[str]:
        def line(cells: list[str]) -> str:
            return f"| {' | '.join(cells)} |"

        rules = line(["---:" if c.number else "---" for c in made])
        body = [line([_of_markdown(c.cells[i]) for c in made]) for i in range(len(made[0].cells))]
        return [line([_of_markdown(c.head) for c in made]), rules, *body]

    parts = [*map(table, found.tables()), *([_of_markdown(said)] for said in found.told())]
    return "\n\n".join("\n".join(part) for part in parts)


def _of_markdown(said: str) -> str:
    """Return a text with what Markdown or HTML in it would read as its own."""
    said = escape(printable(" ".join(said.split())), quote=False)
    return "".join(f"\\{c}" if c in "\\|`*_[]" else c for c in said)


def latex(found: Table) -> str:
    """Return the tables in LaTeX, each a ``tabular`` with booktabs' rules, the remarks as comments."""

    def table(made: list[Column]) -> list[str]:
        def line(cells: list[str]) -> str:
            return " & ".join(cells) + r" \\"

        shape = "".join("r" if c.number else "l" for c in made)
        body = [line([_of_latex(c.cells[i]) for c in made]) for i in range(len(made[0].cells))]
        head = line([_of_latex(c.head) for c in made])
        return [
            f"\\begin{{tabular}}{{{shape}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
        ]

    told = [f"% {' '.join(printable(said).split())}" for said in found.told()]
    first, *others = found.tables()
    ranked = [line for made in others for line in ("", *table(made))]
    return "\n".join([*told, r"% needs \usepackage{booktabs}", *table(first), *ranked])


def _of_latex(said: str) -> str:
    return "".join(_LATEX.get(c, c) for c in printable(" ".join(said.split())))


def html(found: Table) -> str:
    """Return the tables in HTML, without styles of their own."""

    def table(made: list[Column]) -> str:
        def row(tag: str, cells: list[str]) -> str:
            return f"<tr>{''.join(f'<{tag}>{escape(printable(c))}</{tag}>' for c in cells)}</tr>"

        body = "".join(row("td", [c.cells[i] for c in made]) for i in range(len(made[0].cells)))
        head = row("th", [c.head for c in made])
        return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"

    told = "".join(f"<p>{escape(printable(said))}</p>" for said in found.told())
    return "".join(map(table, found.tables())) + told


FORMATS: dict[str, Callable[[Any], str]] = {
    "text": text, "csv": as_csv, "json": json, "markdown": markdown, "latex": latex, "html": html,
}  # fmt: skip
"""What writes a comparison, by the format's name."""
