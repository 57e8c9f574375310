"""Links to files of the repository that are no pages of this site: shown as paths, not followed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]


def shown(app: Sphinx, env: Any, node: nodes.Element, content: nodes.TextElement) -> nodes.Node | None:
    """Return what stands in the place of a link to a file outside docs/; None if there is no such file."""
    from docutils import nodes as made

    target = str(node.get("reftarget", "")).partition("#")[0]
    if node.get("reftype") != "myst" or not target or not (ROOT / target.lstrip("./")).exists():
        return None
    return made.inline("", f"{content.astext()} ({target.lstrip('./')} of the repository)")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the handler."""
    app.connect("missing-reference", shown)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
