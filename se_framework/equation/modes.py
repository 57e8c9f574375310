"""Evaluation mode: what is looked at outside of steps is a function of weights and arguments, and moves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from se_framework.randomness import seed_global


@contextmanager
def evaluating(*modules: nn.Module | None, seed: int = 0) -> Iterator[None]:
    """Evaluate modules within: dropout off, batch normalisation by its running figures, torch's own generators seeded.

    Afterwards every module is in the mode in which it was, and the generators stand where they stood.

    Args:
        modules: to be evaluated; None is passed over.
        seed: of torch's own generators, on which a part may draw in evaluation too.
    """
    parts = [part for module in modules if module is not None for part in module.modules()]
    modes = [(part, part.training) for part in parts]
    devices = {t.device for module in modules if module is not None for t in module.parameters()}
    forked = [device for device in devices if device.type == "cuda"]
    try:
        for part in parts:
            part.training = False
        with torch.random.fork_rng(forked):
            for device in devices or {torch.device("cpu")}:
                seed_global(seed, 0, "evaluation", device)
            yield
    finally:
        for part, mode in modes:
            part.training = mode
