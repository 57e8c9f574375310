"""The same runs on a GPU; skipped where there is none."""

import pytest
import torch

from se_framework import compose
from se_framework.composing import config_dir, groups
from se_framework.evaluation import evaluate

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("experiment", groups([config_dir()])["experiment"])
def test_experiments_train_and_evaluate_on_cuda(experiment):
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        short = ["device=cuda", "loop.rounds=20", "loop.log_every=10", "loop.batch_size=64", "progress=false"]
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
