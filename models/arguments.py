"""What models refuse: shapes without coordinates, sizes out of range, batches and labels of another kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from models.base import Critic, Embedding, Model

MOST_LAYERS = 1000


def checked_settings(owner: str, settings: Mapping[str, float], known: frozenset[str]) -> None:
    """Refuse a setting of samples that the owner's law does not have.

    Raises:
        ValueError: see above; the message names owner and setting.
    """
    for name, value in settings.items():
        if name not in known:
            has = " and ".join(sorted(known)) or "none"
            raise ValueError(f"{name}={value:g} is no setting of {owner}'s samples, which have {has}; leave it out")


def checked_event_shape(event_shape: tuple[int, ...], owner: str) -> tuple[int, ...]:
    """Return the shape as a tuple of ints.

    Raises:
        ValueError: the shape is empty or has an axis shorter than one.
    """
    shape = tuple(int(n) for n in event_shape)
    if not shape or min(shape) < 1:
        raise ValueError(
            f"{owner} needs an event_shape of positive sizes, got {shape}; use (1,) for scalar data, (d,) for vectors"
        )
    return shape


def checked_at_least(name: str, value: float, least: float) -> None:
    """Refuse a hyperparameter below its least value.

    Raises:
        ValueError: ``value < least``.
    """
    if not value >= least:
        raise ValueError(f"{name} must be at least {least}, got {value}; set {name}={least} or more")


def checked_layers(name: str, value: int, least: int) -> None:
    """Refuse a number of layers that is too small, or so large that building them one by one never ends.

    Raises:
        ValueError: not ``least <= value <= MOST_LAYERS``.
    """
    checked_at_least(name, value, least)
    if value > MOST_LAYERS:
        raise ValueError(f"{name} must be at most {MOST_LAYERS}, got {value}; set {name}={MOST_LAYERS} or less")


def check_batch(owner: Critic | Embedding, verb: str, x: Tensor) -> None:
    """Refuse a tensor that is no batch of examples of the owner's event shape.

    Raises:
        ValueError: see above; the message names the class, what it does (``verb``), and both shapes.
    """
    if x.ndim == 0 or tuple(x.shape[1:]) != owner.event_shape:
        raise ValueError(
            f"{type(owner).__name__} {verb} a batch of examples of shape {owner.event_shape}, got a tensor of shape "
            f"{tuple(x.shape)}; pass shape (B, {', '.join(map(str, owner.event_shape))})"
        )


def check_context(owner: Model | Critic, context: Tensor | None) -> None:
    """Refuse labels that are missing, or that the network cannot read.

    Raises:
        ValueError: see above; the message names the class.
    """
    name = type(owner).__name__
    if context is None and owner.classes:
        raise ValueError(f"{name} is conditional: it needs one label in 0..{owner.classes - 1} per example, got none")
    if context is not None and not owner.classes:
        raise ValueError(f"{name} is not conditional, got labels; build it with classes=K or use data without labels")
    if context is not None and (context.ndim != 1 or context.is_floating_point()):
        raise ValueError(f"{name} needs whole-number labels of shape (N,), got {context.dtype} {tuple(context.shape)}")
