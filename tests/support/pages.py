"""The pages of ``docs/``: what is written in them, and the methods of the map."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.commands import ROOT

DOCS = ROOT / "docs"
LINK = re.compile(r"(?<!\\)\]\(([^)\s]+)\)")


def pages() -> list[Path]:
    """Return the Markdown files that are pages, in order."""
    return sorted(p for p in DOCS.rglob("*.md") if "gallery_pages" not in p.parts)


def prose(text: str) -> str:
    """Return Markdown without fenced and indented blocks and without code in lines."""
    text = re.sub(r"^(`{3,}|:{3,}).*?^\1$", "", text, flags=re.S | re.M)
    text = re.sub(r"^ {4}.*$", "", text, flags=re.M)
    return re.sub(r"`[^`\n]*`", "`code`", text)


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub and MyST make them."""
    headings = re.findall(r"^#{1,4} (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def includes(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the file of every include of a page, with its options."""
    for path, body in re.findall(r"^```\{include\} (\S+)\n(.*?)^```$", text, flags=re.S | re.M):
        yield path, {k: v.strip().strip('"') for k, v in re.findall(r"^:([\w-]+):(.*)$", body, flags=re.M)}


class Method(NamedTuple):
    """A row of the map: its cells, and the words of its command behind ``se-train``."""

    name: str
    divergence: str
    metric: str
    auxiliary: str
    weights: str
    overrides: list[str]


def methods() -> list[Method]:
    """Return the rows of ``docs/methods.md`` that have a command."""
    found = []
    for line in (DOCS / "methods.md").read_text().splitlines():
        *cells, command = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if command.startswith("`se-train "):
            found.append(Method(*cells, shlex.split(command.strip("`"))[1:]))
    return found


def classes(cell: str) -> list[str]:
    """Return the names of classes in a cell, in order."""
    return re.findall(r"`(\w+)`", cell)


def write_files(text: str, folder: Path) -> None:
    """Write the files of a page into a folder: the blocks that begin with a comment naming a path."""
    for name, body in re.findall(r"```(?:python|yaml)\n# (\S+\.(?:py|yaml))\n(.*?)```", text, flags=re.S):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(body)


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield every command of a page with the lines that the page shows below it."""
    for block in re.findall(r"```console\n(.*?)```", text, flags=re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, *shown = part.splitlines()
            yield command, shown


def argv(command: str) -> list[str]:
    """Return what starts a command of ours, or Python, in a process of the tests."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    name, *arguments = shlex.split(command)
    if name == "python":
        return [sys.executable, *arguments]
    if name == "se-train":
        arguments += ["device=cpu", "progress=false"]
    return [sys.executable, "-m", scripts[name].partition(":")[0], *arguments]
