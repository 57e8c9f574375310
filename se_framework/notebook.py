"""From Python: compose a configuration to objects, load a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from se_framework.assembly import Assembly, assembly_of
from se_framework.composing import compose as compose_config
from se_framework.config_files import read_yaml
from se_framework.errors import ConfigError
from se_framework.run_directory import RunDirectory
from se_framework.schema import validate


def compose(experiment: str | None = None, overrides: Sequence[str] = (), data: Any = None) -> Assembly:
    """Return the objects of an experiment.

    Args:
        experiment: a choice of the group ``experiment``; None for the default.
        overrides: as on the command line, e.g. ``["loop.rounds=100", "divergence=kl"]``.
        data: a tensor (N, *E), a Dataset of tensors or a ``se_framework.data.Data`` in the place of the configured one.

    Raises:
        ConfigError: a key, type or choice is wrong.
        IncompatibleError: the choices do not form a legal equation.
    """
    return assembly_of(compose_config(experiment, overrides), data)


def saved_config(run: RunDirectory) -> DictConfig:
    """Return a run's own configuration, validated.

    Raises:
        ConfigError: its file cannot be read, is no configuration, or holds a key or value of the wrong kind.
        RunDirectoryError: no such run.
    """
    file = run.require().config_file
    read_yaml(file, str(file))  # as YAML it is small, flat and without a key twice: only then OmegaConf reads it
    try:
        config = OmegaConf.load(file)
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{file} is no configuration: {' '.join(str(error).split())}") from error
    assert isinstance(config, DictConfig)
    try:
        return validate(config)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def load(run_dir: str | Path, device: str | None = None, data: Any = None) -> Assembly:
    """Return the objects of a run with the weights of its newest checkpoint.

    ``load(dir).model`` and ``.metric`` are the trained (averaged) modules; ``.state.history`` holds the logged rows.

    Args:
        run_dir: the directory a run was written to.
        device: a torch device; None for the run's own setting.
        data: in the place of the configured data.

    Raises:
        RunDirectoryError: no such run, or no checkpoint of it can be read.
    """
    run = RunDirectory(run_dir)
    config = saved_config(run)
    if device is not None:
        config.device = device
    assembly = assembly_of(config, data)
    restore(assembly, run)
    return assembly


def restore(assembly: Assembly, run: RunDirectory) -> str:
    """Load the newest checkpoint into an assembly and return what was restored, in words."""
    found = run.load_checkpoint(assembly.device)
    if found is None:
        return f"{run.path} has no checkpoint yet: starting at round 0"
    saved, path = found
    assembly.state.load_state_dict(saved)
    assembly.state.history = [{k: _number(v) for k, v in row.items()} for row in run.rows()]
    players = ", ".join(player.name for player in assembly.state.players)
    return f"restored {path.name}: round {assembly.state.round}, players {players}"


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell
