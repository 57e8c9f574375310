"""Which ensembles there are: their settings, and what is refused before anything is allocated."""

import numpy as np
import pytest
import torch
from torch import nn

from se_framework import compose
from se_framework.config.composing import compose as compose_config
from se_framework.data import Ring8
from se_framework.describe import describe
from se_framework.ensemble import member_config, members_of
from se_framework.ensemble.members import Ensemble
from se_framework.equation.legality import ensemble
from se_framework.errors import ConfigError, IncompatibleError, StepError
from se_framework.training.loop import train as play
from tests.support.ensembles import REFUSED, both

DEFAULT_DTYPE = torch.float64


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["ensemble.values={equation.bet: [1, 2]}"], "equation.bet cannot differ.*equation.beta"),
        (["ensemble.values={loop.rounds: [1, 2]}"], "loop.rounds cannot differ between members"),
        (["ensemble.values={equation.beta: [1, 2], seed: [1, 2, 3]}"], "one value per member: equation.beta 2, seed 3"),
        (["ensemble.size=3", "ensemble.values={equation.beta: [1, 2]}"], "equation.beta 2, ensemble.size 3"),
        (["ensemble.values={equation.beta: [1]}"], "with one member is a single run"),
        (["ensemble.values={equation.beta: 1}"], "list of one finite number per member, got 1"),
        (["ensemble.values={equation.beta: [1, big]}"], "list of one finite number per member"),
        (["ensemble.values={equation.beta: [1, -1]}"], "equation.beta must be a finite number >= 0"),
        (["ensemble.values={seed: [1, 1.5]}"], "seed must be a whole number"),
        (["ensemble.values={metric.penalty.weight: [1, 2]}", "metric=mlp"], "no such key"),
        (["ensemble.size=0"], "ensemble.size must be at least 1"),
        (
            ["ensemble.size=2", "performance.precision=bf16"],
            "performance.precision=bf16: the members of",
        ),
        (
            ["ensemble.size=2", "performance.graphs=always"],
            "performance.graphs=always: the members of",
        ),
    ],
)
def test_settings_are_refused_in_one_sentence(overrides, text):
    with pytest.raises(ConfigError, match=text):
        compose("vanilla_gan", overrides)


def test_settings_name_members():
    config = compose_config("vanilla_gan", ["seed=5", "ensemble.values={equation.beta: [0.5, 1, 2]}"])
    assert members_of(config) == 3 and members_of(compose_config("vanilla_gan")) == 1
    assert [member_config(config, k).seed for k in range(3)] == [5, 6, 7]
    assert [member_config(config, k).equation.beta for k in range(3)] == [0.5, 1, 2]
    assert members_of(member_config(config, 0)) == 1


class Coupled(nn.Module):
    """A critic with batch normalisation, or dropout."""

    def __init__(self, event_shape, layer):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 4), layer, nn.Linear(4, 1), nn.Flatten(0))

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize(
    ("layer", "text"), [(nn.BatchNorm1d(4), "batch normalisation"), (nn.Dropout(), "dropout draws on")]
)
def test_networks_that_cannot_be_stacked_are_named(layer, text):
    found = ensemble(4, [Coupled((2,), layer)], data=Ring8())
    assert [v.rule for v in found] == ["ensemble"]
    assert text in found[0].problem.text and found[0].problem.values == ("ensemble.size=1",)


def test_an_optimiser_that_couples_entries_is_refused():
    """Adafactor divides by the mean square of a whole tensor."""
    typed = ["optimizer._target_=torch.optim.Adafactor", "~optimizer.betas", "~optimizer.fused"]
    with pytest.raises(IncompatibleError, match="optimiser Adafactor may couple .*Adam.*add ensemble.size=1"):
        compose("vanilla_gan", ["ensemble.size=2", *typed])
    with pytest.raises(IncompatibleError, match="optimiser Adafactor may couple"):
        Ensemble([compose("vanilla_gan", [*typed, "device=cpu"]).state] * 2)


def test_a_part_that_vmap_cannot_run_says_so(monkeypatch):
    from divergences import GAN

    link = GAN.link
    monkeypatch.setattr(GAN, "link", lambda self, v: link(self, v) if float(v.sum()) > -1e9 else v)
    together, _ = both("vanilla_gan", members=2)
    with pytest.raises(StepError, match="player phi, round 0, step 0.*ensemble.size=1"):
        play(together.state, together.data, rounds=1, batch_size=16, progress=False)


@pytest.mark.parametrize("experiment", REFUSED)
def test_what_runs_one_problem_at_a_time_is_refused_by_name(experiment, monkeypatch):
    from models import MLPGenerator

    monkeypatch.setattr(MLPGenerator, "forward", None)  # nothing is called, nothing allocated but on the meta device
    with pytest.raises(IncompatibleError, match=f"ensemble of 3 .*{REFUSED[experiment]}.*add ensemble.size=1"):
        compose(experiment, ["ensemble.size=3"])


def test_a_refused_ensemble_has_allocated_nothing(monkeypatch):
    seen = []
    reset = nn.Linear.reset_parameters
    monkeypatch.setattr(nn.Linear, "reset_parameters", lambda self: (seen.append(self.weight.device.type), reset(self)))
    with pytest.raises(IncompatibleError):
        compose("sinkhorn_learned", ["ensemble.size=3"])
    assert set(seen) == {"meta"}


def test_streamed_data_is_refused(tmp_path):
    np.save(tmp_path / "rows.npy", np.zeros((40, 2), np.float32) + np.arange(40)[:, None])
    typed = ["data=array_streamed", f"data.path={tmp_path / 'rows.npy'}", "loop.batch_size=8", "ensemble.size=2"]
    with pytest.raises(IncompatibleError, match="ensemble of 2 .*read when it is needed.*add ensemble.size=1"):
        compose("vanilla_gan", typed)


def test_a_tensor_that_has_left_its_stack_is_noticed():
    together, _ = both("vanilla_gan", members=2)
    parameter = together.members[1].state.player("phi").parameters[2]
    parameter.data = parameter.detach().clone()
    with pytest.raises(StepError, match=r"member 1 \(seed 1\): a part has put another tensor of shape \(128, 128\)"):
        together.state.scatter()


def test_a_dry_run_names_the_members():
    text = describe(compose("vanilla_gan", ["seed=5", "ensemble.values={equation.beta: [0.5, 1]}"]))
    assert text.endswith("Ensemble: 2 members, seeds 5, 6; equation.beta = [0.5, 1]")
