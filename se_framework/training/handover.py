"""From one stage of a run to the next: a state goes on where another one stands."""

from __future__ import annotations

import torch

from se_framework.training.players import Player
from se_framework.training.state import TrainState, tensors_once


@torch.no_grad()
def take_over(state: TrainState, before: TrainState) -> list[str]:
    """Let a fresh state go on where another one ended, and return in words what of it starts afresh.

    Tensors of the same name and shape are taken over; so are an optimiser of the same class over parameters of the same
    shapes, and an average. All else is as it was made, which depends on the seed alone: a resumed run has the same.

    Args:
        state: as it was built for its stage; is changed.
        before: at the end of the stage before.
    """
    ours, theirs = tensors_once(state.equation), tensors_once(before.equation)
    afresh = []
    for name, tensor in ours.items():
        if name in theirs and theirs[name].shape == tensor.shape:
            tensor.copy_(theirs[name])
        else:
            afresh.append(name)
    parts = sorted({name.partition(".")[0] for name in afresh})
    told = [f"{len(afresh)} tensors of {', '.join(parts)}"] if afresh else []
    for player in state.players:
        old = before.player(player.name)
        if old is not None and _alike(player, old):
            groups = player.optimizer.state_dict()["param_groups"]
            player.optimizer.load_state_dict({"state": old.optimizer.state_dict()["state"], "param_groups": groups})
            player.steps_taken = old.steps_taken
        else:
            told.append(f"the optimiser of {player.name}")
        if player.average is not None:
            same = old is not None and old.average is not None and _alike(player, old)
            source = old.average.state_dict() if same and old is not None and old.average is not None else None
            if source is None:
                player.average.module.load_state_dict(player.module.state_dict())
            else:
                player.average.load_state_dict(source)
    state.round, state.samples = before.round, before.samples
    state.history, state.scores = before.history, before.scores
    return told


def _alike(player: Player, old: Player) -> bool:
    """Whether two players move parameters of the same names and shapes by the same class of optimiser."""
    shapes = [{n: p.shape for n, p in own.module.named_parameters() if p.requires_grad} for own in (player, old)]
    return shapes[0] == shapes[1] and type(player.optimizer) is type(old.optimizer)
