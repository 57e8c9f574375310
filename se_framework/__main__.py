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

from se_framework.config.command_line import check
from se_framework.config.composing import config_dir, prepare_imports, register_resolvers
from se_framework.config.schema import validate
from se_framework.errors import SEError
from se_framework.runs.sweeps import record_job

register_resolvers()
STARTED = time.time() - 1  # file systems may keep time by the second


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
    print(f"se-train: {' '.join(str(error).split())}", file=sys.stderr)  # what a user typed may have line breaks
    raise SystemExit(1)


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
