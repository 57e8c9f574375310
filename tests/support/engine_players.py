"""Errors planted in roles, players, their steps, draws and losses."""

from __future__ import annotations

import copy
import math

import torch

from tests.support.engine_list import (
    FAILURES,
    FRESH,
    GRADIENT,
    METRIC,
    OPTIMIZERS,
    RESUMED,
    ROLES,
    SUMS,
    TRAINING,
    WHOLE,
    mutation,
    of_roles,
)
from tests.support.planting import Plant

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
    def make(step):
        def wrong(self, *rest):
            found = step(self, *rest)
            self.update_average()
            return found

        return wrong

    plant.wrap("se_framework.training.players.Player.step", make)


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
