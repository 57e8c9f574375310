r"""Distances between laws through a kernel on pairs of points: MMD and the energy distance.

.. math::
    D(q,p) = \mathbb E\,k(X,X') + \mathbb E\,k(Y,Y') - 2\,\mathbb E\,k(X,Y), \qquad X, X'\sim q,\; Y, Y'\sim p,

the squared norm of :math:`\mu_q-\mu_p` where :math:`\mu` is the mean of :math:`k(x,\cdot)`: zero iff q = p for the
kernels here. Its slope in the model is that of a critic frozen at the witness :math:`f=\mu_q-\mu_p`, twice
(``tests/divergences/test_kernels.py``): a *moment matching network* is a GAN whose critic is solved in closed form.

Every pair is compared: time O(N M d), memory O(N M) whatever d.
"""

from __future__ import annotations

import copy
import math
from typing import Any, Literal

import torch
from torch import Tensor

from divergences import gaussians
from divergences.base import Divergence, WeightedPoints
from divergences.clouds import clouds, common_type, root, squared_distances
from divergences.lines import Line


class KernelDistance(Divergence):
    r"""The squared distance of mean embeddings, on particles with weights a (of q) and b (of p).

    The *V-statistic* :math:`a^\top K_{xx}a + b^\top K_{yy}b - 2a^\top K_{xy}b` is the distance of the two clouds
    themselves: never negative beyond rounding, zero iff they are the same, exact where particles are the law (a finite
    alphabet, a quadrature rule), and biased upward on samples by
    :math:`(\mathbb E k(X,X)-\mathbb E k(X,X'))\sum_i a_i^2`, the same for p.

    The *U-statistic* leaves the diagonal out of the first two terms,
    :math:`\sum_{i\ne j}a_ia_jk(x_i,x_j)/(1-\sum_ia_i^2)` (with equal weights 1/(N(N-1)) of a sum over pairs): its mean
    over independent points is the distance of the laws, for any weights that do not depend on the points, and so is
    the mean of its gradient. Its value may be negative. No weight may be one.

    Args:
        unbiased: the U-statistic instead of the V-statistic.
    """

    primal_needs = "samples"
    symmetric = True

    def __init__(self, unbiased: bool = False) -> None:
        super().__init__()
        self.unbiased = unbiased
        self.sample_bias = "0" if unbiased else "+O(1/n)"

    def extra_repr(self) -> str:
        """Show which statistic it is."""
        return f"unbiased={self.unbiased}"

    def kernel(self, squared: Tensor) -> Tensor:
        """Return k, elementwise, from squared distances."""
        raise NotImplementedError

    def primal(self, q: WeightedPoints, law: Any, p: WeightedPoints | None) -> Tensor:
        """Return D(q, p), shape (), from both particle clouds.

        Raises:
            ValueError: clouds are missing, empty or of different dimension, or of one point where unbiased.
        """
        x, y, a, b = clouds(type(self).__name__, q, p)
        if self.unbiased and min(len(x), len(y)) < 2:
            raise ValueError(f"{type(self).__name__}: unbiased=true compares pairs, and a cloud has one point only")
        between = a @ self.kernel(squared_distances(x, y)) @ b
        value = self._within(x, a) + self._within(y, b) - 2 * between
        return value.to(common_type(q, p))

    def between_letters(self, points: Tensor, log_q: Tensor, log_p: Tensor) -> Tensor:
        r"""Return :math:`(a-b)^\top K(a-b)`, of the laws themselves, whichever the statistic."""
        difference = log_q.exp() - log_p.exp()
        return difference @ self.kernel(squared_distances(points, points)) @ difference

    def _within(self, x: Tensor, a: Tensor) -> Tensor:
        k = self.kernel(squared_distances(x, x))
        if not self.unbiased:
            return a @ k @ a
        return a @ (k - torch.diag(k.diagonal())) @ a / (1 - a.square().sum())


class EnergyDistance(KernelDistance):
    r""":math:`2\,\mathbb E|X-Y| - \mathbb E|X-X'| - \mathbb E|Y-Y'|`, in the unit of the data (kernel -|x-y|).

    Szekely and Rizzo, "Testing for equal distributions in high dimension", 2004. In one dimension it is
    :math:`2\int(F_q-F_p)^2`. No bandwidth to choose; the limit of twice the Sinkhorn divergence with p = 1 for large
    blur. (geomloss's ``energy`` is half of it.)
    """

    sources: tuple[str, ...] = ("szekely2004testing",)
    cost_degree = 1.0
    between_gaussians = staticmethod(gaussians.energy)

    def on_a_line(self, line: Line) -> Tensor:
        r"""Return :math:`2\int(F_q-F_p)^2` (Szekely and Rizzo 2004, for one dimension)."""
        return line.integral(lambda x: 2 * line.gap(x).square(), "energy distance")

    def kernel(self, squared: Tensor) -> Tensor:
        """Return -|x-y|."""
        return -root(squared)


class MMD(KernelDistance):
    r"""The squared maximum mean discrepancy, without unit: between 0 and 2.

    Gretton et al., "A kernel two-sample test", JMLR 2012 (eq. 3 the U-statistic, eq. 5 the V-statistic squared). The
    kernel is the *mean* over the bandwidths b of

    * ``gaussian``: :math:`e^{-|x-y|^2/(2b^2)}`,
    * ``laplacian``: :math:`e^{-|x-y|/b}`, heavier tails: far points still feel each other.

    A pair is felt by the bandwidths near its distance; d standardised coordinates lie about :math:`\sqrt{2d}` apart,
    so the default ladder from 1 to 16 serves 2 to 64 dimensions and more. (geomloss's value at ``blur`` = b is half of
    this one with the bandwidths (b,).)

    Args:
        kernel: ``gaussian`` or ``laplacian``.
        bandwidths: all b, in the unit of the clouds (standardised, where the data is).
        unbiased: the U-statistic instead of the V-statistic.

    Raises:
        ValueError: an unknown kernel, no bandwidth, or one that is not positive and finite.
    """

    sources: tuple[str, ...] = ("gretton2012kernel",)
    bounded_in_scale = True
    unit = "squared kernel norm"

    def __init__(
        self,
        kernel: Literal["gaussian", "laplacian"] = "gaussian",
        bandwidths: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0),
        unbiased: bool = False,
    ) -> None:
        super().__init__(unbiased)
        if kernel not in ("gaussian", "laplacian"):
            raise ValueError(f"kernel must be gaussian or laplacian, got {kernel!r}")
        if not bandwidths or not all(0 < b < math.inf for b in bandwidths):
            raise ValueError(f"bandwidths must be positive and finite, one at least, got {bandwidths}")
        self.kernel_name, self.bandwidths = kernel, tuple(bandwidths)

    def extra_repr(self) -> str:
        """Show the kernel and the statistic."""
        widths = ", ".join(f"{b:g}" for b in self.bandwidths)
        return f"kernel={self.kernel_name}, bandwidths=({widths}), {super().extra_repr()}"

    def rescaled(self, scale: float) -> MMD:
        """Return it with the bandwidths multiplied by scale."""
        twin = copy.copy(self)
        twin.bandwidths = tuple(scale * b for b in self.bandwidths)
        return twin

    def between_gaussians(self, q: gaussians.Gaussian, p: gaussians.Gaussian) -> Tensor | None:
        """Return the mean over the bandwidths for gaussian kernels; None for others."""
        if self.kernel_name != "gaussian":
            return None
        return torch.stack([gaussians.gaussian_kernel(q, p, b) for b in self.bandwidths]).mean()

    def kernel(self, squared: Tensor) -> Tensor:
        """Return the mean of the kernels over the bandwidths."""
        if self.kernel_name == "gaussian":
            exponents = [squared / (2 * b * b) for b in self.bandwidths]
        else:
            distance = root(squared)
            exponents = [distance / b for b in self.bandwidths]
        return sum((torch.exp(-e) for e in exponents[1:]), torch.exp(-exponents[0])) / len(exponents)
