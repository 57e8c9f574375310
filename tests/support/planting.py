"""Errors planted on purpose: attributes of classes and modules are replaced at run time, and put back afterwards.

A mutation is a function that says what is replaced and by what; it takes the least for granted, so that it survives a
refactoring, and a name that is gone stops it with a sentence that says whose.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import pytest

OURS = ("se_framework", "divergences", "models")


class Plant:
    """What a mutation replaces with.

    Args:
        name: of the mutation, for messages.
        patch: puts everything back.
    """

    def __init__(self, name: str, patch: pytest.MonkeyPatch) -> None:
        self.name, self.patch = name, patch

    def find(self, path: str) -> Any:
        """Return the object of a dotted path: a module, or what is reached through attributes from one.

        Raises:
            LookupError: it is not there; the sentence names the mutation.
        """
        parts = path.split(".")
        for count in range(len(parts), 0, -1):
            try:
                found = importlib.import_module(".".join(parts[:count]))
            except ModuleNotFoundError:
                continue
            try:
                for part in parts[count:]:
                    found = getattr(found, part)
            except AttributeError:
                break
            return found
        raise LookupError(f"the planted error {self.name!r} replaces {path}, which is not there: name what it is now")

    def set(self, path: str, value: Any) -> None:
        """Replace an attribute by a value."""
        owner, _, attribute = path.rpartition(".")
        self.find(path)
        self.patch.setattr(self.find(owner), attribute, value)

    def wrap(self, path: str, make: Callable[[Any], Any]) -> None:
        """Replace a method, property or function by ``make(original)``.

        A property is given to ``make``, and made again, as the function that computes it.
        """
        owner, _, attribute = path.rpartition(".")
        original = self.find(path)
        holder = self.find(owner)
        static = inspect.getattr_static(holder, attribute)
        if isinstance(static, property):
            self.patch.setattr(holder, attribute, property(make(static.fget)))
        elif isinstance(static, (staticmethod, classmethod)):
            self.patch.setattr(holder, attribute, staticmethod(make(original)))
        else:
            self.patch.setattr(holder, attribute, make(original))

    def everywhere(self, path: str, make: Callable[[Any], Any]) -> None:
        """Replace a function in every module of ours that has it under its name, wherever it was imported from."""
        original = self.find(path)
        made, name = make(original), path.rpartition(".")[2]
        for module in [m for n, m in sys.modules.items() if n.partition(".")[0] in OURS]:
            if vars(module).get(name) is original:
                self.patch.setattr(module, name, made)


@dataclass(frozen=True)
class Mutation:
    """An error.

    Attributes:
        name: in words.
        plant: replaces what it replaces.
        tests: the tests that must fail, by node; empty where claims of se-verify are asked.
    """

    name: str
    plant: Callable[[Plant], None]
    tests: tuple[str, ...] = ()


@contextmanager
def planted(mutation: Mutation) -> Iterator[None]:
    """Let an error be there within the context.

    Raises:
        LookupError: what it replaces is gone.
    """
    with pytest.MonkeyPatch.context() as patch:
        mutation.plant(Plant(mutation.name, patch))
        yield


def altered(problem: Any, **changes: Any) -> Any:
    """Return a named tuple or dataclass with other fields."""
    return replace(problem, **changes) if is_dataclass(problem) else problem._replace(**changes)
