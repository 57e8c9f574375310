"""A round of an ensemble while it is played: every step is made by all members at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.laws import Particles
from se_framework.data import Data
from se_framework.ensemble.stacked import StackedPlayer
from se_framework.errors import NonFiniteError, StepError, StepRecord
from se_framework.training.draws import Draws, draw_step, step_stream
from se_framework.training.failure import diagnose
from se_framework.training.finite import first_failure, in_step
from se_framework.training.objective import objective, terms_of
from se_framework.training.turn import CLOCK, Row, row_of

if TYPE_CHECKING:
    from se_framework.ensemble.members import Ensemble


class EnsembleTurn:
    """The steps of one round of all members; those that meet what is not finite stay as that step saw them.

    Args:
        state: is moved by every step.
        data: p_d.
    """

    def __init__(self, state: Ensemble, data: Data) -> None:
        self._state, self._data = state, data
        self._figures: dict[int, Row] = {k: {} for k in state.living}

    @contextmanager
    def step(self, here: StepRecord) -> Iterator[None]:
        """Play one step within.

        Raises:
            StepError: a part could not be evaluated for all members at once: there is no one step to diagnose.
        """
        self._samples = self._state.samples
        try:
            with in_step(here):
                yield
        except StepError as error:
            if isinstance(error.__cause__, NonFiniteError):  # nobody is left
                raise error.__cause__ from None
            hint = "an ensemble runs it under torch.func.vmap; ensemble.size=1 does not"
            raise StepError(f"{error} ({hint})") from error.__cause__

    def play(self, player: StackedPlayer, here: StepRecord, batch: Particles) -> Particles:
        """Play a player's step on every member's batch, and return the batches of those that go on."""
        state = self._state
        gradients, figures = evaluate(state, player, here, batch)
        finite = torch.isfinite(figures).all(1)
        if not bool(finite.all()):
            kept = finite.nonzero().flatten()
            self._freeze(here, figures.tolist())
            gradients = [None if g is None else g[kept] for g in gradients]
            figures = figures[kept]
            batch = Particles(batch.x[kept], context=None if batch.context is None else batch.context[kept])
            player.set_rate(state.round, player.horizon)  # the stacks are new
        player.step(gradients)
        for (k, member), row in zip(state.living.items(), figures.tolist(), strict=True):
            self._figures[k] |= row_of(player.name, row, member)
        return batch

    def read(self) -> dict[int, Row]:
        """Return the figures of the round of every member that goes on."""
        return {k: self._figures[k] for k in self._state.living}

    def _freeze(self, here: StepRecord, rows: list[list[float]]) -> None:
        """Take out the members of whom something is not finite, and say what.

        Raises:
            NonFiniteError: nobody is left.
        """
        state, names = self._state, terms_of(self._state.equation)
        found = {
            k: failure
            for k, row in zip(state.living, rows, strict=True)
            if (failure := first_failure(here, names, row)) is not None
        }
        state.freeze(dict.fromkeys(found, ""))
        for k, failure in found.items():
            member = state.members[k]
            member.samples = self._samples
            diagnosis = diagnose(member, self._data, failure)
            state.failures[k], source = (failure, diagnosis), diagnosis.source
            what = f"{failure.term} of player {failure.player} is {failure.value}" + (f" ({source})" if source else "")
            state.frozen[k] = f"{state.member_name(k)} is frozen since round {here.round}: {what}"
        if not state.living:
            raise NonFiniteError(f"no member is left; {'; '.join(state.frozen.values())}")


def evaluate(
    state: Ensemble, player: StackedPlayer, here: StepRecord, batch: Particles
) -> tuple[list[Tensor | None], Tensor]:
    """Evaluate a step of all members.

    Args:
        state: its round and the members' seeds fix all randomness.
        player: who moves.
        here: which of its steps.
        batch: data and labels, shapes (K, N, *E) and (K, N).

    Returns:
        The gradients of the player's parameters, (K, *shape) each, and the figures, (K, 4), as
        :func:`~se_framework.training.objective.terms_of` names them.
    """
    equation, template = state.equation, state.templates[player.name]
    due = player.first.due()
    drawn: list[Draws] = []
    for i, member in enumerate(state.living.values()):  # what is drawn depends on no parameter
        own = Particles(batch.x[i], context=None if batch.context is None else batch.context[i])
        stream = step_stream(member.seed, state.round, player.name, here.step, own.x)
        drawn.append(draw_step(equation, due, own, stream))
    draws = {name: torch.stack([own[name] for own in drawn]) for name in drawn[0]}
    loss, checked = state.evaluate(lambda one, draws: objective(one, template, due, draws), draws)
    # A member's terms depend on its own parameters alone, so the gradient of the sum is every member's gradient.
    found = torch.autograd.grad(loss.sum(), player.parameters, allow_unused=True)
    # A fused optimiser reads a gradient in the order of memory; that of a batched product may lie transposed.
    gradients: list[Tensor | None] = [None if g is None else g.contiguous() for g in found]
    norms = [torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients if g is not None]
    norm = torch.linalg.vector_norm(torch.stack(norms), dim=0)
    return gradients, torch.stack([*checked, norm], 1).detach()


def averaged(rows: list[dict[str, float | str]], separator: str) -> dict[str, float | str]:
    """Return the columns' means, with NAME_sd beside them: the standard deviation over members, NaN of a single one.

    The clock is common to all: it comes last, as it is.
    """
    found: dict[str, float | str] = {name: rows[0][name] for name in ("round", "samples") if name in rows[0]}
    found["members"] = float(len(rows))
    for name, value in rows[0].items():
        if name not in found and name not in CLOCK and isinstance(value, float):
            column = torch.tensor([float(row[name]) for row in rows], dtype=torch.float64)
            found |= {name: float(column.mean()), f"{name}_sd": float(column.std()) if len(rows) > 1 else math.nan}
    notes = dict.fromkeys(str(row["note"]) for row in rows if row.get("note"))
    found |= {"note": separator.join(notes)} if "note" in rows[0] else {}
    return found | {name: rows[0][name] for name in CLOCK if name in rows[0]}
