"""After a failure: which number was the first that is not finite, a dump of the step, and the step played again.

Nothing here runs in a round that succeeds, so it may be slow and thorough.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import singledispatch
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.laws import Particles
from se_framework.data import Data
from se_framework.errors import NonFiniteError, Offence, RunDirectoryError, StepError
from se_framework.runs.directory import RunDirectory
from se_framework.training.players import Player
from se_framework.training.state import TrainState
from se_framework.training.step import (
    ADVICE,
    draw,
    located,
    mixing,
    non_finite,
    penalties,
    penalties_due,
    play_step,
    read,
    sample,
    terms_of,
)


@contextmanager
def explained(state: TrainState, data: Data, horizon: int, run: RunDirectory | None) -> Iterator[None]:
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
    except (NonFiniteError, StepError) as error:
        offence = error.offence
        if offence is None:
            raise
        batch, p, source, advice, again = diagnose(state, data, offence)
        if isinstance(error, StepError):
            if not source:
                raise
            offence = replace(offence, term=terms_of(state)[0], terms={})
            source += f"; {' '.join(str(error.__cause__).split())}"
        offence = replace(offence, source=source or f"evaluated again it {again}")
        if run is not None:
            advice += f"; {dump(run, state, offence, horizon, batch, p)}"
        raise non_finite(offence, advice) from error.__cause__


@singledispatch
def check_whole(state: TrainState) -> None:
    """Refuse to save a state that holds what is not finite: weights, averages, buffers, moments.

    An update may overflow, and a round reads its weights only in the next; a checkpoint must be good whatever comes.

    Raises:
        NonFiniteError: see above; nothing was saved.
    """
    for player in state.players:
        names = {id(t): name for name, t in player.module.named_parameters()}
        named = list(player.module.state_dict().items())
        if player.average is not None:
            named += [(f"average of {name}", t) for name, t in player.average.module.state_dict().items()]
        named += [
            (f"optimiser's {what} of {names[id(p)]}", value)
            for p, moments in player.optimizer.state.items()
            for what, value in moments.items()
            if isinstance(value, Tensor)
        ]
        for name, value in named:
            for found, _ in _rows(f"{player.name}'s {name}", value, of="entries"):
                after = f"after {state.round} rounds: not saved, the last checkpoint stands"
                raise NonFiniteError(f"{found}, {after}; {ADVICE}")


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


def diagnose(state: TrainState, data: Data, offence: Offence) -> Diagnosis:
    """Evaluate a failed step again, piece by piece.

    Args:
        state: what the failing step saw; it is left as it is.
        data: p_d.
        offence: which step.
    """
    player, mark = _player(state, offence), state.mark()
    found: dict[str, Particles | None] = {"batch": None, "p": None}
    source, advice, again = "", ADVICE, "is finite: the step is no function of state, batch and streams"
    try:
        for source, advice in _offences(state, player, data, offence, found):  # noqa: B007
            break
    except Exception as error:  # noqa: BLE001  a part that cannot be evaluated is what a StepError names already
        again = f"raises {type(error).__name__}: {' '.join(str(error).split())}"
    finally:
        state.rewind(mark)
    return Diagnosis(found["batch"], found["p"], source, advice, again)


def _offences(
    state: TrainState, player: Player, data: Data, offence: Offence, found: dict[str, Particles | None]
) -> Iterator[tuple[str, str]]:
    """Yield what is not finite and what to do about it, in the order in which a step evaluates."""
    equation, k = state.played, offence.step
    like = next(equation.model.parameters())
    batch = found["batch"] = draw(data, offence.batch_size, state.seed, offence.batch, like)
    yield from _rows("the batch of data", batch.x, f"clean the data: batch {offence.batch} holds these rows")
    yield from _tensors("model", state)
    p = found["p"] = sample(state, player, k, batch)
    if p is not None:
        yield from _rows("the model's samples", p.x)
        yield from _rows("the model's log-density of its samples", p.log_prob)
    yield from _tensors("metric", state)
    yield from _tensors("plus", state)
    yield from _tensors("", state)
    summands = [("", equation, player.view), *((f" of plus.{name}", e, None) for name, _, e in equation.summands())]
    for name, part, view in summands:
        problem = part.inner_problem(batch, p, view)
        yield from _rows(f"the metric{name} on samples", problem.v)
        yield from _rows(f"the metric{name} on data", problem.v_data)
        if part.auxiliary.uses != "primal" and problem.v_data is not None:
            values = part.f(problem.v_data, view)
            yield from _rows(f"f on data{name}, where the metric gives {_range(problem.v_data)}", values)
        minimum = part.auxiliary.minimum(problem)
        reads = "" if problem.v is None else f", where the metric gives {_range(problem.v)} on samples,"
        yield from _rows(f"{part.auxiliary.minimum_name}{name}{reads}", minimum)

    p = sample(state, player, k, batch)
    minimum, f_data = equation.parts(batch, p, player.view)
    penalty = torch.zeros_like(minimum)
    mix = mixing(state.seed, state.round, f"{player.name}/{k}", batch.x)
    for due in penalties(penalties_due(state, player), batch, p, mix):
        yield from _rows("the penalty", due)
        penalty = penalty + due
    player.optimizer.zero_grad(set_to_none=True)
    (penalty - player.sign * (minimum + f_data)).backward(inputs=player.parameters)
    names = {id(t): name for name, t in player.module.named_parameters()}
    for parameter in player.parameters:
        yield from _rows(f"the gradient of {player.name}'s {names[id(parameter)]}", parameter.grad, of="entries")
    largest = max(float(t.grad.abs().max()) for t in player.parameters if t.grad is not None and t.numel())
    if offence.term == "gradient":
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
    """Yield what a tensor holds that is not finite, if it does."""
    if value is None or not value.is_floating_point() or bool(torch.isfinite(value).all()):
        return
    value = value.detach()
    if value.dim() == 0:
        yield f"{what} is {float(value)}", advice
        return
    kind, bad = "NaN" if bool(value.isnan().any()) else "inf", ~torch.isfinite(value)
    bad = bad.reshape(len(bad), -1).any(1) if of == "rows" else bad.flatten()
    first = int(bad.nonzero()[0])
    yield f"{kind} in {int(bad.sum())} of {len(bad)} {of} of {what}, the first of them {first}", advice


def _range(v: Tensor) -> str:
    return f"{float(v.detach().min()):.3g} to {float(v.detach().max()):.3g}"


# -- dump and replay --------------------------------------------------------------------------------------------------


class Kept(Data):
    """The one batch of a dump."""

    name = "the dumped batch"

    def __init__(self, x: Tensor, labels: Tensor | None) -> None:
        self.x, self.context, self.event_shape = x, labels, tuple(x.shape[1:])
        self.classes = 0 if labels is None else int(labels.max()) + 1

    def batch(self, n: int, seed: int, index: int, device: Any = "cpu", dtype: torch.dtype | None = None) -> Tensor:
        """Return the batch, whichever is asked for."""
        return self.x

    def labels(self, n: int, seed: int, index: int, device: Any = "cpu") -> Tensor | None:
        """Return its labels."""
        return self.context

    held_out = batch  # type: ignore[assignment]


def dump(
    run: RunDirectory, state: TrainState, offence: Offence, horizon: int, batch: Particles | None, p: Particles | None
) -> str:
    """Write the folder ``failure``: ``step`` (state, batch, labels, samples) and ``failure.json``; return what to do.

    The checkpoints of the run are left as they are: this state lies in the midst of a round.
    """
    x, context = (None, None) if batch is None else (batch.x, batch.context)
    content = {"state": state.state_dict(), "x": x, "context": context, "samples": None if p is None else p.x.detach()}
    run.save_state(run.failure / "step", content)
    values = {name: repr(value) for name, value in offence.terms.items()}  # JSON has no NaN
    purpose = f"{offence.player}/{offence.step}"
    report = asdict(offence) | {
        "value": repr(offence.value),
        "terms": values,
        "seed": state.seed,
        "horizon": horizon,
        "threads": torch.get_num_threads(),
        "random_streams": [f"{purpose}/{what}" for what in ("global", "noise", "mix")],
    }
    run.write_json("failure/failure.json", report)
    return f"the step is in {run.failure}, to be played again by se_framework.reproduce({str(run.path)!r})"


def replay(state: TrainState, run: RunDirectory) -> NonFiniteError:
    """Play the failed step of a run again and return its failure.

    The step is played on the dumped state and batch.

    Args:
        state: fresh objects of the run's configuration; is overwritten.
        run: its directory.

    Raises:
        RunDirectoryError: the run holds no failure, or it does not occur again.
    """
    file = run.failure / "failure.json"
    if not file.is_file():
        raise RunDirectoryError(f"{run.path} holds no failure: every step that it played was finite")
    report = json.loads(file.read_text())
    kept = {name: report[name] for name in ("player", "round", "step", "batch", "batch_size", "term", "source")}
    terms = {name: float(value) for name, value in report["terms"].items()}
    offence, horizon = Offence(**kept, value=float(report["value"]), terms=terms), report["horizon"]
    device, threads = next(state.equation.model.parameters()).device, torch.get_num_threads()
    torch.set_num_threads(report["threads"])
    try:
        saved = run.load_state(run.failure / "step", device)
        state.load_state_dict(saved["state"])
        _play_one(state, offence, saved, horizon)
    except NonFiniteError as error:
        return error
    finally:
        torch.set_num_threads(threads)
    raise RunDirectoryError(
        f"the failure in {run.path} ({offence.term}, {offence.place}) does not occur again: it came from something "
        "that the dump does not hold, as data or a part that is not a function of its arguments"
    )


def _play_one(state: TrainState, offence: Offence, saved: Mapping[str, Any], horizon: int) -> None:
    player, mark = _player(state, offence), state.mark()
    player.set_rate(offence.round, horizon)
    batch = Particles(saved["x"], context=saved["context"])
    with explained(state, Kept(batch.x, batch.context), horizon, None):
        with located(replace(offence, term="", terms={}, source="")):
            whole = torch.zeros((), dtype=torch.bool, device=batch.x.device)
            row, _ = play_step(state, player, offence.step, batch, whole)
        read(state, [(offence, mark)], [row])


def _player(state: TrainState, offence: Offence) -> Player:
    return next(player for player in state.players if player.name == offence.player)
