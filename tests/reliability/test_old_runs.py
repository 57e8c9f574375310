"""Runs that version 0.1 wrote are sampled, scored and exported as they were; only to go on they need that version.

``tests/fixtures/runs_0_1`` holds three of them (one game, a sum of three with a flow and averages, an ensemble of two)
and what version 0.1 made of them: samples, scores, and the sum of every exported tensor.
"""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import se_framework as se
from se_framework.randomness import generator
from se_framework.runs.directory import RunDirectory
from tests.support.commands import EVALUATE, SAMPLE, TRAIN, call
from tests.support.oracles import z_score

RUNS = Path(__file__).parents[1] / "fixtures" / "runs_0_1"
EXPECTED = json.loads((RUNS / "expected.json").read_text())
EXPORT = [*SAMPLE[:-1], "se_framework.commands.export"]
SPACING = 2.0**-23
# From noise to a coordinate a sample passes at most 100 additions of float32 numbers below 10, in an order that may
# change with the processor: each is off by the spacing of floats at the size of its terms.
ROUNDING = 100 * 10 * SPACING


@pytest.fixture
def run(request, tmp_path):
    """Return a copy of a run."""
    return Path(shutil.copytree(RUNS / request.param, tmp_path / request.param))


@pytest.mark.parametrize("run", ["single", "sum", "ens"], indirect=True)
def test_the_model_carries_the_same_noise_to_the_samples_of_version_0_1(run):
    """That version drew n samples at once from one stream; draws are in blocks since."""
    member = {"member": 1} if run.name == "ens" else {}
    assembly = se.load(run, device="cpu", **member)
    with torch.no_grad():
        samples = assembly.data.to_user(assembly.model().sample((5,), generator=generator(0, 0, "sample")))
    np.testing.assert_allclose(samples.numpy(), EXPECTED[run.name], rtol=0, atol=ROUNDING)
    process = call([*SAMPLE, run.name, "n=5", "out=x.npy", *(f"{key}={k}" for key, k in member.items())], run.parent)
    assert process.returncode == 0, process.stderr
    assert np.load(run.parent / "x.npy").shape == (5, 2)


@pytest.mark.parametrize("run", ["single", "sum"], indirect=True)
def test_weights_of_version_0_1_are_those_of_every_player(run):
    """In that format every player held its own; those of the metric enter no sample."""
    saved = RunDirectory(run).load_checkpoint()[0]["players"]
    players = se.load(run, device="cpu").state.players
    assert {player.name for player in players} == set(saved)
    for player in players:
        held, found = saved[player.name]["module"], player.module.state_dict()
        assert held and all(torch.equal(tensor, found[name]) for name, tensor in held.items()), player.name


@pytest.mark.parametrize("run", ["single", "sum"], indirect=True)
def test_scores_are_those_of_version_0_1(run):
    process = call([*EVALUATE, run.name, "n=200"], run.parent)
    assert process.returncode == 0, process.stderr
    found = json.loads((run / "eval.json").read_text())["scores"]
    expected = EXPECTED[f"{run.name}_eval"]
    assert found.keys() >= expected.keys()
    # Distances move no more than their points (sqrt(2) times a coordinate), the log-density of a small flow no more
    # than ten times as far. The held-out value is of other noise, on the same data: two draws of one standard error.
    allowed = {"w2": math.sqrt(2) * ROUNDING, "sliced_w2": math.sqrt(2) * ROUNDING, "nll": 10 * ROUNDING}
    allowed["held_out_value"] = z_score(1) * math.sqrt(2) * found["held_out_value"]["se"]
    for name, value in expected.items():
        assert found[name]["value"] == pytest.approx(value, rel=0, abs=allowed[name]), name


@pytest.mark.parametrize("run", ["single", "sum"], indirect=True)
def test_exported_tensors_are_those_of_version_0_1(run):
    process = call([*EXPORT, run.name, "out=w.safetensors"], run.parent)
    assert process.returncode == 0, process.stderr
    expected = EXPECTED[f"{run.name}_export"]
    with safe_open(run.parent / "w.safetensors", framework="np") as file:
        assert set(file.keys()) == set(expected)
        for name, total in expected.items():
            tensor = file.get_tensor(name).astype(np.float64)
            # The tensors are the same to the bit; the sums, of float64, may differ by their order.
            size = float(np.abs(tensor).sum())
            assert float(tensor.sum()) == pytest.approx(total, rel=0, abs=tensor.size * 2.0**-52 * size), name


@pytest.mark.parametrize("run", ["single", "sum", "ens"], indirect=True)
def test_a_run_of_version_0_1_goes_on_with_that_version_only_and_says_so(run):
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    process = call([*TRAIN, f"resume={run.name}", "loop.rounds=22"], run.parent)
    assert process.returncode == 1 and process.stderr.count("\n") == 1, process.stderr
    assert "was written by version 0.1.0" in process.stderr and "se-framework==0.1.0" in process.stderr
    assert {file: file.read_bytes() for file in before} == before
