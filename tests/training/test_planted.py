"""Errors planted in the engine are noticed by the tests that the committed list names."""

from __future__ import annotations

import json

import pytest

from tests.support import commands
from tests.support.engine_mutations import LIST, MUTATIONS, import_everything
from tests.support.planting import planted

CAUGHT = json.loads(LIST.read_text())
QUICK = ["q ascends", "warm-up starts at zero", "weights of summands dropped", "points of every seed are the same"]
"""Noticed in a fraction of a second each."""
MEASURE = """
import json, sys
from tests.support.engine_mutations import MUTATIONS, caught_by, import_everything, outcome
import_everything()
wanted = json.loads(sys.argv[1])
failed, text = outcome(None, *dict.fromkeys(node for nodes in wanted.values() for node in nodes))
assert not failed, "without any error: " + text
print(json.dumps({m.name: caught_by(m, wanted[m.name]) for m in MUTATIONS if m.name in wanted}))
"""


def test_forty_at_least_and_every_one_is_caught():
    assert len(MUTATIONS) >= 40 and len({m.name for m in MUTATIONS}) == len(MUTATIONS)
    assert list(CAUGHT) == [m.name for m in MUTATIONS], "run: python -m tests.support.engine_mutations"
    for m in MUTATIONS:
        assert CAUGHT[m.name] and set(CAUGHT[m.name]) <= set(m.tests), m.name


def test_what_is_replaced_is_there():
    """Else the sentence names the error whose target is gone; what is planted is taken away again."""
    import_everything()
    for m in MUTATIONS:
        with planted(m):
            pass


@pytest.mark.soak
def test_planted_errors_fail_the_tests_of_the_list(soak):
    wanted = CAUGHT if soak else {name: CAUGHT[name][:1] for name in QUICK}
    done = commands.script(MEASURE, json.dumps(wanted), timeout=3000 if soak else commands.PATIENCE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == wanted
