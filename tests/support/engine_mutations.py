"""Planted errors in the engine that ordinary tests notice: which test notices which, is measured and committed.

    python -m tests.support.engine_mutations             measure the errors that the list lacks
    python -m tests.support.engine_mutations NAME ...    measure these again

The list is benchmarks/verify/engine_mutations.json. The libraries are imported once; every error is planted in a fork
of its own, before pytest there imports the test that must fail, so what that test makes is made with the error.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch

from tests.support import engine_figures, engine_players, engine_state  # noqa: F401  they enter the list
from tests.support.engine_list import LIST, MUTATIONS
from tests.support.planting import Mutation, planted

__all__ = ["LIST", "MUTATIONS", "caught_by", "import_everything", "outcome"]


# -- measuring --------------------------------------------------------------------------------------------------------


def import_everything() -> None:
    """Import our packages: an error must be planted in every module that has what it replaces."""
    import se_framework

    for module in pkgutil.walk_packages(se_framework.__path__, "se_framework."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def play(nodes: Iterable[str]) -> tuple[int, str]:
    """Run tests in this process, and return pytest's exit code with what it printed."""
    with tempfile.TemporaryFile("w+") as told:
        with redirect_stdout(told), redirect_stderr(told):
            code = int(pytest.main(["-q", "-x", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist", *nodes]))
        told.seek(0)
        return code, told.read()


def in_a_fork(work: Callable[[], tuple[int, str]]) -> tuple[int, str]:
    """Do work in a fork and return what it returned.

    Raises:
        LookupError: what a mutation replaces is gone.
    """
    with tempfile.NamedTemporaryFile() as file:
        child = os.fork()
        if child == 0:
            try:
                Path(file.name).write_text(json.dumps(work()))
            except BaseException as error:  # noqa: BLE001  the parent shall say it
                Path(file.name).write_text(json.dumps((-1, str(error))))
            os._exit(0)
        os.waitpid(child, 0)
        code, text = json.loads(Path(file.name).read_text())
    if code == -1:
        raise LookupError(text)
    return code, text


def outcome(this: Mutation | None, *nodes: str) -> tuple[bool, str]:
    """Return whether a test fails under an error (None for no error), and what pytest printed.

    Raises:
        LookupError: what it replaces is gone, or no test could be run.
    """

    def work() -> tuple[int, str]:
        if this is None:
            return play(nodes)
        with planted(this):
            return play(nodes)

    code, text = in_a_fork(work)
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise LookupError(f"{'' if this is None else this.name}: {' '.join(nodes)} could not be run: {text}")
    return code == pytest.ExitCode.TESTS_FAILED, text


def caught_by(this: Mutation, nodes: Iterable[str] | None = None) -> list[str]:
    """Return the tests that an error fails: of its own, or of those given."""
    return [node for node in (this.tests if nodes is None else nodes) if outcome(this, node)[0]]


def main(arguments: list[str]) -> None:
    """Measure the mutations named, or all that the list lacks, and write the list.

    Raises:
        SystemExit: a test fails without any error.
    """
    torch.set_num_threads(1)
    import_everything()
    known = json.loads(LIST.read_text()) if LIST.exists() else {}
    chosen = [m for m in MUTATIONS if m.name in arguments or (not arguments and m.name not in known)]
    failed, text = outcome(None, *dict.fromkeys(node for m in chosen for node in m.tests)) if chosen else (False, "")
    if failed:
        raise SystemExit(f"without any error: {text}")
    for this in chosen:
        known[this.name] = caught_by(this)
        print(f"{this.name}: {', '.join(known[this.name]) or 'NOT CAUGHT'}", flush=True)
        rows = {m.name: known[m.name] for m in MUTATIONS if m.name in known}
        LIST.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
