"""The typed schema of the fixed part of the configuration; values live in ``configs/config.yaml``.

A plug-in's part (a node with ``_target_``) is not typed here: its schema is its constructor's annotated signature,
checked by :func:`se_framework.config.build.build`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from se_framework.errors import ConfigError, nearest

Decay = Literal["constant", "linear", "cosine"]
Use = Literal["auto", "always", "never"]
EarlyStopping = (
    Literal[
        "auto", "nll", "w2", "sliced_w2", "modes", "high_quality", "mode_kl", "mmd", "energy", "c2st", "precision",
        "recall", "density", "coverage", "memorised", "frechet", "nearest_train", "bits_per_dim", "kl",
        "reverse_kl", "held_out_value",
    ]
    | None
)  # fmt: skip
AtLeast0 = Annotated[int, Field(ge=0)]
AtLeast1 = Annotated[int, Field(ge=1)]
MOST_MEMBERS = 4096
"""Of an ensemble: each is built, and a run's configuration may be a stranger's."""
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Text = Annotated[str, BeforeValidator(lambda v: str(v) if type(v) in (int, float) else v)]
"""A name may look like a number: run directories of a sweep do."""


class Section(BaseModel):
    """A mapping whose keys are known, and whose values are taken as they are."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


class EquationConfig(Section):
    """Weights of the equation."""

    alpha: Weight
    beta: Weight


class LoopConfig(Section):
    """How long and how often."""

    rounds: AtLeast1
    batch_size: Annotated[int, Field(ge=1, le=2**31 - 1)] | None  # torch counts in 32 bits
    log_every: AtLeast0
    checkpoint_every: AtLeast0
    picture_every: AtLeast0 = 0
    evaluate_every: AtLeast0 = 0
    keep_last: AtLeast1 = 2
    keep_best: AtLeast0 = 0
    horizon: AtLeast1 | None
    decay: Decay
    warmup: AtLeast0
    early_stop: EarlyStopping = None
    patience: AtLeast1 = 300
    validation: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2


class PlayerConfig(Section):
    """One player; null inherits."""

    steps: AtLeast0 = 1
    accumulate: AtLeast1 = 1
    lr: Weight | None = None
    decay: Decay | None = None
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    view: Any = None
    frozen: bool = False


class EnsembleConfig(Section):
    """Members that train together: seeds, or lists of values by dotted key."""

    size: Annotated[int, Field(ge=1, le=MOST_MEMBERS)] = 1
    values: Any = None


class PerformanceConfig(Section):
    """How player steps are executed; runs of before there was a choice leave it to us."""

    graphs: Use = "auto"
    compile: Use = "auto"
    precision: Literal["float32", "bf16"] = "float32"


class Config(Section):
    """The whole configuration."""

    equation: EquationConfig
    loop: LoopConfig
    players: dict[str, PlayerConfig] = {}
    model: Any = None
    metric: Any = None
    divergence: Any = None
    auxiliary: Any = None
    data: Any = None
    plus: dict[str, Any] | None = None
    callbacks: dict[str, Any] = {}
    stages: list[dict[str, Any]] = []
    optimizer: Any = None
    tracker: Any = None
    ensemble: EnsembleConfig = EnsembleConfig()
    performance: PerformanceConfig = PerformanceConfig()
    seed: int
    device: Text
    threads: Annotated[int, Field(ge=1, le=1024)] | None  # more than a machine starts
    deterministic: bool = False
    workers: AtLeast0 = 0
    dry_run: bool
    cite: bool = False
    resume: Text | None
    resume_allow: list[str] = []
    trust: Any = None
    allow: list[str]
    score: Text | None
    progress: bool


TYPES = {
    "int_type": "be a whole number", "int_from_float": "be a whole number", "int_parsing_size": "be a whole number",
    "float_type": "be a number", "bool_type": "be true or false", "string_type": "be a text", "list_type": "be a list",
    "finite_number": "be a finite number >= 0", "dict_type": "be a mapping of names",
    "model_type": "be a mapping of {names}", "greater_than_equal": "be at least {ge}",
    "less_than_equal": "be at most {le}", "less_than": "lie in [0, {lt:g})", "literal_error": "be one of {expected}",
}  # fmt: skip
"""What pydantic finds wrong, by its names for it, and what we say that a value must do."""


def validate(composed: DictConfig) -> DictConfig:
    """Return the composed configuration checked against the schema, without interpolations.

    Raises:
        ConfigError: a key that is unknown or absent, a wrong type, an interpolation that leads nowhere, or a value out
            of range; the message names the key.
    """
    try:
        plain = OmegaConf.to_container(composed, resolve=True)
    except InterpolationResolutionError as error:
        written: Any = OmegaConf.to_container(composed, resolve=False)
        for part in str(error.full_key).split("."):
            written = written.get(part) if isinstance(written, dict) else None
        reason = str(error.msg).splitlines()[0].rstrip(".")
        raise ConfigError(f"{error.full_key}: {written!r} leads nowhere ({reason}): write the value itself") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error.msg).splitlines()[0]}") from error
    try:
        return OmegaConf.create(literal(Config.model_validate(plain).model_dump()))
    except ValidationError as error:
        found = [e for e in error.errors() if e["type"] != "none_required"]
        first = min(found, key=lambda e: {"extra_forbidden": 0, "missing": 2}.get(e["type"], 1))
        raise ConfigError(_sentence(dict(first))) from error


def literal(node: Any) -> Any:
    """Return a value whose texts are taken as they are: a name that holds ``${`` is no interpolation any more."""
    if isinstance(node, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", node)
    if isinstance(node, dict):
        return {key: literal(value) for key, value in node.items()}
    return [literal(value) for value in node] if isinstance(node, (list, tuple)) else node


def _sentence(error: Mapping[str, Any]) -> str:
    """Return what is wrong with one value, in a sentence that names its key."""
    path = [str(part) for part in error["loc"]]
    key, kind, value = ".".join(path), error["type"], error["input"]
    if kind == "extra_forbidden":
        return f"unknown key {key!r}: {nearest(path[-1], fields(path[:-1]))}"
    if kind == "missing" or value == MISSING:
        return f"{key} has no value: give {key}=VALUE, or do not delete it"
    if value is None:
        return f"{key} must have a value, got null"
    limits = dict(error.get("ctx", {}))
    if "expected" in limits:
        limits["expected"] = limits["expected"].replace("'", "").replace(" or ", ", ")
    what = TYPES.get(kind, "be of another type")
    if kind == "greater_than_equal" and isinstance(limits["ge"], float):
        what = TYPES["finite_number"]
    wanted = what.format(**limits, names=", ".join(fields(path)))
    remedy = f": write {key}=[{value}]" if kind == "list_type" and isinstance(value, str) else ""
    return f"{key} must {wanted}, got {value!r}{remedy}"


def fields(path: Sequence[str], section: type[Section] = Config) -> list[str]:
    """Return the keys that the schema knows below a key, given in parts; none where it is no section."""
    if not path:
        return list(section.model_fields)
    field = section.model_fields.get(path[0])
    hint = None if field is None else field.annotation
    inner = [o for o in (hint, *get_args(hint)) if isinstance(o, type) and issubclass(o, Section)]
    named = 1 if inner == [hint] else 2  # a section, or sections by name
    return fields(path[named:], inner[0]) if inner and len(path) >= named else []
