"""Errors planted in the record, in evaluation and in data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace

import torch

from tests.support.engine_list import CONTRACT, DATA, PARTS, SAMPLES, SCORES, SUMS, TRAINING, UNITS, mutation
from tests.support.planting import Plant

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
    own = plant.find("se_framework.training.sampling.generator")
    plant.set("se_framework.training.sampling.generator", lambda seed, number, *rest: own(seed, 0, *rest))


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

    plant.everywhere("se_framework.evaluation.held_out.bound", make)


STANDARD_ERROR = f"{SCORES}::test_the_standard_error_is_that_of_a_mean_over_examples"
CHUNKED = f"{SCORES}::test_the_standard_error_of_what_is_no_mean_is_that_of_ten_parts"


@mutation("standard error without the conjugate's variance", STANDARD_ERROR)
def _(plant):
    plant.wrap("se_framework.Dual.values", lambda own: lambda self, problem: 0 * own(self, problem))


@mutation("standard error not divided by the root of the count", STANDARD_ERROR)
def _(plant):
    plant.wrap("se_framework.evaluation.held_out.value_and_error", lambda own: lambda equation, data, x, *rest: (
        lambda value, error: (value, error * len(x.x) ** 0.5))(*own(equation, data, x, *rest)))  # fmt: skip


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
