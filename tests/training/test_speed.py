"""The benchmarks' instrument: a planted factor is measured, other work is refused, rows compare like with like."""

import time
from functools import partial

import pytest
import torch

from benchmarks.speed import gpu, report
from benchmarks.speed.__main__ import all_rows
from benchmarks.speed.adversarial import LATENT
from benchmarks.speed.contest import (
    OURS,
    Absent,
    Contest,
    Disagreement,
    Figure,
    Goal,
    Row,
    largest_difference,
    measure,
    must_agree,
)  # fmt: skip
from benchmarks.speed.engine import agreement, compose, plain
from benchmarks.speed.growth import exponent
from benchmarks.speed.loops import hand_gan, hand_wgan_gp, slope_of_perceptron
from benchmarks.speed.timer import LOG_EVERY, Side, Times, spread, take_turns
from models.networks import Dense
from se_framework.training.execution import Execution
from tests.support.tape import record

CONTESTS = [name for name, row in all_rows().items() if isinstance(row, Row) and not row.gpu]


def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_a_planted_factor_of_two_is_measured_as_two():
    # The loop overshoots by one reading of the clock, below 10 us of 2 ms; the median of 15 pairs is robust to a few
    # interruptions.
    times = take_turns({"ours": Side(lambda: burn(4e-3)), "theirs": Side(lambda: burn(2e-3))}, pairs=15, warmup=1)
    found = times.ratio("ours", "theirs", "process")
    assert found.count == 15 and found.median == pytest.approx(2, rel=0.05)
    assert times.difference("ours", "theirs", "process").median == pytest.approx(2e-3, rel=0.05)
    assert times.of("theirs", "wall").median >= 1.99e-3
    assert times.fastest(("ours", "theirs"), "process") == "theirs"


def test_rounds_divide_and_a_hundredth_of_the_logging_is_added():
    sides = {"ours": Side(lambda: burn(4e-3), 4, lambda: burn(4e-3)), "theirs": Side(lambda: burn(1e-3))}
    times = take_turns(sides, pairs=9, warmup=0)
    assert times.of("ours", "process").median == pytest.approx(1e-3 + 4e-3 / LOG_EVERY, rel=0.05)


def test_ratios_are_of_neighbours_and_quartiles_of_those():
    # The machine slows down tenfold half-way: pairs still say 2, medians of each side alone need not.
    slow = [1.0, 1.0, 10.0, 10.0, 10.0]
    times = Times({"a": {"wall": [2 * s for s in slow]}, "b": {"wall": slow}})
    found = times.ratio("a", "b", "wall")
    assert (found.median, found.low, found.high) == (2, 2, 2)
    assert (spread([1.0, 2.0, 3.0, 4.0, 5.0]).low, spread([1.0, 2.0, 3.0, 4.0, 5.0]).high) == (2, 4)
    assert spread([3.0]).median == 3


def test_sides_take_turns_in_alternating_order():
    order = []
    take_turns({"a": Side(lambda: order.append("a")), "b": Side(lambda: order.append("b"))}, pairs=3, warmup=1)
    assert "".join(order) in ("abbaabba", "baabbaab")


def row_of(ratio_of_hand, goal):
    sides = {OURS: Side(lambda: burn(2e-3)), "tutorial": Side(lambda: burn(2e-3))}
    sides["hand"] = Side(lambda: burn(2e-3 * ratio_of_hand))
    return Row("x", "x", lambda size: Contest(sides, dict), (goal,), pairs=9)


@pytest.mark.parametrize(("ratio", "met"), [(0.5, False), (0.97, None)])
def test_a_hand_written_loop_counts_only_if_it_beats_the_tutorial(ratio, met):
    goal = Goal("hand", ("hand",), 1.02, counts_if=("tutorial", 0.80))
    (verdict,), record = measure(row_of(ratio, goal))
    assert verdict.met is met and verdict.value == pytest.approx(1 / ratio, rel=0.1)
    assert record["ours_over"]["hand"]["process"]["median"] == pytest.approx(1 / ratio, rel=0.1)


def test_the_fastest_of_several_counts():
    (verdict,), _ = measure(row_of(0.5, Goal("both", ("tutorial", "hand"), 2.2)))
    assert verdict.note == "fastest: hand" and verdict.met


def test_other_work_is_refused():
    shape = [f"model.latent_dim={LATENT}", "model.width=8", "metric=mlp", "metric.network.width=8"]

    def make(more):
        torch.manual_seed(0)
        return compose("nonsaturating_gan", [*shape, "loop.batch_size=8", "device=cpu", *more], torch.randn(64, 2))

    def twice_the_rate(nets, draws, factory):
        def doubled(parameters):
            optimizer = factory(parameters)
            optimizer.param_groups[0]["lr"] *= 2
            return optimizer

        return hand_gan(nets, draws, doubled)

    assert agreement(make, {"hand": hand_gan})["hand"] < 1e-9
    with pytest.raises(Disagreement, match="hand after 2 rounds under"):
        agreement(make, {"hand": twice_the_rate})
    with pytest.raises(Disagreement, match="differ by nan"):
        must_agree("x", float("nan"), 1.0)
    with pytest.raises(Disagreement, match="different tensors"):
        largest_difference({"a": torch.ones(1)}, {})


def test_rounds_that_are_replayed_from_recordings_are_compared_on_their_own_draws():
    """On a GPU the engine replays graphs in which no module is called, so draws are kept where they are drawn."""
    shape = [f"model.latent_dim={LATENT}", "model.width=8", "metric=mlp_gradient_penalty", "metric.network.width=8"]

    def make(more):
        torch.manual_seed(0)
        options = [*shape, "players.phi.steps=5", "loop.batch_size=8", "device=cpu", *more]
        assembly = compose("wgan_gp", options, torch.randn(64, 2))
        recorded.append(Execution(graphs=True, capture=record))
        assembly.state.execution = recorded[-1]
        return assembly

    recorded = []
    assert agreement(make, {"hand": hand_wgan_gp})["hand"] < 1e-9
    assert any(execution._steps for execution in recorded) and not recorded[0].news


def test_plain_copies_of_networks_lie_where_the_networks_do():
    copied = plain(torch.nn.Sequential(Dense(2, 3, activation="relu"), torch.nn.Linear(3, 1)).to("meta"))
    assert {p.device.type for p in copied.parameters()} == {"meta"}


def test_slope_of_a_perceptron_and_its_weight_gradients_are_those_of_two_derivatives():
    torch.set_default_dtype(torch.float64)
    critic = torch.nn.Sequential(
        torch.nn.Linear(3, 7), torch.nn.LeakyReLU(0.2), torch.nn.Linear(7, 5), torch.nn.LeakyReLU(0.2),
        torch.nn.Linear(5, 1),
    )  # fmt: skip
    x = torch.randn(11, 3, requires_grad=True)
    (twice,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    once = slope_of_perceptron(critic, x)
    torch.testing.assert_close(once, twice)
    weights = [layer.weight for layer in critic if isinstance(layer, torch.nn.Linear)]
    for a, b in zip(
        *(torch.autograd.grad(slope.norm(dim=1).square().sum(), weights) for slope in (once, twice)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_exponent_of_a_power_is_its_exponent():
    assert exponent([1, 10, 1000], [3.0, 300.0, 3e6]) == pytest.approx(2)


@pytest.fixture(scope="module")
def agreed():
    """Return a function: the differences of a contest. Rows that differ in what is timed share one comparison."""
    found = {}

    def of(row, contest):
        agree = contest.agree
        work = (agree.func, agree.args) if isinstance(agree, partial) else row.make
        if work not in found:
            found[work] = agree()
        return found[work]

    return of


@pytest.mark.filterwarnings("ignore:Inputs to the softmax are not scaled down")  # of nflows and normflows
@pytest.mark.parametrize("name", CONTESTS)
def test_every_row_compares_like_with_like(name, agreed):
    row = all_rows()[name]
    try:
        contest = row.make("tiny")
    except Absent as absent:
        pytest.skip(str(absent))
    assert next(iter(contest.sides)) == OURS
    assert not row.goals or {side for goal in row.goals for side in goal.sides} & contest.sides.keys()
    assert all(difference < 0.1 for difference in agreed(row, contest).values())
    for side in contest.sides.values():
        side.run()


def test_the_table_has_a_line_for_every_row():
    expected = {name: [vars(line) for line in row.unmeasured("")] for name, row in all_rows().items()}
    written = report.table(expected)
    assert all(f"`{name}`" in written for name in expected)
    assert all(
        isinstance(row, Row | Figure) and lines
        for row, lines in zip(all_rows().values(), expected.values(), strict=True)
    )


def test_loops_for_a_gpu_play_the_same_game_on_a_cpu():
    differences = gpu.convolutional("tiny", device="cpu").agree()
    assert differences["tutorial"] < 1e-9 and differences["hand"] < 1e-9 and differences["bf16"] < 0.1
