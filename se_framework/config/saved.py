"""The configuration that a run keeps, read as a stranger's."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from se_framework.config.schema import validate
from se_framework.config.trust import no_links_out, read_config
from se_framework.errors import ConfigError, RunDirectoryError
from se_framework.runs.directory import RunDirectory


def saved_config(run: RunDirectory) -> DictConfig:
    """Return a run's own configuration, validated; what it says of trust is not heard.

    Raises:
        ConfigError: a key or value of it is wrong.
        RunDirectoryError: no such run, it cannot be read, or holds what a run does not.
    """
    no_links_out(run.require().path)
    config = read_config(run.config_file)
    try:
        config = validate(config)
    except ConfigError as error:
        raise ConfigError(f"{run.config_file}: {error}") from error
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise RunDirectoryError(f"{run.config_file} lacks {', '.join(missing)}: it is damaged or of another version")
    config.trust = []
    return config
