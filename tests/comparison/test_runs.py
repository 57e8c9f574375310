"""What became of runs is read from their directories, whoever wrote them."""

from __future__ import annotations

import json
import os
import shutil
import sys

import pytest

from se_framework.comparison.runs import read_runs
from se_framework.comparison.settings import differing
from se_framework.errors import RunDirectoryError
from se_framework.runs.sweeps import record_job
from tests.support.commands import ROOT, fresh
from tests.support.fake_runs import fail, fake_run, fake_sweep, held, w2


def statuses(folder):
    return [(own.path.name, own.status) for own in read_runs([folder])]


# -- where runs lie ---------------------------------------------------------------------------------------------------


def test_a_run_is_read_with_its_settings_scores_and_costs(tmp_path):
    spent = {"seconds": 4.0, "processor_seconds": 3.0, "parameters": {"theta": 10, "phi": 5}}
    fake_run(tmp_path / "run", ["divergence=kl"], 3, 0.5, **spent)
    (own,) = read_runs([tmp_path / "run"])
    assert (own.seed, own.status, own.why, own.rounds, own.member) == (3, "finished", None, 100, None)
    assert own.settings["divergence"] == "kl" and own.settings["divergence._target_"] == "divergences.KL"
    assert own.settings["data"] == "ring8" and own.settings["optimizer.lr"] == 1e-3 and own.settings["seed"] == 3
    assert own.scores["w2"] == w2(0.5) and own.data == "sha256:data=ring8"
    assert (own.seconds, own.clock, own.wall) == (3.0, "processor", 4.0)
    assert own.parameters == 15 and own.players == {"theta": 10, "phi": 5}


def test_a_run_of_before_costs_were_recorded_has_the_last_rows_seconds(tmp_path):
    (own,) = read_runs([fake_run(tmp_path / "run", scores=0.5)])
    assert (own.seconds, own.clock, own.wall, own.parameters) == (2.0, "wall", 2.0, None)
    (own,) = read_runs([fake_run(tmp_path / "other", scores=0.5, last_row={})])
    assert (own.seconds, own.clock, own.wall) == (None, None, None)


def test_a_folder_is_looked_through_and_no_run_is_there_twice(tmp_path):
    fake_run(tmp_path / "day" / "b", scores=1.0)
    fake_sweep(tmp_path / "day" / "sweep", [("kl", seed, float(seed)) for seed in range(12)])
    fake_run(tmp_path / "a", scores=2.0)
    (tmp_path / "notes.txt").touch()
    found = [own.path.name for own in read_runs([tmp_path, tmp_path / "a", tmp_path / "day"])]
    assert found == ["a", "b", *map(str, range(12))]  # jobs by number


def test_what_is_no_run_is_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "results.csv").touch()
    for name, words in (
        ("nowhere", "does not exist"),
        ("file", "is a file"),
        ("empty", "neither it nor a folder in it holds"),
        ("sweep", "is an empty sweep"),
        ("x" * 300, "is no run"),
    ):
        with pytest.raises(RunDirectoryError, match=words):
            read_runs([tmp_path / name])


def test_a_folder_without_end_is_not_looked_through(tmp_path, monkeypatch):
    fake_run(tmp_path / "a" / "b" / "c" / "d" / "e" / "run", scores=1.0)
    with pytest.raises(RunDirectoryError, match="neither it nor"):
        read_runs([tmp_path])
    monkeypatch.setattr("se_framework.comparison.runs.MOST_FOLDERS", 3)
    with pytest.raises(RunDirectoryError, match="more than 3 folders"):
        read_runs([tmp_path])


# -- what became of them ----------------------------------------------------------------------------------------------


def test_runs_that_have_not_finished_say_why(tmp_path):
    fail(fake_run(tmp_path / "failed"))
    fake_run(tmp_path / "stopped")
    fake_run(tmp_path / "short", scores=1.0, rounds=99)
    fake_run(tmp_path / "early", scores=1.0, rounds=50, stopped_early=True)
    (fake_run(tmp_path / "killed") / ".lock").touch()
    (fake_run(tmp_path / "spoilt", scores=1.0) / "summary.json").write_text("{")
    (fake_run(tmp_path / "torn", scores=1.0) / "config.yaml").write_text("a: [")
    found = {own.path.name: own for own in read_runs([tmp_path])}
    assert {name: own.status for name, own in found.items()} == {
        "failed": "failed", "stopped": "stopped", "short": "stopped", "early": "finished", "killed": "killed",
        "spoilt": "unreadable", "torn": "unreadable",
    }  # fmt: skip
    assert found["failed"].why == "E_q_f of player phi, round 7: the metric's output is inf"
    assert found["short"].why == "its scores are of round 99 of 100"
    assert "summary.json: it is not JSON" in found["spoilt"].why and "config.yaml" in found["torn"].why
    assert found["spoilt"].settings["divergence"] == "gan" and not found["torn"].settings


def test_a_run_that_is_held_is_running(tmp_path):
    fake_run(tmp_path / "run")
    fake_run(tmp_path / "going on", scores=1.0, rounds=50)
    with held(tmp_path / "run" / ".lock"), held(tmp_path / "going on" / ".lock"):
        assert statuses(tmp_path) == [("going on", "running"), ("run", "running")]
    assert statuses(tmp_path) == [("going on", "stopped"), ("run", "killed")]


def test_looking_at_a_run_of_this_process_does_not_let_it_go(tmp_path):
    fake_run(tmp_path / "run")
    program = """
import sys
from pathlib import Path
from se_framework.comparison.runs import read_runs
from se_framework.runs.lock import locked
import subprocess
path = Path(sys.argv[1])
with locked(path):
    print(read_runs([path])[0].status)
    code = "import sys; from pathlib import Path; from se_framework.runs.lock import holding;"
    print(subprocess.check_output([sys.executable, "-c", code + "print(holding(Path(sys.argv[1])))", path], text=True))
"""
    done = fresh([sys.executable, "-c", program, tmp_path / "run"], ROOT)
    assert done.stdout.split() == ["running", "held"], done.stderr


@pytest.mark.parametrize(
    "entry, words",
    [
        ({"value": []}, "scores.w2.value|w2.value is not a number"),
        ({"value": 1, "n": -1}, "w2.n is not a count"),
        ({"value": 1, "unit": 3}, "w2.unit is not a text"),
        ({"value": 1, "references": {"real": {}}}, "w2.references.real is not a number"),
        ({"value": 1, "references": 7}, "w2.references is not a mapping"),
        (7, "w2 is not a mapping"),
    ],
)
def test_a_summary_of_other_kinds_is_unreadable(entry, words, tmp_path):
    (own,) = read_runs([fake_run(tmp_path / "run", scores={"w2": entry})])
    assert own.status == "unreadable" and words.rpartition("|")[2] in own.why


def test_costs_of_other_kinds_are_unreadable(tmp_path):
    for k, spent in enumerate(({"seconds": []}, {"processor_seconds": "x"}, {"parameters": {"theta": -1}})):
        (own,) = read_runs([fake_run(tmp_path / str(k), scores=1.0, **spent)])
        assert own.status == "unreadable"


def test_files_that_are_none_cost_their_own_run_only(tmp_path):
    os.mkfifo(fake_run(tmp_path / "pipe") / "summary.json")
    run = fake_run(tmp_path / "link")
    (run / "config.yaml").unlink()
    (run / "config.yaml").symlink_to(fake_run(tmp_path / "sound", scores=1.0) / "config.yaml")
    (fake_run(tmp_path / "stranger") / "config.yaml").write_text("a: ${oc.env:HOME}\nloop: {rounds: 1}")
    found = {own.path.name: own for own in read_runs([tmp_path])}
    assert [found[name].status for name in ("pipe", "link", "sound", "stranger")] == [
        "unreadable", "unreadable", "finished", "unreadable",
    ]  # fmt: skip
    assert "symbolic link" in found["link"].why and "interpolation" in found["stranger"].why


# -- sweeps -----------------------------------------------------------------------------------------------------------


def test_a_job_that_came_to_no_run_stands_with_its_words(tmp_path):
    fake_sweep(tmp_path, [("kl", 0, 0.5), ("renyi", 0, "failed"), ("kl", 1, "killed"), ("gan", 0, "running")])
    runs = read_runs([tmp_path])
    assert [own.status for own in runs] == ["finished", "failed", "killed", "killed"]  # nobody holds the sweep
    assert runs[1].why == "it failed" and runs[1].settings == {
        "experiment": "vanilla_gan", "divergence": "renyi", "seed": 0,
    }  # fmt: skip
    assert runs[2].seed == 1 and runs[2].settings == runs[0].settings | {"seed": 1}  # the words of job 0, but the seed
    (tmp_path / "3" / "result.json").write_text("{}")
    assert read_runs([tmp_path])[3].why == "result.json: it lacks overrides"


def test_a_job_runs_while_its_sweep_is_held(tmp_path):
    fake_sweep(tmp_path, [("kl", 0, "running")])
    with held(tmp_path / ".sweep.lock"):
        assert statuses(tmp_path) == [("0", "running")]


def test_a_sweep_may_be_moved_and_a_job_may_name_an_earlier_run(tmp_path):
    fake_sweep(tmp_path / "sweep", [("kl", 0, 0.5)])
    shutil.move(tmp_path / "sweep", tmp_path / "moved")
    assert statuses(tmp_path / "moved") == [("0", "finished")]
    elsewhere = fake_run(tmp_path / "earlier", ["divergence=kl"], 1, 0.25)
    record_job(tmp_path / "moved" / "1", 1, ["divergence=kl", "seed=1"], "skipped", 0.25, elsewhere)
    assert statuses(tmp_path / "moved") == [("0", "finished"), ("earlier", "finished")]
    shutil.rmtree(elsewhere)
    gone = read_runs([tmp_path / "moved"])[1]
    assert gone.status == "unreadable" and "is gone" in gone.why


def test_a_record_says_more_than_a_run_without_a_summary(tmp_path):
    record_job(tmp_path / "0", 0, ["seed=0"], "failed", error="ConfigError: no room")
    fake_run(tmp_path / "run")
    for file in (tmp_path / "run").iterdir():
        shutil.move(file, tmp_path / "0")
    (tmp_path / "run").rmdir()
    (own,) = read_runs([tmp_path])
    assert (own.status, own.why) == ("failed", "ConfigError: no room")


# -- ensembles --------------------------------------------------------------------------------------------------------


def of_members(*values, **more):
    known = {str(k): value for k, value in enumerate(values) if value is not None}
    return {"w2": w2(0.0, sd=0.1, members=known, **more)}


def test_the_members_of_an_ensemble_are_seeds(tmp_path):
    frozen = {"1": "member 1: E_q_f is not finite"}
    scores = of_members(0.5, None, 0.7)
    run = fake_run(tmp_path / "run", ["ensemble.size=3"], 4, scores, frozen=frozen, seconds=6.0)
    found = read_runs([run])
    assert [(own.member, own.seed, own.status) for own in found] == [
        (0, 4, "finished"), (1, 5, "failed"), (2, 6, "finished"),
    ]  # fmt: skip
    assert [own.scores.get("w2", {}).get("value") for own in found] == [0.5, None, 0.7]
    assert "sd" not in found[0].scores["w2"] and "se" not in found[0].scores["w2"]
    assert found[0].seconds == 2.0 and found[1].why == frozen["1"]


def test_members_have_their_own_values(tmp_path):
    words = ["ensemble.values={equation.beta:[0.5,1.0,2.0]}"]
    found = read_runs([fake_run(tmp_path / "run", words, 4, of_members(1, 2, 3))])
    assert [own.settings["equation.beta"] for own in found] == [0.5, 1.0, 2.0]
    assert differing([own.settings for own in found]) == ["equation.beta"]
    seeds = fake_run(tmp_path / "seeds", ["ensemble.values={seed:[7,9]}"], 4, of_members(1, 2))
    assert [own.seed for own in read_runs([seeds])] == [7, 9]
    unfinished = fake_run(tmp_path / "stopped", ["ensemble.size=2"])
    assert [own.status for own in read_runs([unfinished])] == ["stopped", "stopped"]


# -- settings ---------------------------------------------------------------------------------------------------------


def columns(tmp_path, *words):
    return differing([read_runs([fake_run(tmp_path / str(k), own, k, 1.0)])[0].settings for k, own in enumerate(words)])


@pytest.mark.parametrize(
    "words, expected",
    [
        ([["divergence=kl"], ["divergence=gan"]], ["divergence"]),
        ([["optimizer.lr=0.1"], ["optimizer.lr=0.2"]], ["optimizer.lr"]),
        ([["divergence=kl", "optimizer.lr=0.1"], ["divergence=gan"]], ["divergence", "optimizer.lr"]),
        ([["metric=mlp_r1"], ["metric=mlp_r1", "metric.penalty.weight=3"]], ["metric.penalty.weight"]),
        ([["metric=mlp_r1"], ["metric=spectral"]], ["metric"]),
        ([["metric=mlp_r1"], ["metric=spectral"], ["metric=mlp_r1", "metric.penalty.weight=3"]],
         ["metric", "metric.penalty.weight"]),
        ([["divergence=alpha"], ["divergence=alpha", "divergence.order=0.3"], ["divergence=kl"]],
         ["divergence", "divergence.order"]),
        ([["loop.rounds=100"], ["loop.rounds=200"]], ["loop.rounds"]),
        ([["loop.horizon=50"], ["loop.horizon=60"]], ["loop.horizon"]),
        ([["data=ring8"], ["data=moons"]], ["data"]),
        ([["threads=1", "workers=0", "progress=false"], ["threads=2", "workers=1", "loop.log_every=7"]], []),
        ([["loop.evaluate_every=5", "loop.keep_best=2"], ["performance.graphs=never"]], []),
        ([[], []], []),
    ],
)  # fmt: skip
def test_only_keys_that_differ_and_say_what_was_trained_are_columns(words, expected, tmp_path):
    assert columns(tmp_path, *words) == expected


def test_a_key_that_an_older_run_has_not_differs_from_another_value_alone(tmp_path):
    runs = [fake_run(tmp_path / name, [], 0, 1.0) for name in ("old", "new")]
    text = (runs[0] / "config.yaml").read_text()
    for line in ("  early_stop: null\n", "  keep_last: 2\n", "  precision: float32\n", "  patience: 300\n"):
        assert line in text
        text = text.replace(line, "")
    (runs[0] / "config.yaml").write_text(text)
    assert differing([own.settings for own in read_runs(runs)]) == []


def test_a_choice_of_one_s_own_has_the_name_that_was_typed(tmp_path):
    """A run keeps classes, not names: of a shipped class it would be told as the shipped choice."""
    for job, name in enumerate(("mine", "kl")):
        run = fake_run(tmp_path / f"run{job}", [f"divergence={'jensen_shannon' if name == 'mine' else name}"], 0, 1.0)
        record_job(tmp_path / "s" / str(job), job, [f"divergence={name}", "seed=0"], "finished", 1.0, run)
    assert [own.settings["divergence"] for own in read_runs([tmp_path / "s"])] == ["mine", "kl"]


def test_an_experiment_that_all_runs_name_stands_for_its_values(tmp_path):
    for job, (name, words) in enumerate([("a", ["divergence=kl"]), ("b", ["divergence=gan", "optimizer.lr=0.1"])]):
        typed = [f"experiment={name}", "seed=0"]
        record_job(tmp_path / str(job), job, typed, "finished", 1.0, fake_run(tmp_path / f"run{job}", words, 0, 1.0))
    settings = [own.settings for own in read_runs([tmp_path / "0" / "..", tmp_path])]
    assert differing(settings) == ["experiment"]


def test_neither_torch_nor_a_parser_in_python_is_loaded(tmp_path):
    """500 runs in seconds: what takes them is the import of torch, and YAML in pure Python."""
    fake_sweep(tmp_path, [("kl", 0, 0.5), ("gan", 0, 0.25)])
    program = """
import sys, yaml
from se_framework.comparison import compare
if yaml.__with_libyaml__:
    yaml.parser.Parser.check_event = None
print(compare([sys.argv[1]]).sentence)
print(sorted({"torch", "matplotlib", "scipy.stats", "models", "divergences"} & {*sys.modules}))
"""
    done = fresh([sys.executable, "-c", program, tmp_path], ROOT)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


def test_a_settings_text_of_json_is_what_a_list_is(tmp_path):
    (own,) = read_runs([fake_run(tmp_path / "run", scores=1.0)])
    assert json.loads(own.settings["optimizer.betas"]) == [0.0, 0.99]
