"""``se-sample RUN_DIR n=64 seed=0 out=FILE.npy|.png``: draw samples of a trained model in the user's units."""

from __future__ import annotations

import io

from se_framework.commands.arguments import Parser, count, file_to_write, load_run, run_command, whole
from se_framework.errors import ConfigError, RunDirectoryError
from se_framework.training.console import put


def main() -> None:
    """Run the command line ``se-sample``."""
    run_command("se-sample", _sample)


def _sample(words: list[str]) -> None:
    parser = Parser("se-sample", "Draw samples of the run's trained (averaged) model, in the units of its data.")
    parser.add("n", 64, "samples", count)
    parser.add("seed", 0, "of the draw", whole)
    says = "FILE.npy, an array of shape (n, *event), or FILE.png, the samples beside held-out data"
    parser.add("out", "samples.npy", says, file_to_write(".npy", ".png"))
    parser.add("label", None, "samples of this class alone, where the data has labels", whole)
    arguments = parser.read(words)
    import numpy as np

    from se_framework.runs.files import write_atomically

    assembly, out = load_run(arguments), arguments.out
    samples = assembly.sample(arguments.n, arguments.seed, arguments.label)
    try:
        if out.suffix == ".png":
            assembly.plot(out, samples)
        else:
            buffer = io.BytesIO()
            np.save(buffer, samples.cpu().numpy(), allow_pickle=False)
            write_atomically(out, buffer.getvalue())
    except RunDirectoryError as error:  # "FILE cannot be written (why)"
        raise ConfigError(f"out={error}") from error
    put(f"se-sample: {len(samples)} samples of shape {tuple(samples.shape[1:])} in {out}", "stdout")


if __name__ == "__main__":
    main()
