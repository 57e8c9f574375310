"""Every JSON that we write is JSON, whatever numbers a run has met."""

import json
import math

import pytest
import torch

from se_framework.evaluation.evaluate import evaluate
from se_framework.runs import checkpoint, sweeps
from se_framework.runs.directory import RunDirectory
from se_framework.runs.files import as_json
from tests.support.composing import compose

ODD = {"a": math.nan, "b": [math.inf, (1.5, -math.inf)], "c": {"d": "NaN", "e": None, "f": 1}}


def strict(text):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_json_has_not_are_texts_that_read_back():
    found = strict(as_json(ODD))
    assert found == {"a": "NaN", "b": ["Infinity", [1.5, "-Infinity"]], "c": ODD["c"]}
    assert math.isnan(float(found["a"])) and float(found["b"][0]) == math.inf


def test_every_writer_follows_the_rule(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.make()
    strict(run.write_json("summary.json", ODD).read_text())
    run.write_json("summary.json", {"scores": {"nll": {"value": math.inf}}})
    sweeps.record_job(tmp_path / "sweep/0", 0, ["x=1"], "finished", math.nan, run.path)
    assert strict((tmp_path / "sweep/0/result.json").read_text())["score"] == "NaN"
    row = (tmp_path / "sweep/results.csv").read_text().splitlines()[1].split(",")
    assert math.isnan(float(row[2])) and math.isinf(float(row[4]))


def test_a_checkpoint_keeps_what_is_not_finite_in_a_header_of_json():
    kept = {"x": torch.ones(2), "values": [math.inf, -math.inf, 0.5, math.nan], "n": 3}
    content = checkpoint.encode(kept)
    size = int.from_bytes(content[:8], "little")
    strict(strict(content[8 : 8 + size])["__metadata__"]["state"])
    found = checkpoint.decode(content)
    assert found["values"][:3] == kept["values"][:3] and math.isnan(found["values"][3]) and found["n"] == 3


@pytest.mark.filterwarnings("ignore")
def test_scores_of_twelve_rows_are_json():
    x = torch.randn(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    overrides = ["model.width=8", "model.couplings=2", "loop.rounds=1", "loop.log_every=0", "progress=false"]
    assembly = compose("mle_flow", overrides, data=x)
    assembly.train()
    strict(as_json(evaluate(assembly, 12)))
