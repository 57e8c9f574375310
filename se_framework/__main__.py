"""``se-train``: from the typed words to a run. Heavy imports come after composition."""

from __future__ import annotations

import contextlib
import os
import sys
from argparse import Namespace
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from se_framework.config.command_line import check_writable, is_file, needs_hydra, parse, run_directory, usage
from se_framework.config.composing import (
    compose_all,
    find_own_modules,
    prepare_imports,
    register_resolvers,
    with_starts,
)
from se_framework.config.files import check_config_dirs, config_dir, groups
from se_framework.config.refusals import parsed
from se_framework.config.schema import validate
from se_framework.config.stages import with_choices_named
from se_framework.errors import ConfigError, SEError
from se_framework.runs.sweeps import record_job
from se_framework.training.console import open_streams, put
from se_framework.training.interrupts import signals_told

register_resolvers()
THERE: set[Path] = set()
"""Directories around the run or sweep that were there before this process made any; in a launcher's process none."""


def main() -> None:
    """Run the command line ``se-train``: compose once and train; sweeps and what is printed are Hydra's."""
    open_streams()
    with signals_told("se-train"):
        try:
            prepare_imports()
            sys.argv[1:] = with_starts(sys.argv[1:])
            arguments = parse(sys.argv[1:])
            composed = checked(arguments)
            if arguments.help:
                put(usage(arguments.config_dirs), "stdout")
                return
            remember(sweep_directory(arguments) if composed is None else run_directory(composed))
            if composed is None or needs_hydra(arguments, composed):
                _hydra_main()
            else:
                own = [str(key) for key in composed if key != "hydra"]
                train(OmegaConf.masked_copy(composed, own), run_directory(composed), arguments.overrides)
        except SEError as error:
            report(error)


def sweep_directory(arguments: Namespace) -> Path:
    """Return where a sweep goes, as far as the words say it."""
    named = [o.partition("=")[2] for o in arguments.overrides if o.startswith("hydra.sweep.dir=")]
    return Path(named[-1] if named and "$" not in named[-1] else "multirun")


def remember(directory: Path) -> None:
    """Keep in mind which directories are there already: those are the user's, empty or not."""
    places = (directory, *directory.absolute().parents, *directory.glob("*"), Path.cwd())
    THERE.update(place.resolve() for place in places if place.is_dir())


def checked(arguments: Namespace) -> DictConfig | None:
    """Return what the words compose to; None for a sweep, of which every job is composed.

    Raises:
        ConfigError: one sentence that names the flag or key.
    """
    dirs, overrides = arguments.config_dirs, arguments.overrides
    if arguments.shell_completion:
        return None
    if arguments.help and not overrides:  # nothing that could be wrong but the folders
        check_config_dirs(dirs)
        return None
    if arguments.multirun:
        check_config_dirs(dirs)
        parsed(overrides, groups([config_dir(), *dirs]), sweep=True)
        if any(o.startswith("resume=") and o != "resume=auto" for o in overrides):
            raise ConfigError("a sweep goes on with resume=auto; to resume one run by its directory leave out -m")
        check_writable(sweep_directory(arguments), "hydra.sweep.dir")
        return None
    return compose_all(overrides, dirs)


def train(composed: DictConfig, directory: Path, overrides: list[str], job: int | None = None) -> float | None:
    """Train a configuration in a directory and return the score; a job of a sweep is recorded, whatever becomes of it.

    Args:
        composed: not validated yet, without Hydra's own part.
        directory: of a new run.
        overrides: as typed.
        job: its number in a sweep.

    Raises:
        SEError: whatever was wrong, in one sentence.
    """
    try:
        config = validate(composed)
        if config.resume in (None, "auto"):
            check_writable(directory)
        elif not is_file(Path(config.resume) / "config.yaml"):
            raise ConfigError(f"resume={config.resume}: not a run directory (it has no config.yaml)")
        if config.resume in (None, "auto") or config.trust:
            find_own_modules()
        from se_framework.commands.train import train_run

        outcome = train_run(config, directory, overrides, job)
    except BaseException as error:
        if job is not None:  # Hydra prints an error at the end and goes on with the next job; a signal ends the sweep
            stopped = isinstance(error, (SystemExit, KeyboardInterrupt))
            sentence = str(error) if isinstance(error, SEError) else f"{type(error).__name__}: {error}"
            record_job(directory, job, overrides, "stopped" if stopped else "failed", error=sentence)
        raise
    finally:
        remove_if_empty(directory)
    if job is not None and outcome.status != "dry run":
        record_job(directory, job, overrides, outcome.status, outcome.score, outcome.directory)
    return outcome.score


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")
def _hydra_main(composed: DictConfig) -> float | None:
    """Train what Hydra composed: a job of a sweep, or a run around which it does something."""
    runtime = HydraConfig.get()
    directory, overrides = Path(runtime.runtime.output_dir), list(runtime.overrides.task)
    job = runtime.job.num if runtime.mode == RunMode.MULTIRUN else None
    try:
        prepare_imports()  # a launcher may have started this process
        own = [source.path for source in runtime.runtime.config_sources if source.schema == "file"]
        with_choices_named(composed, [Path(path) for path in own])
        return train(composed, directory, overrides, job)
    except SEError as error:
        if job is None:
            report(error)
        raise


def report(error: SEError) -> None:
    """Print an error as one sentence and leave with code 1; ``HYDRA_FULL_ERROR=1`` shows the traceback."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        raise error
    put(f"se-train: {' '.join(str(error).split())}")  # what a user typed may have line breaks
    raise SystemExit(1)


def remove_if_empty(directory: Path) -> None:
    """Remove what was made for a job that wrote nothing: its directory and those above it, if they are empty.

    Not those that were there before. A process that a launcher started does not know: it removes the job's own alone.
    """
    with contextlib.suppress(OSError):
        for folder in (directory.absolute(), *directory.absolute().parents)[: None if THERE else 1]:
            if folder.resolve() in THERE:
                return
            folder.rmdir()


if __name__ == "__main__":
    main()
