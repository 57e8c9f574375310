"""What constructors of models refuse: shapes without coordinates, sizes out of range."""

from __future__ import annotations

from collections.abc import Mapping

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
