"""Runs that grow: stages, fades, batches and optimisers as stated; resumed to the bit anywhere; bad lists refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

import se_framework as se
from se_framework.assembly import assembly_of
from se_framework.config.composing import compose
from se_framework.config.resuming import resumed_config
from se_framework.data import TensorData
from se_framework.equation.penalties import GradientPenalty
from se_framework.errors import ConfigError, IncompatibleError
from se_framework.training.draws import draw_batch
from se_framework.training.execution import Execution
from tests.support.ensembles import both, distance, rounds
from tests.support.runs import KILLED, play

SMALL = ["data=digits", "model.base=8", "model.most=4", "model.latent_dim=3", "metric.network.base=8",
         "metric.network.most=4", "loop.log_every=1", "loop.checkpoint_every=1", "progress=false",
         "device=cpu"]  # fmt: skip
LADDER = ((2, 8, 4, 0), (4, 4, 8, 8), (2, 4, 8, 0))
"""Rounds, batch, resolution, examples of the fade: the fade ends in the midst of its stage."""


def stage(rounds, batch, resolution, fade=0, of_metric=None):
    size = f"resolution: {resolution}, fade: {fade}"
    other = size if of_metric is None else f"resolution: {of_metric}, fade: 0"
    return f"{{rounds: {rounds}, loop.batch_size: {batch}, model: {{{size}}}, metric: {{network: {{{other}}}}}}}"


def stages(*ladder):
    return f"stages=[{', '.join(stage(*each) for each in ladder)}]"


def composed(*overrides, ladder=LADDER):
    return se.compose("progressive", [*SMALL, stages(*ladder), *overrides])


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """The whole run, its directory, and alpha in every round of the fading stage as both networks had it."""
    path, seen = tmp_path_factory.mktemp("grown") / "run", []

    class Looking(se.Callback):
        def on_row(self, state, row):
            parts = (state.equation.model, state.equation.metric.network, state.player("theta").average.module)
            seen.append([float(fade.alpha) for part in parts for fade in part.fade.values()])

    assembly = composed()
    assembly.train(se.RunDirectory(path, keep_last=100), callbacks=[Looking()])
    return assembly, path, seen


def tensors(state):
    saved = state.state_dict()
    found = dict(saved["equation"])
    for name, player in saved["players"].items():
        moments = player["optimizer"]["state"]
        found |= {f"{name}/{k}/{n}": v for k, row in moments.items() for n, v in row.items()}
        found |= {f"{name}/average/{k}": v for k, v in (player["average"] or {}).items()}
    return found


def test_batches_fades_and_optimisers_follow_the_stages(grown):
    assembly, path, seen = grown
    rows = se.RunDirectory(path).rows()
    assert [int(row["samples"]) for row in rows] == [8, 16, 20, 24, 28, 32, 36, 40]
    # At the start of the stage's rounds 0, 4, 8, 12 of 8 examples have been seen since it began.
    assert seen == [[], [], [0.0] * 3, [0.5] * 3, [1.0] * 3, [1.0] * 3, [], []]
    assert all(player.steps_taken == 2 for player in assembly.state.players)  # afresh in the last stage
    assert set(assembly.state.equation.model.to_image) == {"8"}


@pytest.mark.soak
@pytest.mark.parametrize("checkpoint", [1, 2, 3, 4, 5, 6, 7])
def test_it_goes_on_to_the_bit_from_any_round(grown, checkpoint, soak):
    """``make soak``: from every round; ``make test``: from the ends of a stage and from within the fade."""
    if not soak and checkpoint not in (2, 4):
        return
    assembly, path, _ = grown
    again = se.load(path, checkpoint=checkpoint)
    assert again.state.round == checkpoint
    again.train()
    one, other = tensors(assembly.state), tensors(again.state)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.soak
def test_killed_in_stages_and_fades_it_goes_on_to_the_bit(soak, tmp_path):
    """``make soak``: before each round, as processes; ``make test``: not at all, the rounds above are played there."""
    if soak:
        typed = [*SMALL, "experiment=progressive", stages(*LADDER)]
        done = play(KILLED, tmp_path, "\n".join(typed), ",".join(map(str, range(1, 8))))
        assert done.returncode == 0, done.stderr[-2000:]


def test_a_new_stage_begins_with_the_samples_of_the_old_one(grown):
    """The handover of a run itself: at its first round the faded stage samples what the stage before sampled."""
    _, path, _ = grown
    before = se.load(path, checkpoint=2)
    after, _ = before.course.enter(1, before.state)
    after.schedule()
    z = torch.randn(5, 3)
    with torch.no_grad():
        assert torch.equal(after.equation.model.push(z, None), before.state.equation.model.push(z, None))
        small = F.avg_pool2d(after.equation.model.push(z, None).reshape(5, 1, 8, 8), 2)
        large = F.interpolate(small, scale_factor=2, mode="nearest")
        # Means of four equal numbers are exact.
        assert torch.equal(after.equation.model.push(z, None).reshape(5, 1, 8, 8), large)
    assert all(not p.optimizer.state_dict()["state"] for p in after.players)


def test_every_batch_of_a_step_is_faded_and_no_score_is(grown):
    _, path, _ = grown
    there = se.load(path, checkpoint=4)  # within the fade, alpha 1/2
    state, data = there.state, there.data
    raw = data.batch(0, 6, 0, torch.device("cpu")).x
    at_4 = F.interpolate(F.avg_pool2d(raw.reshape(6, 1, 8, 8), 2), scale_factor=2, mode="nearest").reshape(raw.shape)
    found = draw_batch(data, 0, 6, 0, state.equation).x
    alpha = float(state.equation.model.fade["8"].alpha)
    assert alpha == 0.5 or alpha == 1.0
    torch.testing.assert_close(found, torch.lerp(at_4, raw, alpha), rtol=0, atol=1e-6)  # float32, numbers up to 4
    assert torch.equal(data.held_out(6, 0).x, there.data.held_out(6, 0).x)


@pytest.mark.soak
def test_a_prepared_step_reads_the_fade_as_it_is(soak):
    """Compiled once: alpha is a buffer that is set in place, so no key of a step has to hold it; r is its stage's.

    ``make soak`` alone: to compile both players' steps takes 5 s.
    """
    if not soak:
        return
    states = [composed(ladder=((3, 4, 8, 8),)).state for _ in range(2)]
    data = composed().data
    states[1].execution = Execution(compiled=True, backend="eager")
    for state in states:
        se.train(state, data, rounds=3, batch_size=4, horizon=3, log_every=0, progress=False)
    assert states[1].execution.news == [] and float(states[1].equation.model.fade["8"].alpha) == 1.0
    plain, compiled = map(tensors, states)
    for name, tensor in plain.items():  # rounding of float32 in another order of sums, over three steps of Adam
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-3, atol=1e-4)


def test_members_of_an_ensemble_see_data_at_their_resolution_as_their_single_runs():
    torch.set_default_dtype(torch.float64)
    # A critic that does not grow, which sees the difference.
    small = ("data=digits", "model.base=8", "model.most=4", "metric=mlp_gradient_penalty", "metric.network.width=8")
    together, alone = both("progressive", (*small, "model.resolution=4"), members=2)
    rounds(together, alone, 2)
    together.state.scatter()
    for member, single in zip(together.members, alone, strict=True):
        assert distance(member.state, single.state) < 1e-8  # rounding 1e-16, amplified by two rounds


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ladder", "message"),
    [
        (((1, 4, 8), (1, 4, 4)), r"stages\[1\]: GrowingGenerator of resolution 4 follows one of 8: a stage cannot"),
        (((1, 4, 4), (1, 4, 4), (1, 4, 16)), r"stages\[2\]: .*: resolution must be one of 4, 8 for images of 8 x 8"),
        (((1, 4, 8), (1, 4, 8, 4)), r"stages\[1\]: GrowingGenerator fades resolution 8 in, which the stage before"),
        (((1, 4, 4, 4),), r"fade=4 brings resolution 4 in, and there is none below"),
        (((1, 4, 8), (1, 4, 8, 0, 4)), r"stages\[1\]: GrowingCritic of resolution 4 follows one of 8"),
        (((1, 4, 4), (1, 6, 8)), r"stages\[1\]: loop.batch_size=6: GrowingCritic takes statistics over groups of 4 "
         "examples, which do not divide it: choose loop.batch_size=4 or loop.batch_size=8"),
        (((1, 2, 4),), r"loop.batch_size=2: .*: choose loop.batch_size=4$"),
    ],
)  # fmt: skip
def test_a_list_that_cannot_be_played_is_refused_before_its_first_round(ladder, message):
    with pytest.raises(ConfigError, match=message) as caught:
        composed(ladder=ladder)
    assert "\n" not in str(caught.value)


def test_gaps_are_refused():
    with pytest.raises(ConfigError, match=r"stages\[1\]: .* follows one of 4: put a stage of resolution=8 between"):
        config = compose("progressive", [*SMALL, stages((1, 4, 4), (1, 4, 16))])
        assembly_of(config, TensorData(torch.randn(40, 1, 16, 16), image_shape=(1, 16, 16)))


@pytest.mark.parametrize("ladder", [LADDER[:2], ((2, 8, 4, 0), (4, 4, 8, 16), (2, 4, 8, 0))])
def test_a_resume_in_another_list_is_refused(grown, ladder):
    _, path, _ = grown
    typed = [f"resume={path}", stages(*ladder)]
    with pytest.raises(ConfigError, match="stages") as caught:
        resumed_config(compose(None, typed), se.RunDirectory(path), typed)
    assert "\n" not in str(caught.value)


def test_the_deviation_under_a_penalty_needs_to_be_allowed_and_is_remarked():
    with pytest.raises(IncompatibleError, match=r"couples the examples by the deviation of a group.*batch_coupled"):
        composed("allow=[]", ladder=LADDER[:1])
    assert "by the deviation of a group" in composed(ladder=LADDER[:1]).state.note
    assert composed("allow=[]", "metric.network.deviation=false", ladder=LADDER[:1]).state.note is None


# -- the penalty's drift ----------------------------------------------------------------------------------------------


def test_the_drift_is_a_mean_square_of_scores_on_data_beside_the_penalty():
    torch.manual_seed(0)
    network, x, y, mix = torch.nn.Linear(3, 1), torch.randn(6, 3), torch.randn(6, 3), torch.rand(6)

    def metric(points):
        return network(points).squeeze(1)

    plain = GradientPenalty(5.0)(metric, x, y, mix)
    for every in (1, 3):
        found = GradientPenalty(5.0, drift=0.2, every=every)(metric, x, y, mix)
        truth = every * (float(plain.detach()) + 0.2 * float(metric(x).square().mean().detach()))
        assert math.isclose(float(found.detach()), truth, rel_tol=1e-6)
    assert "drift=0.2" in GradientPenalty(drift=0.2).extra_repr() and "drift" not in GradientPenalty().extra_repr()
    with pytest.raises(ConfigError, match="metric.penalty needs drift >= 0, got -1"):
        GradientPenalty(drift=-1.0)
