"""Compose configurations with Hydra. Imports neither torch nor models."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from se_framework import check_neighbours
from se_framework.config.files import check_config_dirs, config_dir, groups
from se_framework.config.refusals import guilty, parsed
from se_framework.config.schema import validate
from se_framework.config.stages import PARTS, with_choices_named
from se_framework.errors import ConfigError
from se_framework.runs.sweeps import DIRECTORY, name_now


def register_resolvers() -> None:
    """Let the configuration say where a run or sweep is written: where it resumes, or began, else a fresh directory."""

    def run_dir(resume: str | None) -> str:
        return resume if resume not in (None, "auto") else datetime.now().strftime("outputs/%Y-%m-%d/%H-%M-%S-%f")

    def sweep_dir() -> str:
        return os.environ.get(DIRECTORY) or name_now()

    OmegaConf.register_new_resolver("se_run_dir", run_dir, replace=True)
    OmegaConf.register_new_resolver("se_sweep_dir", sweep_dir, replace=True)


def prepare_imports() -> None:
    """Take the working directory off the path, so that nothing there replaces a package or is loaded by one.

    Raises:
        ConfigError: the three packages do not lie beside each other; the message names both paths.
    """
    here, home = Path.cwd(), Path(__file__).resolve().parents[2]
    sys.path[:] = [p for p in sys.path if p not in ("", ".", str(here))]
    if here.resolve() == home:
        sys.path.append(str(here))
    check_neighbours()


@contextlib.contextmanager
def without_here() -> Iterator[None]:
    """Take the working directory off the path for a while: in a notebook it is there, and may be a stranger's."""
    before = list(sys.path)
    sys.path[:] = [p for p in sys.path if p not in ("", ".", str(Path.cwd()))]
    try:
        yield
    finally:
        sys.path[:] = before


def find_own_modules() -> None:
    """Let users' modules in the working directory be found, after all others.

    Not where a run directory is read and no package trusted: the folder may be the stranger's, and packages look for
    others that may be absent.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


def compose(
    experiment: str | None = None, overrides: Sequence[str] = (), config_dirs: Sequence[Path] = ()
) -> DictConfig:
    """Return the validated configuration of an experiment with overrides.

    Args:
        experiment: a choice of the group ``experiment``; None for the default.
        overrides: as on the command line, e.g. ``["loop.rounds=100", "divergence=kl"]``.
        config_dirs: further folders of configurations.

    Raises:
        ConfigError: one sentence that names the key, what was got and what to do.
    """
    words = [*([f"experiment={experiment}"] if experiment else []), *overrides]
    composed = compose_all(with_starts(words), config_dirs)
    OmegaConf.set_struct(composed, False)
    composed.pop("hydra", None)
    return validate(composed)


def with_starts(overrides: Sequence[str]) -> list[str]:
    """Return overrides in which ``model.from=RUN`` is marked as a key that choices need not have."""
    return [f"++{text}" if re.match(rf"({'|'.join(PARTS)})\.from=", text) else text for text in overrides]


def compose_all(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> DictConfig:
    """Return the configuration that Hydra composes, its own part ``hydra`` included, not yet validated.

    Raises:
        ConfigError: one sentence that names the key, what was got and what to do.
    """
    register_resolvers()
    check_config_dirs(config_dirs)
    known = groups([config_dir(), *config_dirs])
    typed = parsed(overrides, known)
    places = ",".join(f'"file://{str(d.resolve())}"' for d in config_dirs)
    search = [f"hydra.searchpath=[{places}]"] if config_dirs else []
    GlobalHydra.instance().clear()
    with without_here():
        Plugins.instance()  # imports every hydra_plugins that it sees, once: those installed, not those lying here
    try:
        with warnings.catch_warnings(), initialize_config_dir(str(config_dir()), version_base="1.3"):
            warnings.filterwarnings("error", "provider=hydra.searchpath")  # a folder that is not there
            try:
                composed = hydra_compose("config", [*overrides, *search], return_hydra_config=True)
            except REFUSALS as error:
                raise ConfigError(_explain(error, typed, known, search, config_dirs)) from error
    except RecursionError as error:
        raise ConfigError(
            "lists of defaults include each other in a circle: look at those of "
            f"{', '.join(map(str, config_dirs)) or 'your overrides'}"
        ) from error
    except UserWarning as error:
        raise ConfigError(f"hydra.searchpath: {error}") from error
    with_choices_named(composed, config_dirs)
    if composed.get("stages") and any(override.key_or_group == "loop.rounds" for override in typed):
        raise ConfigError("loop.rounds is the sum of the stages' rounds: leave it out, or change a stage")
    return composed


REFUSALS = (HydraException, OmegaConfBaseException, ValueError)
"""What Hydra raises; bare ValueErrors as well."""


def _explain(
    error: Exception, typed: Sequence[Override], known: dict[str, list[str]], search: list[str], dirs: Sequence[Path]
) -> str:
    """Return in one sentence which override is to blame, else what Hydra says.

    The choices are composed without the values, and the values' keys looked for there: no text is taken apart.
    """
    of_groups = [o for o in typed if o.key_or_group in known or "/" in str(o.key_or_group)]
    said = " ".join(str(error).split()) or f"the configuration cannot be composed ({type(error).__name__})"
    try:
        before = _choices(of_groups, search)
    except REFUSALS:
        for override in of_groups:
            if override.package is not None and not override.is_add():
                with contextlib.suppress(*REFUSALS):
                    _choices([o for o in of_groups if o is not override], search)
                    key, place = override.key_or_group, override.package
                    return f"{key}@{place}: no choice stands at {place!r}: add one by +{key}@{place or 'PLACE'}=CHOICE"
        return said
    return guilty([o for o in typed if o not in of_groups], before, dirs) or said


def _choices(overrides: Sequence[Override], search: list[str]) -> DictConfig:
    """Return the configuration of choices alone."""
    return hydra_compose("config", [*(str(o.input_line) for o in overrides), *search], return_hydra_config=True)
