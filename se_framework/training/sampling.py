r"""Samples in blocks of bounded memory, each from its own stream: fewer are the first of more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.base import Law, Model
from se_framework.data import Data
from se_framework.equation.modes import evaluating
from se_framework.errors import ConfigError
from se_framework.randomness import generator, stream_seed

BLOCK = 256
"""Samples drawn at once, fewer where :data:`NUMBERS` says so."""
NUMBERS = 2**24
"""Numbers of the widest activation of a block: 64 MiB in float32."""


def widest(model: Model, *readers: nn.Module | None) -> int:
    """Return the numbers that the widest activation of an example holds, as far as modules return it.

    Two samples are drawn with a look at what every module returns; parts that cannot be looked at so count as no wider
    than an example.

    Args:
        model: the law that is drawn from.
        readers: networks that read the samples.
    """
    most, parts = [2 * model.dimension], [model, *(part for part in readers if part is not None)]

    def see(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            most.append(output.numel())

    hooks = [module.register_forward_hook(see) for part in parts for module in part.modules()]
    like = next(model.parameters(), torch.zeros(()))
    labels = torch.zeros(2, dtype=torch.int64, device=like.device) if model.classes else None
    try:
        with torch.no_grad(), evaluating(*parts, seed=0):
            x = model(labels).sample((2,), generator=generator(0, 0, "widest", like.device))
            for part in parts[1:]:
                part(x) if labels is None else part(x, labels)
    except Exception:  # noqa: BLE001  parts are users' code: whoever needs them will say what is wrong
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return max(1, max(most) // 2)


def fitting(numbers: int, each: int, most: int) -> int:
    """Return how many examples of so many numbers each fit into a budget: a power of two below ``most``, or that."""
    return min(most, 2 ** ((max(1, numbers // each)).bit_length() - 1))


def blocks(
    model: Model, data: Data, n: int, seed: int, label: int | None, device: torch.device, **settings: float
) -> Iterator[Tensor]:
    r"""Yield n samples in the units of the user, block by block, shape (m, \*E).

    Args:
        model: the trained model.
        data: p_d.
        n: how many.
        seed: of the draw.
        label: the class of all samples; None draws labels as in the training data.
        device: of the model.
        settings: of the samples, see :meth:`models.Model.at_sampling`.

    Raises:
        ConfigError: no such label or setting.
    """
    check_label(label, data)
    size = fitting(NUMBERS, widest(model), BLOCK)
    for number in range(-(-n // size)):
        labels = labels_of(data, number * size, size, seed, label, device)
        with torch.no_grad(), evaluating(model, seed=stream_seed(seed, number, "evaluation")):
            law = law_of(model, labels, settings)
            x = law.sample((size,), generator=generator(seed, number, "sample", device))
        yield data.samples_to_user(x)[: n - number * size]


def law_of(model: Model, labels: Tensor | None, settings: Mapping[str, float]) -> Law:
    """Return the law that samples are drawn from.

    Raises:
        ConfigError: a setting that the model's samples do not have, or a value out of range.
    """
    if not settings:
        return model(labels)
    try:
        return model.at_sampling(labels, **settings)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def enumerate_rows(parts: Iterable[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """Yield tensors with the number of rows before each."""
    start = 0
    for part in parts:
        yield start, part
        start += len(part)


def check_label(label: int | None, data: Data) -> None:
    """Refuse what is no class of the data."""
    if label is not None and not 0 <= label < data.classes:
        known = f"0..{data.classes - 1}" if data.classes else "none: train with data.labels=true"
        raise ConfigError(f"label={label} is no class of {data.name}, which has {known}")


def labels_of(data: Data, start: int, n: int, seed: int, label: int | None, device: torch.device) -> Tensor | None:
    """Return the labels of samples start .. start + n - 1; None without labels."""
    if not data.classes:
        return None
    if label is not None:
        return torch.full((n,), label, device=device)
    rows, own = min(n, data.train_size or n), stream_seed(seed, 0, "labels")
    pieces = [data.batch(i, min(rows, start + n - i), own, device).context for i in range(start, start + n, rows)]
    return torch.cat([piece for piece in pieces if piece is not None])
