"""Checkpoints of earlier versions: read for sampling, scores and export, not to go on with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from se_framework.errors import RunDirectoryError

if TYPE_CHECKING:
    from se_framework.training.state import TrainState

WRITTEN_BY = {2: "0.1.0"}
"""The version that wrote a format, and goes on with it."""


def readable(saved: dict[str, Any], state: Any, to_go_on: bool) -> dict[str, Any]:
    """Return a checkpoint's content in today's format.

    Until format 2 the players held the weights, each its own; a batch was counted, not its examples, so a run that went
    on would see other data.

    Args:
        saved: what a checkpoint holds.
        state: of the run's configuration.
        to_go_on: whether the run shall train on.

    Raises:
        RunDirectoryError: it cannot go on with this version; the message names the one that can.
    """
    number = saved.get("format")
    version = WRITTEN_BY.get(number) if isinstance(number, int) else None
    if version is None:
        return saved
    if to_go_on:
        raise RunDirectoryError(
            f"the checkpoint was written by version {version}, and later versions draw other batches: go on with that "
            f"version (pip install 'se-framework=={version}') or start a new run; se-sample, se-eval, se-export read it"
        )
    if "members" in saved:
        theirs = saved["members"]
        if not isinstance(theirs, (list, tuple)) or not all(isinstance(own, dict) for own in theirs):
            return saved
        members = [readable(own, member, False) for own, member in zip(theirs, state.members, strict=False)]
        return saved | {"members": members}
    return _from_players(saved, state)


def _from_players(saved: dict[str, Any], state: TrainState) -> dict[str, Any]:
    """Return a content whose weights lie in the equation, from one whose weights lie in the players."""
    today = state.state_dict()
    names = {id(module): name for name, module in state.equation.named_modules()}
    equation = dict(today["equation"])
    for player in state.players:
        own: Any = saved
        for key in ("players", player.name, "module"):
            own = own.get(key) if isinstance(own, dict) else None
        own = own if isinstance(own, dict) else {}
        for summand, part in player.role.parts.items():
            start = f"{summand}." if len(player.role.parts) > 1 else ""
            for name in part.state_dict():
                if start + name in own:
                    equation[f"{names[id(part)]}.{name}"] = own[start + name]
    # Its optimisers number the parameters otherwise, and such a run does not go on: they begin anew.
    players = {
        name: {**own, "optimizer": {"state": {}}}
        for name, own in (saved["players"].items() if isinstance(saved.get("players"), dict) else ())
        if isinstance(own, dict)
    }
    return saved | {"format": today["format"], "equation": equation, "players": players}
