"""After a failure: which number was the first that is not finite, a dump of the step, and the step played again.

Nothing here runs in a round that succeeds, so it may be slow and thorough.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.laws import Particles
from se_framework.data import Data
from se_framework.errors import NonFiniteError, RunDirectoryError, StepError, StepRecord
from se_framework.reading import UnreadableError, count, line, mapping, number, take
from se_framework.runs.directory import RunDirectory
from se_framework.training import fitting
from se_framework.training.draws import Draws, draw_batch, draw_step, like, step_stream
from se_framework.training.dumps import dump, failed_members, folder_of, keep_failed
from se_framework.training.finite import ADVICE, entries_not_finite, non_finite
from se_framework.training.game import Game
from se_framework.training.objective import penalties, terms_of
from se_framework.training.players import Player
from se_framework.training.state import TrainState


@contextmanager
def explained(state: Game, data: Data, horizon: int, run: RunDirectory | None) -> Iterator[None]:
    """Let a failure within say what was not finite first, and leave a dump of the step in the run.

    A part that refuses what is not finite (a StepError) has failed for that reason.

    Args:
        state: the run; after a failure it is what the failing step saw.
        data: p_d.
        horizon: rounds over which learning rates decay.
        run: where the dump goes; None writes none.
    """
    try:
        yield
        keep_failed(state, horizon, run)
    except (NonFiniteError, StepError) as error:
        keep_failed(state, horizon, run)
        record = error.record
        if record is None or not isinstance(state, TrainState):  # of several runs each has said its own
            raise
        batch, p, source, advice, again = diagnose(state, data, record)
        if isinstance(error, StepError):
            if not source:
                raise
            record = replace(record, term=terms_of(state.equation)[0], terms={})
            source += f"; {' '.join(str(error.__cause__).split())}"
        record = replace(record, source=source or f"evaluated again it {again}")
        if run is not None:
            advice += f"; {dump(run, state, record, horizon, batch, p)}"
        raise non_finite(record, advice) from error.__cause__


# -- diagnosis --------------------------------------------------------------------------------------------------------


class Diagnosis(NamedTuple):
    """What an evaluation piece by piece found.

    Attributes:
        batch: the batch; None if it could not be drawn.
        p: the model's samples, where there are any.
        source: the first that is not finite, in words; empty if nothing is.
        advice: what to do.
        again: what became of the evaluation, if it has found nothing.
    """

    batch: Particles | None
    p: Particles | None
    source: str
    advice: str
    again: str


def diagnose(state: TrainState, data: Data, record: StepRecord) -> Diagnosis:
    """Evaluate a failed step again, piece by piece.

    Args:
        state: what the failing step saw; it is left as it is.
        data: p_d.
        record: which step.
    """
    player, mark = _player(state, record), state.mark()
    found: dict[str, Particles | None] = {"batch": None, "p": None}
    source, advice, again = "", ADVICE, "is finite: the step is no function of state, batch and streams"
    try:
        for source, advice in _not_finite(state, player, data, record, found):  # noqa: B007
            break
    except Exception as error:  # noqa: BLE001  a part that cannot be evaluated is what a StepError names already
        again = f"raises {type(error).__name__}: {' '.join(str(error).split())}"
    finally:
        state.rewind(mark)
    return Diagnosis(found["batch"], found["p"], source, advice, again)


def _not_finite(
    state: TrainState, player: Player, data: Data, record: StepRecord, found: dict[str, Particles | None]
) -> Iterator[tuple[str, str]]:
    """Yield what is not finite and what to do about it, in the order in which a step evaluates."""
    equation = state.played
    batch = found["batch"] = draw_batch(data, record.start, record.batch_size, state.seed, equation)
    yield from _rows("the batch of data", batch.x, f"clean the data: the batch of rows {record.start} on holds these")
    yield from _tensors("model", state)
    due = player.due()

    def drawn() -> Draws:
        stream = step_stream(state.seed, record.round, player.name, record.step, batch.x)
        return draw_step(equation, due, batch, stream)

    draws = drawn()
    with torch.set_grad_enabled(player.role.moves_samples):
        p = found["p"] = equation.particles(draws, batch.context)
    if p is not None:
        yield from _rows("the model's samples", p.x)
        yield from _rows("the model's log-density of its samples", p.log_prob)
    yield from _tensors("metric", state)
    yield from _tensors("plus", state)
    yield from _tensors("", state)
    if state.advances:
        equation.advance(batch, p, player.role, draws)
    for name, part in equation.equations():
        view, where = (player.view, "") if part is equation else (part.seen_by(player.role), f" of plus.{name}")
        problem = part.inner_problem(batch, p, view, draws=draws, name=name)
        yield from _rows(f"the metric{where} on samples", problem.v)
        yield from _rows(f"the metric{where} on data", problem.v_data)
        if part.auxiliary.has_scores and problem.v_data is not None:
            values = part.f(problem.v_data, view)
            yield from _rows(f"f on data{where}, where the metric gives {_range(problem.v_data)}", values)
        minimum = part.auxiliary.minimum(problem, player.role)
        reads = "" if problem.v is None else f", where the metric gives {_range(problem.v)} on samples,"
        yield from _rows(f"{part.auxiliary.minimum_name}{where}{reads}", minimum)

    draws = drawn()  # networks that draw on torch's own generators have moved them
    with torch.set_grad_enabled(player.role.moves_samples):
        p = equation.particles(draws, batch.context)
    minimum, f_data = equation.parts(batch, p, player.view, player.role, draws)
    penalty = torch.zeros_like(minimum)
    for own in penalties(equation, due, batch, p, draws):
        yield from _rows("the penalty", own)
        penalty = penalty + own
    player.clear()
    player.accumulate(penalty - player.role.sign * (minimum + f_data))
    names = {id(t): name for name, t in player.module.named_parameters()}
    for parameter in player.parameters:
        yield from _rows(f"the gradient of {player.name}'s {names[id(parameter)]}", parameter.grad, of="entries")
    largest = max(float(t.grad.abs().max()) for t in player.parameters if t.grad is not None and t.numel())
    if record.term == "gradient":
        yield f"no entry of the gradient, the largest is {largest:.3g}, but their norm overflows", ADVICE


def _tensors(start: str, state: TrainState) -> Iterator[tuple[str, str]]:
    """Yield weights and buffers that are not finite, of the part of the equation whose name starts so."""
    advice = f"resume from an earlier checkpoint; {ADVICE}"
    for kind, named in (("weight", state.equation.named_parameters()), ("buffer", state.equation.named_buffers())):
        for name, value in named:
            if name.startswith(start):
                owner, _, rest = name.partition(".")
                yield from _rows(f"{kind} {rest} of the {owner}", value, advice, "entries")


def _rows(what: str, value: Tensor | None, advice: str = ADVICE, of: str = "rows") -> Iterator[tuple[str, str]]:
    """Yield which rows (or entries) are not finite, with advice."""
    found = entries_not_finite(what, value, of)
    if found is not None:
        yield found, advice


def _range(v: Tensor) -> str:
    return f"{float(v.detach().min()):.3g} to {float(v.detach().max()):.3g}"


# -- replay -----------------------------------------------------------------------------------------------------------


class Kept(Data):
    """The one batch of a dump."""

    name = "the dumped batch"

    def __init__(self, batch: Particles) -> None:
        self.kept, self.event_shape = batch, tuple(batch.x.shape[1:])
        self.classes = 0 if batch.context is None else int(batch.context.max()) + 1

    def batch(self, start: int, n: int, seed: int, device: torch.device | str = "cpu") -> Particles:
        """Return the batch, whichever is asked for."""
        return self.kept

    def held_out(self, n: int, seed: int = 0, device: torch.device | str = "cpu") -> Particles:
        """Return the batch."""
        return self.kept


def failed_round(run: RunDirectory) -> int:
    """Return the round in which a run failed.

    Raises:
        RunDirectoryError: it has not.
    """
    return int(_report(run)["round"])


DUMPS = 16
"""A dump holds a batch and samples besides: how many times a checkpoint it may have."""
_KINDS: dict[str, Callable[[Any], Any]] = {
    "player": line, "round": count, "step": count, "start": count, "batch_size": count, "term": line, "source": line,
    "value": number, "terms": mapping, "horizon": count, "threads": count,
}  # fmt: skip


def _report(run: RunDirectory, member: int | None = None) -> dict[str, Any]:
    """Return what is known of a failed step: typed, for the file may be a stranger's."""
    file = folder_of(run, member) / "failure.json"
    try:
        found = run.read_json(str(file.relative_to(run.path)))
        report: dict[str, Any] = {name: take(found, name, kind=kind) for name, kind in _KINDS.items()}
        report["terms"] = {name: take(report["terms"], name, kind=number) for name in report["terms"]}
        return report
    except FileNotFoundError:
        members = failed_members(run)
        if members and member is None:
            shown = ", ".join(map(str, members))
            said = f"{run.path} is an ensemble of which members failed: choose one, member={shown}"
        else:
            which = run.path if member is None else f"member {member} of {run.path}"
            said = f"{which} holds no failure: every step that it played was finite"
        raise RunDirectoryError(said) from None
    except UnreadableError as error:
        raise RunDirectoryError(f"{file} is no report of ours: {error}") from error


def replay(state: TrainState, run: RunDirectory, member: int | None = None) -> NonFiniteError:
    """Play the failed step of a run again and return its failure.

    The step is played on the dumped state and batch.

    Args:
        state: fresh objects of the run's configuration; is overwritten.
        run: its directory.
        member: which of an ensemble's; None for a single run.

    Raises:
        RunDirectoryError: the run holds no failure, or it does not occur again.
    """
    report = _report(run, member)
    kept = {name: report[name] for name in ("player", "round", "step", "start", "batch_size", "term", "source")}
    record, horizon = StepRecord(**kept, value=report["value"], terms=report["terms"]), report["horizon"]
    device, threads = like(state.equation).device, torch.get_num_threads()
    torch.set_num_threads(min(max(1, report["threads"]), max(threads, os.cpu_count() or 1)))
    try:
        folder = folder_of(run, member)
        saved = run.load_state(folder / "step", device, DUMPS * fitting.largest([state]))
        fitting.check_dump(saved, folder / "step")
        state.load_state_dict(saved["state"])
        _play_one(state, record, saved, horizon)
    except NonFiniteError as error:
        return error
    finally:
        torch.set_num_threads(threads)
    raise RunDirectoryError(
        f"the failure in {run.path} ({record.term}, {record.place}) does not occur again: it came from something "
        "that the dump does not hold, as data or a part that is not a function of its arguments"
    )


def _play_one(state: TrainState, record: StepRecord, saved: Mapping[str, Any], horizon: int) -> None:
    player, data = _player(state, record), Kept(Particles(saved["x"], context=saved["context"]))
    player.set_rate(record.round, horizon)
    turn = state.turn(data)
    with explained(state, data, horizon, None):
        with turn.step(replace(record, term="", terms={}, source="")):
            turn.play(player, record, data.kept)
        turn.read()


def _player(state: TrainState, record: StepRecord) -> Player:
    player = state.player(record.player)
    if player is None:
        raise RunDirectoryError(f"the failure is of the player {record.player}, which the run has not")
    return player
