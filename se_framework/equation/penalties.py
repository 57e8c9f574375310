r"""Penalties on the metric: added to phi's loss, they set or smooth its function class.

All act on the critic's output v and on per-example gradients: the Euclidean norm over **all** non-batch axes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from se_framework.errors import ConfigError
from se_framework.randomness import Stream

Critic = Callable[[Tensor], Tensor]


class Penalty(nn.Module):
    """Base of every penalty.

    Args:
        weight: factor, >= 0.
        every: clock in phi-steps: computed every so many steps and then multiplied by as much (lazy regularisation,
            Karras et al. 2020, appendix B).

    Attributes:
        needs_samples: acts at the model's samples; else it is computed where an auxiliary draws none.
        enforces_lipschitz: drives the metric to be 1-Lipschitz.
        additive: a mean over examples, so that it is the mean of those of pieces of a batch.
        per_example: needs scores that do not couple the examples of a batch.
    """

    needs_samples: bool = True
    enforces_lipschitz: ClassVar[bool] = False
    additive: ClassVar[bool] = False
    per_example: ClassVar[bool] = True

    def __init__(self, weight: float, every: int = 1) -> None:
        super().__init__()
        if not 0 <= weight < float("inf") or every < 1:
            raise ConfigError(f"metric.penalty needs weight >= 0 and every >= 1, got weight={weight}, every={every}")
        self.weight, self.every = weight, every

    def extra_repr(self) -> str:
        """Show weight and clock."""
        return f"weight={self.weight:g}" + (f", every={self.every}" if self.every > 1 else "")

    def draws(self, n: int, stream: Stream) -> dict[str, Tensor]:
        """Return what is random in the penalty of n examples: ``mix``, uniform numbers in [0, 1), shape (n,)."""
        return {"mix": stream.uniform("mix", (n,))}

    def forward(
        self, metric: Critic, x_data: Tensor, x_model: Tensor, mix: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        r"""Return weight times the penalty, shape ().

        Args:
            metric: from (B, \*E) to (B,).
            x_data: data, shape (B, \*E).
            x_model: model samples, shape (B, \*E); the data again where the penalty needs none and there are none.
            mix: uniform numbers in [0, 1), one per example, shape (B,).
            weights: of the model samples where they are not of equal weight (a mixture's quadrature), shape of
                len(x_model), of sum one; only then :meth:`penalty` is given a fifth argument, and only if it
                declares ``needs_samples``.
        """
        more = () if weights is None or not self.needs_samples else (weights,)
        return self.weight * self.every * self.penalty(metric, x_data, x_model, mix, *more)

    def penalty(
        self, metric: Critic, x_data: Tensor, x_model: Tensor, mix: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Return the penalty at weight one; arguments as in :meth:`forward`."""
        raise NotImplementedError


class GradientPenalty(Penalty):
    r"""Push the gradient norm to one on segments between data and samples (Gulrajani et al. 2017, algorithm 1).

    .. math:: \lambda\,\mathbb E_{\hat x}\,(\|\nabla v(\hat x)\| - 1)^2, \qquad \hat x = \epsilon x + (1-\epsilon) y

    ``sides="one"`` punishes only norms above one (Petzka et al. 2018, "WGAN-LP").

    *Bias.* Two clouds a shift :math:`\delta` apart: along the shift the optimal critic has a constant slope s that
    maximises :math:`\beta\delta s - \lambda (s-1)^2`, so :math:`s = 1 + \beta\delta/(2\lambda)`: the estimate of W1
    (without the penalty) is high by that factor, at weight 10 by 5 % at shift 1 and 20 % at shift 4, at weight 100 by
    0.5 and 2 %; at weight 0.1, which trains sharp mixtures best, the critic is far from 1-Lipschitz, its value no W1.

    *Where two sides fail.* A slope of the wrong sign must pass through zero, which costs lambda: at a large weight the
    two-sided form keeps the signs it starts with. N(0, 4) against N(0, 1) (variances; W1 = 0.7979), weight 100, three
    seeds: two sides give 0.000, 0.010 and 0.806, one side 0.805, 0.806 and 0.805. Between clouds shifted on a line
    a wrong start ends at minus W1 (``benchmarks/quality/w1_shift.json``); in more dimensions the gradient can turn.

    Args:
        weight: lambda.
        sides: punish norms on both sides of one, or only above.
        every: clock in phi-steps.
        drift: epsilon of a further term :math:`\epsilon\,\mathbb E_{p_d}v^2`, which keeps v, of which only differences
            count, from drifting away (Karras et al. 2018, appendix A: 0.001); not multiplied by ``weight``.

    Raises:
        ConfigError: a negative drift.
    """

    enforces_lipschitz = True
    additive = True

    def __init__(
        self, weight: float = 10.0, sides: Literal["one", "two"] = "two", every: int = 1, drift: float = 0.0
    ) -> None:
        super().__init__(weight, every)
        if not 0 <= drift < float("inf"):
            raise ConfigError(f"metric.penalty needs drift >= 0, got {drift}")
        self.sides, self.drift = sides, drift

    @property
    def sources(self) -> tuple[str, ...]:
        """Keys of references: the one-sided penalty has one more."""
        return ("gulrajani2017improved", *(["petzka2018regularization"] if self.sides == "one" else []))

    def extra_repr(self) -> str:
        """Show weight, sides and drift."""
        return f"{super().extra_repr()}, sides={self.sides}" + (f", drift={self.drift:g}" if self.drift else "")

    def forward(
        self, metric: Critic, x_data: Tensor, x_model: Tensor, mix: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Return weight times the penalty, and the drift's term, shape ()."""
        penalty = super().forward(metric, x_data, x_model, mix, weights)
        return penalty + self.every * self.drift * metric(x_data).square().mean() if self.drift else penalty

    def penalty(
        self, metric: Critic, x_data: Tensor, x_model: Tensor, mix: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Return the mean squared excess of the gradient norm over one.

        Weighted samples are all taken, each with an example in turn: a part of them does not stand for the law.
        """
        if weights is not None:
            turn = torch.arange(len(x_model), device=mix.device) % min(len(x_data), len(mix))
            x_data, mix = x_data[turn], mix[turn]
        n = min(len(x_data), len(x_model), len(mix))
        epsilon = mix[:n].reshape(-1, *(1,) * (x_data.dim() - 1))
        x = torch.lerp(x_model[:n], x_data[:n], epsilon)  # epsilon x + (1 - epsilon) y
        excess = torch.linalg.vector_norm(gradient(metric, x).flatten(1), dim=1) - 1
        return _mean((excess if self.sides == "two" else excess.clamp(min=0)).square(), weights)


class R1(Penalty):
    r"""Zero-centred gradient penalty on data, :math:`\tfrac{\gamma}{2}\mathbb E_{p_d}\|\nabla v\|^2`.

    Makes the Dirac-GAN converge (Mescheder, Geiger, Nowozin 2018, eq. 9).

    Args:
        weight: gamma.
        fake: add the same on model samples (their R2).
        every: clock in phi-steps.
    """

    sources: tuple[str, ...] = ("mescheder2018training",)
    additive = True

    def __init__(self, weight: float = 0.1, fake: bool = False, every: int = 1) -> None:
        super().__init__(weight, every)
        self.fake = self.needs_samples = fake

    def extra_repr(self) -> str:
        """Show weight and where it acts."""
        return f"{super().extra_repr()}, on {'data and samples' if self.fake else 'data'}"

    def penalty(
        self, metric: Critic, x_data: Tensor, x_model: Tensor, mix: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Return half the mean squared gradient norm."""
        total = gradient_norm_squared(metric, x_data).mean()
        if self.fake:
            total = total + _mean(gradient_norm_squared(metric, x_model), weights)
        return total / 2


def _mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean of values, shape (B,), by weights of sum one where there are some."""
    return values.mean() if weights is None else weights.to(values.dtype) @ values


def gradient(metric: Critic, x: Tensor) -> Tensor:
    r"""Return :math:`\nabla_x v(x)`, shape (B, \*E), differentiable in phi."""
    own = getattr(metric, "gradient", None)
    return own(x.detach()) if own is not None else torch.func.grad(lambda x: metric(x).sum())(x.detach())


def gradient_norm_squared(metric: Critic, x: Tensor) -> Tensor:
    r"""Return :math:`\|\nabla_x v(x)\|^2` per example over all non-batch axes, shape (B,), differentiable in phi."""
    return gradient(metric, x).flatten(1).square().sum(1)
