"""``se-verify``: measure the claims of the theory on the objects that train, and print a table of verdicts."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from se_framework.config.composing import find_own_modules, prepare_imports
from se_framework.errors import ConfigError, SEError, nearest
from se_framework.runs.telling import say, tolerate_streams
from se_framework.training.interrupts import signals_told

if TYPE_CHECKING:
    from se_framework.verify.claims import Claim, Verdict

SUITES = {
    "equivalences": tuple(
        f"se_framework.verify.equivalences.{name}"
        for name in (
            *("duality", "families", "adversarial", "transport", "teacher", "estimation", "sums"),
            *("pairs", "growing", "networks"),
        )
    ),
    "dynamics": ("se_framework.verify.dynamics",),
    "flows": ("se_framework.verify.flows",),
    "papers": ("se_framework.verify.papers",),
}
"""Modules of claims, by suite."""


def main() -> None:
    """Run the command line ``se-verify``; exit code 1 if a claim fails."""
    tolerate_streams()
    try:
        with signals_told("se-verify"):
            holds = verify(_arguments(sys.argv[1:]))
    except SEError as error:
        say(str(error), "se-verify")
        raise SystemExit(1) from None
    raise SystemExit(0 if holds else 1)


def _arguments(command_line: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("se-verify", description=__doc__.replace("``", ""))
    parser.add_argument("--suite", default="equivalences", help=f"{', '.join(SUITES)} (default: %(default)s)")
    parser.add_argument("--filter", metavar="REGEX", help="only claims whose name, statement or source match")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every comparison")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--claims", metavar="MODULE", help="claims of this module instead of a suite")
    parser.add_argument("--all", action="store_true", help="print every comparison, not only the worst of a claim")
    return parser.parse_args(command_line)


def claims_of(arguments: argparse.Namespace) -> list[Claim]:
    """Return the claims asked for.

    Raises:
        ConfigError: an unknown suite or module, a filter that is no pattern or matches nothing.
    """
    from se_framework.verify.claims import chosen, collect

    if arguments.claims is not None and not all(part.isidentifier() for part in arguments.claims.split(".")):
        module = arguments.claims.removeprefix("./").removesuffix(".py").replace("/", ".")
        raise ConfigError(f"--claims {arguments.claims} is no module: write its name, --claims {module}")
    if arguments.claims is None and arguments.suite not in SUITES:
        raise ConfigError(f"no suite {arguments.suite!r}: {nearest(arguments.suite, SUITES)}")
    names = (arguments.claims,) if arguments.claims else SUITES[arguments.suite]
    try:
        claims = [c for name in names for c in collect(importlib.import_module(name))]
    except Exception as error:  # noqa: BLE001  a user's module may raise anything on import
        why = str(error) if isinstance(error, ModuleNotFoundError) else f"{type(error).__name__}: {error}"
        raise ConfigError(f"--claims {arguments.claims}: {' '.join(why.split())}") from None
    try:
        found = chosen(claims, arguments.filter)
    except re.error as error:
        raise ConfigError(f"--filter {arguments.filter!r} is not a regular expression: {error}") from None
    if not found:
        raise ConfigError(f"nothing to verify: {len(claims)} claim(s) in {', '.join(names)}, none matches the filter")
    return found


def verify(arguments: argparse.Namespace) -> bool:
    """Measure the claims, print them as they come, and return whether all hold."""
    prepare_imports()
    import torch

    from se_framework.runs.files import as_json
    from se_framework.verify.claims import check

    if arguments.claims is not None:  # else nothing of the working directory is meant
        find_own_modules()
    try:
        torch.zeros((), device=arguments.device)
    except (RuntimeError, AssertionError):
        raise ConfigError(f"--device {arguments.device}: not available here; use --device cpu") from None
    if arguments.json is not None and not arguments.json.absolute().parent.is_dir():
        raise ConfigError(f"--json {arguments.json}: its folder does not exist")
    if arguments.json is not None and arguments.json.is_dir():
        raise ConfigError(f"--json {arguments.json} is a folder: name a file in it")
    claims, verdicts, started, topic = claims_of(arguments), [], time.monotonic(), ""
    print("         error  tolerance         claim [source]")
    for this in claims:
        if this.module != topic:
            topic = this.module
            print(f"{topic.rpartition('.')[2]}:")
        verdicts.append(check(this, arguments.device))
        for line in lines(verdicts[-1], arguments.all):
            print(line, flush=True)
    failed = [v.claim.name for v in verdicts if not v.holds]
    comparisons = sum(len(v.comparisons) for v in verdicts)
    print(
        f"\n{len(verdicts) - len(failed)} of {len(verdicts)} claims hold ({comparisons} comparisons, float64, "
        f"{arguments.device}, {time.monotonic() - started:.1f} s)"
        + (f"; failed: {', '.join(failed)}" if failed else "")
    )
    if arguments.json is not None:
        content: dict[str, Any] = {"device": arguments.device, "torch": torch.__version__}
        content["claims"] = [v.as_dict() for v in verdicts]
        arguments.json.write_bytes(as_json(content))
    return not failed


def lines(verdict: Verdict, everything: bool) -> Iterator[str]:
    """Yield the rows of a verdict: error, tolerance, statement and source, and what failed."""
    worst = verdict.worst
    numbers = " " * 27 if worst is None else f"{worst.error:8.1e}  {worst.tolerance:7.1g} {worst.unit:<8}"
    mark, claim = "holds" if verdict.holds else "FAILS", verdict.claim
    yield f"{mark} {numbers}  {claim.name}: {claim.statement} [{claim.source}]"
    if verdict.failure is not None:
        yield f"        {verdict.failure}"
    for c in verdict.comparisons:
        if everything or not c.holds:
            pair = "" if c.ours is None or c.theirs is None else f": ours {c.ours:.9g}, theirs {c.theirs:.9g}"
            yield f"        {c.label}: {c.error:.3g} {c.unit}, tolerance {c.tolerance:.3g}{pair}"


if __name__ == "__main__":
    main()
