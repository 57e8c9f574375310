"""Our side of a contest: an experiment trained by the real loop, and its random numbers for those who play it again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import se_framework as se
from benchmarks.speed.contest import largest_difference, must_agree
from benchmarks.speed.loops import Draws, Nets, Round
from benchmarks.speed.timer import Side
from models.laws import Particles
from models.networks import LEAK, Dense
from se_framework.data import Data
from se_framework.training.loop import measure

# What two programs in float64 may differ by after the rounds of a check, as a share of the largest entry: 1e-16 per
# operation, some thousands of operations, and Adam without momentum divides by gradients' sizes down to 1e-8.
TOLERANCE = 1e-6
ROUNDS_OF_A_CHECK = 2


def compose(experiment: str, overrides: Sequence[str], data: Any = None) -> se.Assembly:
    """Return an experiment without schedule and average, which no hand-written loop here has."""
    plain = ["loop.decay=constant", "players.theta.ema=0", "players.phi.ema=0", "progress=false"]
    return se.compose(experiment, [*plain, *overrides], data=data)


def play(assembly: se.Assembly, rounds: int) -> None:
    """Play further rounds by the public loop; nothing is logged."""
    state, batch_size = assembly.state, assembly.config.loop.batch_size
    se.train(
        state, assembly.data, rounds=state.round + rounds, batch_size=batch_size, log_every=0, progress=False
    )  # fmt: skip


def side(assembly: se.Assembly, rounds: int) -> Side:
    """Return the engine with its defaults: the finiteness check in every step, and the row of four terms."""

    def log() -> None:
        state, n = assembly.state, assembly.config.loop.batch_size
        state.keep({k: measure(own, assembly.data, n) for k, own in state.living.items()}, None)

    return Side(lambda: play(assembly, rounds), rounds, log)


def hand_side(loop: Round, rounds: int) -> Side:
    """Return a hand-written loop that plays so many rounds in a turn."""

    def run() -> None:
        for _ in range(rounds):
            loop()

    return Side(run, rounds)


def plain_nets(assembly: se.Assembly) -> Nets:
    """Return copies of generator and critic as plain ``nn.Sequential``, with the same weights."""
    equation = assembly.state.equation
    assert equation.metric is not None
    network = equation.metric.network
    critic = network.net if hasattr(network, "net") else [*network.features, network.last]
    return Nets(plain(equation.model.net), plain(critic))  # type: ignore[arg-type]


ACTIVATIONS: dict[str | None, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "leaky_relu": lambda: nn.LeakyReLU(LEAK), "tanh": nn.Tanh,
}  # fmt: skip


def plain(layers: Any) -> nn.Sequential:
    """Return a copy of a stack of layers as people write it, without a first one that only reshapes the examples.

    Our layers hold the nonlinearity after them; here it is a module of its own, as in a hand-written network.
    """
    first, *others = layers
    found: list[nn.Module] = []
    for layer in others if isinstance(first, nn.Flatten | nn.Unflatten) else layers:
        if isinstance(layer, Dense):
            like = {"dtype": layer.weight.dtype, "device": layer.weight.device}
            linear = nn.Linear(layer.in_features, layer.out_features, **like)
            linear.load_state_dict(layer.state_dict())
            found += [linear] if layer.activation is None else [linear, ACTIVATIONS[layer.activation]()]
        else:
            found.append(copy.deepcopy(layer))
    return nn.Sequential(*found)


class Replay:
    """The draws of an engine's rounds, handed out again in their order.

    Attributes:
        shared: the engine drew no noise for the generator's steps: they were made on the critic's samples.
    """

    def __init__(self) -> None:
        self.batches: list[Tensor] = []
        self.noises: list[Tensor] = []
        self.mixes: list[Tensor] = []
        self.shared = False

    def batch(self) -> Tensor:
        """Return the next batch."""
        return self.batches.pop(0)

    def noise(self) -> Tensor:
        """Return the next noise."""
        return self.noises.pop(0)

    def mix(self) -> Tensor:
        """Return the next mixing numbers."""
        return self.mixes.pop(0)


@contextmanager
def recorded(equation: se.StandardEquation, data: Data) -> Iterator[Replay]:
    """Record what the engine draws within this context."""
    found, draw, draws = Replay(), data.batch, se.StandardEquation.draws

    def batch(*arguments: Any, **named: Any) -> Particles:
        drawn = draw(*arguments, **named)
        found.batches.append(drawn.x)
        return drawn

    def drawn(own: se.StandardEquation, *arguments: Any, **named: Any) -> dict[str, Tensor]:
        of_parts = draws(own, *arguments, **named)
        found.noises += [of_parts["model/noise"]] if "model/noise" in of_parts else []
        return of_parts

    def mixed(draws: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
        # Where they are drawn, not where the penalty reads them: a step that is replayed from a graph calls no module.
        def kept(*arguments: Any) -> dict[str, Tensor]:
            of_penalty = draws(*arguments)
            found.mixes.append(of_penalty["mix"])
            return of_penalty

        return kept

    penalty = None if equation.metric is None else equation.metric.penalty
    mixing = nullcontext() if penalty is None else mock.patch.object(penalty, "draws", mixed(penalty.draws))
    patched = mock.patch.object(data, "batch", batch), mock.patch.object(se.StandardEquation, "draws", drawn)
    with patched[0], patched[1], mixing:
        yield found
    found.shared = len(found.noises) == len(found.batches)


@contextmanager
def in_float64() -> Iterator[None]:
    """Make float64 the default type within this context."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


Loop = Callable[[Nets, Draws, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]], Round]
OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "adam_no_momentum": lambda parameters: torch.optim.Adam(parameters, lr=1e-3, betas=(0.0, 0.99)),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-2),  # Adam would not see a factor of the loss
}


def agreement(make: Callable[[Sequence[str]], se.Assembly], loops: dict[str, Loop]) -> dict[str, float]:
    """Train by the engine and by each loop on the same draws in float64, and compare all parameters.

    Args:
        make: composes the experiment with further overrides.
        loops: by name; each is given nets, draws and an optimiser.

    Returns:
        The largest difference of each loop, over the largest entry of the tensor.

    Raises:
        Disagreement: a loop does other work.
    """
    found: dict[str, float] = {}
    for optimizer, factory in OPTIMIZERS.items():
        for name, loop in loops.items():
            with in_float64():
                assembly = make([f"optimizer={optimizer}"])
                nets = plain_nets(assembly)
                with recorded(assembly.state.equation, assembly.data) as draws:
                    play(assembly, ROUNDS_OF_A_CHECK)
                step = loop(nets, draws, factory)
                for _ in range(ROUNDS_OF_A_CHECK):
                    step()
                after = plain_nets(assembly)
                difference = max(
                    largest_difference(_parameters(mine), _parameters(theirs))
                    for mine, theirs in ((after.generator, nets.generator), (after.critic, nets.critic))
                )
            must_agree(f"{name} after {ROUNDS_OF_A_CHECK} rounds under {optimizer}", difference, TOLERANCE)
            found[name] = max(found.get(name, 0.0), difference)
    return found


def _parameters(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in module.named_parameters()}
