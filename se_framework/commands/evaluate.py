"""``se-eval RUN_DIR``: the scores of a trained run, printed and written to ``eval.json``."""

from __future__ import annotations

from se_framework.commands.arguments import parse, run_command
from se_framework.composing import prepare_imports

USAGE = """se-eval RUN_DIR [n=10000] [seed=0] [device=auto] [trust=PACKAGE]

Print the run's scores and write them to RUN_DIR/eval.json: modes and high-quality share where they are known, held-out
NLL where there is a density, W2 to held-out data, the Frechet distance on digits, and the equation's value T on
held-out data with its standard error and the direction of the bound.
  trust=PACKAGE  packages of your own whose classes the run may name"""


def main() -> None:
    """Run the command line ``se-eval``."""
    run_command("se-eval", USAGE, _evaluate)


def _evaluate(arguments: list[str]) -> None:
    run_dir, values = parse(arguments, {"n": int, "seed": int, "device": str, "trust": str}, USAGE.splitlines()[0])
    prepare_imports(own="trust" in values)
    from se_framework.evaluation import evaluate, score_lines
    from se_framework.notebook import load
    from se_framework.run_directory import RunDirectory

    assembly = load(run_dir, values.get("device"), trust=values.get("trust", ()))
    found = evaluate(assembly, values.get("n", 10_000), values.get("seed", 0))
    for line in score_lines(found):
        print(line)
    written = RunDirectory(run_dir).write_json("eval.json", {"round": assembly.state.round, "scores": found})
    print(f"se-eval: written to {written}")


if __name__ == "__main__":
    main()
