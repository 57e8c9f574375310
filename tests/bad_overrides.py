"""Bad overrides and flags, drawn from the space that the shipped configuration and the constructors span."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from functools import cache

import numpy as np
import yaml
from hypothesis import strategies as st

from se_framework.build import build, locate
from se_framework.composing import config_dir, groups
from se_framework.refusals import known_keys
from se_framework.schema import AT_LEAST, AT_MOST, Config
from tests.bad_input import SHORT, Case

GROUPS = groups([config_dir()])
PARTS = [g for g in GROUPS if g != "experiment"]
# What a choice asks of its user before anything else can be wrong with it. Images where the part is for images.
NEEDS = {
    "f": ("divergence.h=tests.test_configs.convex",), "array": ("data.path={here}/rows.csv",),
    "image_folder": ("data.path={here}",), "image_folder_streamed": ("data.path={here}",),
    "array_streamed": ("data.path={here}/rows.npy",), "dataset": ("data.dataset=tests.test_streaming.Plain",),
    "torchvision": ("data.name=MNIST", "data.root={here}"),
    "conv": ("data=digits",), "conv_r1": ("data=digits",), "conv_generator": ("data=digits",),
}  # fmt: skip
HUGE = 10**12  # of anything: 8 terabytes, and more layers than a lifetime builds
WIDTHS, INFINITE = (0, -1, HUGE), ("inf", "-inf", "1e400")
POSITIVE = (0, -1, -1e-300, *INFINITE)
OUT_OF_RANGE: dict[str, tuple] = {
    "width": WIDTHS, "latent_dim": WIDTHS, "components": WIDTHS, "outputs": WIDTHS, "directions": WIDTHS,
    "size": WIDTHS, "depth": (-1, HUGE, 10**30), "couplings": (0, 1, -1, HUGE), "bins": (1, 0, -1, 10**6),
    "bound": POSITIVE, "init_scale": POSITIVE, "min_scale": (*POSITIVE, 100.0), "every": (0, -1), "blur": POSITIVE,
    "scaling": (0, 1, -1, 1.5, "inf"), "reach": (0, -1), "p": (0, 3, -1, 1.5), "ridge": (-1, "inf"),
    "bandwidths": ("[]", "[0]", "[-1]", "[inf]", "[1,x]", "[nan]", 3), "max_iterations": (0, -1, 10**30),
    "steps": (-1, HUGE), "step_size": POSITIVE, "lr": (-1, *INFINITE), "momentum": (-1,), "weight_decay": (-1,),
    "betas": ("[0.9]", "[2,0.9]", "[-1,0.9]", "[0.9,1.0]", "[0.1,0.2,0.3]", "[]", "[nan,nan]"), "clip": POSITIVE,
    "value_at_identity": (1.0, "inf"), "noise": POSITIVE, "held_out_fraction": (0, 1, -1, 2, "inf"),
    "order": INFINITE, "kernel": ("x",), "sides": ("three",), "row": ("x", "Hinge"), "activation": ("x", "ReLU"),
    "support": ("x",), "backend": ("x",), "output": ("x",), "weight": (-1, "inf"),
}  # fmt: skip
"""Values out of range by the last part of their key, whatever the choice. Any seed and any finite order of alpha are
legal; so are a declared supremum, a momentum beyond one, and endless rounds: the user may mean them."""
ALSO_OUT_OF_RANGE = {
    "renyi": {"order": (0, -1, 31)},
    "alpha": {"order": (31, -31)},
    "weighted_js": {"weight": (0, 1, 2)},
}
NO_RANGE = ("seed", "supremum", "path", "key", "labels", "name", "root", "h")
"""Keys whose values are all of their type, or looked up elsewhere."""
WRONG = {
    int: ("abc", "1.5", "true", "[1]", "{a:1}", "nan", "inf", "-inf", "1e400", "''", "1e2"),
    float: ("abc", "true", "[1.0]", "{a:1}", "nan", "''"), bool: ("abc", "[true]", "{a:1}", "nan", "''", "7.5"),
    str: ("[a]", "{a:1}"), list: ("abc", "3", "{a:1}", "true"),
}  # fmt: skip
"""Texts that are no value of a type. (OmegaConf reads 1e2 and 1 as numbers, 1 as true, and any scalar as a text.)"""
letters = st.sampled_from("abcxyzABC_0é中 ß😀-")


@cache
def keys_of_choices():
    """Return (group, choice, key, annotation) for every value of every choice."""
    found = []
    for group in PARTS:
        for choice in GROUPS[group]:
            node = yaml.safe_load((config_dir() / group / f"{choice}.yaml").read_text()) or {}
            found += [(group, choice, f"{group}.{key}", hint) for key, hint in leaves(node)]
    return found


def leaves(node, prefix=""):
    """Return (key, annotation) of the values of a node with ``_target_``, nested ones included."""
    target = locate(node["_target_"], prefix) if "_target_" in node else None
    hints = typing.get_type_hints(target.__init__) if inspect.isclass(target) and not torch_class(target) else {}
    found = []
    for key, value in node.items():
        if isinstance(value, dict):
            found += leaves(value, f"{prefix}{key}.")
        elif key != "_target_":
            found.append((prefix + key, hints.get(key)))
    return found


def torch_class(target):
    return target.__module__.startswith("torch.")  # unions with Tensor: their ranges are in the table above


@cache
def parameters(group):
    """Return every parameter that a class of a group takes: a new key of that name may be legal."""
    found = set()
    for choice in GROUPS[group]:
        text = (config_dir() / group / f"{choice}.yaml").read_text()
        for line in text.splitlines():
            if "_target_: " in line:
                found |= set(inspect.signature(locate(line.partition("_target_: ")[2].split()[0], group)).parameters)
    return found


def scalar(hint):
    """Return the plain type of an annotation, and whether null fits."""
    options = typing.get_args(hint) if typing.get_origin(hint) not in (tuple, list, typing.Literal) else ()
    plain = [o for o in options if o is not type(None)]
    hint = plain[0] if len(plain) == 1 else hint
    return (list if typing.get_origin(hint) in (list, tuple) else hint), type(None) in options


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
    first = key.split(".")[0]
    names = (key, first, ascii(first)[1:-1], ascii(key)[1:-1], repr(prefix + key)[1:-1])
    return Case("unknown key", (*SHORT, prefix + key + ("" if prefix == "~" else "=1")), names)


@cache
def known_key_set():
    return frozenset(known_keys())


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


@cache
def root_values():
    """Return (key, bad values) for every key of the schema that is no plug-in's."""
    found = []

    def walk(cls, prefix):
        for name, hint in typing.get_type_hints(cls).items():
            key = prefix + name
            if dataclasses.is_dataclass(hint):
                walk(hint, f"{key}.")
                found.append((key, ("3", "abc", "[1]", "null", "{zz:1}")))
            elif hint is not typing.Any:
                kind, optional = scalar(hint)
                bad = [w for w in WRONG[kind] if not (key == "resume" and w == "''")]
                found.append((key, tuple(bad) + (() if optional else ("null",))))

    walk(Config, "")
    tables = [(k, (least - 1, -HUGE)) for k, least in AT_LEAST.items()] + [
        (k, (m + 1, 10**30)) for k, m in AT_MOST.items()
    ]
    tables += [(k, ("-1", "-inf", "inf", "-1e-300")) for k in ("equation.alpha", "equation.beta", "players.theta.lr")]
    tables += [(k, ("expo", "Linear", "''", "3")) for k in ("loop.decay", "players.theta.decay", "players.phi.decay")]
    tables += [(f"players.{p}.ema", (1, 1.5, -0.1, "inf")) for p in ("theta", "phi")]
    tables += [("score", ("w3", "''", "W2")), ("allow", ("[x]", "[3]", "[lipshitz]", "[[lipschitz]]"))]
    tables += [("device", ("gpu", "cuda:99", "meta", "cpu:x", "''", '"a b"', '"cpu\\nx"', "hpu", "CPU"))]
    tables += [("plus", ("3", "abc", "[1]", "{a:1}", "{a:{}}", "{a:{weight:1}}", "{a:{wait:1}}", "{1:2}", "true"))]
    tables += [(f"players.{p}.view", ("3", "abc", "{a:1}", "[1]")) for p in ("theta", "phi")]
    return [(key, str(value)) for key, values in found + tables for value in values]


@cache
def part_values():
    """Return (group, choice, key, bad value) for every key of every choice of every group."""
    found = []
    for group, choice, key, hint in keys_of_choices():
        leaf = key.rpartition(".")[2]
        values = list(OUT_OF_RANGE.get(leaf, ())) + list(ALSO_OUT_OF_RANGE.get(choice, {}).get(leaf, ()))
        if choice == "sinkhorn" and leaf == "reach":
            values = [0, -1]
        kind, optional = scalar(hint) if hint is not None else (None, True)
        if kind in WRONG and leaf not in ("path", "root", "name"):
            values += [v for v in WRONG[kind] if not (kind is float and v == "1e400")]
            values += [] if optional else ["null"]
        found += [(group, choice, key, str(value)) for value in dict.fromkeys(values)]
    return found


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
    (here / "rows.csv").write_text("1,2\n3,4\n5,6\n7,8\n" * 8)
    np.save(here / "rows.npy", np.arange(64.0).reshape(32, 2))
    from PIL import Image

    for i in range(4):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(here / f"{i}.png")


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
LINES = ["", "=", "=3", "+", "++", "~", "+=1", "~=1", "a b=1", "a b", "loop.rounds", "model", "[a]=1", "{a}=1", "'seed'=1",
         "${seed}=1", ".=1", "..=1", "seed.=1", ".seed=1", "loop..rounds=1", "@=1", "@seed=1", "seed@=1", "divergence@=kl",
         "divergence@:foo=kl", "divergence@foo=kl", "divergence@a@b=kl", "model@metric=mlp_generator", "+divergence@foo=kl",
         "+divergence@loop.rounds=kl", "a/b=1", "/=1", "model/=affine", "/model=zz", "hydra/launcher=3", "hydra/nope=1",
         "hydra/job_logging=nope", "=model", "seed==1", "é=1", "中=1", "😀=1", "seed\x00=1", "- seed=1", "seed :1"]  # fmt: skip


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
    return Case("grammar", (*SHORT, line), (*names, repr(line), "loop"))


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
             ("hydra.run.dirr", "x"), ("hydra.Run.dir", "x"), ("+hydra.foo", "x"), ("hydra", "x"), ("hydra.run", "x"),
             ("hydra.run", "[1]"), ("hydra/launcher", "nope"), ("hydra/job_logging", "3"), ("~hydra.run.dir", ""),
             ("hydra.job.env_set", "3"), ("hydra.sweep.dirr", "x"), ("hydra.callbacks", "3")]  # fmt: skip
    for key, value in rows:
        text = f"{key}={value}".replace("{{", "{").replace("}}", "}") if value or "~" not in key else key
        plain = key.lstrip("+~")
        yield Case(
            "hydra", (*(s for s in SHORT), text), (plain,), lambda here, run: (here / "file").write_text("x") and None
        )


def of_flags():
    rows = [["--nope"], ["-x"], ["--cfg"], ["--cfg", "nope"], ["--info", "nope"], ["--multirun=3"], ["--config-dir"],
            ["--config-dir", ""], ["--config-dir="], ["--config-dir", "{here}/nope"], ["--config-dir", "/dev/null"],
            ["-cd", "seed=1"], ["--config-dir", "/dev/zero"], ["--config-name", "nope"], ["--config-name=/etc/passwd"],
            ["-cn", "config"], ["--config-path", "/nope"], ["-cp", "."], ["--experimental-rerun", "nope"], ["--resolve"],
            ["--run", "--cfg", "job"], ["--run", "--multirun"], ["-m", "--info"], ["--package"], ["--hydra-helpp"]]  # fmt: skip
    for flags in rows[:-2] + rows[-1:]:
        # After the overrides: a flag at the end lacks its value.
        yield Case("flags", (*SHORT, *flags), (flags[0].partition("=")[0], *flags[1:2]))
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
        yield Case("resume", ("resume={run}", bad), (bad.partition("=")[0],))


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
    "divergence": ["models.MLPGenerator", "se_framework.auxiliary.Dual", "divergences.base.Divergence", "models.Affine"],
    "auxiliary": ["divergences.KL", "se_framework.auxiliary.Auxiliary", "se_framework.auxiliary.Primal", "models.MLPCritic"],
    "metric": ["divergences.KL", "models.MLPCritic", "se_framework.penalties.R1"],
    "metric.network": ["torch.optim.Adam", "torch.nn.Module", "se_framework.data.Ring8", "models.MLPGenerator"],
    "metric.penalty": ["models.MLPCritic", "divergences.KL", "se_framework.penalties.Penalty"],
    "optimizer": ["torch.optim.Optimizer", "torch.optim.LBFGS", "torch.optim.lr_scheduler.StepLR", "divergences.KL"],
    "data": ["divergences.KL", "se_framework.data.Data", "se_framework.data.Sampler", "torch.utils.data.Dataset"],
}  # fmt: skip
NONSENSE = ["", "null", "1", "[a]", "{a:1}", "models", "models.", ".models", "..", "models..KL", "models.Nope", "nope.Nope",
            "os", "torch", "builtins.dict", "builtins.int", "builtins.object", "math.pi", "json.tool.nope", "a b.c", "é.é",
            "divergences.kl", "divergence.KL", "models.MLPGenerator.nope", "__main__.nope", "models.__name__", "1.2.3"]  # fmt: skip


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
        return Case("combination", (*SHORT, "data=ring8", *overrides), (": add ", "+"))

    for choice in GROUPS["divergence"]:
        node = yaml.safe_load((config_dir() / "divergence" / f"{choice}.yaml").read_text())
        need = NEEDS.get(choice, ())
        cls = locate(node["_target_"], choice) if need else build(node, choice)  # Renyi's dual depends on its order
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
