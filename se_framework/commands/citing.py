"""What a run is made of, as BibTeX: the text that ``cite=true`` prints.

A part says where it comes from in ``sources``: keys of ``references.bib``, or whole entries. An empty tuple says that
there is nothing to cite.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from se_framework.assembly import Assembly, EnsembleAssembly
from se_framework.config.states import state_of
from se_framework.equation.terms import OWN
from se_framework.evaluation.evaluate import shown
from se_framework.evaluation.scores import ALL, lacks

FILE = Path(__file__).with_name("references.bib")
OF_TORCH = {
    "torch.optim.SGD": ("robbins1951stochastic",), "torch.optim.Adam": ("kingma2015adam",),
    "torch.optim.AdamW": ("loshchilov2019decoupled",), "torch.optim.RMSprop": ("tieleman2012rmsprop",),
}  # fmt: skip
"""Classes of ``torch.optim``, which cannot say so themselves."""


@cache
def references() -> dict[str, str]:
    """Return the entries of ``references.bib`` by their keys."""
    entries = re.findall(r"^@\w+\{.*?^\}$", FILE.read_text(encoding="utf-8"), flags=re.M | re.S)
    return {_key(entry): entry for entry in entries}


def _key(source: str) -> str:
    """Return the key of an entry; a key is one already."""
    entry = re.match(r"\s*@\w+\s*\{\s*([^,\s]+)\s*,", source)
    return entry[1] if entry else source


def cited(assembly: Assembly) -> str:
    """Return the entries of exactly the parts that a run uses, and in comments which part asks for which.

    Of a run with stages, those of all stages; of an ensemble, those of its first member: all have the same parts.
    """
    if isinstance(assembly, EnsembleAssembly):
        return cited(assembly.members[0])
    entries: dict[str, str] = {}
    lines, without = dict[str, None](), dict[str, None]()
    for key, part in parts_of(assembly):
        own = sources_of(part)
        if own is None:
            without[f"{key} ({type(part).__name__})"] = None
        elif own:
            lines[f"% {key}: {', '.join(map(_key, own))}"] = None
            entries |= {
                _key(source): source.strip() if source != _key(source) else references()[source] for source in own
            }
    told = [*lines, *([f"% without a source: {', '.join(without)}"] if without else [])]
    return "\n\n".join(["\n".join(told), *entries.values()])


def sources_of(part: Any) -> tuple[str, ...] | None:
    """Return what a part says of its sources, None where it says nothing."""
    kind = type(part)
    declared = getattr(part, "sources", OF_TORCH.get(f"{kind.__module__.rpartition('.')[0]}.{kind.__name__}"))
    texts = isinstance(declared, tuple) and all(isinstance(source, str) for source in declared)
    return declared if texts else None


def parts_of(assembly: Assembly) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a run by their keys in the configuration: equation, objects, data, scores."""
    stages = [(assembly.state, assembly.data)]
    if assembly.course is not None:
        plan = zip(assembly.course.stages, assembly.course.parts, strict=True)
        stages = [(state_of(config, parts, fresh=False, own=None)[0], parts.data) for config, parts in plan]
    for state, data in stages:
        yield "equation", state.equation
        yield "model", state.equation.model
        for name, own in state.equation.equations():
            for group, part in (("divergence", own.divergence), ("auxiliary", own.auxiliary), ("metric", own.metric)):
                yield from _nested(group if name == OWN else f"plus.{name}.{group}", part)
        yield "data", data
        for player in state.players:
            yield "optimizer", player.optimizer
            yield from _nested(f"players.{player.name}.view", player.view)
        density = state.equation.model.has_log_prob
        for score in ALL:
            if score.name in shown(assembly) and not lacks(data, density, score.name):
                yield f"score {score.name}", score


def _nested(key: str, part: nn.Module | None) -> Iterator[tuple[str, Any]]:
    """Yield a part, and what it is made of: the network and the penalty of a metric, what a divergence borrows from."""
    if part is not None:
        yield key, part
        for name, inner in part.named_children():
            if name in ("network", "penalty") or sources_of(inner) is not None:
                yield f"{key}.{name}", inner
