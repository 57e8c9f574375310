r"""What generators with batch normalisation have in common: samples by standing statistics."""

from __future__ import annotations

import copy
from math import inf

import torch
from torch import Tensor, nn

from models.generators import Generator, truncated
from models.laws import PushForward

BATCH = 64
"""Particles of one of the batches of which standing statistics are made."""


class NormalisedGenerator(Generator):
    r"""A generator with batch normalisation; base of those for images.

    While it trains, means and variances are those of the batch: particles are coupled. Samples, scores and the record
    go by running figures, so no sample depends on another: of the last batches that steps have seen, and of an average
    of the weights the average of those. Samples may instead be drawn by *standing statistics* (``standing`` = N): means
    and variances of N batches at the weights themselves, at the truncation of the samples and with every class as
    often (Brock, Donahue, Simonyan, ICLR 2019, appendix D).
    """

    sampling = Generator.sampling | {"standing"}
    _kept: tuple[object, ...] = ()

    def at_sampling(
        self, context: Tensor | None = None, truncation: float = inf, standing: float = 0, **settings: float
    ) -> PushForward:
        """Return the law at a truncation, by standing statistics of so many batches; 0 for the running figures.

        Raises:
            ValueError: a value out of range, or another setting.
        """
        if standing != int(standing) or standing < 0:
            raise ValueError(f"standing must be a whole number of batches, got {standing:g}; 16 are many")
        own = super().at_sampling(context, truncation, **settings)
        if not standing:
            return own
        twin = self._standing(int(standing), truncation)
        return super(NormalisedGenerator, twin).at_sampling(context, truncation, **settings)

    def _standing(self, batches: int, truncation: float) -> NormalisedGenerator:
        """Return a copy whose running figures are standing statistics: the last that was made, if nothing has moved."""
        state = tuple((id(t), t._version) for t in self.parameters())
        key: tuple[object, ...] = (batches, truncation, state)
        if self._kept[:1] != (key,):
            twin = copy.deepcopy(self)
            twin._kept = ()
            self._kept = (key, with_standing_statistics(twin, batches, truncation))
        found = self._kept[1]
        assert isinstance(found, NormalisedGenerator)
        return found


@torch.no_grad()
def with_standing_statistics(model: Generator, batches: int, truncation: float = inf) -> Generator:
    """Let a generator's running figures be the means over batches of its own particles; return it in evaluation mode.

    Args:
        model: is changed.
        batches: how many.
        truncation: of z.
    """
    model.eval()
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    like = next(model.parameters())
    generator = torch.Generator(like.device).manual_seed(0)
    for _ in range(batches):
        z = truncated((BATCH, model.latent_dim), truncation, like, generator)
        labels = torch.arange(BATCH, device=like.device) % model.classes if model.classes else None
        model.push(z, labels)
    return model.eval()
