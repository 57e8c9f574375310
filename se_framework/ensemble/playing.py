"""A round of an ensemble: every player's steps, made by all members at once; and what the loop asks of one besides."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from se_framework.data import Data
from se_framework.ensemble.seat import Seat
from se_framework.ensemble.stack import Ensemble
from se_framework.errors import NonFiniteError, Offence, StepError
from se_framework.pictures.frames import frame
from se_framework.randomness import generator
from se_framework.runs.directory import RunDirectory
from se_framework.runs.files import append_row
from se_framework.training.execution import Draws
from se_framework.training.failure import check_whole, diagnose
from se_framework.training.loop import keep, keep_scores, measure
from se_framework.training.monitors import PREFIX, SEPARATOR, warnings_in, watch
from se_framework.training.step import due, located, losses_at, mixing, play_round, terms_of

Row = dict[str, float | str]


def of_ensembles(single: Any) -> Any:
    """Let what the loop calls with a run (a ``singledispatch`` function) do with an ensemble as the decorated does."""
    return single.register(Ensemble)


@of_ensembles(play_round)
def play_ensemble(state: Ensemble, data: Data, batch_size: int, horizon: int) -> dict[str, float]:
    """Play one round of all members; those that meet what is not finite stay as that step saw them.

    Returns:
        Nothing: the figures are per member, and looked at by :func:`measure_ensemble`.
    """
    batch: dict[str, Tensor] | None = None
    for seat in state.players:
        seat.set_rate(state.round, horizon)
        for k in range(seat.steps):
            mark = state.batches, state.samples
            fresh = batch is None or seat.name == "phi" or len(state.players) == 1  # theta plays on phi's last batch
            here = Offence(seat.name, state.round, k, state.batches if fresh else state.batches - 1, batch_size)
            try:
                with located(here):
                    if batch is None or fresh:
                        batch = draw(state, data, batch_size)
                        state.batches, state.samples = state.batches + 1, state.samples + batch_size
                    gradients, figures = evaluate(state, seat, k, batch)
            except StepError as error:  # of all members at once: there is no one step to diagnose
                hint = "an ensemble runs it under torch.func.vmap; ensemble.size=1 does not"
                raise StepError(f"{error} ({hint})") from error.__cause__
            finite = torch.isfinite(figures).all(1)
            if not bool(finite.all()):
                kept = finite.nonzero().flatten()
                freeze(state, here, finite.tolist(), figures.tolist(), data, mark)
                gradients = [None if g is None else g[kept] for g in gradients]
                batch, figures = {name: value[kept] for name, value in batch.items()}, figures[kept]
                state.figures = {name: past[kept] for name, past in state.figures.items()}
                seat.set_rate(state.round, horizon)  # the stacks are new
            seat.step(gradients)
            state.figures[seat.name] = figures
    for seat in state.players:
        seat.update_average()
    state.round += 1
    for member in state.living:
        member.round, member.batches, member.samples = state.round, state.batches, state.samples
    return {}


def draw(state: Ensemble, data: Data, n: int) -> dict[str, Tensor]:
    """Return the next batch of every living member, stacked."""
    like, seeds = next(state.equation.model.parameters()), [member.seed for member in state.living]
    batch = {"x": data.batches(n, seeds, state.batches, like.device, like.dtype)}
    if data.classes:
        batch["context"] = torch.stack([data.labels(n, seed, state.batches, like.device) for seed in seeds])  # type: ignore[misc]
    return batch


def evaluate(state: Ensemble, seat: Seat, k: int, batch: dict[str, Tensor]) -> tuple[list[Tensor | None], Tensor]:
    """Evaluate a step of all members.

    Args:
        state: its round and the members' seeds fix all randomness.
        seat: who moves.
        k: which of its steps in this round.
        batch: data and labels, shapes (K, N, *E) and (K, N).

    Returns:
        The gradients of the player's parameters, (K, *shape) each, and the figures, (K, 4), as :func:`terms_of` names
        them.
    """
    living, equation, x, purpose = state.living, state.equation, batch["x"], f"{seat.name}/{k}"
    inputs, player = dict(batch), state.stand_ins[seat.name]
    penalised = due(player.penalised, seat.first.steps_taken) if equation.uses_samples else []
    if equation.uses_samples:
        law = equation.model(batch["context"][0] if "context" in batch else None)  # noise depends on no parameter
        draws = [generator(member.seed, state.round, f"{purpose}/noise", x.device) for member in living]
        inputs["noise"] = torch.stack([law.noise(x.shape[1], draw) for draw in draws])
        if penalised:
            inputs["mix"] = torch.stack([mixing(member.seed, state.round, purpose, x[0]) for member in living])
    loss, checked = state.evaluate(lambda one, **own: losses_at(one, player, penalised, Draws(**own)), inputs)
    # A member's terms depend on its own parameters alone, so the gradient of the sum is every member's gradient.
    found = torch.autograd.grad(loss.sum(), seat.parameters, allow_unused=True)
    # A fused optimiser reads a gradient in the order of memory; that of a batched product may lie transposed.
    gradients: list[Tensor | None] = [None if g is None else g.contiguous() for g in found]
    norms = [torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients if g is not None]
    norm = torch.linalg.vector_norm(torch.stack(norms), dim=0)
    return gradients, torch.stack([*checked, norm], 1).detach()


def freeze(
    state: Ensemble, here: Offence, finite: list[bool], figures: list[list[float]], data: Data, mark: tuple[int, int]
) -> None:
    """Take out the members of whom something is not finite, and say what.

    Args:
        state: before the step is applied.
        here: which step.
        finite: whether a living member goes on.
        figures: of the living members.
        data: p_d.
        mark: batches and samples when the step began.

    Raises:
        NonFiniteError: nobody is left.
    """
    broken = {k: row for k, row, good in zip(state.alive, figures, finite, strict=True) if not good}
    state.freeze(dict.fromkeys(broken, ""))
    for k, row in broken.items():
        member = state.members[k]
        member.batches, member.samples = mark
        names = terms_of(member)
        term = next(i for i, value in enumerate(row) if not math.isfinite(value))
        offence = replace(here, term=names[term], value=row[term], terms=dict(zip(names, row, strict=True)))
        source = diagnose(member, data, offence).source
        what = f"{offence.term} of player {offence.player} is {offence.value}" + (f" ({source})" if source else "")
        state.frozen[k] = f"{state.member_name(k)} is frozen since round {here.round}: {what}"
    if not state.living:
        raise NonFiniteError(f"no member is left; {'; '.join(state.frozen.values())}")


@of_ensembles(measure)
def measure_ensemble(state: Ensemble, data: Data, batch_size: int) -> Row:
    """Return the row of means and standard deviations over the living members, whose own rows are kept aside."""
    rows = {k: measure(state.members[k], data, batch_size) for k in state.alive}
    for name, figures in state.figures.items():  # of several steps the last stays
        for row, (minimum, f_data, penalty, gradient) in zip(rows.values(), figures.tolist(), strict=True):
            row |= {f"{name}_objective": minimum + f_data, f"{name}_gradient": gradient}
            row |= {"penalty": penalty} if name == "phi" else {}
    state.rows = rows
    return averaged(list(rows.values()))


@of_ensembles(watch)
def watch_ensemble(state: Ensemble, data: Data, row: Row) -> list[str]:
    """Return what the monitors newly find in a member, and who has been frozen since the row before."""
    found = [f"member {k}: {text}" for k, own in state.rows.items() for text in watch(state.members[k], data, own)]
    found += [text for text in state.frozen.values() if text not in warnings_in(state.history)]
    row["note"] = SEPARATOR.join([*([str(row["note"])] if row["note"] else []), *(PREFIX + text for text in found)])
    return found


@of_ensembles(keep)
def keep_ensemble(state: Ensemble, row: Row, run: RunDirectory | None) -> None:
    """Keep the row of means, and the members' own."""
    state.history.append(row)
    if run is not None:
        run.append_row(row)
    for k, own in state.rows.items():
        state.members[k].history.append(own)
        if run is not None:
            append_row(run.members_file, {"round": own["round"], "member": float(k)} | own)


@of_ensembles(keep_scores)
def keep_ensemble_scores(state: Ensemble, row: Row, run: RunDirectory | None) -> None:
    """Keep the mean scores, and the members' own."""
    state.scores.append(row)
    if run is not None:
        run.append_scores(row)
    for k, own in state.score_rows.items():
        own = {"round": row["round"], "samples": row["samples"]} | own
        state.members[k].scores.append(own)
        if run is not None:
            append_row(run.member_scores_file, {"round": own["round"], "member": float(k)} | own)


@of_ensembles(check_whole)
def check_whole_ensemble(state: Ensemble) -> None:
    """Freeze the members whose tensors hold what is not finite: they are saved as they are, and told of."""
    state.scatter()
    offences = {}
    for k in state.alive:
        try:
            check_whole(state.members[k])
        except NonFiniteError as error:
            offences[k] = f"{state.member_name(k)} is frozen: {str(error).partition(': not saved')[0]}"
    if offences:
        state.freeze(offences)
    if not state.living:
        raise NonFiniteError(f"no member is left, nothing was saved; {'; '.join(state.frozen.values())}")


@of_ensembles(frame)
def frame_ensemble(state: Ensemble, data: Data, path: Path) -> None:
    """Draw every living member, in a folder of its own."""
    for k in state.alive:
        frame(state.members[k], data, path.parent / f"member_{k}" / path.name)


def averaged(rows: list[Row]) -> Row:
    """Return the columns' means, with NAME_sd beside them: the standard deviation over members, NaN of a single one."""
    found: Row = {name: rows[0][name] for name in ("round", "samples") if name in rows[0]}
    found["members"] = float(len(rows))
    for name, value in rows[0].items():
        if name not in found and isinstance(value, float):
            column = torch.tensor([float(row[name]) for row in rows], dtype=torch.float64)
            found |= {name: float(column.mean()), f"{name}_sd": float(column.std()) if len(rows) > 1 else math.nan}
    notes = dict.fromkeys(str(row["note"]) for row in rows if row.get("note"))
    return found | ({"note": SEPARATOR.join(notes)} if "note" in rows[0] else {})
