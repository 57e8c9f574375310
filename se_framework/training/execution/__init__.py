"""How player steps are executed: in which precision, compiled, as CUDA graphs. What they compute is elsewhere.

Every fast path is held against the plain step before it is used, and gives way to it with a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from se_framework.equation.equation import StandardEquation
from se_framework.errors import ConfigError
from se_framework.training.draws import Draws
from se_framework.training.execution.compilation import Compiled
from se_framework.training.execution.graphs import Capture, StaticStep, cuda_graph
from se_framework.training.execution.precision import LowMetric, LowModel, Precision, check_precision
from se_framework.training.execution.proof import Losses, evaluate, must_agree, reason
from se_framework.training.pieces import cut, gathered
from se_framework.training.players import Broken, Figures, Player

__all__ = ["Execution", "check_precision", "choose"]

Use = Literal["auto", "always", "never"]
CONVOLUTIONS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
Step = Callable[[Draws, Broken], tuple[Figures, Broken]]
"""From draws, and whether the round is broken, to what :meth:`Player.apply` returns."""


def choose(
    graphs: Use,
    compiled: Use,
    precision: Precision,
    equation: StandardEquation,
    players: Sequence[Player],
    device: torch.device,
    members: int = 1,
) -> Execution:
    """Return what is used of what is wanted on a device; :attr:`Execution.reasons` says why the rest is not.

    Raises:
        ConfigError: something is wanted that the stacked steps of several members do not have.
    """
    if members > 1:
        wanted = {"precision": precision, "compile": compiled, "graphs": graphs}
        for key, value in wanted.items():
            if value in ("always", "bf16"):
                raise ConfigError(
                    f"performance.{key}={value}: the members of an ensemble take plain steps, in float32; leave it "
                    "out, or add ensemble.size=1"
                )
        return Execution(reasons=dict.fromkeys(("graphs", "compile"), "members train together"))
    convolutional = any(isinstance(m, CONVOLUTIONS) for m in equation.modules())
    fixed = [p.name for p in players if not (p.guarded and all("capturable" in g for g in p.optimizer.param_groups))]
    cutting = [p.name for p in players if p.pieces > 1]
    no_graphs = no_compile = ""
    if graphs == "never":
        no_graphs = "not wanted"
    elif device.type != "cuda":
        no_graphs = f"the device is {device.type}"
    elif fixed:
        no_graphs = f"the optimiser of {' and '.join(fixed)} cannot be captured: fused Adam can (optimizer=adam)"
    elif cutting:
        no_graphs = f"{' and '.join(cutting)} accumulates gradients piece by piece"
    if compiled == "never":
        no_compile = "not wanted"
    elif compiled == "auto" and device.type != "cuda":
        no_compile = f"it was slower than eager on {device.type}"
    elif compiled == "auto" and not convolutional:
        no_compile = "there is no convolution"
    reasons = {"graphs": no_graphs, "compile": no_compile}
    return Execution(not no_graphs, not no_compile, precision, reasons=reasons)


@dataclass
class Execution:
    """How player steps are executed, and those that have been prepared.

    Attributes:
        graphs: play whole steps as CUDA graphs.
        compiled: compile the losses of a step.
        precision: of the networks in player steps.
        reasons: by key of the configuration, why it is not used; empty if it is.
        backend: what compiles (see ``torch.compile``).
        capture: what records a step; by default a CUDA graph.
        news: what gave way to the plain step, and why, since it was last told.
    """

    graphs: bool = False
    compiled: bool = False
    precision: Precision = "float32"
    reasons: dict[str, str] = field(default_factory=dict)
    backend: str | Callable[..., Any] = "inductor"
    capture: Capture | None = None
    news: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._steps: dict[Hashable, Step] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Copies prepare their own steps."""
        return self.__dict__ | {"_steps": {}}

    @property
    def plain(self) -> bool:
        """Whether steps are played as they stand."""
        return not (self.graphs or self.compiled)

    @property
    def _spacing(self) -> float | None:
        """The spacing of floats at one that networks compute in; None for that of their outputs."""
        return None if self.precision == "float32" else torch.finfo(torch.bfloat16).eps

    @property
    def settled(self) -> dict[str, str]:
        """Return the choices by key of the configuration, for the record."""
        used = {"performance.graphs": self.graphs, "performance.compile": self.compiled}
        return {key: "always" if value else "never" for key, value in used.items()}

    def describe(self) -> str:
        """Return one line: what is used, and why the rest is not."""
        words = {"graphs": ("CUDA graphs", "no CUDA graphs"), "compile": ("compiled", "not compiled")}
        parts = [f"{no} ({why})" if (why := self.reasons.get(key)) else yes for key, (yes, no) in words.items()]
        return f"networks in {self.precision}, {', '.join(parts)}"

    def tell(self) -> list[str]:
        """Return the news once."""
        news = list(self.news)
        self.news.clear()  # compiled steps hold the same list
        return news

    def equation(self, equation: StandardEquation) -> StandardEquation:
        """Return the equation that steps evaluate: the same weights, its networks in the chosen precision."""
        if self.precision == "float32":
            return equation
        low: dict[int, nn.Module] = {id(equation.model): LowModel(equation.model)}
        low |= {id(metric): LowMetric(metric) for metric in equation.metrics().values()}
        return equation.with_parts(lambda part: low.get(id(part), part))

    def play(
        self, player: Player, kind: Hashable, losses: Losses, draws: Draws, broken: Broken, buffers: list[Tensor]
    ) -> tuple[Figures, Broken]:
        """Play a step by the fastest of the chosen ways that proves equal to the plain one.

        Args:
            player: who moves.
            kind: what tells steps of different losses apart: one of each kind is prepared, and kept.
            losses: a function of draws and weights.
            draws: of this step.
            broken: as in :meth:`Player.apply`.
            buffers: what forward passes may move.
        """
        key = (player.name, kind, *((name, t.shape, t.dtype) for name, t in draws.items()))
        step = self._steps.get(key)
        if step is None or (isinstance(step, StaticStep) and not step.is_current):
            step, final = self._prepared(player, losses, draws, buffers)
            if final:
                self._steps[key] = step
        return step(draws, broken)

    def _prepared(self, player: Player, losses: Losses, draws: Draws, buffers: list[Tensor]) -> tuple[Step, bool]:
        """Return the step, and whether that stands for later ones: what is not finite decides nothing."""
        draws = next(cut(draws, player.pieces, player.name))  # each piece is a step of its own, but for the moving
        plain, impure = evaluate(losses, draws, player.parameters, buffers)
        if impure or not all(bool(t.isfinite().all()) for t in plain):
            self.news += [f"plain steps for {player.name}: {impure}"] if impure else []
            return eager_step(player, losses), bool(impure)
        if self.compiled:
            try:
                fast = Compiled(losses, self.backend, self.news, player.name)
                must_agree(plain, evaluate(fast.compiled, draws, player.parameters, buffers)[0], self._spacing)
                losses = fast
            except Exception as error:  # noqa: BLE001  a compiler may raise anything
                self.news.append(f"{player.name} is not compiled: {reason(error)}")
        if self.graphs:
            taken = player.steps_taken
            try:
                step = StaticStep(player, losses, draws, self.capture or cuda_graph)
                must_agree(plain, step.outcome(), self._spacing)
                return step, True
            except Exception as error:  # noqa: BLE001  a capture may raise anything
                self.news.append(f"no CUDA graph for {player.name}: {reason(error)}")
            finally:
                player.steps_taken = taken
        return eager_step(player, losses), True


def eager_step(player: Player, losses: Losses) -> Step:
    """Return the step as it stands."""
    return lambda draws, broken: player.step(gathered(player, losses, draws), broken)
