"""Every experiment under every choice of every group trains, or legality refuses it with overrides that mend it."""

import importlib.util
import re

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from se_framework.assembly import assembly_of
from se_framework.config.composing import compose, config_dir, groups
from se_framework.errors import ConfigError, DataError, IncompatibleError, StepError
from tests.support.smaller import smaller

SHORT = ["loop.rounds=2", "loop.batch_size=16", "loop.log_every=1", "progress=false", "device=cpu", "stages=[]"]
GROUPS = groups([config_dir()])
LABELLED = ("digits", "digits_dequantized", "gaussians8", "grid25", "mnist5k", "mnist5k_dequantized", "ring8")


@pytest.fixture(autouse=True)
def float32_as_in_runs():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def table_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "rows.csv"
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(64, 3, generator=generator) * 5 + 1000
    path.write_text("a,b,c\n" + "\n".join(",".join(f"{v:.6f}" for v in row) for row in rows.tolist()))
    np.save(path.with_suffix(".npy"), rows.numpy())
    return path


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    from PIL import Image

    path = tmp_path_factory.mktemp("images")
    for i in range(24):  # 16 are left to train on where some are set apart for validation
        Image.new("RGB", (5, 4), (10 * i, 255 - 10 * i, 7 * i)).save(path / f"{i}.png")
    return path


def extra(group, choice, table_file, image_folder, experiment=None):
    """What a choice asks of its user; and of who leaves the labels of an experiment for data without any."""
    if experiment is not None and group == "data":
        labelled = OmegaConf.load(config_dir() / "experiment" / f"{experiment}.yaml").get("data", {}).get("labels")
        if labelled and choice not in LABELLED:
            off = "null" if choice.startswith("array") else "false"
            return [*extra(group, choice, table_file, image_folder), f"data.labels={off}", "model.shared=0"]
    if (group, choice) == ("data", "array"):
        return [f'data.path="{table_file}"']
    if (group, choice) == ("data", "two_samples"):
        return [f'data.path="{table_file}"', f'data.against="{table_file}"']
    if (group, choice) == ("data", "paired"):
        return [f'data.path="{table_file}"', "data.first=1"]
    if (group, choice) == ("data", "image_folder"):
        return [f'data.path="{image_folder}"', "data.size=4"]
    if (group, choice) == ("data", "torchvision"):
        return ["data.name=MNIST", f'data.root="{image_folder}"']
    if (group, choice) == ("data", "array_streamed"):
        return [f'data.path="{table_file.with_suffix(".npy")}"']
    if (group, choice) == ("data", "image_folder_streamed"):
        return [f'data.path="{image_folder}"', "data.size=4", "workers=1"]
    if (group, choice) == ("data", "dataset"):
        return ["data.dataset=tests.interface.test_configs.rows"]
    return ["divergence.h=tests.support.user_objects.convex"] if (group, choice) == ("divergence", "f") else []


def play(overrides):
    """Train two rounds and return the rows."""
    assembly = assembly_of(compose(None, [*SHORT, *overrides]))
    return assembly.train().history


EVERY = 15


@pytest.mark.soak
@pytest.mark.parametrize("experiment", GROUPS["experiment"])
@pytest.mark.parametrize("group", [g for g in GROUPS if g not in ("experiment", "tracker")])
def test_every_choice_trains_or_is_refused_with_a_fix_that_works(experiment, group, table_file, image_folder, soak):
    """``make soak``: all pairs. ``make test``: a fifteenth, every choice with one or two experiments."""
    first = -GROUPS["experiment"].index(experiment) % EVERY
    for choice in GROUPS[group] if soak else GROUPS[group][first::EVERY]:
        swap = [
            f"experiment={experiment}",
            *(smaller(experiment, soak) if group != "data" else []),
            f"{group}={choice}",
            *extra(group, choice, table_file, image_folder, experiment),
        ]
        if choice == "torchvision":
            # An extra whose files are fetched from a network: what is absent is named, the package or the files.
            there = importlib.util.find_spec("torchvision") is not None
            with pytest.raises(DataError, match="data.download=true" if there else r"'se-framework\[images\]'"):
                play(swap)
            continue
        if choice == "biggan_128":  # is of one size, which no data here has
            with pytest.raises((ConfigError, IncompatibleError), match="multipliers|image|pixels"):
                play(swap)
            continue
        try:
            history = play(swap)
        except IncompatibleError as error:
            fixes = re.search(r": add ([^(]*)", str(error)).group(1).split()
            own = group != "model" and not any(f.startswith("model=") for f in fixes)
            fixes += ["model.shared=0"] * (experiment == "biggan" and own and "data.labels=false" in fixes)
            taken = {f.split("=")[0] for f in fixes}
            history = play([*(s for s in swap if s.split("=")[0].split(".")[0] not in taken), *fixes])
        assert [row["round"] for row in history] == [1, 2], (swap, history)
        assert all(abs(row.get("total", row.get("total_up_to_const", 0.0))) < float("inf") for row in history), swap


@pytest.mark.parametrize("experiment", GROUPS["experiment"])
def test_experiments_are_short_and_headed_by_the_equation(experiment):
    lines = (config_dir() / "experiment" / f"{experiment}.yaml").read_text().splitlines()
    assert len(lines) <= 25 and lines[0] == "# @package _global_"
    assert re.search(r"min|max", lines[1]) and re.search(r"(19|20)\d\d", " ".join(lines[2:5])), lines[:5]


def test_the_fix_for_sinkhorn_under_a_gan_is_the_documented_one():
    with pytest.raises(IncompatibleError, match="add auxiliary=data metric=none$"):
        play(["experiment=vanilla_gan", "divergence=sinkhorn"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["divergence=klx"], "divergence=klx: no such choice; did you mean 'kl'"),
        (["experiment=vanila_gan"], "experiment=vanila_gan: no such choice; did you mean 'vanilla_gan'"),
        (["divergnce=kl"], "unknown key 'divergnce': did you mean 'divergence'"),
        (["loop.roundss=3"], "unknown key 'loop.roundss': did you mean 'loop.rounds'"),
        (["+typo=3"], "unknown key 'typo'"),
        (["+loop.typo=3"], "unknown key 'loop.typo'"),
        (["loop.rounds=abc"], "loop.rounds must be a whole number, got 'abc'"),
        (["loop.rounds=2.5"], "loop.rounds must be a whole number, got 2.5"),
        (["loop.rounds=0"], "loop.rounds must be at least 1, got 0"),
        (["seed=null"], "seed must have a value, got null"),
        (["dry_run=perhaps"], "dry_run must be true or false, got 'perhaps'"),
        (["equation.alpha=nan"], "equation.alpha must be a finite number >= 0, got nan"),
        (["equation.beta=-1"], "equation.beta must be a finite number >= 0, got -1"),
        (["loop.decay=expo"], "loop.decay must be one of constant, linear, cosine, got 'expo'"),
        (["optimizer.lr=abc"], "optimizer.lr must be a number or Tensor, got 'abc'"),
        (["optimizer.lrr=1"], "unknown key 'optimizer.lrr': did you mean 'optimizer.lr'"),
        (["+optimizer.lrr=1"], "unknown key 'optimizer.lrr': did you mean 'lr'"),
        (
            ["model._target_=models.MLPGenerater"],
            r"model._target_: 'models.MLPGenerater' does not exist.*'MLPGenerator'",
        ),
        (["model._target_=modelz.Affine"], "model._target_: no module 'modelz'"),
        (["data._target_=sys.exit"], "data: SystemExit"),
        (["model.width=wide"], "model.width must be a whole number, got 'wide'"),
        (["data.path=a(b.npy"], """quote it, 'data.path="a\\(b.npy"'"""),
        (["data=array"], "data.path is missing: add data.path=VALUE"),
        (["divergence=f"], "divergence.h is missing"),
        (["divergence=f", "divergence.h=math.tau"], "divergence.h must be the dotted path of a function"),
        (["divergence=sinkhorn", "auxiliary=data", "metric=none", "divergence.blur=-1"], "divergence: .*blur"),
        (["loop.batch_size=5000"], "loop.batch_size=5000 is larger than the data: digits has 1257"),
        (["device=cuda:9"], "device=cuda:9 cannot be used here"),
        (["device=gpu"], "device=gpu cannot be used here"),
        (["allow=[lipshitz]"], "did you mean 'lipschitz'"),
        (["metric.penalty.weight=-1"], "weight >= 0"),
        (["players.theta.ema=1.5"], "players.theta.ema must lie in"),
        (["metric=none"], "needs a metric f_phi, got none: add metric=mlp"),
        (["model=null"], "model=null: no such choice"),
        (["divergence=kl,pearson"], "divergence=kl,pearson: several values are a sweep, which needs -m"),
        (
            ["data.path=x.npy"],
            "unknown key 'data.path': it belongs to data=array or array_streamed or .*, add",
        ),
        (["allow=lipschitz"], r"allow must be a list, got 'lipschitz': write allow=\[lipschitz\]"),
        (["experiment=wgan_gp", "metric.penalty.weight=0"], "needs a 1-Lipschitz metric, got an unrestricted one"),
        (["data._target_=tests.interface.test_configs.broken"], "data: RuntimeError: no luck"),
        (["seed=${nothing}"], r"seed: '\$\{nothing\}' leads nowhere \(Interpolation key 'nothing' not found\)"),
        (["~loop.decay"], "loop.decay has no value: give loop.decay=VALUE, or do not delete it"),
        (["~model"], "~model deletes a part of the equation: choose another, model=CHOICE; known: affine"),
        (["loop=3"], "loop must be a mapping of rounds, batch_size,"),
        (["plus=3"], "plus must be a mapping of names, got 3"),
        (["loop.rounds=1,2"], "loop.rounds=1,2: several values are a sweep, which needs -m"),
        (["=3"], "'=3' is not an override: write KEY=VALUE"),
        (["divergence@foo=kl"], r"divergence@foo: no choice stands at 'foo': add one by \+divergence@foo=CHOICE"),
        (["loop.batch_size=3000000000"], "loop.batch_size must be at most 2147483647"),
        (["model._target_=divergences.KL"], r"model._target_ must be a Model, got a KL \(divergences.KL\)"),
        (
            ["model._target_=tests.interface.test_configs.anything"],
            "model._target_ must be a class, got tests.interface.test_configs.any",
        ),
        (
            ["divergence._target_=tests.interface.test_configs.rows"],
            "divergence._target_ must give a Divergence, got a Tensor",
        ),
        (
            ["metric.network._target_=tests.interface.test_configs.anything"],
            "metric.network._target_ must give a Module, got a d",
        ),
        (["data._target_=builtins.dict", "~data.labels"], "data._target_: 'builtins.dict' tells no signature"),
        (["+model.event_shape=[3]"], r"model.event_shape follows from the data, got \[3\]: leave it out"),
        (["optimizer._target_=torch.optim.LBFGS", "~optimizer.betas", "~optimizer.fused"], "more than once a step"),
        (["optimizer=sgd", "optimizer.momentum=nan"], "optimizer.momentum must be a number, got nan"),
        (["model.depth=1000000000000"], "depth must be at most 1000, got 1000000000000"),
        (["device=meta"], "device=meta holds no numbers"),
        (
            ["auxiliary._target_=se_framework.equation.auxiliary.Primal", "~auxiliary.normalised"],
            "auxiliary: .*abstract class",
        ),
    ],
)
def test_bad_input_is_one_sentence_that_names_the_key(overrides, message):
    with pytest.raises((ConfigError, IncompatibleError, ValueError), match=message) as caught:
        play(overrides)
    assert "\n" not in str(caught.value)


def test_own_generator_dataset_and_network_by_target():
    network = [
        "metric.network._target_=tests.interface.test_configs.Quadratic",
        "~metric.network.width",
        "~metric.network.depth",
    ]
    own = [
        "divergence=f",
        "divergence.h=tests.support.user_objects.convex",
        "data._target_=tests.interface.test_configs.rows",
    ]
    history = play([*own, *network, "~metric.network.activation"])
    assert len(history) == 2


def anything(**options):
    """A function that takes all and gives what no part is."""
    return options


def broken():
    """A user's data that fails as user's code may."""
    raise RuntimeError("no luck")


def rows():
    """A user's Dataset of tensors."""
    return torch.utils.data.TensorDataset(torch.randn(40, 2, 3, generator=torch.Generator().manual_seed(1)))


class Quadratic(torch.nn.Module):
    """A user's network: it learns its input's size from the data."""

    def __init__(self, event_shape: tuple[int, ...]):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(torch.Size(event_shape).numel()))

    def forward(self, x):
        return (x.flatten(1).square() * self.weight).sum(1)


def test_a_data_tensor_from_python_takes_the_place_of_the_configured_one():
    from se_framework import compose as objects

    assembly = objects("wgan_gp", SHORT, data=torch.randn(64, 5))
    assembly.train()
    assert assembly.sample(7).shape == (7, 5)


def test_allowed_violations_are_kept_as_warnings():
    assembly = assembly_of(compose("wgan_gp", ["metric=mlp", "allow=[lipschitz]", *SHORT]))
    assert any("lipschitz" in w for w in assembly.state.equation.warnings)
    from se_framework.describe import describe

    assert "WARNING, allowed: lipschitz" in describe(assembly)
    view = ["divergence@players.theta.view=wasserstein1", "allow=[lipschitz,view_reads]"]
    seen = assembly_of(compose("vanilla_gan", [*view, *SHORT]))
    assert "WARNING, allowed: lipschitz: Wasserstein1" in describe(seen)


def test_a_handful_of_rows_can_be_evaluated():
    """Too few held-out rows give scores without a standard error, not a crash."""
    from se_framework.evaluation.evaluate import evaluate

    assembly = assembly_of(compose("tilted", [*SHORT, "loop.batch_size=4"]), torch.randn(20, 1))
    assembly.train()
    found = evaluate(assembly, n=100, names=("held_out_value",))["held_out_value"]
    assert found["n"] == 2 and "se" not in found and "biased upward by sampling" in found["bound"]


def test_the_description_binds_every_symbol_and_tells_a_game_from_a_saddle():
    from se_framework.describe import describe

    text = describe(assembly_of(compose("nonsaturating_gan", SHORT)))
    parts = ["min_theta max_phi min_q", "GAN()", "MLPGenerator", "MLPCritic", "R1(weight=", "Dual(", "ring8", "alpha"]
    for part in [*parts, "seen through SoftenedReverseKL()", "not a saddle of one scalar", "parameters", "Legality"]:
        assert part in text, part
    assert "not a saddle" not in describe(assembly_of(compose("vanilla_gan", SHORT)))


class TwoColumns(torch.nn.Module):
    """A network that forgot to squeeze."""

    def __init__(self, event_shape: tuple[int, ...]):
        super().__init__()
        self.layer = torch.nn.Linear(torch.Size(event_shape).numel(), 1)

    def forward(self, x):
        return self.layer(x.flatten(1))


def test_a_part_that_refuses_its_input_is_named_with_player_and_round():
    own = [
        "metric.network._target_=tests.interface.test_configs.TwoColumns",
        "~metric.network.width",
        "~metric.network.depth",
    ]
    with pytest.raises(StepError, match=r"player phi, round 0, step 0: metric.network TwoColumns returned \(16, 1\)"):
        play([*own, "~metric.network.activation", "metric.penalty=null"])
    with pytest.raises(StepError, match=r"player \w+, round \d, step \d: the generic form of convex is right for"):
        play(["experiment=fgan", "divergence=f", "divergence.h=tests.support.user_objects.convex", "data=digits",
              "metric=mlp", "optimizer.lr=1e5", "loop.rounds=3"])  # fmt: skip
