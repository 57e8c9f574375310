"""Whole player steps as CUDA graphs. All but :func:`cuda_graph` is the same on any device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from se_framework.training.draws import Draws
from se_framework.training.execution.proof import Losses
from se_framework.training.players import Broken, Player

Capture = Callable[[Callable[[], tuple[Tensor, Tensor]], torch.optim.Optimizer], tuple[Callable[[], Any], Any]]
"""Records a function; returns what plays it again, and the tensors that hold its results from then on."""


class StaticStep:
    """A step on tensors that stay where they are: draws, rates and ``broken`` are written, then it is replayed.

    While it is recorded ``broken`` is true: the step is evaluated, and no weight, moment or counter moves.

    Args:
        player: who moves, by a fused optimiser.
        losses: a function of draws and weights.
        draws: of the first step.
        capture: records the step.
    """

    def __init__(self, player: Player, losses: Losses, draws: Draws, capture: Capture) -> None:
        self._player, self._losses = player, losses
        self._draws = {name: t.clone() for name, t in draws.items()}
        device = draws["x"].device
        self._broken = torch.ones((), dtype=torch.bool, device=device)
        exact = torch.float64 if device.type == "cpu" else torch.float32  # what the fused kernels read
        groups = player.optimizer.param_groups
        self._rates = [torch.tensor(group["lr"], dtype=exact, device=device) for group in groups]
        self._replay, self._outputs = capture(self._run, player.optimizer)
        self._moments = self._state()

    def _run(self) -> tuple[Tensor, Tensor]:
        with rates(self._player.optimizer, self._rates):
            loss, checked = self._losses(self._draws)
            self._values = len(checked)
            self._player.clear()
            self._player.accumulate(loss)
            return self._player.step_queued(checked, self._broken)

    def _state(self) -> Any:
        return self._player.optimizer.state.get(self._player.parameters[0])

    @property
    def is_current(self) -> bool:
        """Whether the optimiser still holds the moments that were recorded: not after it was restored or emptied."""
        return self._state() is self._moments

    def outcome(self) -> list[Tensor]:
        """Replay without moving anything, and return the checked scalars in one tensor, and the gradients."""
        self._broken.fill_(True)
        self._replay()
        parameters = self._player.parameters
        return [
            self._outputs[0][: self._values].clone(),
            *(p.grad.clone() if p.grad is not None else p * 0 for p in parameters),
        ]

    @torch.no_grad()
    def __call__(self, draws: Draws, broken: Broken) -> tuple[Tensor, Tensor]:
        """Play the step on other draws; what it returns is a copy."""
        for name, static in self._draws.items():
            static.copy_(draws[name])
        for rate, group in zip(self._rates, self._player.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        self._broken.copy_(broken) if isinstance(broken, Tensor) else self._broken.fill_(bool(broken))
        taken = self._player.steps_taken
        with torch.enable_grad():
            self._replay()
        self._player.steps_taken = taken + 1
        figures, now_broken = self._outputs
        return figures.clone(), now_broken.clone()


@contextmanager
def rates(optimizer: torch.optim.Optimizer, tensors: Iterable[Tensor]) -> Iterator[None]:
    """Let an optimiser read its learning rates from tensors."""
    numbers = [group["lr"] for group in optimizer.param_groups]
    try:
        for group, tensor in zip(optimizer.param_groups, tensors, strict=True):
            group["lr"] = tensor
        yield
    finally:
        for group, number in zip(optimizer.param_groups, numbers, strict=True):
            group["lr"] = number


@contextmanager
def no_reads() -> Iterator[None]:
    """Let torch raise where something within waits for the GPU."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def cuda_graph(
    run: Callable[[], tuple[Tensor, Tensor]], optimizer: torch.optim.Optimizer
) -> tuple[Callable[[], Any], Any]:
    """Record a step as a CUDA graph; see :data:`Capture`. The one function here that needs a GPU."""
    device = optimizer.param_groups[0]["params"][0].device
    with torch.cuda.device(device):
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        try:
            with torch.cuda.stream(stream):
                for _ in range(2):  # what libraries set up on first use must not be recorded
                    run()
                with no_reads():  # a recording that is broken off would leave torch's generator within it
                    run()
        finally:
            current.wait_stream(stream)  # moments are set up there, also where a run fails
        graph = torch.cuda.CUDAGraph()
        try:
            for group in optimizer.param_groups:
                group["capturable"] = True  # asked for only while recording
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # others may pin batches meanwhile
                outputs = run()
        finally:
            torch.cuda.set_stream(current)  # a recording that fails leaves its own
            for group in optimizer.param_groups:
                group["capturable"] = False
    return graph.replay, outputs
