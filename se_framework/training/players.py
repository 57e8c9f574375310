r"""Players: who differentiates the scalar, in which direction, how often.

theta descends and phi ascends on the **same** scalar. Each calls ``backward(inputs=its parameters)``, so no gradient
can leak into another player, and nothing needs detaching or freezing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from divergences.base import Divergence
from se_framework.equation.equation import StandardEquation
from se_framework.equation.metric import Metric
from se_framework.errors import ConfigError
from se_framework.training.optimizers import make_step

Decay = Literal["constant", "linear", "cosine"]
_DECAYS: dict[Decay, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
}
Broken = Tensor | bool | None
"""Whether a step of the round was not finite: on the device, shape (), or known."""
Figures = Tensor | list[float]
"""What is checked in a step: on the device, in one tensor, or as numbers."""


@dataclass
class Player:
    """One player of the game.

    Attributes:
        name: ``"theta"`` or ``"phi"``.
        module: its parameters.
        sign: -1 descends on the scalar, +1 ascends.
        optimizer: over exactly the trainable parameters of the module.
        steps: steps per round.
        view: the divergence through which it sees the critic's output; None: the equation's own.
        penalised: metrics whose penalties are added to its loss.
        decay: course of the learning rate over the horizon.
        warmup: rounds over which the learning rate rises linearly from zero.
        average: exponential moving average of the module, None for none.
    """

    name: str
    module: nn.Module
    sign: int
    optimizer: torch.optim.Optimizer
    steps: int = 1
    view: Divergence | None = None
    penalised: tuple[Metric, ...] = ()
    decay: Decay = "constant"
    warmup: int = 0
    average: AveragedModel | None = None

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ConfigError(f"players.{self.name}.steps must be >= 0, got {self.steps}")
        self.parameters: list[nn.Parameter] = [p for p in self.module.parameters() if p.requires_grad]
        self.base_lr: list[float] = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.steps_taken = 0
        self._settle = settlers(self.module)
        saved = self.module.state_dict(keep_vars=True)
        self.buffers: list[Tensor] = [b for name, b in self.module.named_buffers() if name in saved]
        fixed = [*(p for p in self.module.parameters() if not p.requires_grad), *self.buffers]
        self._fixed = [t for t in fixed if t.is_floating_point()]

    @property
    def averaged(self) -> nn.Module:
        """Return the averaged module where there is one, else the module."""
        return self.module if self.average is None else self.average.module

    def update_average(self) -> None:
        """Let the average follow the module, and settle as the module does after a step."""
        if self.average is not None:
            self.average.update_parameters(self.module)
            for settle in settlers(self.average.module):
                settle()

    def set_rate(self, round_index: int, horizon: int) -> None:
        """Set the learning rate of a round: a pure function of round and horizon, so nothing has to be restored."""
        factor = _DECAYS[self.decay](min(round_index / max(horizon, 1), 1.0))
        if self.warmup:
            factor *= min((round_index + 1) / self.warmup, 1.0)
        for group, lr in zip(self.optimizer.param_groups, self.base_lr, strict=True):
            group["lr"] = lr * factor

    def apply(self, loss: Tensor, checked: Iterable[Tensor], broken: Broken = None) -> tuple[Figures, Broken]:
        """Back-propagate into this player's parameters and step, unless something is or was not finite.

        Args:
            loss: what the player minimises, shape ().
            checked: scalars that must be finite besides the gradient.
            broken: whether an earlier step of the round was not finite; None for no.

        Returns:
            The scalars with the norms of the parameters' gradients after them, n + P numbers, and ``broken`` with
            this step's offence.
        """
        if not loss.is_cpu or isinstance(broken, Tensor):
            return self.apply_queued(loss, checked, broken)
        figures = [t.item() for t in (*checked, *self._backward(loss))]  # a CPU has done its work: looking is free
        broken = bool(broken) or not all(map(math.isfinite, figures))
        if not broken:
            make_step(self.optimizer)
            if self._settle:  # parts that keep to a set by themselves: clipping, spectral norms
                with torch.no_grad():
                    for settle in self._settle:
                        settle()
        self.steps_taken += 1
        return figures, broken

    def apply_queued(self, loss: Tensor, checked: Iterable[Tensor], broken: Broken = None) -> tuple[Tensor, Tensor]:
        """Do what :meth:`apply` does, and take the decision on the device, without waiting for it.

        Only an optimiser that is not fused is waited for. What is returned are tensors, of shapes (n + P,) and ().
        """
        figures = torch.stack([*(t.detach() for t in checked), *self._backward(loss)])
        offence = (figures * 0).sum().isnan()  # 0 times inf is NaN: half as many kernels as isfinite
        broken = offence if broken is None else offence | broken
        if all(group.get("fused") for group in self.optimizer.param_groups):
            self.optimizer.grad_scale, self.optimizer.found_inf = None, broken.float()  # type: ignore[attr-defined]
            self.optimizer.step()
            self.optimizer.found_inf = None  # type: ignore[attr-defined]
        elif not bool(broken):
            self.optimizer.step()
        if self._settle:
            self._settle_unless(broken)
        self.steps_taken += 1
        return figures, broken

    def _backward(self, loss: Tensor) -> Sequence[Tensor]:
        """Fill in this player's gradients alone, and return their norms, parameter by parameter."""
        for parameter in self.parameters:  # the optimiser's own zero_grad takes 20 us
            parameter.grad = None
        torch.autograd.backward(loss, torch.ones_like(loss), inputs=self.parameters)  # 10 us less than loss.backward
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        return torch._foreach_norm(gradients) if gradients else ()

    @torch.no_grad()
    def _settle_unless(self, broken: Tensor) -> None:
        """Let the parts settle; clipping would turn an infinite weight into a good one, so a broken step undoes it."""
        tensors = [*self.parameters, *self._fixed]
        before = [t.clone() for t in tensors]
        for settle in self._settle:
            settle()
        for tensor, old in zip(tensors, before, strict=True):
            tensor.copy_(torch.where(broken, old, tensor))


def settlers(module: nn.Module) -> list[Callable[[], None]]:
    """Return what the parts of a module do after each step, to keep to a set by themselves."""
    parts: list[Any] = [p for p in module.modules() if hasattr(p, "settle") and getattr(p, "settles", True)]
    return [part.settle for part in parts]


class _Role(NamedTuple):
    """What a divergence asks of a player."""

    sign: int
    moves_samples: bool


OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def make_players(
    equation: StandardEquation,
    optimizer: OptimizerFactory | None = None,
    *,
    theta: dict | None = None,
    phi: dict | None = None,
) -> list[Player]:
    """Return the players the equation has, phi first: theta moves the model, phi the metric where there is one.

    Args:
        equation: the equation.
        optimizer: from parameters to an optimiser; by default Adam at 1e-3 without momentum, which games dislike.
        theta: further arguments of theta's :class:`Player`, with ``ema`` (decay of the average, 0 for none) and
            ``optimizer`` (its own factory).
        phi: the same for phi.

    Raises:
        ConfigError: two players share a parameter, or a player has none.
    """
    chosen = optimizer or (lambda parameters: torch.optim.Adam(parameters, lr=1e-3, betas=(0.0, 0.99), fused=True))
    players = []
    metrics = equation.metrics()
    experience = nn.ModuleDict(metrics) if len(metrics) > 1 else next(iter(metrics.values()), None)
    seats: list[tuple[str, nn.Module | None, int, dict]] = [
        ("phi", experience, +1, phi or {}),
        ("theta", equation.model, -1, theta or {}),
    ]
    for name, module, sign, options in seats:
        if module is None:
            continue
        options = dict(options)
        ema, factory = options.pop("ema", 0.0), options.pop("optimizer", None) or chosen
        parameters = [p for p in module.parameters() if p.requires_grad]
        if not parameters:
            raise ConfigError(f"player {name}: {type(module).__name__} has no trainable parameter")
        if not 0 <= ema < 1:
            raise ConfigError(f"players.{name}.ema must lie in [0, 1), got {ema}")
        average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(ema)) if ema else None
        if name == "phi":
            options["penalised"] = tuple(metric for metric in metrics.values() if metric.penalty is not None)
            unnormalised = equation.auxiliary.uses == "dual" and not equation.auxiliary.needs_mass_one
            # Two duals share their optimal critic only at alpha = 0, and if the metric may be any function.
            free = equation.metric is not None and equation.metric.function_class == "unrestricted"
            if options.get("view") is None and unnormalised and free and equation.alpha == 0:
                options["view"] = equation.divergence.view(_Role(sign, False))
        elif options.get("view") is None:
            options["view"] = equation.divergence.view(_Role(sign, True))
        players.append(Player(name, module, sign, factory(parameters), average=average, **options))
    seen: set[int] = set()
    for player in players:
        ids = {id(p) for p in player.parameters}
        if ids & seen:
            raise ConfigError(
                f"player {player.name} shares a parameter with another player: two optimisers would fight over it"
            )
        seen |= ids
    return players
