"""``se-report RUN_OR_SWEEP... out=report.html``: one page on a run, or on many beside each other, in one file."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from typing import TYPE_CHECKING

from se_framework.commands.arguments import Parser, file_to_write, run_command, whole
from se_framework.errors import ConfigError, RunDirectoryError

if TYPE_CHECKING:
    from se_framework.comparison.report.build import Maker

DOES = """Write one page that needs no network: of a run its equation, scores beside references, samples through
training, every term over rounds, its critic, configuration and warnings; of several runs the comparison, a map over
two choices, curves and samples beside each other. Nothing is trained; the data and the model of a single run are
built only to look at its critic (critic=false leaves that out)."""


def main() -> None:
    """Run the command line ``se-report``."""
    run_command("se-report", _report)


def parser_of(name: str, does: str) -> Parser:
    """Return the parser of a command that shows a page."""
    parser = Parser(name, does, several="RUN_OR_SWEEP")
    parser.add("score", None, "by which runs are compared (default: frechet, w2, nll or another that all have)")
    parser.add("x", None, "the choice along the columns of the map, e.g. divergence (default: one that differs)")
    parser.add("y", None, "the choice along its rows, e.g. metric")
    parser.add("critic", True, "whether a single run's parts are built, to look at its critic", _truth)
    parser.add("trust", None, "packages whose code the run may use for that, with commas between them")
    parser.add("member", None, "of an ensemble, whose critic is shown, from 0", whole)
    parser.add("checkpoint", "last", "of the critic: best, or the round of one that was kept")
    parser.add("device", "cpu", "where the critic is put")
    return parser


def maker_of(arguments: Namespace, live: bool = False) -> Maker:
    """Return what makes the page that arguments ask for."""
    if arguments.trust:
        from se_framework.config.composing import find_own_modules

        find_own_modules()
    from se_framework.comparison.report.build import Maker

    return Maker(
        arguments.run_dirs, arguments.x, arguments.y, arguments.score, arguments.critic, arguments.trust or (),
        arguments.member, arguments.checkpoint, arguments.device, live,
    )  # fmt: skip


def _report(words: list[str]) -> None:
    parser = parser_of("se-report", DOES)
    parser.add("out", "report.html", "the file", file_to_write(".html"))
    arguments = parser.read(words)
    maker = maker_of(arguments)
    from se_framework.comparison.report.page import page
    from se_framework.runs.files import write_atomically

    content = maker.content()
    try:
        written = page(content).encode()
        write_atomically(arguments.out, written)
    except RunDirectoryError as error:  # "FILE cannot be written (why)"
        raise ConfigError(f"out={error}") from error
    if content.left_out:
        print(f"se-report: {content.left_out} pictures are left out, the page has no room for them")
    print(f"se-report: {len(written) / 1e6:.1f} MB in {arguments.out}: open it in a browser")


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ArgumentTypeError(f"must be true or false, got {text!r}")
    return text.lower() == "true"


if __name__ == "__main__":
    main()
