"""``se-compare RUN_OR_SWEEP...``: one table of what runs came to, and whether the best of them is sure."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any

from se_framework.commands.arguments import Parser, file_to_write, run_command, whole
from se_framework.errors import ConfigError, nearest

DOES = """Compare runs in one score: a row per objective (runs that differ in seed alone are its repeats), mean and
Student's t interval over seeds, paired differences from the best with Holm's correction, time, parameters; over
several data sets ranks. Under the table one sentence: which is best, and is that sure? RUN_OR_SWEEP is the directory
of a run, a sweep or an ensemble, or a folder of those. Nothing is trained or evaluated: the scores are those that
runs wrote at their end."""
ENDINGS = {".txt": "text", ".csv": "csv", ".json": "json", ".md": "markdown", ".tex": "latex", ".html": "html"}
"""Formats by the ending of a file."""


def main() -> None:
    """Run the command line ``se-compare``."""
    run_command("se-compare", _compare)


def _compare(words: list[str]) -> None:
    parser = Parser("se-compare", DOES, several="RUN_OR_SWEEP")
    parser.add("score", None, "by which they are compared (default: frechet, w2, nll or another that all have)")
    parser.add("by", None, "a key whose values are compared apart, as data sets always are")
    parser.add("level", 0.95, "of the intervals", _level)
    parser.add("best_of", None, "tuned objectives: the best of so many trials by validation; all: of all", _trials)
    parser.add("format", None, f"{', '.join(ENDINGS.values())} (default: by the ending of out, else text)")
    parser.add("out", None, f"a file, with one of {' '.join(ENDINGS)}", file_to_write(*ENDINGS))
    arguments = parser.read(words)
    wanted = arguments.format or (ENDINGS[arguments.out.suffix] if arguments.out else "text")
    if wanted not in ENDINGS.values():
        raise ConfigError(f"format={wanted}: no such format; {nearest(wanted, ENDINGS.values())}")
    from se_framework.comparison import compare, tuned
    from se_framework.comparison.formats import FORMATS
    from se_framework.runs.files import write_atomically

    found: Any
    if arguments.best_of is None:
        found = compare(arguments.run_dirs, arguments.score, arguments.by, arguments.level)
        runs = sum(len(row.points) for row in found.objectives)
    else:
        n = None if arguments.best_of == "all" else arguments.best_of
        found = tuned(arguments.run_dirs, arguments.score, arguments.by, n)
        runs = sum(trial.runs for row in found.objectives for trial in row.trials)
    if arguments.out is None:
        print(FORMATS[wanted](found))
        return
    write_atomically(arguments.out, f"{FORMATS[wanted](found).rstrip()}\n".encode())
    print(found.sentence)
    print(f"se-compare: {runs} runs in {arguments.out}")


def _trials(text: str) -> int | str:
    if text == "all":
        return text
    found = whole(text)
    if found < 1:
        raise ArgumentTypeError(f"must be at least 1, or all, got {text}")
    return found


def _level(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ArgumentTypeError(f"must be a number, got {text!r}") from None


if __name__ == "__main__":
    main()
