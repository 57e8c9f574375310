"""From a validated configuration to objects: equation, players, data. The only reader of the configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from divergences.base import Absent, Divergence
from models.base import Model
from se_framework.config.build import assemble, build, find, locating, resolve
from se_framework.config.objects import choose_device, optimizer_factory, summand
from se_framework.config.trust import Trust
from se_framework.data import Data, as_data
from se_framework.ensemble import Ensemble, member_config, members_of
from se_framework.equation.auxiliary import Auxiliary
from se_framework.equation.equation import StandardEquation, legality
from se_framework.equation.metric import Metric
from se_framework.equation.modes import evaluating
from se_framework.errors import ConfigError, DataError
from se_framework.randomness import generator, stream_seed
from se_framework.runs.directory import RunDirectory
from se_framework.training.execution import check_precision, choose
from se_framework.training.loop import train
from se_framework.training.players import make_players
from se_framework.training.state import TrainState

BLOCK = 256
"""Samples drawn at once."""


@dataclass
class Assembly:
    """The objects of one configuration.

    Attributes:
        config: the configuration they were made from.
        state: equation, players and counters.
        data: p_d.
        device: where the model lives.
    """

    config: DictConfig
    state: TrainState
    data: Data
    device: torch.device

    @property
    def equation(self) -> StandardEquation:
        """The equation with its trained (averaged) modules."""
        return self.state.trained()

    @property
    def model(self) -> nn.Module:
        """The trained model p_theta."""
        return self.equation.model

    @property
    def metric(self) -> Metric | None:
        """The trained metric f_phi, or None."""
        return self.equation.metric

    def sample(self, n: int, seed: int = 0, label: int | None = None) -> torch.Tensor:
        r"""Draw n samples of the trained model in the user's units, shape (n, \*E).

        They are drawn in blocks, each from its own stream and through networks in evaluation mode: fewer are the first
        of more, and one does not depend on the others.

        Args:
            n: how many.
            seed: of the draw.
            label: the class of all samples, where the data has labels; None draws labels as in the training data.

        Raises:
            ConfigError: no such label.
        """
        model, context = self.model, self._context(-(-n // BLOCK) * BLOCK, seed, label)
        drawn = []
        with torch.no_grad(), evaluating(model, seed=seed):
            for number in range(-(-n // BLOCK)):
                labels = None if context is None else context[number * BLOCK : (number + 1) * BLOCK]
                stream = generator(seed, number, "sample", self.device)
                drawn.append(self.data.to_user(model(labels).sample((BLOCK,), generator=stream)))
        return torch.cat(drawn)[:n]

    def _context(self, n: int, seed: int, label: int | None) -> torch.Tensor | None:
        """Return the labels of n samples."""
        if label is not None and not 0 <= label < self.data.classes:
            known = f"0..{self.data.classes - 1}" if self.data.classes else "none: train with data.labels=true"
            raise ConfigError(f"label={label} is no class of {self.data.name}, which has {known}")
        if not self.data.classes:
            return None
        if label is not None:
            return torch.full((n,), label, device=self.device)
        rows = min(n, self.data.train_size or n)
        own = stream_seed(seed, 0, "labels")
        drawn = [self.data.batch(start, rows, own, self.device).context for start in range(0, n, rows)]
        return torch.cat([t for t in drawn if t is not None])[:n]

    def train(
        self, run: RunDirectory | None = None, evaluate: Callable[[TrainState], dict[str, float | str]] | None = None
    ) -> TrainState:
        """Play the configured rounds, and call ``evaluate`` where the configuration wants scores."""
        from se_framework.pictures.frames import frame

        loop = self.config.loop
        return train(  # type: ignore[return-value]
            self.state, self.data, rounds=loop.rounds, batch_size=loop.batch_size, horizon=loop.horizon,
            log_every=loop.log_every, checkpoint_every=loop.checkpoint_every, picture_every=loop.picture_every,
            evaluate_every=loop.evaluate_every, evaluate=evaluate, picture=frame, run=run,
            progress=self.config.progress,
        )  # fmt: skip


class EnsembleAssembly(Assembly):
    """The objects of an ensemble: ``members[k]`` is the :class:`Assembly` of member k, as of its own single run.

    Args:
        config: of the ensemble.
        state: of all members.
        data: p_d, common to all.
        device: where the models live.
        members: one for each.
    """

    def __init__(
        self, config: DictConfig, state: Ensemble, data: Data, device: torch.device, members: list[Assembly]
    ) -> None:
        super().__init__(config, state, data, device)  # type: ignore[arg-type]
        self.members = members

    @property
    def equation(self) -> StandardEquation:
        """Refused: every member has its own.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"an ensemble has {len(self.members)} members, each with its own model: take members[k]")

    @property
    def ensemble(self) -> Ensemble:
        """The state, of all members."""
        assert isinstance(self.state, Ensemble)
        return self.state

    def _context(self, n: int, seed: int, label: int | None) -> torch.Tensor | None:
        raise ConfigError(f"an ensemble has {len(self.members)} members, each with its own samples: take members[k]")


def _check_stackable(
    members: int, config: DictConfig, model: Any, metric: Metric | None, divergences: list[Any],
    auxiliaries: list[Any], made_for: dict[str, Any], data: Data,
) -> None:  # fmt: skip
    """Refuse an ensemble of what cannot be evaluated for all members at once; nothing is allocated yet."""
    with torch.device("meta"):
        outlines = [assemble(*model), metric]
        for name, node in (config.plus or {}).items():
            outlines.append(build(node.get("metric"), f"plus.{name}.metric", **made_for))
            divergences.append(build(node.get("divergence"), f"plus.{name}.divergence", **made_for))
            auxiliaries.append(build(node.get("auxiliary"), f"plus.{name}.auxiliary", **made_for))
    optimizer = resolve(config.optimizer, "optimizer", torch.optim.Optimizer)[0]
    legality.refuse(
        legality.ensemble(
            members,
            [outline for outline in outlines if outline is not None],
            [divergence for divergence in divergences if divergence is not None],
            [optimizer] if isinstance(optimizer, type) else [],
            data,
            [auxiliary for auxiliary in auxiliaries if auxiliary is not None],
        )
    )


def assembly_of(config: DictConfig, data: Any = None, trust: Trust | None = None) -> Assembly:
    """Build everything a configuration names, checking legality before parameters are allocated.

    Of an ensemble it is an :class:`EnsembleAssembly`.

    Args:
        config: validated by :func:`se_framework.config.schema.validate`.
        data: a tensor, Dataset or Data in the place of the configured one.
        trust: what the configuration may name, if it was read from a run directory; None for one of the user's own,
            which names anything.

    Raises:
        ConfigError: a plug-in's arguments are wrong, or it may not be named.
        DataError: the data is missing or malformed, or smaller than a batch.
        IncompatibleError: the choices do not form a legal equation.
    """
    with locating(find if trust is None else trust.locate):
        count = members_of(config)
        if count == 1:
            return _assembly_of(config, data)
        first = _assembly_of(member_config(config, 0), data, count)
        members = [first, *(_assembly_of(member_config(config, k), first.data, count) for k in range(1, count))]
    return EnsembleAssembly(config, Ensemble([member.state for member in members]), first.data, first.device, members)


def _assembly_of(config: DictConfig, data: Any, members: int = 1) -> Assembly:
    """Build a single run, or one of several members."""
    device = choose_device(config.device)
    source = build(config.data, "data", workers=config.workers) if data is None else data
    chosen = as_data(source, config.workers)
    if chosen.train_size is not None and config.loop.batch_size > chosen.train_size:
        raise DataError(
            f"loop.batch_size={config.loop.batch_size} is larger than the data: {chosen.name} has {chosen.train_size} "
            f"training rows; choose loop.batch_size={chosen.train_size} or less"
        )
    shape, rate, equation_config = chosen.event_shape, config.loop, config.equation
    made_for: dict[str, Any] = {"event_shape": shape, "image_shape": chosen.image_shape, "classes": chosen.classes}
    divergence = build(config.divergence, "divergence", Divergence, **made_for)
    auxiliary = build(config.auxiliary, "auxiliary", Auxiliary, **made_for)
    views = {
        str(name): build(player.view, f"players.{name}.view", Divergence, **made_for)
        for name, player in config.players.items()
    }
    views = {name: view for name, view in views.items() if view is not None}
    model = resolve(config.model, "model", Model, **made_for)
    network = resolve(config.metric.network, "metric.network", **made_for)[0] if _has_network(config.metric) else None
    for key, part in (("model", model[0]), ("auxiliary", auxiliary)):
        if part is None:
            raise ConfigError(f"{key} must be chosen, got none: the equation needs it")
    divergence = Absent() if divergence is None else divergence
    if not isinstance(model[0], type):
        raise ConfigError(f"model._target_ must be a class, got {config.model['_target_']}: its declarations are read")

    check_precision(config.performance.precision, model[0])
    legality.refuse(legality.images(model[0], network, chosen.image_shape, divergence, auxiliary))
    with torch.device("meta"):  # shapes and declarations without memory
        outline = build(config.metric, "metric", Metric, **made_for)
    warnings = legality.check(
        legality.Choice(
            model[0], divergence, auxiliary, outline, equation_config.alpha, equation_config.beta,
            views, torch.Size(shape).numel(), chosen.classes,
        ),
        config.allow,
    )  # fmt: skip
    if members > 1:
        chosen_parts = [divergence, *views.values()], [auxiliary]
        _check_stackable(members, config, model, outline, *chosen_parts, made_for, chosen)

    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(stream_seed(config.seed, 0, "weights"))
        built = assemble(*model)
        metric = build(config.metric, "metric", Metric, **made_for)
        plus = {name: summand(node, f"plus.{name}", built, made_for) for name, node in (config.plus or {}).items()}
        equation = StandardEquation(
            model=built, divergence=divergence, auxiliary=auxiliary, metric=metric,
            alpha=equation_config.alpha, beta=equation_config.beta, allow=config.allow, plus=plus,
        ).to(device)  # fmt: skip
    equation.warnings = warnings  # those of the players' views and of the dimension included
    options: dict[str, Any] = {}
    for name, player in config.players.items():
        options[str(name)] = {
            "steps": player.steps, "ema": player.ema, "decay": player.decay or rate.decay, "warmup": rate.warmup,
            "view": views.get(str(name)), "optimizer": optimizer_factory(config.optimizer, player.lr),
        }  # fmt: skip
    players, wanted = make_players(equation, **options), config.performance
    execution = choose(wanted.graphs, wanted.compile, wanted.precision, equation, players, device, members)
    state = TrainState(equation, players, seed=config.seed, execution=execution)
    return Assembly(config, state, chosen, device)


def _has_network(node: Any) -> bool:
    return isinstance(node, DictConfig) and isinstance(node.get("network"), DictConfig)
