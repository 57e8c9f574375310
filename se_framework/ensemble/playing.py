"""A round of an ensemble: every player's steps, made by all members at once; and what the loop asks of one besides."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from divergences.base import Divergence
from models.laws import Particles
from se_framework.data import Data
from se_framework.ensemble.stack import Ensemble, Seat
from se_framework.equation import StandardEquation
from se_framework.errors import NonFiniteError, Offence, StepError
from se_framework.failure import check_whole, diagnose
from se_framework.files import append_row
from se_framework.frames import frame
from se_framework.loop import keep, keep_scores, measure
from se_framework.metric import Metric
from se_framework.monitors import PREFIX, SEPARATOR, warnings_in, watch
from se_framework.randomness import generator
from se_framework.run_directory import RunDirectory
from se_framework.step import due, located, mixing, play_round, terms_of

Row = dict[str, float | str]


@play_round.register(Ensemble)
def play_ensemble(state: Ensemble, data: Data, batch_size: int, horizon: int) -> dict[str, float]:
    """Play one round of all members; those that meet what is not finite stay as that step saw them."""
    t, batch = state.round, None
    for seat in state.players:
        seat.set_rate(t, horizon)
        for k in range(seat.steps):
            fresh = batch is None or seat.name == "phi" or len(state.players) == 1
            here = Offence(seat.name, t, k, state.batches if fresh else state.batches - 1, batch_size)
            try:
                with located(here):
                    if batch is None or fresh:
                        batch = draw(state, data, batch_size)
                        state.batches, state.samples = state.batches + 1, state.samples + batch_size
                    batch = play_step(state, seat, k, batch, here, data)
            except StepError as error:  # of all members at once: there is no single step to diagnose
                raise StepError(
                    f"{error} (ensembles run under torch.func.vmap; a single run, ensemble.size=1, does not)"
                ) from error.__cause__
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


def play_step(
    state: Ensemble, seat: Seat, k: int, batch: dict[str, Tensor], here: Offence, data: Data
) -> dict[str, Tensor]:
    """Play a step of all members, and return the batch of those that still live."""
    living, equation, t, like = state.living, state.equation, state.round, batch["x"]
    inputs, purpose = dict(batch), f"{seat.name}/{k}"
    n = like.shape[1]
    if equation.uses_samples:
        law = equation.model(batch["context"][0] if "context" in batch else None)
        inputs["noise"] = torch.stack(
            [law.noise(n, generator(m.seed, t, f"{purpose}/noise", like.device)) for m in living]
        )
        if due(seat.first.penalised, seat.first.steps_taken):
            inputs["mix"] = torch.stack([mixing(m.seed, t, purpose, like[0]) for m in living])

    terms = state.evaluate(seat, partial(terms_of_step, moves=seat.name, steps_taken=seat.first.steps_taken), inputs)
    minimum, f_data, penalty = terms
    loss = penalty - seat.sign * (minimum + f_data)
    gradients = torch.autograd.grad(loss.sum(), seat.parameters, allow_unused=True)
    norms = [torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients if g is not None]
    norm = torch.linalg.vector_norm(torch.stack(norms), dim=0)
    figures = torch.stack([minimum.detach(), f_data.detach(), penalty.detach(), norm], 1)
    finite = torch.isfinite(figures).all(1)
    if not bool(finite.all()):
        keep = finite.nonzero().flatten()
        gradients = tuple(None if g is None else g[keep] for g in gradients)
        freeze(state, here, finite.tolist(), figures.tolist(), data)
        batch, figures = {name: value[keep] for name, value in batch.items()}, figures[keep]
        state.figures = {name: past[keep] for name, past in state.figures.items()}
    seat.step(gradients)
    state.figures[seat.name] = figures
    return batch


def terms_of_step(
    equation: StandardEquation,
    view: Divergence | None,
    penalised: tuple[Metric, ...],
    *,
    x: Tensor,
    context: Tensor | None = None,
    noise: Tensor | None = None,
    mix: Tensor | None = None,
    moves: str,
    steps_taken: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return minimum, E_pd f and penalty of one member's step, shapes ()."""
    batch, p = Particles(x, context=context), None
    if noise is not None:
        with torch.set_grad_enabled(moves == "theta"):
            p = equation.particles(noise, context)
    minimum, f_data = equation.parts(batch, p, view)
    penalty = torch.zeros_like(minimum)
    for metric in due(penalised, steps_taken) if p is not None else ():
        assert metric.penalty is not None and p is not None and mix is not None
        penalty = penalty + metric.penalty(partial(metric, context=context), x, p.x, mix)
    return minimum, f_data, penalty


def freeze(state: Ensemble, here: Offence, finite: list[bool], figures: list[list[float]], data: Data) -> None:
    """Take out the members of whom something is not finite, and say what."""
    broken = {k: row for k, row, good in zip(state.alive, figures, finite, strict=True) if not good}
    state.freeze(dict.fromkeys(broken, ""))
    for k, row in broken.items():
        member = state.members[k]
        names = terms_of(member)
        term = next(i for i, value in enumerate(row) if not math.isfinite(value))
        offence = replace(here, term=names[term], value=row[term], terms=dict(zip(names, row, strict=True)))
        source = diagnose(member, data, offence).source
        what = f"{offence.term} of player {offence.player} is {offence.value}" + (f" ({source})" if source else "")
        state.frozen[k] = f"{state.member_name(k)} is frozen since round {here.round}: {what}"
    if not state.living:
        raise NonFiniteError(f"no member is left; {'; '.join(state.frozen.values())}")


@measure.register(Ensemble)
def measure_ensemble(state: Ensemble, data: Data, batch_size: int) -> Row:
    """Return the row of means and standard deviations over the living members, whose own rows are kept aside."""
    rows = {k: measure(state.members[k], data, batch_size) for k in state.alive}
    for name, figures in state.figures.items():  # of several steps the last stays
        for row, (minimum, f_data, penalty, gradient) in zip(rows.values(), figures.tolist(), strict=True):
            row |= {f"{name}_scalar": minimum + f_data, f"{name}_gradient": gradient}
            row |= {"penalty": penalty} if name == "phi" else {}
    state.rows = rows
    return averaged(list(rows.values()))


@watch.register(Ensemble)
def watch_ensemble(state: Ensemble, data: Data, row: Row) -> list[str]:
    """Return what the monitors newly find in a member, and who has been frozen since the row before."""
    found = [f"member {k}: {text}" for k, own in state.rows.items() for text in watch(state.members[k], data, own)]
    found += [text for text in state.frozen.values() if text not in warnings_in(state.history)]
    row["note"] = SEPARATOR.join([*filter(None, [row["note"]]), *(PREFIX + text for text in found)])
    return found


@keep.register(Ensemble)
def keep_ensemble(state: Ensemble, row: Row, run: RunDirectory | None) -> None:
    """Keep the row of means, and the members' own."""
    state.history.append(row)
    if run is not None:
        run.append_row(row)
    for k, own in state.rows.items():
        state.members[k].history.append(own)
        if run is not None:
            append_row(run.members_file, {"round": own["round"], "member": float(k)} | own)


@keep_scores.register(Ensemble)
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


@check_whole.register(Ensemble)
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


@frame.register(Ensemble)
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
