"""What a player minimises in a step: one function, from draws to loss, for every way in which steps are executed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from models.laws import Particles
from se_framework.equation.auxiliary import drawn_for
from se_framework.equation.equation import StandardEquation
from se_framework.training.draws import Draws, data_of
from se_framework.training.players import Player

Losses = tuple[Tensor, tuple[Tensor, Tensor, Tensor]]


def objective(equation: StandardEquation, player: Player, due: Sequence[str], draws: Draws) -> Losses:
    """Return what a player minimises, and the scalars that are checked with it, all of shape ().

    The model's particles have a graph to theta only if they move with the player, and E_pd f is left out where it does
    not.

    Args:
        equation: whose scalar it is.
        player: who moves.
        due: summands whose metric's penalty is due.
        draws: what :func:`~se_framework.training.draws.draw_step` returned.

    Returns:
        The loss; and the minimum over q, E_pd f, and the penalty.
    """
    role, data = player.role, data_of(draws)
    with torch.set_grad_enabled(role.moves_samples):
        p = equation.particles(draws, data.context)
    if role.moves_f_data:
        minimum, f_data = equation.parts(data, p, player.view, role, draws)
        value, nothing = minimum + f_data, minimum.new_zeros(())
    else:
        value = minimum = equation.minimum(data, p, player.view, role, draws)
        f_data = nothing = minimum.new_zeros(())
    loss, penalty = value if role.sign < 0 else -value, nothing
    if due:
        penalty = sum(penalties(equation, due, data, p, draws), nothing)
        loss = loss + penalty
    return loss, (minimum, f_data, penalty)


def penalties(
    equation: StandardEquation, due: Sequence[str], data: Particles, p: Particles | None, draws: Draws
) -> Iterator[Tensor]:
    """Yield the penalties that are due, shape ()."""
    metrics = equation.metrics()
    for name in due:
        metric = metrics[name]
        assert metric.penalty is not None
        mix, x_model = drawn_for(f"penalty/{name}", draws)["mix"], data.x if p is None else p.x
        weights = None if p is None or p.log_weights is None else p.log_weights.detach().exp()
        yield metric.penalty(metric.given(data.context), data.x, x_model, mix, weights)


def terms_of(equation: StandardEquation) -> tuple[str, ...]:
    """Return the names of what is checked in a step, in the order of evaluation."""
    return (equation.auxiliary.minimum_name, "E_pd_f", "penalty", "gradient")
