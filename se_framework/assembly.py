"""From a validated configuration to objects: equation, players, data. The only reader of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from models.base import Model
from se_framework.config.build import find, locating
from se_framework.config.objects import callbacks_of
from se_framework.config.parts import all_outlined, check_objects, outlined
from se_framework.config.stages import stage_at, stages_of
from se_framework.config.states import Course, start, state_of
from se_framework.config.trackers.following import Follower, follower_of
from se_framework.config.trust import Noting, Trust
from se_framework.data import Data
from se_framework.ensemble import Ensemble, member_config, members_of
from se_framework.equation.equation import StandardEquation
from se_framework.equation.metric import Metric
from se_framework.errors import ConfigError, IncompatibleError
from se_framework.pictures.frames import frame
from se_framework.pictures.plots import picture
from se_framework.runs.directory import RunDirectory
from se_framework.runs.lock import locked
from se_framework.training.callbacks import Callback
from se_framework.training.from_q import Drawn, draw_q
from se_framework.training.loop import train
from se_framework.training.sampling import blocks, enumerate_rows
from se_framework.training.state import TrainState
from se_framework.training.weights import save_weights


@dataclass
class Assembly:
    """The objects of one configuration.

    Attributes:
        config: the configuration they were made from.
        state: equation, players and counters.
        data: p_d.
        device: where the model lives.
        course: the stages of the run, where it changes its course; the state is that of one of them.
        locator: turns names into objects, as far as the configuration may name them.
        follower: tells the configured tracker of the run.
    """

    config: DictConfig
    state: TrainState
    data: Data
    device: torch.device
    course: Course | None = None
    locator: Callable[[str, str], Any] = find
    follower: Follower = field(default_factory=Follower, init=False, repr=False)
    _listeners: list[Callback] | None = field(default=None, init=False, repr=False)

    @property
    def equation(self) -> StandardEquation:
        """The equation with its trained (averaged) modules."""
        return self.state.trained()

    @property
    def model(self) -> Model:
        """The trained model p_theta."""
        return self.equation.model

    @property
    def metric(self) -> Metric | None:
        """The trained metric f_phi, or None."""
        return self.equation.metric

    def sample(self, n: int, seed: int = 0, label: int | None = None, **settings: float) -> Tensor:
        r"""Draw n samples of the trained model in the user's units, shape (n, \*E).

        They are drawn in blocks, each from its own stream and through networks in evaluation mode: fewer are the first
        of more, and one does not depend on the others.

        Args:
            n: how many.
            seed: of the draw.
            label: the class of all samples, where the data has labels; None draws labels as in the training data.
            settings: that the model's samples have, such as ``temperature`` (:meth:`models.Model.at_sampling`).

        Raises:
            ConfigError: no such label or setting.
        """
        found: Tensor | None = None
        for first, block in enumerate_rows(self.sample_blocks(n, seed, label, **settings)):
            found = block.new_empty((n, *block.shape[1:])) if found is None else found
            found[first : first + len(block)] = block
        return self.data.to_user(torch.empty(0, *self.data.event_shape)) if found is None else found

    def sample_blocks(self, n: int, seed: int = 0, label: int | None = None, **settings: float) -> Iterator[Tensor]:
        r"""Yield the samples of :meth:`sample` block by block, shape (m, \*E): no more than one is in memory."""
        return blocks(self.model, self.data, n, seed, label, self.device, **settings)

    def sample_q(self, n: int, seed: int = 0, method: str | None = None, label: int | None = None) -> Drawn:
        """Draw n samples of q in the user's units, see :func:`se_framework.training.from_q.draw_q`."""
        return draw_q(self.equation, self.data, n, seed, method, label, self.device)

    def train(self, run: RunDirectory | None = None, callbacks: Sequence[Callback] = ()) -> TrainState:
        """Play the configured rounds, with pictures and scores where the configuration wants them.

        Args:
            run: where rows, pictures and checkpoints go, made a run if it is none; None keeps the rows in memory only.
            callbacks: hear of rows, scores, pictures and checkpoints, after those of the configuration.

        Raises:
            RunDirectoryError, NonFiniteError, StepError, CallbackError: see :func:`se_framework.train`.
        """
        heard, self._listeners = [*self.listeners(), *callbacks], None
        if run is not None and not run.is_run:
            self.start(run)
        held = nullcontext() if run is None else locked(run.path)
        with locating(self.locator), held, self.follower.through(self, run):
            if self.course is None:
                return self._play(self.config, run, heard)
            for k in range(self.course.at, len(self.course.stages)):
                if k > self.course.at:
                    self.state, self.data = self.course.enter(k, self.state)
                if self._play(self.course.stages[k], run, heard).stopped_by is not None:
                    break
        return self.state

    def listeners(self) -> list[Callback]:
        """Return the callbacks of the configuration, its tracker's included, made once for the next :meth:`train`."""
        if self._listeners is None:
            self.follower = follower_of(self.config)
            self._listeners = [*callbacks_of(self.config, self.locator), self.follower]
        return self._listeners

    def start(self, run: RunDirectory) -> None:
        """Make a directory that of this run: :func:`se_framework.config.states.start`."""
        self.config = start(run, self.config, self.state, self.data, self.device)

    def _play(self, config: DictConfig, run: RunDirectory | None, callbacks: Sequence[Callback]) -> TrainState:
        from se_framework.evaluation.evaluate import score_row
        from se_framework.evaluation.validation import early_stop_of

        loop = config.loop
        return train(  # type: ignore[return-value]
            self.state, self.data, rounds=loop.rounds, batch_size=loop.batch_size, horizon=loop.horizon,
            log_every=loop.log_every, checkpoint_every=loop.checkpoint_every, picture_every=loop.picture_every,
            evaluate_every=loop.evaluate_every, evaluate=partial(score_row, self),
            early_stop=early_stop_of(self), picture=frame, run=run,
            callbacks=callbacks, progress=config.progress,
        )  # fmt: skip

    def scores(self, n: int | None = None, seed: int = 0) -> dict[str, dict[str, Any]]:
        """Return every score of the trained model, see :func:`se_framework.evaluate`."""
        from se_framework.evaluation.evaluate import evaluate

        return evaluate(self, n, seed)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        r"""Return the trained model's log-density in the user's units, shape (n,), in nats, float64 on the CPU.

        .. math:: \log p_{user}(x) = \log p_{model}\!\left(\frac{x-\text{loc}}{\text{scale}}\right)
            - \sum_i\log|\text{scale}_i|

        Args:
            x: points in the user's units, shape (n, \*E).
            context: their labels, shape (n,), where the data has labels.

        Raises:
            IncompatibleError: the model has no density.
            ValueError: the points have another shape, or labels are missing.
        """
        from se_framework.evaluation.evaluate import log_density

        if not self.state.equation.model.has_log_prob:
            name = type(self.state.equation.model).__name__
            raise IncompatibleError(f"{name} has no density: choose a model with one")
        if tuple(x.shape[1:]) != tuple(self.data.event_shape):
            raise ValueError(
                f"points have shape {tuple(x.shape)}, expected (n, {', '.join(map(str, self.data.event_shape))})"
            )
        inner = self.data.to_model(x)
        found = log_density(self, inner, context) - self.data.log_slope(inner).cpu()
        return torch.where(self.data.covers(x).cpu(), found, -torch.inf)

    def plot(self, path: str | Path, samples: Tensor | None = None, note: str | None = None) -> None:
        """Draw samples beside data, with the model's density where there is one, into a picture (.png).

        Args:
            path: the file.
            samples: in the user's units; by default 1,000 of the trained model, or 64 images.
            note: what the picture shall say besides.

        Raises:
            RunDirectoryError: the file cannot be written.
        """
        from se_framework.evaluation.evaluate import log_density

        known = self.state.equation.model.has_log_prob and not self.data.classes
        density = partial(log_density, self) if known else None
        drawn = self.sample(64 if self.data.kind == "image" else 1000) if samples is None else samples
        picture(self.data, drawn, Path(path), model_log_prob=density, note=note)

    def save(self, path: str | Path) -> int:
        """Write the trained (averaged) weights to a .safetensors file and return the number of tensors.

        See :func:`se_framework.training.weights.save_weights` for their names and what else is in it.
        """
        text = OmegaConf.to_yaml(self.config, resolve=True)
        return save_weights(Path(path), self.equation, text, self.state.round, self.device)


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
        """Refused with a ConfigError: every member has its own."""
        raise ConfigError(f"an ensemble has {len(self.members)} members, each with its own model: take members[k]")

    @property
    def ensemble(self) -> Ensemble:
        """The state, of all members."""
        assert isinstance(self.state, Ensemble)
        return self.state


def assembly_of(
    config: DictConfig,
    data: Any = None,
    trust: Trust | None = None,
    own: Path | None = None,
    rounds: int = 0,
    **objects: Any,
) -> Assembly:
    """Build everything a configuration names, checking legality before parameters are allocated.

    Of an ensemble it is an :class:`EnsembleAssembly`.

    Args:
        config: validated by :func:`se_framework.config.schema.validate`.
        data: a tensor, Dataset or Data in the place of the configured one.
        trust: what the configuration may name, if it was read from a run directory; None for one of the user's own,
            which names anything.
        own: the directory of the run that is about to start.
        rounds: that have been played: of a run with stages the stage of that round is built.
        objects: parts in the place of the configured ones: ``divergence=KL()``, ``model=...``.

    Raises:
        ConfigError: a plug-in's arguments are wrong, or it may not be named.
        DataError: the data is missing or malformed, or smaller than a batch.
        IncompatibleError: the choices do not form a legal equation.
    """
    check_objects(objects)
    for name, given in objects.items():  # what a run keeps: it must be given again
        config[name] = f"{type(given).__module__}.{type(given).__qualname__}, an object from Python"
    locator = (Noting() if trust is None else trust).locate
    with locating(locator):
        count, stages = members_of(config), stages_of(config)
        if count == 1:
            parts = all_outlined(stages, data, objects)
            at = stage_at(stages, rounds)
            state, device = state_of(stages[at], parts[at], trust is None and at == 0, own)
            course = None
            if config.stages:
                config.loop.rounds, state.stage = stages[-1].loop.rounds, at
                course = Course(stages, parts, at)
            return Assembly(config, state, parts[at].data, device, course, locator)
        if objects:
            raise ConfigError(f"an ensemble builds its members' parts itself: leave out {', '.join(objects)}")
        configs = [member_config(config, k) for k in range(count)]
        members: list[Assembly] = []
        for one in configs:
            chosen = outlined(one, members[0].data if members else data, {}, count)
            state, device = state_of(one, chosen, trust is None, own, count)
            members.append(Assembly(one, state, chosen.data, device))
    config.loop.batch_size, config.loop.early_stop = configs[0].loop.batch_size, configs[0].loop.early_stop
    states, first = [member.state for member in members], members[0]
    found = EnsembleAssembly(config, Ensemble(states), first.data, first.device, members)
    found.locator = locator
    return found
