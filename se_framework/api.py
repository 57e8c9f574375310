"""From Python: compose a configuration to objects, load a run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from se_framework.assembly import Assembly, EnsembleAssembly, assembly_of
from se_framework.config.composing import compose as compose_config
from se_framework.config.parts import check_objects
from se_framework.config.saved import saved_config
from se_framework.config.trust import Trust, packages
from se_framework.ensemble import member_config, members_of
from se_framework.errors import NonFiniteError, RunDirectoryError
from se_framework.runs.directory import RunDirectory
from se_framework.training.failure import failed_round, replay
from se_framework.training.fitting import largest, members_in, round_of
from se_framework.training.older import readable


def compose(
    experiment: str | None = None,
    overrides: Sequence[str] = (),
    data: Any = None,
    config_dirs: Sequence[str | Path] = (),
    **objects: Any,
) -> Assembly:
    """Return the objects of an experiment: what ``se-train`` makes of the same words.

    Args:
        experiment: a choice of the group ``experiment``; None for the default.
        overrides: as on the command line, e.g. ``["loop.rounds=100", "divergence=kl"]``.
        data: a tensor (N, *E), a Dataset of tensors or a ``se_framework.data.Data`` in the place of the configured one.
        config_dirs: folders of configurations of your own, as for ``--config-dir``.
        objects: parts in the place of the configured ones: ``model=``, ``metric=``, ``divergence=``, ``auxiliary=``.

    Raises:
        ConfigError: a key, type or choice is wrong, or a part is given as an object and overridden besides.
        IncompatibleError: the choices do not form a legal equation.
    """
    typed = [text.lstrip("+~").partition("=")[0].split("@")[-1] for text in overrides]
    check_objects(objects | ({} if data is None else {"data": data}), typed)
    return assembly_of(compose_config(experiment, overrides, [Path(d) for d in config_dirs]), data, **objects)


def load(
    run_dir: str | Path,
    device: str | None = None,
    data: Any = None,
    checkpoint: str | int = "last",
    trust: str | Sequence[str] = (),
    member: int | None = None,
    **objects: Any,
) -> Assembly:
    """Return the objects of a run with the weights of a checkpoint.

    ``load(dir).model`` and ``.metric`` are the trained (averaged) modules; ``.state.history`` holds the logged rows.

    Args:
        run_dir: the directory a run was written to.
        device: a torch device; None for cuda where there is one, else cpu.
        data: in the place of the configured data.
        checkpoint: ``"last"``, ``"best"`` (by score, see ``loop.keep_best``), or the round of one that was kept.
        trust: packages of your own (or another's) that the run may use besides ours and torch.
        member: of an ensemble, as the single run that it is; None for all (``.members``).
        objects: the parts that the run was given as objects, see :func:`compose`.

    Raises:
        ConfigError: the run names what is not trusted.
        RunDirectoryError: no such run, or no checkpoint of it can be read.
        ConfigError: the run names code that is neither ours nor torch's nor trusted.
    """
    run = RunDirectory(run_dir)
    config = saved_config(run)
    config.device = "auto" if device is None else device
    members = members_of(config)
    if member is not None:
        config = member_config(config, member)
    assembly = assembly_of(
        config, data, Trust(packages(trust)), rounds=rounds_of(config, run, str(checkpoint)), **objects
    )
    restored = restore(assembly, run, str(checkpoint), member, members=members)
    if restored is None:
        raise RunDirectoryError(f"{run.path} has no checkpoint yet, so there is nothing to load: let it train on first")
    if restored.startswith("WARNING"):
        warnings.warn(restored, stacklevel=2)
    return assembly


def reproduce(
    run_dir: str | Path,
    device: str | None = None,
    data: Any = None,
    trust: str | Sequence[str] = (),
    member: int | None = None,
) -> NonFiniteError:
    """Play the step again at which a run met a number that was not finite, and return the failure.

    Its ``record`` names player, round, step, term and source, and holds every term of the step; the folder
    ``failure`` holds the state that the step saw, its batch and its samples.

    Args:
        run_dir: the directory of the run.
        device: a torch device; None for the run's own setting.
        data: in the place of the configured data.
        trust: packages of your own (or another's) that the run may use besides ours and torch.
        member: of an ensemble, the one that failed.

    Raises:
        RunDirectoryError: no such run, it has not failed, or the failure does not occur again.
    """
    run = RunDirectory(run_dir)
    config = saved_config(run)
    if device is not None:
        config.device = device
    rounds = failed_round(run) + 1 if config.stages else 0
    if member is not None:
        config = member_config(config, member)
    assembly = assembly_of(config, data, Trust(packages(trust)), rounds=rounds)
    return replay(assembly.state, run, member)


def rounds_of(config: DictConfig, run: RunDirectory, checkpoint: str = "last") -> int:
    """Return how many rounds a checkpoint has seen, where that says which stage it is of; else 0."""
    found = run.load_checkpoint("cpu", checkpoint) if config.stages else None
    return 0 if found is None else round_of(*found[:2])


def restore(
    assembly: Assembly,
    run: RunDirectory,
    checkpoint: str = "last",
    member: int | None = None,
    to_go_on: bool = False,
    members: int = 1,
) -> str | None:
    """Load a checkpoint into an assembly and return what was restored, and what could not be; None if there is none.

    Args:
        assembly: of the run, or of one member of it.
        run: its directory.
        checkpoint: which.
        member: the number of the member; None for a whole run.
        to_go_on: whether the run shall train on; else it is looked at.
        members: how many the run has.

    Raises:
        RunDirectoryError: none can be read, or it does not fit; its tables are none.
    """
    own = assembly.members if isinstance(assembly, EnsembleAssembly) else [assembly]
    room = largest((a.state for a in own), 1 if member is None else members)
    found = run.load_checkpoint(assembly.device, checkpoint, room)
    if found is None:
        return None
    saved, path, problems = found
    rounds = round_of(saved, path)
    if member is not None:
        saved = members_in(saved, members)[0][member]
    try:
        afresh = assembly.state.load_state_dict(readable(saved, assembly.state, to_go_on))
    except RunDirectoryError as error:
        raise RunDirectoryError(f"{path}: {error}") from error
    states = [(k, a.state) for k, a in enumerate(own)] if isinstance(assembly, EnsembleAssembly) else []
    for k, state in [*states, (member, assembly.state)]:
        tables = (run.rows(), run.score_rows()) if k is None else run.member_rows(k)
        for rows, read in zip((state.history, state.scores), tables, strict=True):
            rows[:] = [{c: _number(v) for c, v in row.items()} for row in read if float(row["round"]) <= rounds]
    if checkpoint != "last":
        assembly.state.best = None  # that very round was asked for
    players = ", ".join(player.name for player in assembly.state.players)
    skipped = f"WARNING: {'; '.join(problems)}; the one before is used: " if problems else ""
    but = f"; the optimiser of {' and '.join(afresh)} starts afresh, its type was changed" if afresh else ""
    return f"{skipped}restored {path.name}: round {assembly.state.round}, players {players}{but}"


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell
