"""Parts of one's own go all the way: trained, recorded, evaluated, drawn, in evaluation mode; what lacks says why."""

from __future__ import annotations

import copy
import json

import pytest
import torch

import se_framework as se
from divergences import KL
from models import Affine
from se_framework import Metric, StandardEquation, TrainState
from se_framework.assembly import assembly_of
from se_framework.commands.train import train_run
from se_framework.config.composing import compose
from se_framework.describe import describe
from se_framework.equation.auxiliary import Tilted
from se_framework.errors import ConfigError
from se_framework.evaluation.evaluate import evaluate, score_lines
from se_framework.pictures.frames import frame
from se_framework.training.loop import measure, train
from se_framework.training.monitors import warnings_in
from se_framework.training.sampling import BLOCK
from tests.support.commands import small_scores
from tests.support.comparing import same
from tests.support.composing import composed
from tests.support.parts import Plain

PARTS = "tests.support.parts"
SHORT = ["loop.rounds=4", "loop.batch_size=32", "loop.log_every=2", "progress=false", "device=cpu", "metric=mlp",
         "metric.network.width=8", "metric.network.depth=1"]  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    small_scores(monkeypatch)


def config_of(*typed, **nodes):
    """Return a configuration of f-GAN's experiment with nodes of one's own; None removes a part."""
    config = composed("fgan", [*SHORT, *typed])
    for key, name in nodes.items():
        node = None if name is None else {"_target_": f"{PARTS}.{name}"}
        if key == "network":
            config.metric.network = node
        else:
            config[key] = node
    return config


def assembly(*typed, **nodes):
    return assembly_of(config_of(*typed, **nodes))


def run_of(tmp_path, *typed, **nodes):
    """Train as the command does, to the end, and return the directory and its summary."""
    train_run(config_of(*typed, **nodes), tmp_path / "run", [])
    return tmp_path / "run", json.loads((tmp_path / "run" / "summary.json").read_text())


# -- B3: what could be computed is written, what could not says why ---------------------------------------------------


def test_a_divergence_and_a_q_step_of_ones_own_end_with_all_that_there_is(tmp_path, capsys):
    run, summary = run_of(tmp_path, divergence="Bare", auxiliary="OwnStep")
    assert {"w2", "nll", "held_out_value"} <= set(summary["scores"])
    held_out = summary["scores"]["held_out_value"]
    assert held_out["bound"] == "min_q + E_pd f, of which OwnStep declares no bound" and held_out["unit"] == "nats"
    assert isinstance(held_out["value"], float) and held_out["se"] > 0
    for name in ("samples.png", "curves.png", "metrics.csv", "checkpoints"):
        assert (run / name).exists(), name
    assert "min_q + E_pd f, of which OwnStep declares no bound)" in capsys.readouterr().out
    again = se.load(run, trust="tests")
    assert evaluate(again)["held_out_value"] == held_out


def test_what_a_part_does_not_have_says_why_and_the_rest_stands(tmp_path, capsys):
    run, summary = run_of(tmp_path, model="Silent")
    scores = summary["scores"]
    assert scores["nll"] == {"why": "this density is not known after all", "n": 10_000, "seed": 0}
    assert scores["w2"]["value"] > 0 and isinstance(scores["held_out_value"]["value"], float)
    assert (run / "curves.png").exists()
    said = capsys.readouterr()
    assert "nll                not computed  (this density is not known after all)" in said.out
    assert "samples.png is not drawn: this density is not known after all" in said.err


def test_a_score_that_could_not_be_computed_is_refused_by_its_reason(tmp_path):
    with pytest.raises(ConfigError, match=r"score=nll: .*\(this density is not known after all\).* known: c2st,"):
        run_of(tmp_path, "score=nll", model="Silent")
    assert (tmp_path / "run" / "summary.json").exists()


# -- B4: particles keep every field -----------------------------------------------------------------------------------


def test_evaluation_keeps_every_field_of_the_particles(tmp_path):
    """The value and its standard error over chunks are zero, for the fields of every particle belong together."""
    found = evaluate(assembly(model="Doubled", auxiliary="ReadsLatents", divergence=None, metric=None), n=100)
    assert found["held_out_value"]["value"] == pytest.approx(0, abs=1e-5)  # float32: 2^-24 of squares below 100
    assert found["held_out_value"]["se"] == pytest.approx(0, abs=1e-5)
    _, summary = run_of(tmp_path, model="Doubled", auxiliary="ReadsLatents", divergence=None, metric=None)
    assert summary["last_row"]["total"] == pytest.approx(0, abs=1e-5)


# -- B5: evaluation mode ----------------------------------------------------------------------------------------------


@pytest.fixture
def noisy():
    """A trained run whose model and critic have dropout, batch normalisation and a density that draws."""
    found = assembly("players.theta.ema=0", model="Noisy", network="NoisyCritic")
    found.train()
    assert all(part.training for part in found.state.equation.modules())
    return found


def test_samples_are_a_function_of_weights_and_seed(noisy):
    before, modes = copy.deepcopy(noisy.state.state_dict()), [m.training for m in noisy.state.equation.modules()]
    torch.manual_seed(1)
    first, hidden = noisy.sample(100, seed=3), torch.random.get_rng_state()
    assert torch.equal(hidden, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, noisy.sample(100, seed=3))
    assert not torch.equal(first, noisy.sample(100, seed=4))
    assert torch.equal(noisy.sample(500, seed=3)[:100], first)  # no sample depends on the others
    blocks = noisy.sample(2 * BLOCK, seed=3)
    assert not torch.equal(blocks[:BLOCK], blocks[BLOCK:])
    assert noisy.sample(1, seed=3).shape == (1, 1)
    assert same(before, noisy.state.state_dict())
    assert modes == [m.training for m in noisy.state.equation.modules()]


def test_scores_are_a_function_of_weights_and_seed(noisy):
    before, hidden = copy.deepcopy(noisy.state.state_dict()), torch.random.get_rng_state()
    first = evaluate(noisy, n=200, seed=1)
    assert torch.equal(hidden, torch.random.get_rng_state())
    torch.manual_seed(5)
    assert first == evaluate(noisy, n=200, seed=1)
    assert "nll" in first and first["nll"]["value"] != evaluate(noisy, n=200, seed=2)["nll"]["value"]
    assert same(before, noisy.state.state_dict())


def test_a_log_ratio_is_the_same_from_call_to_call(noisy):
    equation = noisy.state.equation
    x, p = torch.randn(20, 1), equation.sample(20, torch.Generator().manual_seed(0))
    data = noisy.data.held_out(20)
    hidden = torch.random.get_rng_state()
    first = equation.log_ratio(x, data, p.detach())
    assert torch.equal(first, equation.log_ratio(x, data, p.detach()))
    assert torch.equal(equation.metric.log_ratio(x), equation.metric.log_ratio(x))
    assert torch.equal(hidden, torch.random.get_rng_state()) and equation.metric.training


def test_a_row_and_a_picture_are_functions_of_the_state(noisy, tmp_path):
    before, hidden = copy.deepcopy(noisy.state.state_dict()), torch.random.get_rng_state()
    rows = [measure(noisy.state, noisy.data, 32) for _ in range(2)]
    assert rows[0] == rows[1]
    for name in ("a", "b"):
        torch.manual_seed(ord(name))
        frame(noisy.state, noisy.data, tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    torch.random.set_rng_state(hidden)
    assert same(before, noisy.state.state_dict())
    assert all(part.training for part in noisy.state.equation.modules())


def test_a_run_of_noisy_parts_reads_back_to_the_same_samples_and_scores(tmp_path):
    run, summary = run_of(tmp_path, model="Noisy", network="NoisyCritic")
    one, other = (se.load(run, trust="tests") for _ in range(2))
    assert torch.equal(one.sample(50), other.sample(50))
    assert json.loads(json.dumps(evaluate(one))) == summary["scores"] == json.loads(json.dumps(evaluate(other)))


# -- B7: no false word ------------------------------------------------------------------------------------------------


def test_a_constant_f_without_parameters_is_not_told_to_be_frozen():
    """Under tilted q a constant f is maximum entropy: E_pd f stands still by choice, and theta learns."""
    torch.manual_seed(0)
    equation = StandardEquation(
        model=Affine((2,)), divergence=KL(), auxiliary=Tilted(), metric=Metric(Plain((2,))), alpha=0.5
    )
    state = train(TrainState(equation), torch.randn(64, 2), rounds=8, batch_size=16, log_every=1, progress=False)
    assert {row["E_pd_f"] for row in state.history} == {1.0} and len({row["total"] for row in state.history}) == 8
    assert warnings_in(state.history) == []


def test_what_is_allowed_is_said_once(capsys):
    config = compose("wgan_gp", [*SHORT, "metric=mlp", "allow=[lipschitz]"])
    (warning,) = assembly_of(config).state.equation.warnings
    assert warning.count("allowed:") == 1 and warning.startswith("allowed: lipschitz: Wasserstein1 needs a 1-Lipschitz")
    assert describe(assembly_of(config)).count("allowed:") == 1


# -- B9: an auxiliary speaks for itself -------------------------------------------------------------------------------


def test_formula_unit_and_bound_are_the_auxiliarys_own(tmp_path, capsys):
    _, summary = run_of(tmp_path, divergence="Bare", auxiliary="Said")
    held_out = summary["scores"]["held_out_value"]
    assert (held_out["bound"], held_out["unit"]) == ("lower bound of chi squared, by hand", "squared surprise")
    assert "lower bound of chi squared, by hand)" in capsys.readouterr().out
    text = describe(assembly(divergence="Bare", auxiliary="Said"))
    assert "  T = -E_p(v + v^2/4) + E_pd f\n" in text and "  q        = Said()" in text


def test_without_a_divergence_a_posterior_trains_is_recorded_and_described(tmp_path, capsys):
    nodes = {"model": "Latent", "auxiliary": "Posterior", "divergence": None, "metric": None}
    text = describe(assembly(**nodes))
    assert "  D(q, p)  = none" in text and "  f_phi    = none" in text and "  T = -ELBO\n" in text
    assert "q      descends on T; 1 step a round, 3 parameters" in text and "theta  descends on T" in text
    run, summary = run_of(tmp_path, **nodes)
    held_out = summary["scores"]["held_out_value"]
    assert held_out["bound"] == "-ELBO, of which Posterior declares no bound" and held_out["unit"] == "nats"
    assert {"q_objective", "q_gradient"} <= set(summary["last_row"])
    found = se.load(run, trust="tests")
    assert [player.name for player in found.state.players] == ["q", "theta"]
    assert any("-ELBO" in line for line in score_lines(evaluate(found)))
    assert (run / "samples.png").exists() and (run / "curves.png").exists()
