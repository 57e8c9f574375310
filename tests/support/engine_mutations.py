"""Planted errors in the engine that ordinary tests notice: which test notices which, is measured and committed.

    python -m tests.support.engine_mutations             measure the errors that the list lacks
    python -m tests.support.engine_mutations NAME ...    measure these again

The list is benchmarks/verify/engine_mutations.json. The libraries are imported once; every error is planted in a fork
of its own, before pytest there imports the test that must fail, so what that test makes is made with the error.
"""

from __future__ import annotations

import copy
import importlib
import json
import math
import os
import pkgutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.planting import Mutation, Plant, planted

LIST = Path(__file__).parents[2] / "benchmarks" / "verify" / "engine_mutations.json"
MUTATIONS: list[Mutation] = []
TRAINING, ROLES, FAILURES = "training/test_training.py", "training/test_roles.py", "training/test_failures.py"
PERFORMANCE, ENSEMBLE, OPTIMIZERS = (f"training/test_{n}.py" for n in ("performance", "ensemble", "optimizers"))
SUMS, UNITS, METRIC = (f"equation/test_{name}.py" for name in ("sums", "units", "metric"))
WHOLE, PARTS, DATA = "reliability/test_whole_state.py", "reliability/test_own_parts.py", "data/test_data.py"
CONTRACT, SCORES = "models/test_contract.py", "data/test_scores.py"
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


# -- roles ------------------------------------------------------------------------------------------------------------


@mutation("q ascends", f"{ROLES}::test_a_player_moves_its_own_part_only_and_its_gradient_is_that_of_the_scalar[q]")
def _(plant):
    of_roles(plant, lambda roles: [r._replace(sign=1) if r.name == "q" else r for r in roles])


@mutation("D ascends whatever it declares", f"{ROLES}::test_a_parameter_in_a_divergence_may_descend")
def _(plant):
    of_roles(plant, lambda roles: [r._replace(sign=1) if r.name == "D" else r for r in roles])


@mutation("E_pd f is counted for theta", GRADIENT)
def _(plant):
    of_roles(plant, lambda roles: [r._replace(moves_f_data=True) for r in roles])


@mutation("theta plays on a batch of its own", FRESH)
def _(plant):
    of_roles(plant, lambda roles: [r._replace(fresh=True) for r in roles])


@mutation("theta moves first", FRESH, f"{ROLES}::test_every_part_with_parameters_has_a_role_in_the_order_of_the_game")
def _(plant):
    of_roles(plant, lambda roles: roles[::-1])


@mutation("samples are constants to theta", GRADIENT)
def _(plant):
    of_roles(plant, lambda roles: [r._replace(moves_samples=False) for r in roles])


@mutation("the first summand's part stands for all", f"{ROLES}::test_parts_of_one_kind_in_a_sum_are_one_players")
def _(plant):
    plant.wrap("se_framework.equation.roles._parts", lambda own: lambda *rest: dict(list(own(*rest).items())[:1]))


@mutation("a view for constrained metrics too", f"{METRIC}::test_heavy_duals_are_learnt_through_a_light_one_and_meet_at_the_same_critic[heavy0]")  # fmt: skip  # noqa: E501
def _(plant):
    plant.wrap("se_framework.StandardEquation.view", lambda own: lambda self, role: self.divergence.view(role))


# -- players and their steps ------------------------------------------------------------------------------------------


@mutation("gradients go to every player", f"{TRAINING}::test_a_player_moves_its_own_parameters_only[gan]")
def _(plant):
    plant.set("se_framework.training.players.Player.accumulate", lambda self, loss: loss.backward())


@mutation("gradients are never forgotten", f"{OPTIMIZERS}::test_a_players_steps_are_those_of_a_plain_loop_to_the_bit[plain descent-read-torch.float64]")  # fmt: skip  # noqa: E501
def _(plant):
    plant.set("se_framework.training.players.Player.clear", lambda self: None)


@mutation("a broken step is taken", f"{OPTIMIZERS}::test_a_step_that_is_called_off_moves_no_weight_and_no_moment[not fused-read]")  # fmt: skip  # noqa: E501
def _(plant):
    def make(step):
        def wrong(self, checked, broken=None):
            figures, now = step(self, checked, broken)
            if now:
                self.optimizer.step()
            return figures, now

        return wrong

    plant.wrap("se_framework.training.players.Player.step", make)


@mutation("a queued step forgets that the round is broken", f"{OPTIMIZERS}::test_a_step_that_is_called_off_moves_no_weight_and_no_moment[adam-queued]")  # fmt: skip  # noqa: E501
def _(plant):
    plant.wrap("se_framework.training.players.Player.step_queued", lambda own: lambda self, checked, broken=None: (
        own(self, [t.nan_to_num() for t in checked], None)))  # fmt: skip


@mutation("norm of the last gradient alone", GRADIENT)
def _(plant):
    plant.set("se_framework.training.players.Player._gradient_norm", lambda self: (
        torch.linalg.vector_norm(self.parameters[-1].grad)))  # fmt: skip


@mutation("parts do not settle after a step", f"{METRIC}::test_clipping_holds_from_the_start_and_after_every_step")
def _(plant):
    plant.everywhere("se_framework.training.players.settlers", lambda own: lambda module: [])


@mutation("averages stand still", f"{TRAINING}::test_average_is_the_exponential_average_of_the_rounds")
def _(plant):
    plant.set("se_framework.training.players.Player.update_average", lambda self: None)


@mutation("averages follow in every step", f"{TRAINING}::test_average_is_the_exponential_average_of_the_rounds")
def _(plant):
    def make(apply):
        def wrong(self, *rest):
            found = apply(self, *rest)
            self.update_average()
            return found

        return wrong

    plant.wrap("se_framework.training.players.Player.apply", make)


@mutation("lazy penalty a step late", f"{FAILURES}::test_a_lazy_penalty_is_caught_in_the_round_it_is_due")
def _(plant):
    def make(due):
        def wrong(self):
            self.steps_taken -= 1
            found = due(self)
            self.steps_taken += 1
            return found

        return wrong

    plant.wrap("se_framework.training.players.Player.due", make)


@mutation("warm-up starts at zero", f"{TRAINING}::test_learning_rates_are_functions_of_the_round[4-constant-<lambda>]")
def _(plant):
    def make(set_rate):
        def wrong(self, round_index, horizon):
            set_rate(self, round_index, horizon)
            for group in self.optimizer.param_groups if round_index < self.warmup else ():
                group["lr"] *= round_index / (round_index + 1)

        return wrong

    plant.wrap("se_framework.training.players.Player.set_rate", make)


@mutation("rates decay a round early", f"{TRAINING}::test_learning_rates_are_functions_of_the_round[0-linear-<lambda>]")
def _(plant):
    plant.wrap("se_framework.training.players.Player.set_rate", lambda own: lambda self, round_index, horizon: (
        own(self, round_index + 1, horizon)))  # fmt: skip


# -- draws and losses -------------------------------------------------------------------------------------------------


@mutation("noise of the first round in every round", FRESH)
def _(plant):
    plant.everywhere("se_framework.training.draws.step_stream", lambda own: lambda seed, position, *rest: (
        own(seed, 0, *rest)))  # fmt: skip


@mutation("noise of the first step in every step", FRESH)
def _(plant):
    plant.everywhere("se_framework.training.draws.step_stream", lambda own: lambda seed, position, name, k, x: (
        own(seed, position, name, 0, x)))  # fmt: skip


@mutation("players share their noise", FRESH)
def _(plant):
    plant.everywhere("se_framework.training.draws.step_stream", lambda own: lambda seed, position, name, k, x: (
        own(seed, position, "player", k, x)))  # fmt: skip


@mutation("networks draw on what the caller left", RESUMED)
def _(plant):
    plant.set("se_framework.training.draws.seed_global", lambda *rest: None)


@mutation("auxiliaries of a sum share their draws", f"{SUMS}::test_auxiliaries_of_a_sum_draw_apart")
def _(plant):
    def make(draws):
        def wrong(self, *rest):
            found = draws(self, *rest)
            return {k: found[f"auxiliary/own/{k.split('/')[2]}"] if k.startswith("auxiliary") else v for k, v in found.items()}  # fmt: skip  # noqa: E501

        return wrong

    plant.wrap("se_framework.StandardEquation.draws", make)


@mutation("one batch for ever", FRESH)
def _(plant):
    plant.everywhere("se_framework.training.draws.draw_batch", lambda own: lambda data, start, *rest: (
        own(data, 0, *rest)))  # fmt: skip


@mutation("penalty with the wrong sign", GRADIENT)
def _(plant):
    plant.everywhere("se_framework.training.objective.penalties", lambda own: lambda *rest: (-t for t in own(*rest)))


@mutation("penalty of one summand for all", f"{SUMS}::test_the_penalty_is_the_sum_of_the_summands_own")
def _(plant):
    plant.everywhere("se_framework.training.objective.penalties", lambda own: lambda equation, due, *rest: (
        own(equation, due[:1] * len(due), *rest)))  # fmt: skip


@mutation("theta's view ignored", GRADIENT)
def _(plant):
    def make(objective):
        def wrong(equation, player, *rest):
            plain = copy.copy(player)
            plain.view = None
            return objective(equation, plain, *rest)

        return wrong

    plant.everywhere("se_framework.training.objective.objective", make)


@mutation("auxiliaries carry nothing on", f"{WHOLE}::test_a_chain_moves_before_every_step_as_its_formula_says")
def _(plant):
    plant.set("se_framework.StandardEquation.advance", lambda self, *rest: None)


# -- what is not finite -----------------------------------------------------------------------------------------------


@mutation("inf passes for a number", f"{TRAINING}::test_infinite_term_is_named")
def _(plant):
    plant.everywhere("se_framework.training.finite.first_failure", lambda own: lambda here, names, row: (
        own(here, names, [0.0 if math.isinf(value) else value for value in row])))  # fmt: skip


@mutation("the term after the bad one is named", f"{TRAINING}::test_infinite_term_is_named")
def _(plant):
    plant.everywhere("se_framework.training.finite.first_failure", lambda own: lambda here, names, row: (
        own(here, [*names[1:], names[0]], row)))  # fmt: skip


STATE_AT_FAILURE = f"{FAILURES}::test_the_state_at_failure_is_what_the_step_saw[1-2-adam_fused]"


@mutation("a failed step keeps its count of samples", STATE_AT_FAILURE)
def _(plant):
    plant.wrap("se_framework.TrainState.rewind", lambda own: lambda self, mark: (
        own(self, mark._replace(samples=self.samples))))  # fmt: skip


@mutation("a failed step counts as taken", STATE_AT_FAILURE)
def _(plant):
    plant.wrap("se_framework.TrainState.rewind", lambda own: lambda self, mark: (
        own(self, mark._replace(steps_taken=[player.steps_taken for player in self.players]))))  # fmt: skip


@mutation("a failed step keeps its buffers", f"{FAILURES}::test_running_statistics_are_put_back")
def _(plant):
    plant.wrap("se_framework.TrainState.rewind", lambda own: lambda self, mark: (
        own(self, mark._replace(buffers=[b.clone() for b in self.buffers]))))  # fmt: skip


def unchecked(plant: Plant, word: str) -> None:
    """Let the check before saving pass over tensors whose name holds a word."""
    plant.wrap("se_framework.training.finite._tensors_of", lambda own: lambda *rest: (
        (name, t) for name, t in own(*rest) if word not in name))  # fmt: skip


@mutation("moments are saved unchecked", f"{FAILURES}::test_a_checkpoint_holds_nothing_that_is_not_finite[moment]")
def _(plant):
    unchecked(plant, "optimiser")


@mutation("averages are saved unchecked", f"{FAILURES}::test_a_checkpoint_holds_nothing_that_is_not_finite[average]")
def _(plant):
    unchecked(plant, "average")


# -- state and checkpoints --------------------------------------------------------------------------------------------


def restored(plant: Plant, keep: Callable, put_back: Callable) -> None:
    """Let something of a state be what it was before a checkpoint is loaded."""

    def make(load):
        def wrong(self, saved):
            before = keep(self)
            found = load(self, saved)
            put_back(self, before)
            return found

        return wrong

    plant.wrap("se_framework.TrainState.load_state_dict", make)


@mutation("averages are not restored", RESUMED)
def _(plant):
    def put_back(state, before):
        for player, average in zip(state.players, before, strict=True):
            player.average = average

    restored(plant, lambda state: [copy.deepcopy(player.average) for player in state.players], put_back)


@mutation("moments are not restored", RESUMED)
def _(plant):
    restored(plant, lambda state: None, lambda state, _: [p.optimizer.state.clear() for p in state.players])


@mutation("the players' clocks are not restored", RESUMED)
def _(plant):
    restored(plant, lambda state: None, lambda state, _: [setattr(p, "steps_taken", 0) for p in state.players])


@mutation("the place in the data is not restored", RESUMED)
def _(plant):
    restored(plant, lambda state: state.samples, lambda state, before: setattr(state, "samples", before))


@mutation("buffers are not restored", f"{WHOLE}::test_thirty_and_thirty_rounds_are_sixty_bit_for_bit[chained]")
def _(plant):
    def put_back(state, before):
        for buffer, old in zip(state.buffers, before, strict=True):
            buffer.copy_(old)

    restored(plant, lambda state: [b.clone() for b in state.buffers], put_back)


@mutation("a checkpoint of another seed is taken", f"{TRAINING}::test_a_foreign_checkpoint_is_refused")
def _(plant):
    plant.wrap("se_framework.TrainState.load_state_dict", lambda own: lambda self, saved: (
        own(self, saved | {"seed": self.seed})))  # fmt: skip


@mutation("tensors that a checkpoint lacks stay as they are", f"{ROLES}::test_what_a_run_had_beside_today_is_refused")
def _(plant):
    plant.everywhere("se_framework.training.state.load_once", lambda own: lambda module, saved: (
        module.load_state_dict(dict(saved), strict=False)))  # fmt: skip


@mutation("tuples of a checkpoint come back as lists", "reliability/test_checkpoint.py::test_every_value_reads_back_to_the_same_bits")  # fmt: skip  # noqa: E501
def _(plant):
    plant.wrap("se_framework.runs.checkpoint._filled", lambda own: lambda node, tensors: (
        list(found) if isinstance(found := own(node, tensors), tuple) else found))  # fmt: skip


@mutation("of an old checkpoint the metric stays new", "reliability/test_old_runs.py::test_weights_of_version_0_1_are_those_of_every_player[single]")  # fmt: skip  # noqa: E501
def _(plant):
    def make(from_players):
        def wrong(saved, state):
            phi = saved["players"]["phi"] | {"module": {}}
            return from_players(saved | {"players": saved["players"] | {"phi": phi}}, state)

        return wrong

    plant.wrap("se_framework.training.older._from_players", make)


@mutation("averages are not used", f"{ROLES}::test_the_trained_equation_holds_every_average")
def _(plant):
    plant.set("se_framework.training.players.Player.averaged_parts", lambda self: {})


# -- the record -------------------------------------------------------------------------------------------------------


@mutation("weights of summands dropped", f"{SUMS}::test_value_terms_and_gradient_are_weighted_sums")
def _(plant):
    plant.wrap("se_framework.StandardEquation.summands", lambda own: lambda self: (
        (name, 1.0, other) for name, _, other in own(self)))  # fmt: skip


@mutation("entropy counted where q is the data", f"{SUMS}::test_units_are_undone_summand_by_summand")
def _(plant):
    plant.set("se_framework.equation.auxiliary.primal.Primal.counts_entropy", True)


@mutation("entropy shifted by the scale whatever the mass of q", f"{UNITS}::test_entropy_of_an_unnormalised_q_shifts_by_its_mass")  # fmt: skip  # noqa: E501
def _(plant):
    plant.everywhere("se_framework.equation.units.in_user_units", lambda own: lambda terms, *rest: (
        own(replace(terms, mass=1.0), *rest)))  # fmt: skip


@mutation("transport costs keep standardised units", f"{UNITS}::test_transport_costs_and_potentials")
def _(plant):
    plant.everywhere("se_framework.equation.units.cost_factor", lambda own: lambda *rest: 1.0)


@mutation("a row takes the next batch away", f"{TRAINING}::test_measuring_does_not_change_the_state")
def _(plant):
    def make(measure):
        def wrong(state, data, batch_size):
            state.draw(data, batch_size)
            return measure(state, data, batch_size)

        return wrong

    plant.everywhere("se_framework.training.loop.measure", make)


@mutation("transport without its cost", "equation/test_transported.py::test_the_map_between_gaussians")
def _(plant):
    plant.wrap("se_framework.equation.auxiliary.transported.Transported._move", lambda own: lambda self, problem: (
        lambda scores, cost, p: (scores, 0 * cost, p))(*own(self, problem)))  # fmt: skip


# -- evaluation -------------------------------------------------------------------------------------------------------


def in_mode(plant: Plant, make: Callable) -> None:
    """Let evaluation mode be another context."""
    plant.everywhere("se_framework.equation.modes.evaluating", lambda own: contextmanager(make(own)))


@mutation("parts stay in evaluation mode", SAMPLES)
def _(plant):
    def make(own):
        def wrong(*modules, seed=0):
            with own(*modules, seed=seed):
                yield
            for module in modules:
                if module is not None:
                    module.eval()

        return wrong

    in_mode(plant, make)


@mutation("dropout in evaluation", SAMPLES)
def _(plant):
    def make(own):
        def wrong(*modules, seed=0):
            with own(*modules, seed=seed):
                for module in modules:
                    if module is not None:
                        module.train()
                yield

        return wrong

    in_mode(plant, make)


@mutation("evaluation moves torch's own generator", f"{PARTS}::test_a_log_ratio_is_the_same_from_call_to_call")
def _(plant):
    def make(own):
        def wrong(*modules, seed=0):
            with own(*modules, seed=seed):
                yield
            torch.manual_seed(seed)

        return wrong

    in_mode(plant, make)


@mutation("samples ignore the seed", SAMPLES)
def _(plant):
    plant.wrap("se_framework.assembly.Assembly.sample", lambda own: lambda self, n, seed=0, label=None: (
        own(self, n, 0, label)))  # fmt: skip


@mutation("blocks of samples share a stream", SAMPLES)
def _(plant):
    own = plant.find("se_framework.assembly.generator")
    plant.set("se_framework.assembly.generator", lambda seed, number, *rest: own(seed, 0, *rest))


@mutation(
    "scores of the weights without their average", f"{SCORES}::test_the_held_out_value_is_that_of_the_averaged_weights"
)
def _(plant):
    plant.wrap("se_framework.assembly.Assembly.equation", lambda own: lambda self: self.state.equation)


@mutation("the bound of the first summand is said of all", f"{SUMS}::test_a_summand_joins_any_experiment_from_the_command_line")  # fmt: skip  # noqa: E501
def _(plant):
    def make(bound):
        def wrong(equation):
            own = equation.auxiliary.meaning(equation.divergence, equation.metric, equation.alpha)
            return own + "".join(f" + {weight:g} x ({own})" for _, weight, _ in equation.summands())

        return wrong

    plant.everywhere("se_framework.evaluation.evaluate.bound", make)


STANDARD_ERROR = f"{SCORES}::test_the_standard_error_is_that_of_a_mean_over_examples"
CHUNKED = f"{SCORES}::test_the_standard_error_of_what_is_no_mean_is_that_of_ten_parts"


@mutation("standard error without the conjugate's variance", STANDARD_ERROR)
def _(plant):
    plant.wrap("se_framework.Dual.values", lambda own: lambda self, problem: 0 * own(self, problem))


@mutation("standard error not divided by the root of the count", STANDARD_ERROR)
def _(plant):
    plant.wrap("se_framework.evaluation.evaluate._value_and_error", lambda own: lambda equation, data, *rest: (
        lambda value, error: (value, error * len(data.x) ** 0.5))(*own(equation, data, *rest)))  # fmt: skip


@mutation("parts that give a standard error overlap", CHUNKED)
def _(plant):
    plant.wrap("models.Particles.rows", lambda own: lambda self, index: (
        own(self, slice(0, None, index.step) if isinstance(index, slice) else index)))  # fmt: skip


@mutation("rows of particles lose their labels", f"{CONTRACT}::test_rows_take_the_same_of_every_field[slice]")
def _(plant):
    plant.wrap("models.Particles.rows", lambda own: lambda self, index: replace(own(self, index), context=None))


# -- data -------------------------------------------------------------------------------------------------------------


CUT = "data/test_sequence.py::test_rows_are_the_same_however_the_sequence_is_cut[ring8]"


@mutation("points of every seed are the same", f"{DATA}::test_batch_is_a_pure_function[sampler]")
def _(plant):
    plant.wrap("se_framework.data.sampler.Blocks._block", lambda own: lambda self, seed, number: own(self, 0, number))


@mutation(
    "every block of points is the first",
    CUT,
)
def _(plant):
    plant.wrap("se_framework.data.sampler.Blocks._block", lambda own: lambda self, seed, number: own(self, seed, 0))


@mutation("a batch over a block's edge starts a row late", CUT)  # fmt: skip  # noqa: E501
def _(plant):
    block = plant.find("se_framework.data.sampler.BLOCK")
    plant.wrap("se_framework.data.sampler.Blocks.rows", lambda own: lambda self, start, n, seed: (
        own(self, start + (start // block != (start + n - 1) // block), n, seed)))  # fmt: skip


@mutation("held-out points are those of the first batch", f"{DATA}::test_held_out_is_independent_of_batches")
def _(plant):
    plant.set("se_framework.data.sampler.Sampler.held_out", lambda self, n, seed=0, device="cpu": (
        self.batch(0, n, seed, device)))  # fmt: skip


@mutation("the end of an epoch is seen twice", f"{DATA}::test_epoch_covers_every_row_once[7]")
def _(plant):
    plant.everywhere("se_framework.data.base.epoch_slices", lambda own: lambda start, n, rows: (
        [(start // rows, min(start % rows, rows - n), min(start % rows, rows - n) + n)]))  # fmt: skip


# -- members and recorded steps ---------------------------------------------------------------------------------------


@mutation("members draw with the first seed", f"{ENSEMBLE}::test_batches_and_noise_are_those_of_the_single_runs_bit_for_bit")  # fmt: skip  # noqa: E501
def _(plant):
    own = plant.find("se_framework.ensemble.turn.step_stream")
    plant.set("se_framework.ensemble.turn.step_stream", lambda seed, *rest: own(0, *rest))


FROZEN = "training/test_ensemble_record.py::test_a_member_that_fails_is_frozen_and_the_others_go_on"


@mutation("a member that has failed goes on", FROZEN)
def _(plant):
    plant.wrap("se_framework.ensemble.turn.evaluate", lambda own: lambda *rest: (
        lambda gradients, figures: (gradients, figures.nan_to_num()))(*own(*rest)))  # fmt: skip


@mutation("stacked averages start from the first weights", f"{ENSEMBLE}::test_what_a_step_can_do_is_done_for_all_members[lazy penalty, several steps, averages of both]")  # fmt: skip  # noqa: E501
def _(plant):
    def make(init):
        def wrong(self, *rest):
            init(self, *rest)
            self._taken = max(self._taken, 1)

        return wrong

    plant.wrap("se_framework.ensemble.stacked.Averages.__init__", make)


@mutation("every member has the first one's rate", f"{ENSEMBLE}::test_members_of_other_weights_and_rates_follow_theirs[SGD]")  # fmt: skip  # noqa: E501
def _(plant):
    def make(set_rate):
        def wrong(self, *rest):
            set_rate(self, *rest)
            for group in self.optimizer.param_groups:
                group["lr"] = self.optimizer.param_groups[0]["lr"]

        return wrong

    plant.wrap("se_framework.ensemble.stacked.StackedPlayer.set_rate", make)


@mutation("a recorded step repeats its first draws", RECORDED)
def _(plant):
    plant.wrap("se_framework.training.execution.graphs.StaticStep.__call__", lambda own: lambda self, draws, broken: (
        own(self, dict(self._draws), broken)))  # fmt: skip


@mutation("a recording outlives its optimiser's moments", f"{PERFORMANCE}::test_recorded_steps_follow_a_restored_optimiser")  # fmt: skip  # noqa: E501
def _(plant):
    plant.wrap("se_framework.training.execution.graphs.StaticStep.is_current", lambda own: lambda self: True)


@mutation("a wrong recording is trusted", f"{PERFORMANCE}::test_a_recording_that_replays_something_else_is_rejected")
def _(plant):
    plant.everywhere("se_framework.training.execution.proof.must_agree", lambda own: lambda *rest: None)


@mutation("scores stay in bf16", f"{PERFORMANCE}::test_of_the_equation_nothing_is_in_bf16")
def _(plant):
    plant.wrap("se_framework.training.execution.LowMetric.forward", lambda own: lambda self, *rest: (
        own(self, *rest).bfloat16()))  # fmt: skip


# -- measuring --------------------------------------------------------------------------------------------------------


def import_everything() -> None:
    """Import our packages: an error must be planted in every module that has what it replaces."""
    import se_framework

    for module in pkgutil.walk_packages(se_framework.__path__, "se_framework."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def play(nodes: Iterable[str]) -> tuple[int, str]:
    """Run tests in this process, and return pytest's exit code with what it printed."""
    with tempfile.TemporaryFile("w+") as told:
        with redirect_stdout(told), redirect_stderr(told):
            code = int(pytest.main(["-q", "-x", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist", *nodes]))
        told.seek(0)
        return code, told.read()


def in_a_fork(work: Callable[[], tuple[int, str]]) -> tuple[int, str]:
    """Do work in a fork and return what it returned.

    Raises:
        LookupError: what a mutation replaces is gone.
    """
    with tempfile.NamedTemporaryFile() as file:
        child = os.fork()
        if child == 0:
            try:
                Path(file.name).write_text(json.dumps(work()))
            except BaseException as error:  # noqa: BLE001  the parent shall say it
                Path(file.name).write_text(json.dumps((-1, str(error))))
            os._exit(0)
        os.waitpid(child, 0)
        code, text = json.loads(Path(file.name).read_text())
    if code == -1:
        raise LookupError(text)
    return code, text


def outcome(this: Mutation | None, *nodes: str) -> tuple[bool, str]:
    """Return whether a test fails under an error (None for no error), and what pytest printed.

    Raises:
        LookupError: what it replaces is gone, or no test could be run.
    """

    def work() -> tuple[int, str]:
        if this is None:
            return play(nodes)
        with planted(this):
            return play(nodes)

    code, text = in_a_fork(work)
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise LookupError(f"{'' if this is None else this.name}: {' '.join(nodes)} could not be run: {text}")
    return code == pytest.ExitCode.TESTS_FAILED, text


def caught_by(this: Mutation, nodes: Iterable[str] | None = None) -> list[str]:
    """Return the tests that an error fails: of its own, or of those given."""
    return [node for node in (this.tests if nodes is None else nodes) if outcome(this, node)[0]]


def main(arguments: list[str]) -> None:
    """Measure the mutations named, or all that the list lacks, and write the list.

    Raises:
        SystemExit: a test fails without any error.
    """
    torch.set_num_threads(1)
    import_everything()
    known = json.loads(LIST.read_text()) if LIST.exists() else {}
    chosen = [m for m in MUTATIONS if m.name in arguments or (not arguments and m.name not in known)]
    failed, text = outcome(None, *dict.fromkeys(node for m in chosen for node in m.tests)) if chosen else (False, "")
    if failed:
        raise SystemExit(f"without any error: {text}")
    for this in chosen:
        known[this.name] = caught_by(this)
        print(f"{this.name}: {', '.join(known[this.name]) or 'NOT CAUGHT'}", flush=True)
        rows = {m.name: known[m.name] for m in MUTATIONS if m.name in known}
        LIST.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
