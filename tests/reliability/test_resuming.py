"""Which run is meant by resume=auto, what a resumed run may change, and which checkpoints are kept."""

import os

import pytest
import torch
from omegaconf import OmegaConf

import se_framework as se
from se_framework.assembly import Assembly
from se_framework.commands import train
from se_framework.config.composing import compose
from se_framework.errors import ConfigError, RunDirectoryError
from se_framework.runs.directory import RunDirectory
from tests.support.commands import small_scores

TINY = ["experiment=fgan", "data=moons", "model=affine", "metric.network.width=4", "loop.rounds=4", "loop.batch_size=8",
        "loop.log_every=1", "loop.checkpoint_every=2", "progress=false", "device=cpu"]  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Work in an empty folder; scores are quick, and better in even rounds."""
    monkeypatch.chdir(tmp_path)

    def quick(assembly):
        return {"w2": {"value": float(assembly.state.round % 2), "n": 1, "seed": 0, "better": "lower"}}

    monkeypatch.setattr(train, "evaluate", quick)
    monkeypatch.setattr("se_framework.evaluation.evaluate.evaluate", quick)
    monkeypatch.setattr(Assembly, "plot", lambda *a, **k: None)
    monkeypatch.setattr(train, "curves", lambda *a, **k: None)


def se_train(directory, *typed, job=None):
    """Do what the command does."""
    return train.train_run(compose(None, typed), directory, typed, job)


def test_resume_auto_finds_the_newest_run_of_the_same_configuration(tmp_path, capsys):
    auto = [*TINY, "resume=auto"]
    first, second, third = (tmp_path / "outputs" / "2026-01-01" / name for name in ("1", "2", "3"))
    assert se_train(first, *auto).directory == first
    assert "no run of this configuration yet: starting in" in capsys.readouterr().err
    assert se_train(second, *TINY).directory == second
    assert se_train(third, *TINY, "seed=1").directory == third
    for k, run in enumerate((second, first, third)):
        os.utime(run / "config.yaml", (k, k))
    done = se_train(tmp_path / "outputs" / "2026-01-02" / "4", *auto)
    assert (done.status, done.directory, done.score) == ("skipped", first, 0.0)
    more = se_train(tmp_path / "x", *auto, "loop.rounds=6", "loop.log_every=2")
    assert (more.status, more.directory) == ("finished", first)
    assert RunDirectory(first).load_checkpoint()[0]["round"] == 6
    assert OmegaConf.load(first / "config.yaml").resume is None
    other = se_train(tmp_path / "outputs" / "2026-01-02" / "5", *auto, "equation.beta=2")
    assert (other.status, other.directory.name) == ("finished", "5")


def test_resume_auto_passes_over_what_is_no_run_of_ours(tmp_path):
    for number, text in enumerate(("", "a: [", "3", "model: {_target_: os.system}")):
        folder = tmp_path / "outputs" / "2026-01-01" / str(number)
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(text)
    assert se_train(tmp_path / "run", *TINY, "resume=auto").directory == tmp_path / "run"


def test_an_open_choice_is_recorded_and_kept(tmp_path):
    run = tmp_path / "run"
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        se_train(run, *TINY, "threads=null", "device=auto")
        saved = OmegaConf.load(run / "config.yaml")
        assert (saved.threads, saved.loop.horizon) == (2, 4)
        assert saved.device == str(torch.empty(0, device="cuda" if torch.cuda.is_available() else "cpu").device)
        torch.set_num_threads(1)
        se_train(run, *TINY, f"resume={run}", "threads=null", "device=auto", "loop.rounds=5")
        assert torch.get_num_threads() == 2
        assert OmegaConf.load(run / "config.yaml").loop.horizon == 4
    finally:
        torch.set_num_threads(before)


def test_drift_is_refused_with_its_difference_and_permitted_by_name(tmp_path):
    run = tmp_path / "run"
    se_train(run, *TINY)
    with pytest.raises(ConfigError) as refused:
        se_train(run, f"resume={run}", "experiment=fgan", "data=moons", "equation.beta=2.0", "optimizer=sgd")
    said = str(refused.value)
    assert "equation.beta: 1.0 -> 2.0" in said and "optimizer._target_: torch.optim.Adam -> torch.optim.SGD" in said
    assert "metric.network.width: 4 -> " in said  # the experiment typed again means its metric
    assert "permit them by resume_allow=[" in said and "loop.rounds" not in said
    wanted = [f"resume={run}", "loop.rounds=6", "equation.beta=2.0", "optimizer=sgd", "optimizer.lr=0.5"]
    with pytest.raises(ConfigError, match="optimizer._target_"):
        se_train(run, *wanted, "resume_allow=[equation.beta]")
    se_train(run, *wanted, "resume_allow=[equation.beta,optimizer]")
    saved = OmegaConf.load(run / "config.yaml")
    assert saved.equation.beta == 2.0 and saved.optimizer._target_ == "torch.optim.SGD" and saved.optimizer.lr == 0.5
    assert "betas" not in saved.optimizer and saved.resume_allow == [] and saved.model._target_ == "models.Affine"
    with pytest.raises(ConfigError, match="resume_allow: the run has no key 'optimiser': did you mean 'optimizer"):
        se_train(run, f"resume={run}", "resume_allow=[optimiser]")


def test_a_permitted_hyperparameter_is_not_overwritten_by_the_checkpoint(tmp_path):
    run = tmp_path / "run"
    se_train(run, *TINY, "optimizer=adam")
    se_train(run, f"resume={run}", "optimizer=adam", "+optimizer.weight_decay=0.25", "loop.rounds=5",
             "resume_allow=[optimizer]")  # fmt: skip
    state = RunDirectory(run).load_checkpoint()[0]
    assert state["players"]["phi"]["optimizer"]["param_groups"][0]["weight_decay"] == 0.25


def test_the_newest_and_the_best_checkpoints_are_kept(tmp_path):
    run = tmp_path / "run"
    se_train(run, *TINY, "loop.rounds=9", "loop.evaluate_every=3", "loop.keep_best=1", "loop.keep_last=1")
    kept = [int(path.stem.split("_")[1]) for path in RunDirectory(run).checkpoints()]
    assert kept == [9, 6]  # the score is 0 in round 6 and 1 in rounds 3 and 9
    assert [row["w2"] for row in RunDirectory(run).score_rows()] == ["1", "0", "1"]
    assert se.load(run).state.round == 9 and se.load(run, checkpoint="best").state.round == 6
    assert se.load(run, checkpoint=6).state.round == 6 and len(se.load(run, checkpoint=6).state.history) == 6
    with pytest.raises(RunDirectoryError, match=r"checkpoint=7: choose last, best, or a round that was kept \(6, 9\)"):
        se.load(run, checkpoint=7)
    with pytest.raises(RunDirectoryError, match="checkpoint=best: .* set loop.evaluate_every and loop.keep_best"):
        se_train(tmp_path / "plain", *TINY)
        se.load(tmp_path / "plain", checkpoint="best")


def test_more_is_better_where_the_score_says_so(tmp_path, monkeypatch):
    def better(assembly):
        return {"w2": {"value": float(assembly.state.round % 2), "n": 1, "seed": 0, "better": "higher"}}

    monkeypatch.setattr("se_framework.evaluation.evaluate.evaluate", better)
    run = tmp_path / "run"
    se_train(run, *TINY, "loop.rounds=9", "loop.evaluate_every=3", "loop.keep_best=2", "loop.keep_last=1")
    assert [int(path.stem.split("_")[1]) for path in RunDirectory(run).best()] == [9, 3]


def test_evaluating_leaves_the_trajectory_alone(tmp_path, monkeypatch):
    monkeypatch.undo()
    small_scores(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "finish", lambda *a: 0.0)
    se_train(tmp_path / "a", *TINY, "loop.evaluate_every=1")
    se_train(tmp_path / "b", *TINY)
    from tests.support.runs import differences

    assert not differences(tmp_path / "a", tmp_path / "b")
    rows = RunDirectory(tmp_path / "a").score_rows()
    assert len(rows) == 4 and {"round", "to_minimise", "w2", "held_out_value"} <= set(rows[0])


def test_a_run_without_checkpoint_cannot_be_loaded(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.start(OmegaConf.to_yaml(compose(None, TINY)), torch.device("cpu"))
    with pytest.raises(RunDirectoryError, match="has no checkpoint yet, so there is nothing to load"):
        se.load(run.path)


def test_jobs_go_round_the_gpus_and_on_with_their_own_run(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    seen = []
    monkeypatch.setattr(train, "assembly_of", lambda config, **_: seen.append(config.device) or 1 / 0)
    for job in range(6):
        with pytest.raises(ZeroDivisionError):
            se_train(tmp_path / str(job), *TINY[:-1], job=job)
    with pytest.raises(ZeroDivisionError):
        se_train(tmp_path / "single", *TINY[:-1])
    assert seen == ["cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:0", "cuda:1", "auto"]
    monkeypatch.undo()
    monkeypatch.setattr(train, "finish", lambda *a: 0.0)
    assert se_train(tmp_path / "7", *TINY, job=7).status == "finished"
    with pytest.raises(RunDirectoryError, match="holds a run already"):
        se_train(tmp_path / "7", *TINY, "seed=1", job=7)
    with pytest.raises(RunDirectoryError, match="holds a run already"):
        se_train(tmp_path / "7", *TINY)
    (tmp_path / "7" / "summary.json").write_text('{"round": 4, "scores": {"w2": {"value": 0.5}}}')
    again = se_train(tmp_path / "7", *TINY, job=7)
    assert (again.status, again.score) == ("skipped", 0.5)
    assert se_train(tmp_path / "7", *TINY, "loop.rounds=5", job=7).status == "finished"
