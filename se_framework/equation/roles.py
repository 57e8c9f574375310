r"""Roles: who moves a part of the scalar, in which direction, and what of the scalar moves with it.

.. math:: \min_\theta\;\max_\phi\;\min_q

Every part of an equation with trainable parameters is moved by a player: the metric by phi, which ascends; D by a
player of its own; the auxiliary by q and the model by theta, which descend. Their names are known to this file alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from se_framework.errors import ConfigError, nearest

if TYPE_CHECKING:
    from se_framework.equation.equation import StandardEquation

NAMES = {"theta": "the model", "phi": "the metric", "q": "the auxiliary", "D": "the divergence"}
"""What each player moves."""


class Role(NamedTuple):
    """Who moves, and what of the scalar moves with it.

    Attributes:
        name: of the player.
        parts: what it moves, by the summand of the equation that it belongs to.
        module: all of it: the part, or the parts by summand.
        sign: -1 descends on the scalar, +1 ascends.
        moves_f_data: E_pd f moves with it.
        moves_samples: the model's particles move with it.
        fresh: each of its steps has a batch of its own; else it plays on the last one.
    """

    name: str
    parts: Mapping[str, nn.Module]
    module: nn.Module
    sign: int
    moves_f_data: bool = False
    moves_samples: bool = False
    fresh: bool = True


def roles_of(equation: StandardEquation) -> list[Role]:
    """Return the roles of an equation in the order in which its players move: phi, D, q, theta.

    Theta plays on the last batch of the others, since its gradient is to be taken where they have just been.

    Raises:
        ConfigError: divergences of one sum want to be moved in opposite directions.
    """
    found = list(_inner_roles(equation))
    model = equation.model
    if is_trainable(model):
        found.append(Role("theta", {"own": model}, model, -1, moves_samples=True, fresh=not found))
    return found


def _inner_roles(equation: StandardEquation) -> Iterator[Role]:
    if parts := _parts(equation, lambda e: e.metric):
        yield Role("phi", parts, _together(parts), +1, moves_f_data=True)
    if parts := _parts(equation, lambda e: e.divergence):
        signs = {+1 if part.parameters_ascend else -1 for part in parts.values()}
        if len(signs) > 1:
            raise ConfigError(
                "the parameters of the divergences of a sum must all ascend or all descend: declare parameters_ascend "
                f"alike in {' and '.join(type(part).__name__ for part in parts.values())}"
            )
        yield Role("D", parts, _together(parts), signs.pop(), moves_f_data=True)
    if parts := _parts(equation, lambda e: e.auxiliary):
        yield Role("q", parts, _together(parts), -1)


def is_trainable(part: nn.Module) -> bool:
    """Whether a part has parameters that shall move."""
    return any(p.requires_grad for p in part.parameters())


def _parts(equation: StandardEquation, of: Callable[[StandardEquation], nn.Module | None]) -> dict[str, nn.Module]:
    """Return the trainable parts of one kind by summand, each once."""
    found: dict[str, nn.Module] = {}
    for name, own in equation.equations():
        part = of(own)
        if part is not None and is_trainable(part) and not any(part is other for other in found.values()):
            found[name] = part
    return found


def _together(parts: Mapping[str, nn.Module]) -> nn.Module:
    return next(iter(parts.values())) if len(parts) == 1 else nn.ModuleDict(parts)


def freeze(equation: StandardEquation, names: Sequence[str]) -> None:
    """Let the parts that a player would move stand still: ``players.NAME.frozen=true``.

    Raises:
        ConfigError: the equation has no such player, or none is left that moves.
    """
    check_frozen(equation, names)
    for role in equation.roles():
        if role.name in names:
            role.module.requires_grad_(False)


def check_frozen(equation: StandardEquation, names: Sequence[str]) -> None:
    """Refuse to freeze players that are not there, or all that are.

    Raises:
        ConfigError: see above.
    """
    there = [role.name for role in equation.roles()]
    for name in names:
        if name not in there:
            raise ConfigError(f"players.{name}.frozen=true: this equation has no player {name}; {nearest(name, there)}")
    if names and set(there) <= set(names):
        raise ConfigError(f"players.{names[0]}.frozen=true leaves no player that moves: free one of {', '.join(there)}")
