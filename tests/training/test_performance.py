"""Fast paths play the plain game: bf16 networks within its rounding, compiled and recorded steps to the last bits."""

import copy
from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

import se_framework as se
from divergences import GAN
from models import MLPCritic, MLPGenerator
from models.laws import Particles
from se_framework.commands import train as command
from se_framework.config.composing import compose as composed
from se_framework.config.schema import validate
from se_framework.describe import describe
from se_framework.errors import ConfigError, IncompatibleError, NonFiniteError
from se_framework.runs.directory import RunDirectory
from se_framework.training.draws import draw_batch, draw_step, step_stream
from se_framework.training.execution import Execution, choose
from se_framework.training.execution.graphs import StaticStep
from se_framework.training.execution.proof import must_agree
from se_framework.training.loop import measure, train
from se_framework.training.objective import objective
from se_framework.training.step import play_round
from tests.support.composing import compose
from tests.support.tape import record

DEFAULT_DTYPE = torch.float32
BATCH, HORIZON = 32, 10
SMALL = [f"loop.batch_size={BATCH}", "device=cpu", "progress=false"]
TINY = ["model.width=8", "metric.network.width=8"]
CONV = ["model=conv_generator", "metric=conv_r1", "model.width=4", "metric.network.width=4"]
GAMES = {
    "mlp": ("vanilla_gan", TINY),
    "penalty by hand": ("wgan_gp", TINY),
    "penalty by autograd": ("wgan_gp", [*TINY, "metric.network.activation=silu"]),
    "convolutions": ("digits", CONV),
    "labels": ("vanilla_gan", [*TINY, "data=ring8", "data.labels=true"]),
    "embedding": ("sinkhorn_learned", ["model.width=8", "metric=embedding_bounded"]),
    "moved particles": ("wgan_transported", [*TINY, "auxiliary.steps=2"]),
}


def make(experiment, overrides=(), **options):
    """Return fresh state and data, the steps executed as the options of Execution say."""
    assembly = compose(experiment, [*SMALL, *overrides])
    return replace(assembly.state, execution=Execution(**options)), assembly.data


def play(experiment, overrides=(), rounds=6, **options):
    """Return the state after some rounds, and their figures."""
    state, data = make(experiment, overrides, **options)
    return state, [play_round(state, data, BATCH, HORIZON) for _ in range(rounds)]


def same(one, other):
    """Whether two states hold the same bits: weights, moments, averages and counters."""
    return repr(one.state_dict()) == repr(other.state_dict()) and all(
        torch.equal(a, b) for a, b in zip(*(tensors(s.state_dict()) for s in (one, other)), strict=True)
    )


def tensors(node):
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ()
    return [node] if isinstance(node, torch.Tensor) else [t for part in inner for t in tensors(part)]


# -- bf16 -------------------------------------------------------------------------------------------------------------


def drawn(state, data, player):
    """Return the first batch, which penalties are due, and all that a player's first step depends on."""
    batch, due = draw_batch(data, 0, BATCH, 0, state.equation), player.due()
    return batch, due, draw_step(state.played, due, batch, step_stream(0, 0, player.name, 0, batch.x))


def gradients(state, data, player, penalty_only=False):
    """Return the scalars of one step and its gradients."""
    _, due, draws = drawn(state, data, player)
    loss, checked = objective(state.played, player, due, draws)
    loss = checked[2] if penalty_only else loss
    return checked, torch.autograd.grad(loss, player.parameters, materialize_grads=True)


@pytest.mark.parametrize("game", GAMES)
def test_bf16_gradients_are_float32_and_near_the_plain_ones(game):
    # Every number stored in bf16 is off by 2^-8 of itself at most. A gradient passes L layers forwards and back, that
    # of a penalty twice: at most 4 L roundings in a row, L = 8 for the convolutional pair, hence 32 / 2^8 of its norm;
    # a score passes L, hence 8 / 2^8 of scores of order one. More than float32's rounding says that bf16 was there.
    experiment, overrides = GAMES[game]
    state, data = make(experiment, overrides)
    fast, _ = make(experiment, overrides, precision="bf16")
    batch, _, draws = drawn(state, data, state.players[0])
    p, q = (s.played.particles(draws, batch.context).x for s in (state, fast))
    assert q.dtype == torch.float32 and 1e-5 < float(((p - q).norm() / p.norm()).detach()) < 8 / 2**8
    for player, other in zip(state.players, fast.players, strict=True):
        for penalty_only in (False, True)[: 1 + bool(player.penalised)]:
            plain, g = gradients(state, data, player, penalty_only)
            found, h = gradients(fast, data, other, penalty_only)
            norm = float(nn.utils.get_total_norm(g))
            off = float(nn.utils.get_total_norm([a - b for a, b in zip(g, h, strict=True)]))
            assert all(t.dtype == torch.float32 for t in (*found, *h))
            assert 1e-5 * norm < off < norm / 8, (player.name, penalty_only, off / norm)
            for a, b in zip(plain, found, strict=True):
                assert abs(a.item() - b.item()) <= 8 / 2**8 * max(1.0, abs(a.item()))


def test_of_the_equation_nothing_is_in_bf16(monkeypatch):
    seen, (state, data) = [], make("vanilla_gan", TINY, precision="bf16")
    for part, name in ((se.Dual, "minimum"), (se.Dual, "f"), (GAN, "link"), (se.R1, "penalty")):
        plain = getattr(part, name)

        def watched(self, *args, plain=plain):
            assert not torch.is_autocast_enabled("cpu")
            result = plain(self, *args)
            seen.extend(t.dtype for t in (*tensors(args), *tensors(args[0]), result) if isinstance(t, torch.Tensor))
            return result

        monkeypatch.setattr(part, name, watched)
    [play_round(state, data, BATCH, HORIZON) for _ in range(2)]
    assert len(seen) > 20 and set(seen) == {torch.float32}
    assert {t.dtype for t in tensors(state.state_dict())} <= {torch.float32, torch.int64}
    assert not torch.is_autocast_enabled("cpu")


def test_rows_samples_and_checkpoints_are_those_of_the_float32_networks():
    """Between steps nothing of bf16 is left: the same weights give the same row, and the same names."""
    (plain, data), (fast, _) = (make("digits", CONV, precision=p) for p in ("float32", "bf16"))
    assert measure(plain, data, BATCH) == measure(fast, data, BATCH)
    play_round(plain, data, BATCH, HORIZON), play_round(fast, data, BATCH, HORIZON)
    assert measure(plain, data, BATCH) != measure(fast, data, BATCH)
    plain.load_state_dict(copy.deepcopy(fast.state_dict()))
    assert measure(plain, data, BATCH) == measure(fast, data, BATCH)


@pytest.mark.parametrize("model", ["realnvp", "spline_flow", "affine", "mixture"])
def test_a_model_with_density_is_refused_in_bf16(model):
    overrides = ["experiment=mle_flow", f"model={model}", *SMALL, "performance.precision=bf16"]
    with pytest.raises(IncompatibleError, match=r"log-densities of \w+ need float32: add performance.precision=f"):
        compose(None, overrides)
    compose(None, [*overrides, "performance.precision=float32"])


# -- proof ------------------------------------------------------------------------------------------------------------


def test_agreement_is_half_of_the_digits_of_the_whole():
    value, gradient, small = torch.ones(3), torch.full((50,), 2.0), torch.full((2,), 1e-9)
    plain = [value, gradient, small]
    must_agree(plain, [value * (1 + 1e-6), gradient, small])
    must_agree(plain, [value, gradient, -small])  # what is rounding of zero may have any sign
    wrongs = (
        [value * (1 + 1 / 1024), gradient, small], [value, gradient * (1 + 1 / 1024), small],
        [value, gradient, small + 0.02], [value * torch.nan, gradient, small], [value, gradient * torch.nan, small],
    )  # fmt: skip
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"its (value|gradient) is off by"):
            must_agree(plain, wrong)
    with pytest.raises(ValueError, match="value"):
        must_agree([t.double() for t in plain], [t.double() * (1 + 1e-6) for t in plain])
    must_agree(plain, [value * 1.01, gradient, small], torch.finfo(torch.bfloat16).eps)


class Noisy(nn.Module):
    """A critic whose forward pass draws, or moves a buffer."""

    def __init__(self, kind):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5) if kind == "draws" else nn.BatchNorm1d(8))
        self.last = nn.Linear(8, 1)

    def forward(self, x):
        return self.last(self.layers(x)).squeeze(1)


@pytest.mark.parametrize("options", [{"compiled": True, "backend": "eager"}, {"graphs": True, "capture": record}])
@pytest.mark.parametrize("kind", ["draws", "moves"])
def test_a_network_that_draws_or_moves_buffers_is_played_plainly(kind, options):
    states = []
    for chosen in ({}, options):
        torch.manual_seed(0)
        equation = se.StandardEquation(
            model=MLPGenerator((2,), width=8), metric=se.Metric(Noisy(kind)), divergence=GAN(), auxiliary=se.Dual()
        )
        state = se.TrainState(equation, execution=Execution(**chosen))
        train(state, torch.randn(64, 2), rounds=3, batch_size=16, log_every=0, progress=False)
        states.append(state)
    assert same(*states)
    state = se.TrainState(equation, execution=Execution(**options))
    play_round(state, se.data.as_data(torch.randn(64, 2)), 16, 1)
    words = "draws random numbers" if kind == "draws" else "moves buffers"
    assert state.execution.news == [f"plain steps for {name}: a forward pass {words}" for name in ("phi", "theta")]


# -- compilation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("game", ["mlp", "convolutions"])
def test_compiled_steps_are_the_plain_ones(game):
    # In float64 a gradient differs by the order of sums, 1e-16 of its norm, below 100 here. Adam's steps of 1e-3 are
    # gradients over their own size, so an entry of size g moves 1e-3 x 1e-14 / g off: 1e-7 takes a g below 1e-10, and
    # six rounds end before chaos begins.
    torch.set_default_dtype(torch.float64)
    experiment, overrides = GAMES[game]
    plain, _ = play(experiment, overrides)
    fast, _ = play(experiment, overrides, compiled=True, backend="aot_eager")
    assert fast.execution.news == [] and len(fast.execution._steps) == 2
    assert list(fast.equation.state_dict()) == list(plain.equation.state_dict())
    for a, b in zip(tensors(plain.state_dict()), tensors(fast.state_dict()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)


def test_a_compiled_run_is_copied_saved_and_resumed():
    overrides = [*TINY, "players.theta.ema=0.5"]
    whole, data = make("vanilla_gan", overrides, compiled=True, backend="eager")
    [play_round(whole, data, BATCH, HORIZON) for _ in range(3)]
    half, twin = whole.state_dict(), copy.deepcopy(whole)
    half = copy.deepcopy(half)
    [play_round(whole, data, BATCH, HORIZON) for _ in range(3)]
    [play_round(twin, data, BATCH, HORIZON) for _ in range(3)]
    resumed, _ = make("vanilla_gan", overrides, compiled=True, backend="eager")
    resumed.load_state_dict(half)
    [play_round(resumed, data, BATCH, HORIZON) for _ in range(3)]
    assert same(whole, twin) and same(whole, resumed)


def wrong_value(graph, _):
    """Compile to something that is off by a thousandth."""
    return lambda *args: [r * 1.001 if r.is_floating_point() else r for r in graph(*args)]


def wrong_gradient(graph, _):
    """Compile to the right values with half of the gradient."""
    return lambda *args: [(r + r.detach()) / 2 if r.requires_grad else r for r in graph(*args)]


def no_luck(graph, _):
    """Compile to nothing."""
    raise RuntimeError("no luck\nand more")


@pytest.mark.parametrize(
    ("backend", "why"),
    [
        (wrong_value, "its value is off by"),
        (wrong_gradient, "its gradient is off by"),
        (no_luck, "no luck"),
    ],
)
def test_a_wrong_compilation_is_rejected_with_the_reason(backend, why):
    plain, _ = play("vanilla_gan", TINY)
    fast, _ = play("vanilla_gan", TINY, compiled=True, backend=backend)
    assert same(plain, fast)
    for name, line in zip(("phi", "theta"), fast.execution.tell(), strict=True):
        assert line.startswith(f"{name} is not compiled: ") and why in line and "\n" not in line
    assert fast.execution.tell() == []


def test_a_compiled_function_that_fails_later_gives_way():
    calls = []

    def tired(graph, _):
        def call(*args):
            calls.append(1)
            if len(calls) > 2:
                raise RuntimeError("tired")
            return graph(*args)

        return call

    plain, _ = play("mle_flow", ["model=affine"])
    fast, data = make("mle_flow", ["model=affine"], compiled=True, backend=tired)
    news = []
    for _ in range(6):
        play_round(fast, data, BATCH, HORIZON)
        news += fast.execution.tell()
    assert same(plain, fast) and news == ["theta is no longer compiled: RuntimeError: tired"]


def test_the_user_reads_why_in_one_line(capsys):
    state, data = make("vanilla_gan", TINY, compiled=True, backend=no_luck)
    train(state, data, rounds=3, batch_size=BATCH, progress=False)
    said = capsys.readouterr()
    assert (said.out + said.err).count("performance: phi is not compiled: ") == 1


# -- recorded steps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("experiment", "overrides", "kinds"),
    [
        ("vanilla_gan", [*TINY, "loop.warmup=3", "optimizer=adam"], 2),
        ("vanilla_gan", [*GAMES["labels"][1], "players.phi.steps=2", "optimizer=adamw"], 2),
        ("wgan_gp", [*TINY, "metric.penalty.every=3", "players.theta.ema=0.9"], 3),
        ("sngan_hinge", ["model.width=8", "metric.network.width=8", "data=ring8"], 2),
        ("mle_flow", ["model.couplings=3", "model.width=8"], 1),
    ],
)
def test_recorded_steps_are_the_plain_ones_bit_for_bit(experiment, overrides, kinds):
    plain, figures = play(experiment, overrides)
    fast, again = play(experiment, overrides, graphs=True, capture=record)
    assert fast.execution.news == [] and len(fast.execution._steps) == kinds
    assert figures == again and same(plain, fast)


def test_penalties_with_clocks_of_their_own_have_recordings_of_their_own():
    states = []
    for options in ({}, {"graphs": True, "capture": record}):
        torch.manual_seed(0)
        model = MLPGenerator((2,), width=8)
        one, two = (se.Metric(MLPCritic((2,), width=8), se.R1(weight, every=n)) for weight, n in ((0.1, 2), (5.0, 3)))
        parts = {"model": model, "divergence": GAN(), "auxiliary": se.Dual()}
        other = se.StandardEquation(metric=two, **parts)
        equation = se.StandardEquation(metric=one, **parts, plus={"other": (0.5, other)})
        states.append(se.TrainState(equation, execution=Execution(**options)))
        train(states[-1], torch.randn(64, 2), rounds=7, batch_size=16, log_every=0, progress=False)
    # In seven steps of phi both are due, the first, the second, or none.
    assert same(*states) and len(states[1].execution._steps) == 1 + 4 and states[1].execution.news == []


def test_recorded_steps_may_be_compiled_and_in_bf16():
    def again(run, optimizer):  # torch.compile does not run within a mode of Python's, as the tape is
        results = run()
        return lambda: [old.copy_(new) for old, new in zip(results, run(), strict=True)], results

    options = {"precision": "bf16", "compiled": True, "backend": "eager"}
    plain, figures = play("vanilla_gan", TINY, precision="bf16")
    fast, same_figures = play("vanilla_gan", TINY, graphs=True, capture=again, **options)
    assert fast.execution.news == [] and figures == same_figures and same(plain, fast)


class Bad(se.data.Data):
    """Normal rows, and NaN in one batch."""

    name, event_shape, at = "bad", (2,), 5

    def batch(self, start, n, seed, device="cpu"):
        x = torch.randn(n, 2, generator=torch.Generator().manual_seed(start))
        return Particles(x * torch.nan if start // n == self.at else x)

    def held_out(self, n, seed=0, device="cpu"):
        return self.batch(0, n, seed, device)


@pytest.mark.parametrize("experiment", ["vanilla_gan", "mle_flow"])
@pytest.mark.parametrize("at", [0, 4])
def test_a_nan_is_caught_at_the_same_step_and_training_goes_on(experiment, at):
    # Batch 4 belongs to phi's first step of a round, whose figures its second one must not replace. After the failure
    # the state is what the failing step saw. Before the first step the optimiser's moments are emptied, so
    # what was recorded on them is recorded anew.
    found = []
    for options in ({}, {"graphs": True, "capture": record}):
        state, _ = make(experiment, ["model=affine", "players.theta.ema=0.5", "players.phi.steps=2"], **options)
        data = Bad()
        data.at = at
        with pytest.raises(NonFiniteError) as caught:
            [play_round(state, data, BATCH, HORIZON) for _ in range(9)]
        seen = (repr(caught.value.record), state.round, state.samples, [p.steps_taken for p in state.players])
        data.at = None
        more = [play_round(state, data, BATCH, HORIZON) for _ in range(3)]
        found.append((seen, more, state))
    assert found[0][:2] == found[1][:2] and same(found[0][2], found[1][2])
    fast = found[1][2].execution
    assert fast.news == [] and all(isinstance(step, StaticStep) for step in fast._steps.values())


def test_recorded_steps_follow_a_restored_optimiser():
    plain, _ = play("vanilla_gan", TINY, rounds=6)
    fast, _ = play("vanilla_gan", TINY, rounds=3, graphs=True, capture=record)
    half, data = copy.deepcopy(fast.state_dict()), make("vanilla_gan", TINY)[1]
    for _ in range(2):  # on from the same point twice, in the same objects
        fast.load_state_dict(copy.deepcopy(half))
        [play_round(fast, data, BATCH, HORIZON) for _ in range(3)]
        assert same(plain, fast) and fast.execution.news == []


def test_what_reads_the_device_is_not_recorded():
    plain, _ = play("sinkhorn", ["data=ring8", "model.width=8"], rounds=2)
    fast, _ = play("sinkhorn", ["data=ring8", "model.width=8"], rounds=2, graphs=True, capture=record)
    assert same(plain, fast)
    assert fast.execution.news[0].startswith("no CUDA graph for theta: RuntimeError: operation not permitted")


def test_a_recording_that_replays_something_else_is_rejected():
    def stale(run, optimizer):
        results = run()
        return lambda: [r.mul_(1.001) for r in results if r.is_floating_point()], results

    plain, _ = play("vanilla_gan", TINY)
    fast, _ = play("vanilla_gan", TINY, graphs=True, capture=stale)
    assert same(plain, fast) and "no CUDA graph for phi: its value is off by" in fast.execution.news[0]


# -- the choice -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "device", "wanted", "graphs", "compiled"),
    [
        ([], "cpu", "auto", "the device is cpu", "it was slower than eager on cpu"),
        ([], "cpu", "always", "the device is cpu", ""),
        ([], "cuda", "never", "not wanted", "not wanted"),
        ([], "cuda", "auto", "", "there is no convolution"),
        (["data=digits", *CONV], "cuda", "auto", "", ""),
        (["data=digits", *CONV], "cpu", "auto", "the device is cpu", "it was slower than eager on cpu"),
        (["optimizer=rmsprop"], "cuda", "always", "optimiser of phi and theta cannot be captured", ""),
        (["optimizer=sgd"], "cuda", "auto", "optimizer=adam", "there is no convolution"),
    ],
)
def test_what_is_chosen_and_why_not(overrides, device, wanted, graphs, compiled):
    state = compose("vanilla_gan", [*SMALL, *overrides]).state
    found = choose(wanted, wanted, "float32", state.equation, state.players, torch.device(device))
    for key, used, why in (("graphs", found.graphs, graphs), ("compile", found.compiled, compiled)):
        assert used == (not why) and why in found.reasons[key]
        assert found.settled[f"performance.{key}"] == ("always" if used else "never")
    assert found.plain == bool(graphs and compiled)
    line = found.describe()
    assert ("CUDA graphs (" in line) == bool(graphs) and ("not compiled (" in line) == bool(compiled)


def test_a_dry_run_names_the_fast_paths_and_why_not():
    text = describe(compose("wgan_gp", SMALL))
    assert "Player steps: networks in float32, no CUDA graphs (the device is cpu), not compiled (it was slower" in text
    text = describe(compose("wgan_gp", [*SMALL, "performance.precision=bf16", "performance.compile=always"]))
    assert "Player steps: networks in bf16, no CUDA graphs (the device is cpu), compiled" in text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("performance.graphs=true", "performance.graphs must be one of auto, always, never, got True"),
        ("performance.compile=no", "performance.compile must be one of auto, always, never, got"),
        ("performance.precision=fp16", "performance.precision must be one of float32, bf16, got 'fp16'"),
        ("performance.precison=bf16", "unknown key 'performance.precison': did you mean 'performance.precision'"),
        ("performance=3", "performance must be a mapping of graphs, compile, precision, got 3"),
    ],
)
def test_bad_choices_are_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        composed("vanilla_gan", [override])


def test_choices_are_recorded_kept_and_may_change(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "finish", lambda *_: 0.0)
    run, typed = tmp_path / "run", ["experiment=vanilla_gan", *SMALL, *TINY, "loop.rounds=2"]

    def go(*more):
        command.train_run(composed(None, [*typed, *more]), run, [*typed, *more])
        return OmegaConf.load(run / "config.yaml").performance

    assert go() == {"graphs": "never", "compile": "never", "precision": "float32"}
    assert "player steps: networks in float32, no CUDA graphs (the device is cpu)" in capsys.readouterr().err
    changed = go(f"resume={run}", "loop.rounds=4", "performance.precision=bf16", "performance.compile=auto")
    assert changed == {"graphs": "never", "compile": "never", "precision": "bf16"}
    assert RunDirectory(run).load_checkpoint()[0]["round"] == 4


def test_runs_of_before_the_choice_can_be_read():
    config = composed("vanilla_gan", SMALL)
    old = OmegaConf.create({k: v for k, v in OmegaConf.to_container(config).items() if k != "performance"})
    assert validate(old).performance == {"graphs": "auto", "compile": "auto", "precision": "float32"}
