"""``se-train``: compose a configuration with Hydra and train. Heavy imports come after composition."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from se_framework.composing import (
    check_config_dirs,
    check_overrides,
    compose,
    config_dir,
    groups,
    prepare_imports,
    register_resolvers,
)
from se_framework.errors import ConfigError, SEError
from se_framework.schema import validate
from se_framework.sweeps import record_job

register_resolvers()
STARTED = time.time() - 1  # file systems may keep time by the second
INFORMATION = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc")
WITH_VALUE = (
    "--config-dir",
    "-cd",
    "--config-path",
    "-cp",
    "--config-name",
    "-cn",
    "--package",
    "-p",
    "--experimental-rerun",
)


def main() -> None:
    """Run the command line ``se-train``."""
    try:
        prepare_imports()
        check(sys.argv[1:])
    except SEError as error:
        report(error)
    _hydra_main()


def report(error: SEError) -> None:
    """Print an error as one sentence and leave with code 1; ``HYDRA_FULL_ERROR=1`` shows the traceback."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        raise error
    print(f"se-train: {error}", file=sys.stderr)
    raise SystemExit(1)


def check(arguments: list[str]) -> None:
    """Refuse a command line that cannot be composed before Hydra makes a directory for it."""
    overrides, dirs, skip = [], [], None
    for argument in arguments:
        if skip is not None:
            if skip in ("--config-dir", "-cd"):
                dirs.append(Path(argument))
            skip = None
        elif argument in WITH_VALUE:
            skip = argument
        elif argument.startswith("--config-dir="):
            dirs.append(Path(argument.partition("=")[2]))
        elif not argument.startswith("-"):
            overrides.append(argument)
    for folder in dirs:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir {folder} is not a directory")
    if any(a.split("=")[0] in ("-m", "--multirun") for a in arguments):
        check_config_dirs(dirs)
        check_overrides(overrides, groups([config_dir(), *dirs]))
        if any(o.startswith("resume=") and o != "resume=auto" for o in overrides):
            raise ConfigError("a sweep goes on with resume=auto; to resume one run by its directory leave out -m")
    elif not any(a.split("=")[0] in INFORMATION for a in arguments):
        config = compose(None, overrides, dirs)
        resume = config.resume
        if resume not in (None, "auto") and not (Path(resume) / "config.yaml").is_file():
            raise ConfigError(f"resume={resume}: not a run directory (it has no config.yaml)")
        prepare_imports(own=resume in (None, "auto") or bool(config.trust))


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")
def _hydra_main(composed: DictConfig) -> float | None:
    """Train one configuration; in a sweep, one job of it."""
    runtime = HydraConfig.get()
    directory = Path(runtime.runtime.output_dir)
    overrides = list(runtime.overrides.task)
    job = runtime.job.num if runtime.mode == RunMode.MULTIRUN else None
    try:
        config = validate(composed)
        prepare_imports(own=config.resume in (None, "auto") or bool(config.trust))  # a launcher may have started us
        from se_framework.commands.train import train_run

        outcome = train_run(config, directory, overrides, job)
    except BaseException as error:
        if job is not None:  # Hydra prints an error at the end and goes on with the next job; a signal ends the sweep
            stopped = isinstance(error, (SystemExit, KeyboardInterrupt))
            sentence = str(error) if isinstance(error, SEError) else f"{type(error).__name__}: {error}"
            record_job(directory, job, overrides, "stopped" if stopped else "failed", error=sentence)
        elif isinstance(error, SEError):
            report(error)
        raise
    finally:
        remove_if_empty(directory)
    if job is not None and outcome.status != "dry run":
        record_job(directory, job, overrides, outcome.status, outcome.score, outcome.directory)
    return outcome.score


def remove_if_empty(directory: Path) -> None:
    """Remove what Hydra made for a job that wrote nothing: empty directories younger than this process."""
    with contextlib.suppress(OSError):
        for folder in (directory, *directory.parents):
            if folder == Path.cwd() or folder.stat().st_mtime < STARTED or any(folder.iterdir()):
                return
            folder.rmdir()


if __name__ == "__main__":
    main()
