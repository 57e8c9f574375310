"""Files of configurations: where ours lie, which choices there are, and what is refused in those that others wrote.

Imports neither torch nor models.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from se_framework.errors import ConfigError, nearest
from se_framework.reading import UnreadableError, read_bytes

LARGEST = 2**20  # bytes; ours have less than a thousandth of it
DEEPEST = 30  # levels; ours have five
MOST_VALUES = 100_000  # after references (`*name`) are written out
LONGEST_NUMBER = 70  # digits of a whole number: 64 bits, written in twos
_TAGS = {f"tag:yaml.org,2002:{name}" for name in "map seq str int float bool null binary timestamp merge".split()}


def config_dir() -> Path:
    """Return the folder of our configurations: inside the package when installed, else beside it."""
    home = Path(__file__).parents[1]
    return home / "configs" if (home / "configs").is_dir() else home.parent / "configs"


def groups(config_dirs: Sequence[Path]) -> dict[str, list[str]]:
    """Return the choices of every configuration group."""
    found: dict[str, list[str]] = {}
    for folder in config_dirs:
        for file in sorted(folder.glob("[!.]*/[!.]*.yaml")):
            found.setdefault(file.parent.name, []).append(file.stem)
    return found


def check_config_dirs(config_dirs: Iterable[Path]) -> None:
    """Refuse what Hydra would ignore, misread or stumble over in the user's folders of configurations.

    Raises:
        ConfigError: a file cannot be read (:func:`read_yaml`) or has a name of ours, a folder's name is nearly that of
            a group, an experiment does not say that it stands at the root, or a list of defaults names what is not.
    """
    ours, folders = groups([config_dir()]), list(config_dirs)
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir {folder} is not a directory")
        if (folder / "config.yaml").exists():
            raise ConfigError(
                f"--config-dir has config.yaml, which is ours and would be ignored: put its values into {folder}"
                "/experiment/NAME.yaml and add experiment=NAME"
            )
    known = groups([config_dir(), *folders])
    for folder in folders:
        for group, choices in groups([folder]).items():
            if group not in ours and difflib.get_close_matches(group, ours):
                raise ConfigError(f"--config-dir has a folder {group}, no group of ours: {nearest(group, ours)}")
            for choice in choices:
                name = f"{group}/{choice}.yaml"
                if choice in ours.get(group, ()):
                    raise ConfigError(f"--config-dir has {name}, a name we ship too: rename it")
                for problem in _problems(folder / name, group, f"--config-dir: {name}", known):
                    raise ConfigError(problem)


def _problems(file: Path, group: str, what: str, known: dict[str, list[str]]) -> Iterator[str]:
    """Yield what is wrong with a choice of the user's."""
    content = read_yaml(file, what)
    if content is None:
        yield f"{what} is empty: write KEY: VALUE, or {{}} for a choice without an object"
        return
    header = re.match(r"#\s*@package\b(.*)", file.read_text(encoding="utf-8-sig"))
    if header and len(header[1].split()) != 1:
        yield f"{what}: its first line must be '# @package NAME', got {header[0]!r}"
    if file.read_bytes().startswith(b"\xef\xbb\xbf"):
        yield f"{what} starts with a byte order mark, before which Hydra sees no '# @package': save it as plain UTF-8"
    if group == "experiment" and not (header and header[1].strip() == "_global_"):
        yield (
            f"--config-dir: the first line of {group}/{file.name} must be '# @package _global_': without it its keys "
            "stand below 'experiment' and choose nothing"
        )
    plain: Any = OmegaConf.to_container(content, resolve=False)
    defaults = plain.get("defaults", [])
    if not isinstance(defaults, list) or not all(map(_is_default, defaults)):
        yield f"{what}: defaults must be a list of '- GROUP: CHOICE', got {defaults!r}"
        return
    for item in defaults:
        ((name, choice),) = item.items() if isinstance(item, dict) else [(f"/{group}", item)]
        for picked in choice if isinstance(choice, list) else [choice]:
            problem = _of_default(str(name), picked, group, known)
            if problem:
                yield f"{what}: {problem}"


def _is_default(item: object) -> bool:
    """Whether Hydra can read an item of a list of defaults: a name, or one group with its choice or choices."""
    if not isinstance(item, dict):
        return isinstance(item, str)
    ((group, choice), *others) = item.items() or [(None, None)]
    choices = choice if isinstance(choice, list) else [choice]
    return isinstance(group, str) and not others and all(c is None or isinstance(c, str) for c in choices)


def _of_default(name: str, choice: str | None, group: str, known: dict[str, list[str]]) -> str | None:
    """Return what is wrong with one choice in a list of defaults, None where Hydra will find it (or say itself)."""
    *words, place = name.split()
    path, _, package = place.partition("@")
    inner = path.lstrip("/")
    if "${" in f"{name}{choice}" or "optional" in words or choice in (None, "_self_") or inner.startswith("hydra/"):
        return None
    if inner not in known:
        return f"its defaults name no group of ours, {inner!r}: {nearest(inner, known)}"
    if not path.startswith("/"):
        over = "override " if group == "experiment" else ""
        return f"its defaults look for {inner!r} below {group!r}: write '{over}/{inner}: {choice}', with the slash"
    if choice not in known[inner]:
        return f"its defaults choose {inner}={choice}: no such choice; {nearest(str(choice), known[inner])}"
    if group == "experiment" and inner != group and not words and not package:
        return f"{inner} is chosen already: write 'override /{inner}: {choice}' in its defaults"
    return None


def read_yaml(file: Path, what: str, strangers: bool = False) -> DictConfig | None:
    """Return the mapping a YAML file holds, or None for an empty file.

    Whatever the file is, it is refused before it costs time or memory: it may be a pipe, a device, or ten lines of
    references that multiply.

    Args:
        file: its path.
        what: how an error names it.
        strangers: whether it comes from a run directory. What we write there holds no interpolations (they could read
            the environment, or call whatever resolver is registered), references or tags.

    Raises:
        ConfigError: it is no file, too large, no text, no YAML, no mapping, has a key twice or one that is no name,
            is too deep, or holds references in a circle or too many of them, or what no run holds.
    """
    with yaml_told(what):
        text = read_bytes(file, LARGEST, links=True).decode("utf-8-sig")
        if checked(text, what, strangers) is None:
            return None
        content = OmegaConf.create(text)
        assert isinstance(content, DictConfig)
        return content


def checked(text: str, what: str, strangers: bool, loader: Any = yaml.SafeLoader) -> yaml.MappingNode | None:
    """Return the mapping that a text of YAML describes, None for an empty text, before any value of it is made.

    Raises:
        ConfigError, yaml.YAMLError: see :func:`read_yaml`.
    """
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ConfigError(
                f"{what}, line {event.start_mark.line + 1}, is nested deeper than {DEEPEST} levels: make it flatter"
            )
        if strangers and (found := _not_of_a_run(event)):
            raise ConfigError(f"{what}, line {event.start_mark.line + 1}, holds {found}")
    root = yaml.compose(text, Loader=loader)
    if root is None:
        return None
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{what} must hold KEY: VALUE pairs at its top, got {_named(root)}")
    if _values(root, what, (), {}) > MOST_VALUES:
        raise ConfigError(f"{what} has more than {MOST_VALUES} values once its references are written out")
    return root


@contextmanager
def yaml_told(what: str) -> Iterator[None]:
    """Turn whatever is wrong with a file of YAML into one sentence that names it.

    Raises:
        ConfigError: see above.
    """
    try:
        yield
    except ConfigError:
        raise
    except FileNotFoundError as error:
        raise ConfigError(f"{what} is missing or not a file") from error
    except UnreadableError as error:
        raise ConfigError(f"{what} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what} is not text in UTF-8 ({error.reason} at byte {error.start})") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}," if error.problem_mark else ""
        raise ConfigError(f"{what}{line} is not YAML: {error.problem}") from error
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{what} is not YAML that we read: {' '.join(str(error).split())[:200]}") from error
    except OSError as error:
        raise ConfigError(f"{what} cannot be read ({error.strerror})") from error


def _not_of_a_run(event: yaml.Event) -> str | None:
    """Return in words what a piece of YAML is that no configuration of a run holds."""
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
        return "a YAML reference"
    if getattr(event, "tag", None) is not None:
        return f"the YAML tag {event.tag!r}"
    return "an interpolation, which is not resolved" if "${" in str(getattr(event, "value", "")) else None


def _values(node: yaml.Node, what: str, above: tuple[int, ...], known: dict[int, int]) -> int:
    """Return how many values a node has with its references written out, and refuse what we cannot hold."""
    line = node.start_mark.line + 1
    if id(node) in above:
        raise ConfigError(f"{what}, line {line}, refers to itself: write the values out")
    if node.tag not in _TAGS:
        raise ConfigError(f"{what}, line {line}, is not YAML that we read: no values of the type {node.tag!r}")
    if node.tag.endswith(":int") and len(node.value) > LONGEST_NUMBER:
        raise ConfigError(f"{what}, line {line}, is not YAML that we read: a whole number of {len(node.value)} digits")
    if id(node) not in known:
        inside: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            inside = node.value
        elif isinstance(node, yaml.MappingNode):
            keys = [key for key, _ in node.value]
            inside = [*keys, *(value for _, value in node.value)]
            seen: set[str] = set()
            for key in keys:
                if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":null"):
                    raise ConfigError(f"{what}, line {key.start_mark.line + 1}, has a key that is no name")
                if key.value in seen:
                    raise ConfigError(f"{what}, line {key.start_mark.line + 1}, has the key {key.value!r} twice")
                seen.add(key.value)
        known[id(node)] = 1 + sum(_values(part, what, (*above, id(node)), known) for part in inside)
    return known[id(node)]


def _named(node: yaml.Node) -> str:
    return "a list" if isinstance(node, yaml.SequenceNode) else f"the value {str(node.value)[:40]!r}"
