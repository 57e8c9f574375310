"""One round of the game: every player makes its steps once, all on the same scalar."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from models.laws import Particles
from se_framework.data import Data
from se_framework.errors import NonFiniteError, StepError
from se_framework.randomness import generator
from se_framework.state import TrainState


def play_round(state: TrainState, data: Data, batch_size: int, horizon: int) -> dict[str, float]:
    """Play one round and return its figures.

    Args:
        state: is advanced by one round.
        data: p_d.
        batch_size: examples and model samples per step (global).
        horizon: rounds over which learning rates decay.

    Returns:
        Per player the scalar it saw last, its penalty and the norm of its gradient.

    Raises:
        NonFiniteError: a term, penalty or gradient was not finite; its update was not applied.
        StepError: a part of the equation refused its input (a score of the wrong shape, say).
    """
    equation, seed, t = state.equation, state.seed, state.round
    like = next(equation.model.parameters())
    names = (equation.auxiliary.minimum_name, "E_pd_f", "penalty", "gradient")
    seen: dict[str, Tensor] = {}
    batch = None

    for player in state.players:
        player.set_rate(t, horizon)
        for k in range(player.steps):
            purpose = f"{player.name}/{k}"
            if batch is None or player.name == "phi" or len(state.players) == 1:  # theta plays on phi's last batch
                batch = draw(data, batch_size, seed, state.batches, like)
                state.batches, state.samples = state.batches + 1, state.samples + batch_size
            with torch.set_grad_enabled(player.name == "theta"):
                p = equation.sample(batch_size, generator(seed, t, f"{purpose}/noise", like.device), batch.context)

            try:
                minimum, f_data = equation.parts(batch, p, player.view)
            except ValueError as error:  # a part refuses its input: say whose step it was
                raise StepError(f"player {player.name}, round {t}: {error}") from error
            penalty = torch.zeros_like(minimum)
            for metric in player.penalised if p is not None else ():
                assert metric.penalty is not None and p is not None
                if player.steps_taken % metric.penalty.every == 0:
                    draws = generator(seed, t, f"{purpose}/mix", like.device)
                    mix = torch.rand(batch_size, generator=draws, dtype=like.dtype, device=like.device)
                    penalty = penalty + metric.penalty(partial(metric, context=batch.context), batch.x, p.x, mix)
            gradient = player.apply(penalty - player.sign * (minimum + f_data), (minimum, f_data, penalty))

            figures = torch.stack([minimum, f_data, penalty, gradient]).detach()
            before = seen.get(player.name, figures)
            seen[player.name] = torch.where(torch.isfinite(before).all(), figures, before)  # keep the first offence

    # One read of the device per round, after all of its work has been queued.
    rows = dict(zip(seen, torch.stack(list(seen.values())).tolist(), strict=True)) if seen else {}
    for player_name, row in rows.items():
        for name, value in zip(names, row, strict=True):
            if not abs(value) < float("inf"):
                raise NonFiniteError(
                    f"{name} of player {player_name} is {value} in round {t}: the update was not applied; lower the "
                    "learning rate, penalise or bound the metric, or choose a divergence with a bounded conjugate"
                )
    for player in state.players:
        player.update_average()
    state.round += 1
    figures_row: dict[str, float] = {}
    for name, (minimum_value, f_value, penalty_value, gradient_value) in rows.items():
        figures_row |= {f"{name}_scalar": minimum_value + f_value, f"{name}_gradient": gradient_value}
        if name == "phi":
            figures_row["penalty"] = penalty_value
    return figures_row


def draw(data: Data, n: int, seed: int, index: int, like: Tensor) -> Particles:
    """Return batch ``index`` of the data as particles, with their labels where the data gives some."""
    x = data.batch(n, seed, index, like.device, like.dtype)
    return Particles(x, context=data.labels(n, seed, index, like.device) if data.classes else None)
