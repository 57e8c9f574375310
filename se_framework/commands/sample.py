"""``se-sample RUN_DIR n=64 seed=0 out=FILE.npy|.png``: draw samples of a trained model in the user's units."""

from __future__ import annotations

from argparse import ArgumentTypeError
from math import inf, nan
from typing import TYPE_CHECKING

from se_framework.commands.arguments import Parser, count, file_to_write, load_run, run_command, whole
from se_framework.errors import ConfigError, RunDirectoryError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from torch import Tensor

LARGEST = 100_000
"""Samples that are held in memory at once."""
SETTINGS = {
    "temperature": "of a flow's samples: its noise times this; 1 is the model",
    "truncation": "of a generator's samples, where it has one: its noise is drawn within this bound",
    "standing": "of a generator with batch normalisation: by statistics of so many batches, not by running ones",
}
METHODS = ("resample", "reject", "langevin", "transport")
"""Those of :mod:`se_framework.training.from_q`, which help shall not import (a test compares)."""


def law(text: str) -> str:
    """Return which law is sampled."""
    if text not in ("q", "p"):
        raise ArgumentTypeError(f"must be q, or p for p_theta itself, got {text!r}")
    return text


def positive(text: str) -> float:
    """Return the value of a setting of samples."""
    try:
        value = float(text)
    except ValueError:
        value = nan
    if not 0 < value < inf:
        raise ArgumentTypeError(f"must be a positive number, got {text!r}")
    return value


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
    for name, says in SETTINGS.items():
        parser.add(name, None, says, positive)
    arguments = parser.read(words)
    settings = {name: value for name in SETTINGS if (value := getattr(arguments, name)) is not None}
    of_q = getattr(arguments, "from") == "q"
    if arguments.method is not None and not of_q:
        raise ConfigError(f"method={arguments.method} is a way to sample q: add from=q")
    for name, value in settings.items() if of_q else ():
        raise ConfigError(f"{name}={value:g} is a setting of p_theta's samples: leave out from=q, or {name}")
    n, out, picture = arguments.n, arguments.out, arguments.out.suffix == ".png"
    if n > LARGEST and (of_q or picture):
        why = "samples of q are held in memory" if of_q else "a picture shows few samples"
        raise ConfigError(f"n={n}: {why}: n={LARGEST} or less{'' if of_q else ', or out=FILE.npy'}")
    assembly, said = load_run(arguments), ""
    chosen = {"seed": arguments.seed, "label": arguments.label, **settings}
    try:
        if of_q:
            x, how = assembly.sample_q(n, arguments.seed, arguments.method, arguments.label)
            said = f" ({how})"
        if picture:
            assembly.plot(out, x if of_q else assembly.sample(n, **chosen))
        elif of_q:
            write([x], x, n, out)
        else:
            write(assembly.sample_blocks(n, **chosen), next(iter(assembly.sample_blocks(1, **chosen))), n, out)
    except RunDirectoryError as error:  # "FILE cannot be written (why)"
        raise ConfigError(f"out={error}") from error
    what = "samples of q" if of_q else "samples"
    print(f"se-sample: {n} {what} of shape {tuple(assembly.data.event_shape)} in {out}{said}")


def write(blocks: Iterable[Tensor], like: Tensor, n: int, out: Path) -> None:
    r"""Write samples to an array, block by block as they are drawn.

    Args:
        blocks: together of shape (n, \*E).
        like: some of them, which tell type and shape.
        n: how many.
        out: the file.
    """
    import numpy as np

    from se_framework.runs.files import growing

    first = like.cpu().numpy()
    described = {"descr": first.dtype.str, "fortran_order": False, "shape": (n, *first.shape[1:])}
    with growing(out) as file:
        np.lib.format.write_array_header_1_0(file, described)
        for block in blocks:
            file.write(np.ascontiguousarray(block.cpu().numpy()).data)


if __name__ == "__main__":
    main()
