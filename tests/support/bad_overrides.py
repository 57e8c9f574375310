"""Bad overrides and flags, drawn from the space that the shipped configuration and the constructors span."""

from __future__ import annotations

from functools import cache

import numpy as np
import yaml
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from divergences.absent import Absent
from se_framework.config.build import build, locate
from se_framework.config.composing import compose_all, config_dir
from se_framework.config.refusals import keys_of
from tests.support.bad_input import SHORT, Case
from tests.support.bad_values import GROUPS, NEEDS, PARTS, parameters, part_values, root_values

letters = st.sampled_from("abcxyzABC_0é中 ß😀-")


@st.composite
def mutated(draw, names, known):
    """A name that is nearly one of these and none of those."""
    name = draw(st.sampled_from(sorted(names)))
    for _ in range(draw(st.integers(1, 2))):
        at, letter = draw(st.integers(0, len(name) - 1)), draw(letters)
        head, here, tail = name[:at], name[at], name[at + 1 :]
        ways = [head + letter + here + tail, head + tail, head + here.swapcase() + tail, head + here + here + tail,
                head + tail[:1] + here + tail[1:], letter + name, name + letter, name[: at + 1]]  # fmt: skip
        name = draw(st.sampled_from(ways)) or name
    # A dot more or less may lead to a key that exists, and a name of spaces is another mistake.
    fine = (
        name.strip(" .") == name and ".." not in name and name not in known and name.lower() not in map(str.lower, ())
    )
    return name if fine and name not in known else f"{name.strip(' .')}zz".replace("..", ".")


@st.composite
def unknown_keys(draw):
    known = known_key_set()
    key = draw(mutated(known - {"hydra"}, known))
    group, _, leaf = key.partition(".")
    if group in PARTS and (leaf.partition(".")[0] in parameters(group) or not leaf):
        key = f"{key}.zz"
    prefix = draw(st.sampled_from(["", "+", "++", "~", "+++"]))
    # What is unknown is the key, or the first part of it that does not exist.
    if key.startswith("-"):  # a flag, and a case of those
        key = "zz" + key.strip("-")
    parts = key.split(".")
    missing = next((n for n in range(1, len(parts)) if ".".join(parts[:n]) not in known), len(parts))
    first = ".".join(parts[:missing])
    names = (key, first, ascii(first)[1:-1], ascii(key)[1:-1])
    return Case("unknown key", (*SHORT, prefix + key + ("" if prefix == "~" else "=1")), names)


@cache
def known_key_set():
    plain = OmegaConf.to_container(compose_all(["experiment=digits"]), resolve=False)
    return frozenset([*GROUPS, *(key for key in keys_of(plain) if not key.startswith("hydra."))])


@st.composite
def unknown_choices(draw):
    group = draw(st.sampled_from(sorted(GROUPS)))
    known = GROUPS[group]
    if draw(st.booleans()):
        choice = draw(mutated(known, known)).strip()
        value = draw(st.sampled_from(['"{}"', "'{}'", '["{}"]'])).format(choice)
    else:
        value = draw(
            st.sampled_from(["null", "true", "3", "1.5", "nan", "''", "[]x", "[3]", "None", "-1", "../kl", "kl/"])
        )
    return Case("unknown choice", (*SHORT, f"{group}={value}"), (group,))


def value_case(family, group, choice, key, value):
    leaf = key.rpartition(".")[2]
    data = () if group == "data" or any(n.startswith("data=") for n in NEEDS.get(choice, ())) else ("data=ring8",)
    arguments = (*SHORT, *data, f"{group}={choice}", *NEEDS.get(choice, ()), f"{key}={value}")
    # What a constructor refuses is named by the group and says the argument's name, or that of its part.
    owner = key.rpartition(".")[0]
    return Case(
        family,
        arguments,
        (key, f"{group}: ", f"{owner}: ", f"{owner} "),
        write_rows if "here" in str(arguments) else None,
        leaf,
    )


def write_rows(here, run):
    """A table for data=array and images for data=image_folder, with nothing wrong in them but the value."""
    (here / "rows.csv").write_text("1,2\n3,4\n5,6\n7,8\n" * 8)
    np.save(here / "rows.npy", np.arange(64.0).reshape(32, 2))
    (here / "images").mkdir()
    for i in range(4):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(here / "images" / f"{i}.png")


root = st.sampled_from(root_values()).map(
    lambda kv: Case("value", (*SHORT, "data=ring8", f"{kv[0]}={kv[1]}"), (kv[0], kv[0].partition(".")[0] + "."))
)
part = st.sampled_from(part_values()).map(lambda row: value_case("value of a part", *row))

SCALARS = [
    "loop.rounds",
    "seed",
    "model.width",
    "divergence",
    "optimizer.lr",
    "equation.alpha",
    "data.labels",
    "device",
]
BROKEN = ["'abc", '"abc', "[1", "{a:1", "(", ")", "]", "}", "a=b", "=", "${", "${nope", "a:b:", "{a}{b}", "f(", "f(1",
          "choice(", "sort(3", "[1,,2]", "{:}", "a\tb{", "\\", "'a'b'", "a,b", "1,2", "range(1,3)", "choice(1,2)",
          "interval(0,1)", "glob(*)", "tag(a,choice(1,2))", "shuffle(1,2)", "${nothing}", "${oc.env:SE_NOT_SET}",
          "${nope:1}", "${.nope}", "${..}", "${seed.x}", "${oc.decode:[}", "${oc.select}", "${model.nope}", "\u00e9{",
          "a\x00b", "a\x1fb{"]  # fmt: skip
LINES = ["", "=", "=3", "+", "++", "~", "+=1", "~=1", "a b=1", "a b", "loop.rounds", "model", "[a]=1", "{a}=1",
"'seed'=1",
         "${seed}=1", ".=1", "..=1", "seed.=1", ".seed=1", "loop..rounds=1", "@=1", "@seed=1", "seed@=1",
         "divergence@=kl",
         "divergence@:foo=kl", "divergence@foo=kl", "divergence@a@b=kl", "model@metric=mlp_generator",
         "+divergence@foo=kl",
         "a/b=1", "/=1", "model/=affine", "/model=zz", "hydra/launcher=3", "hydra/nope=1",
         "hydra/job_logging=nope", "=model", "seed==1", "é=1", "中=1", "😀=1", "seed\x00=1", "- seed=1",
         "seed :1"]  # fmt: skip


@st.composite
def broken_grammar(draw):
    if draw(st.booleans()):
        key, value = draw(st.sampled_from(SCALARS)), draw(st.sampled_from(BROKEN))
        if draw(st.booleans()):
            value = draw(st.sampled_from(["", "a", "1 "])) + value
        prefix = draw(st.sampled_from(["", "++"]))
        return Case("grammar", (*SHORT, f"{prefix}{key}={value}"), (key,))
    line = draw(st.sampled_from(LINES))
    names = (
        line.partition("=")[0].strip("+~") or "''",
        repr(line),
        line.partition("=")[0].strip("+~").partition("@")[0] or "''",
    )
    if line.startswith("+divergence@foo"):
        names = ("'foo'",)
    return Case("grammar", (*SHORT, line), names)


def of_hydra():
    # hydra.verbose, hydra.launcher, hydra.output_subdir take any text, and hydra.run.dir='' is the working directory.
    rows = [
        ("hydra.run.dir", v)
        for v in (
            "/proc/se/x",
            "/dev/null",
            "/dev/null/x",
            "{here}/file",
            "{here}/file/x",
            "null",
            "[1]",
            "{{a:1}}",
            "${{nope}}",
            "${{hydra.nope}}",
            "${{oc.env:SE_NOT_SET}}",
            "a" * 300,
            "x/" + "b" * 300,
        )
    ]
    rows += [("hydra.job.num", "x"), ("hydra.job.chdir", "x"), ("hydra.mode", "x"), ("hydra.searchpath", "3"),
             ("hydra.searchpath", "[nope]"), ("hydra.searchpath", "[{here}/nope]"), ("hydra.searchpath", "[3]"),
             ("hydra.run.dirr", "x"), ("hydra.Run.dir", "x"), ("hydra", "x"), ("hydra.run", "x"),
             ("hydra.run", "[1]"), ("hydra/launcher", "nope"), ("hydra/job_logging", "3"), ("~hydra.run.dir", ""),
             ("hydra.job.env_set", "3"), ("hydra.sweep.dirr", "x"), ("hydra.callbacks", "3")]  # fmt: skip
    for key, value in rows:
        text = f"{key}={value}".replace("{{", "{").replace("}}", "}") if value or "~" not in key else key
        plain = key.lstrip("+~")
        yield Case(
            "hydra", (*(s for s in SHORT), text), (plain,), lambda here, run: (here / "file").write_text("x") and None
        )


FLAGS = {"-c": "--config", "-p": "--package"}
"""Names by which messages call short flags."""


def of_flags():
    rows = [["--nope"], ["-x"], ["--cfg"], ["--cfg", "nope"], ["--info", "nope"], ["--multirun=3"], ["--config-dir"],
            ["--config-dir", ""], ["--config-dir="], ["--config-dir", "{here}/nope"], ["--config-dir", "/dev/null"],
            ["-cd", "seed=1"], ["--config-dir", "/dev/zero"], ["--config-name", "nope"], ["--config-name=/etc/passwd"],
            ["-cn", "config"], ["--config-path", "/nope"], ["-cp", "."], ["--experimental-rerun", "nope"],
            ["--resolve"],
            ["--package", "model"], ["-pmodel"],
            ["--run", "--cfg", "job"], ["--run", "--multirun"], ["-m", "--info"], ["--package"],
            ["--hydra-helpp"]]  # fmt: skip
    for flags in rows[:-2] + rows[-1:]:
        # After the overrides: a flag at the end lacks its value.
        yield Case("flags", (*SHORT, *flags), (FLAGS.get(flags[0][:2], flags[0]).partition("=")[0], *flags[1:2]))
    for bad, name in (("divergence=klx", "divergence"), ("seed={", "seed"), ("=", "'='"), ("modell=affine", "modell")):
        for flags in (["--cfg", "job"], ["--help"], ["--hydra-help"], ["--info"]):
            yield Case("flags", (bad, *flags), (name,))
    for bad, name in (
        ("divergence=klx,kl", "divergence"),
        ("seed={", "seed"),
        ("resume=a,b", "resume"),
        ("resume=nope", "resume"),
        ("model=affine,null", "model"),
        ("~model", "model"),
        ("=1,2", "'=1,2'"),
        ("experiment=a", "experiment"),
    ):
        yield Case("sweep", ("-m", *SHORT, bad), (name,))


def of_resume():
    for value in (
        "nope",
        "''",
        "",
        "[1]",
        "{a:1}",
        "true",
        "3",
        "/dev/null",
        "/",
        "/proc",
        "a" * 300,
        "a" * 5000,
        "..",
        "{here}",
        "{here}/file",
        "{here}/file/x",
        "~",
        '"~nosuchuser/x"',
        "é",
        '"a b"',
        "{here}/empty",
    ):
        yield Case("resume", (*SHORT, f"resume={value}"), ("resume",), folder_without_run)  # fmt: skip
    for bad in ("seed=3", "divergence=kl", "model.width=7", "loop.batch_size=64", "experiment=fgan", "data=moons"):
        yield Case("resume", ("resume={run}", bad), (bad.partition("=")[0], "would change the run ("))


def folder_without_run(here, run):
    (here / "file").write_text("x")
    (here / "empty").mkdir()


def of_deletion():
    for key in (
        "model",
        "divergence",
        "auxiliary",
        "data",
        "metric",
        "optimizer",
        "loop",
        "equation",
        "players",
        "seed",
        "device",
        "threads",
        "progress",
        "allow",
        "resume",
        "score",
        "loop.rounds",
        "loop.decay",
        "equation.alpha",
        "players.theta",
        "players.phi.ema",
        "nothing",
        "loop.nothing",
        "experiment",
        "hydra",
        "plus.nothing",
        "model._target_",
        "data._target_",
        "divergence._target_",
        "optimizer._target_",
        "metric._target_",
        "metric.network",
        "auxiliary._target_",
        "model=nope",
        "seed=3",
        "metric.network._target_",
    ):
        bare = [s for s in SHORT if not s.startswith(key.partition("=")[0] + "=")]  # fmt: skip
        yield Case("deletion", (*bare, f"~{key}"), (key.partition("=")[0], key.partition(".")[0]))


TARGETS = {
    "model": ["divergences.KL", "models.MLPCritic", "models.base.Model", "torch.nn.Module", "torch.nn.Linear"],
    "divergence": ["models.MLPGenerator", "se_framework.equation.auxiliary.Dual", "divergences.base.Divergence",
    "models.Affine"],
    "auxiliary": ["divergences.KL", "se_framework.equation.auxiliary.Auxiliary", "se_framework.equation.auxiliary.Primal",  # noqa: E501
    "models.MLPCritic"],
    "metric": ["divergences.KL", "models.MLPCritic", "se_framework.equation.penalties.R1"],
    "metric.network": ["torch.optim.Adam", "torch.nn.Module", "se_framework.data.Ring8", "models.MLPGenerator",
    "divergences.KL"],
    "metric.penalty": ["models.MLPCritic", "divergences.KL", "se_framework.equation.penalties.Penalty"],
    "optimizer": ["torch.optim.Optimizer", "torch.optim.LBFGS", "torch.optim.lr_scheduler.StepLR", "divergences.KL"],
    "data": ["divergences.KL", "se_framework.data.Data", "se_framework.data.Sampler", "torch.utils.data.Dataset"],
}  # fmt: skip
NONSENSE = ["", "null", "1", "[a]", "{a:1}", "models", "models.", ".models", "..", "models..KL", "models.Nope",
"nope.Nope",
            "os", "torch", "builtins.dict", "builtins.int", "builtins.object", "math.pi", "json.tool.nope", "a b.c",
            "é.é",
            "divergences.kl", "divergence.KL", "models.MLPGenerator.nope", "__main__.nope", "models.__name__",
            "1.2.3"]  # fmt: skip


def of_targets():
    for key, wrong in TARGETS.items():
        extra = ("~auxiliary.normalised",) if key == "auxiliary" else ("~data.labels",) if key == "data" else ()
        for target in (*wrong, *NONSENSE):
            if '"' not in target and " " in target or "é" in target:
                target = f'"{target}"'
            yield Case("_target_", (*SHORT, *extra, f"{key}._target_={target}"), (key,))


def of_combinations():
    """Illegal equations: what the parts declare says that they do not go together."""

    def refused(*overrides):
        return Case("combination", (*SHORT, "data=ring8", *overrides), (": add ",))

    for choice in GROUPS["divergence"]:
        node = yaml.safe_load((config_dir() / "divergence" / f"{choice}.yaml").read_text())
        need = NEEDS.get(choice, ())
        # Renyi's dual depends on its order.
        cls = locate(node["_target_"], choice) if need else build(node, choice) if node else Absent()
        if cls.has_dual is False:
            yield refused(f"divergence={choice}", *need, "auxiliary=dual")
            yield refused(f"divergence={choice}", *need, "auxiliary=dual_probability")
        if not cls.has_ground_cost:
            yield refused(f"divergence={choice}", *need, "auxiliary=transported")
        if cls.primal_needs is None:
            yield refused(f"divergence={choice}", *need, "auxiliary=data", "metric=none")
        yield refused(f"divergence={choice}", *need, "equation.beta=0")
        yield refused(f"divergence={choice}", *need, "metric=none")
        yield refused(f"divergence={choice}", *need, "equation.alpha=0.5", "auxiliary=dual")
    for metric in GROUPS["metric"]:
        if metric != "none":
            yield refused(f"metric={metric}", "auxiliary=data", "divergence=cross_entropy", "model=affine")
        if "embedding" in metric or metric in ("projection", "conv", "conv_r1"):
            yield refused(f"metric={metric}", "auxiliary=dual")
    for model in ("mlp_generator", "mlp_generator_wide", "conv_generator"):
        yield refused(f"model={model}", "divergence=cross_entropy", "auxiliary=data", "metric=none")
    yield refused("model=realnvp", "data=gaussian_mixture_1d")
    yield refused("data=digits", "data.labels=true", "divergence=sinkhorn", "auxiliary=data", "metric=none")
    yield refused("divergence=wasserstein1", "metric=mlp")
    yield refused("divergence@players.theta.view=kl", "divergence=mmd", "auxiliary=data", "metric=none")
    yield refused("+divergence@plus.a.divergence=mmd", "+auxiliary@plus.a.auxiliary=dual", "+plus.a.weight=1")
    yield refused("+divergence@plus.a.divergence=kl")


overrides = st.one_of(
    unknown_keys(), unknown_choices(), root, part, part, broken_grammar(),
    st.sampled_from(list(of_hydra()) + list(of_resume()) + list(of_deletion()) + list(of_flags())),
    st.sampled_from(list(of_targets())), st.sampled_from(list(of_combinations())),
)  # fmt: skip
