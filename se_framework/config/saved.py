"""The configuration that a run keeps, read as a stranger's."""

from __future__ import annotations

import os

from omegaconf import DictConfig

from se_framework.config.files import read_yaml
from se_framework.config.schema import validate
from se_framework.config.trust import no_links_out
from se_framework.errors import ConfigError, RunDirectoryError
from se_framework.runs.directory import RunDirectory

MOST_WORKERS = max(8, 2 * (os.cpu_count() or 1))
"""Processes that a run's own configuration may start; who wants more of them types ``workers``."""


def saved_config(run: RunDirectory) -> DictConfig:
    """Return a run's own configuration, validated; what it says of trust and of a tracker is not heard.

    Of its ``workers`` at most :data:`MOST_WORKERS` are taken: the number belongs to a machine, and each is a process.

    Raises:
        ConfigError: a key or value of it is wrong.
        RunDirectoryError: no such run, it cannot be read, or holds what a run does not.
    """
    no_links_out(run.require().path)
    try:
        found = read_yaml(run.config_file, str(run.config_file), strangers=True)
    except ConfigError as error:
        raise RunDirectoryError(f"{error}: se-train did not write that; do not use this run directory") from error
    if found is None:
        raise RunDirectoryError(f"{run.config_file} is empty: it is damaged; do not use this run directory")
    try:
        config = validate(found)
    except ConfigError as error:
        raise ConfigError(f"{run.config_file}: {error}") from error
    config.trust, config.tracker = [], {}
    config.workers = min(config.workers, MOST_WORKERS)
    return config
