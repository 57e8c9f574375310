"""The few pieces of HTML that a page is made of. Every text goes through :func:`text`: it may be a stranger's."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from se_framework.errors import printable

LONGEST = 400
"""Characters of a cell."""


def text(value: object, longest: int | None = LONGEST) -> str:
    """Return a value as text of an element or of a quoted attribute."""
    return html.escape(printable(str(value), longest), quote=True)


def script_json(content: Any) -> str:
    """Return JSON that ends no script element and opens no comment, whatever strings it holds.

    Raises:
        ValueError: a number is not finite: JSON has none such.
    """
    plain = json.dumps(content, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    return plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def figure(value: float) -> str:
    """Return a number with five significant digits, with a true minus sign, ``&infin;`` and ``not a number`` in words.

    Numbers of different size stand in one column, so the exponent is written where it is far from one.
    """
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite" if value > 0 else "\u2212infinite"
    return f"{value:.5g}".replace("-", "\u2212")


def uncertain(value: float, error: float | None) -> str:
    """Return a number, rounded to the second digit of its standard error where there is one, and that error."""
    if error is None or not math.isfinite(error) or error <= 0 or not math.isfinite(value):
        return figure(value)
    places = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{min(places, 12)}f} \u00b1 {error:.2g}".replace("-", "\u2212")


def element(name: str, content: str, **attributes: object) -> str:
    """Return an element around HTML; attributes are escaped, ``class_`` is ``class`` and ``data_x`` is ``data-x``."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value, None)}"' if value is not True else f" {key}"
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return f"<{name}{given}>{content}</{name}>"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str, sortable: bool = False) -> str:
    """Return a table in a box that scrolls by itself.

    Args:
        heads: of the columns, as text.
        rows: cells of HTML; the first of a row is its head. A cell that begins with ``<td`` is taken as it stands.
        caption: what the table holds, for readers who do not see it.
        sortable: whether its heads are buttons that sort it.
    """
    inner = [f'<button type="button" class="sort">{text(head)}</button>' if sortable else text(head) for head in heads]
    aria = ' aria-sort="none"' if sortable else ""
    body = "".join(
        "<tr>" + f'<th scope="row">{first}</th>' + "".join(_cell(cell) for cell in rest) + "</tr>"
        for first, *rest in rows
    )
    head = "".join(f'<th scope="col"{aria}>{cell}</th>' for cell in inner)
    return (
        f'<div class="box" tabindex="0" role="region" aria-label="{text(caption)}"><table'
        f'{" class=sortable" if sortable else ""}><caption class="unseen">{text(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


NONE = "\u2013"
"""What stands where there is nothing."""


def number_cell(value: float | None, shown: str | None = None) -> str:
    """Return a cell that is sorted by its value, last where there is none.

    Args:
        value: of the cell.
        shown: HTML in the place of the value's five digits.
    """
    if value is None:
        return f'<td class="number" data-value="NaN">{NONE}</td>'
    return f'<td class="number" data-value="{_script_number(value)}">{figure(value) if shown is None else shown}</td>'


def _script_number(value: float) -> str:
    """Return a number as JavaScript's ``Number`` reads it."""
    return "NaN" if math.isnan(value) else f"{'-' * (value < 0)}Infinity" if math.isinf(value) else repr(float(value))


def _cell(cell: str) -> str:
    return cell if cell.startswith("<td") else f"<td>{cell}</td>"


def details(summary: str, content: str, opened: bool = False, key: str = "") -> str:
    """Return content that is folded away until it is asked for; ``key`` names it, so that a live page keeps it open."""
    return (
        f'<details data-key="{text(key or summary)}"{" open" if opened else ""}><summary>{text(summary)}</summary>'
        f"{content}</details>"
    )


def section(key: str, title: str, content: str, lead: str = "") -> str:
    """Return a part of the page with its heading; nothing where it has no content."""
    if not content:
        return ""
    said = f'<p class="lead">{text(lead, 1000)}</p>' if lead else ""
    return f'<section id="{key}" aria-labelledby="{key}-h"><h2 id="{key}-h">{text(title)}</h2>{said}{content}</section>'


def listed(items: Iterable[str], kind: str) -> str:
    """Return sentences as a list; nothing where there are none."""
    inner = "".join(f"<li>{text(item, 1400)}</li>" for item in items)
    return f'<ul class="{kind}">{inner}</ul>' if inner else ""
