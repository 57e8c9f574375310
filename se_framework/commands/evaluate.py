"""``se-eval RUN_DIR``: the scores of a trained run, printed and written to ``eval.json``."""

from __future__ import annotations

from se_framework.commands.arguments import OF_A_RUN, OF_A_RUN_HELP, load_run, parse, run_command

USAGE = (
    """se-eval RUN_DIR [n=10000] [seed=0]

Print the run's scores and write them to RUN_DIR/eval.json: modes and high-quality share where they are known, held-out
NLL where there is a density, W2 to held-out data, the Frechet distance on digits, and the equation's value T on
held-out data with its standard error and the direction of the bound.
"""
    + OF_A_RUN_HELP
)


def main() -> None:
    """Run the command line ``se-eval``."""
    run_command("se-eval", USAGE, _evaluate)


def _evaluate(arguments: list[str]) -> None:
    known = {"n": int, "seed": int} | OF_A_RUN
    run_dir, values = parse(arguments, known, USAGE.splitlines()[0])
    from se_framework.evaluation.evaluate import evaluate, score_lines
    from se_framework.runs.directory import RunDirectory

    assembly = load_run(run_dir, values)
    found = evaluate(assembly, values.get("n", 10_000), values.get("seed", 0))
    for line in score_lines(found):
        print(line)
    written = RunDirectory(run_dir).write_json("eval.json", {"round": assembly.state.round, "scores": found})
    print(f"se-eval: written to {written}")


if __name__ == "__main__":
    main()
