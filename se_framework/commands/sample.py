"""``se-sample RUN_DIR n=64 seed=0 out=FILE.npy|.png``: draw samples of a trained model in the user's units."""

from __future__ import annotations

from se_framework.commands.arguments import Parser, count, file_to_write, load_run, run_command, whole
from se_framework.errors import ConfigError, RunDirectoryError

LARGEST_PICTURE = 100_000
"""Samples that are held in memory at once."""


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

    from se_framework.runs.files import growing

    assembly, out, n = load_run(arguments), arguments.out, arguments.n
    chosen = n, arguments.seed, arguments.label
    try:
        if out.suffix == ".png":
            if n > LARGEST_PICTURE:
                raise ConfigError(f"n={n}: a picture shows few samples: n={LARGEST_PICTURE} or less, or out=FILE.npy")
            assembly.plot(out, assembly.sample(*chosen))
        else:
            first = next(iter(assembly.sample_blocks(1, *chosen[1:]))).cpu().numpy()
            described = {"descr": first.dtype.str, "fortran_order": False, "shape": (n, *first.shape[1:])}
            with growing(out) as file:
                np.lib.format.write_array_header_1_0(file, described)
                for block in assembly.sample_blocks(*chosen):
                    file.write(np.ascontiguousarray(block.cpu().numpy()).data)
    except RunDirectoryError as error:  # "FILE cannot be written (why)"
        raise ConfigError(f"out={error}") from error
    print(f"se-sample: {n} samples of shape {tuple(assembly.data.event_shape)} in {out}")


if __name__ == "__main__":
    main()
