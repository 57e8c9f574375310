"""Bad input in bulk: whatever is typed, configured or lies in a file, the answer is one sentence with the key.

``make soak`` plays 2,000 cases and 40 of them as processes, with a seed that is printed and recorded; ``make test`` a
share of them with a fixed seed. A case is bad by construction, so an exit code of 0 is a failure too.
"""

from __future__ import annotations

import secrets
import time

import pytest

from tests.support.bad_configs import config_files, run_configs
from tests.support.bad_data import bad_arguments, files
from tests.support.bad_input import attempt, draw, in_process
from tests.support.bad_overrides import overrides
from tests.support.commands import small_scores

FAMILIES = {
    "overrides 1": (overrides, 600, 24), "overrides 2": (overrides, 600, 24), "config files": (config_files, 200, 18),
    "configs of runs": (run_configs, 150, 13), "data files": (files, 300, 18), "arguments": (bad_arguments(), 150, 20),
}  # fmt: skip
"""Strategy, cases in ``make soak``, cases in ``make test``. Two of the largest: tests are what two workers share."""
PROCESSES = (40, 6)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A finished run; no case changes it. It also pays for the imports."""
    cwd = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        small_scores(patch)
        code, _, stderr, _ = in_process("se-train", [
            "data=ring8", "loop.rounds=2", "loop.batch_size=8", "device=cpu", "progress=false", "hydra.run.dir=run"
        ], cwd, limit=300)  # fmt: skip
    assert code == 0, stderr
    return cwd / "run"


@pytest.fixture(scope="session")
def seed(request):
    """The same always, or one that is printed."""
    return secrets.randbelow(2**32) if request.config.getoption("--soak") else 0


def play(name, cases, run, folder, as_process=False):
    """Put the cases in and fail with all that is wrong; return the figures."""
    problems, slowest, kinds, started = [], (0.0, ""), {}, time.monotonic()
    for i, case in enumerate(cases):
        problem, seconds = attempt(case, folder / str(i), run, as_process)
        problems += [problem] if problem else []
        kinds[case.family] = kinds.get(case.family, 0) + 1
        slowest = max(slowest, (round(seconds, 2), repr(case)[:120]))
    assert not problems, f"{len(problems)} of {len(cases)} ({name}):\n" + "\n".join(problems)
    return {
        "cases": len(cases),
        "kinds": kinds,
        "seconds": round(time.monotonic() - started, 1),
        "slowest": list(slowest),
    }


@pytest.mark.soak
@pytest.mark.parametrize("name", FAMILIES)
def test_bad_input_is_one_sentence_and_leaves_nothing(name, run, seed, soak, record, tmp_path):
    strategy, many, few = FAMILIES[name]
    number = seed + list(FAMILIES).index(name)
    print(f"seed {number}")
    cases = draw(strategy, many if soak else few, number)
    assert len(cases) == (many if soak else few)
    record(f"bad_input_{name.replace(' ', '_')}", {"seed": number, **play(name, cases, run, tmp_path)})


@pytest.mark.soak
def test_bad_input_to_processes(run, seed, soak, record, tmp_path):
    count = PROCESSES[not soak]
    print(f"seed {seed}")
    pools = [draw(strategy, 2 * count, seed + i) for i, (strategy, _, _) in enumerate(FAMILIES.values())]
    dealt = [pools[i % len(pools)][i // len(pools)] for i in range(count)]
    record("bad_input_processes", {"seed": seed, **play("processes", dealt, run, tmp_path, as_process=True)})
