r"""Closed forms of D(q, p) for normal laws :math:`q=N(m_q,S_q)`, :math:`p=N(m_p,S_p)`, differentiable in both.

The family of :math:`\int q^ap^{1-a}` covers Hellinger, both :math:`\chi^2` and every alpha divergence; with
:math:`S=aS_p+(1-a)S_q` and :math:`d=m_q-m_p`

.. math::
    \int q^ap^{1-a} = \frac{|S_q|^{(1-a)/2}|S_p|^{a/2}}{|S|^{1/2}}\,\exp\!\Big(-\frac{a(1-a)}2\,d^\top S^{-1}d\Big)

where S is positive definite, else infinite (Gil, Alajaji, Linder, "Renyi divergence measures for commonly used
univariate continuous distributions", Information Sciences 2013, table 2; also its multivariate form).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Independent, LowRankMultivariateNormal, MultivariateNormal, Normal


class Gaussian(NamedTuple):
    """A normal law in d dimensions, in float64.

    Attributes:
        mean: shape (d,).
        covariance: shape (d, d).
    """

    mean: Tensor
    covariance: Tensor


def as_gaussian(law: Any) -> Gaussian | None:
    """Return a normal law without batch axes (flattened where it has several event axes), None for another law."""
    if isinstance(law, (MultivariateNormal, LowRankMultivariateNormal)) and not law.batch_shape:
        return Gaussian(law.mean.double(), law.covariance_matrix.double())
    base = law
    while isinstance(base, Independent):
        base = base.base_dist
    if isinstance(base, Normal) and not law.batch_shape:
        return Gaussian(base.loc.double().reshape(-1), torch.diag(base.scale.double().square().reshape(-1)))
    return None


def _mahalanobis(d: Tensor, covariance: Tensor) -> Tensor:
    """Return :math:`d^T S^{-1} d`."""
    return d @ torch.linalg.solve(covariance, d)


def kl(q: Gaussian, p: Gaussian) -> Tensor:
    r"""Return :math:`\tfrac12[\mathrm{tr}(S_p^{-1}S_q)+d^\top S_p^{-1}d-k+\log|S_p|/|S_q|]`."""
    trace = torch.linalg.solve(p.covariance, q.covariance).trace()
    logs = torch.logdet(p.covariance) - torch.logdet(q.covariance)
    return (trace + _mahalanobis(q.mean - p.mean, p.covariance) - len(q.mean) + logs) / 2


def entropy(q: Gaussian) -> Tensor:
    r"""Return :math:`\tfrac12\log|2\pi e\,S_q|`, nats."""
    return (torch.logdet(q.covariance) + len(q.mean) * math.log(2 * math.pi * math.e)) / 2


def scaled_log_power(a: float, q: Gaussian, p: Gaussian) -> Tensor:
    r"""Return :math:`\log\int q^ap^{1-a}/(a(a-1))`: KL(q||p) at a = 1, KL(p||q) at a = 0; inf where it diverges.

    With :math:`\lambda` the eigenvalues of :math:`S_q^{-1}S_p` the logarithm is
    :math:`\tfrac12\sum_i[a\log\lambda_i-\log(1+a(\lambda_i-1))]-\tfrac{a(1-a)}2d^\top S^{-1}d`, of which a or 1 - a
    is divided out before anything cancels. Where it is infinite its slope is zero.
    """
    factor = torch.linalg.cholesky(q.covariance)
    half = torch.linalg.solve_triangular(factor, p.covariance, upper=False)
    ratios = torch.linalg.eigvalsh(torch.linalg.solve_triangular(factor, half.mT, upper=False))
    finite = bool((1 + a * (ratios - 1) > 0).all())
    order = a if finite else 1.0
    if order <= 0.5:
        spread = (ratios.log() - _log1p_over(order, ratios - 1)) / (order - 1)
    else:
        spread = (ratios.log() + _log1p_over(1 - order, 1 / ratios - 1)) / order
    mixed = order * p.covariance + (1 - order) * q.covariance
    value = (spread.sum() + _mahalanobis(q.mean - p.mean, mixed)) / 2
    return value if finite else torch.where(torch.tensor(True, device=value.device), torch.inf, value)


def _log1p_over(b: float, y: Tensor) -> Tensor:
    """Return log(1 + b y)/b, y at b = 0."""
    return torch.log1p(b * y) / b if b else y


def log_power(a: float, q: Gaussian, p: Gaussian) -> Tensor:
    r"""Return :math:`\log\int q^ap^{1-a}`, a neither 0 nor 1; inf where the integral diverges (above 1 and below 0)."""
    return a * (a - 1) * scaled_log_power(a, q, p)


def alpha(a: float, q: Gaussian, p: Gaussian) -> Tensor:
    r"""Return :math:`(\int q^ap^{1-a}-1)/(a(a-1))`, the KL divergences at a = 1 and a = 0."""
    scaled, c = scaled_log_power(a, q, p), a * (a - 1)
    return torch.expm1(c * scaled) / c if c else scaled


def renyi(a: float, q: Gaussian, p: Gaussian) -> Tensor:
    r"""Return :math:`\frac1{a-1}\log\int q^ap^{1-a}`, KL(q||p) at a = 1: no power is formed, which may underflow."""
    return a * scaled_log_power(a, q, p)


def total_variation(q: Gaussian, p: Gaussian) -> Tensor | None:
    r"""Return :math:`2\Phi(\delta/2)-1`, delta the Mahalanobis distance, where the covariances are equal; else None."""
    if not torch.equal(q.covariance, p.covariance):
        return None
    squared = _mahalanobis(q.mean - p.mean, p.covariance)
    return torch.erf(squared.clamp(min=0).sqrt() / math.sqrt(8))


def wasserstein1(q: Gaussian, p: Gaussian) -> Tensor | None:
    r"""Return :math:`W_1`: |d| where the covariances are equal, in one dimension always; else None.

    One dimension: :math:`\mathbb E|d+sZ| = s\sqrt{2/\pi}\,e^{-d^2/(2s^2)}+d\,\mathrm{erf}(d/(s\sqrt2))`, s the
    difference of the deviations (the optimal map is affine).
    """
    d = q.mean - p.mean
    if torch.equal(q.covariance, p.covariance):
        return torch.linalg.vector_norm(d)
    if len(d) > 1:
        return None
    d, s = d[0], (q.covariance[0, 0].sqrt() - p.covariance[0, 0].sqrt()).abs()
    return _mean_distance(d, s)


def wasserstein2_squared(q: Gaussian, p: Gaussian) -> Tensor:
    r"""Return :math:`W_2^2=|d|^2+\mathrm{tr}(S_q+S_p-2(S_p^{1/2}S_qS_p^{1/2})^{1/2})` (Bures; Dowson, Landau 1982).

    By :math:`\mathrm{tr}\,(L^\top S_qL)^{1/2}` for :math:`S_p=LL^\top`, which has the same eigenvalues.
    """
    root = torch.linalg.cholesky(p.covariance)
    values = torch.linalg.eigvalsh(root.mT @ q.covariance @ root)
    spread = q.covariance.trace() + p.covariance.trace() - 2 * values.clamp(min=0).sqrt().sum()
    return (q.mean - p.mean).square().sum() + spread


def sliced_wasserstein2_squared(q: Gaussian, p: Gaussian, directions: Tensor) -> Tensor:
    r"""Return the mean over directions, shape (L, d), of :math:`W_2^2=(\theta\cdot d)^2+(\sigma_q-\sigma_p)^2`."""
    shift = directions @ (q.mean - p.mean)
    spreads = [((directions @ law.covariance) * directions).sum(1).sqrt() for law in (q, p)]
    return (shift.square() + (spreads[0] - spreads[1]).square()).mean()


def energy(q: Gaussian, p: Gaussian) -> Tensor | None:
    r"""Return :math:`2\mathbb E|X-Y|-\mathbb E|X-X'|-\mathbb E|Y-Y'|` in one dimension; else None."""
    if len(q.mean) > 1:
        return None
    d, v, w = (q.mean - p.mean)[0], q.covariance[0, 0], p.covariance[0, 0]
    return 2 * _mean_distance(d, (v + w).sqrt()) - 2 * (v.sqrt() + w.sqrt()) / math.sqrt(math.pi)


def gaussian_kernel(q: Gaussian, p: Gaussian, bandwidth: float) -> Tensor:
    r"""Return the squared MMD of :math:`k(x,y)=e^{-|x-y|^2/(2b^2)}`, by the normal law of the difference x - y.

    :math:`\mathbb E k = |I+S/b^2|^{-1/2}\exp(-\tfrac12d^\top(b^2I+S)^{-1}d)`, S the sum of both covariances.
    """

    def mean_kernel(d: Tensor, spread: Tensor) -> Tensor:
        wide = spread + bandwidth**2 * torch.eye(len(d), dtype=d.dtype, device=d.device)
        return ((len(d) * math.log(bandwidth**2) - torch.logdet(wide) - _mahalanobis(d, wide)) / 2).exp()

    d, v, w = q.mean - p.mean, q.covariance, p.covariance
    return mean_kernel(0 * d, 2 * v) + mean_kernel(0 * d, 2 * w) - 2 * mean_kernel(d, v + w)


def _mean_distance(d: Tensor, s: Tensor) -> Tensor:
    """Return E|d + sZ| for standard normal Z, s >= 0."""
    z = d / (s * math.sqrt(2))
    return s * math.sqrt(2 / math.pi) * (-z.square()).exp() + d * torch.erf(z)
