r"""Interfaces: a model returns a law, a critic is the network behind :math:`f_\phi`, an embedding makes a cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from math import prod
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from models.arguments import check_batch as check_batch
from models.arguments import check_context as check_context
from models.arguments import checked_at_least, checked_event_shape, checked_settings
from models.laws import Particles


class Law(Protocol):
    r"""What the framework asks of a law: the part of ``torch.distributions.Distribution`` it uses, plus particles.

    A law with latent variables has ``log_joint(p: Particles)`` as well: :math:`\log p(x_i, z_i)` at the particles' x
    and ``latent``, shape (N,). Without latents it is the log-density, see :class:`models.laws.WithoutLatents`.
    """

    has_rsample: bool

    @property
    def event_shape(self) -> torch.Size:
        """Shape E of one example."""

    def noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw what :meth:`particles` needs for n particles; independent of every parameter."""

    def particles(self, noise: Tensor) -> Particles:
        """Return weighted points that stand for the law, differentiable in the parameters."""

    def sample(
        self, sample_shape: torch.Size | tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw samples without a graph."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-densities, shape (N,)."""


class Stream(Protocol):
    """Gives every purpose of random numbers a generator of its own, so that one more draw moves no other."""

    def __call__(self, purpose: str) -> torch.Generator:
        """Return the generator of a purpose, a word of the caller's choice."""


class Part(nn.Module):
    """A network that is a part of the equation, and may follow a schedule."""

    def at(self, samples: int) -> None:
        """Be told, before every round, how many examples have been seen; here nothing follows from it.

        A schedule sets its buffers by this number and by nothing else, so that a resumed run has the same.
        """

    def check_follows(self, before: nn.Module) -> None:
        """Refuse to go on, in a run with stages, where a part of the stage before ended; here anything may follow.

        Raises:
            ValueError: this one cannot follow; the message says what could.
        """

    @classmethod
    def unmakeable(cls, image_shape: tuple[int, ...]) -> str | None:
        """Return why a network for images is not for those of this shape, (H, W) or (C, H, W); None where it is."""
        return None


class Model(Part, ABC):
    r"""A parametric family :math:`p_\theta`; calling the model returns the law at the current parameters.

    The law keeps the parameters it was called with, so one made under ``torch.func.functional_call`` stays valid
    after that call has returned.

    A *conditional* model (``classes`` > 0) is called with one label per particle and returns the law of as many
    particles, :math:`p_\theta(x_i \mid y_i)`.

    Class attributes:
        has_log_prob: the law has an exact ``log_prob``.
        has_rsample: the law has reparameterised samples.
        smallest_dimension: the smallest number of coordinates of an example that the family is defined for.
        has_context: the family can be conditional: its constructor takes ``classes``.
        needs_image: the family is for images: its constructor takes ``image_shape``.
        needs_reference: the law is a second one of the data's: its constructor takes ``reference``.
        pairs: coordinates of x, where points are pairs (x, y) and the law is the product of the data's margins of x and
            of y; else None.
        discrete: the model reads integers (letters, tokens): data are not cast to the type of its parameters.
        sampling: names of the settings that :meth:`at_sampling` takes, such as ``temperature``.

    Args:
        event_shape: shape E of one example.
        classes: number of classes of the context; 0 for an unconditional model.

    Raises:
        ValueError: a shape without coordinates, or with fewer than ``smallest_dimension``.
    """

    has_log_prob: ClassVar[bool]
    has_rsample: ClassVar[bool]
    smallest_dimension: ClassVar[int] = 1
    has_context: ClassVar[bool] = False
    needs_image: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = False
    pairs: int | None = None
    discrete: ClassVar[bool] = False
    sampling: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, event_shape: tuple[int, ...], classes: int = 0) -> None:
        super().__init__()
        self.classes = classes
        self.event_shape = checked_event_shape(event_shape, type(self).__name__)
        self.dimension = prod(self.event_shape)
        if self.dimension < self.smallest_dimension:
            raise ValueError(
                f"{type(self).__name__} needs examples of at least {self.smallest_dimension} coordinates, "
                f"got event_shape {self.event_shape}; choose another model for this data"
            )

    @abstractmethod
    def forward(self, context: Tensor | None = None) -> Law:
        """Return the law at the current parameters.

        Args:
            context: labels in 0..classes-1, shape (N,), int64, where the model is conditional; else None.

        Raises:
            ValueError: a conditional model got no labels, or an unconditional one got some.
        """

    def at_sampling(self, context: Tensor | None = None, **settings: float) -> Law:
        """Return the law to draw samples from: at settings of ``sampling``, else the model's; ValueError for others."""
        checked_settings(type(self).__name__, settings, self.sampling)
        return self(context)

    def draws(self, n: int, stream: Stream, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return all the randomness of n particles, by purpose; independent of every parameter.

        Args:
            n: number of particles.
            stream: the generator of each purpose.
            context: labels of the particles, shape (n,), where the model is conditional; else None.
        """
        return {"noise": self(context).noise(n, stream("noise"))}

    def particles(self, draws: dict[str, Tensor], context: Tensor | None = None) -> Particles:
        """Return particles of the law, a function of the draws, the parameters and the labels, which they carry.

        Args:
            draws: what :meth:`draws` returned.
            context: the labels that it was given.
        """
        p = self(context).particles(draws["noise"])
        return p if context is None else replace(p, context=context)

    def seen(self, batch: Particles) -> Particles:
        """Return data as this family can look like it, at every draw of a player's step; here as they are.

        A model of a lower resolution than the data's is trained against data of its own. Scores compare with the data.
        """
        return batch

    def prepare(self, batch: Particles) -> None:
        """Be shown the first batch, once before round 0, for initial values that depend on data; here for none."""


class Critic(Part, ABC):
    r"""The network behind :math:`f_\phi`: one score per example.

    Class attributes:
        lipschitz: the Lipschitz constant for the Euclidean norm of the flattened example where the architecture
            guarantees one (for each label, where there are labels), else None.
        has_context: the network can read a label: its constructor takes ``classes``.
        needs_image: the network is for images: its constructor takes ``image_shape``.
        needs_pairs: the network scores pairs (x, y): its constructor takes ``reference``, which says where x ends.
        row_wise: no example's score depends on the others, so data and samples may be scored in one pass.
        batch_multiple: a number that a step's batch must be a multiple of, where a statistic is over groups of as many.

    Args:
        event_shape: shape E of one example.
        classes: number of classes of the context; 0 for none.
    """

    lipschitz: ClassVar[float | None] = None
    has_context: ClassVar[bool] = False
    needs_image: ClassVar[bool] = False
    needs_pairs: ClassVar[bool] = False
    row_wise: ClassVar[bool] = False
    batch_multiple: ClassVar[int] = 1

    def __init__(self, event_shape: tuple[int, ...], classes: int = 0) -> None:
        super().__init__()
        self.classes = classes
        self.event_shape = checked_event_shape(event_shape, type(self).__name__)
        self.dimension = prod(self.event_shape)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        r"""Return the scores of a batch.

        Args:
            x: examples, shape (B, \*E).
            context: labels in 0..classes-1, shape (B,), int64, where the network reads them; else None.

        Returns:
            Scores, shape (B,).

        Raises:
            ValueError: the examples have another shape than E, ``score`` returned another shape than (B,), or labels
                are missing or not expected.
        """
        check_batch(self, "scores", x)
        check_context(self, context)
        scores = self.score(x) if context is None else self.score(x, context)
        if scores.shape != x.shape[:1]:
            raise ValueError(
                f"{type(self).__name__}.score must return one score per example, shape ({len(x)},), got "
                f"{tuple(scores.shape)}; drop the trailing axis"
            )
        return scores

    @abstractmethod
    def score(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        r"""Return the scores, shape (B,), of examples of shape (B, \*E) whose shape has been checked."""


class Embedding(Part, ABC):
    r"""A learned embedding :math:`e_\phi` from examples to :math:`\mathbb R^k`, whose distances serve as ground cost.

    Attributes:
        lipschitz: the Lipschitz constant for the Euclidean norms of the flattened example and of the embedding where
            the architecture guarantees one, else None (class attribute).
        bounded: the embedding lies in a bounded set, whatever the parameters (an instance may differ from its class).
        has_context: the network can read a label (class attribute).
        needs_image: the network is for images: its constructor takes ``image_shape`` (class attribute).
        row_wise: no example's point depends on the others, so data and samples may be embedded in one pass (class
            attribute).
        outputs: k.

    Args:
        event_shape: shape E of one example.
        outputs: k.

    Raises:
        ValueError: a shape without coordinates, or k < 1.
    """

    lipschitz: ClassVar[float | None] = None
    bounded: bool = False
    has_context: ClassVar[bool] = False
    needs_image: ClassVar[bool] = False
    row_wise: ClassVar[bool] = False

    def __init__(self, event_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        checked_at_least("outputs", outputs, 1)
        self.outputs = outputs
        self.event_shape = checked_event_shape(event_shape, type(self).__name__)
        self.dimension = prod(self.event_shape)

    def forward(self, x: Tensor) -> Tensor:
        r"""Return the embedding of a batch.

        Args:
            x: examples, shape (B, \*E).

        Returns:
            Points, shape (B, k).

        Raises:
            ValueError: the examples have another shape than E, or ``embed`` returned another shape than (B, k).
        """
        check_batch(self, "embeds", x)
        points = self.embed(x)
        if points.shape != (*x.shape[:1], self.outputs):
            raise ValueError(
                f"{type(self).__name__}.embed must return shape ({len(x)}, {self.outputs}), got {tuple(points.shape)}"
            )
        return points

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        r"""Return the embedding, shape (B, k), of examples of shape (B, \*E) whose shape has been checked."""
