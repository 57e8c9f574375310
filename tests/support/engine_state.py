"""Errors planted in state and checkpoints, and in members and recorded steps."""

from __future__ import annotations

import copy
from collections.abc import Callable

from tests.support.engine_list import ENSEMBLE, PERFORMANCE, RECORDED, RESUMED, ROLES, TRAINING, WHOLE, mutation
from tests.support.planting import Plant

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
