"""The dump of a failed step in a run's folder ``failure``: what is needed to play it again."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import torch

from models.laws import Particles
from se_framework.errors import RunDirectoryError, StepRecord
from se_framework.runs.directory import RunDirectory
from se_framework.training.game import Game
from se_framework.training.state import TrainState


def keep_failed(state: Game, horizon: int, run: RunDirectory | None) -> None:
    """Write a dump of the failed step of every run that has been taken out of a state of several, each once."""
    for k, (own, record, found) in state.taken_out().items():
        if run is not None:
            record = replace(record, source=found.source or f"evaluated again it {found.again}")
            dump(run, own, record, horizon, found.batch, found.p, k)


def dump(
    run: RunDirectory,
    state: TrainState,
    record: StepRecord,
    horizon: int,
    batch: Particles | None,
    p: Particles | None,
    member: int | None = None,
) -> str:
    """Write the folder ``failure``: ``step`` (state, batch, labels, samples) and ``failure.json``; return what to do.

    Where it cannot be written the reason is returned: the failure itself must be told.

    That of a member of an ensemble is a folder ``member_K`` of it. The checkpoints of the run are left as they are:
    this state lies in the midst of a round.
    """
    x, context = (None, None) if batch is None else (batch.x, batch.context)
    content = {"state": state.state_dict(), "x": x, "context": context, "samples": None if p is None else p.x.detach()}
    folder = folder_of(run, member)
    values = {name: repr(value) for name, value in record.terms.items()}  # JSON has no NaN
    purpose = f"{record.player}/{record.step}"
    of_auxiliaries = [f"auxiliary/{name}" for name, own in state.equation.equations() if own.auxiliary.draws_itself]
    report = asdict(record) | {
        "value": repr(record.value),
        "terms": values,
        "seed": state.seed,
        "horizon": horizon,
        "threads": torch.get_num_threads(),
        "random_streams": [f"{purpose}/{what}" for what in ("global", "noise", "mix", *of_auxiliaries)],
    }
    try:
        run.save_state(folder / "step", content)
        run.write_json(str((folder / "failure.json").relative_to(run.path)), report)
    except RunDirectoryError as error:
        return f"the step is not kept, {error}"
    which = "" if member is None else f", member={member}"
    return f"the step is in {folder}, to be played again by se_framework.reproduce({str(run.path)!r}{which})"


def folder_of(run: RunDirectory, member: int | None) -> Path:
    """Return where the dump of a run, or of a member of an ensemble, lies."""
    return run.failure if member is None else run.failure / f"member_{member}"


def failed_members(run: RunDirectory) -> list[int]:
    """Return the members of an ensemble whose dumps a run holds."""
    names = (file.parent.name.removeprefix("member_") for file in run.failure.glob("member_*/failure.json"))
    return sorted(int(name) for name in names if name.isdecimal() and name.isascii() and len(name) < 10)
