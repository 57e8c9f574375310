r"""Spectral normalisation: affine layers divided by their largest singular value, and a critic made of them."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import Critic
from models.networks import Activation, Dense, mlp, with_context

Contraction = Literal["leaky_relu", "relu"]


SQUARINGS = 10
"""Squarings of the Gram matrix in one :meth:`SpectralNormalised.settle`: as many as 2**10 power iterations."""


class SpectralNormalised(nn.Module):
    r"""Mixed into a layer with a ``weight``: its spectral norm, known through the left singular vector u.

    .. math:: \sigma(W) = \|W^\top u\| = u^\top W v, \qquad v = W^\top u / \|W^\top u\|,
              \qquad \frac{\partial\sigma}{\partial W} = u v^\top,

    W being the weight flattened to shape (outputs, inputs). u is a buffer, constant in forward: a layer's output is a
    function of its state, however often and wherever it is called. (``torch.nn.utils`` iterates inside forward, so
    that a trajectory depends on how often one evaluates.) Whoever changes the weight, by a step or by averaging, calls
    :meth:`settle` afterwards; it was called at construction.

    Since :math:`\|W^\top u\|\le\sigma_{\max}(W)` for every unit u, a u that lags behind the weight makes sigma too
    small, never too large. After :meth:`settle` the ratio is at most :math:`n^{1/2^{11}}`, n the smaller side of W.

    Source: Miyato, Kataoka, Koyama, Yoshida, "Spectral normalization for generative adversarial networks", ICLR 2018,
    section 2.1 and appendix A; squaring in the place of their one power iteration per step: Delattre, Barthelemy,
    Araujo, Allauzen, "Efficient bound of Lipschitz constant for convolutional layers by Gram iteration", ICML 2023.
    """

    weight: Tensor
    u: Tensor

    def attach_u(self) -> None:
        """Register u, shape (outputs,), at the leading left singular vector of the weight."""
        self.register_buffer("u", self.weight.new_zeros(len(self.weight)))
        self.settle()

    def sigma(self) -> Tensor:
        """Return the estimate of the largest singular value, shape (); differentiable in the weight."""
        return torch.linalg.vector_norm(self.weight.flatten(1).mT @ self.u)

    @torch.no_grad()
    def settle(self) -> None:
        r"""Put u at the leading left singular vector of the present weight.

        The smaller Gram matrix G, (n, n), is raised to the power :math:`k=2^{10}`: its column j is the unit vector j
        after k power iterations. With :math:`\lambda_i` the eigenvalues of G, and :math:`q_{ij}^2` the weights of
        vector j on its eigenvectors, :math:`\sigma^2\ge(\sum_i q_{ij}^2\lambda_i^k)^{1/k}` by order of means; the sum
        is the diagonal entry of :math:`G^k`, whose largest is at least :math:`\lambda_1^k/n`. Hence
        :math:`\sigma^2\ge\lambda_1 n^{-1/k}`, whatever W. It costs products of small matrices and no wait for a GPU.
        """
        matrix = self.weight.flatten(1)
        wide = matrix.shape[0] <= matrix.shape[1]
        gram = matrix @ matrix.mT if wide else matrix.mT @ matrix
        for _ in range(SQUARINGS):
            gram = gram / gram.diagonal().sum()  # trace one, so nothing overflows or vanishes
            gram = gram @ gram
        column = gram.index_select(1, gram.diagonal().argmax().reshape(1)).squeeze(1)
        u = column if wide else matrix @ column
        self.u.copy_(u / torch.linalg.vector_norm(u))


class SpectralLinear(SpectralNormalised, Dense):
    r"""The layer :math:`x\mapsto a(\sigma(W)^{-1}Wx+b)`.

    Args:
        inputs: columns of W.
        outputs: rows of W.
        bias: whether there is b.
        activation: a; None for the affine map alone.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True, activation: Activation | None = None) -> None:
        super().__init__(inputs, outputs, bias, activation)
        self.attach_u()

    def affine(self, x: Tensor) -> Tensor:
        """Map (B, inputs) to (B, outputs)."""
        return F.linear(x, self.weight / self.sigma(), self.bias)


class SpectralConv2d(SpectralNormalised, nn.Conv2d):
    r"""A convolution whose kernel, reshaped to (outputs, inputs * k * k), is divided by its spectral norm.

    That is Miyato's normalisation, which does not make the convolution 1-Lipschitz: a pixel lies in up to
    :math:`\lceil k/\text{stride}\rceil^2` patches, so its norm as a linear map of images may be up to
    :math:`\lceil k/\text{stride}\rceil`.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        kernel: side k of the kernel.
        stride: steps between patches.
        padding: zeros on every side.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding)
        self.attach_u()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H', W')."""
        return F.conv2d(x, self.weight / self.sigma(), self.bias, self.stride, self.padding)


class SpectralCritic(Critic):
    r"""A perceptron whose linear maps are divided by their spectral norms; it is 1-Lipschitz up to the lag of u.

    *How exact.* The constant is :math:`\prod_l\sigma_{\max}(W_l)/\sigma(W_l)\ge1`, so long as ``settle`` of every layer
    is called after every change of the weights. It is then at most :math:`\prod_l n_l^{1/2^{11}}`, 1.0051 for width 128
    and depth 3 in the plane; measured over 400 steps of Adam at 1e-3 on ring8 (three seeds, float32), at most 1.00005.
    One power iteration per step, as in the paper, gave up to 2.4 there: a new singular direction overtakes the old one
    within a few steps, and u follows late.

    *As a critic of W1* it errs downwards: leaky ReLU and all singular values below the largest shrink gradients, so
    few functions of the class have gradient norm one where the optimal potential has. Measured in the plane
    (``benchmarks/quality/w1_clip.json``; width 32 or 128, depth 1 or 3): W1 of two Gaussians one apart comes out 0.7 to
    4.2 % low, W1 of a Gaussian and the same scaled by two 46 to 66 % low, and width does not help: a shift needs one
    linear function, a scaling a cone. ``GroupSortCritic`` preserves the norm.

    Source: Miyato, Kataoka, Koyama, Yoshida, "Spectral normalization for generative adversarial networks", ICLR 2018.

    Args:
        event_shape: shape E of one example.
        width: units of a hidden layer.
        depth: number of hidden layers.
        activation: a nonlinearity of slope at most one: leaky ReLU (0.2) or ReLU.
        classes: number of classes of the context, which enters as a one-hot vector; 0 for none.

    Raises:
        ValueError: another activation.
    """

    sources: tuple[str, ...] = ("miyato2018spectral",)
    lipschitz: ClassVar[float | None] = 1.0
    has_context: ClassVar[bool] = True
    row_wise: ClassVar[bool] = True

    def __init__(
        self,
        event_shape: tuple[int, ...],
        width: int = 128,
        depth: int = 3,
        activation: Contraction = "leaky_relu",
        classes: int = 0,
    ) -> None:
        super().__init__(event_shape, classes)
        if activation not in get_args(Contraction):
            raise ValueError(
                f"SpectralCritic needs a slope of at most one, activation leaky_relu or relu, got {activation!r}"
            )
        self.net = mlp(self.dimension + classes, 1, width, depth, activation, layer=SpectralLinear)

    def score(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the output of the perceptron, shape (B,)."""
        return self.net(with_context(x, context, self.classes)).squeeze(1)
