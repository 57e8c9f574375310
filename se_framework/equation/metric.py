"""The metric f_phi: a network, its function class, and what holds it there."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from divergences.base import Divergence
from models.base import Model
from models.laws import Particles
from se_framework.equation.modes import evaluating
from se_framework.equation.penalties import Penalty
from se_framework.errors import ConfigError, IncompatibleError

BATCH_NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm,
    nn.LazyBatchNorm1d, nn.LazyBatchNorm2d, nn.LazyBatchNorm3d,
)  # fmt: skip
"""What couples the examples of a batch, and moves its buffers in every forward pass."""


class Metric(nn.Module):
    r"""f_phi: from x, shape (B, \*E), to one score v per example, shape (B,), or to points of an embedding.

    The function class is what the network is by construction (a constant ``lipschitz`` on its class), what the penalty
    drives it to, or what clipping leaves; otherwise it is unrestricted.

    *Weight clipping* (Arjovsky, Chintala, Bottou 2017, algorithm 1) keeps every parameter in [-c, c]: the network is
    K-Lipschitz with an unknown K that depends on c, width and depth, so the dual's value is at most K W1. Measured in
    the plane (``benchmarks/quality/w1_clip.json``; width 32 or 128, depth 1 or 3): c = 0.01 reads 0.01 to 1.2 % of the
    W1 of two shifted Gaussians, 0.01 to 0.5 % where one is the other scaled by two; c = 0.1 reads 25 to 136 % and 7 to
    64 % with width 32, 107 to 6600 % and 42 to 3200 % with width 128. It is a direction for theta, not a distance.

    Args:
        network: a module from (B, \*E) to (B,), or to (B, k) if it has an attribute ``outputs`` = k (an embedding).
        penalty: added to phi's loss; None for none.
        clip: c, > 0; None for no clipping.

    Attributes:
        outputs: dimension of the embedding, None where the network returns scores.

    Raises:
        ConfigError: c is not positive, or the network is another part of the equation.
    """

    def __init__(self, network: nn.Module, penalty: Penalty | None = None, clip: float | None = None) -> None:
        super().__init__()
        if clip is not None and not 0 < clip < float("inf"):
            raise ConfigError(f"metric.clip must be a positive number or null, got {clip}")
        if isinstance(network, Model | Divergence):
            raise ConfigError(
                f"metric.network must map examples to scores, got {type(network).__name__}, which is no network but a "
                "model or divergence: choose one of metric=..."
            )
        self.network = network
        self.outputs: int | None = getattr(network, "outputs", None)
        self.penalty = penalty
        self.clip = clip
        self.settle()

    @property
    def sources(self) -> tuple[str, ...]:
        """Keys of references: that of weight clipping."""
        return () if self.clip is None else ("arjovsky2017wasserstein",)

    @property
    def function_class(self) -> str:
        """Return ``"1-Lipschitz by construction"``, ``"1-Lipschitz by penalty"``, ... or ``"unrestricted"``."""
        constant = getattr(self.network, "lipschitz", None)
        if constant is not None and constant <= 1:
            return "1-Lipschitz by construction"
        if self.penalty is not None and self.penalty.enforces_lipschitz and self.penalty.weight > 0:
            return "1-Lipschitz by penalty"
        if self.clip is not None:
            return "Lipschitz by clipping, of unknown constant"
        return "unrestricted"

    @property
    def bounded(self) -> bool:
        """Whether the outputs lie in a bounded set."""
        return bool(getattr(self.network, "bounded", False))

    @property
    def has_context(self) -> bool:
        """Whether the network can read class labels."""
        return bool(getattr(self.network, "has_context", False))

    @property
    def batch_coupled(self) -> bool:
        """Whether one example's score depends on the others (batch normalisation)."""
        return any(isinstance(m, BATCH_NORMS) for m in self.network.modules())

    @property
    def settles(self) -> bool:
        """Whether :meth:`settle` does anything."""
        return self.clip is not None

    @torch.no_grad()
    def settle(self) -> None:
        """Clip the parameters: called after every step of phi (networks with a ``settle`` of their own likewise)."""
        if self.clip is not None:
            for parameter in self.network.parameters():
                parameter.clamp_(-self.clip, self.clip)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        r"""Return v, shape (B,), or the embedded points, shape (B, k).

        Args:
            x: examples, shape (B, \*E).
            context: their labels, shape (B,), for a network that reads them.

        Raises:
            ValueError: the network returned another shape.
        """
        v = self.network(x) if context is None else self.network(x, context)
        if self.outputs is not None:
            if v.shape != (len(x), self.outputs):
                raise ValueError(
                    f"metric.network {type(self.network).__name__} returned {tuple(v.shape)} for a batch of {len(x)}: "
                    f"it declares an embedding of {self.outputs} dimensions, so shape (B, {self.outputs}) is needed"
                )
        elif v.shape != x.shape[:1]:
            raise ValueError(
                f"metric.network {type(self.network).__name__} returned {tuple(v.shape)} for a batch of {len(x)}: "
                "one score per example, shape (B,), is needed (squeeze the last axis)"
            )
        return v

    def on_both(self, data: Particles, p: Particles) -> tuple[Tensor, Tensor]:
        """Return the outputs on data and on p's particles: of one pass where the network says that rows are separate.

        One pass over both takes less time than two, forward and back. A network that does not declare ``row_wise`` may
        couple the examples of a batch, and would then see another batch.
        """
        x, y = data.x, p.x
        separate = not getattr(self.network, "row_wise", False) or (data.context is None) != (p.context is None)
        if separate or x.dtype != y.dtype or x.shape[1:] != y.shape[1:]:
            return self(x, data.context), self(y, p.context)
        context = None
        if data.context is not None and p.context is not None:
            context = torch.cat((data.context, p.context))
        v_data, v = self(torch.cat((x, y)), context).split((len(x), len(y)))
        return v_data, v

    def on_pairs(self, x: Tensor, y: Tensor) -> Tensor | None:
        """Return the outputs at x of these points beside y of those, shape (A, K), where the network has ``on_pairs``.

        That is where it knows a shorter way than A K passes; else None.
        """
        own = getattr(self.network, "on_pairs", None)
        return None if own is None else own(x, y)

    def given(self, context: Tensor | None) -> Metric | Given:
        """Return the metric as a function of points alone, at fixed labels."""
        return self if context is None else Given(self, context)

    def gradient(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        r"""Return :math:`\nabla_x v` at each example, shape (B, \*E), differentiable in phi.

        Networks that know a shorter way than differentiating their scores have a method ``gradient``.
        """
        own = getattr(self.network, "gradient", None)
        if own is not None:
            return own(x) if context is None else own(x, context)
        return torch.func.grad(lambda points: self(points, context).sum())(x)

    def log_ratio(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return v, which at the optimum of an f-divergence's dual (auxiliary=dual) is log(p_d/p_theta), shape (B,).

        Under another auxiliary v is shifted or tilted: ``StandardEquation.log_ratio`` takes that off. The network is in
        evaluation mode for it: dropout is off, batch normalisation goes by its running figures.

        Raises:
            IncompatibleError: a constrained function class holds no log-ratio.
        """
        if self.function_class != "unrestricted":
            raise IncompatibleError(
                f"metric is {self.function_class}: its output is a potential, no log-ratio; train an unrestricted one"
            )
        with evaluating(self):
            return self.forward(x, context)


class Given(NamedTuple):
    """A metric at fixed labels."""

    metric: Metric
    context: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return the scores, shape (B,)."""
        return self.metric(x, self.context)

    def gradient(self, x: Tensor) -> Tensor:
        r"""Return the scores' gradients, shape (B, \*E)."""
        return self.metric.gradient(x, self.context)
