"""The page as one file: style, data, Vega and a script of ours, each by its digest, and nothing from anywhere else."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib import resources

from se_framework.comparison.report.charts import runtime
from se_framework.comparison.report.content import Content
from se_framework.comparison.report.html import script_json, text

SCRIPTS = ("charts.js", "heat.js", "page.js")


@cache
def asset(name: str) -> str:
    """Return a file of this folder."""
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def digest(script: str) -> str:
    """Return by what a policy knows a script."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'"


def policy(scripts: list[str], live: bool) -> str:
    """Return the content security policy: our scripts alone run, and nothing is fetched but a live page's own data.

    No ``unsafe-eval``: Vega interprets expressions, all of them ours, instead of making functions of them.
    """
    allowed = " ".join(digest(script) for script in scripts)
    reach = "'self'" if live else "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        f"connect-src {reach}; base-uri 'none'; form-action 'none'"
    )


def page(content: Content, live: bool = False, stamp: str = "") -> str:
    """Return the whole page.

    Args:
        content: what is on it.
        live: whether its script asks the server that sent it for what is new.
        stamp: of what is on it, for such a script.

    Raises:
        ConfigError: the extra ``report`` is missing.
    """
    vega, script = runtime(), "".join(map(asset, SCRIPTS))
    data = script_json(content.as_data() | {"stamps": content.stamps(), "stamp": stamp})
    sections = "".join(f'<div data-section="{key}">{html}</div>' for key, html in content.sections.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy([vega, script], live)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f'<link rel="icon" href="data:,"><title>{text(content.title, 120)}</title>'
        f"<style>{asset('page.css')}</style></head>"
        f'<body{" data-live" if live else ""}><a class="skip" href="#main">Skip to the content</a>'
        f'<main id="main" tabindex="-1">{sections}</main><footer><p id="state" role="status"></p>'
        "<p>Made by se-framework from the files of the runs alone.</p></footer>"
        f'<noscript><p class="noscript">Charts, sliders and sorting need JavaScript.</p></noscript>'
        f'<script type="application/json" id="page-data">{data}</script>'
        f"<script>{vega}</script><script>{script}</script></body></html>\n"
    )


def update(content: Content, stamp: str) -> str:
    """Return what a live page asks for: every section with its digest, and the data of charts and frames."""
    found = content.as_data() | {"stamps": content.stamps(), "stamp": stamp, "sections": content.sections}
    return json.dumps(found, allow_nan=False, separators=(",", ":"))
