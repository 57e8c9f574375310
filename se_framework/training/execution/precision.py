r"""Networks in bf16 inside player steps.

Their forward passes run under ``torch.autocast``. What they return is float32 again, and so is everything of the
equation: scores, links, means, penalties' norms, weights, moments, averages. Rows, scores and samples are computed by
the float32 networks that a checkpoint holds, as in any loop that has autocast around its training step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.base import Model, Stream
from models.laws import Particles
from se_framework.equation.metric import Metric
from se_framework.errors import IncompatibleError

Precision = Literal["float32", "bf16"]


def check_precision(precision: Precision, model: type[nn.Module]) -> None:
    """Refuse bf16 for a model with density.

    Its log-determinants are sums of logarithms of what its networks return, with no float32 island between.

    Raises:
        IncompatibleError: see above.
    """
    if precision == "bf16" and getattr(model, "has_log_prob", False):
        raise IncompatibleError(
            f"performance.precision=bf16: the log-densities of {model.__name__} need float32: "
            "add performance.precision=float32"
        )


def low(x: Tensor) -> torch.autocast:
    """Return autocast to bf16 on the device of x.

    Without its cache, as torch wants it where CUDA graphs are recorded; a weight is cast once a pass anyway.
    """
    return torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False)


class LowMetric(Metric):
    """A metric whose network computes in bf16; scores, embeddings and gradients are of the points' type.

    Args:
        metric: the metric, whose network and penalty are shared.
    """

    def __init__(self, metric: Metric) -> None:
        nn.Module.__init__(self)
        self.network, self.penalty, self.clip = metric.network, metric.penalty, metric.clip
        self.outputs = metric.outputs

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return v, or the embedded points."""
        with low(x):
            v = super().forward(x, context)
        return v.to(x.dtype)

    def gradient(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the gradient of v."""
        with low(x):
            gradient = super().gradient(x, context)
        return gradient.to(x.dtype)


class LowModel(nn.Module):
    """A model without density whose network computes in bf16; its particles are of the noise's type.

    Args:
        model: the model, which is shared.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.has_log_prob, self.discrete, self.smallest_dimension = False, model.discrete, model.smallest_dimension
        self.pairs = model.pairs

    def forward(self, context: Tensor | None = None) -> Any:
        """Return the law at the current parameters, whose particles are of the parameters' type."""
        return self.model(context)

    def seen(self, batch: Particles) -> Particles:
        """Return data as the model can look like it."""
        return self.model.seen(batch)

    def draws(self, n: int, stream: Stream, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return what the model draws."""
        return self.model.draws(n, stream, context)

    def particles(self, draws: dict[str, Tensor], context: Tensor | None = None) -> Particles:
        """Return the model's particles, computed in bf16."""
        like = next(iter(draws.values()))
        with low(like):
            p = self.model.particles(draws, context)
        return replace(p, x=p.x.to(like.dtype))
