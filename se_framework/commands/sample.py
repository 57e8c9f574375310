"""``se-sample RUN_DIR n=64 seed=0 out=FILE.npy|.png``: draw samples of a trained model in the user's units."""

from __future__ import annotations

import io

from se_framework.commands.arguments import OF_A_RUN, OF_A_RUN_HELP, expanded, load_run, parse, run_command
from se_framework.errors import ConfigError, RunDirectoryError

USAGE = (
    """se-sample RUN_DIR [n=64] [seed=0] [out=samples.npy] [label=K]

Draw n samples of the run's trained (averaged) model, in the units of its data.
  out=FILE.npy   an array of shape (n, *event)
  out=FILE.png   a picture of the samples beside held-out data
  label=K        samples of class K, where the data has labels"""
    + OF_A_RUN_HELP
)


def main() -> None:
    """Run the command line ``se-sample``."""
    run_command("se-sample", USAGE, _sample)


def _sample(arguments: list[str]) -> None:
    known = {"n": int, "seed": int, "out": str, "label": int} | OF_A_RUN
    run_dir, values = parse(arguments, known, USAGE.splitlines()[0])
    out = expanded(values.get("out", "samples.npy"), "out")
    if out.suffix not in (".npy", ".png"):
        raise ConfigError(f"out={out} must end in .npy or .png")
    if not out.parent.is_dir():
        raise ConfigError(f"out={out}: the directory {out.parent} does not exist")
    if out.is_dir():
        raise ConfigError(f"out={out} is a directory: name a file in it")
    import numpy as np

    from se_framework.runs.files import write_atomically

    assembly = load_run(run_dir, values)
    samples = assembly.sample(values.get("n", 64), values.get("seed", 0), values.get("label"))
    try:
        if out.suffix == ".png":
            assembly.plot(out, samples)
        else:
            buffer = io.BytesIO()
            np.save(buffer, samples.cpu().numpy(), allow_pickle=False)
            write_atomically(out, buffer.getvalue())
    except RunDirectoryError as error:  # "FILE cannot be written (why)"
        raise ConfigError(f"out={error}") from error
    print(f"se-sample: {len(samples)} samples of shape {tuple(samples.shape[1:])} in {out}")


if __name__ == "__main__":
    main()
