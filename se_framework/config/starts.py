"""A part that starts with the trained weights of another run: ``PART.from=RUN_DIR``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from se_framework.config.saved import saved_config
from se_framework.equation.roles import NAMES
from se_framework.equation.terms import OWN
from se_framework.errors import ConfigError, RunDirectoryError
from se_framework.reading import mapping, take
from se_framework.runs.directory import RunDirectory
from se_framework.training.fitting import round_of

SOURCE = "from"
"""Key of a part's node: the run whose weights it starts with."""
LARGEST_SOURCE = 2**34
"""Bytes of that run's checkpoint: its other parts may be larger than ours."""


def without_source(node: Any) -> Any:
    """Return a part's node as its constructor wants it."""
    plain: Any = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
    return {key: value for key, value in plain.items() if key != SOURCE} if isinstance(plain, dict) else plain


def start_from(part: nn.Module, name: str, source: str, own: Path | None = None) -> None:
    """Give a part the trained weights of the same part of a finished run, averaged ones where the run has them.

    Nothing of the run is executed: its configuration and its checkpoint are read as a stranger's.

    Args:
        part: as it was built.
        name: ``model``, ``metric``, ``auxiliary`` or ``divergence``.
        source: the directory of the run.
        own: the directory of the run that is about to start.

    Raises:
        RunDirectoryError: no such run, or it has no checkpoint that can be read.
        ConfigError: it is the run itself, unfinished or an ensemble, or layers do not fit; the message names them.
    """
    key, run = f"{name}.from={source}", RunDirectory(Path(source).expanduser())
    if own is not None and run.path.resolve() == own.resolve():
        raise ConfigError(f"{key} is the run itself: name another, or go on with it by resume={source}")
    config, found = saved_config(run), run.load_checkpoint(largest=LARGEST_SOURCE)
    rounds = 0 if found is None else round_of(*found[:2])
    if found is None or rounds < config.loop.rounds:
        raise ConfigError(
            f"{key}: that run has played {rounds} of {config.loop.rounds} rounds: finish it with resume={source}"
        )
    if "equation" not in found[0]:
        raise ConfigError(f"{key}: an ensemble, or a run of an earlier version, has no weights of one {name}")
    player = next(player for player, moved in NAMES.items() if moved == f"the {name}")
    try:
        saved = take(found[0], "equation", kind=mapping)
        average = take(found[0], "players", kind=mapping).get(player) or {}
        average = mapping(mapping(average).get("average") or {})
    except ValueError as error:
        raise RunDirectoryError(f"{key}: {found[1]} is no checkpoint of ours ({error}): choose another run") from error
    theirs = {k.removeprefix(f"{name}."): v for k, v in saved.items() if k.startswith(f"{name}.")}
    for k, value in average.items():
        inner = k.removeprefix("module.")
        inner = inner if inner in theirs else inner.removeprefix(f"{OWN}.")  # a player of several parts names them
        theirs |= {inner: value} if inner in theirs else {}
    ours = part.state_dict()
    unfit = [
        f"{k} {_shape(ours.get(k))} here, {_shape(theirs.get(k))} there"
        for k in sorted({*ours, *theirs})
        if _shape(ours.get(k)) != _shape(theirs.get(k))
    ]
    if unfit:
        shown = "; ".join(unfit[:4]) + (f"; and {len(unfit) - 4} more" if len(unfit) > 4 else "")
        raise ConfigError(f"{key}: layers do not fit ({shown}): choose {name} as in that run")
    part.load_state_dict(theirs)


def _shape(tensor: Any) -> str:
    return "absent" if tensor is None else str(tuple(tensor.shape)) if isinstance(tensor, Tensor) else "no tensor"
