"""Runs that change their course: each stage plays what it says, all are checked before the first, resume is exact."""

from __future__ import annotations

import pytest
import torch

import se_framework as se
from se_framework.config.composing import compose
from se_framework.config.resuming import resumed_config
from se_framework.describe import describe
from se_framework.errors import ConfigError, IncompatibleError
from se_framework.runs.files import append_row
from tests.support.commands import TRAIN, call
from tests.support.runs import KILLED, play

BASE = ["experiment=vanilla_gan", "data=ring8", "model.width=8", "metric.network.width=8", "loop.batch_size=16",
        "loop.log_every=1", "progress=false", "device=cpu"]  # fmt: skip
STAGES = (
    "stages=[{rounds:5},{rounds:4,divergence:kl,optimizer:{lr:0.0001},players:{theta:{frozen:true}}},"
    "{rounds:6,loop:{batch_size:24},players:{phi:{steps:2}},metric:{network:{width:12}}}]"
)


def trained(*overrides, run=None):
    assembly = se.compose(None, [*BASE, *overrides])
    assembly.train(run)
    return assembly


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """The whole run, and its directory."""
    path = tmp_path_factory.mktemp("staged") / "run"
    return trained(STAGES, run=se.RunDirectory(path)), path


def test_each_stage_plays_what_it_says(staged):
    assembly, path = staged
    rows = se.RunDirectory(path).rows()
    assert [int(row["stage"]) for row in rows] == [0] * 5 + [1] * 4 + [2] * 6
    assert [int(row["samples"]) for row in rows][4::5] == [5 * 16, 9 * 16 + 48, 9 * 16 + 6 * 48]
    assert all((row["theta_objective"] == "nan") is (row["stage"] == "1") for row in rows)
    widths = {p.shape[0] for name, p in assembly.state.equation.metric.named_parameters() if name.endswith("bias")}
    assert assembly.state.stage == 2 and widths == {12, 1}


def test_a_stage_like_the_one_before_changes_nothing():
    """Two stages of one configuration are the run of that configuration, bit for bit."""
    whole = trained("loop.rounds=8", "loop.horizon=8").state
    parts = trained("loop.horizon=8", "stages=[{rounds:3},{rounds:5}]").state
    one, other = (state.state_dict() for state in (whole, parts))
    for name, tensor in one["equation"].items():
        assert torch.equal(tensor, other["equation"][name]), name
    for player in one["players"]:
        moments = [own["players"][player]["optimizer"]["state"] for own in (one, other)]
        assert all(torch.equal(v, moments[1][k][n]) for k, row in moments[0].items() for n, v in row.items())
    assert one["samples"] == other["samples"]


def test_what_fits_is_taken_over_and_the_rest_starts_afresh(capsys):
    assembly = se.compose(None, [*BASE, "stages=[{rounds:2},{rounds:1,metric:{network:{width:12}}}]", "progress=true"])
    assembly.train()
    assert "stage 2 of 2 from round 2 on; afresh: " in capsys.readouterr().err
    before = trained("loop.rounds=2").state.equation.model
    state, _ = se.compose(None, [*BASE, "stages=[{rounds:2},{rounds:1,metric:{network:{width:12}}}]"]).course.enter(
        1, trained("loop.rounds=2").state
    )
    for one, other in zip(before.parameters(), state.equation.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert state.player("phi").steps_taken == 0 and state.player("theta").steps_taken == 2


@pytest.mark.soak
def test_killed_at_any_moment_it_goes_on_to_the_bit(soak, tmp_path):
    """``make soak``: before each of 20 rounds; ``make test``: in the midst of stages and at their ends."""
    typed = [*BASE, STAGES.replace("{rounds:6", "{rounds:12"), "loop.checkpoint_every=2"]
    moments = range(1, 21) if soak else (1, 5, 6, 9, 10, 13)
    done = play(KILLED, tmp_path, "\n".join(typed), ",".join(map(str, moments)))
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_loaded_run_is_of_the_stage_of_its_checkpoint(staged):
    _, path = staged
    loaded = se.load(path)
    assert loaded.state.stage == 2 and loaded.state.round == 15
    assert se.RunDirectory(path).checkpoints()
    assert loaded.sample(3).shape == (3, 2)


@pytest.mark.parametrize(
    ("stages", "error", "message"),
    [
        ("[{rounds: 0}]", ConfigError, r"stages\[0\].rounds must be a whole number of at least 1, got 0"),
        ("[{loop: {decay: linear}}]", ConfigError, r"stages\[0\].rounds must be"),
        ("3", ConfigError, "stages must be a list, got 3"),
        ("[3]", ConfigError, "stages.0 must be a mapping"),
        ("[{rounds: 3, divergence: klx}]", ConfigError, r"stages\[0\]: divergence=klx: no such choice; did you mean"),
        ("[{rounds: 3}, {rounds: 1, divergence: wasserstein1}]", IncompatibleError,
         r"stages\[1\]: Wasserstein1 needs a 1-Lipschitz metric"),
        ("[{rounds: 3}, {rounds: 1, model: {widht: 3}}]", ConfigError, r"stages\[1\]: unknown key 'model.widht'"),
        ("[{rounds: 3, loop: {rounds: 9}}]", ConfigError, "loop cannot change within a run"),
        ("[{rounds: 3, seed: 9}]", ConfigError, "seed cannot change within a run"),
        ("[{rounds: 3}, {rounds: 1, model: {from: x}}]", ConfigError, r"stages\[1\]: model.from is for the start"),
        ("[{rounds: 3}, {rounds: 1, players: {theta: {frozen: true}, phi: {frozen: true}}}]", ConfigError,
         r"stages\[1\]: players.theta.frozen=true leaves no player that moves: free one of phi, theta"),
        ("[{rounds: 3}, {rounds: 1, loop: {batch_size: -1}}]", ConfigError, r"stages\[1\]: loop.batch_size must be at"),
    ],
)  # fmt: skip
def test_every_stage_is_checked_before_the_first(stages, error, message):
    with pytest.raises(error, match=message) as caught:
        se.compose(None, [*BASE, f"stages={stages}"])
    assert "\n" not in str(caught.value)


def test_the_length_of_a_run_with_stages_is_theirs(staged):
    with pytest.raises(ConfigError, match="loop.rounds is the sum of the stages' rounds: leave it out"):
        se.compose(None, [*BASE, "stages=[{rounds:2},{rounds:3}]", "loop.rounds=9"])
    _, path = staged
    with pytest.raises(ConfigError, match="loop.rounds is the sum of that run's stages: leave it out"):
        resumed_config(compose(None, ["loop.rounds=99"]), se.RunDirectory(path), [f"resume={path}", "loop.rounds=99"])


def test_a_job_of_a_sweep_names_choices_in_its_stages_too(tmp_path):
    typed = [*BASE, "stages=[{rounds:2,divergence:kl},{rounds:3}]", "seed=0,1", "dry_run=true"]
    done = call([*TRAIN, "-m", *typed], tmp_path)
    assert done.returncode == 0 and done.stdout.count("rounds 1 to 2: divergence: KL()") == 2, done.stderr


def test_an_ensemble_has_no_stages():
    with pytest.raises(ConfigError, match="an ensemble has none"):
        se.compose(None, [*BASE, "stages=[{rounds:2}]", "ensemble.size=2"])


def test_the_description_is_of_the_stage_and_lists_all():
    text = describe(se.compose(None, [*BASE, "stages=[{rounds:2,divergence:kl},{rounds:3,loop:{batch_size:8}}]"]))
    assert "D(q, p)  = KL()" in text and "stage 1 of 2 is described above" in text
    assert "rounds 1 to 2: divergence: KL()" in text and "rounds 3 to 5: loop: {'batch_size': 8}" in text


def test_a_table_takes_columns_that_come_later(tmp_path):
    file = tmp_path / "metrics.csv"
    for row in ({"round": 1.0, "D": 0.5}, {"round": 2.0, "total": 0.25}, {"round": 3.0, "D": 1.5, "note": "x"}):
        append_row(file, row)
    assert file.read_text().splitlines() == ["round,D,total,note", "1,0.5,nan,nan", "2,nan,0.25,nan", "3,1.5,nan,x"]
