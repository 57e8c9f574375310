"""All that is random in a step, drawn outside of it and for the whole batch: the data, and what each part draws.

What is drawn is one flat mapping of tensors by name (``x``, ``context``, ``model/noise``, ``penalty/own/mix``, ...), so
a step is a function of it and of the weights alone: evaluated as it stands, compiled, captured, or for many at once.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from models.laws import Particles
from se_framework.data import Data
from se_framework.equation.equation import StandardEquation
from se_framework.randomness import Stream, seed_global

Draws = dict[str, Tensor]


def like(equation: StandardEquation) -> Tensor:
    """Return a tensor of the type and on the device in which an equation computes."""
    tensors = chain(equation.parameters(), equation.buffers())
    return next((t for t in tensors if t.is_floating_point()), torch.empty(0))


def draw_batch(data: Data, start: int, n: int, seed: int, equation: StandardEquation) -> Particles:
    """Return n examples of the data from the start-th on as particles, as the model sees them, in its type."""
    kind = like(equation)
    return equation.model.seen(in_type(data.batch(start, n, seed, kind.device), equation, kind))


def seen_by_members(batch: Particles, members: Sequence[StandardEquation]) -> Particles:
    """Return a batch of every member, stacked, as each member's model sees its own."""
    own = batch.x.unbind()
    seen = [member.model.seen(Particles(x)).x for member, x in zip(members, own, strict=True)]
    return batch if all(map(operator.is_, own, seen)) else replace(batch, x=torch.stack(seen))


def in_type(batch: Particles, equation: StandardEquation, kind: Tensor) -> Particles:
    """Return particles in the type that the model computes in; integers stay so for a model that reads them."""
    x = batch.x if equation.model.discrete and not batch.x.is_floating_point() else batch.x.to(kind.dtype)
    return Particles(x.to(kind.device), context=None if batch.context is None else batch.context.to(kind.device))


def step_stream(seed: int, round_index: int, name: str, k: int, x: Tensor) -> Stream:
    """Return the stream of step k of a player; numbers are drawn in the type of x, on its device."""
    dtype = x.dtype if x.is_floating_point() else None
    return Stream(seed, round_index, f"{name}/{k}", x.device, dtype)


def draw_step(equation: StandardEquation, due: Sequence[str], batch: Particles, stream: Stream) -> Draws:
    """Return what a step depends on besides the weights.

    Networks that draw on torch's own generators (dropout) are functions of the step as well: those are seeded here.

    Args:
        equation: whose parts draw.
        due: summands whose metric's penalty is due.
        batch: particles of p_d.
        stream: of the step.
    """
    n = len(batch.x)
    seed_global(stream.seed, stream.position, f"{stream.name}/global", batch.x.device)
    found: Draws = {"x": batch.x}
    if batch.context is not None:
        found["context"] = batch.context
    found |= equation.draws(n, stream, batch.context)
    if due:
        metrics = equation.metrics()
        for name in due:
            penalty = metrics[name].penalty
            found |= {f"penalty/{name}/{k}": v for k, v in (penalty.draws(n, stream) if penalty else {}).items()}
    return found


def data_of(draws: Draws) -> Particles:
    """Return the particles of p_d that were drawn."""
    return Particles(draws["x"], context=draws.get("context"))
