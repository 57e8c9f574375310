"""Packages that are imported where they are asked for and nowhere else."""

from __future__ import annotations

import importlib
from typing import Any


def required(module: str, extra: str, name: str) -> Any:
    """Import the module of an extra for the part of that name.

    Raises:
        ModuleNotFoundError: it is absent; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{name} needs the package {module}: pip install 'se-framework[{extra}]'") from error
