"""Tuned objectives: chosen by validation, judged on held-out rows, at the same number of trials."""

from __future__ import annotations

import csv
import io
import json
import math
import sys

import numpy as np
import pytest

from se_framework.commands.compare import main
from se_framework.comparison import tuned as best_of
from se_framework.comparison.formats import FORMATS
from se_framework.errors import ConfigError
from tests.support.fake_runs import fail, fake_run, w2

LEAST = {"better": "lower", "n": 2000, "seed": 0, "chosen_by": "w2"}


def trial(folder, name, rate, validation, score, *words, seed=0, **summary):
    """Write a trial of a divergence at a learning rate; validation None: it failed."""
    path = folder / f"{name}-{rate}-{seed}"
    own = [f"divergence={name}", f"optimizer.lr={rate}", *words]
    if validation is None:
        return fail(fake_run(path, own, seed))
    return fake_run(path, own, seed, {"w2": w2(score), "validation": {"value": validation, **LEAST}}, **summary)


def two_objectives(folder):
    """kl: the best by validation (0.1) has not the best score; gan: one trial failed."""
    for rate, validation, score in ((0.1, 0.3, 0.5), (0.2, 0.1, 0.7), (0.3, 0.2, 0.4)):
        trial(folder, "kl", rate, validation, score)
    for rate, validation, score in ((0.1, 0.3, 0.9), (0.2, None, None), (0.3, 0.1, 0.8)):
        trial(folder, "gan", rate, validation, score)
    return folder


def by_name(found):
    return {row.label.removeprefix("divergence="): row for row in found.objectives}


def test_trials_are_chosen_by_validation_and_judged_by_held_out_rows(tmp_path):
    found = best_of([two_objectives(tmp_path)])
    rows = by_name(found)
    assert (found.n, found.score, found.columns) == (3, "w2", ("divergence",)) and list(rows) == ["kl", "gan"]
    assert rows["kl"].at(3).mean == 0.7, "the least score, 0.4, was not chosen: that would be choosing by the test"
    np.testing.assert_allclose(rows["kl"].at(1).mean, (0.5 + 0.7 + 0.4) / 3, rtol=1e-12)
    np.testing.assert_allclose(rows["kl"].at(2).mean, (0.7 + 0.7 + 0.4) / 3, rtol=1e-12)  # of the three pairs
    chosen = rows["kl"].chosen
    assert (chosen.settings, chosen.validation, chosen.score) == ({"optimizer.lr": 0.2}, 0.1, 0.7)
    assert "at 3 trials each, chosen by validation, divergence=kl (0.7 +- 0) has the best expected w2" in found.sentence
    assert "divergence=gan 0.8 +- 0" in found.sentence


def test_a_planted_leak_changes_nothing(tmp_path):
    """Scores that are exchanged between trials move what is reported, and never which one is chosen."""
    rates = (0.1, 0.2, 0.3, 0.4)
    for k, turn in enumerate(((0.1, 9.0, 8.0, 7.0), (9.0, 8.0, 7.0, 0.1))):
        for rate, validation, score in zip(rates, (0.4, 0.3, 0.2, 0.1), turn, strict=True):
            trial(tmp_path / str(k), "kl", rate, validation, score)
        (row,) = best_of([tmp_path / str(k)]).objectives
        assert row.chosen.settings == {"optimizer.lr": 0.4} and row.at(4).mean == turn[3]


def test_runs_without_validation_are_refused(tmp_path):
    fake_run(tmp_path / "a", ["divergence=kl"], 0, 0.5)
    with pytest.raises(ConfigError, match=r"never by held-out rows, and none of 1 finished runs has .*early_stop=w2"):
        best_of([tmp_path])
    trial(tmp_path, "kl", 0.1, 0.3, 0.5)
    found = best_of([tmp_path])
    assert any("1 of 2 finished runs have no score over validation rows" in note for note in found.notes)
    assert found.objectives[0].at(1).lost == 0.5
    with pytest.raises(ConfigError, match="score=validation: it is what trials are chosen by"):
        best_of([tmp_path], "validation")


def test_a_failed_trial_is_drawn_like_any_other(tmp_path):
    found = best_of([two_objectives(tmp_path)])
    gan = by_name(found)["gan"]
    assert len(gan.trials) == 3 and gan.at(1).lost == pytest.approx(1 / 3, rel=1e-12) and gan.at(2).lost == 0
    np.testing.assert_allclose(gan.at(2).mean, (0.9 + 0.8 + 0.8) / 3, rtol=1e-12)
    assert any("1 of 3 trials of divergence=gan cannot be chosen (failed)" in note for note in found.notes)
    (note,) = [note for note in best_of([tmp_path], n=1).notes if "drawn all the same" in note]
    assert "so 33 % of searches of 1 choose none" in note


def test_seeds_of_a_trial_are_one_trial_and_one_that_fails_loses_it(tmp_path):
    for seed, (validation, score) in enumerate(((0.1, 0.5), (0.3, 0.7))):
        trial(tmp_path, "kl", 0.1, validation, score, seed=seed)
    trial(tmp_path, "kl", 0.2, 0.01, 0.4), trial(tmp_path, "kl", 0.2, None, None, seed=1)  # by luck the least
    found = best_of([tmp_path])
    (row,) = found.objectives
    assert [(own.runs, own.validation, own.status) for own in row.trials] == [
        (2, pytest.approx(0.2, rel=1e-12), "finished"), (2, None, "failed")
    ]  # fmt: skip
    np.testing.assert_allclose(row.at(2).mean, 0.6, rtol=1e-12)
    assert "there is one objective only" in found.sentence


def test_budgets_that_differ_are_said(tmp_path):
    for rate in (0.1, 0.2, 0.3):
        trial(tmp_path, "kl", rate, rate, 0.5, processor_seconds=10.0)
    for rate in (0.1, 0.2):
        trial(tmp_path, "gan", rate, rate, 0.4, "loop.rounds=50", rounds=50, processor_seconds=2.0)
    found = best_of([tmp_path])
    told = "\n".join(found.notes)
    assert found.n == 2
    assert "budgets differ in trials (divergence=gan 2, divergence=kl 3): compared at 2" in told
    assert "budgets differ in rounds of a trial (divergence=gan 50, divergence=kl 100): they are not equal" in told
    assert "budgets differ in seconds of a trial (divergence=gan 2 s, divergence=kl 10 s)" in told
    said = best_of([tmp_path], n=3)
    assert by_name(said)["gan"].at(3) is None and any("fewer than 3 trials, so no value" in n for n in said.notes)
    assert [row.label for row in said.objectives] == ["divergence=kl", "divergence=gan"]
    for n in (0, 4):
        with pytest.raises(ConfigError, match=rf"best_of={n}: must lie in 1..3"):
            best_of([tmp_path], n=n)


def test_equal_budgets_are_not_said_to_differ(tmp_path):
    for name in ("kl", "gan"):
        for rate in (0.1, 0.2):
            trial(tmp_path, name, rate, rate, 0.5, processor_seconds=10.0 + (name == "kl"))
    assert not any("differ" in note for note in best_of([tmp_path]).notes)


def test_a_penalty_that_was_tuned_is_no_other_metric(tmp_path):
    """mlp_r1 and mlp_r1_strong differ in a number: a tuned weight must not split an objective."""
    for k, weight in enumerate((0.1, 2.0)):
        trial(tmp_path, "kl", 0.1 + k, 0.1 + k, 0.5, "metric=mlp_r1", f"metric.penalty.weight={weight}")
    trial(tmp_path, "kl", 0.3, 0.1, 0.5, "metric=groupsort"), trial(tmp_path, "kl", 0.4, 0.1, 0.5, "metric=groupsort")
    found = best_of([tmp_path])
    assert found.columns == ("metric",) and sorted(len(row.trials) for row in found.objectives) == [2, 2]


def test_a_penalty_that_was_tuned_names_nothing(tmp_path):
    for k, weight in enumerate((0.1, 2.0)):
        for name in ("kl", "gan"):
            trial(tmp_path, name, 0.1 + k, 0.1 + k, 0.5, "metric=mlp_r1", f"metric.penalty.weight={weight}")
    assert best_of([tmp_path]).columns == ("divergence",)


def test_another_view_is_another_objective(tmp_path):
    """The saturating and the non-saturating game differ in the view of one player alone."""
    view = "players.theta.view={_target_: divergences.SoftenedReverseKL}"
    for k, rate in enumerate((0.1, 0.2)):
        trial(tmp_path / "a", "gan", rate, 0.1 + k, 0.5), trial(tmp_path / "b", "gan", rate, 0.1 + k, 0.6, view)
    found = best_of([tmp_path])
    assert [len(row.trials) for row in found.objectives] == [2, 2]
    assert found.columns == ("players.theta.view",)
    assert {row.label for row in found.objectives} == {"the one configuration", "players.theta.view=SoftenedReverseKL"}


def test_where_more_is_better_and_where_nearer_is(tmp_path):
    for name, values in {"kl": (0.5, 1.4), "gan": (0.8, 0.9)}.items():
        for rate, value in zip((0.1, 0.2), values, strict=True):
            nearer = w2(value, better="nearer", references={"perfect": 0.95})
            scores = {"w2": w2(value, better="higher"), "share": nearer, "validation": {"value": rate, **LEAST}}
            fake_run(tmp_path / f"{name}{rate}", [f"divergence={name}", f"optimizer.lr={rate}"], 0, scores)
    first = {score: next(iter(by_name(best_of([tmp_path], score, n=1)))) for score in ("w2", "share")}
    assert first == {"w2": "kl", "share": "gan"}  # means 0.95 and 0.85: kl's is nearer, each of gan's is


def test_data_sets_are_apart(tmp_path):
    for data in ("ring8", "moons"):
        for rate in (0.1, 0.2):
            trial(tmp_path / data, "kl", rate, rate, 0.5, f"data={data}")
            trial(tmp_path / data, "gan", rate, rate, 0.6, f"data={data}")
    found = best_of([tmp_path])
    assert set(found.tasks) == {"ring8", "moons"} and len(found.objectives) == 4
    assert "moons: at 2 trials each" in found.sentence and "ring8: at 2 trials each" in found.sentence


def test_every_format_has_it(tmp_path):
    found = best_of([two_objectives(tmp_path)])
    text = str(found)
    assert "best of 1" in text and "0.8 +- 0" in text and "3, 1 lost" in text
    lines = list(csv.DictReader(io.StringIO(FORMATS["csv"](found))))
    assert [(line["objective"], line["n"]) for line in lines][:2] == [("divergence=kl", "1"), ("divergence=kl", "2")]
    assert float(lines[2]["mean"]) == 0.7 and lines[2]["chosen"] == "optimizer.lr=0.2"
    tree = json.loads(FORMATS["json"](found))
    assert tree["chosen_by"] == "validation" and tree["objectives"][0]["curve"][2]["mean"] == 0.7
    assert all(math.isfinite(at["with_replacement"]) for at in tree["objectives"][0]["curve"])
    for name, part in {"markdown": "| kl | 0.5333 +- 0.12 |", "latex": r"\toprule", "html": "<td>kl</td>"}.items():
        assert part in FORMATS[name](found)


def test_the_command(tmp_path, capsys, monkeypatch):
    two_objectives(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["se-compare", str(tmp_path), "best_of=2", f"out={tmp_path}/t.csv"])
    main()
    assert "6 runs in" in capsys.readouterr().out and (tmp_path / "t.csv").read_text().startswith("task,objective,")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["se-compare", str(tmp_path), "best_of=all"])
    main()
    assert "w2, best of 3" in capsys.readouterr().out
    for word, told in {"0": "must be at least 1, or all, got 0", "x": "must be a whole number, got 'x'"}.items():
        monkeypatch.setattr(sys, "argv", ["se-compare", str(tmp_path), f"best_of={word}"])
        with pytest.raises(SystemExit):
            main()
        assert f"best_of {told}" in capsys.readouterr().err
