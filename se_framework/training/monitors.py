r"""Monitors: what goes wrong in silence, looked at on logging rounds; each warns once in a run, with a hint.

A monitor is a pure function of the state and its rows. What it found stands in the ``note`` of the row, so the rows are
the only memory: a resumed run knows from them what has been said, and rows that are played again say it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.laws import Particles
from se_framework.data import Data
from se_framework.equation.equation import StandardEquation
from se_framework.equation.metric import Metric
from se_framework.equation.penalties import gradient_norm_squared
from se_framework.equation.roles import Role, is_trainable
from se_framework.equation.terms import OWN
from se_framework.randomness import Stream
from se_framework.training.draws import Draws, draw_batch, like
from se_framework.training.state import TrainState

POINTS = 64
"""Samples, and examples of data, that are looked at."""
OWN_SLOPES = 8
"""Examples whose own slope is taken, one backward pass each, where a network couples its examples."""
START = 100
"""Rounds before samples and critic are judged: a generator may start as a point, a critic as a constant."""
ROWS = 5
"""Rows over which an unchanged term counts as frozen."""
SPREAD, NEIGHBOUR = 1e-2, 1e-3
"""Of the data's mean distance of two points, and of its median distance to the nearest neighbour: less is collapse."""
REACH = 1e-4
"""Of the slope that theta has where the critic reads zero: less is saturation."""
COUPLING = 0.1
"""Relative difference of an example's slope with and without the effect on the other examples' scores."""
SEPARATOR, PREFIX = " | ", "WARNING, "

Row = dict[str, Any]


class Finding(NamedTuple):
    """The name of a pathology, and its numbers with a hint."""

    name: str
    text: str


def watch(state: TrainState, data: Data, row: Row) -> list[str]:
    """Return what the monitors newly find in this round, and add it to the note of the row.

    A monitor that cannot look (a network that takes whole batches only) says so once, and the run goes on.

    Args:
        state: the run after the round; is left as it is. Its history holds the rows before.
        data: p_d.
        row: of this round.
    """
    found: dict[str, str] = {}
    mark = state.mark()
    try:
        for name, text in findings(state, data, [*state.history[1 - ROWS :], row]):
            found.setdefault(name, f"{name} in round {state.round}: {text}")
    except Exception as error:  # noqa: BLE001  parts are users' code, and may raise anything
        reason = " ".join(str(error).split())[:200]
        found["unwatched"] = f"unwatched since round {state.round}: a monitor met {type(error).__name__}: {reason}"
    state.rewind(mark)
    said = warnings_in(state.history)
    new = [text for name, text in found.items() if not any(sentence.startswith(name) for sentence in said)]
    row["note"] = SEPARATOR.join([*filter(None, [row.get("note", "")]), *(PREFIX + text for text in new)])
    return new


def warnings_in(rows: Sequence[Row]) -> list[str]:
    """Return what monitors said in these rows, oldest first."""
    parts = [part for row in rows if row.get("note") for part in str(row["note"]).split(SEPARATOR)]
    return [part.removeprefix(PREFIX) for part in parts if part.startswith(PREFIX)]


def findings(state: TrainState, data: Data, rows: Sequence[Row]) -> Iterator[Finding]:
    """Yield the name of each pathology that is there, with its numbers and a hint."""
    yield from frozen(state, rows)
    n = min(POINTS, data.train_size or POINTS)
    batch = draw_batch(data, state.samples, n, state.seed, state.equation)
    stream = Stream(state.seed, state.round, "monitors", batch.x.device, like(state.equation).dtype)
    with torch.no_grad():
        p = state.equation.model.particles(state.equation.model.draws(n, stream, batch.context), batch.context)
    if state.round >= START:
        yield from collapsed(batch.x, p.x)
        yield from saturated(state, batch, p, state.equation.draws(n, stream, batch.context))
    for metric in state.equation.metrics().values():
        yield from coupled(metric, batch)


def frozen(state: TrainState, rows: Sequence[Row]) -> Iterator[Finding]:
    """Terms, on fresh draws each row, that are the same number in the last rows while somebody learns."""
    rates = [group["lr"] for player in state.players if player.steps for group in player.optimizer.param_groups]
    if len(rows) < ROWS or not any(rate > 0 for rate in rates):
        return
    last = rows[-ROWS:]
    # H(q) and D may be constants by theory (under W1's dual q is p, so D = 0); what players differentiate is none.
    # A metric without parameters may be a constant by choice: its means say nothing.
    moving = {name for name, metric in state.equation.metrics().items() if is_trainable(metric)}
    gradients = [f"{player.name}_gradient" for player in state.players]
    names = []
    for name in last[-1]:
        summand, _, term = name.rpartition("/")
        if name in gradients or (term.startswith(("E_q_f", "E_pd_f", "total")) and (summand or OWN) in moving):
            names.append(name)
    still = [name for name in names if len({row.get(name) for row in last}) == 1]
    if still:
        since = f"since round {last[0]['round']:.0f}"
        shown = ", ".join(f"{name} = {last[-1][name]:.4g}" for name in still)
        text = f"{shown} to the last bit {since}, on fresh draws each"
        hint = "look for dead units, a network whose output ignores its input, a link that has saturated"
        yield Finding("frozen terms", f"{text}: nothing of it reaches a player; {hint}")


def collapsed(data: Tensor, samples: Tensor) -> Iterator[Finding]:
    """Samples that lie on a point, or on a few, where the data does not."""
    x, y = (torch.cdist(t.flatten(1).double(), t.flatten(1).double()) for t in (data, samples))
    spread, neighbour = ((float(of(x)), float(of(y))) for of in (torch.mean, _nearest))
    if spread[1] < SPREAD * spread[0] or neighbour[1] < NEIGHBOUR * neighbour[0]:
        text = f"two samples are {spread[1]:.2g} apart on average, two examples {spread[0]:.2g}"
        text += f"; nearest neighbours {neighbour[1]:.2g} and {neighbour[0]:.2g} (medians of {len(samples)})"
        hint = "lower theta's learning rate, give phi more steps, or penalise the metric's slope (R1)"
        yield Finding("collapsed samples", f"{text}: {hint}")


def _nearest(distances: Tensor) -> Tensor:
    return (distances + torch.diag(distances.new_full((len(distances),), torch.inf))).min(1).values.median()


def saturated(state: TrainState, batch: Particles, p: Particles, draws: Draws) -> Iterator[Finding]:
    r"""A critic so sure of the samples that theta's slope in v has vanished.

    theta moves a sample along :math:`\partial T/\partial v\;\nabla_x v`, and in the canonical critic's output
    :math:`\partial T/\partial v = -\beta e^v\ell'(v)` times the weight of the sample: for the GAN the sigmoid of v,
    nothing where v is far below zero; for W1 a constant, so a potential does not saturate. Its mean over samples is
    compared with the mean where v = 0 everywhere, and the critic must tell data from samples at that.
    """
    mover = next((player for player in state.players if player.role.moves_samples), None)
    for key, equation in state.equation.equations():
        if mover is None or equation.metric is None or not equation.auxiliary.has_scores:
            continue
        name, view = ("", mover.view) if key == OWN else (f" of plus.{key}", equation.seen_by(mover.role))
        with torch.no_grad():
            problem = equation.inner_problem(batch, p, view, draws=draws, name=key)
        v, v_data = problem.v, problem.v_data
        if v is None or v_data is None:
            continue
        slopes = [_slope(equation, mover.role, problem, at) for at in (v, torch.zeros_like(v))]
        told = float((v_data[:, None] > v[None]).double().mean())
        if told > 0.99 and slopes[0] < REACH * slopes[1]:
            text = f"the metric{name} reads {float(v.mean()):.3g} on samples and {float(v_data.mean()):.3g} on data"
            text += f", where the slope of player {mover.name} in it is {slopes[0] / slopes[1]:.1g} of that at zero"
            hint = "penalise the metric's slope (R1), slow it down, or let the player see another divergence "
            view_of = f"divergence@players.{mover.name}.view=softened_reverse_kl"  # its slope stays where v is low
            yield Finding("saturated critic", f"{text}: {hint}({view_of})")


def _slope(equation: StandardEquation, role: Role, problem: Any, v: Tensor) -> float:
    """Return the mean absolute slope of the minimum over q in the samples' scores."""
    with torch.enable_grad():
        v = v.detach().double().requires_grad_()
        problem = problem._replace(v=v, v_data=problem.v_data.double(), p=problem.p.double())
        minimum = equation.auxiliary.minimum(problem, role)
        (slope,) = torch.autograd.grad(minimum, v, allow_unused=True, materialize_grads=True)
        return float(slope.detach().abs().sum())


def coupled(metric: Metric, batch: Particles) -> Iterator[Finding]:
    r"""A penalty on each example's gradient where the network couples examples.

    The penalty takes :math:`\nabla_{x_i}\sum_j v_j`, one backward pass for all i. That is :math:`\nabla_{x_i} v_i`
    unless v_j depends on x_i: batch normalisation takes the batch's mean off, so that the sum hardly depends on any
    example, and the penalty sees no slope where the metric is steep.
    """
    if metric.penalty is None or not metric.penalty.per_example or metric.outputs is not None:
        return
    x, context = batch.x, batch.context
    half = len(x) // 2
    critic = partial(metric, context=context)
    with torch.no_grad():
        whole = critic(x)
        alone = metric(x[:half], None if context is None else context[:half])
        if bool(((whole[:half] - alone).abs() <= 1e-3 * whole.std()).all()):
            return
    seen = gradient_norm_squared(critic, x).detach()[:OWN_SLOPES].sqrt()
    own = torch.stack(
        [torch.func.grad(lambda x, i=i: critic(x)[i])(x)[i].detach().norm() for i in range(min(OWN_SLOPES, len(x)))]
    )
    if float((seen - own).abs().mean()) > COUPLING * float(own.mean()):
        text = f"{type(metric.penalty).__name__} sees slopes of {float(seen.mean()):.2g}, the examples' own are "
        text += (
            f"{float(own.mean()):.2g}: the metric couples the examples of a batch ({metric.coupled_by or 'undeclared'})"
        )
        hint = "choose a network without it, or layer normalisation"
        yield Finding("a penalty that fights the metric", f"{text}; {hint}")
