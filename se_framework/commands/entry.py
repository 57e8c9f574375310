"""From the words after ``se-train`` to a run. Heavy imports come after composition."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from se_framework.commands.leftovers import no_empty_directories
from se_framework.config.command_line import check_writable, is_file, needs_hydra, parse, run_directory
from se_framework.config.completing import with_folder
from se_framework.config.composing import (
    compose_all,
    find_own_modules,
    prepare_imports,
    register_resolvers,
    with_starts,
)
from se_framework.config.files import check_config_dirs, config_dir, groups
from se_framework.config.helping import usage
from se_framework.config.refusals import parsed
from se_framework.config.schema import validate
from se_framework.config.stages import with_choices_named
from se_framework.errors import ConfigError, SEError
from se_framework.runs import sweeps
from se_framework.runs.files import make_folder
from se_framework.runs.lock import locked
from se_framework.runs.telling import say, tolerate_streams

register_resolvers()


def main() -> None:
    """Run the command line ``se-train``: compose once and train; sweeps and what is printed are Hydra's."""
    tolerate_streams()
    try:
        prepare_imports()
        sys.argv[1:] = with_folder(with_starts(sys.argv[1:]), os.environ.get("COMP_LINE", ""))
        arguments = parse(sys.argv[1:])
        composed = checked(arguments)
        if arguments.help is not None:
            print(usage(arguments.config_dirs, arguments.help))
        elif arguments.multirun:
            sweep(arguments.overrides)
        elif composed is None:
            _hydra_main()
        elif needs_hydra(arguments, composed):
            with no_empty_directories(run_directory(composed)):
                _hydra_main()
        else:
            own = [str(key) for key in composed if key != "hydra"]
            train(OmegaConf.masked_copy(composed, own), run_directory(composed), arguments.overrides)
    except SEError as error:
        report(error)


def sweep(overrides: list[str]) -> None:
    """Let Hydra run the jobs of a sweep, in a directory that no other sweep writes into meanwhile.

    Raises:
        RunDirectoryError: another sweep does; or it cannot be made.
    """
    typed = _sweep_directory(overrides)
    directory = Path(typed or sweeps.name_now())
    os.environ[sweeps.DIRECTORY] = str(directory)  # what hydra.sweep.dir is; a launcher's processes inherit it
    with no_empty_directories(directory):
        make_folder(directory, new=not typed)
        with locked(directory, name=sweeps.LOCK):
            try:
                _hydra_main()
            finally:
                for sentence in sweeps.finish(directory):
                    say(sentence)


def _sweep_directory(overrides: list[str]) -> str | None:
    """Return the directory that was typed for a sweep, None where it is ours to choose."""
    named = [o for o in parsed(overrides, {}, sweep=True) if str(o.key_or_group) == "hydra.sweep.dir"]
    value = named[-1].value() if named else None
    return value if isinstance(value, str) and "$" not in value else None


def checked(arguments: Namespace) -> DictConfig | None:
    """Return what the words compose to; None for a sweep, of which every job is composed.

    Raises:
        ConfigError: one sentence that names the flag or key.
    """
    dirs, overrides = arguments.config_dirs, arguments.overrides
    if arguments.shell_completion:
        return None
    if arguments.help is not None and not overrides:  # nothing that could be wrong but the folders
        check_config_dirs(dirs)
        return None
    if arguments.multirun:
        check_config_dirs(dirs)
        parsed(overrides, groups([config_dir(), *dirs]), sweep=True)
        if any(o.startswith("resume=") and o != "resume=auto" for o in overrides):
            raise ConfigError("a sweep goes on with resume=auto; to resume one run by its directory leave out -m")
        check_writable(Path(_sweep_directory(overrides) or "multirun"), "hydra.sweep.dir")
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
    if job is not None and not (composed.get("dry_run") or composed.get("cite")):
        sweeps.record_job(directory, job, overrides, "running")
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
            sweeps.record_job(directory, job, overrides, "stopped" if stopped else "failed", error=sentence)
        raise
    if job is not None and outcome.status != "dry run":
        sweeps.record_job(directory, job, overrides, outcome.status, outcome.score, outcome.directory)
    return outcome.score


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")
def _hydra_main(composed: DictConfig) -> float | None:
    """Train what Hydra composed: a job of a sweep, or a run around which it does something."""
    runtime = HydraConfig.get()
    directory, overrides = Path(runtime.runtime.output_dir), list(runtime.overrides.task)
    job = runtime.job.num if runtime.mode == RunMode.MULTIRUN else None
    tolerate_streams()
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
    say(" ".join(str(error).split()))  # what a user typed may have line breaks
    raise SystemExit(1)
