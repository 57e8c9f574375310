"""The list that planted errors of the engine enter, and the tests that they name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support.planting import Mutation, Plant

LIST = Path(__file__).parents[2] / "benchmarks" / "verify" / "engine_mutations.json"
MUTATIONS: list[Mutation] = []
TRAINING, ROLES, FAILURES = "training/test_training.py", "training/test_roles.py", "training/test_failures.py"
PERFORMANCE, ENSEMBLE, OPTIMIZERS = (f"training/test_{n}.py" for n in ("performance", "ensemble", "optimizers"))
SUMS, UNITS, METRIC = (f"equation/test_{name}.py" for name in ("sums", "units", "metric"))
WHOLE, PARTS, DATA = "reliability/test_whole_state.py", "reliability/test_own_parts.py", "data/test_data.py"
CONTRACT, SCORES = "models/test_contract.py", "evaluation/test_held_out_error.py"
FRESH = f"{TRAINING}::test_every_phi_step_sees_a_fresh_batch"
GRADIENT = f"{TRAINING}::test_a_players_gradient_is_that_of_the_scalar"
RESUMED = f"{TRAINING}::test_resuming_equals_going_on_bit_for_bit"
SAMPLES = f"{PARTS}::test_samples_are_a_function_of_weights_and_seed"
RECORDED = f"{PERFORMANCE}::test_recorded_steps_are_the_plain_ones_bit_for_bit[vanilla_gan-overrides0-2]"


def mutation(name: str, *tests: str) -> Callable[[Callable[[Plant], None]], Callable[[Plant], None]]:
    """Enter a function into the list under a name, with the tests that must fail, by file under tests."""

    def enter(plant: Callable[[Plant], None]) -> Callable[[Plant], None]:
        MUTATIONS.append(Mutation(name, plant, tuple(f"tests/{test}" for test in tests)))
        return plant

    return enter


def of_roles(plant: Plant, change: Callable[[list], list]) -> None:
    """Let an equation's roles be others."""
    plant.wrap("se_framework.StandardEquation.roles", lambda own: lambda self: change(own(self)))
