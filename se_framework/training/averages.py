"""Exponential moving averages of networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from se_framework.equation.metric import BATCH_NORMS


class Average(AveragedModel):
    """The average of a network's weights, and of the running figures of its batch normalisation.

    Other buffers are the network's own: torch's average copies them. Figures of the present weights would not belong to
    averaged ones, and would be noisier.

    Args:
        module: what is averaged.
        decay: weight of the average in an update, in [0, 1); the first is a copy.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__(module, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.decay = decay
        self._norms = [name for name, part in module.named_modules() if isinstance(part, BATCH_NORMS)]

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Follow a network of the same layers."""
        first, own = bool(self.n_averaged == 0), figures(self.module, self._norms)
        before = [t.clone() for t in own]
        super().update_parameters(model)
        if not first:
            for average, old, new in zip(own, before, figures(model, self._norms), strict=True):
                average.copy_(torch.lerp(old, new, 1 - self.decay))


def figures(module: nn.Module, names: list[str]) -> list[Tensor]:
    """Return the running means and variances of batch normalisations by the names of these, where they keep some."""
    norms = [module.get_submodule(name) for name in names]
    return [t for norm in norms for t in (norm.running_mean, norm.running_var) if isinstance(t, Tensor)]
