"""The Standard Equation as a framework: one objective, one loop, methods as configurations.

Names are loaded on first use, so importing this package is quick and changes no seed, dtype, thread count or plotting
backend.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "Assembly": "assembly",
    "Auxiliary": "auxiliary",
    "Empirical": "auxiliary",
    "Dual": "auxiliary",
    "EnsembleAssembly": "assembly",
    "GradientPenalty": "penalties",
    "Metric": "metric",
    "Player": "players",
    "R1": "penalties",
    "StandardEquation": "equation",
    "Terms": "equation",
    "Tilted": "auxiliary",
    "TrainState": "state",
    "Transported": "transported",
    "check_auxiliary": "checks",
    "check_divergence": "checks",
    "check_metric": "checks",
    "check_model": "checks",
    "compose": "notebook",
    "load": "notebook",
    "make_players": "players",
    "parametrize_with_laws": "checks",
    "reproduce": "notebook",
    "train": "loop",
}
__all__ = [*_WHERE, "__version__"]  # noqa: PLE0604

if TYPE_CHECKING:
    from se_framework.assembly import Assembly as Assembly
    from se_framework.assembly import EnsembleAssembly as EnsembleAssembly
    from se_framework.auxiliary import Auxiliary as Auxiliary
    from se_framework.auxiliary import Dual as Dual
    from se_framework.auxiliary import Empirical as Empirical
    from se_framework.auxiliary import Tilted as Tilted
    from se_framework.checks import check_auxiliary as check_auxiliary
    from se_framework.checks import check_divergence as check_divergence
    from se_framework.checks import check_metric as check_metric
    from se_framework.checks import check_model as check_model
    from se_framework.checks import parametrize_with_laws as parametrize_with_laws
    from se_framework.equation import StandardEquation as StandardEquation
    from se_framework.equation import Terms as Terms
    from se_framework.loop import train as train
    from se_framework.metric import Metric as Metric
    from se_framework.notebook import compose as compose
    from se_framework.notebook import load as load
    from se_framework.notebook import reproduce as reproduce
    from se_framework.penalties import R1 as R1
    from se_framework.penalties import GradientPenalty as GradientPenalty
    from se_framework.players import Player as Player
    from se_framework.players import make_players as make_players
    from se_framework.state import TrainState as TrainState
    from se_framework.transported import Transported as Transported


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _WHERE:
        raise AttributeError(f"module 'se_framework' has no attribute {name!r}")
    return getattr(importlib.import_module(f"se_framework.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
