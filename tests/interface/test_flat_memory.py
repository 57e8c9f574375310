"""What comes after training takes no more memory than training: samples, scores and pictures go in chunks."""

import json
import subprocess
import sys

import numpy as np
import torch

import se_framework as se
from models import ConvGenerator, MLPGenerator
from se_framework.training import sampling
from tests.support.commands import ROOT
from tests.support.composing import compose

SHORT = ["loop.rounds=2", "loop.log_every=0", "progress=false", "device=cpu"]

IMAGES = """
import json, resource, sys, torch
import se_framework as se
from se_framework.evaluation.evaluate import evaluate
from se_framework.data import TensorData

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

torch.set_num_threads(1)
data = TensorData(torch.rand(60, 3, 64, 64), held_out_fraction=0.5)
typed = ["model=conv_generator", "model.width=4", "metric=conv", "metric.network.width=4", "loop.rounds=1",
         "loop.batch_size=16", "loop.log_every=0", "progress=false", "device=cpu"]
assembly = se.compose("nonsaturating_gan", typed, data=data)
assembly.train()
before = peak()
found = evaluate(assembly)
scored = peak()
assembly.plot(sys.argv[1])
print(json.dumps([before, scored, peak(), found["held_out_value"]["n"]]))
"""


def test_the_end_of_a_run_on_images_stays_near_its_start(tmp_path):
    """10,000 samples of 64 pixels at once would be 0.7 GB in each activation at full size, and 1 GB in float64."""
    command = [sys.executable, "-c", IMAGES, str(tmp_path / "samples.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    before, scored, drawn, n = json.loads(done.stdout.splitlines()[-1])
    assert n >= 30
    assert scored - before < 2**30 and drawn - before < 2**30, (before >> 20, scored >> 20, drawn >> 20)


def test_blocks_follow_the_widest_activation():
    narrow, wide = MLPGenerator((2,), width=8), ConvGenerator((3, 64, 64), width=32)
    assert sampling.widest(narrow) == 16  # its latent vector
    assert sampling.widest(wide) == 64 * 64 * 32
    assert sampling.fitting(2**24, 64 * 64 * 32, 256) == 128
    assert sampling.fitting(2**24, 10, 256) == 256 and sampling.fitting(10, 2**30, 256) == 1


def test_samples_come_in_blocks_of_which_fewer_are_the_first_of_more():
    for classes in (0, 2):
        labels = torch.arange(60) % 2 if classes else None
        data = se.data.TensorData(torch.randn(60, 2), labels=labels)
        assembly = compose("vanilla_gan", [*SHORT, "loop.batch_size=16"], data=data)
        whole = assembly.sample(600, seed=3)
        parts = list(assembly.sample_blocks(600, seed=3))
        assert [len(part) for part in parts] == [256, 256, 88]
        assert torch.equal(torch.cat(parts), whole) and torch.equal(assembly.sample(300, seed=3), whole[:300])
    before = torch.random.get_rng_state()
    blocks = assembly.sample_blocks(600)
    next(blocks)
    assert torch.equal(torch.random.get_rng_state(), before)  # between blocks nothing is seeded


def test_se_sample_streams_what_sample_returns(tmp_path, monkeypatch, capsys):
    from se_framework.commands import sample

    assembly = compose("vanilla_gan", [*SHORT, "loop.batch_size=16", "data=ring8"])
    assembly.train(se.RunDirectory(tmp_path / "run"))
    monkeypatch.setattr(
        "sys.argv", ["se-sample", str(tmp_path / "run"), "n=1e3", f"out={tmp_path / 'x.npy'}", "device=cpu"]
    )
    sample.main()
    assert "1000 samples of shape (2,)" in capsys.readouterr().out
    found = np.load(tmp_path / "x.npy")
    assert found.dtype == np.float32 and np.array_equal(found, assembly.sample(1000).numpy())
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
