"""Build objects from configuration nodes: the one place where a name becomes an object.

A node is ``{_target_: package.Class, argument: value, ...}``. Its schema is the constructor's annotated signature:
unknown and missing arguments and values of a wrong type are refused before anything is called.
"""

from __future__ import annotations

import importlib
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Literal, Union

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from pydantic import ConfigDict, PydanticUserError, TypeAdapter

from se_framework.errors import ConfigError, SEError, nearest

# What every constructor without such a parameter grants: `data._target_=mine.rows` over a choice with `labels: false`.
_MAY_BE_OFF = ("data.labels",)
MOVED = {
    "se_framework.auxiliary": "se_framework",
    "se_framework.transported": "se_framework",
    "se_framework.metric": "se_framework",
    "se_framework.penalties": "se_framework",
}
"""Modules that configurations of earlier runs name, and where their names are today."""


def names_of(path: str, key: str) -> list[str]:
    """Return the names of a dotted path.

    Raises:
        ConfigError: it is none.
    """
    names = path.split(".")
    if len(names) < 2 or not all(name.isidentifier() for name in names):
        raise ConfigError(f"{key} must be a dotted path package.name, got {path!r}")
    return names


def find(path: str, key: str) -> Any:
    """Return the object a dotted path names, whatever it is.

    Raises:
        ConfigError: no such module or no such name in it; the message names the key and the nearest name.
    """
    parts = names_of(path, key)
    found: Any = None
    for cut in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:cut])
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
                raise ConfigError(f"{key}: importing {module} failed: {error}") from error
            continue
        except Exception as error:  # noqa: BLE001  a user's module may raise anything on import
            raise ConfigError(f"{key}: importing {module} failed: {type(error).__name__}: {error}") from error
        for name in parts[cut:]:
            if not hasattr(found, name):
                public = [n for n in vars(found) if not n.startswith("_")]
                raise ConfigError(f"{key}: {path!r} does not exist, no {name!r} in {module}: {nearest(name, public)}")
            found = getattr(found, name)
        return found
    raise ConfigError(
        f"{key}: no module {parts[0]!r} for {path!r}; it must be installed or lie in the working directory"
    )


_LOCATOR: ContextVar[Callable[[str, str], Any]] = ContextVar("locator", default=find)


@contextmanager
def locating(locator: Callable[[str, str], Any]) -> Iterator[None]:
    """Let ``locator(path, key)`` turn every dotted path into its object; :func:`find` does where nothing is said."""
    token = _LOCATOR.set(locator)
    try:
        yield
    finally:
        _LOCATOR.reset(token)


def locate(path: str, key: str) -> Any:
    """Return the object a dotted path names: the one way from a text of the configuration to an object.

    Raises:
        ConfigError: it does not exist, or may not be named here.
    """
    return _LOCATOR.get()(path, key)


def build(node: Any, key: str, kind: type | None = None, **context: Any) -> Any:
    """Build the object a node describes; nested nodes first.

    Args:
        node: a mapping with ``_target_``; None or an empty mapping gives None.
        key: where it stands in the configuration, for messages.
        kind: the base class of what may stand here; None for anything.
        context: arguments passed to every constructor that has a parameter of that name (``event_shape``, ...).

    Raises:
        ConfigError: an argument is unknown, missing, of a wrong type, or refused by the constructor, or what it makes
            is of another kind.
    """
    target, arguments, _ = resolve(node, key, kind, **context)
    made = assemble(target, arguments, key)
    if kind is not None and made is not None and not isinstance(made, kind):
        raise ConfigError(f"{key}._target_ must give {_article(kind)}, got {_article(type(made))}")
    return made


def resolve(
    node: Any, key: str, kind: type | None = None, **context: Any
) -> tuple[Callable[..., Any] | None, dict[str, Any], str]:
    """Return the constructor a node names and its checked arguments, without calling it; see :func:`build`."""
    if isinstance(node, (DictConfig, ListConfig)):
        node = OmegaConf.to_container(node, resolve=True)
    if not node:
        return None, {}, key
    if not isinstance(node, Mapping) or "_target_" not in node:
        *_, group = ["divergence" if name == "view" else name for name in key.split(".")]
        choose = f": choose it by {group}@{key}={node}" if isinstance(node, str) and "." in key else ""
        raise ConfigError(f"{key} must be a choice of its group or a mapping with _target_, got {node!r}{choose}")
    module, _, name = str(node["_target_"]).rpartition(".")
    target = locate(f"{MOVED.get(module, module)}.{name}" if module else name, f"{key}._target_")
    if not callable(target):
        raise ConfigError(f"{key}._target_: {node['_target_']!r} is not a class")
    if isinstance(target, type) and kind is not None and not issubclass(target, kind):
        raise ConfigError(f"{key}._target_ must be {_article(kind)}, got {_article(target)} ({node['_target_']})")
    given = {k: v for k, v in node.items() if k != "_target_"}
    try:
        parameters = inspect.signature(target).parameters
    except ValueError as error:  # built-in types have none
        raise ConfigError(
            f"{key}._target_: {node['_target_']!r} tells no signature; give a class of your own"
        ) from error
    try:
        hints = typing.get_type_hints(getattr(target, "__init__") if isinstance(target, type) else target)  # noqa: B009
    except Exception:  # noqa: BLE001  annotations that cannot be evaluated check nothing
        hints = {}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    arguments: dict[str, Any] = {k: v for k, v in context.items() if k in parameters}
    for name, value in given.items():
        where = f"{key}.{name}"
        if where in _MAY_BE_OFF and not value and name not in parameters:
            continue
        if name not in parameters and not open_ended:
            raise ConfigError(f"unknown key {where!r}: {nearest(name, [p for p in parameters if p not in context])}")
        if value == MISSING:
            raise ConfigError(f"{where} is missing: add {where}=VALUE")
        if context.get(name) is not None:
            raise ConfigError(f"{where} follows from the data, got {value!r}: leave it out")
        if isinstance(value, Mapping) and "_target_" in value:
            arguments[name] = build(value, where, _class_of(hints.get(name)), **context)
        else:
            arguments[name] = conform(value, hints.get(name, Any), where)
    for name, parameter in parameters.items():
        required = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        )
        if required and name not in arguments and name not in context and name != "params":
            raise ConfigError(f"{key}.{name} is missing: add {key}.{name}=VALUE")
    return target, arguments, key


def _class_of(hint: Any) -> type | None:
    """Return the class that an annotation ``Class`` or ``Class | None`` names, else None."""
    options = [o for o in typing.get_args(hint) if o is not type(None)] if _is_union(hint) else [hint]
    plain = len(options) == 1 and isinstance(options[0], type) and not getattr(options[0], "_is_protocol", False)
    return options[0] if plain and typing.get_origin(options[0]) is None else None


def _article(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"


def assemble(target: Callable[..., Any] | None, arguments: dict[str, Any], key: str) -> Any:
    """Call a resolved constructor; what it refuses becomes one sentence with the key."""
    if target is None:
        return None
    try:
        return target(**arguments)
    except SEError:
        raise
    except (Exception, SystemExit) as error:  # a user's class may raise anything
        kind = "" if isinstance(error, (ValueError, TypeError)) else f"{type(error).__name__}: "
        raise ConfigError(f"{key}: {kind}{' '.join(str(error).split())}") from error


def conform(value: Any, hint: Any, key: str) -> Any:
    """Return the value as the annotation wants it (whole numbers serve as floats, lists as tuples).

    Raises:
        ConfigError: the value is not of that type.
    """
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    wants_function = any(Callable in (option, typing.get_origin(option)) for option in options)
    if wants_function and isinstance(value, str):
        value = locate(value, key)
    if wants_function and callable(value):
        return value
    adapter = _adapter(hint)
    try:
        if adapter is None:  # an annotation that cannot be evaluated checks nothing
            return value
        if any(number != number for number in (value if isinstance(value, list) else [value])):
            raise ValueError("NaN is no number that anybody means")
        try:
            return adapter.validate_json(json.dumps(value), strict=True)  # a list of YAML is a tuple here
        except TypeError:  # an object from Python
            return adapter.validate_python(value, strict=True)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{key} must be {_words(hint)}, got {value!r}") from error


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (Union, types.UnionType)


@cache
def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    """Return what checks values against an annotation; None where it says nothing that could be checked."""
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:
        return None


def _words(hint: Any) -> str:
    """Return an annotation in words."""
    if _is_union(hint):
        return " or ".join(dict.fromkeys(_words(option) for option in typing.get_args(hint)))
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    if Callable in (hint, typing.get_origin(hint)):
        return "the dotted path of a function"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))
