r"""Players: who differentiates the scalar, in which direction, how often.

All move on the **same** scalar, each up or down as its role says. Each calls ``backward(inputs=its parameters)``, so no
gradient can leak into another player, and nothing needs detaching or freezing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from divergences.base import Divergence
from models.base import Part
from se_framework.equation import legality
from se_framework.equation.equation import StandardEquation
from se_framework.equation.metric import Metric
from se_framework.equation.roles import NAMES, Role
from se_framework.errors import ConfigError, nearest
from se_framework.training.averages import Average

Decay = Literal["constant", "linear", "cosine"]
_DECAYS: dict[Decay, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
}
Broken = Tensor | bool | None
"""Whether a step of the round was not finite: on the device, shape (), or known."""
GUARDED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad)
"""Optimisers whose fused kernels move nothing where ``found_inf`` is set; a subclass may do more than they."""
Figures = Tensor | list[float]
"""What is checked in a step: on the device, in one tensor, or as numbers."""


@dataclass
class Player:
    """One player of the game: a role, and how it is played.

    Attributes:
        role: what it moves, in which direction, and what of the scalar moves with it.
        optimizer: over exactly the trainable parameters of the role's module.
        steps: steps per round.
        view: the divergence through which it sees the critic's output; None: the equation's own.
        penalised: summands whose metric has a penalty that is added to its loss.
        decay: course of the learning rate over the horizon.
        warmup: rounds over which the learning rate rises linearly from zero.
        average: exponential moving average of the module, None for none.
        pieces: a step's batch is cut into so many, whose gradients are accumulated (:mod:`.pieces`).
    """

    role: Role
    optimizer: torch.optim.Optimizer
    steps: int = 1
    view: Divergence | None = None
    penalised: Mapping[str, Metric] = field(default_factory=dict)
    decay: Decay = "constant"
    warmup: int = 0
    average: AveragedModel | None = None
    pieces: int = 1

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ConfigError(f"players.{self.name}.steps must be >= 0, got {self.steps}")
        if self.pieces < 1:
            raise ConfigError(f"players.{self.name}.accumulate must be at least 1, got {self.pieces}")
        self.parameters: list[nn.Parameter] = [p for p in self.module.parameters() if p.requires_grad]
        self.base_lr: list[float] = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.steps_taken = 0
        self._settle = settlers(self.module)
        self._settle_average = settlers(self.average) if self.average is not None else []
        fixed = [*(p for p in self.module.parameters() if not p.requires_grad), *self.module.buffers()]
        self._fixed = [t for t in fixed if t.is_floating_point()]

    @property
    def name(self) -> str:
        """The name of the role."""
        return self.role.name

    @property
    def module(self) -> nn.Module:
        """Everything that moves."""
        return self.role.module

    @property
    def guarded(self) -> bool:
        """Whether the optimiser itself can be told on the device to move nothing."""
        fused = all(group.get("fused") for group in self.optimizer.param_groups)
        return fused and type(self.optimizer) in GUARDED

    @property
    def averaged(self) -> nn.Module:
        """Return the averaged module where there is one, else the module."""
        return self.module if self.average is None else self.average.module

    def averaged_parts(self) -> dict[int, nn.Module]:
        """Return the averaged parts by the id of the part that each follows; nothing without an average."""
        if self.average is None:
            return {}
        if len(self.role.parts) == 1:
            return {id(part): self.average.module for part in self.role.parts.values()}
        averages = dict(self.average.module.named_children())
        return {id(part): averages[name] for name, part in self.role.parts.items()}

    def due(self) -> tuple[str, ...]:
        """Return the summands whose metric's penalty is due in the next step, by its clock."""
        clocks = ((name, metric.penalty) for name, metric in self.penalised.items())
        return tuple(name for name, penalty in clocks if penalty and self.steps_taken % penalty.every == 0)

    def update_average(self) -> None:
        """Let the average follow the module, and settle as the module does after a step."""
        if self.average is not None:
            self.average.update_parameters(self.module)
            for settle in self._settle_average:
                settle()

    def set_rate(self, round_index: int, horizon: int) -> None:
        """Set the learning rate of a round: a pure function of round and horizon, so nothing has to be restored."""
        factor = _DECAYS[self.decay](min(round_index / max(horizon, 1), 1.0))
        if self.warmup:
            factor *= min((round_index + 1) / self.warmup, 1.0)
        for group, lr in zip(self.optimizer.param_groups, self.base_lr, strict=True):
            group["lr"] = lr * factor

    def apply(self, loss: Tensor, checked: Iterable[Tensor], broken: Broken = None) -> tuple[Figures, Broken]:
        """Back-propagate into this player's parameters alone and step, unless something is or was not finite.

        Args:
            loss: what the player minimises, shape ().
            checked: scalars that must be finite besides the gradient.
            broken: whether an earlier step of the round was not finite; None for no.

        Returns:
            The scalars and the norm of the gradient after them, and ``broken`` with what this step found.
        """
        self.clear()
        self.accumulate(loss)
        return self.step(checked, broken)

    def clear(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:  # the optimiser's own zero_grad takes 20 us
            parameter.grad = None

    def accumulate(self, loss: Tensor) -> None:
        """Add the gradient of a loss, shape (), to this player's gradients, and to nobody else's."""
        loss.backward(inputs=self.parameters)

    def step(self, checked: Iterable[Tensor], broken: Broken = None) -> tuple[Figures, Broken]:
        """Step along what was accumulated, unless something is or was not finite; see :meth:`apply`.

        A CPU has done its work by now, so its figures are looked at. Elsewhere the decision is taken on the device,
        without waiting for it: see :meth:`step_queued`.
        """
        if isinstance(broken, Tensor) or not self.parameters[0].is_cpu:
            return self.step_queued(checked, broken)
        figures = [t.item() for t in (*checked, self._gradient_norm())]
        broken = bool(broken) or not all(map(math.isfinite, figures))
        if not broken:
            self.optimizer.step()
            if self._settle:  # parts that keep to a set by themselves: clipping, spectral norms
                with torch.no_grad():
                    for settle in self._settle:
                        settle()
        self.steps_taken += 1
        return figures, broken

    def step_queued(self, checked: Iterable[Tensor], broken: Broken = None) -> tuple[Tensor, Tensor]:
        """Do what :meth:`step` does without reading the device.

        Only an optimiser that is not guarded is waited for. What is returned are tensors, of shapes (n + 1,) and ().
        """
        figures = torch.stack([t.detach() for t in (*checked, self._gradient_norm())])
        failed = (figures * 0).sum().isnan()  # 0 times inf is NaN: half as many kernels as isfinite
        broken = failed if broken is None else failed | broken
        if self.guarded:
            self.optimizer.grad_scale, self.optimizer.found_inf = None, broken.float()  # type: ignore[attr-defined]
            self.optimizer.step()
            self.optimizer.found_inf = None  # type: ignore[attr-defined]
        elif not bool(broken):
            self.optimizer.step()
        if self._settle:
            self._settle_unless(broken)
        self.steps_taken += 1
        return figures, broken

    def _gradient_norm(self) -> Tensor:
        """Return the norm of all gradients together, shape ()."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if not gradients:
            return self.parameters[0].new_zeros(())
        return torch.linalg.vector_norm(torch.cat([g.flatten() for g in gradients]))  # half of get_total_norm's time

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


OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def schedules(module: nn.Module) -> list[Callable[[int], None]]:
    """Return what the parts of a module are told before each round: how many examples have been seen."""
    parts = [(part, getattr(type(part), "at", None)) for part in module.modules()]
    return [part.at for part, own in parts if callable(own) and own is not Part.at]  # type: ignore[misc]


def make_players(
    equation: StandardEquation, optimizer: OptimizerFactory | None = None, **options: Mapping[str, Any]
) -> list[Player]:
    """Return the players the equation has, in the order in which they move (``equation.roles()``).

    Args:
        equation: the equation.
        optimizer: from parameters to an optimiser; by default Adam at 1e-3 without momentum, which games dislike.
        options: for each player by name further arguments of its :class:`Player`, with ``ema`` (decay of the average, 0
            for none), ``accumulate`` (pieces of a batch) and ``optimizer`` (its own factory). Players that this
            equation does not have are passed over.

    Raises:
        ConfigError: a name that no player has, two players share a parameter, or a parameter belongs to none.
        IncompatibleError: a batch shall be cut, and the scalar is no mean over it.
    """
    for name in options:
        if name not in NAMES:
            raise ConfigError(f"players.{name}: there is no such player; {nearest(name, NAMES)}")
    chosen = optimizer or (lambda parameters: torch.optim.Adam(parameters, lr=1e-3, betas=(0.0, 0.99), fused=True))
    players, metrics = [], equation.metrics()
    for role in equation.roles():
        own = dict(options.get(role.name) or {})
        ema, factory = own.pop("ema", 0.0), own.pop("optimizer", None) or chosen
        own["pieces"] = own.pop("accumulate", 1)
        if not 0 <= ema < 1:
            raise ConfigError(f"players.{role.name}.ema must lie in [0, 1), got {ema}")
        if own.get("view") is None:
            own["view"] = equation.view(role)
        if own["pieces"] > 1:
            legality.refuse(legality.accumulation(equation, role, own["view"]))
        moved = {name: m for name, m in metrics.items() if role.parts.get(name) is m and m.penalty is not None}
        average = Average(role.module, ema) if ema else None
        parameters = [p for p in role.module.parameters() if p.requires_grad]
        players.append(Player(role, factory(parameters), penalised=moved, average=average, **own))
    check_shares(equation, players)
    return players


def check_shares(equation: StandardEquation, players: Sequence[Player]) -> None:
    """Refuse players that share a parameter, and trainable parameters that no player moves.

    Raises:
        ConfigError: see above.
    """
    seen: set[int] = set()
    for player in players:
        ids = {id(p) for p in player.parameters}
        if ids & seen:
            raise ConfigError(
                f"player {player.name} shares a parameter with another player: two optimisers would fight over it"
            )
        seen |= ids
    held = [(name, p) for name, p in equation.named_parameters() if p.requires_grad]
    summands = [other for _, _, other in equation.summands()]
    held += [
        (f"{player.name}'s view.{name}", p)
        for player in players
        for view in (player.view, *(other.seen_by(player.role) for other in summands))
        if view is not None
        for name, p in view.named_parameters()
        if p.requires_grad
    ]
    for name, parameter in held:
        if id(parameter) not in seen:
            raise ConfigError(
                f"parameter {name} belongs to no player and would never be trained: give it to the model, the metric, "
                "the auxiliary or the divergence, or set its requires_grad to False"
            )
