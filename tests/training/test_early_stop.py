"""Early stopping: which state is kept, when a run ends, and that a resumed run does the same; tables under mle_flow."""

import copy
import json

import numpy as np
import pytest
import torch

import se_framework as se
from se_framework.data import GaussianMixture, TensorData
from se_framework.data.toys import Ring8
from se_framework.errors import ConfigError, DataError, IncompatibleError
from se_framework.evaluation import densities
from se_framework.evaluation import evaluate as evaluation
from se_framework.evaluation.evaluate import warnings_of
from se_framework.evaluation.validation import early_stop_of
from se_framework.training.early_stop import Best, EarlyStop
from se_framework.training.loop import train
from tests.support.comparing import same
from tests.support.composing import compose, composed

F64 = torch.float64
SMALL = ["model.width=8", "model.couplings=2", "loop.log_every=0", "progress=false", "device=cpu"]
SOON = [*SMALL, "loop.rounds=300", "loop.patience=20", "optimizer.lr=0.05", "loop.warmup=0"]


def table(n=90, d=3):
    draw = torch.Generator().manual_seed(0)
    mix = torch.tril(torch.ones(d, d, dtype=F64))
    return 3 + torch.randn(n, d, generator=draw, dtype=F64).exp() @ mix


def weights(equation):
    return {name: t.clone() for name, t in equation.state_dict().items()}


# -- validation rows --------------------------------------------------------------------------------------------------


def test_validation_rows_are_neither_trained_on_nor_held_out():
    whole = TensorData(torch.arange(50.0)[:, None], held_out_fraction=0.2, labels=torch.arange(50) % 2)
    data = whole.with_validation(0.25)
    assert (whole.train_size, data.train_size, data.validation_size, data.rest_size) == (40, 30, 10, 10)
    parts = [data.batch(0, 30, 7), data.validation(100), data.held_out(100)]
    assert torch.equal(torch.cat([p.x for p in parts]).sort(0).values, torch.arange(50.0)[:, None])
    assert all(torch.equal(p.context, p.x[:, 0].long() % 2) for p in parts)
    assert data.with_validation(0.25) is data  # members and stages share their data
    assert len(data.validation(3).x) == 3
    with pytest.raises(DataError, match=r"loop.validation must lie between 0 and 1 \(exclusive\), got 1.0"):
        whole.with_validation(1.0)
    with pytest.raises(DataError, match="has no validation rows: take those of"):
        whole.validation(3)
    sampler = Ring8()
    drawn = sampler.with_validation(0.2).validation(5).x
    assert torch.equal(drawn, sampler.validation(5).x) and not torch.equal(drawn, sampler.held_out(5).x)


# -- the rule ---------------------------------------------------------------------------------------------------------


def test_the_best_state_is_kept_and_the_run_ends_after_the_patience(capsys):
    values = iter([5.0, 4.0, float("nan"), 3.0, 3.0, 6.0, 7.0, 8.0])
    seen = []

    def measure(state):
        seen.append((state.round, weights(state.current())))
        return next(values)

    assembly = compose("mle_flow", [*SMALL, "loop.early_stop=null"], data=table())
    state = train(
        assembly.state, assembly.data, rounds=50, batch_size=20, log_every=0, progress=False,
        early_stop=EarlyStop("made up", measure, 4),
    )  # fmt: skip
    assert [t for t, _ in seen] == list(range(8))
    assert (state.round, state.best.round, state.best.value) == (7, 3, 3.0)  # of two equal ones the first
    assert same(weights(state.trained()), seen[3][1]) and same(weights(state.current()), seen[7][1])
    said = capsys.readouterr().err
    assert "made up over validation points was least in round 3 (3), no less in 4 rounds: the weights of that" in said


def test_fifty_looks_in_the_patience_and_one_at_the_end_keep_the_averages():
    """Patience 200: every fourth round, and the last one, which no other look would see."""
    seen = {}

    def measure(state):
        seen[state.round] = weights(state.current())
        return -float(state.round)

    assembly = compose("mle_flow", ["model=affine", "players.theta.ema=0.9", "loop.early_stop=null"], data=table())
    state = train(
        assembly.state, assembly.data, rounds=10, batch_size=20, log_every=0, progress=False,
        early_stop=EarlyStop("made up", measure, 200),
    )  # fmt: skip
    assert list(seen) == [0, 4, 8, 10] and state.best.round == 10
    assert same(weights(state.best.equation), seen[10]) and not same(seen[10], weights(state.equation))


def test_a_resumed_run_stops_in_the_same_round_with_the_same_state(tmp_path):
    whole = compose("mle_flow", SOON, data=table())
    whole.train(se.RunDirectory(tmp_path / "whole"))
    assert 20 <= whole.state.round < 300  # it learns by heart
    run = se.RunDirectory(tmp_path / "run")
    until = max(1, whole.state.best.round + 3)
    half = compose("mle_flow", [*SOON, f"loop.rounds={until}", "loop.horizon=300"], data=table())
    half.train(run)
    going_on = se.load(run.path, data=table())
    assert going_on.state.best.round == half.state.best.round
    assert same(weights(going_on.equation), weights(half.equation))
    going_on.config.loop.rounds = 300
    going_on.train(run)
    assert (going_on.state.round, going_on.state.best.round) == (whole.state.round, whole.state.best.round)
    assert going_on.state.best.value == whole.state.best.value
    assert same(weights(going_on.equation), weights(whole.equation))
    assert same(weights(going_on.state.equation), weights(whole.state.equation))
    assert torch.equal(se.load(run.path, data=table()).sample(5), whole.sample(5))
    again = se.load(run.path, data=table())
    again.train(run)  # nothing is left to play
    assert again.state.round == whole.state.round


def test_a_round_that_is_asked_for_is_that_round(tmp_path):
    assembly = compose("mle_flow", [*SOON, "loop.checkpoint_every=5", "loop.keep_last=20"], data=table())
    assembly.train(se.RunDirectory(tmp_path / "run"))
    last = assembly.state.round
    assert assembly.state.best.round < last
    asked = se.load(tmp_path / "run", data=table(), checkpoint=last)
    assert same(weights(asked.equation), weights(assembly.state.equation))


def test_any_score_can_stop_a_run():
    overrides = ["loop.early_stop=w2", "loop.patience=1", "loop.rounds=2", "loop.log_every=0", "progress=false"]
    small = ["model=mlp_generator", "model.width=8", "metric=mlp", "metric.network.width=8", "loop.batch_size=null"]
    assembly = compose("vanilla_gan", [*overrides, *small], data=table(60))
    assembly.train()
    best = assembly.state.best
    assert best is not None and best.value > 0
    with pytest.raises(ConfigError, match=r"loop.early_stop=modes: this data and model have no such score \(tensor"):
        compose("mle_flow", [*SMALL, "loop.early_stop=modes"], data=table()).train()


@pytest.mark.parametrize(
    ("entry", "least"),
    [
        ({"value": 0.9, "better": "nearer", "references": {"perfect": 0.98}}, 0.08),
        ({"value": 1.0, "better": "nearer", "references": {"perfect": 0.98}}, 0.02),
        ({"value": 7.0, "better": "higher"}, -7.0),
        ({"value": 7.0, "better": "lower"}, 7.0),
    ],
)
def test_the_best_of_a_score_is_where_the_score_says(entry, least, monkeypatch):
    """High quality beyond that of a perfect sample is no better: what counts is how far it is from there."""
    monkeypatch.setattr("se_framework.evaluation.validation.evaluate", lambda *a: {"high_quality": entry})
    overrides = ["loop.early_stop=high_quality", "loop.rounds=1", "loop.log_every=0", "progress=false"]
    assembly = compose("mle_flow", [*SMALL, *overrides], data=table(60))
    assembly.train()
    assert assembly.state.best.value == pytest.approx(least)


def judged(early_stop):
    """Return a flow with an average, trained on a table, that keeps a best state far from where it stands."""
    settings = ["model=affine", "players.theta.ema=0.9", "optimizer.lr=0.1", f"loop.early_stop={early_stop}"]
    assembly = compose("mle_flow", [*settings, "loop.log_every=0", "progress=false", "device=cpu"], data=table())
    state = assembly.state
    train(state, assembly.data, rounds=3, batch_size=20, log_every=0, progress=False)
    far = copy.deepcopy(state.current())
    with torch.no_grad():
        for parameter in far.parameters():
            parameter.add_(1.0)
    state.best = Best(1, 0.0, far)
    state.equation.train()
    return assembly, state


def test_likelihood_is_judged_on_validation_rows_by_the_averages_as_they_stand():
    assembly, state = judged("nll")
    assert assembly.data.validation_size > 0
    theta, x = state.player("theta"), assembly.data.validation(99).x
    with torch.no_grad():
        averaged, last = (float(-part().log_prob(x).double().mean()) for part in (theta.averaged, theta.module))
    found = early_stop_of(assembly).measure(state)
    assert found == pytest.approx(averaged + assembly.data.log_scale, abs=1e-12) and abs(last - averaged) > 1e-3


def test_likelihood_is_judged_in_evaluation_mode():
    """Dropout draws on torch's generator: in training mode two looks differ, and move it."""
    assembly, state = judged("nll")

    class Drops(type(state.equation.model)):
        def forward(self, context=None):
            law = super().forward(context)
            log_prob = law.log_prob
            law.log_prob = lambda x: torch.nn.functional.dropout(log_prob(x), 0.5, self.training)
            return law

    for theta in (state.player("theta").module, state.player("theta").averaged):
        theta.__class__ = Drops
    before, look = torch.random.get_rng_state(), early_stop_of(assembly).measure
    assert look(state) == look(state) and torch.equal(torch.random.get_rng_state(), before)


def test_any_other_score_is_judged_on_validation_rows_by_the_averages_as_they_stand(monkeypatch):
    """Not on held-out rows, which are for the end, and not by the best state so far, which would never be beaten."""
    assembly, state = judged("w2")
    best, seen = state.best, []

    def evaluate(of, n, *more):
        seen.append((weights(of.equation), of.data.held_out(99, 3).x, of.data.train_size))
        return {"w2": {"value": 7.0}}

    monkeypatch.setattr("se_framework.evaluation.validation.evaluate", evaluate)
    assert early_stop_of(assembly).measure(state) == 7.0
    ((equation, points, rows),) = seen
    assert same(equation, weights(state.current())) and not same(equation, weights(best.equation))
    assert not same(equation, weights(state.equation))
    assert torch.equal(points, assembly.data.validation(99).x) and rows == assembly.data.train_size
    assert state.best is best and not torch.equal(points, assembly.data.held_out(99, 3).x)


def test_what_cannot_be_stopped_early_is_refused():
    with pytest.raises(ConfigError, match="loop.early_stop must be one of auto, nll"):
        composed("mle_flow", ["loop.early_stop=nl"])
    with pytest.raises(IncompatibleError, match="loop.early_stop=nll: MLPGenerator has no density"):
        compose("vanilla_gan", ["loop.early_stop=nll"])
    with pytest.raises(ConfigError, match="members of an ensemble end together"):
        compose("mle_flow", [*SMALL, "loop.early_stop=nll", "ensemble.size=2"])
    with pytest.raises(ConfigError, match="a run with stages plays all of them"):
        compose("mle_flow", [*SMALL, "loop.early_stop=nll", "stages=[{rounds: 3}]"])


def test_data_without_end_and_ensembles_play_all_rounds():
    assert compose("mle_flow", SMALL).config.loop.early_stop is None
    ensemble = compose("mle_flow", [*SMALL, "ensemble.size=2"], data=table())
    assert ensemble.config.loop.early_stop is None and ensemble.config.loop.batch_size == 81


# -- a table ----------------------------------------------------------------------------------------------------------


def test_mle_flow_takes_a_small_table(tmp_path, monkeypatch, capsys):
    from se_framework.commands.train import train_run

    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", table(124).numpy())
    typed = ["data=array", "data.path=rows.npy", *SMALL, "loop.rounds=300", "loop.patience=50"]
    done = train_run(composed("mle_flow", typed), tmp_path / "run", typed)
    out = capsys.readouterr()
    assert "gaussian" in out.out and "mixture" in out.out and "early stopping: nll over" in out.err
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    nll = summary["scores"]["nll"]
    assert summary["stopped_early"] and summary["kept_round"] <= summary["round"] - 50
    assert nll["value"] < nll["references"]["gaussian"] + nll["se"]
    again = train_run(composed("mle_flow", [*typed, "resume=auto"]), tmp_path / "other", [*typed, "resume=auto"])
    assert (done.status, again.status) == ("finished", "skipped")


def test_a_batch_size_that_is_left_open_fits_the_rows():
    assert compose("mle_flow", SMALL, data=table(60)).config.loop.batch_size == 43  # 54 to train, 11 of them apart
    assert compose("mle_flow", SMALL).config.loop.batch_size == 512
    with pytest.raises(DataError, match="loop.batch_size=512 is larger than the data: tensor has 43 training rows"):
        compose("mle_flow", [*SMALL, "loop.batch_size=512"], data=table(60))


def test_the_gaussian_beside_a_likelihood_is_that_of_the_training_rows():
    data = TensorData(table(), standardize=True).with_validation(0.2)
    train = torch.cat([data.rows("train", torch.arange(data.train_size)), data.validation(99).x]).double()
    law = torch.distributions.MultivariateNormal(train.mean(0), torch.cov(train.T, correction=0))
    found = densities.of_rows(data, 10_000, 0)
    # The ridge moves the variances by 1e-6 of them, the value by that times a squared distance in units of the fit.
    assert found["gaussian"] == pytest.approx(
        data.log_scale - float(law.log_prob(data.held_out(99).x.double()).mean()), abs=1e-3
    )
    assert np.isfinite(found["mixture"])
    assert densities.of_rows(Ring8(), 100, 0) == {}
    assert densities.of_rows(TensorData(table(5, 4)), 100, 0) == {}  # no more rows than columns


def clusters(n=150):
    """Two clouds, three apart: a mixture of two is their law, one of twelve learns the rows by heart."""
    draw = torch.Generator().manual_seed(3)
    return 5 * torch.randn(n, 3, generator=draw, dtype=F64) + 15 * (torch.arange(n) % 2)[:, None]


def test_the_mixture_beside_a_likelihood_is_the_one_that_is_best_on_rows_apart_fitted_to_all(monkeypatch):
    """The value is scikit-learn's for the right choice, on the held-out rows in the user's units."""
    from sklearn.mixture import GaussianMixture

    grid = ((2, "full", 1e-3), (12, "full", 1e-3))
    monkeypatch.setattr(densities, "MIXTURES", grid)
    data = TensorData(clusters(), standardize=True).with_validation(0.2)
    rows = torch.cat([data.rows("train", torch.arange(data.train_size)), data.validation(99).x]).double().numpy()
    rest = data.held_out(99).x.double().numpy()
    kept = [GaussianMixture(k, covariance_type=kind, reg_covar=r, random_state=0).fit(rows) for k, kind, r in grid]
    by_heart, apart = ([own.score(x) for own in kept] for x in (rows, rest))
    assert by_heart[1] > by_heart[0] and apart[0] > apart[1] and abs(data.log_scale) > 5
    found = densities.of_rows(data, 10_000, 0)
    assert found["mixture"] == pytest.approx(data.log_scale - apart[0], abs=1e-9)


def test_of_a_long_table_densities_take_the_same_rows_in_every_process(monkeypatch):
    """The figures are a function of data and seed, and leave torch's own generator alone."""
    monkeypatch.setattr(densities, "MIXTURES", ((2, "diag", 1e-3),))
    monkeypatch.setattr(densities, "MOST_ROWS", 40)
    data, state = TensorData(clusters()), torch.random.get_rng_state()
    once = densities.of_rows(data, 10_000, 0)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(17)
    assert densities.of_rows(data, 10_000, 0) == once
    monkeypatch.setattr(densities, "MOST_ROWS", 150)
    assert densities.of_rows(data, 10_000, 0) != once


def test_densities_stand_beside_a_likelihood_of_rows_and_of_those_alone(monkeypatch):
    """Data without end that knows its density is fitted by the mixture of all scores, and knows its entropy."""
    monkeypatch.setattr(densities, "of_rows", lambda *rest: {"gaussian": 4.0})
    words = ["model=affine", "progress=false", "device=cpu"]
    for data, known in ((table(), {"gaussian"}), (GaussianMixture([0.0, 3.0], 1.0), {"entropy", "mixture"})):
        found = evaluation.evaluate(compose("mle_flow", words, data=data), n=20, names=("nll",))["nll"]
        assert set(found["references"]) == known and found["references"].get("gaussian", 4.0) == 4.0


def test_a_density_that_is_worse_than_the_gaussian_is_warned_of():
    nll = {"value": 5.0, "se": 0.1, "references": {"gaussian": 4.0}}
    assert "less likely under the model than under a Gaussian" in warnings_of({"nll": nll})[0]
    assert not warnings_of({"nll": nll | {"value": 4.05}}) and not warnings_of({"nll": {"value": 5.0}})
    assert warnings_of({"nll": nll | {"value": float("inf")}})
