"""Row of the engine itself: a player's step with networks of one parameter, less a script of the same torch calls."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import divergences as d
import se_framework as se
from benchmarks.speed import engine
from benchmarks.speed.contest import OURS, Contest, Row, Size, Verdict, must_agree
from benchmarks.speed.loops import Draws, RandomDraws, Round, fused_adam
from benchmarks.speed.timer import Side, Times
from models import Critic, Model
from models.laws import PushForward
from se_framework.data import as_data
from se_framework.training.loop import measure

BATCH, ROUNDS, STEPS_PER_ROUND = 256, 50, 2


class Shift(Model):
    """x = theta + z: a generator of one parameter."""

    has_log_prob: ClassVar[bool] = False
    has_rsample: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__((1,))
        self.theta = nn.Parameter(torch.tensor(0.5))

    def forward(self, context: Tensor | None = None) -> PushForward:
        """Return the law of the shifted noise."""
        theta = self.theta
        return PushForward(lambda z: theta + z, (1,), (1,), like=theta)


class Slope(Critic):
    """v = phi x: a critic of one parameter."""

    def __init__(self) -> None:
        super().__init__((1,))
        self.phi = nn.Parameter(torch.tensor(0.1))

    def score(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the scores."""
        return self.phi * x.squeeze(1)


def rows() -> list[Row]:
    """Return the row of this file."""
    return [
        Row("overhead", WORK, overhead, verdicts=told, quick_pairs=15,
            expected_lines=tuple((against, GOAL) for _, against in SCRIPTS.values())),
    ]  # fmt: skip


WORK = "engine overhead: a player's step with one-parameter networks"
GOAL, MOST = "<= 60 us", 60
SCRIPTS = {  # whether in our own calls, and the words of the table
    "bare_usual": (False, "less a bare script in the torch calls that people write, without any check"),
    "bare": (True, "less a bare script of the same torch calls and checks as ours"),
}


def overhead(size: Size) -> Contest:
    """Return the engine beside two scripts: in its own torch calls, and in those people write."""
    rows = torch.randn(4096 if size == "full" else 64, 1)
    batch_size, rounds = (BATCH, ROUNDS) if size == "full" else (8, 2)
    state, data = _state(), as_data(rows)

    def run() -> None:
        se.train(state, data, rounds=state.round + rounds, batch_size=batch_size, log_every=0, progress=False)

    sides = {OURS: Side(run, rounds, lambda: state.history.append(measure(state, data, batch_size)))}
    for name, (own_calls, _) in SCRIPTS.items():
        step = script(Shift().theta, Slope().phi, RandomDraws(rows, batch_size, 1), own_calls)
        sides[name] = engine.hand_side(step, rounds)
    return Contest(sides, agreement)


def script(theta: nn.Parameter, phi: nn.Parameter, draws: Draws, own_calls: bool) -> Round:
    """Return a round without any engine.

    Args:
        theta: the generator's parameter.
        phi: the critic's parameter.
        draws: random numbers.
        own_calls: in the torch calls that the engine makes on a CPU, where the gradient's norm and the figures are read
            before the optimiser steps; else in those that people write, without any check.
    """
    optimizers = {phi: fused_adam([phi]), theta: fused_adam([theta])}
    nothing = torch.zeros(())

    def play() -> None:
        x = draws.batch()
        for player, optimizer in optimizers.items():
            with torch.set_grad_enabled(player is theta):
                y = theta + draws.noise()
            on_model, on_data = phi * y.squeeze(1), phi * x.squeeze(1)
            minimum, f_data = -F.softplus(on_model).mean(), -F.softplus(-on_data).mean()
            total = minimum + f_data
            loss = total if player is theta else -total
            if own_calls:
                player.grad = None
                loss.backward(inputs=[player])
                assert player.grad is not None
                norm = nn.utils.get_total_norm([player.grad])
                figures = [t.item() for t in (minimum, f_data, nothing, norm)]
                if all(map(math.isfinite, figures)):
                    optimizer.step()
            else:
                optimizer.zero_grad(set_to_none=True)
                loss.backward(inputs=[player])
                optimizer.step()

    return play


def agreement() -> dict[str, float]:
    """Compare both parameters after rounds of the engine and of the scripts on the same draws, in float64."""
    found = {}
    for name, (own_calls, _) in SCRIPTS.items():
        with engine.in_float64():
            state, data = _state(), as_data(torch.randn(64, 1))
            theta, phi = Shift().theta, Slope().phi
            with engine.recorded(state.equation, data) as draws:
                se.train(state, data, rounds=2, batch_size=8, log_every=0, progress=False)
            step = script(theta, phi, draws, own_calls)
            step(), step()
            ours = [p.detach() for p in state.equation.parameters()]
            off = max(float((a - b).abs().detach()) for a, b in zip(ours, (theta, phi), strict=True))
            found[name] = must_agree(f"parameters of the {name} script", off, engine.TOLERANCE)
    return found


def told(row: Row, times: Times) -> list[Verdict]:
    """Return the differences per player's step, in microseconds."""
    per_step, found = 1e6 / STEPS_PER_ROUND, []
    for name, (_, against) in SCRIPTS.items():
        more, itself = times.difference(OURS, name, row.clock), times.of(name, row.clock)
        least, middle, most = (per_step * t for t in (more.low, more.median, more.high))
        measured = f"{middle:.0f} us ({least:.0f}-{most:.0f})"
        note = f"the script itself {itself.median * per_step:.0f} us"
        found.append(Verdict(WORK, against, GOAL, measured, middle <= MOST, note, middle))
    return found


def _state() -> se.TrainState:
    critic = se.Metric(Slope())
    equation = se.StandardEquation(model=Shift(), divergence=d.GAN(), auxiliary=se.Dual(), metric=critic)
    return se.TrainState(equation)
