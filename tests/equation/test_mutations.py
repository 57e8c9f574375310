"""Planted errors are noticed by the claims that the committed list names."""

from __future__ import annotations

import json

import pytest

from tests.support import commands
from tests.support.mutations import LIST, MUTATIONS
from tests.support.planting import Mutation, planted

CAUGHT = json.loads(LIST.read_text())
HALVES = [MUTATIONS[0::2], MUTATIONS[1::2]]
MEASURE = """
import json, sys
from tests.support.mutations import MUTATIONS, caught_by, failing
failing(set())
wanted = json.loads(sys.argv[1])
print(json.dumps({m.name: caught_by(m, set(wanted[m.name])) for m in MUTATIONS if m.name in wanted}))
"""


def test_thirty_at_least_and_every_one_is_caught():
    assert len(MUTATIONS) >= 30
    assert list(CAUGHT) == [m.name for m in MUTATIONS], "run: python -m tests.support.mutations"
    assert all(CAUGHT.values())


@pytest.mark.soak
@pytest.mark.parametrize("half", HALVES, ids=["even", "odd"])
def test_planted_errors_fail_the_claims_of_the_list(half, soak):
    # The last two of each, which are quick; the first search for optima that the error has moved to infinity.
    wanted = {m.name: CAUGHT[m.name][0 if soak else -2 :] for m in half}
    done = commands.script(MEASURE, json.dumps(wanted), timeout=3000 if soak else commands.PATIENCE)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: sorted(claims) for name, claims in found.items()} == {
        name: sorted(claims) for name, claims in wanted.items()
    }


def test_a_name_that_is_gone_is_told_with_the_error_that_replaces_it():
    gone = Mutation("of what was", lambda plant: plant.wrap("divergences.KL.konjugate", lambda own: own))
    with pytest.raises(LookupError, match="'of what was' replaces divergences.KL.konjugate, which is not there"):
        with planted(gone):
            pass
