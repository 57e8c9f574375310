"""Formulas as MathML, which browsers typeset without a script: no network, no fonts, no LaTeX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator


def markup(tex: str, display: str) -> str:
    """Return the MathML of a formula.

    Raises:
        sphinx.errors.ExtensionError: it is none; the message holds it.
    """
    from latex2mathml.converter import convert
    from sphinx.errors import ExtensionError

    try:
        return convert(tex, display=display)
    except Exception as error:
        raise ExtensionError(f"the formula {tex!r} cannot be typeset: {error!r}") from error


def inline(translator: HTML5Translator, node: nodes.math) -> None:
    """Write a formula that stands in a line."""
    from docutils.nodes import SkipNode

    translator.body.append(markup(node.astext(), "inline"))
    raise SkipNode


def block(translator: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula that stands alone; lines that are separated by an empty line stand below each other."""
    from docutils.nodes import SkipNode

    for part in filter(str.strip, node.astext().split("\n\n")):
        translator.body.append(f'<div class="formula">{markup(part, "block")}</div>')
    raise SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
