"""The Standard Equation as a framework: one objective, one loop, methods as configurations.

Names are loaded on first use, so importing this package is quick and changes no seed, dtype, thread count or plotting
backend.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "Assembly": "assembly",
    "ConfigError": "errors",
    "IncompatibleError": "errors",
    "InnerProblem": "equation.auxiliary",
    "Solution": "equation.auxiliary",
    "Auxiliary": "equation.auxiliary",
    "Callback": "training.callbacks",
    "Conditional": "equation.auxiliary",
    "CallbackError": "errors",
    "Empirical": "equation.auxiliary",
    "Dual": "equation.auxiliary",
    "Embedded": "equation.auxiliary",
    "EnsembleAssembly": "assembly",
    "GradientPenalty": "equation.penalties",
    "Metric": "equation.metric",
    "Paired": "equation.auxiliary",
    "Player": "training.players",
    "R1": "equation.penalties",
    "RunDirectory": "runs.directory",
    "StandardEquation": "equation.equation",
    "Terms": "equation.equation",
    "Tilted": "equation.auxiliary",
    "TrainState": "training.state",
    "OrthogonalWeights": "equation.auxiliary.weights",
    "Transported": "equation.auxiliary.transported",
    "check_auxiliary": "checks",
    "check_divergence": "checks",
    "check_metric": "checks",
    "check_model": "checks",
    "compare": "comparison",
    "compose": "api",
    "evaluate": "evaluation.evaluate",
    "load": "api",
    "make_players": "training.players",
    "parametrize_with_laws": "checks",
    "report": "comparison.report.build",
    "reproduce": "api",
    "train": "training.loop",
}
__all__ = [*_WHERE, "__version__"]  # noqa: PLE0604

if TYPE_CHECKING:
    from se_framework.api import compose as compose
    from se_framework.api import load as load
    from se_framework.api import reproduce as reproduce
    from se_framework.assembly import Assembly as Assembly
    from se_framework.assembly import EnsembleAssembly as EnsembleAssembly
    from se_framework.checks import check_auxiliary as check_auxiliary
    from se_framework.checks import check_divergence as check_divergence
    from se_framework.checks import check_metric as check_metric
    from se_framework.checks import check_model as check_model
    from se_framework.checks import parametrize_with_laws as parametrize_with_laws
    from se_framework.comparison import compare as compare
    from se_framework.comparison.report.build import report as report
    from se_framework.equation.auxiliary import Auxiliary as Auxiliary
    from se_framework.equation.auxiliary import Conditional as Conditional
    from se_framework.equation.auxiliary import Dual as Dual
    from se_framework.equation.auxiliary import Embedded as Embedded
    from se_framework.equation.auxiliary import Empirical as Empirical
    from se_framework.equation.auxiliary import Paired as Paired
    from se_framework.equation.auxiliary import Tilted as Tilted
    from se_framework.equation.auxiliary.transported import Transported as Transported
    from se_framework.equation.auxiliary.weights import OrthogonalWeights as OrthogonalWeights
    from se_framework.equation.equation import StandardEquation as StandardEquation
    from se_framework.equation.equation import Terms as Terms
    from se_framework.equation.metric import Metric as Metric
    from se_framework.equation.penalties import R1 as R1
    from se_framework.equation.penalties import GradientPenalty as GradientPenalty
    from se_framework.errors import CallbackError as CallbackError
    from se_framework.evaluation.evaluate import evaluate as evaluate
    from se_framework.runs.directory import RunDirectory as RunDirectory
    from se_framework.training.callbacks import Callback as Callback
    from se_framework.training.loop import train as train
    from se_framework.training.players import Player as Player
    from se_framework.training.players import make_players as make_players
    from se_framework.training.state import TrainState as TrainState


def check_neighbours() -> None:
    """Refuse packages ``models`` and ``divergences`` of somebody else, before anything of them is imported.

    Their names are common, and Python looks into the working directory first.

    Raises:
        ConfigError: they do not lie beside this package; the message names both paths.
    """
    home = Path(__file__).resolve().parents[1]
    for name in ("models", "divergences"):
        spec = importlib.util.find_spec(name)
        where = [Path(p).resolve() for p in (spec.submodule_search_locations or [spec.origin or "."])] if spec else []
        if where != [home / name]:
            from se_framework.errors import ConfigError

            found = where[0] if where else "nowhere"
            raise ConfigError(
                f"the package {name} is taken from {found}, not from {home / name} beside se_framework: rename what "
                "shadows it, or take it off PYTHONPATH"
            )


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _WHERE:
        raise AttributeError(f"module 'se_framework' has no attribute {name!r}")
    check_neighbours()
    return getattr(importlib.import_module(f"se_framework.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
