"""Which choices mend an equation that is not legal: those of its groups are tried against the rules."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from divergences.absent import Absent
from se_framework.config.build import build, resolve
from se_framework.config.files import config_dir, read_yaml
from se_framework.equation.legality import OF_DATA, Choice, Mend, Violation, of_data, violations
from se_framework.errors import SEError

SAID = ("divergence", "auxiliary", "metric", "model")
"""The order in which parts are named."""


def mending(made_for: Mapping[str, Any], at: str = "") -> Mend:
    """Return the function that finds the overrides for :func:`se_framework.equation.legality.check`.

    Args:
        made_for: what every constructor is told of the data.
        at: the key of a summand (``plus.NAME``), whose choices these are; empty for the equation's own.
    """
    return partial(_mended_by, dict(made_for), at)


def _mended_by(
    made_for: dict[str, Any], at: str, choice: Choice, fatal: Sequence[Violation], allow: Sequence[str]
) -> str:
    """Return the first overrides with which no rule is broken: few parts are changed, D as a last resort; and views."""
    own = _mended(made_for, at, choice, fatal, allow)
    return " ".join([own, *_fitting_views(made_for, choice, fatal)])


def _fitting_views(made_for: dict[str, Any], choice: Choice, fatal: Sequence[Violation]) -> list[str]:
    """Return, for every player whose view does not fit, the override that chooses one, and those that fit."""
    said = []
    for name in dict.fromkeys(name for v in fatal for name in v.problem.views):
        fit = [
            key
            for key, d in _choices("divergence", made_for, choice).items()
            if not list(violations(choice._replace(views={**choice.views, name: d}))) and not d.surrogate
        ]
        said += [f"(or divergence@players.{name}.view=CHOICE, one of {', '.join(sorted(fit))})"] if fit else []
    return said


def _mended(made_for: dict[str, Any], at: str, choice: Choice, fatal: Sequence[Violation], allow: Sequence[str]) -> str:
    """Return the overrides alone."""
    parts = list(dict.fromkeys(part for v in fatal for part in v.problem.parts))
    options = {part: _choices(part, made_for, choice) for part in parts}
    with_values: list[str] = []
    unfit = {part for v in fatal if v.rule in OF_DATA for part in v.problem.parts}  # no rule of an equation sees these
    for number in range(bool(parts), 2 ** len(parts)):  # in binary: the first alone, the second, both, ...
        changed = [part for bit, part in enumerate(parts) if number >> bit & 1]
        if not unfit <= set(changed):
            continue
        for names in product(*(options[part] for part in changed)):
            chosen = dict(zip(changed, names, strict=True))
            tried = choice._replace(**{part: options[part][name] for part, name in chosen.items()})
            left = [v for v in violations(tried) if v.rule not in allow]
            if any(v.problem.parts for v in left) or (left and with_values):
                continue
            values = dict.fromkeys(value for v in left for value in v.problem.values)
            found = [*(_override(part, chosen[part], at) for part in SAID if part in chosen), *values]
            if not left:
                return " ".join(found)
            with_values = found  # values may break another rule: choices alone are better
    return " ".join(with_values or dict.fromkeys(value for v in fatal for value in v.problem.values))


def _override(part: str, name: str, at: str) -> str:
    return f"+{part}@{at}.{part}={name}" if at and part != "model" else f"{part}={name}"


def _choices(part: str, made_for: dict[str, Any], choice: Choice) -> dict[str, Any]:
    """Return our choices of a group that can be built for the data: those like the chosen one first, then by use."""
    used = Counter(
        name
        for file in (config_dir() / "experiment").glob("*.yaml")
        for name in re.findall(rf"override /{part}: (\w+)", file.read_text(encoding="utf-8"))
    )
    found: dict[str, Any] = {}
    files = sorted((config_dir() / part).glob("*.yaml"), key=lambda f: (-used[f.stem], f.stat().st_size, f.stem))
    for file in files:
        try:
            found[file.stem] = _outline(part, file, made_for)
        except SEError:  # it needs what the data has not, or a value that only the user knows
            continue
    declared = {"divergence": str(choice.auxiliary.works_through), "model": "has_log_prob"}.get(part, "")
    like = getattr(getattr(choice, part), declared, None)  # a summand of the same model may need its density as well
    unlike = [name for name, other in found.items() if like and getattr(other, declared, None) != like]
    return {name: found[name] for name in sorted(found, key=unlike.__contains__)}


def _outline(part: str, file: Path, made_for: dict[str, Any]) -> Any:
    """Return what a choice declares: a class of models, and of the others an object without memory."""
    node = read_yaml(file, file.name)
    if part == "model":
        target = resolve(node, part, **made_for)[0]
        if of_data(target, None, made_for):
            raise SEError(f"{file.stem} needs what the data has not")
        return target
    with torch.device("meta") if part == "metric" else nullcontext():
        built = build(node, part, **made_for)
    return Absent() if part == "divergence" and built is None else built
