"""``se-sample RUN_DIR n=64 seed=0 out=FILE.npy|.png``: draw samples of a trained model in the user's units."""

from __future__ import annotations

import io
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING

from se_framework.commands.arguments import Parser, count, file_to_write, load_run, run_command, whole
from se_framework.errors import ConfigError, RunDirectoryError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from se_framework.assembly import Assembly

LARGEST_PICTURE = 100_000
"""Samples that are held in memory at once."""
METHODS = ("resample", "reject", "langevin", "transport")


def law(text: str) -> str:
    """Return which law is sampled."""
    if text not in ("q", "p"):
        raise ArgumentTypeError(f"must be q, or p for p_theta itself, got {text!r}")
    return text


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
    parser.add(
        "from",
        None,
        "q: samples of the q that attains min_q: p_theta's, weighted or moved as the critic says",
        law,
    )
    parser.add("method", None, f"of from=q: {', '.join(METHODS)} (default: transport where D is one, else resample)")
    arguments = parser.read(words)
    import numpy as np

    from se_framework.runs.files import growing

    assembly, out, n = load_run(arguments), arguments.out, arguments.n
    chosen = n, arguments.seed, arguments.label
    if getattr(arguments, "from") == "q":
        if n > LARGEST_PICTURE:
            raise ConfigError(f"n={n}: samples of q are held in memory: n={LARGEST_PICTURE} or less")
        drawn = assembly.sample_q(n, arguments.seed, arguments.method, arguments.label)
        write(assembly, drawn.x, out)
        print(f"se-sample: {n} samples of q of shape {tuple(assembly.data.event_shape)} in {out} ({drawn.said})")
        return
    if arguments.method is not None:
        raise ConfigError(f"method={arguments.method} is a way to sample q: add from=q")
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


def write(assembly: Assembly, x: Tensor, out: Path) -> None:
    """Write samples to a picture or an array."""
    import numpy as np

    from se_framework.runs.files import write_atomically

    try:
        if out.suffix == ".png":
            assembly.plot(out, x)
        else:
            buffer = io.BytesIO()
            np.save(buffer, x.cpu().numpy())
            write_atomically(out, buffer.getvalue())
    except RunDirectoryError as error:
        raise ConfigError(f"out={error}") from error


if __name__ == "__main__":
    main()
