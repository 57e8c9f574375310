"""Configurations of tests about what is made of them: composed once per process, copied per use."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any

from omegaconf import DictConfig

from se_framework.assembly import Assembly, assembly_of
from se_framework.config import composing


@cache
def _composed(experiment: str | None, *overrides: str) -> DictConfig:
    """Hydra takes a fifth of a second, longer than a few rounds of a small game."""
    return composing.compose(experiment, overrides)


def composed(experiment: str | None = None, overrides: Sequence[str] = ()) -> DictConfig:
    """Return a configuration of one's own, as ``se_framework.config.composing.compose`` does."""
    return copy.deepcopy(_composed(experiment, *overrides))


def compose(experiment: str | None = None, overrides: Sequence[str] = (), data: Any = None) -> Assembly:
    """Return the objects of an experiment, as ``se_framework.compose`` does."""
    return assembly_of(composed(experiment, overrides), data)
