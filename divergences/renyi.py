r"""The Renyi divergence: a monotone function of the alpha divergence, no mean under p, hence a family of its own.

.. math::
    D_a(q\|p) = \frac{1}{a-1}\log\int q^a p^{1-a}, \qquad a > 0 .

It is convex in q for orders up to 1 only (van Erven and Harremoes 2014, Theorems 11 to 13): above there is no dual that
is its conjugate, so no saddle of the equation, but a bound of its own (:meth:`Renyi.variational_bound`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from divergences import gaussians
from divergences.base import Divergence, InnerSolution, WeightedPoints
from divergences.gaussians import Gaussian
from divergences.lines import Line
from divergences.parametric import LARGEST_ORDER, Alpha, phi
from divergences.roots import multiplier, scores


def log_mean_exp(values: Tensor, points: WeightedPoints | None) -> Tensor:
    r"""Return :math:`\log\mathbb E e^{x}` without overflow, and without an absolute rounding where all x are small."""
    near = torch.expm1(values.clamp(-1, 1))
    if points is None:
        small, far = near.mean(), torch.logsumexp(values, 0) - math.log(len(values))
    else:
        small, far = points.mean(near), points.log_mean_exp(values)
    return torch.where(values.abs().max() < 1, torch.log1p(small), far)


class Renyi(Divergence):
    r""":math:`\frac1{a-1}\log\int q^a p^{1-a}`; its limit KL(q||p) at a = 1, twice the Bhattacharyya distance at 1/2.

    For a <= 1 and q of any mass the equation meets :math:`D_a(q\|p) + \frac{a}{1-a}(\int q - 1)`, which is convex, not
    negative, zero at q = p alone, and D on probabilities. With :math:`\varphi(c, v) = (e^{cv}-1)/c`

    .. math::
        \ell(v) = a\,\varphi(a-1, v), \qquad D^*_p(\ell(v)) = \log\mathbb E_p e^{av}, \qquad
        q^* = p\,e^v / \mathbb E_p e^{av} ,

    at order 1 Donsker and Varadhan's bound. (Derived for this project; up to parametrisation and scale the
    convex-conjugate formula of Birrell et al. 2023, "Function-space regularized Renyi divergences", Theorem 2.2.) The
    optimal v is :math:`\log(p_d/p) - D_a(p_d\|p)`, at order 1 up to any constant; the log-ratio is read without it.

    Args:
        order: a in (0, 30].

    Raises:
        ValueError: the order is out of range.
    """

    sources: tuple[str, ...] = ("vanerven2014renyi", "birrell2021variational")
    critic_reads = "log_ratio"
    additive_dual = False

    def __init__(self, order: float) -> None:
        super().__init__()
        if not 0 < order <= LARGEST_ORDER:
            raise ValueError(f"Renyi takes an order in (0, {LARGEST_ORDER:g}], got {order:g}")
        self.order = float(order)
        self.has_dual = self.has_normalised_dual = self.convex_in_q = self.order <= 1
        self.supremum = self.order / (1 - self.order) if self.order < 1 else math.inf
        self.symmetric = self.order == 0.5

    def extra_repr(self) -> str:
        """Show the order."""
        return f"order={self.order:g}"

    # The value, at any order.

    def of_log_ratio(self, log_ratio: Tensor, p: WeightedPoints) -> Tensor:
        r"""Return D(q, p), shape (), from log q/p on a finite alphabet or a quadrature rule, on which q has mass one.

        With :math:`K = \mathbb E_q\varphi(a-1, \log q/p)` it is :math:`\log(1 + (a-1)K)/(a-1)`, smooth through a = 1;
        where the power is far from 1 in logarithms.

        Args:
            log_ratio: shape (N,).
            p: the particles.
        """
        b = self.order - 1
        moment = p.mean(torch.where(log_ratio == -torch.inf, 0.0, log_ratio.exp() * phi(b, log_ratio)))
        if not b:
            return moment
        logs = log_mean_exp(self.order * log_ratio, p)
        near = logs.abs() < 0.5
        return torch.where(near, torch.log1p(b * torch.where(near, moment, 0.0)), logs) / b

    def variational_bound(
        self, v_data: Tensor, v: Tensor, data: WeightedPoints | None = None, p: WeightedPoints | None = None
    ) -> Tensor:
        r"""Return :math:`\frac{a}{a-1}\log\mathbb E_q e^{(a-1)v} - \log\mathbb E_p e^{av} \le D_a(q\|p)`, shape ().

        Equality at v = log q/p plus any constant; at order 1 :math:`\mathbb E_q v - \log\mathbb E_p e^v` (Birrell et
        al. 2021, "Variational representations and neural network estimation of Renyi divergences", Theorem 2.1). At
        every order, but not linear in q: no saddle of the equation. On samples both logarithms are biased.

        Args:
            v_data: critic outputs on q's particles, shape (M,).
            v: critic outputs on p's particles, shape (N,).
            data: q's particles; None for equal weights.
            p: p's particles; None for equal weights.
        """
        b = self.order - 1
        if b:
            left = log_mean_exp(b * v_data, data) * (self.order / b)
        else:
            left = v_data.mean() if data is None else data.mean(v_data)
        return left - log_mean_exp(self.order * v, p)

    # Exact values, by logarithms of the power alone: it underflows where laws are far apart, and D is finite.

    def between_gaussians(self, q: Gaussian, p: Gaussian) -> Tensor:
        """Return the closed form."""
        return gaussians.renyi(self.order, q, p)

    def between_letters(self, points: Tensor, log_q: Tensor, log_p: Tensor) -> Tensor:
        """Return the logarithm of the sum of powers over a - 1; near 0 by Alpha's integrand, which does not cancel."""
        return self._of_power(torch.logsumexp(self._log_power(log_q, log_p), 0), self._alpha(log_q, log_p).sum())

    def on_a_line(self, line: Line) -> Tensor:
        """Return the same by quadrature of the power over its largest value, around which the rule is refined."""
        if self.order == 1:
            return line.integral(lambda x: self._alpha(line.log_q(x), line.log_p(x)), "Renyi")

        def log_power(x: Tensor) -> Tensor:
            return self._log_power(line.log_q(x), line.log_p(x))

        left, right = line.breaks[0], line.breaks[-1]
        for _ in range(4):
            t = torch.linspace(float(left), float(right), 4001, dtype=torch.float64)
            values = log_power(line.point(t)) + line.jacobian(t).log()
            best, step = t[values.argmax()], (right - left) / 2000
            left, right = best - step, best + step
        top = values.max()
        if not bool(top.isfinite()):  # no common mass, or mass of q where p has none
            return top / (self.order - 1)
        around = 2.0 ** torch.arange(-20, 3, dtype=torch.float64)
        breaks = torch.cat([line.breaks, best - around, best + around])
        refined = line._replace(breaks=breaks.clamp(line.breaks[0], line.breaks[-1]).unique())
        log_total = top + refined.integral(lambda x: (log_power(x) - top).exp(), "Renyi").log()
        if abs(float(log_total)) > 0.5:
            return log_total / (self.order - 1)
        return self._of_power(log_total, Alpha(self.order).on_a_line(line))

    def _alpha(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        return Alpha(self.order).integrand(log_q, log_p)

    def _log_power(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        """Return log q^a p^(1-a), elementwise: -inf where q = 0, or p = 0 and a < 1; inf where p = 0 < q and a > 1."""
        nothing = (log_q == -torch.inf) | ((log_p == -torch.inf) & (self.order <= 1))
        a, log_q, log_p = self.order, torch.where(nothing, 0.0, log_q), torch.where(nothing, 0.0, log_p)
        return torch.where(nothing, -torch.inf, a * log_q + (1 - a) * log_p)

    def _of_power(self, log_power: Tensor, alpha: Tensor) -> Tensor:
        """Return D from the logarithm of the power's integral, or from Alpha's value where that is near 0."""
        b = self.order - 1
        if not b:
            return alpha
        near = log_power.abs() < 0.5
        return torch.where(
            near, torch.log1p(self.order * b * torch.where(near, alpha, 0.0)) / b, torch.where(near, 1.0, log_power) / b
        )

    # The dual, up to order 1.

    def _require_dual(self, what: str) -> None:
        if not self.has_dual:
            raise NotImplementedError(
                f"Renyi has no {what} at order {self.order:g}: it is convex in q up to order 1 only; take such an "
                "order, or maximise variational_bound(), which is no saddle of the equation"
            )

    def link(self, v: Tensor) -> Tensor:  # noqa: D102
        self._require_dual("dual")
        return self.order * phi(self.order - 1, v)

    def inverse_link(self, t: Tensor) -> Tensor:  # noqa: D102
        self._require_dual("dual")
        b = self.order - 1
        return torch.log1p((b * t / self.order).clamp(min=-1)) / b if b else t

    def mean_conjugate(self, v: Tensor, p: WeightedPoints) -> Tensor:
        r"""Return :math:`\log\mathbb E_p e^{av}`, shape (); on samples biased downward."""
        self._require_dual("dual")
        return log_mean_exp(self.order * v, p)

    def inner(self, v: Tensor, p: WeightedPoints) -> InnerSolution:
        r"""Solve over unnormalised q: :math:`dq^*/dp = e^v/\mathbb E_p e^{av}`, of mass one at the optimum.

        Args:
            v: critic outputs at p's particles, shape (N,).
            p: the particles.
        """
        w = v.detach().double()
        log_partition = log_mean_exp(self.order * w, p)
        log_tilt = w - log_partition
        u = log_tilt.exp()
        excess = p.mean(torch.expm1(log_tilt))
        if self.order == 1:
            divergence = p.mean(u * log_tilt)
        else:
            divergence = (self.order * excess - log_mean_exp(self.order * log_tilt, p)) / (1 - self.order)
        return InnerSolution(
            conjugate=self.mean_conjugate(v, p),
            divergence=divergence,
            link_q=p.mean(u * self.link(w)),
            log_tilt=log_tilt,
            log_partition=log_partition,
        )

    def inner_normalised(self, v: Tensor, p: WeightedPoints, v_data: Tensor | None = None) -> InnerSolution:
        r"""Solve over probability q: :math:`D^*_p = \lambda + \log\mathbb E_p e^{as}`, :math:`\ell(s) = t - \lambda`.

        lambda is where :math:`dq^*/dp = e^s/\mathbb E_p e^{as}` has mass one, and carries its implicit gradient. Mass
        off p has the finite price a/(1-a), so :math:`\lambda \ge \sup f/\beta - a/(1-a)` over the data as well. At
        order 1 any lambda will do: q* has mass one already.
        """
        self._require_dual("dual over probability measures")
        if self.order == 1:
            return self.inner(v, p)
        a = self.order
        t, origin, floor = scores(self.link, self.link, self.supremum, v, p, v_data)

        def log_mass(x: Tensor) -> Tensor:
            s = self.inverse_link(t - x)
            return log_mean_exp(s, p) - log_mean_exp(a * s, p)

        with torch.no_grad():
            found = multiplier(log_mass, self.link, t, p)
            s = self.inverse_link(t - found)
            rate = torch.exp(-(a - 1) * s) / a  # ds/dt
            tilted, other = s - log_mean_exp(s, p), a * s - log_mean_exp(a * s, p)
            stiffness = p.mean(tilted.exp() * rate) - a * p.mean(other.exp() * rate)
        active = floor > found
        step = torch.where(active, 0.0, log_mass(found))  # one Newton step: lambda to rounding, with its gradient
        lagrange = torch.where(active, floor, found) + (step - step.detach()) / torch.where(active, 1.0, stiffness)
        s = self.inverse_link(t - lagrange)
        log_partition = log_mean_exp(a * s, p)
        log_tilt = (s - log_partition).detach()
        u = log_tilt.exp()
        return InnerSolution(
            conjugate=(origin + lagrange + log_partition).to(v.dtype),
            divergence=torch.where(active, log_mean_exp(a * log_tilt, p) / (a - 1), self.of_log_ratio(log_tilt, p)),
            link_q=origin + p.mean(u * t.detach()),  # what is off p sits at the origin
            log_tilt=log_tilt,
            multiplier=origin + lagrange,
            log_partition=log_partition.detach(),
        )
