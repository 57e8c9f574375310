"""The state of an ensemble: ordinary states whose tensors are rows of stacked ones.

A member *is* the state of its own single run: everything rare (a row of terms, a picture, scores, a checkpoint) looks
at it as at any other. Only a step reads the stacks, all members at once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from se_framework import legality
from se_framework.equation import StandardEquation
from se_framework.errors import RunDirectoryError
from se_framework.players import Player, settlers
from se_framework.state import FORMAT, TrainState

COUNTERS = ("step", "mu_product")
"""Numbers that an optimiser keeps for a tensor as a whole: functions of the steps taken, so common to all members."""


class Seat:
    """One player of all members: its tensors stacked, one optimiser over them.

    Members of equal learning rate that stand side by side are a block, one parameter group of the optimiser.

    Attributes:
        name: of the player.
        players: those of the members, in order.
        parameters: stacks (K, *shape), in the order of a member's own.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def take(self, players: list[Player], tensors: dict[int, Tensor]) -> None:
        """Sit down for these members.

        Args:
            players: of the members.
            tensors: the stack that holds a tensor of the first member, by the tensor's id.
        """
        first = self.first = players[0]
        self.players, self.sign, self.steps = players, first.sign, first.steps
        self.parameters = [tensors[id(p)] for p in first.parameters]
        self._settle = [settle for player in players for settle in settlers(player.module)]
        lr = [player.base_lr[0] for player in players]
        self._blocks = [[i for i, _ in run] for _, run in groupby(enumerate(lr), key=lambda pair: pair[1])]
        own, groups, state = first.optimizer, [], {}
        for block in self._blocks:
            rows = slice(block[0], block[-1] + 1)
            params = [stack.detach()[rows] for stack in self.parameters]
            groups.append({**own.param_groups[0], "lr": lr[block[0]], "params": params})
            for j, param in enumerate(params):
                theirs = [players[i].optimizer.state.get(players[i].parameters[j]) for i in block]
                if all(theirs):
                    state[param] = {
                        what: torch.stack([moments[what] for moments in theirs]) if _is_moment(what, value) else value
                        for what, value in theirs[0].items()
                    }
        self.optimizer = type(own)(groups)  # type: ignore[call-arg]
        self.optimizer.state.update(state)
        self._averages = None
        if first.average is not None:
            averages = [p.average.module for p in players]
            self._averages = [stack(same) for same in zip(*(m.parameters() for m in averages), strict=True)]
            self._averaged = [tensors[id(t)].detach() for t in first.module.parameters()]
            self._buffers = [
                [b for m in modules for b in m.buffers()] for modules in (averages, [p.module for p in players])
            ]
            self._settle_averages = [settle for m in averages for settle in settlers(m)]
            self._taken = int(first.average.n_averaged)

    def leave(self) -> None:
        """Hand the optimiser's state to the members' own optimisers: rows of moments, and copies of counters."""
        for block, group in zip(self._blocks, self.optimizer.param_groups, strict=True):
            for j, param in enumerate(group["params"]):
                moments = self.optimizer.state.get(param, {})
                for row, i in enumerate(block):
                    own = self.players[i].optimizer.state
                    own.pop(self.players[i].parameters[j], None)
                    if moments:
                        own[self.players[i].parameters[j]] = {
                            what: value[row] if _is_moment(what, value) else copy.deepcopy(value)
                            for what, value in moments.items()
                        }
        if self._averages is not None:
            for player in self.players:
                player.average.n_averaged.fill_(self._taken)

    def set_rate(self, round_index: int, horizon: int) -> None:
        """Set the learning rates of a round."""
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

    @torch.no_grad()
    def update_average(self) -> None:
        """Let the averages follow the modules."""
        if self._averages is None:
            return
        if self._taken == 0:
            torch._foreach_copy_(self._averages, self._averaged)
        else:
            self.first.average.multi_avg_fn(self._averages, self._averaged, self._taken)
        self._taken += 1
        if self._buffers[0]:
            torch._foreach_copy_(*self._buffers)
        for settle in self._settle_averages:
            settle()


def _is_moment(what: str, value: Any) -> bool:
    return isinstance(value, Tensor) and what not in COUNTERS


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors stacked, and let each become its row."""
    whole = torch.stack([t.detach() for t in tensors])
    for tensor, row in zip(tensors, whole, strict=True):
        tensor.data = row
    return whole


def scalars(equation: StandardEquation) -> list[tuple[dict[str, Any], str]]:
    """Return where an equation keeps its weights: alpha, beta, those of summands and penalties."""
    equations = [equation, *(other for _, _, other in equation.summands())]
    found = [(vars(e), name) for e in equations for name in ("alpha", "beta")]
    found += [(equation.weights, name) for name in equation.weights]
    penalties = [metric.penalty for metric in equation.metrics().values() if metric.penalty is not None]
    return found + [(vars(penalty), "weight") for penalty in penalties]


class Played(nn.Module):
    """Hands an equation to a function, so that ``functional_call`` can lend it the tensors of a member."""

    def __init__(self, equation: StandardEquation) -> None:
        super().__init__()
        self.equation = equation

    def forward(self, function: Callable[[StandardEquation], Any]) -> Any:
        """Return the function's value."""
        return function(self.equation)


@dataclass
class Ensemble:
    """Members that train together.

    Attributes:
        members: their states.
        frozen: members that met a number that is not finite, with what it was.
        history: rows of means and standard deviations over the members that live.
    """

    members: list[TrainState]
    frozen: dict[int, str] = field(default_factory=dict)
    round: int = 0
    batches: int = 0
    samples: int = 0
    history: list[dict[str, float | str]] = field(default_factory=list)
    scores: list[dict[str, float | str]] = field(default_factory=list)
    stopped_by: int | None = None
    figures: dict[str, Tensor] = field(default_factory=dict)
    rows: dict[int, dict[str, float | str]] = field(default_factory=dict)
    score_rows: dict[int, dict[str, float | str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        legality.refuse(
            legality.ensemble(len(self.members), optimizers=[type(p.optimizer) for p in self.members[0].players])
        )
        template = copy.deepcopy(self.members[0])
        template.equation.to("meta")  # a tensor that is not lent by a member would be noticed
        self._views = {player.name: (player.view, player.penalised) for player in template.players}
        self._played = Played(template.equation)
        self.players = [Seat(player.name) for player in template.players]
        self.gather()

    @property
    def equation(self) -> StandardEquation:
        """The equation of the first member."""
        return self.members[0].equation

    @property
    def seed(self) -> int:
        """The seed of the first member."""
        return self.members[0].seed

    @property
    def note(self) -> str | None:
        """What pictures must say."""
        return self.members[0].note

    @property
    def alive(self) -> list[int]:
        """The numbers of the members that are not frozen."""
        return [k for k in range(len(self.members)) if k not in self.frozen]

    @property
    def living(self) -> list[TrainState]:
        """The members that are not frozen."""
        return [self.members[k] for k in self.alive]

    def member_name(self, k: int) -> str:
        """Return how messages name a member."""
        return f"member {k} (seed {self.members[k].seed})"

    def gather(self) -> None:
        """Stack the tensors of the living members."""
        living = self.living
        self._tensors: dict[str, Tensor] = {}
        by_id: dict[int, Tensor] = {}
        kinds: list[Callable[[nn.Module], Iterable[tuple[str, Tensor]]]]
        kinds = [lambda e: e.named_parameters(), lambda e: e.named_buffers()]
        for kind in kinds:
            own = [dict(kind(member.equation)) for member in living]
            for name, tensor in own[0].items():
                whole = stack([tensors[name] for tensors in own]).requires_grad_(tensor.requires_grad)
                self._tensors[f"equation.{name}"] = by_id[id(tensor)] = whole
        for i, seat in enumerate(self.players):
            seat.take([member.players[i] for member in living], by_id)
        like = next(iter(self._tensors.values()))
        values = [[node[name] for node, name in scalars(member.equation)] for member in living]
        self._scalars = {
            j: torch.tensor(column, dtype=like.dtype, device=like.device)
            for j, column in enumerate(zip(*values, strict=True))
            if len(set(column)) > 1
        }
        for (node, name), value in zip(scalars(self._played.equation), values[0], strict=True):
            node[name] = value

    def scatter(self) -> None:
        """Hand all that is kept in stacks alone to the members."""
        for seat in self.players:
            seat.leave()

    def evaluate(self, seat: Seat, function: Callable[..., Any], inputs: dict[str, Tensor]) -> Any:
        """Return a function of equation, view, penalised metrics and inputs for each living member, stacked."""
        view, penalised = self._views[seat.name]
        places = scalars(self._played.equation)

        def member(tensors: dict[str, Tensor], weights: dict[int, Tensor], inputs: dict[str, Tensor]) -> Any:
            for j, weight in weights.items():
                node, name = places[j]
                node[name] = weight
            call = lambda equation: function(equation, view, penalised, **inputs)  # noqa: E731
            return torch.func.functional_call(self._played, tensors, (call,))

        return torch.vmap(member)(self._tensors, self._scalars, inputs)

    def freeze(self, offences: dict[int, str]) -> None:
        """Take members out as they stand."""
        self.scatter()
        for k in offences:
            _let_go(self.members[k])
        self.frozen |= offences
        if self.living:
            self.gather()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the members, each that of a single run."""
        self.scatter()
        return {
            "format": FORMAT, "round": self.round, "members": [member.state_dict() for member in self.members],
            "frozen": self.frozen,
        }  # fmt: skip

    def load_state_dict(self, saved: dict[str, Any]) -> list[str]:
        """Restore from :meth:`state_dict`."""
        if len(saved.get("members", ())) != len(self.members):
            raise RunDirectoryError(
                f"the checkpoint holds {len(saved.get('members', ()))} members, the ensemble has {len(self.members)}"
            )
        afresh = [member.load_state_dict(own) for member, own in zip(self.members, saved["members"], strict=True)]
        self.frozen = dict(saved["frozen"])
        for k in self.frozen:
            _let_go(self.members[k])
        alive = self.living[0] if self.living else self.members[0]
        self.round, self.batches, self.samples = saved["round"], alive.batches, alive.samples
        self.gather()
        return afresh[0]


def _let_go(member: TrainState) -> None:
    """Give a member tensors of its own."""
    for tensor in (*member.equation.parameters(), *member.equation.buffers()):
        tensor.data = tensor.detach().clone()
    for player in member.players:
        if player.average is not None:
            for tensor in player.average.parameters():
                tensor.data = tensor.detach().clone()
        for moments in player.optimizer.state.values():
            moments.update({k: v.clone() for k, v in moments.items() if isinstance(v, Tensor)})
