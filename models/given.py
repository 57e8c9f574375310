r"""A law that is given and not learnt: :math:`p` is known by its points alone, and theta is absent."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from models.base import Model, check_context
from models.laws import Particles, Source, WithoutLatents


class Given(Model):
    r"""The law behind a second sample: no parameters, so the equation is a game of the others about D(p_d, p).

    With a metric, an f-divergence and its dual, what is left of the equation is :math:`\max_\phi`: the estimate of a
    divergence between two laws, and of their density ratio (Nguyen, Wainwright, Jordan 2010; Belghazi et al. 2018 where
    p is the product of margins). In training mode points come from training rows, with replacement; in evaluation from
    held-out rows, each once, so that standard errors are those of independent points.

    Args:
        event_shape: shape E of one example.
        reference: the law's points; data that compares two laws gives it.
        classes: 0; a given law has no labels.

    Raises:
        ValueError: the data gives no second law, or gives labels.
    """

    sources: tuple[str, ...] = ()
    has_log_prob = False
    has_rsample = False
    needs_reference = True

    like: Tensor

    def __init__(self, event_shape: tuple[int, ...], reference: Source | None = None, classes: int = 0) -> None:
        super().__init__(event_shape, classes)
        if reference is None:
            raise ValueError(
                "the data brings no second law to compare with: choose data that does, or give your Data an "
                "attribute reference"
            )
        if classes:
            raise ValueError("a given law has no labels: use data without labels")
        self.reference = reference
        self.pairs = getattr(reference, "first", None)
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def forward(self, context: Tensor | None = None) -> GivenLaw:
        """Return the law of the reference's training rows, or of its held-out rows in evaluation mode.

        Raises:
            ValueError: labels were given.
        """
        check_context(self, context)
        return GivenLaw(self.reference, self.event_shape, self.like, not self.training)


class GivenLaw(WithoutLatents, Distribution):
    r"""The law of a source's points.

    Args:
        source: draws them.
        event_shape: E.
        like: a tensor that fixes dtype and device of the points.
        held_out: whether they come from held-out rows.
    """

    arg_constraints: dict[str, Any] = {}
    has_rsample = False

    def __init__(self, source: Source, event_shape: tuple[int, ...], like: Tensor, held_out: bool) -> None:
        super().__init__(event_shape=torch.Size(event_shape), validate_args=False)
        self.source, self.like, self.held_out = source, like, held_out

    def noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        r"""Draw the points themselves, shape (m, \*E): they depend on no parameter. Of held-out rows m may be less."""
        draw = torch.Generator().manual_seed(_number(generator))
        return self.source.draw(n, draw, self.held_out).to(self.like)

    def particles(self, noise: Tensor) -> Particles:
        """Return the points, with equal weights."""
        return Particles(noise)

    def sample(  # type: ignore[override]  # torch.distributions has no generator argument
        self, sample_shape: torch.Size | tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        r"""Draw points, shape (\*sample_shape, \*E), with replacement where more are wanted than there are."""
        n, draw = torch.Size(sample_shape).numel(), torch.Generator().manual_seed(_number(generator))
        x = self.source.draw(n, draw, self.held_out)
        if len(x) < n:
            x = x[torch.randint(len(x), (n,), generator=draw)]
        return x.to(self.like).reshape(*sample_shape, *self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Refuse: points have no density."""
        raise NotImplementedError("a given law is implicit: it is known by its points, and has no log_prob")


def _number(generator: torch.Generator | None) -> int:
    """Return a seed that a generator on any device gives: rows lie on the CPU, and are chosen there."""
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**62, (), generator=generator, device=device))
