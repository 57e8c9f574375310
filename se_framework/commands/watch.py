"""``se-watch RUN_OR_SWEEP...``: the page of se-report, live while runs go on, served to this machine alone."""

from __future__ import annotations

from argparse import ArgumentTypeError

from se_framework.commands.arguments import Parser, run_command, whole
from se_framework.commands.report import maker_of, parser_of

DOES = """Serve the page of se-report on 127.0.0.1, renewed while runs go on; Ctrl-C ends it. Only this machine can
reach it, and nothing but the page is served: for a run on another machine forward the port (ssh -L)."""


def main() -> None:
    """Run the command line ``se-watch``."""
    run_command("se-watch", _watch)


def _watch(words: list[str]) -> None:
    parser: Parser = parser_of("se-watch", DOES)
    parser.add("port", 0, "of 127.0.0.1; 0 takes a free one", _port)
    parser.add("host", "127.0.0.1", "no other is taken", _loopback)
    arguments = parser.read(words)
    maker = maker_of(arguments, live=True)
    from se_framework.comparison.report.server import Live, Server

    maker.content()  # what is wrong is told here, not to a browser
    with Server(Live(maker.content, arguments.run_dirs), arguments.port) as server:
        print(f"se-watch: open {server.address} in a browser of this machine; Ctrl-C ends it", flush=True)
        server.serve_forever()


def _port(text: str) -> int:
    if not 0 <= whole(text) <= 65535:
        raise ArgumentTypeError(f"must lie in 0..65535, got {text}")
    return whole(text)


def _loopback(text: str) -> str:
    if text not in ("127.0.0.1", "localhost"):
        raise ArgumentTypeError(
            f"must be 127.0.0.1, got {text!r}: the page is not for the network; forward the port (ssh -L)"
        )
    return text


if __name__ == "__main__":
    main()
