"""The documentation holds together: links, includes, the reference, the gallery; with sphinx the site is built.

What needs no sphinx is played always. Commands of pages are read here, and run in ``test_docs_pages.py``.
"""

import ast
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import tomllib

import pytest

from se_framework.evaluation import scores
from tests.support.commands import ROOT
from tests.support.pages import DOCS, LINK, anchors, includes, methods, pages, prose

SITE = [*pages(), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
GALLERY = sorted((DOCS / "gallery").glob("plot_*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BUILT = {"gallery_pages/index.rst": DOCS / "gallery" / "README.rst"}
"""Pages that the build writes, and what of."""


def name(path):
    return str(path.relative_to(ROOT))


def dead(page, text):
    """Return the links of a page that lead nowhere."""
    found = []
    for link in LINK.findall(prose(text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if DOCS in target.parents:
            target = BUILT.get(str(target.relative_to(DOCS)), target)
        known = {anchor} if target.suffix != ".md" or not target.exists() else anchors(expanded(target))
        if not target.exists() or (anchor and anchor not in known):
            found.append(link)
    return found


def expanded(page):
    """Return the text of a page with that of its includes."""
    text = page.read_text()
    return text + "".join(part(page, path, options) for path, options in includes(text))


def part(page, path, options):
    """Return what an include takes; both marks must stand in the file."""
    text = (page.parent / path).read_text()
    for key, piece in (("start-after", -1), ("end-before", 0)):
        if key in options:
            assert options[key] in text, f"{path} has no {options[key]!r}, where {name(page)} takes it from"
            text = text.split(options[key], 1)[piece]
    return text


@pytest.mark.parametrize("page", SITE, ids=name)
def test_links_lead_somewhere_and_includes_find_their_marks(page):
    text = page.read_text()
    assert dead(page, text) == []
    for path, options in includes(text):
        assert part(page, path, options).strip(), (path, options)


def test_dead_links_are_found():
    page = DOCS / "laws.md"
    good = "[a](prototyping.md) [b](prototyping.md#2-a-divergence-in-one-file) [c](https://x.org) `[d](none.md)`"
    assert dead(page, good) == []
    assert dead(page, "[a](none.md) [b](prototyping.md#none) [c](#none)") == ["none.md", "prototyping.md#none", "#none"]


def test_every_page_is_in_a_menu():
    listed = set()
    for page in pages():
        for body in re.findall(r"^```\{toctree\}\n(.*?)^```$", page.read_text(), flags=re.S | re.M):
            for entry in (line for line in body.splitlines() if line and not line.startswith(":")):
                found = sorted(page.parent.glob(f"{entry}.md"))
                assert found or f"{entry}.rst" in BUILT, f"{name(page)}: {entry}"
                listed |= set(found)
    assert set(pages()) - listed <= {DOCS / "index.md"}


@pytest.mark.parametrize("package", ["se_framework", "divergences", "models", "se_framework.data"])
def test_the_reference_has_every_public_name_and_no_other(package):
    public = {n for n in importlib.import_module(package).__all__ if n not in ("__version__", "Kind")}
    text = (DOCS / "reference" / f"{package.rpartition('.')[2]}.md").read_text()
    listed = re.findall(r"^\.\. (?:auto(?:class|function)|py:data):: (\S+)$", text, flags=re.M)
    assert len(listed) == len(set(listed))
    own = {n.removeprefix(f"{package}.") for n in listed if n.rpartition(".")[0] == package}
    in_errors = {n for n in public if n.endswith("Error")}  # se_framework.errors is shown as a module
    assert own == public - in_errors


def test_pages_that_list_everything_do():
    commands = (DOCS / "reference" / "commands.md").read_text()
    assert [c for c in PROJECT["scripts"] if f"`{c}" not in commands] == []
    table = (DOCS / "howto" / "scores.md").read_text()
    assert [score.name for score in scores.ALL if f"`{score.name}`" not in table] == []


@pytest.mark.parametrize("file", GALLERY, ids=lambda f: f.stem)
def test_a_page_of_the_gallery_is_a_program_with_a_title_and_no_private_names(file):
    tree = ast.parse(file.read_text())
    title, line, *_ = (ast.get_docstring(tree) or "").splitlines()
    assert len(line) == len(title) and set(line) == {"="}
    imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert all(importlib.util.find_spec(m) is not None for m in imported if m != "film")
    assert not [n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and re.match(r"_[a-z]", n.attr)]


def test_the_film_is_a_page_without_a_network():
    from matplotlib.figure import Figure

    spec = importlib.util.spec_from_file_location("film", DOCS / "gallery" / "film.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    film = module.Film("two frames")
    for _ in range(2):
        film.add(Figure(figsize=(1, 1)))
    shown = film._repr_html_()
    assert len(film.pictures()) == 2 and all(p.startswith(b"\x89PNG") for p in film.pictures())
    assert 'max="1"' in shown and "http" not in shown


def test_pictures_are_small_and_what_a_build_makes_is_not_kept():
    kept = subprocess.run(["git", "ls-files", "docs"], cwd=ROOT, capture_output=True, text=True)
    files = [ROOT / line for line in kept.stdout.splitlines()] or [p for p in DOCS.rglob("*.*") if p.is_file()]
    assert [name(p) for p in files if p.suffix == ".png" and p.stat().st_size > 150_000] == []
    assert [line for line in kept.stdout.splitlines() if "gallery_pages" in line or line.endswith(".ipynb")] == []


def test_what_builds_the_site_is_pinned():
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {re.split(r"[>=<]", need)[0] for need in PROJECT["optional-dependencies"]["docs"]} <= pinned


def test_the_map_has_a_method_per_command():
    assert len(methods()) > 40


@pytest.mark.soak
def test_the_site_is_built_without_a_warning_and_asks_for_nothing_of_a_network(tmp_path, soak):
    """Warnings are errors: references that lead nowhere, pages in no menu, docstrings that are not markup."""
    needed = ("sphinx", "myst_parser", "sphinx_gallery", "furo", "latex2mathml")
    if not soak or any(importlib.util.find_spec(module) is None for module in needed):
        pytest.skip("make soak, with the extra docs, builds the site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    asked = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["'](?:https?:)?//[^"']*""")
    for file in (tmp_path / "site").rglob("*.html"):
        assert asked.findall(file.read_text()) == [], file
    for file in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", file.read_text()), file
