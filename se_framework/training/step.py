"""One round of the game: every player makes its steps once, all on the same scalar."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, singledispatch
from itertools import islice

import torch
from torch import Tensor

from models.laws import Particles
from se_framework.data import Data
from se_framework.equation.equation import StandardEquation
from se_framework.equation.metric import Metric
from se_framework.errors import DataError, NonFiniteError, Offence, StepError
from se_framework.randomness import generator, seed_global
from se_framework.training.execution import Draws
from se_framework.training.players import Broken, Figures, Player
from se_framework.training.state import Mark, TrainState

ADVICE = "lower the learning rate, penalise or bound the metric, or choose a divergence with a bounded conjugate"


@singledispatch
def play_round(state: TrainState, data: Data, batch_size: int, horizon: int) -> dict[str, float]:
    """Play one round and return its figures.

    The first step in which something is not finite spoils the rest of the round on the device: no later update is
    applied. When the round is read, the state is put back to what that step saw.

    Args:
        state: is advanced by one round.
        data: p_d.
        batch_size: examples and model samples per step (global).
        horizon: rounds over which learning rates decay.

    Returns:
        Per player the scalar it saw last, its penalty and the norm of its gradient.

    Raises:
        NonFiniteError: a term, penalty or gradient was not finite; its update was not applied.
        StepError: a part of the equation could not be evaluated.
        DataError: the data cannot give a batch.
    """
    t, like = state.round, next(state.equation.model.parameters())
    broken: Broken = None
    played: list[tuple[Offence, Mark]] = []
    figures: list[Figures] = []
    batch = None

    for player in state.players:
        player.set_rate(t, horizon)
        for k in range(player.steps):
            mark = state.mark()
            fresh = batch is None or player.name == "phi" or len(state.players) == 1  # theta plays on phi's last batch
            here = Offence(player.name, t, k, state.batches if fresh else state.batches - 1, batch_size)
            try:
                with located(here):
                    if batch is None or fresh:
                        batch = draw(data, batch_size, state.seed, state.batches, like)
                        state.batches, state.samples = state.batches + 1, state.samples + batch_size
                    row, broken = play_step(state, player, k, batch, broken)
            except StepError:
                read(state, played, figures)  # what an earlier step of the round broke comes first
                state.rewind(mark)
                raise
            played.append((here, mark))
            figures.append(row)

    rows = read(state, played, figures)  # one read of the device per round, after all of its work has been queued
    for player in state.players:
        player.update_average()
    state.round += 1
    figures_row: dict[str, float] = {}
    for (here, _), (minimum, f_data, penalty, gradient) in zip(played, rows, strict=True):
        name = here.player  # of several steps the last stays
        figures_row |= {f"{name}_objective": minimum + f_data, f"{name}_gradient": gradient}
        figures_row |= {"penalty": penalty} if name == "phi" else {}
    return figures_row


def play_step(state: TrainState, player: Player, k: int, batch: Particles, broken: Broken) -> tuple[Figures, Broken]:
    """Play step k of a player on a batch.

    Args:
        state: its ``round`` and ``seed`` fix all randomness of the step.
        player: who moves.
        k: which of its steps in this round.
        batch: particles of p_d.
        broken: whether an earlier step of the round was not finite: then nothing moves; None for no.

    Returns:
        The figures, 3 + P numbers: those of :func:`terms_of`, with the gradient's norm parameter by parameter; and
        ``broken`` with this step's offence.
    """
    penalised, performance = penalties_due(state, player), state.performance
    mix = mixing(state.seed, state.round, f"{player.name}/{k}", batch.x) if penalised else None
    if performance.plain:
        p = sample(state, player, k, batch)
        return player.apply(*losses(state.played, player, penalised, batch, p, mix), broken)
    draws = Draws(batch.x, batch.context, noise(state, player, k, batch), mix)
    kind, buffers = tuple(map(id, penalised)), [b for other in state.players for b in other.buffers]
    return performance.play(player, kind, partial(losses_at, state.played, player, penalised), draws, broken, buffers)


def losses(
    equation: StandardEquation,
    player: Player,
    due: Sequence[Metric],
    batch: Particles,
    p: Particles | None,
    mix: Tensor | None,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Return what a player minimises, and the scalars that are checked, all of shape ().

    Args:
        equation: whose scalar it is.
        player: who moves.
        due: metrics whose penalties are due.
        batch: particles of p_d.
        p: particles of p_theta; None where the equation needs none.
        mix: uniform numbers for the penalties, shape (B,); None where none is due.
    """
    if player.name == "theta":  # E_pd f does not move with theta
        objective = minimum = equation.minimum(batch, p, player.view)
        f_data = nothing = minimum.new_zeros(())
    else:
        minimum, f_data = equation.parts(batch, p, player.view)
        objective, nothing = minimum + f_data, minimum.new_zeros(())
    loss, penalty = objective if player.sign < 0 else -objective, nothing
    if due:
        penalty = sum(penalties(due, batch, p, mix), nothing)
        loss = loss + penalty
    return loss, (minimum, f_data, penalty)


def losses_at(
    equation: StandardEquation, player: Player, due: Sequence[Metric], draws: Draws
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Return :func:`losses` as a function of all that was drawn."""
    p, batch = None, Particles(draws.x, context=draws.context)
    if draws.noise is not None:
        with torch.set_grad_enabled(player.name == "theta"):
            p = equation.particles(draws.noise, draws.context)
    return losses(equation, player, due, batch, p, draws.mix)


def terms_of(state: TrainState) -> tuple[str, ...]:
    """Return the names of what is checked in a step, in the order of evaluation."""
    return (state.equation.auxiliary.minimum_name, "E_pd_f", "penalty", "gradient")


def draw(data: Data, n: int, seed: int, index: int, like: Tensor) -> Particles:
    """Return batch ``index`` of the data as particles, with their labels where the data gives some."""
    x = data.batch(n, seed, index, like.device, like.dtype)
    return Particles(x, context=data.labels(n, seed, index, like.device) if data.classes else None)


def sample(state: TrainState, player: Player, k: int, batch: Particles) -> Particles | None:
    """Return p_theta's particles of a step, without a graph to theta unless theta moves."""
    draws = noise_stream(state, player, k, batch.x.device)
    with torch.set_grad_enabled(player.name == "theta"):
        return state.played.sample(len(batch.x), draws, batch.context)


def noise(state: TrainState, player: Player, k: int, batch: Particles) -> Tensor | None:
    """Return the noise of :func:`sample`."""
    draws = noise_stream(state, player, k, batch.x.device)
    with torch.no_grad():
        law = state.played.model(batch.context) if state.played.uses_samples else None
        return None if law is None else law.noise(len(batch.x), draws)


def noise_stream(state: TrainState, player: Player, k: int, device: torch.device) -> torch.Generator:
    """Return the generator of a step's noise.

    Networks that draw on torch's own generators (dropout) are functions of the step as well.
    """
    purpose = f"{player.name}/{k}"
    seed_global(state.seed, state.round, f"{purpose}/global", device)
    return generator(state.seed, state.round, f"{purpose}/noise", device)


def due(penalised: Iterable[Metric], steps_taken: int) -> list[Metric]:
    """Return the metrics whose penalty is due in a step, by its clock."""
    return [m for m in penalised if m.penalty is not None and steps_taken % m.penalty.every == 0]


def penalties_due(state: TrainState, player: Player) -> tuple[Metric, ...]:
    """Return the metrics, as they are played, whose penalties are due in the player's next step."""
    if not player.penalised or not state.played.uses_samples:
        return ()
    found = due(player.penalised, player.steps_taken)
    return tuple(state.metrics_played.get(metric, metric) for metric in found)


def mixing(seed: int, round_index: int, purpose: str, x: Tensor) -> Tensor:
    """Return the uniform numbers of a step's penalties, one per example of x, shape (B,)."""
    draws = generator(seed, round_index, f"{purpose}/mix", x.device)
    return torch.rand(len(x), generator=draws, dtype=x.dtype, device=x.device)


def penalties(due: Sequence[Metric], batch: Particles, p: Particles | None, mix: Tensor | None) -> Iterator[Tensor]:
    """Yield the penalties, shape ()."""
    for metric in due:
        assert metric.penalty is not None and p is not None and mix is not None
        yield metric.penalty(metric.given(batch.context), batch.x, p.x, mix)


@contextmanager
def located(here: Offence) -> Iterator[None]:
    """Let whatever a part raises within say whose step it was: parts are users' code, and may raise anything.

    Raises:
        StepError: in the place of every exception but a DataError.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        refusal = StepError(f"{here.place}: {kind}{' '.join(str(error).split())}")
        refusal.offence = here
        raise refusal from error


def read(state: TrainState, played: Sequence[tuple[Offence, Mark]], figures: Sequence[Figures]) -> list[list[float]]:
    """Return the figures of the steps played, in the order of :func:`terms_of`.

    Raises:
        NonFiniteError: the first that is not finite; the state is put back to what its step saw.
    """
    queued = [row for row in figures if isinstance(row, Tensor)]
    names, numbers = terms_of(state), iter(torch.cat(queued).tolist() if queued else ())
    own = [list(islice(numbers, len(row))) if isinstance(row, Tensor) else row for row in figures]
    rows = [[*row[:3], math.hypot(*row[3:])] for row in own]
    for (here, mark), row in zip(played, rows, strict=True):
        for name, value in zip(names, row, strict=True):
            if not math.isfinite(value):
                state.rewind(mark)
                raise non_finite(replace(here, term=name, value=value, terms=dict(zip(names, row, strict=True))))
    return rows


def non_finite(offence: Offence, advice: str = ADVICE) -> NonFiniteError:
    """Return the error of an offence, in one sentence."""
    what = f"{offence.term} of player {offence.player} is {offence.value} in round {offence.round}, step {offence.step}"
    source = f" ({offence.source})" if offence.source else ""
    error = NonFiniteError(f"{what}{source}: the update was not applied; {advice}")
    error.offence = offence
    return error
