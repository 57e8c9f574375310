"""Python gives what the command line gives: objects as overrides, starts, callbacks, scores, pictures, weights."""

from __future__ import annotations

import sys

import pytest
import torch
from safetensors import safe_open

import divergences as d
import se_framework as se
from se_framework import __main__ as command
from se_framework.config import composing
from se_framework.config.composing import config_dir
from se_framework.equation import legality
from se_framework.errors import ConfigError, IncompatibleError, RunDirectoryError

SHORT = ["loop.rounds=4", "loop.batch_size=16", "loop.log_every=2", "loop.checkpoint_every=2", "progress=false",
         "device=cpu"]  # fmt: skip
FLOW = ["data=ring8", "model.width=8", "model.couplings=2", *SHORT]


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    """A finished run of a flow, and its directory."""
    path = tmp_path_factory.mktemp("flow") / "run"
    assembly = se.compose("mle_flow", [*FLOW, "players.theta.ema=0.5"])
    assembly.train(se.RunDirectory(path))
    return assembly, path


# -- one way in -------------------------------------------------------------------------------------------------------


def test_a_typed_word_is_composed_once_and_checked_once(tmp_path, monkeypatch, capsys):
    calls = []
    for module, name in ((composing, "hydra_compose"), (legality, "check")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, real=real, name=name, **k: (calls.append(name), real(*a, **k))[1])
    monkeypatch.setattr("se_framework.commands.train.finish", lambda *_: 0.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["se-train", "data=ring8", *SHORT, "hydra.run.dir=run"])
    command.main()
    assert sorted(calls) == ["check", "hydra_compose"] and (tmp_path / "run" / "config.yaml").is_file()
    monkeypatch.setattr(sys, "argv", ["se-train", "resume=run", "loop.rounds=5"])
    calls.clear()
    command.main()
    assert sorted(calls) == ["check", "hydra_compose"], capsys.readouterr()


def test_help_shows_choices_values_and_their_remarks(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["se-train", "--help", "all"])
    command.main()
    told = capsys.readouterr().out
    for line in (config_dir() / "config.yaml").read_text().partition("\n\n")[2].partition("\nhydra:")[0].splitlines():
        assert line in told
    assert "wgan_gp" in told and "hydra.run" not in told and "_self_" not in told


# -- objects ----------------------------------------------------------------------------------------------------------


def test_an_object_takes_the_place_of_a_choice(tmp_path):
    given = se.compose("fgan", SHORT, divergence=d.Pearson())
    typed = se.compose("fgan", [*SHORT, "divergence=pearson"])
    for assembly in (given, typed):
        assembly.train()
    for one, other in zip(given.model.parameters(), typed.model.parameters(), strict=True):
        assert torch.equal(one, other)

    run = se.RunDirectory(tmp_path / "run")
    se.compose("fgan", SHORT, divergence=d.Pearson()).train(run)
    with pytest.raises(ConfigError, match="an object from Python"):
        se.load(run.path)
    assert se.load(run.path, divergence=d.Pearson()).state.round == 4


@pytest.mark.parametrize(
    ("overrides", "objects", "message"),
    [
        (["divergence=kl"], {"divergence": d.Pearson()}, "divergence is overridden, and divergence is given as an obj"),
        (["+divergence.order=2"], {"divergence": d.Pearson()}, "divergence.order is overridden"),
        ([], {"divergence": 3}, "divergence must be a Divergence, got a int"),
        ([], {"loop": 3}, "loop cannot be given as an object: model, metric, divergence, auxiliary and data can"),
        (["data=ring8"], {"data": torch.zeros(9, 2)}, "data is overridden, and data is given as an object"),
        (["ensemble.size=2"], {"divergence": d.Pearson()}, "an ensemble builds its members' parts itself"),
    ],
)
def test_objects_that_do_not_fit(overrides, objects, message):
    with pytest.raises(ConfigError, match=message):
        se.compose("fgan", [*SHORT, *overrides], **objects)


def test_a_folder_of_ones_own_composes_as_with_config_dir(tmp_path):
    (tmp_path / "divergence").mkdir()
    (tmp_path / "divergence" / "mine.yaml").write_text("_target_: divergences.Alpha\norder: 3\n")
    assembly = se.compose("fgan", [*SHORT, "divergence=mine"], config_dirs=[tmp_path])
    assert assembly.state.equation.divergence.order == 3


# -- starts -----------------------------------------------------------------------------------------------------------


def test_a_part_starts_with_the_averaged_weights_of_a_run(flow):
    assembly, path = flow
    started = se.compose("mle_flow", [*FLOW, f"model.from={path}"])
    for one, other in zip(assembly.model.parameters(), started.model.parameters(), strict=True):
        assert torch.equal(one, other)
    moving = dict(assembly.state.equation.model.named_parameters())
    assert any(not torch.equal(p, moving[name]) for name, p in started.model.named_parameters())  # those are the last


def test_what_cannot_be_started_from(flow, tmp_path):
    _, path = flow
    for overrides, error, message in (
        ([f"model.from={tmp_path / 'nope'}"], RunDirectoryError, "is not a run directory"),
        (
            [f"model.from={path}", "model.width=9"],
            ConfigError,
            r"layers do not fit \(conditioners.0.1.bias \(9,\) here, \(8,\) there",
        ),
    ):
        with pytest.raises(error, match=message):
            se.compose("mle_flow", [*FLOW, *overrides])
    half = se.RunDirectory(tmp_path / "half")
    with pytest.raises(se.CallbackError):
        se.compose("mle_flow", FLOW).train(half, [Raises()])
    with pytest.raises(ConfigError, match="has played 2 of 4 rounds: finish it with resume="):
        se.compose("mle_flow", [*FLOW, f"model.from={half.path}"])


def test_only_parts_have_weights_to_start_with(flow):
    _, path = flow
    for overrides, key in (
        ([f"data.from={path}"], "data.from"),
        ([f"+data.from={path}"], "data.from"),
        ([f"+optimizer.from={path}"], "optimizer.from"),
    ):
        with pytest.raises(ConfigError, match=f"unknown key '{key}'"):
            se.compose("mle_flow", [*FLOW, *overrides])


def test_averages_are_found_whatever_a_part_calls_its_tensors(tmp_path):
    """Learned.own is a name that players of several parts use too."""
    typed = [*SHORT, f"auxiliary._target_={__name__}.Learned", "players.q.ema=0.5"]
    first = se.compose("fgan", typed)
    first.train(se.RunDirectory(tmp_path / "run"))
    started = se.compose("fgan", [*typed, f"auxiliary.from={tmp_path / 'run'}"]).state.equation.auxiliary
    averages = first.state.player("q").average.module
    assert torch.equal(started.own.weight, averages.own.weight)
    assert not torch.equal(started.own.weight, first.state.equation.auxiliary.own.weight)


def test_a_run_does_not_start_from_itself(flow, monkeypatch, tmp_path):
    from se_framework.assembly import assembly_of

    _, path = flow
    with pytest.raises(ConfigError, match="is the run itself: name another"):
        assembly_of(composing.compose("mle_flow", [*FLOW, f"model.from={path}"]), own=path)


def test_a_frozen_player_stands_still():
    assembly = se.compose("vanilla_gan", [*SHORT, "players.phi.frozen=true"])
    before = [p.clone() for p in assembly.state.equation.metric.parameters()]
    assembly.train()
    assert [player.name for player in assembly.state.players] == ["theta"]
    assert all(map(torch.equal, before, assembly.state.equation.metric.parameters()))
    for name, message in (("q", "has no player q; known: phi, theta"), ("theta", None)):
        if message:
            with pytest.raises(ConfigError, match=message):
                se.compose("vanilla_gan", [*SHORT, f"players.{name}.frozen=true"])
    with pytest.raises(ConfigError, match="leaves no player that moves"):
        se.compose("mle_flow", [*SHORT, "players.theta.frozen=true"])


# -- callbacks --------------------------------------------------------------------------------------------------------


class Raises(se.Callback):
    """Fails at the first row."""

    def on_row(self, state, row):
        raise RuntimeError("no\nluck")


class Tells(se.Callback):
    """Writes down what it is told."""

    def __init__(self, file: str):
        self.file = file

    def _write(self, what):
        with open(self.file, "a") as file:
            file.write(f"{what}\n")

    def on_row(self, state, row):
        self._write(f"row {row['round']:g} {state.round}")

    def on_picture(self, state, file):
        self._write(f"picture {file.name} {file.is_file()}")

    def on_checkpoint(self, state, file):
        self._write(f"checkpoint {file.name} {file.is_file()}")


def test_callbacks_are_told_of_rows_pictures_and_checkpoints(tmp_path):
    file = tmp_path / "told"
    own = [f"+callbacks.mine._target_={__name__}.Tells", f"+callbacks.mine.file='{file}'"]
    assembly = se.compose("mle_flow", [*FLOW, *own, "loop.picture_every=4"])
    assembly.train(se.RunDirectory(tmp_path / "run"))
    assert file.read_text().splitlines() == [
        "picture 00000000.png True", "row 2 2", "checkpoint round_00000002.safetensors True",
        "row 4 4", "picture 00000004.png True", "checkpoint round_00000004.safetensors True",
    ]  # fmt: skip


def test_a_callback_that_raises_is_named_and_the_run_goes_on(tmp_path):
    run = se.RunDirectory(tmp_path / "run")
    with pytest.raises(se.CallbackError, match=r"callback Raises.on_row raised in round 2 \(RuntimeError: no luck\)"):
        se.compose("mle_flow", [*FLOW, "loop.checkpoint_every=0"]).train(run, [Raises()])
    going_on, whole = se.load(run.path), se.compose("mle_flow", FLOW)
    assert going_on.state.round == 2
    for assembly in (going_on, whole):
        assembly.train()
    for one, other in zip(going_on.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)


class Watches(se.Callback):
    """Fails at the first picture, which is drawn before any round."""

    def on_picture(self, state, file):
        raise ValueError("no canvas")


def test_a_failure_before_the_first_round_ends_the_run_with_the_first(tmp_path):
    typed = [*FLOW, "loop.log_every=0", "loop.checkpoint_every=0", "loop.picture_every=4"]
    with pytest.raises(se.CallbackError, match=r"Watches.on_picture raised in round 1 \(ValueError: no canvas\)"):
        se.compose("mle_flow", typed).train(se.RunDirectory(tmp_path / "run"), [Watches()])
    assert se.load(tmp_path / "run").state.round == 1


def test_a_run_from_python_goes_on_by_the_command_line(tmp_path, monkeypatch):
    """What was left to us at its start is kept: the end of the learning rates, the device."""
    monkeypatch.setattr("se_framework.commands.train.finish", lambda *_: 0.0)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["se-train", f"resume={tmp_path / 'run'}", "loop.rounds=6"])
    with pytest.raises(se.CallbackError):
        se.compose("mle_flow", FLOW).train(se.RunDirectory(tmp_path / "run"), [Raises()])
    command.main()
    whole = se.compose("mle_flow", [*FLOW, "loop.rounds=6", "loop.horizon=4"])
    whole.train()
    for one, other in zip(se.load(tmp_path / "run").model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert (tmp_path / "run" / "data.json").is_file()


def test_a_strangers_callback_is_not_made(tmp_path):
    """A run may name one: it is the run's own code, and wants the trust of any other."""
    run, mark = se.RunDirectory(tmp_path / "run"), tmp_path / "mark"
    typed = [*FLOW, f"+callbacks.mine._target_={__name__}.Tells", f"+callbacks.mine.file='{mark}'"]
    se.compose("mle_flow", typed).train(run)
    mark.unlink()
    loaded = se.load(run.path)
    assert loaded.sample(2).shape == (2, 2)  # nothing of it is needed to look at the run
    loaded.config.loop.rounds = 6
    with pytest.raises(ConfigError, match="the run directory names 'tests.interface.test_python.Tells'"):
        loaded.train(run)
    assert not mark.exists()
    trusting = se.load(run.path, trust="tests")
    trusting.config.loop.rounds = 6
    trusting.train(run)
    assert "row 6 6" in mark.read_text()


# -- what is done with a trained run ----------------------------------------------------------------------------------


def test_scores_densities_pictures_and_weights(flow, tmp_path):
    assembly, _ = flow
    assert assembly.scores(50)["nll"] == se.evaluate(assembly, 50)["nll"]
    x = assembly.sample(5)
    inside = assembly.model().log_prob(assembly.data.to_model(x)).double().detach() - assembly.data.log_scale
    torch.testing.assert_close(assembly.log_prob(x), inside, rtol=1e-5, atol=1e-5)  # float32 networks
    assembly.plot(tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    count = assembly.save(tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert len(list(file.keys())) == count and file.metadata()["round"] == "4"
    with pytest.raises(ValueError, match=r"points have shape \(5,\), expected \(n, 2\)"):
        assembly.log_prob(torch.zeros(5))
    with pytest.raises(IncompatibleError, match="MLPGenerator has no density"):
        se.compose("vanilla_gan", SHORT).log_prob(x)


# -- seeds ------------------------------------------------------------------------------------------------------------


class Learned(se.Dual):
    """A q-step with weights of its own, which it draws to zero."""

    def __init__(self, normalised: bool = False):
        super().__init__(normalised)
        self.own = torch.nn.Linear(3, 3)

    def minimum(self, problem, role=None):
        return super().minimum(problem, role) + sum(p.square().sum() for p in self.own.parameters())


def test_the_weights_of_every_part_follow_the_seed():
    found = []
    for seed, stray in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(stray)
        equation = se.compose("fgan", [*SHORT, f"seed={seed}", f"auxiliary._target_={__name__}.Learned"]).state.equation
        found.append({name: p.detach().clone() for name, p in equation.named_parameters()})
    assert "auxiliary.own.weight" in found[0]
    for name, tensor in found[0].items():
        assert torch.equal(tensor, found[1][name]), name
    for part in ("metric", "auxiliary"):  # the model of this experiment starts at fixed numbers
        assert any(not torch.equal(t, found[2][name]) for name, t in found[0].items() if name.startswith(part)), part
