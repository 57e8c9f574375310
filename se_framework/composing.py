"""Compose configurations with Hydra, and turn its refusals into one sentence each. Imports neither torch nor models."""

from __future__ import annotations

import difflib
import importlib.util
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from se_framework.errors import ConfigError, nearest
from se_framework.schema import validate


def config_dir() -> Path:
    """Return the folder of our configurations: inside the package when installed, else beside it."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def register_resolvers() -> None:
    """Let the configuration say where a run is written: where it resumes, else a fresh directory."""

    def run_dir(resume: str | None) -> str:
        return resume if resume not in (None, "auto") else datetime.now().strftime("outputs/%Y-%m-%d/%H-%M-%S-%f")

    OmegaConf.register_new_resolver("se_run_dir", run_dir, replace=True)


def prepare_imports(own: bool = True) -> None:
    """Let users' modules in the working directory be found, after ours, and refuse others of our packages' names.

    A folder ``models/`` in the working directory replaces nothing; one that stands before ours on the path would.

    Args:
        own: whether modules of the working directory are wanted. Where a run directory is read and no package trusted,
            they are not: the folder may be the stranger's, and packages look for others that may be absent.

    Raises:
        ConfigError: the three packages do not lie beside each other; the message names both paths.
    """
    here, home = Path.cwd(), Path(__file__).resolve().parent.parent
    sys.path[:] = [p for p in sys.path if p not in ("", ".", str(here))]
    Plugins.instance()  # Hydra imports every hydra_plugins that it sees, once: those installed, not those lying here
    if own or here.resolve() == home:
        sys.path.append(str(here))
    for name in ("models", "divergences"):
        spec = importlib.util.find_spec(name)
        where = [Path(p).resolve() for p in (spec.submodule_search_locations or [spec.origin or "."])] if spec else []
        if where != [home / name]:
            found = where[0] if where else "nowhere"
            raise ConfigError(
                f"the package {name} is taken from {found}, not from {home / name} beside se_framework: rename what "
                "shadows it, or take it off PYTHONPATH"
            )


def groups(config_dirs: Sequence[Path]) -> dict[str, list[str]]:
    """Return the choices of every configuration group."""
    found: dict[str, list[str]] = {}
    for folder in config_dirs:
        for file in sorted(folder.glob("*/*.yaml")):
            found.setdefault(file.parent.name, []).append(file.stem)
    return found


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
    register_resolvers()
    overrides = [*([f"experiment={experiment}"] if experiment else []), *overrides]
    known = groups([config_dir(), *config_dirs])
    check_config_dirs(config_dirs)
    check_overrides(overrides, known)
    search = (
        [f"hydra.searchpath=[{','.join('file://' + str(d.resolve()) for d in config_dirs)}]"] if config_dirs else []
    )
    hydra = GlobalHydra.instance()
    hydra.clear()
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            composed = hydra_compose("config", [*overrides, *search])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, config_dirs)) from error
    return validate(composed)


def check_config_dirs(config_dirs: Iterable[Path]) -> None:
    """Refuse what Hydra would ignore or misread in the user's folders of configurations.

    Raises:
        ConfigError: a file is not YAML or has a name of ours, a folder's name is nearly that of a group, or an
            experiment does not say that it stands at the root.
    """
    ours = groups([config_dir()])
    for folder in config_dirs:
        for group, choices in groups([folder]).items():
            if group not in ours and difflib.get_close_matches(group, ours):
                raise ConfigError(f"--config-dir has a folder {group}, no group of ours: {nearest(group, ours)}")
            for choice in choices:
                name, text = f"{group}/{choice}.yaml", (folder / group / f"{choice}.yaml").read_text()
                if choice in ours.get(group, ()):
                    raise ConfigError(f"--config-dir has {name}, a name we ship too: rename it")
                try:
                    yaml.safe_load(text)
                except yaml.MarkedYAMLError as error:
                    line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
                    raise ConfigError(f"--config-dir: {name}{line} is not YAML: {error.problem}") from error
                if group == "experiment" and not re.match(r"#\s*@package\s+_global_\s", text):
                    raise ConfigError(
                        f"--config-dir: the first line of {name} must be '# @package _global_': without it its keys "
                        "stand below 'experiment' and choose nothing"
                    )


def check_overrides(overrides: Sequence[str], known: dict[str, list[str]]) -> None:
    """Refuse overrides that Hydra's grammar cannot read, and groups or choices that do not exist."""
    parser = OverridesParser.create()
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except (OverrideParseException, HydraException) as error:
            key, equals, value = text.partition("=")
            if not equals:
                raise ConfigError(f"{text!r} is not an override: write KEY=VALUE, e.g. loop.rounds=100") from error
            raise ConfigError(
                f"{key}: Hydra cannot read the value {value!r}: quote it, {quoted(key, value)}"
            ) from error
        key = override.key_or_group
        picked = override.value()
        for choice in picked.list if isinstance(picked, ChoiceSweep) else [picked]:
            if key in known and not isinstance(choice, (dict, list)) and str(choice) not in known[key]:
                shown = "null" if choice is None else choice
                raise ConfigError(f"{key}={shown}: no such choice; {nearest(str(shown), known[key])}")


def quoted(key: str, value: str) -> str:
    """Return the override with quotes that both the shell and Hydra's grammar take."""
    inner = value.replace("\\", "\\\\").replace('"', '\\"')
    return f"'{key}=\"{inner}\"'"


def explain(error: Exception, config_dirs: Sequence[Path] = ()) -> str:
    """Return one sentence for a refusal of Hydra's composition.

    Args:
        error: the refusal.
        config_dirs: the user's folders of configurations.
    """
    text, folders = " ".join(str(error).split()), [config_dir(), *config_dirs]
    if match := re.search(r"Could not find '(\w+)/(\w+)'", text):
        group, choice = match.groups()
        return f"{group}={choice}, in a list of defaults: no such choice; {nearest(choice, groups(folders)[group])}"
    if match := re.search(r"Multiple values for (\w+)\. To override a value use 'override \w+: (\w+)'", text):
        group, choice = match.groups()
        return f"{group} is chosen already: in the defaults of an experiment write 'override /{group}: {choice}'"
    if match := re.search(r"Could not override 'experiment/(\w+)", text):
        return f"experiment has no group of its own {match[1]!r}: write 'override /{match[1]}: CHOICE', with the slash"
    for pattern in (r"Could not override '([^']+)'", r"Could not append to config\. An item is already at '([^']+)'",
                    r"full_key: (\S+)"):  # fmt: skip
        if match := re.search(pattern, text):
            key = match.group(1).split("@")[0]
            group, _, leaf = key.partition(".")
            files = [file for folder in folders for file in (folder / group).glob("*.yaml")]
            having = [file.stem for file in files if f"\n{leaf}:" in file.read_text()]
            own = config_dirs and leaf and group in groups(config_dirs)
            plus = f" (or +{key}=VALUE, if the class of your own {group} takes it)" if own else ""
            if having:
                return f"unknown key {key!r}: it belongs to {group}={' or '.join(sorted(having))}, add that{plus}"
            return f"unknown key {key!r}: {nearest(key, known_keys())}{plus}"
    return text


def known_keys() -> list[str]:
    """Return every key of the default configuration, dotted, and every group."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        container = OmegaConf.to_container(hydra_compose("config"), resolve=False)
    found: list[str] = list(groups([config_dir()]))

    def walk(node: object, prefix: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                found.append(f"{prefix}{key}")
                walk(value, f"{prefix}{key}.")

    walk(container, "")
    return found
