"""Numbers that are not finite, and parts that raise: found in their step, and said with player, round and term."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from se_framework.errors import DataError, NonFiniteError, StepError, StepRecord
from se_framework.training.players import Figures, Player

ADVICE = "lower the learning rate, penalise or bound the metric, or choose a divergence with a bounded conjugate"


@contextmanager
def in_step(here: StepRecord) -> Iterator[None]:
    """Let whatever a part raises within say whose step it was: parts are users' code, and may raise anything.

    Raises:
        StepError: in the place of every exception but a DataError.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        refusal = StepError(f"{here.place}: {kind}{' '.join(str(error).split())}")
        refusal.record = here
        raise refusal from error


def numbers_of(figures: Sequence[Figures]) -> list[list[float]]:
    """Return the figures of steps as numbers: one read of the device, whatever was queued there."""
    queued = [row for row in figures if isinstance(row, Tensor)]
    read = iter(torch.stack(queued).tolist() if queued else ())
    return [next(read) if isinstance(row, Tensor) else row for row in figures]


def first_failure(here: StepRecord, names: Sequence[str], row: Sequence[float]) -> StepRecord | None:
    """Return the record of the first figure of a step that is not finite, None if all are."""
    for name, value in zip(names, row, strict=True):
        if not math.isfinite(value):
            return replace(here, term=name, value=value, terms=dict(zip(names, row, strict=True)))
    return None


def non_finite(record: StepRecord, advice: str = ADVICE) -> NonFiniteError:
    """Return the error of a step in which something was not finite, in one sentence."""
    what = f"{record.term} of player {record.player} is {record.value} in round {record.round}, step {record.step}"
    source = f" ({record.source})" if record.source else ""
    error = NonFiniteError(f"{what}{source}: the update was not applied; {advice}")
    error.record = record
    return error


def entries_not_finite(what: str, value: Tensor | None, of: str = "rows") -> str | None:
    """Return in words which rows (or entries) of a tensor are not finite; None if all are."""
    if value is None or not value.is_floating_point() or bool(torch.isfinite(value).all()):
        return None
    value = value.detach()
    if value.dim() == 0:
        return f"{what} is {float(value)}"
    kind, bad = "NaN" if bool(value.isnan().any()) else "inf", ~torch.isfinite(value)
    bad = bad.reshape(len(bad), -1).any(1) if of == "rows" else bad.flatten()
    first = int(bad.nonzero()[0])
    return f"{kind} in {int(bad.sum())} of {len(bad)} {of} of {what}, the first of them {first}"


def check_whole(equation: nn.Module, players: Iterable[Player], rounds: int) -> None:
    """Refuse to save a state that holds what is not finite: weights, buffers, averages, moments.

    An update may overflow, and a round reads its weights only in the next; a checkpoint must be good whatever comes.

    Raises:
        NonFiniteError: see above; nothing was saved.
    """
    for name, value in _tensors_of(equation, players):
        found = entries_not_finite(name, value, of="entries")
        if found is not None:
            after = f"after {rounds} rounds: not saved, the last checkpoint stands"
            raise NonFiniteError(f"{found}, {after}; {ADVICE}")


def _tensors_of(equation: nn.Module, players: Iterable[Player]) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of a checkpoint with its name in words."""
    for player in players:
        names = {id(t): name for name, t in player.module.named_parameters()}
        for name, t in player.module.state_dict().items():
            yield f"{player.name}'s {name}", t
        if player.average is not None:
            for name, t in player.average.module.state_dict().items():
                yield f"{player.name}'s average of {name}", t
        for p, moments in player.optimizer.state.items():
            for what, value in moments.items():
                if isinstance(value, Tensor):
                    yield f"{player.name}'s optimiser's {what} of {names[id(p)]}", value
    yield from equation.state_dict().items()
