"""Which run is meant, and what a resumed one may change. Configurations only: nothing is built here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from se_framework.config.saved import saved_config
from se_framework.config.schema import literal
from se_framework.errors import ConfigError, nearest
from se_framework.runs.directory import RunDirectory
from se_framework.runs.telling import override

OF_THE_CALL = ("resume", "resume_allow", "trust", "dry_run", "cite", "tracker")
"""Keys that say what one call does; a run keeps none of them."""
MAY_CHANGE = (
    "progress", "score", "device", "threads", "workers", "performance",
    "loop.rounds", "loop.log_every", "loop.checkpoint_every", "loop.picture_every", "loop.evaluate_every",
    "loop.keep_last", "loop.keep_best",
)  # fmt: skip
"""Keys a resumed run may change. All but device, threads and performance leave the trajectory as it was; those change
rounding, and a GPU draws other noise than a CPU."""
AUTO = {
    "device": "auto", "threads": None, "loop.horizon": None, "loop.batch_size": None,
    "loop.early_stop": "auto",
    "performance.graphs": "auto", "performance.compile": "auto",
}  # fmt: skip
"""Keys with the value that leaves the choice to us: it is made at the first start, recorded and kept."""
ABSENT = "nothing"


def with_choices(config: DictConfig, choices: dict[str, Any]) -> DictConfig:
    """Return the configuration as a run keeps it: choices are fixed, and files are found from anywhere.

    Args:
        config: as composed.
        choices: by key of :data:`AUTO`.
    """
    config = config.copy()
    for key, choice in choices.items():
        if OmegaConf.select(config, key) == AUTO[key]:
            OmegaConf.update(config, key, choice)
    for key in ("path", "labels", "root"):
        if isinstance(config.data, DictConfig) and isinstance(config.data.get(key), str):
            config.data[key] = str(Path(config.data[key]).expanduser().absolute())
    return config


def as_kept(config: DictConfig) -> str:
    """Return the text of a run's configuration: all but what belongs to one call."""
    kept = config.copy()
    for key in OF_THE_CALL:
        kept[key] = {"dry_run": False, "cite": False, "resume": None, "tracker": {}}.get(key, [])
    return OmegaConf.to_yaml(kept, resolve=True)


def changes(saved: DictConfig, wanted: DictConfig, typed: Collection[str] | None = None) -> dict[str, tuple[Any, Any]]:
    """Return what is asked to change in a run: dotted keys with old and new value, :data:`ABSENT` for none.

    Args:
        saved: the run's own configuration.
        wanted: what is asked for.
        typed: the keys that were asked for; None for all.
    """
    old, new = leaves(saved), leaves(with_choices(wanted, {key: OmegaConf.select(saved, key) for key in AUTO}))
    pairs = {key: (old.get(key, ABSENT), new.get(key, ABSENT)) for key in sorted({**old, **new})}
    return {
        key: (before, after)
        for key, (before, after) in pairs.items()
        if before != after and not below(key, OF_THE_CALL) and (typed is None or below(key, typed))
    }


def same_course(saved: DictConfig, wanted: DictConfig) -> bool:
    """Whether a run of one configuration is, round for round, a run of the other."""
    return all(below(key, (*MAY_CHANGE, *wanted.resume_allow)) for key in changes(saved, wanted))


def resumed_config(config: DictConfig, run: RunDirectory, overrides: Sequence[str]) -> DictConfig:
    """Return the run's own configuration with the changes that were typed and are allowed.

    Args:
        config: what the overrides compose to.
        run: the run.
        overrides: as typed. A key that was not typed asks for nothing; an experiment asks for all of its own, save how
            long and how often (:data:`MAY_CHANGE`).

    Raises:
        ConfigError: an override would change the run's course and ``resume_allow`` does not name it.
    """
    saved = saved_config(run)
    typed = {text.lstrip("+~").partition("=")[0].split("@")[-1] for text in overrides}
    known = {**leaves(saved), **leaves(config)}
    for key in config.resume_allow:
        if not any(below(leaf, (key,)) for leaf in known):
            raise ConfigError(f"resume_allow: the run has no key {key!r}: {nearest(key, known)}")
    asked = changes(saved, config, None if "experiment" in typed else typed)
    if saved.stages and "loop.rounds" in asked and below("loop.rounds", typed):
        raise ConfigError(f"resume={run.path}: loop.rounds is the sum of that run's stages: leave it out")
    refused = [key for key in asked if not below(key, (*MAY_CHANGE, *config.resume_allow))]
    if refused:
        asking = "; ".join(f"{key}: {asked[key][0]} -> {asked[key][1]}" for key in refused)
        raise ConfigError(
            f"{override('resume', run.path)} would change the run ({asking}): leave these out, permit them by "
            f"resume_allow=[{','.join(refused)}], or start a new run"
        )
    meant = {key: value for key, (_, value) in asked.items() if below(key, typed) or not below(key, MAY_CHANGE)}
    for key in (key for key, value in meant.items() if value == ABSENT):
        _delete(saved, key)  # before others are set: a mapping may become a value, or a value a mapping
    for key, value in meant.items():
        if value != ABSENT:
            OmegaConf.update(saved, key, value, merge=False, force_add=True)
    for key in OF_THE_CALL:
        saved[key] = literal(config[key])
    return saved


def _delete(config: DictConfig, key: str) -> None:
    """Delete a key, and the mappings that are empty without it."""
    parent, _, leaf = key.rpartition(".")
    section = OmegaConf.select(config, parent) if parent else config
    if isinstance(section, DictConfig) and leaf in section:
        del section[leaf]
        if parent and not section:
            _delete(config, parent)


def newest_run(config: DictConfig, directory: Path, in_sweep: bool = False) -> RunDirectory | None:
    """Return the run of the same configuration that was started, or went on, last; None if there is none.

    Runs are looked for in ``outputs/DATE/TIME`` and ``multirun/DATE/TIME/JOB`` of the working directory, and beside the
    directory this one would be written to; for the job of a sweep, in the sweeps beside its own.

    Args:
        config: validated.
        directory: where a new run would be written.
        in_sweep: whether it is the directory of a job.
    """
    here = Path.cwd()
    files = {*here.glob("outputs/*/*/config.yaml"), *here.glob("multirun/*/*/*/config.yaml")}
    own = directory.absolute().parent
    files |= {*(own.parent.glob("*/*/config.yaml") if in_sweep else own.glob("*/config.yaml"))}
    for file in sorted(files, key=lambda file: (_changed(file), str(file)), reverse=True):
        run = RunDirectory(file.parent)
        try:
            if same_course(saved_config(run), config):
                return run
        except Exception:  # noqa: BLE001  somebody else's, or damaged in whatever way: not the one that is meant
            continue
    return None


def _changed(file: Path) -> int:
    """Return when a file was changed, in ns; 0 for one that has gone since, or is out of reach."""
    try:
        return file.lstat().st_mtime_ns
    except OSError:
        return 0


def below(key: str, tops: Collection[str]) -> bool:
    """Whether a dotted key is one of these, or stands below one."""
    return any(key == top or key.startswith(f"{top}.") for top in tops)


def leaves(config: DictConfig) -> dict[str, Any]:
    """Return every value by its dotted key; lists and empty mappings are values."""
    found: dict[str, Any] = {}

    def walk(node: Any, key: str) -> None:
        if isinstance(node, dict) and node:
            for name, value in node.items():
                walk(value, f"{key}.{name}" if key else str(name))
        else:
            found[key] = node

    walk(OmegaConf.to_container(config, resolve=True), "")
    return found
