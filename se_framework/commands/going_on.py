"""How a run goes on: all that could be refused is looked at before the first byte of it is changed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from omegaconf import DictConfig

from se_framework.api import restore
from se_framework.assembly import Assembly
from se_framework.config.resuming import as_kept
from se_framework.config.saved import saved_config
from se_framework.config.trust import needed
from se_framework.errors import RunDirectoryError
from se_framework.runs.directory import RunDirectory
from se_framework.runs.provenance import due_record
from se_framework.runs.telling import override, say, word


def go_on(assembly: Assembly, run: RunDirectory, config: DictConfig) -> None:
    """Load what a run has kept, and bring its directory to the round from which it goes on.

    Args:
        assembly: fresh objects of the configuration.
        run: locked.
        config: the run's own, with the permitted changes.

    Raises:
        SEError: data, checkpoint, tables or callbacks do not fit; the directory is as it was.
    """
    other_data = any(key.partition(".")[0] == "data" for key in config.resume_allow)
    record = due_record(run, assembly.data, other_data)
    restored = restore(assembly, run, to_go_on=True)
    if restored is None:
        must_be_fresh(run, saved_config(run))
    assembly.listeners()
    run.rewound(assembly.state.round)

    say(restored or f"{run.path} has no checkpoint yet: starting at round 0")
    run.rewind(assembly.state.round)
    run.write_config(as_kept(config))
    if record is not None:
        run.write_json("data.json", record)
    if config.loop.rounds > config.loop.horizon and any(p.decay != "constant" for p in assembly.state.players):
        end = f"learning rates end at zero in round {config.loop.horizon} (loop.horizon, fixed at first start)"
        say(f"WARNING: {end}: later rounds change nothing")


def must_be_fresh(run: RunDirectory, config: DictConfig) -> None:
    """Refuse to start a run at round 0 that has had checkpoints.

    A run that was killed before its first checkpoint has rows as well: no more than up to the round in which one was
    due, and its folder of checkpoints, which is made at the start.

    Args:
        run: has no checkpoint.
        config: with which it has run.

    Raises:
        RunDirectoryError: the checkpoints have been taken away.
    """
    tables = [run.rows(), run.score_rows()]
    last = max((int(float(row["round"])) for table in tables for row in table), default=0)
    loop = config.loop
    due = [loop.checkpoint_every, loop.evaluate_every if loop.keep_best > 0 else 0]
    first = min((rounds for rounds in due if rounds > 0), default=last)
    if last > 0 and (last > first or not run.folder.is_dir()):
        raise RunDirectoryError(
            f"{run.path} has rows up to round {last}, but its checkpoints are gone: put them back, or start a new run"
        )


def command_to_go_on(run: RunDirectory, assembly: Assembly, typed: Sequence[str] = ()) -> str:
    """Return what to type to go on with a run: it names what the run's own code needs to be trusted, and the tracker.

    Args:
        run: its directory.
        assembly: its objects.
        typed: the overrides of this call: a run does not keep which tracker follows it.
    """
    tracker = [shlex.quote(text) for text in typed if re.match(r"\+{0,2}tracker[.=]", text)]
    return " ".join(["se-train", override("resume", run.path), *_trust(assembly), *tracker])


def command_to_sample(run: RunDirectory, assembly: Assembly, words: str) -> str:
    """Return what to type to draw samples of a run, as :func:`command_to_go_on` does."""
    return " ".join(["se-sample", word(run.path), words, *_trust(assembly)])


def _trust(assembly: Assembly) -> list[str]:
    packages = needed(assembly.locator)
    return [f"trust={packages[0]}" if len(packages) == 1 else f"'trust=[{','.join(packages)}]'"] * bool(packages)
