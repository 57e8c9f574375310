"""What a checkpoint holds, checked against what will receive it, before torch or a counter sees any of it.

The file may be a stranger's, with a checksum that holds: kernels trust the shapes of an optimiser's state, and a count
that is a text is found far from here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from se_framework.errors import RunDirectoryError
from se_framework.reading import UnreadableError, count, mapping, number, shortly, take, text

if TYPE_CHECKING:
    from se_framework.training.players import Player
    from se_framework.training.state import TrainState

ROOM, TIMES = 2**26, 16
"""A checkpoint may have 64 MiB, and sixteen times the bytes of weights and averages: optimisers keep two or three."""


def largest(states: Iterable[TrainState], members: int = 1) -> int:
    """Return how many bytes a checkpoint of these states may have.

    Args:
        states: of the run, or of all members.
        members: of an ensemble of which one state is given.
    """
    tensors = [t for state in states for t in weights_of(state)]
    return ROOM + TIMES * members * sum(t.numel() * t.element_size() for t in tensors)


def weights_of(state: TrainState) -> list[Tensor]:
    """Return parameters and buffers of the equation and of the averages."""
    averages = [player.average for player in state.players if player.average is not None]
    return [t for module in (state.equation, *averages) for t in (*module.parameters(), *module.buffers())]


def round_of(saved: Mapping[str, Any], file: Path) -> int:
    """Return the rounds that a checkpoint says have been played.

    Raises:
        RunDirectoryError: it says nothing that is a count.
    """
    try:
        return take(saved, "round", kind=count)
    except UnreadableError as error:
        raise RunDirectoryError(f"{file} is no checkpoint of ours: {error}; remove it to use the one before") from error


def check(saved: Any, state: TrainState) -> None:
    """Refuse a content whose counters, players or tensors are not those of a state.

    Args:
        saved: of :meth:`TrainState.state_dict <se_framework.training.state.TrainState.state_dict>`, format, seed and
            names of players already compared; names of the equation's tensors are compared later.
        state: what will receive it.

    Raises:
        RunDirectoryError: see above; the message says where.
    """
    try:
        take(saved, "round", kind=count), take(saved, "samples", kind=count)
        ours = state.equation.state_dict()
        theirs = take(saved, "equation", kind=mapping)
        _alike({n: t for n, t in theirs.items() if n in ours}, ours, "equation")
        for player in state.players:
            here = "players", player.name
            own = take(saved, *here, kind=mapping)
            take(own, "steps_taken", kind=count)
            if player.average is not None:
                wanted, average = player.average.state_dict(), take(own, "average", kind=mapping)
                _same_names(average, wanted, f"the average of {player.name}")
                _alike(average, wanted, f"the average of {player.name}")
            if take(own, "optimizer_type", kind=text) == type(player.optimizer).__name__:
                _check_optimizer(take(own, "optimizer", "state", kind=mapping), player)
        if saved.get("best") is not None:
            take(saved, "best", "round", kind=count), take(saved, "best", "value", kind=number)
            best = take(saved, "best", "equation", kind=mapping)
            _alike({n: t for n, t in best.items() if n in ours}, ours, "the best equation")
    except UnreadableError as error:
        raise RunDirectoryError(f"the checkpoint does not fit the configuration: {error}") from error


def check_dump(saved: Mapping[str, Any], file: Path) -> None:
    """Refuse a dump of a failed step without a state or a batch.

    Raises:
        RunDirectoryError: see above.
    """
    x, labels = saved.get("x"), saved.get("context")
    whole = isinstance(x, Tensor) and x.dim() > 1 and len(x) > 0 and isinstance(saved.get("state"), dict)
    if not whole or not (labels is None or (isinstance(labels, Tensor) and labels.shape[:1] == x.shape[:1])):  # type: ignore[union-attr]
        raise RunDirectoryError(f"{file} holds no step that can be played again: a state, points and their labels")


def members_in(saved: Mapping[str, Any], many: int) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """Return the contents of an ensemble's members, not yet checked, and why some are frozen.

    Raises:
        RunDirectoryError: there are others than ``many``, or those that are frozen are none of them.
    """
    theirs, frozen = saved.get("members"), saved.get("frozen")
    if not isinstance(theirs, (list, tuple)) or len(theirs) != many or not all(isinstance(m, dict) for m in theirs):
        found = len(theirs) if isinstance(theirs, (list, tuple)) else shortly(theirs)
        raise RunDirectoryError(f"the checkpoint holds {found} members, the ensemble has {many}")
    known = isinstance(frozen, dict) and all(type(k) is int and 0 <= k < many for k in frozen)
    if frozen is None or not known or len(frozen) >= many:
        raise RunDirectoryError(f"the checkpoint freezes members that the ensemble has not: {shortly(frozen)}")
    return list(theirs), {k: str(why) for k, why in frozen.items()}


def _check_optimizer(saved: Mapping[Any, Any], player: Player) -> None:
    """Compare the state of every parameter with what a step makes of it, then let a copy of the optimiser use it."""
    trial = copy.deepcopy(player.optimizer)
    try:
        _step(trial)
    except Exception:  # noqa: BLE001  a user's optimiser may want a closure
        return
    wanted, here = trial.state_dict(), f"the optimiser of {player.name}"
    for index, own in saved.items():
        where = f"{here}, parameter {shortly(index)}"
        if type(index) is not int or not 0 <= index < len(player.parameters):
            raise UnreadableError(f"{where}: there are {len(player.parameters)}")
        if not isinstance(own, dict):
            raise UnreadableError(f"{where} holds {shortly(own)}")
        ours = {name: value for name, value in wanted["state"].get(index, {}).items() if value is not None}
        _alike({name: value for name, value in own.items() if name in ours and value is not None}, ours, where)
    try:
        trial.load_state_dict({"state": copy.deepcopy(dict(saved)), "param_groups": wanted["param_groups"]})
        _step(trial)
    except Exception as error:  # noqa: BLE001  what is absent, or is no number, is each optimiser's own affair
        why = " ".join(str(error).split())[:120]
        raise UnreadableError(f"{here} cannot step from it ({type(error).__name__}: {why})") from error


def _step(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimiser step along nothing."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()


def _same_names(found: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
    odd = [name for name in wanted if name not in found] + [name for name in found if name not in wanted]
    if odd:
        raise UnreadableError(f"{where} lacks, or holds besides, {', '.join(map(str, odd[:3]))}")


def _alike(found: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
    """Refuse values of another kind than those they replace, and tensors of another shape or kind of number."""
    for name, value in found.items():
        ours = wanted[name]
        if not isinstance(ours, Tensor):
            if isinstance(value, Tensor):
                raise UnreadableError(f"{where}: {name} is {shortly(value)}, here {shortly(ours)}")
        elif not isinstance(value, Tensor):
            raise UnreadableError(f"{where}: {name} is no tensor but {shortly(value)}")
        elif value.shape != ours.shape or _kind(value) != _kind(ours):
            raise UnreadableError(
                f"{where}: {name} has shape {tuple(value.shape)} and type {value.dtype}, here {tuple(ours.shape)} and "
                f"{ours.dtype}"
            )


def _kind(tensor: Tensor) -> str:
    """Return what kind of numbers a tensor holds: within a kind they are converted."""
    if tensor.is_complex():
        return "complex"
    return "float" if tensor.is_floating_point() else "bool" if tensor.dtype == torch.bool else "whole"
