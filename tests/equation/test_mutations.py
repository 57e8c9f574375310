"""Planted errors are noticed by the claims that the committed list names."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.mutations import LIST, MUTATIONS, ROOT

CAUGHT = json.loads(LIST.read_text())
HALVES = [MUTATIONS[0::2], MUTATIONS[1::2]]


def test_thirty_at_least_and_every_one_is_caught():
    assert len(MUTATIONS) >= 30
    assert list(CAUGHT) == [m.name for m in MUTATIONS], "run: python tests/support/mutations.py"
    assert all(names and not names[0].startswith("import") for names in CAUGHT.values())


@pytest.mark.parametrize("half", HALVES, ids=["even", "odd"])
def test_planted_errors_fail_the_claims_of_the_list(half):
    # Two claims each: the whole list is measured by `python tests/support/mutations.py`.
    wanted = {m.name: CAUGHT[m.name][:2] for m in half}
    command = [sys.executable, str(ROOT / "tests" / "mutations.py"), json.dumps(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == wanted
