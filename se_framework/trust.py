"""What a run directory may make us import and call: nothing of a stranger's.

The command line and Python are the user's own and name what they like. A run directory may come from anybody, so an
object named in it is accepted only if, once resolved, it is

* a class of ours that fills a place of the equation (it subclasses a base of :data:`PLACES`), or
* a network, optimiser or schedule that torch defines, or
* something of a package the user trusts by name (``trust=[PACKAGE]``), or what the user types again.

Importing is running, so a path that does not even begin in one of these packages is refused before it is imported; and
what a path leads to is judged by where it was defined, so that ``divergences.base.torch.hub.load`` is what it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from divergences.base import Divergence
from models.base import Critic, Embedding, Model
from se_framework.auxiliary import Auxiliary
from se_framework.build import gate
from se_framework.data import Data
from se_framework.errors import ConfigError
from se_framework.metric import Metric
from se_framework.penalties import Penalty

PLACES = (Model, Critic, Embedding, Divergence, Auxiliary, Metric, Penalty, Data)
OURS = ("models", "divergences", "se_framework")
OF_TORCH = (torch.nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)


@contextmanager
def strangers(trust: Sequence[str] = (), typed: Mapping[str, Any] | None = None) -> Iterator[None]:
    """While active, objects are built only from what may be named by a stranger.

    Args:
        trust: packages whose classes and functions the user vouches for.
        typed: what the user's own command line says, by dotted key: a name that stands there too is the user's own.
    """
    token = gate.set(_Gate(tuple(trust), typed or {}))
    try:
        yield
    finally:
        gate.reset(token)


class _Gate:
    def __init__(self, trust: tuple[str, ...], typed: Mapping[str, Any]) -> None:
        self.trust, self.typed = trust, typed

    def before_import(self, path: str, key: str) -> None:
        """Refuse a path that begins elsewhere."""
        if path.partition(".")[0] not in (*OURS, "torch", *self.trust) and self.typed.get(key) != path:
            raise self._refusal(path, key, path.partition(".")[0])

    def after_import(self, found: Any, path: str, key: str) -> None:
        """Refuse what is no class for a place of the equation, wherever the path went along."""
        home = _home(found)
        if self.typed.get(key) == path or (home is not None and home.partition(".")[0] in self.trust):
            return
        if isinstance(found, type) and home is not None:
            if home.partition(".")[0] in OURS and issubclass(found, PLACES):
                return
            if home.partition(".")[0] == "torch" and issubclass(found, OF_TORCH):
                return
        raise self._refusal(path, key, (home or path).partition(".")[0])

    def _refusal(self, path: str, key: str, package: str) -> ConfigError:
        return ConfigError(
            f"{key}: {path!r}, named in the run directory, is no part of the equation that se-framework or torch "
            f"defines, and was not called: if you trust the code, add trust=[{','.join((*self.trust, package))}]"
        )


def _home(found: Any) -> str | None:
    """Return the module that defines an object, None where it does not hold it under its own name."""
    module, name = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    there: Any = sys.modules.get(module)
    for part in name.split("."):
        there = getattr(there, part, None)
    return module if there is found else None
