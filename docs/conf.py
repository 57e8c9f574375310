"""The documentation as a site: ``make docs`` writes it to build/docs, and nothing of it is fetched when it is read."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), *(str(ROOT / "docs" / name) for name in ("extensions", "gallery"))]

import se_framework

project = "se-framework"
author = "The se-framework authors"
release = version = se_framework.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "mathml",
    "repository",
    "docstrings",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = [
    "gallery",
    "extensions",
    "gallery_pages/**/*.ipynb",
    "gallery_pages/*.py",
    "**/sg_execution_times.rst",
    "sg_execution_times.rst",
]
nitpicky = True

# -- Markdown ----------------------------------------------------------------------------------------------------------

myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 4

# -- the reference, from docstrings ------------------------------------------------------------------------------------

napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_custom_sections = [("Class attributes", "params_style")]
napoleon_use_rtype = False
napoleon_use_ivar = True  # attributes in a list, beside the class
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # what overrides in silence is documented where the contract is
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|numpy|np|omegaconf|matplotlib|pandas|pathlib|collections|contextlib|typing|scipy)\b.*"),
    (r"py:class", r"(Tensor|nn\.Module|Path|Module|Generator|DictConfig|optional|default.*|list\[dict\[str|T|P|R)"),
]

# -- pages that are executed -------------------------------------------------------------------------------------------

sphinx_gallery_conf = {
    "examples_dirs": ["gallery"],
    "gallery_dirs": ["gallery_pages"],
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"film\.py",
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("matplotlib",),
    "matplotlib_animations": (True, "jshtml"),
    "abort_on_example_error": True,
    "show_memory": False,
    "show_signature": False,
    "download_all_examples": False,
    "remove_config_comments": True,
    "min_reported_time": 3600,
    "write_computation_times": False,
}

# -- how it looks ------------------------------------------------------------------------------------------------------

html_theme = "furo"
html_title = "se-framework"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_math_renderer = "mathml"
html_show_copyright = False
pygments_style, pygments_dark_style = "friendly", "monokai"
