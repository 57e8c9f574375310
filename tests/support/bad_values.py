"""Which keys there are, of which type, and which values none of them takes: from the schema and the constructors."""

from __future__ import annotations

import inspect
import typing
from functools import cache, reduce
from operator import or_
from types import UnionType

import yaml

from se_framework.config.build import locate
from se_framework.config.composing import config_dir, groups
from se_framework.config.schema import Config, Section
from se_framework.equation.roles import NAMES

GROUPS = groups([config_dir()])
PARTS = [g for g in GROUPS if g not in ("experiment", "tracker")]
# What a choice asks of its user before anything else can be wrong with it. Images where the part is for images.
NEEDS = {
    "f": ("divergence.h=tests.support.user_objects.convex",), "array": ("data.path={here}/rows.csv",),
    "image_folder": ("data.path={here}/images",), "torchvision": ("data.name=MNIST", "data.root={here}"),
    "image_folder_streamed": ("data.path={here}/images",), "array_streamed": ("data.path={here}/rows.npy",),
    "dataset": ("data.dataset=tests.support.datasets.Plain",),
    "sliced_wasserstein": ("auxiliary=data", "metric=none"),
    **{name: ("auxiliary=embedded", "divergence=mmd") for name in ("embedding", "embedding_bounded", "projection")},
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


def bare(hint):
    """Return an annotation without its bounds, and whole numbers beyond them."""
    if typing.get_origin(hint) is UnionType:
        options, beyond = zip(*map(bare, typing.get_args(hint)), strict=True)
        return reduce(or_, options), sum(beyond, ())
    if typing.get_origin(hint) is not typing.Annotated:
        return hint, ()
    plain, *marks = typing.get_args(hint)
    bounds = [bound for mark in marks for bound in getattr(mark, "metadata", ())]
    least = [v for bound in bounds if hasattr(bound, "ge") for v in (bound.ge - 1, -HUGE)]
    most = [v for bound in bounds if hasattr(bound, "le") for v in (bound.le + 1, 10**30)]
    return plain, (*least, *most)


@cache
def root_values():
    """Return (key, bad values) for every key of the schema that is no plug-in's."""
    found = []

    def walk(cls, prefix):
        for name, hint in typing.get_type_hints(cls, include_extras=True).items():
            key, (hint, limits) = prefix + name, bare(hint)
            if name == "model_config":
                continue
            if inspect.isclass(hint) and issubclass(hint, Section):
                walk(hint, f"{key}.")
                found.append((key, ("3", "abc", "[1]", "null", "{zz:1}")))
            elif key == "players":  # a section by name
                found.append((key, ("3", "abc", "[1]", "null", "{zz:1}")))
                for own in NAMES:
                    found.append((f"{key}.{own}", ("3", "abc", "[1]", "null", "{zz:1}")))
                    walk(typing.get_args(hint)[1], f"{key}.{own}.")
            elif scalar(hint)[0] in WRONG:
                kind, optional = scalar(hint)
                bad = [w for w in WRONG[kind] if not (key == "resume" and w == "''")]
                found.append((key, tuple(bad) + (() if optional else ("null",))))
                if kind is int:
                    found.append((key, limits))

    walk(Config, "")
    tables = []
    tables += [(k, ("-1", "-inf", "inf", "-1e-300")) for k in ("equation.alpha", "equation.beta", "players.theta.lr")]
    tables += [(k, ("expo", "Linear", "''", "3")) for k in ("loop.decay", "players.theta.decay", "players.phi.decay")]
    tables += [(f"players.{p}.ema", (1, 1.5, -0.1, "inf")) for p in NAMES]
    tables += [("score", ("w3", "''", "W2")), ("allow", ("[x]", "[3]", "[lipshitz]", "[[lipschitz]]"))]
    tables += [("device", ("gpu", "cuda:99", "meta", "cpu:x", "''", '"a b"', '"cpu\\nx"', "hpu", "CPU"))]
    tables += [(f"performance.{k}", ("yes", "Auto", "true", "''", "fp16")) for k in ("graphs", "compile", "precision")]
    tables += [("plus", ("3", "abc", "[1]", "{a:1}", "{a:{}}", "{a:{weight:1}}", "{a:{wait:1}}", "{1:2}", "true"))]
    tables += [(f"players.{p}.view", ("3", "abc", "{a:1}", "[1]")) for p in NAMES]
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
