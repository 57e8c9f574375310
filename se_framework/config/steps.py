"""What parts ask of the batch of a step, and of the stage of a run that went before theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from se_framework.errors import ConfigError


def check_batch(batch_size: int, metric: Any) -> None:
    """Refuse a batch that the groups of a network's statistic do not divide.

    Args:
        batch_size: examples of a step.
        metric: its outline, or None.

    Raises:
        ConfigError: see above; the message names the sizes next to it.
    """
    network = getattr(metric, "network", None)
    multiple = getattr(network, "batch_multiple", 1)
    if batch_size % multiple:
        below = batch_size - batch_size % multiple
        fit = " or ".join(f"loop.batch_size={n}" for n in (below, below + multiple) if n)
        raise ConfigError(
            f"loop.batch_size={batch_size}: {type(network).__name__} takes statistics over groups of {multiple} "
            f"examples, which do not divide it: choose {fit}"
        )


Maker = Callable[[], nn.Module | None]


def check_order(stages: Sequence[Sequence[Maker]]) -> None:
    """Refuse stages whose networks cannot go on where those of the stage before ended; nothing is allocated.

    Args:
        stages: for each, what makes its model and its metric.

    Raises:
        ConfigError: see above; the message says in which stage.
    """
    before: list[nn.Module | None] = []
    for k, makers in enumerate(stages):
        with torch.device("meta"):
            networks = [getattr(part, "network", part) for part in (make() for make in makers)]
        for part, old in zip(networks, before, strict=False):
            follows = getattr(part, "check_follows", None)
            if old is None or follows is None:
                continue
            try:
                follows(old)
            except ValueError as error:
                raise ConfigError(f"stages[{k}]: {error}") from error
        before = networks
