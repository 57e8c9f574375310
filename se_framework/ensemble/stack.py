"""The state of an ensemble: ordinary states whose tensors are rows of stacked ones.

A member *is* the state of its own single run: everything rare (a row of terms, a picture, scores, a checkpoint) looks
at it as at any other. Only a step reads the stacks, all members at once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from se_framework.ensemble.seat import Seat, stack
from se_framework.equation.equation import StandardEquation, legality
from se_framework.errors import RunDirectoryError, StepError
from se_framework.training.execution import Performance
from se_framework.training.state import FORMAT, TrainState


def scalars(equation: StandardEquation) -> list[tuple[dict[str, Any], str]]:
    """Return where an equation keeps its weights: alpha, beta, those of summands and penalties."""
    equations = [equation, *(other for _, _, other in equation.summands())]
    found = [(vars(e), name) for e in equations for name in ("alpha", "beta")]
    found += [(equation.weights, name) for name in equation.weights]
    penalties = [metric.penalty for metric in equation.metrics().values() if metric.penalty is not None]
    return found + [(vars(penalty), "weight") for penalty in penalties]


def tensors_of(equation: nn.Module) -> list[Tensor]:
    """Return parameters and buffers, each once, in an order that all members share."""
    return [*equation.parameters(), *equation.buffers()]


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
        self._stage, index = template.equation, {id(t): i for i, t in enumerate(tensors_of(template.equation))}
        holders = [holder for part in self._stage.modules() for holder in (part._parameters, part._buffers)]
        self._slots = [(h, name, index[id(t)]) for h in holders for name, t in h.items() if t is not None]
        self._stage.to("meta")  # a tensor that no member lends would be noticed
        self.stand_ins = {player.name: player for player in template.players}
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
    def performance(self) -> Performance:
        """How steps are executed: as they stand."""
        return self.members[0].performance

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
        columns = list(zip(*(tensors_of(member.equation) for member in living), strict=True))
        self._stacks = [stack(same).requires_grad_(same[0].requires_grad) for same in columns]
        by_id = {id(same[0]): whole for same, whole in zip(columns, self._stacks, strict=True)}
        for i, seat in enumerate(self.players):
            seat.take([member.players[i] for member in living], by_id)
        like = next(iter(living[0].equation.parameters()))
        weights = [[node[name] for node, name in scalars(member.equation)] for member in living]
        self._weights: list[tuple[dict[str, Any], str, Tensor]] = []
        for (node, name), column in zip(scalars(self._stage), zip(*weights, strict=True), strict=True):
            node[name] = column[0]
            if len(set(column)) > 1:
                self._weights.append((node, name, torch.tensor(column, dtype=like.dtype, device=like.device)))

    def scatter(self) -> None:
        """Hand all that is kept in stacks alone to the members.

        Raises:
            StepError: a part has replaced a tensor that it should have filled.
        """
        for row, member in enumerate(self.living):
            for tensor, whole in zip(tensors_of(member.equation), self._stacks, strict=True):
                if tensor.data_ptr() != whole[row].data_ptr():
                    raise StepError(
                        f"{self.member_name(self.alive[row])}: a part has put another tensor of shape "
                        f"{tuple(tensor.shape)} in the place of its own: copy into it (copy_), or use ensemble.size=1"
                    )
        for seat in self.players:
            seat.leave()

    def evaluate(self, function: Callable[..., Any], inputs: dict[str, Tensor]) -> Any:
        """Return a function of equation and inputs for each living member, stacked."""

        def member(tensors: list[Tensor], weights: list[Tensor], inputs: dict[str, Tensor]) -> Any:
            # As torch.func.functional_call does, which looks for every name anew: 1 ms a step.
            lent: list[tuple[dict[str, Any], str, Tensor]] = [(h, name, tensors[i]) for h, name, i in self._slots]
            lent += [(node, name, own) for (node, name, _), own in zip(self._weights, weights, strict=True)]
            kept = [node[name] for node, name, _ in lent]
            try:
                for node, name, own in lent:
                    node[name] = own
                return function(self._stage, **inputs)
            finally:
                for (node, name, _), before in zip(lent, kept, strict=True):
                    node[name] = before

        return torch.vmap(member)(self._stacks, [weight for _, _, weight in self._weights], inputs)

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
        first = self.living[0]
        self.round, self.batches, self.samples = saved["round"], first.batches, first.samples
        self.gather()
        return afresh[0]


def _let_go(member: TrainState) -> None:
    """Give a member tensors of its own: rows would keep the stacks that it has left in memory."""
    for tensor in (*member.equation.parameters(), *member.equation.buffers()):
        tensor.data = tensor.detach().clone()
    for player in member.players:
        if player.average is not None:
            for tensor in player.average.parameters():
                tensor.data = tensor.detach().clone()
        for moments in player.optimizer.state.values():
            moments.update({k: v.clone() for k, v in moments.items() if isinstance(v, Tensor)})
