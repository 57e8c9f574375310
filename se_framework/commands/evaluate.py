"""``se-eval RUN_DIR``: the scores of a trained run, printed and written to ``eval.json``."""

from __future__ import annotations

from argparse import ArgumentTypeError

from se_framework.commands.arguments import Parser, count, existing_name, load_judge, load_run, run_command, whole
from se_framework.errors import IncompatibleError

DOES = """Print the run's scores and write them to RUN_DIR/eval.json: distances to held-out data (W2, sliced W2, MMD), a
classifier two-sample test, density and coverage, copies of training rows, modes where they are known, likelihood and KL
where there is a density, the Frechet distance where there are features, each with its references; and the equation's
value T on held-out data with its standard error and the direction of the bound."""


def main() -> None:
    """Run the command line ``se-eval``."""
    run_command("se-eval", _evaluate)


def names(text: str) -> tuple[str, ...]:
    """Return names from a list with commas."""
    found = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not found:
        raise ArgumentTypeError(f"must be names of scores with commas between, or all, got {text!r}")
    return found


def _evaluate(words: list[str]) -> None:
    parser = Parser("se-eval", DOES)
    parser.add("n", None, "samples (default: 10000, fewer of large examples)", count)
    parser.add("seed", 0, "of the draw", whole)
    parser.add("scores", None, "their names with commas between, or all (default: those that a run shows)", names)
    parser.add("metric", None, "another run, whose trained f_phi judges the samples too", existing_name)
    arguments = parser.read(words)
    from se_framework.evaluation.evaluate import (
        SCORES,
        evaluate,
        refuse_absent,
        refuse_unknown,
        score_lines,
        warnings_of,
    )
    from se_framework.runs.directory import RunDirectory

    chosen = SCORES if arguments.scores == ("all",) else arguments.scores
    for name in chosen or ():
        refuse_unknown(name, "scores")
    assembly = load_run(arguments)
    if chosen is not SCORES:
        for name in chosen or ():
            refuse_absent(assembly, name, "scores")
    judge = load_judge(arguments)
    found = evaluate(assembly, arguments.n, arguments.seed, chosen)
    if judge is not None:
        from se_framework.evaluation.by_metric import by_metric
        from se_framework.evaluation.evaluate import points_of

        try:
            most = points_of(assembly)
            samples = assembly.sample(min(arguments.n or most, most), arguments.seed)
            found["by_metric"] = {"of": str(arguments.metric)} | by_metric(judge, samples, arguments.seed)
        except IncompatibleError as error:
            raise IncompatibleError(f"metric={arguments.metric}: {error}") from error
    content = {"round": assembly.state.round, "scores": found}
    written = RunDirectory(arguments.run_dir).write_json("eval.json", content)  # first: the reader may leave
    for line in (*score_lines(found), *(f"se-eval: WARNING, {warning}" for warning in warnings_of(found))):
        print(line)
    print(f"se-eval: written to {written}")


if __name__ == "__main__":
    main()
