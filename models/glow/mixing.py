r"""The linear part of Glow's steps: actnorm, then an invertible 1 x 1 convolution, of all steps of a level at once."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

Parametrisation = Literal["lu", "plain"]

LOG_SCALE_FACTOR = 3.0
"""What a log-scale is held in units of: its step is that much longer, as in the authors' code."""
LEAST_SPREAD = 1e-6
"""Standard deviation below which a channel counts as constant."""


class Mixed(NamedTuple):
    r"""The maps of all steps at fixed parameters: step k is :math:`y=M_kx+s_k` at every pixel.

    Attributes:
        matrices: M, shape (K, C, C).
        shifts: s, shape (K, C, 1).
        biases: actnorm's b, shape (K, C, 1): :math:`M_k^{-1}s_k=b_k`.
        log_det: the sum of log |det M_k| over the steps, of one pixel, in float64.
    """

    matrices: Tensor
    shifts: Tensor
    biases: Tensor
    log_det: Tensor

    def inverses(self) -> Tensor:
        """Return the inverse matrices, found in float64, shape (K, C, C)."""
        return torch.linalg.inv(self.matrices.double()).to(self.matrices.dtype)


class Mixing(nn.Module):
    r"""Actnorm :math:`e^{3l}(x+b)` and the product with an invertible matrix W, for each of K steps.

    Both are linear at every pixel, so they are one product with :math:`M=We^{3l}` and one shift :math:`Mb`. W starts
    as a random rotation. ``lu`` holds it as :math:`W=PL(U+\text{diag}(\sigma e^t))`, L and U strictly triangular but
    for L's ones, the permutation P and the signs :math:`\sigma` as they were at the start: W then stays regular, and
    its log-determinant is a sum. ``plain`` holds W itself.

    Source: Kingma, Dhariwal, "Glow", NeurIPS 2018, sections 3.1, 3.2, eqs. (9)-(11); the factor 3, and that actnorm
    centres before it scales, are from their code.

    Args:
        steps: K.
        channels: C.
        parametrisation: of W.
    """

    def __init__(self, steps: int, channels: int, parametrisation: Parametrisation) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(steps, channels, 1))
        self.log_scale = nn.Parameter(torch.zeros(steps, channels, 1))
        rotations = torch.linalg.qr(torch.randn(steps, channels, channels)).Q
        self.parametrisation = parametrisation
        if parametrisation == "plain":
            self.weight = nn.Parameter(rotations)
            return
        permutation, lower, upper = torch.linalg.lu(rotations)
        diagonal = upper.diagonal(dim1=1, dim2=2)
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", diagonal.sign().contiguous())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_diagonal = nn.Parameter(diagonal.abs().log())

    def _weights(self) -> tuple[Tensor, Tensor]:
        """Return W, shape (K, C, C), and the sum of log |det W| in float64."""
        if self.parametrisation == "plain":
            return self.weight, torch.linalg.slogdet(self.weight.double()).logabsdet.sum()
        lower = self.lower.tril(-1) + torch.eye(self.lower.shape[1], dtype=self.lower.dtype, device=self.lower.device)
        upper = self.upper.triu(1) + torch.diag_embed(self.get_buffer("sign") * self.log_diagonal.exp())
        return self.get_buffer("permutation") @ lower @ upper, self.log_diagonal.double().sum()

    def at_present(self) -> Mixed:
        """Return the maps at the present parameters."""
        weights, log_det = self._weights()
        log_scale = LOG_SCALE_FACTOR * self.log_scale
        matrices = weights * log_scale.exp().mT
        return Mixed(matrices, matrices @ self.bias, self.bias, log_det + log_scale.double().sum())

    def prepare(self, k: int, x: Tensor) -> None:
        """Set step k's actnorm to what gives a batch, columns (C, N), zero mean and unit variance in every channel."""
        set_by(x, self.bias[k], self.log_scale[k])


def set_by(x: Tensor, bias: Tensor, log_scale: Tensor) -> None:
    """Set an actnorm by a batch: mean 0 and variance 1 in each row; a constant row is centred alone.

    Args:
        x: columns, shape (C, N).
        bias: b, (C, 1), overwritten.
        log_scale: l, (C, 1), overwritten; the scale is exp(3 l).
    """
    rows = x.double()
    bias.copy_(-rows.mean(1, keepdim=True))
    spread = rows.std(1, correction=0, keepdim=True)
    log_scale.copy_(torch.where(spread < LEAST_SPREAD, 1.0, spread).log() / -LOG_SCALE_FACTOR)
