"""One player of all members: stacked parameters, one optimiser and the moving averages over them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from se_framework.training.players import Player, settlers
from se_framework.training.state import TrainState

COUNTERS = ("step", "mu_product")
"""Numbers that an optimiser keeps for a tensor as a whole: functions of the steps taken, so common to all members."""


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors stacked, and let each become its row."""
    whole = torch.stack([t.detach() for t in tensors])
    for tensor, row in zip(tensors, whole, strict=True):
        tensor.data = row
    return whole


class StackedPlayer:
    """One player of all members: its tensors stacked, one optimiser over them.

    Members of equal learning rate that stand side by side are a block, one parameter group of the optimiser.

    Attributes:
        name: of the player.
        players: those of the members, in order.
        parameters: stacks (K, *shape), in the order of a member's own.
        pieces: one: the batches of members are not cut.
    """

    pieces = 1

    def __init__(self, name: str) -> None:
        self.name = name

    def gather(self, players: list[Player], tensors: dict[int, Tensor]) -> None:
        """Stack what these members move.

        Args:
            players: of the members.
            tensors: the stack that holds a tensor of the first member, by the tensor's id.
        """
        first = self.first = players[0]
        self.players, self.role, self.steps, self.decay = players, first.role, first.steps, first.decay
        self.parameters = [tensors[id(p)] for p in first.parameters]
        self._settle = [settle for player in players for settle in settlers(player.module)]
        lr = [player.base_lr[0] for player in players]
        self._blocks = [[i for i, _ in run] for _, run in groupby(enumerate(lr), key=lambda pair: pair[1])]
        groups: list[dict[str, Any]] = []
        state: dict[Tensor, dict[str, Any]] = {}
        for block in self._blocks:
            params = [whole.detach()[block[0] : block[-1] + 1] for whole in self.parameters]
            groups.append({**first.optimizer.param_groups[0], "lr": lr[block[0]], "params": params})
            for j, param in enumerate(params):
                theirs = [players[i].optimizer.state.get(players[i].parameters[j], {}) for i in block]
                if all(theirs):
                    state[param] = {what: _together([m[what] for m in theirs], what) for what in theirs[0]}
        self.optimizer = type(first.optimizer)(groups)  # type: ignore[call-arg]
        self.optimizer.state.update(state)
        self._averages = None if first.average is None else Averages(players, tensors)

    def scatter(self) -> None:
        """Hand the optimiser's state to the members' own optimisers: rows of moments, and copies of counters."""
        for block, group in zip(self._blocks, self.optimizer.param_groups, strict=True):
            for j, param in enumerate(group["params"]):
                moments = self.optimizer.state.get(param, {})
                for row, i in enumerate(block):
                    own, parameter = self.players[i].optimizer.state, self.players[i].parameters[j]
                    own.pop(parameter, None)
                    if moments:
                        own[parameter] = {what: _row(value, what, row) for what, value in moments.items()}
        if self._averages is not None:
            self._averages.scatter()

    def set_rate(self, round_index: int, horizon: int) -> None:
        """Set the learning rates of a round."""
        self.horizon = horizon
        for block, group in zip(self._blocks, self.optimizer.param_groups, strict=True):
            player = self.players[block[0]]
            player.set_rate(round_index, horizon)
            group["lr"] = player.optimizer.param_groups[0]["lr"]

    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """Step every member along its gradient, and settle."""
        for block, group in zip(self._blocks, self.optimizer.param_groups, strict=True):
            for param, gradient in zip(group["params"], gradients, strict=True):
                param.grad = None if gradient is None else gradient[block[0] : block[-1] + 1]
        self.optimizer.step()
        for settle in self._settle:
            settle()
        for player in self.players:
            player.steps_taken += 1

    def update_average(self) -> None:
        """Let the averages follow the modules, where there are some."""
        if self._averages is not None:
            self._averages.update()


class Averages:
    """The moving averages of one player of all members, stacked.

    Args:
        players: of the members, each with an average.
        tensors: the stack that holds a tensor of the first member, by the tensor's id.
    """

    def __init__(self, players: Sequence[Player], tensors: dict[int, Tensor]) -> None:
        self._own: list[AveragedModel] = [p.average for p in players if p.average is not None]
        modules = [average.module for average in self._own]
        self._parameters = [stack(same) for same in zip(*(m.parameters() for m in modules), strict=True)]
        self._followed = [tensors[id(p)].detach() for p in players[0].module.parameters()]
        self._buffers = [buffer for m in modules for buffer in m.buffers()]
        self._followed_buffers = [buffer for player in players for buffer in player.module.buffers()]
        self._settle = [settle for m in modules for settle in settlers(m)]
        self._taken = int(self._own[0].n_averaged)

    @torch.no_grad()
    def update(self) -> None:
        """Do what ``AveragedModel.update_parameters`` does: the first time it copies."""
        follow = self._own[0].multi_avg_fn
        if self._taken == 0 or follow is None:
            for own, followed in zip(self._parameters, self._followed, strict=True):
                own.copy_(followed)
        else:
            follow(self._parameters, self._followed, self._taken)
        self._taken += 1
        for own, followed in zip(self._buffers, self._followed_buffers, strict=True):
            own.copy_(followed)
        for settle in self._settle:
            settle()

    def scatter(self) -> None:
        """Hand the counters to the members."""
        for average in self._own:
            average.n_averaged.fill_(self._taken)


def _is_moment(value: Any, what: str) -> bool:
    return isinstance(value, Tensor) and what not in COUNTERS


def _together(values: Sequence[Any], what: str) -> Any:
    return torch.stack(list(values)) if _is_moment(values[0], what) else copy.deepcopy(values[0])


def _row(value: Any, what: str, row: int) -> Any:
    return value[row] if _is_moment(value, what) else copy.deepcopy(value)


def let_go(member: TrainState) -> None:
    """Give a member tensors of its own: rows would keep the stacks that it has left in memory."""
    for tensor in (*member.equation.parameters(), *member.equation.buffers()):
        tensor.data = tensor.detach().clone()
    for player in member.players:
        if player.average is not None:
            for tensor in player.average.parameters():
                tensor.data = tensor.detach().clone()
        for moments in player.optimizer.state.values():
            moments.update({k: v.clone() for k, v in moments.items() if isinstance(v, Tensor)})
