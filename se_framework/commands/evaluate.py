"""``se-eval RUN_DIR``: the scores of a trained run, printed and written to ``eval.json``."""

from __future__ import annotations

from se_framework.commands.arguments import Parser, count, load_run, run_command, whole

DOES = """Print the run's scores and write them to RUN_DIR/eval.json: modes and high-quality share where they are
known, held-out NLL where there is a density, W2 to held-out data, the Frechet distance on digits, and the
equation's value T on held-out data with its standard error and the direction of the bound."""


def main() -> None:
    """Run the command line ``se-eval``."""
    run_command("se-eval", _evaluate)


def _evaluate(words: list[str]) -> None:
    parser = Parser("se-eval", DOES)
    parser.add("n", None, "samples (default: 10000, fewer of large examples)", count)
    parser.add("seed", 0, "of the draw", whole)
    arguments = parser.read(words)
    from se_framework.evaluation.evaluate import evaluate, score_lines, warnings_of
    from se_framework.runs.directory import RunDirectory

    assembly = load_run(arguments)
    found = evaluate(assembly, arguments.n, arguments.seed)
    content = {"round": assembly.state.round, "scores": found}
    written = RunDirectory(arguments.run_dir).write_json("eval.json", content)  # first: the reader may leave
    for line in (*score_lines(found), *(f"se-eval: WARNING, {warning}" for warning in warnings_of(found))):
        print(line)
    print(f"se-eval: written to {written}")


if __name__ == "__main__":
    main()
