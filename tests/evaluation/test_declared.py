"""Which scores there are follows from what data and model declare; names work wherever a score is chosen."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest
import torch

import se_framework.evaluation
from se_framework.commands.evaluate import _evaluate
from se_framework.config import schema
from se_framework.data import Digits, GaussianMixture1d, Moons, Ring8, Sampler, TensorData
from se_framework.data.features import Features
from se_framework.errors import ConfigError
from se_framework.evaluation.evaluate import SCORES, evaluate, refuse_absent, refuse_unknown, score_lines
from se_framework.evaluation.scores import ALL, NAMES, SHOWN, lacks, scores
from se_framework.runs.directory import RunDirectory
from tests.support.commands import small_scores
from tests.support.composing import compose

GENERAL = {"w2", "sliced_w2", "mmd", "energy", "c2st", "precision", "recall", "density", "coverage"}
ROWS, MODES = {"memorised", "nearest_train"}, {"modes", "high_quality", "mode_kl"}
DENSITIES = {"nll", "kl", "reverse_kl"}


class Cube(Sampler):
    event_shape = (3,)

    def draw(self, n, generator):
        return torch.rand((n, 3), generator=generator, dtype=torch.float64)


def declared(data, density=False):
    return {name for name in NAMES if not lacks(data, density, name)}


def with_features():
    data = TensorData(torch.rand(30, 400, 400))
    data.features = Features(lambda x: x.mean((1, 2))[:, None])
    return data


@pytest.mark.parametrize(
    ("make", "density", "want"),
    [
        (Cube, False, GENERAL),
        (Cube, True, GENERAL | {"nll"}),
        (Ring8, False, GENERAL | MODES),
        (Moons, True, GENERAL | DENSITIES),
        (GaussianMixture1d, False, GENERAL - {"sliced_w2"}),
        (lambda: Ring8(sigma=0.4), False, GENERAL | MODES - {"mode_kl"}),
        (lambda: Ring8(labels=True), True, GENERAL | MODES | {"nll", "kl"}),
        (Digits, False, GENERAL | ROWS | {"frechet"}),
        (lambda: TensorData(torch.rand(30, 4)), True, GENERAL | ROWS | {"nll"}),
        (lambda: TensorData(torch.arange(90).view(30, 3)), False, {"w2", "sliced_w2"}),
        (lambda: TensorData(torch.rand(30, 400, 400)), False, {"w2", "sliced_w2"}),
        (with_features, False, GENERAL | {"frechet"}),
    ],
)
def test_what_is_declared_says_which_scores_there_are(make, density, want):
    assert declared(make(), density) == want


def test_own_data_may_declare_fewer():
    data = Cube()
    data.scores = ("mmd", "frechet")
    assert declared(data) == {"mmd"}
    assert lacks(data, False, "w2") == "data declares other scores: mmd, frechet"
    assert set(scores(data, data.batch(0, 30, 1).x, seed=0)) == {"mmd"}


def test_the_lists_are_one():
    assert len(set(NAMES)) == len(NAMES) and SCORES == (*NAMES, "held_out_value") and set(SHOWN) < set(NAMES)
    (chosen, _) = get_args(schema.EarlyStopping)
    assert set(get_args(chosen)) == {"auto", *SCORES}
    assert all((score.measure is None) != (score.own is None) for score in ALL)


def test_nothing_asks_what_kind_of_data_it_is():
    for file in Path(se_framework.evaluation.__file__).parent.glob("*.py"):
        for question in re.findall(r"isinstance\((.*)\)", file.read_text()):
            assert "Error" in question or "Stopped" in question or "ValueError" in question, (file.name, question)


def test_own_data_with_features_has_a_frechet_score_with_references():
    data = TensorData(torch.randn((400, 5), generator=torch.Generator().manual_seed(0)))
    data.features = Features(lambda x: x[:, :2], "the first two columns")
    found = scores(data, torch.randn((200, 5), generator=torch.Generator().manual_seed(1)) + 1, seed=0,
                   names=("frechet",))["frechet"]  # fmt: skip
    assert set(found["references"]) == {"gaussian", "gaussian_mixture", "real_vs_real"}
    assert abs(found["value"] - 2) < 4.9 * found["se"] and found["features"] == "the first two columns"
    assert found["references"]["real_vs_real"] < found["value"] and "accuracy" not in found


# -- names that a user types ------------------------------------------------------------------------------------------

SMALL = ["loop.rounds=2", "loop.batch_size=16", "loop.log_every=0", "progress=false", "device=cpu"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    small_scores(monkeypatch)


def test_a_score_that_is_chosen_is_computed_and_told(tmp_path):
    run = compose("vanilla_gan", [*SMALL, "score=energy"])
    run.train()
    found = evaluate(run, 100)
    assert set(found) == (GENERAL & set(SHOWN)) | MODES | {"energy", "held_out_value"}
    assert list(found) == [name for name in SCORES if name in found]
    assert set(evaluate(run, 100, 0, ("recall", "nll"))) == {"recall"}
    lines = score_lines(found)
    assert len(lines) == len(found) and all("\n" not in line and len(line) < 250 for line in lines)
    (line,) = [line for line in lines if line.startswith("c2st")]
    assert re.search(r"\[accuracy\] .*real_vs_real .*; mixture .*; perfect 0.5; p .*; 7 nearest neighbours", line)


def test_what_is_not_there_is_refused_before_training():
    run = compose("vanilla_gan", SMALL)
    refuse_absent(run, "mmd"), refuse_absent(run, None), refuse_absent(run, "held_out_value")
    with pytest.raises(ConfigError, match=r"score=nll: this data and model have no such score \(the model has no den"):
        refuse_absent(run, "nll")
    with pytest.raises(ConfigError, match="score=mdm: no such score; did you mean 'mmd'"):
        refuse_unknown("mdm")


def test_early_stopping_by_another_score_computes_that_one_alone(monkeypatch):
    asked = []

    def one(data, samples, *, names=None, **more):
        asked.append(names)
        return scores(data, samples, names=names, **more)

    monkeypatch.setattr("se_framework.evaluation.evaluate.scores", one)
    run = compose("vanilla_gan", [*SMALL, "loop.early_stop=mmd"])
    assert run.train().best is not None and set(asked) == {("mmd",)}
    with pytest.raises(
        ConfigError, match=r"loop.early_stop=frechet: this data and model have no such score \(ring8 de"
    ):
        compose("vanilla_gan", [*SMALL, "loop.early_stop=frechet"]).train()


def test_rows_of_scores_take_the_new_names_and_se_eval_takes_some_or_all(tmp_path, capsys):
    run = RunDirectory(tmp_path / "run")
    compose("vanilla_gan", [*SMALL, "data=ring8", "loop.evaluate_every=1", "score=recall"]).train(run)
    rows = run.score_rows()
    assert len(rows) == 2 and {"mmd", "c2st", "coverage", "recall", "to_minimise"} <= set(rows[0])
    assert float(rows[1]["to_minimise"]) == -float(rows[1]["recall"])
    for words, want in (("energy, recall", {"energy", "recall"}), ("all", GENERAL | MODES | {"held_out_value"})):
        _evaluate([str(run.path), f"scores={words}", "n=60"])
        assert set(json.loads((run.path / "eval.json").read_text())["scores"]) == want
        assert len(capsys.readouterr().out.splitlines()) == len(want) + 1
    with pytest.raises(ConfigError, match="scores must be names of scores with commas between, or all, got ','"):
        _evaluate([str(run.path), "scores=,"])
    with pytest.raises(ConfigError, match="scores=recal: no such score; did you mean 'recall'"):
        _evaluate([str(run.path), "scores=recal"])
    with pytest.raises(
        ConfigError, match=r"scores=frechet: this data and model have no such score \(ring8 declares no"
    ):
        _evaluate([str(run.path), "scores=frechet"])
