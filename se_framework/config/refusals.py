"""What Hydra and OmegaConf refuse, in one sentence that names the key. Imports neither torch nor models."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from se_framework.config.files import config_dir, groups
from se_framework.errors import ConfigError, nearest


def check_overrides(overrides: Sequence[str], known: dict[str, list[str]], sweep: bool = False) -> None:
    """Refuse overrides that Hydra's grammar cannot read, groups or choices that do not exist, values that do not fit.

    Args:
        overrides: as typed.
        known: the choices of every group.
        sweep: whether several values may be given for a key.

    Raises:
        ConfigError: one sentence that names the key.
    """
    parser = OverridesParser.create()
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except (HydraException, RecursionError) as error:
            raise ConfigError(_unreadable(text)) from error
        _check_choice(override, known)
        if override.is_sweep_override() and not sweep:
            key, _, value = text.partition("=")
            raise ConfigError(
                f"{key}={value}: several values are a sweep, which needs -m; a list is written {key}=[...], a text "
                f"quoted, {quoted(key, value)}"
            )


def _unreadable(text: str) -> str:
    key, equals, value = text.partition("=")
    if not equals or not key.strip("+~ "):
        return f"{text!r} is not an override: write KEY=VALUE, e.g. loop.rounds=100"
    if not re.fullmatch(r"(\+\+?|~)?[\w./$@:-]+", key):
        return f"{key!r} is no key, in {text!r}: write KEY=VALUE, e.g. loop.rounds=100"
    return f"{key}: Hydra cannot read the value {value!r}: quote it, {quoted(key, value)}"


def _check_choice(override: Override, known: dict[str, list[str]]) -> None:
    key = override.key_or_group
    if not key:
        raise ConfigError(f"{override.input_line!r} is not an override: write KEY=VALUE, e.g. loop.rounds=100")
    if override.is_delete() and key in known and override.package is None:
        instead = f"choose another, {key}=CHOICE; {nearest('', known[key])}"
        raise ConfigError(f"~{key} deletes a part of the equation: {instead}")
    picked = override.value()
    if key not in known:
        # Hydra's own groups (hydra/launcher, ...) take names, and stumble over anything else.
        if "/" in key and not isinstance(picked, (str, list, ChoiceSweep, type(None))):
            raise ConfigError(f"{key} takes the name of a choice, got {picked!r}")
        return
    for choices in picked.list if isinstance(picked, ChoiceSweep) else [picked]:
        for choice in choices if isinstance(choices, list) else [choices]:
            if not isinstance(choice, dict) and str(choice) not in known[key]:
                shown = "null" if choice is None else choice
                raise ConfigError(f"{key}={shown}: no such choice; {nearest(str(shown), known[key])}")


def quoted(key: str, value: str) -> str:
    """Return the override with quotes that both the shell and Hydra's grammar take."""
    inner = value.replace("\\", "\\\\").replace('"', '\\"')
    return f"'{key}=\"{inner}\"'"


def explain(error: BaseException, config_dirs: Sequence[Path] = ()) -> str:
    """Return one sentence for a refusal of Hydra's composition.

    Args:
        error: the refusal.
        config_dirs: the user's folders of configurations.
    """
    text, reason = _texts(error)
    return (
        _of_defaults(text, config_dirs)
        or _of_merging(text, reason, config_dirs)
        or _of_key(text, config_dirs)
        or text
        or f"the configuration cannot be composed ({type(error).__name__})"
    )


def _texts(error: BaseException) -> tuple[str, str]:
    """Return what an error says, on one line, and what the first of its causes says that says anything."""
    told: list[str] = []
    seen: BaseException | None = error
    while seen is not None and len(told) < 8:
        told.append(" ".join(str(seen).split()))
        seen = seen.__cause__ or seen.__context__
    spoken = [text for text in told if text not in ("", "None")]
    return spoken[0] if spoken else "", spoken[1] if len(spoken) > 1 else ""


def _of_defaults(text: str, config_dirs: Sequence[Path]) -> str | None:
    """Explain what is wrong in a list of defaults."""
    folders = [config_dir(), *config_dirs]
    if match := re.search(r"(?:In '([^']+)': )?Could not (?:find|load) '([^']+)/([^'/]+)'", text):
        where, group, choice = match.groups()
        known = groups(folders)
        if (inner := group.rpartition("/")[2]) in known and group not in known:
            return f"{where}: no group {group!r}: in its defaults write '/{inner}: {choice}', with the slash"
        if group in known:
            return f"{group}={choice}, in a list of defaults: no such choice; {nearest(choice, known[group])}"
        options = re.search(r"Available options in '[^']+': (.*?) Config search path", text)
        these = f"; known: {', '.join(options[1].split())}" if options else ""
        return f"{group}={choice}: no such choice{these}"
    if match := re.search(r"Multiple values for (\w+)\. To override a value use 'override \w+: (\w+)'", text):
        group, choice = match.groups()
        return f"{group} is chosen already: in the defaults of an experiment write 'override /{group}: {choice}'"
    if match := re.search(r"Could not override 'experiment/(\w+)", text):
        return f"experiment has no group of its own {match[1]!r}: write 'override /{match[1]}: CHOICE', with the slash"
    return None


def _of_merging(text: str, reason: str, config_dirs: Sequence[Path]) -> str | None:
    """Explain a value that does not fit where it was put."""
    if not (match := re.search(r"Error merging override [+~]*([^=\s]+)=?(.*)", text)):
        return None
    if unknown := re.search(r"Key '([^']+)' is not in struct(?: full_key: (?!object_type)(\S+))?", reason):
        return _unknown(unknown[2] or unknown[1], config_dirs)
    why = re.split(r" full_key:", reason)[0].rstrip(".")
    return f"{match[1]} cannot be {match[2] or 'nothing'}" + (f": {why}" if why else "")


def _of_key(text: str, config_dirs: Sequence[Path]) -> str | None:
    """Explain a key that does not exist."""
    for pattern in (r"Could not (?:override|delete) '([^']+)'", r"Could not delete from config\. '([^']+)'",
                    r"Could not append to config\. An item is already at '([^']+)'",
                    r"full_key: (?!object_type)(\S+)"):  # fmt: skip
        if match := re.search(pattern, text):
            return _unknown(match[1], config_dirs)
    return None


def _unknown(asked: str, config_dirs: Sequence[Path]) -> str:
    folders = [config_dir(), *config_dirs]
    key, at, place = asked.partition("@")
    group, _, leaf = key.partition(".")
    if at:
        return f"{asked}: no choice stands at {place or 'no place'!r}: add one by +{key}@{place or 'PLACE'}=CHOICE"
    if group == "hydra":
        return f"unknown key {key!r}: none of Hydra's settings (se-train --cfg hydra lists them)"
    files = [file for folder in folders for file in (folder / group).glob("*.yaml") if file.is_file()]
    having = [file.stem for file in files if f"\n{leaf}:" in file.read_text(encoding="utf-8")]
    own = config_dirs and leaf and group in groups(config_dirs)
    plus = f" (or +{key}=VALUE, if the class of your own {group} takes it)" if own else ""
    if leaf and having:
        return f"unknown key {key!r}: it belongs to {group}={' or '.join(sorted(having))}, add that{plus}"
    known = known_keys()
    if key in known:
        return f"{key} is not there to be changed: the configuration put another value in the place of {group!r}"
    level = [k for k in known if k.rpartition(".")[0] == key.rpartition(".")[0]]
    near = difflib.get_close_matches(key, known, n=1)
    return f"unknown key {key!r}: {nearest(key, near or level or [k for k in known if '.' not in k])}{plus}"


def known_keys() -> list[str]:
    """Return every key of the default configuration, dotted, and every group."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        container = OmegaConf.to_container(hydra_compose("config"), resolve=False)
    found: list[str] = list(groups([config_dir()]))

    def walk(node: Any, prefix: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                found.append(f"{prefix}{key}")
                walk(value, f"{prefix}{key}.")

    walk(container, "")
    return found
