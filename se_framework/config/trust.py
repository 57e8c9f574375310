"""What a run directory may name and hold: its files may be a stranger's, and nothing of a stranger runs.

A configuration that the user composes is the user's own and names what it likes. One that was read from a run directory
goes through three gates:

* :func:`~se_framework.config.files.read_yaml` reads no interpolations, references or tags of it, and not too much;
* :func:`no_links_out` refuses symbolic links that lead out of the directory;
* :meth:`Trust.locate`, in the place of :func:`~se_framework.config.build.find`, decides on every dotted path, *before*
  anything is imported (importing is running), and again on the object that was found: a path is only a name for it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn, optim

from divergences.base import Divergence
from models.base import Critic, Embedding, Model
from se_framework.config.build import find, names_of
from se_framework.data import Data
from se_framework.equation.auxiliary import Auxiliary
from se_framework.equation.metric import Metric
from se_framework.equation.penalties import Penalty
from se_framework.errors import ConfigError, RunDirectoryError

PARTS: dict[str, tuple[type, ...]] = {
    "se_framework": (Auxiliary, Metric, Penalty, Data),
    "divergences": (Divergence,),
    "models": (Model, Critic, Embedding),
    "torch": (nn.Module, optim.Optimizer, optim.lr_scheduler.LRScheduler),
}
"""By package: what a class defined there must derive from."""
KINDS = "a model, critic, divergence, auxiliary, metric, penalty or data set of ours, or a module or optimiser of torch"
NEVER = frozenset({*PARTS, *sys.stdlib_module_names, "builtins"})
"""Packages that cannot be trusted as a whole: their parts are taken anyway, and Python's library has none."""


@dataclass(frozen=True)
class Trust:
    """What a configuration of a run directory may name, besides :data:`PARTS`.

    Attributes:
        packages: top-level packages whose classes and functions are taken too.
        own: (key, dotted path) pairs that the user's own command line composes: those are not the stranger's.
        noted: packages of these, which the run must be trusted with later.
    """

    packages: tuple[str, ...] = ()
    own: frozenset[tuple[str, str]] = frozenset()
    noted: set[str] = field(default_factory=set, compare=False)

    def locate(self, path: str, key: str) -> Any:
        """Return the object a dotted path names, if it may be named.

        Args:
            path: ``package.module.Name``.
            key: where it stands in the configuration, for messages.

        Raises:
            ConfigError: it may not; the message names the key, the path, why, and the override that permits it.
        """
        package = names_of(path, key)[0]
        if (key, path) in self.own:
            found = find(path, key)
            self.noted.update(_needed(path, found))
            return found
        if package in self.packages:
            found = find(path, key)
        elif package in PARTS:
            found = _in_module(path, key)
        else:
            raise ConfigError(
                f"{key}: the run directory names {path!r}, and {package!r} is neither ours nor torch: it was not "
                f"imported; {_remedy(package)}"
            )
        home = _home(found)
        if home in self.packages or _is_part(found):
            return found
        raise ConfigError(
            f"{key}: the run directory names {path!r}, which is {_kind(found)} and not {KINDS}; {_remedy(home)}"
        )


class Noting:
    """Finds what the user's own configuration names, and takes down the packages that a run of it must be trusted with.

    Attributes:
        packages: those of names that :class:`Trust` would refuse.
    """

    def __init__(self) -> None:
        self.packages: set[str] = set()

    def locate(self, path: str, key: str) -> Any:
        """Return the object a dotted path names, as :func:`~se_framework.config.build.find` does."""
        found = find(path, key)
        self.packages |= _needed(path, found)
        return found


def needed(locator: Any) -> list[str]:
    """Return the packages, besides ours and torch, whose code a run needs: what ``trust=`` must name to go on with it.

    Args:
        locator: the method by which the run's names were found.
    """
    owner = getattr(locator, "__self__", None)
    noted = owner.noted if isinstance(owner, Trust) else ()
    return sorted({*owner.packages, *noted}) if isinstance(owner, (Noting, Trust)) else []


def packages(value: Any, key: str = "trust") -> tuple[str, ...]:
    """Return the packages a user trusts.

    Args:
        value: one name, several separated by commas (in brackets or not), or a list of names; None for none.
        key: how a message names it.

    Raises:
        ConfigError: a name is that of a module inside a package, of ours, of torch, or of Python's library.
    """
    names: Iterable[Any] = value.strip("[] ").split(",") if isinstance(value, str) else value or ()
    found = tuple(name.strip() if isinstance(name, str) else name for name in names)
    for name in found:
        if not isinstance(name, str) or not name.isidentifier():
            raise ConfigError(f"{key} must be the name of a package, or a list of names, got {name!r}")
        if name in NEVER:
            raise ConfigError(f"{key}={name}: its parts need no trust, and the rest of it is never taken: leave it out")
    return found


def strings(config: DictConfig) -> frozenset[tuple[str, str]]:
    """Return the pairs (dotted key, text) of a configuration, for :attr:`Trust.own`."""

    def walk(node: Any, key: str) -> Iterable[tuple[str, str]]:
        if isinstance(node, dict):
            for name, value in node.items():
                yield from walk(value, f"{key}.{name}" if key else str(name))
        elif isinstance(node, str):
            yield key, node

    return frozenset(walk(OmegaConf.to_container(config, resolve=True), ""))


def no_links_out(directory: Path) -> None:
    """Refuse a run directory with a symbolic link in it, or in a folder of it, that leads elsewhere.

    A run is read, written and tidied: through such a link somebody else's files would be. The directory itself may be
    reached by a link, and links between its own files are fine.

    Raises:
        RunDirectoryError: see above.
    """
    home = directory.resolve()
    for entry in (*directory.glob("*"), *directory.glob("*/*")):
        target = Path(os.path.realpath(entry))  # Path.resolve raises where links lead in a circle
        if entry.is_symlink() and not target.is_relative_to(home):
            raise RunDirectoryError(
                f"{entry} is a symbolic link out of the run directory, to {target}: put the file itself there"
            )


def _in_module(path: str, key: str) -> Any:
    """Return a name of a module of :data:`PARTS`: of ours, or of what torch has loaded by itself.

    Not by way of other modules' attributes (``divergences.base.torch``): those are neither ours nor known. And torch is
    not asked to load more: much of it tries to import packages that may be absent here, and lie in a stranger's folder.
    """
    where, _, name = path.rpartition(".")
    if where.partition(".")[0] == "torch":
        module, found = sys.modules.get(where), None
        if module is not None:
            found = vars(module).get(name)
    else:
        try:
            module = importlib.import_module(where)
        except Exception:  # noqa: BLE001  a path that is none of ours
            module = None
        found = getattr(module, name, None)
    if found is None:
        raise ConfigError(
            f"{key}: the run directory names {path!r}, and no module of ours or of torch defines that; "
            f"{_remedy(where.partition('.')[0])}"
        )
    return found


def _needed(path: str, found: Any) -> set[str]:
    """Return the packages with which :class:`Trust` would take a name."""
    homes = {path.partition(".")[0]} | (set() if _is_part(found) else {_home(found)})
    return {home for home in homes if home and home not in NEVER}


def _home(found: Any) -> str:
    """Return the package an object says it was defined in."""
    module = getattr(found, "__module__", None)
    return module.partition(".")[0] if isinstance(module, str) else ""


def _is_part(found: Any) -> bool:
    """Whether an object is a class of :data:`PARTS`, and truly the one of its module that it says it is."""
    if not isinstance(found, type) or not issubclass(found, PARTS.get(_home(found), ())):
        return False
    there: Any = sys.modules.get(found.__module__)
    for name in found.__qualname__.split("."):
        there = getattr(there, name, None)
    return there is found


def _kind(found: Any) -> str:
    """Return what an object is, in words."""
    name = getattr(found, "__name__", type(found).__name__)
    if isinstance(found, type(sys)):
        return f"the module {name}"
    kind = "the class" if isinstance(found, type) else "the function" if callable(found) else "an object"
    return f"{kind} {name} of {getattr(found, '__module__', None) or 'no module'}"


def _remedy(package: str) -> str:
    if not package or package in NEVER:
        return "nothing permits this: do not use this run directory"
    return f"if you know the code of {package} and trust it, add trust={package}"
