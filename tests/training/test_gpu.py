"""The same runs on a GPU; skipped where there is none."""

import copy

import pytest
import torch

from se_framework import compose
from se_framework.config.composing import config_dir, groups
from se_framework.evaluation.evaluate import evaluate
from se_framework.training.step import play_round

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("experiment", groups([config_dir()])["experiment"])
def test_experiments_train_and_evaluate_on_cuda(experiment):
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        short = [
            "device=cuda",
            "loop.rounds=20",
            "loop.log_every=10",
            "loop.batch_size=64",
            "progress=false",
            "stages=[]",
        ]
        assembly = compose(experiment, short)
        rows = assembly.train().history
        assert len(rows) == 2 and all(p.is_cuda for p in assembly.model.parameters())
        assert all(abs(entry["value"]) < float("inf") for entry in evaluate(assembly, n=1000).values())
    finally:
        torch.set_default_dtype(previous)


def test_a_round_on_cuda_agrees_with_one_on_cpu_where_nothing_is_random():
    """The data is drawn on the CPU: a theta-only likelihood step needs no noise, so both devices take the same step."""
    losses = []
    for device in ("cpu", "cuda"):
        assembly = compose(
            "mle_flow", [f"device={device}", "model=affine", "loop.rounds=5", "loop.log_every=5", "progress=false"]
        )
        losses.append(assembly.train().history[-1]["D"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


SHORT = ["device=cuda", "loop.batch_size=64", "progress=false", "players.theta.ema=0.9"]


def rounds(assembly, n):
    return [play_round(assembly.state, assembly.data, 64, 100)[0] for _ in range(n)]


@pytest.mark.parametrize("experiment", ["vanilla_gan", "wgan_gp", "sngan_hinge", "mle_flow"])
def test_graphs_play_the_plain_game(experiment):
    # The same kernels on the same numbers, but for a learning rate in float32, off by 2^-25 of itself. One round is
    # compared at rounding; in 20, Adam may turn the sign of a gradient near zero, a step of 1e-3, a few times.
    plain, fast = (compose(experiment, [*SHORT, f"performance.graphs={use}"]) for use in ("never", "always"))
    first, again = rounds(plain, 1)[0], rounds(fast, 1)[0]
    assert fast.state.execution.news == [] and fast.state.execution._steps
    for name, value in first.items():
        assert again[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    rounds(plain, 19), rounds(fast, 19)
    for a, b in zip(plain.state.equation.parameters(), fast.state.equation.parameters(), strict=True):
        assert float((a - b).abs().max()) < 20 * 1e-3 and float((a - b).norm()) < 1e-2 * float(a.norm() + 1)


def test_graphs_resume_exactly():
    options = [*SHORT, "performance.graphs=always", "deterministic=true"]
    whole, resumed = compose("vanilla_gan", options), compose("vanilla_gan", options)
    rounds(whole, 5)
    half = copy.deepcopy(whole.state.state_dict())
    rounds(whole, 5)
    resumed.state.load_state_dict(half)
    rounds(resumed, 5)
    assert resumed.state.execution.news == []
    for a, b in zip(whole.state.equation.parameters(), resumed.state.equation.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_step_that_reads_the_gpu_gives_way_before_it_is_recorded():
    """A recording that is broken off would leave torch's generator on the GPU unusable."""
    plain, fast = (compose("sinkhorn", [*SHORT, f"performance.graphs={use}"]) for use in ("never", "always"))
    first, again = rounds(plain, 2)[-1], rounds(fast, 2)[-1]
    (line,) = fast.state.execution.tell()
    assert line.startswith("no CUDA graph for theta: RuntimeError") and "synchroniz" in line
    assert first == pytest.approx(again, rel=1e-4)
    assert torch.cuda.get_sync_debug_mode() == 0 and bool(torch.randn(3, device="cuda").isfinite().all())


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_convolutions_are_compiled_or_say_why(precision):
    images = ["model=conv_generator", "metric=conv_r1", f"performance.precision={precision}"]
    assembly = compose("digits", [*SHORT, *images, "performance.compile=always"])
    rows = rounds(assembly, 3)
    assert all(abs(v) < float("inf") for row in rows for v in row.values())
    assert assembly.state.execution.news == []
