"""What every test starts from, and the rules for tests that draw random numbers.

torch's global seed is 0 when the files are imported and at the start of every test, and the default type is the one
its module names in ``DEFAULT_DTYPE`` (float64 in the files about mathematics, torch's own float32 where none is named,
as a user has it); both are put back afterwards.

Randomised tests:

* seeds are fixed, so a test that passes once passes always on the same software;
* a comparison with an exact value allows what its standard error allows at a declared false-alarm rate of 1e-3 per
  test (:func:`tests.support.oracles.z_score`, divided among the comparisons of the test): over all seeds one in a
  thousand would fail a right program. Files that demand more of themselves say so at their top;
* where nothing is random the tolerance is derived from the spacing of floats, the error of the quadrature or the
  step of the difference quotient, and the derivation stands beside it. None is found by trial.
"""

from __future__ import annotations

import json
import platform
import random
import signal
from pathlib import Path

import pytest
import torch

# Under nohup, or in a shell's background, signals are ignored, and so they would be in every process that tests start.
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.manual_seed(0)  # what test modules make while they are imported; torch itself starts from a seed by chance
RELIABILITY = Path(__file__).parent.parent / "benchmarks" / "reliability"


def pytest_addoption(parser):
    parser.addoption("--shuffle", type=int, metavar="SEED", help="play the tests in an order that the seed gives")
    parser.addoption(
        "--soak", action="store_true", help="play the tests marked soak in full, figures to benchmarks/reliability/"
    )


def pytest_collection_modifyitems(config, items):
    """Shuffle the tests, those of a file together: what they share is made once per file."""
    seed = config.getoption("--shuffle")
    if seed is None:
        return
    draw, files = random.Random(seed), {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    order = list(files.values())
    draw.shuffle(order)
    for own in order:
        draw.shuffle(own)
    items[:] = [item for own in order for item in own]


@pytest.fixture
def soak(request):
    """Whether this is ``make soak``: tests marked soak then run at full length."""
    return request.config.getoption("--soak")


@pytest.fixture
def record(soak):
    """Return a function that writes the figures of a full run: ``record(name, {figure: value, ...})``."""

    def write(name, figures):
        if soak:
            machine = {"processor": platform.processor() or platform.machine(), "python": platform.python_version()}
            found = {"machine": machine | {"torch": torch.__version__}, "figures": figures}
            (RELIABILITY / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")

    return write


@pytest.fixture(autouse=True)
def dtype_and_seed(request):
    """Set the module's default type and the seed for one test, and restore both."""
    dtype, state = torch.get_default_dtype(), torch.random.get_rng_state()
    torch.set_default_dtype(getattr(request.module, "DEFAULT_DTYPE", dtype))
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(dtype)
    torch.random.set_rng_state(state)
