"""Losses of a step, compiled."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from se_framework.training.draws import Draws
from se_framework.training.execution.proof import Losses, reason


class Compiled:
    """Losses compiled as one function of draws: no module is wrapped, so names, copies and checkpoints stay.

    Args:
        losses: a function of draws and weights.
        backend: what compiles.
        news: is told if the compiled function fails later; the plain one then goes on.
        name: of the player, for the news.
    """

    def __init__(self, losses: Losses, backend: str | Callable[..., Any], news: list[str], name: str) -> None:
        def one(draws: Draws) -> tuple[Tensor, tuple[Tensor, ...]]:
            return losses(draws)

        # torch keeps what it compiled by code object, and few versions for each: every step has its own.
        own = FunctionType(one.__code__.replace(), one.__globals__, one.__name__, None, one.__closure__)
        self._fast = torch.compile(own, backend=backend, fullgraph=True, dynamic=False)
        self._losses, self._news, self._name, self._failed = losses, news, name, False

    def compiled(self, draws: Draws) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the losses by the compiled function."""
        return self._fast(draws)

    def __call__(self, draws: Draws) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the losses, by the plain function if the compiled one fails."""
        if not self._failed:
            try:
                return self.compiled(draws)
            except Exception as error:  # noqa: BLE001  a compiler may raise anything
                self._failed = True
                self._news.append(f"{self._name} is no longer compiled: {reason(error)}")
        return self._losses(draws)
