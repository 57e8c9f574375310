r"""Pictures of a run while it trains: what theta and phi are at one round, in the units of the data.

On a line: the density of the data, that of the model, the critic's log-ratio (or its potential), and the true
:math:`\log p_d/p_\theta` beside it. Elsewhere: samples beside held-out data.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import Tensor

from models.laws import Particles
from se_framework.data import Data
from se_framework.equation.modes import evaluating
from se_framework.errors import RunDirectoryError
from se_framework.pictures.plots import Reading, picture
from se_framework.randomness import Stream, generator
from se_framework.reading import UnreadableError, read_bytes
from se_framework.runs.files import write_atomically
from se_framework.training.draws import draw_batch, like
from se_framework.training.state import TrainState

PIXELS = 2**22
"""Pixels of a frame that is joined: ours have less than one million."""
LARGEST = 2**24
"""Bytes of a frame."""
MOST = 1000
"""Frames that are joined; more would not fit into memory."""
SAMPLES = 20_000
"""Points drawn of the model, and of the data to normalise q."""


def frame(state: TrainState, data: Data, path: Path) -> None:
    """Draw the players as they stand (not their averages) and write a PNG file.

    Args:
        state: equation, players and counters.
        data: p_d.
        path: the file; its directory is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    equation, kind = state.equation, like(state.equation)
    wanted = SAMPLES if data.resident else SAMPLES // 10
    rows = min(wanted, data.train_size or wanted)
    batch = draw_batch(data, 0, rows, 0, equation)
    with torch.no_grad(), evaluating(equation):
        drawn = equation.model.draws(rows, Stream(0, 0, "picture", kind.device, kind.dtype), batch.context)
        p = equation.model.particles(drawn, batch.context)
        law = equation.model(batch.context)
        samples = law.sample((rows,), generator=generator(0, 1, "picture", kind.device))

    def density(x: Tensor) -> Tensor:
        with torch.no_grad(), evaluating(equation):
            return law.log_prob(x.to(kind.device, kind.dtype))

    known = equation.model.has_log_prob and not data.classes
    critic = reading(state, batch, p) if data.kind == "curve" else None
    title = f"{data.name}, round {state.round}"
    picture(
        data, data.samples_to_user(samples), path, model_log_prob=density if known else None, title=title,
        note=state.note, critic=critic, one_of_many=True,
    )  # fmt: skip


def reading(state: TrainState, batch: Particles, p: Particles) -> Reading | None:
    """Return the critic's name and values on points of model space: a log-ratio where it reads one, else f."""
    equation, points = state.equation, p.x
    if equation.metric is None or not equation.auxiliary.has_scores or batch.context is not None:
        return None
    readable = equation.divergence.critic_reads == "log_ratio" and equation.metric.function_class == "unrestricted"

    @torch.no_grad()
    def values(x: Tensor) -> Tensor:
        x = x.to(points.device, points.dtype)
        with evaluating(equation):
            return equation.log_ratio(x, batch, p) if readable else equation.f(equation.metric(x))  # type: ignore[misc]

    return Reading("critic's log p_d/p" if readable else "critic's f", values, readable)


def animate(directory: Path, path: Path) -> None:
    """Join the frames of a directory, in the order of their names, into an animated GIF of half their size.

    Smaller ones stand on white in the middle of the largest.
    """
    from PIL import Image

    images: list[Image.Image] = []
    for file in sorted(directory.glob("*.png"))[:MOST]:
        try:
            content = io.BytesIO(read_bytes(file, LARGEST))
            with Image.open(content, formats=("PNG",)) as image:
                if image.width * image.height > PIXELS:
                    raise UnreadableError(f"it has {image.width} x {image.height} pixels, ours are smaller")
                images.append(image.convert("RGB").reduce(2))
        except Exception as error:  # noqa: BLE001  the file may be anybody's, and no decoder but PNG's is tried
            raise RunDirectoryError(f"{file} is no picture of a round ({error}): remove it") from error
    if images:
        size = max(image.width for image in images), max(image.height for image in images)
        joined = []
        for small in images:
            canvas = Image.new("RGB", size, "white")
            canvas.paste(small, ((size[0] - small.width) // 2, (size[1] - small.height) // 2))
            joined.append(canvas.quantize(128, method=Image.Quantize.MAXCOVERAGE))
        buffer = io.BytesIO()
        joined[0].save(buffer, format="GIF", save_all=True, append_images=joined[1:], duration=250, loop=0)
        write_atomically(path, buffer.getvalue())
