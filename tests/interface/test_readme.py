"""The code of the README and of the pages in docs/ runs as it stands there."""

import re
import sys

import pytest

from tests.support.commands import ROOT, call

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)


def test_the_readme_has_its_four_blocks():
    assert len(BLOCKS) == 4


PAGES = [
    "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.S))  # one program per page
    for page in sorted((ROOT / "docs").glob("*.md"))
    if "tests/interface/test_readme.py executes" in page.read_text()  # prototyping.md has a test of its own
]


@pytest.mark.parametrize("block", [*BLOCKS, *PAGES])
def test_block_runs(block, tmp_path):
    (tmp_path / "block.py").write_text(block)
    done = call([sys.executable, "block.py"], tmp_path, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr


def test_ten_lines_suffice():
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 10
