"""Links to files of the repository that lie outside docs/: CONTRIBUTING is a page here, others are shown as paths."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"CONTRIBUTING.md": "development/index"}
"""Files outside docs/ that a page includes."""


def file_of(app: Sphinx, node: nodes.Element) -> str:
    """Return the path, in the repository, of the file outside docs/ that a link means; empty if it means none."""
    target = str(node.get("reftarget", "")).partition("#")[0]
    if node.get("refdomain") == "doc":  # a source document, by its path without ending
        target = f"{target}.md"
    here = Path(app.srcdir, app.env.docname).parent
    for base in (here, ROOT):  # as the page writes it, or as a file at the root does that the page includes
        path = Path(base, target).resolve()
        if target and path.is_file() and ROOT in path.parents and Path(app.srcdir) not in path.parents:
            return path.relative_to(ROOT).as_posix()
    return ""


def resolve(app: Sphinx, document: nodes.document) -> None:
    """Turn links to such files into links to the page that includes them, or into text."""
    from docutils import nodes as made
    from sphinx.addnodes import pending_xref

    for node in list(document.findall(pending_xref)):
        path = file_of(app, node) if node.get("reftype") in ("myst", None) else ""
        if path in PAGES:
            node["refdomain"], node["reftype"], node["reftarget"] = "std", "doc", f"/{PAGES[path]}"
            node["refexplicit"] = True
        elif path:
            node.replace_self([*node.children, made.Text(" ("), made.literal("", path), made.Text(")")])


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the handler."""
    app.connect("doctree-read", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
