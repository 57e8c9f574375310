"""Docstrings as they are written here, read as reStructuredText: shapes and norms are text, first lines no types."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

OURS = ("se_framework", "divergences", "models")
CODE = re.compile(r"(``.*?``|`[^`]*`_*)")
MARKS = re.compile(r"(?<!\\)\||(?<![\\*\w])\*(?=[A-Z]\b)")
"""A bar, as in ``|x - y|``, and the star of a shape, as in ``(N, *E)``: outside code neither is markup."""


def escaped(lines: list[str]) -> list[str]:
    """Return the lines with such marks escaped, except in formulas and code."""
    found, formula = [], None
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if formula is not None and line.strip() and indent <= formula:
            formula = None
        if line.lstrip().startswith(".. math::"):
            formula = indent
        parts = CODE.split(line)
        plain = [MARKS.sub(lambda m: "\\" + m[0], part) if k % 2 == 0 else part for k, part in enumerate(parts)]
        found.append("".join(plain) if formula is None else line)
    return found


def prepare(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape, and keep what napoleon shall not read."""
    lines[:] = escaped(lines)
    app.kept_lines = list(lines)  # type: ignore[attr-defined]


def restore(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Of properties and data take back what napoleon makes: the words before a colon, which it takes for a type."""
    if what in ("attribute", "data", "property"):
        lines[:] = app.kept_lines  # type: ignore[attr-defined]


def reached(start: Any, path: list[str]) -> bool:
    """Whether attributes lead from an object to the end of a path."""
    for name in path:
        if not hasattr(start, name):
            return name in getattr(start, "__annotations__", {}) and name == path[-1]
        start = getattr(start, name)
    return True


def exists(target: str, around: str | None) -> bool:
    """Whether a name without a page is one of ours: of a module, or in the class around it.

    Args:
        target: as it is written: ``Name``, ``Class.method``, ``.module.name`` or in full.
        around: the class whose docstring it stands in.
    """
    path = target.lstrip(".").split(".")
    for name, module in [(n, m) for n, m in sys.modules.items() if n.partition(".")[0] in OURS]:
        if target == name or target == getattr(module, "__name__", None):
            return True
        here = [module, *([getattr(module, around.rpartition(".")[2], None)] if around else [])]
        cuts = [k for k in range(len(path)) if f".{name}".endswith("." + ".".join(path[:k])) or k == 0]
        if any(reached(start, path[k:]) for start in here for k in cuts if start is not None):
            return True
    return False


def settle(app: Sphinx, env: Any, node: nodes.Element, content: nodes.TextElement) -> nodes.TextElement | None:
    """Return the bare name where it exists without a page; None, so that the build fails, where there is none."""
    if node.get("refdomain") != "py":
        return None
    return content if exists(str(node.get("reftarget")), node.get("py:class")) else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Register all."""
    app.connect("autodoc-process-docstring", prepare, priority=100)  # napoleon comes at 500
    app.connect("autodoc-process-docstring", restore, priority=900)
    app.connect("missing-reference", settle)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
