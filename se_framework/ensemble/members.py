"""The state of an ensemble: ordinary states whose tensors are rows of stacked ones.

A member *is* the state of its own single run: everything rare (a row of terms, a picture, scores, a checkpoint) looks
at it as at any other. Only a step reads the stacks, all members at once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.laws import Particles
from se_framework.data import Data
from se_framework.ensemble.stacked import StackedPlayer, let_go, stack
from se_framework.ensemble.turn import EnsembleTurn, averaged
from se_framework.equation.equation import StandardEquation, legality
from se_framework.errors import NonFiniteError, StepError, StepRecord
from se_framework.runs.directory import RunDirectory
from se_framework.runs.files import append_row
from se_framework.training import fitting
from se_framework.training.draws import in_type, like, seen_by_members
from se_framework.training.execution import Execution
from se_framework.training.failure import Diagnosis
from se_framework.training.monitors import PREFIX, SEPARATOR, warnings_in
from se_framework.training.players import schedules
from se_framework.training.state import FORMAT, Row, TrainState
from se_framework.training.turn import CLOCK


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
    """Members that train together: what the loop asks of one run, it asks of them.

    Attributes:
        members: their states.
        frozen: members that met a number that is not finite, with what it was.
        failures: the steps of members that were frozen, until they are taken down.
        history: rows of means and standard deviations over the members that live.
    """

    members: list[TrainState]
    frozen: dict[int, str] = field(default_factory=dict)
    round: int = 0
    samples: int = 0
    history: list[Row] = field(default_factory=list)
    scores: list[Row] = field(default_factory=list)
    stopped_by: int | None = None
    failures: dict[int, tuple[StepRecord, Diagnosis]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        legality.refuse(
            legality.ensemble(
                len(self.members),
                optimizers=[type(p.optimizer) for p in self.members[0].players],
                pieces=max(p.pieces for p in self.members[0].players),
            )
        )
        template = copy.deepcopy(self.members[0])
        self._template, index = template.equation, {id(t): i for i, t in enumerate(tensors_of(template.equation))}
        holders = [holder for part in self._template.modules() for holder in (part._parameters, part._buffers)]
        self._slots = [(h, name, index[id(t)]) for h in holders for name, t in h.items() if t is not None]
        self._template.to("meta")  # a tensor that no member lends would be noticed
        self.templates = {player.name: player for player in template.players}
        self._schedules = schedules(self._template)
        self._told: set[int] = set()
        self.players = [StackedPlayer(player.name) for player in template.players]
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
    def execution(self) -> Execution:
        """How steps are executed: as they stand."""
        return self.members[0].execution

    @property
    def note(self) -> str | None:
        """What pictures must say."""
        return self.members[0].note

    @property
    def living(self) -> dict[int, TrainState]:
        """The members that are not frozen, by number."""
        return {k: member for k, member in enumerate(self.members) if k not in self.frozen}

    def member_name(self, k: int) -> str:
        """Return how messages name a member."""
        return f"member {k} (seed {self.members[k].seed})"

    def taken_out(self) -> dict[int, tuple[TrainState, StepRecord, Diagnosis]]:
        """Return the members that were frozen in a step since the last call, with the step and what was found."""
        found, self.failures = self.failures, {}
        return {k: (self.members[k], *failure) for k, failure in found.items()}

    def name_of(self, k: int) -> str:
        """Return what stands before a warning about a member."""
        return f"member {k}: "

    def file_of(self, k: int, path: Path) -> Path:
        """Return where a file of a member lies: in a folder of its own."""
        return path.parent / f"member_{k}" / path.name

    # -- a round ----------------------------------------------------------------------------------------------------

    def turn(self, data: Data) -> EnsembleTurn:
        """Return what plays and collects the steps of a round."""
        return EnsembleTurn(self, data)

    def schedule(self) -> None:
        """Tell the parts how many examples have been seen."""
        for at in self._schedules:
            at(self.samples)
        for member in self.living.values():
            member.schedule()

    def draw(self, data: Data, n: int) -> Particles:
        """Return the next n examples of every living member, stacked."""
        kind = like(self.equation)
        batch = data.batches(self.samples, n, [member.seed for member in self.living.values()], kind.device)
        self.samples += n
        return seen_by_members(in_type(batch, self.equation, kind), [m.equation for m in self.living.values()])

    def finish_round(self) -> None:
        """Count a round."""
        self.round += 1
        for member in self.living.values():
            member.round, member.samples = self.round, self.samples

    def tell(self) -> list[str]:
        """Return what is new since the last call: who has been frozen."""
        news = [f"WARNING, {text}" for k, text in self.frozen.items() if k not in self._told]
        self._told |= set(self.frozen)
        return news

    # -- what is kept --------------------------------------------------------------------------------------------------

    def keep(self, rows: dict[int, Row], run: RunDirectory | None) -> Row:
        """Keep the members' rows, and return the row of means and standard deviations, with who has been frozen."""
        row = averaged(list(rows.values()), SEPARATOR)
        told = warnings_in(self.history)
        news = [PREFIX + text for text in self.frozen.values() if text not in told]
        if "note" in row:
            row["note"] = SEPARATOR.join(filter(None, [str(row["note"]), *news]))
        self.history.append(row)
        if run is not None:
            run.append_row(row)
        for k, timed in rows.items():
            own = {name: value for name, value in timed.items() if name not in CLOCK}
            self.members[k].history.append(own)
            if run is not None:
                append_row(run.members_file, {"round": own["round"], "member": float(k)} | own)
        return row

    def keep_scores(self, rows: dict[int, Row], run: RunDirectory | None) -> Row:
        """Keep the members' scores, and return the row of means and standard deviations."""
        row = averaged(list(rows.values()), SEPARATOR)
        self.scores.append(row)
        if run is not None:
            run.append_scores(row)
        for k, own in rows.items():
            self.members[k].scores.append(own)
            if run is not None:
                append_row(run.member_scores_file, {"round": own["round"], "member": float(k)} | own)
        return row

    def check_whole(self) -> None:
        """Freeze the members whose tensors hold what is not finite: they are saved as they are, and told of.

        Raises:
            NonFiniteError: no member is left; nothing was saved.
        """
        self.scatter()
        found = {}
        for k, member in self.living.items():
            try:
                member.check_whole()
            except NonFiniteError as error:
                found[k] = f"{self.member_name(k)} is frozen: {str(error).partition(': not saved')[0]}"
        if found:
            self.freeze(found)
        if not self.living:
            raise NonFiniteError(f"no member is left, nothing was saved; {'; '.join(self.frozen.values())}")

    # -- stacks ----------------------------------------------------------------------------------------------------

    def gather(self) -> None:
        """Stack the tensors of the living members."""
        living = list(self.living.values())
        columns = list(zip(*(tensors_of(member.equation) for member in living), strict=True))
        self._stacks = [stack(same).requires_grad_(same[0].requires_grad) for same in columns]
        by_id = {id(same[0]): whole for same, whole in zip(columns, self._stacks, strict=True)}
        for i, player in enumerate(self.players):
            player.gather([member.players[i] for member in living], by_id)
        kind = like(living[0].equation)
        weights = [[node[name] for node, name in scalars(member.equation)] for member in living]
        self._weights: list[tuple[dict[str, Any], str, Tensor]] = []
        for (node, name), column in zip(scalars(self._template), zip(*weights, strict=True), strict=True):
            node[name] = column[0]
            if len(set(column)) > 1:
                self._weights.append((node, name, torch.tensor(column, dtype=kind.dtype, device=kind.device)))

    def scatter(self) -> None:
        """Hand all that is kept in stacks alone to the members.

        Raises:
            StepError: a part has replaced a tensor that it should have filled.
        """
        for row, (k, member) in enumerate(self.living.items()):
            for tensor, whole in zip(tensors_of(member.equation), self._stacks, strict=True):
                if tensor.data_ptr() != whole[row].data_ptr():
                    raise StepError(
                        f"{self.member_name(k)}: a part has put another tensor of shape "
                        f"{tuple(tensor.shape)} in the place of its own: copy into it (copy_), or use ensemble.size=1"
                    )
        for player in self.players:
            player.scatter()

    def evaluate(self, function: Callable[[Any, dict[str, Tensor]], Any], inputs: dict[str, Tensor]) -> Any:
        """Return a function of equation and inputs for each living member, stacked."""

        def member(tensors: list[Tensor], weights: list[Tensor], inputs: dict[str, Tensor]) -> Any:
            # As torch.func.functional_call does, which looks for every name anew: 1 ms a step.
            lent: list[tuple[dict[str, Any], str, Tensor]] = [(h, name, tensors[i]) for h, name, i in self._slots]
            lent += [(node, name, own) for (node, name, _), own in zip(self._weights, weights, strict=True)]
            kept = [node[name] for node, name, _ in lent]
            try:
                for node, name, own in lent:
                    node[name] = own
                return function(self._template, inputs)
            finally:
                for (node, name, _), before in zip(lent, kept, strict=True):
                    node[name] = before

        return torch.vmap(member)(self._stacks, [weight for _, _, weight in self._weights], inputs)

    def freeze(self, offences: dict[int, str]) -> None:
        """Take members out as they stand."""
        self.scatter()
        for k in offences:
            let_go(self.members[k])
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
        """Restore from :meth:`state_dict`.

        Raises:
            RunDirectoryError: it holds another number of members, does not fit one, or names members that are not.
        """
        theirs, self.frozen = fitting.members_in(saved, len(self.members))
        afresh = [member.load_state_dict(own) for member, own in zip(self.members, theirs, strict=True)]
        for k in self.frozen:
            let_go(self.members[k])
        first = next(iter(self.living.values()))
        self.round, self.samples = first.round, first.samples
        self.gather()
        return afresh[0]
