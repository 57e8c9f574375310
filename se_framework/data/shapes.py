r"""Laws of the plane that are no mixture of a few Gaussians: the checkerboard and the Swiss roll, with exact densities.

Source of both: Grathwohl et al., "FFJORD" (2019), whose generators are followed number by number.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from se_framework.data.sampler import Sampler
from se_framework.errors import DataError

# The curve parameter of the roll runs over one turn and a half; its coordinates are divided by five.
_START, _STOP, _SHRINK = 1.5 * math.pi, 4.5 * math.pi, 5.0
_PANELS = 64
# Pieces of the curve whose integrand is below e^-45 of the largest do not show in float64.
_NEGLIGIBLE = 45.0
# Beyond this distance the rounding of |x - c|^2 hides the curve; the nearest middle of a panel stands for the integral.
_FAR = 1e6


class Checkerboard(Sampler):
    r"""The uniform law on the black squares of a board of side 2 in :math:`[-4, 4]^2`; entropy log 32 = 3.465736 nats.

    With :math:`u\sim U[-2,2)`, :math:`v\sim U[0,1)` and a fair coin b, FFJORD draws
    :math:`x = 2\,(u,\; v-2b+(\lfloor u\rfloor\bmod 2))`, so that the squares with
    :math:`\lfloor x_1/2\rfloor+\lfloor x_2/2\rfloor` even are black: eight squares of area 4, density 1/32.
    """

    sources: tuple[str, ...] = ("grathwohl2019ffjord",)
    name = "checkerboard"
    event_shape = (2,)
    has_log_prob = True

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n points, shape (n, 2), in float64."""
        u = 4 * torch.rand(n, generator=generator, dtype=torch.float64) - 2
        v = torch.rand(n, generator=generator, dtype=torch.float64)
        coin = torch.randint(0, 2, (n,), generator=generator)
        return 2 * torch.stack([u, v - 2 * coin + u.floor() % 2], 1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return -log 32 on the black squares and -inf elsewhere, (n, 2) to (n,), in float64; NaN stays NaN."""
        x = x.double()
        square = torch.floor(x / 2)
        black = ((square >= -2) & (square < 2)).all(1) & (square.sum(1) % 2 == 0)
        log_p = torch.full(x.shape[:1], -math.inf, dtype=torch.float64, device=x.device)
        return log_p.masked_fill(black, -math.log(32)).masked_fill(x.isnan().any(1), math.nan)

    @property
    def entropy(self) -> float | None:
        """Entropy in nats, the logarithm of the area."""
        return math.log(32)


class SwissRoll(Sampler):
    r"""A spiral with Gaussian noise: coordinates x and z of scikit-learn's ``make_swiss_roll``, divided by five.

    With t uniform on :math:`[\tfrac32\pi, \tfrac92\pi]`, :math:`c(t) = \tfrac t5(\cos t, \sin t)` and
    :math:`\sigma` = noise / 5,

    .. math:: p(x) = \frac1{3\pi}\int_{3\pi/2}^{9\pi/2} N(x; c(t), \sigma^2 I)\,dt .

    Args:
        noise: standard deviation of the noise before the division, positive; 1 as in FFJORD (entropy 2.669646 nats).

    Raises:
        DataError: the noise is not positive (the law would have no density).
    """

    sources: tuple[str, ...] = ("grathwohl2019ffjord",)
    name = "swissroll"
    event_shape = (2,)
    has_log_prob = True

    def __init__(self, noise: float = 1.0) -> None:
        if not 0 < noise < math.inf:
            raise DataError(f"data.noise must be a positive standard deviation, got {noise}")
        self.noise = float(noise)
        self.sigma = self.noise / _SHRINK

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n points, shape (n, 2), in float64."""
        t = _START + (_STOP - _START) * torch.rand(n, generator=generator, dtype=torch.float64)
        return _spiral(t) + self.sigma * torch.randn((n, 2), generator=generator, dtype=torch.float64)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density, (n, 2) to (n,), in float64, to about twelve digits of the density everywhere."""
        x = x.double()
        return torch.cat([self._log_prob(part) for part in x.split(10_000)])

    @cached_property
    def entropy(self) -> float | None:
        """Entropy in nats by the trapezoidal rule on the plane; None for noise below 0.3 (too fine a grid)."""
        if self.noise < 0.3:
            return None
        step, reach = self.sigma / 3, _STOP / _SHRINK + 8.5 * self.sigma
        line = torch.arange(-reach, reach, step, dtype=torch.float64)
        log_p = self.log_prob(torch.cartesian_prod(line, line))
        return -float(torch.special.xlogy(log_p.exp(), log_p.exp()).sum() * step**2)

    def _log_prob(self, x: Tensor) -> Tensor:
        r"""Integrate over pieces of the curve that are halved until the exponent varies little along each.

        With d the distance from x to the middle of a piece and L at least the length of the curve from there to an
        end, the exponent :math:`|x-c(t)|^2/2\sigma^2` varies by at most :math:`2L(d+L)/\sigma^2`, and is at least
        :math:`(d-L)^2/2\sigma^2`. A piece is integrated by 16 Gauss-Legendre nodes once the first is at most 16, and
        dropped once the second shows that it is negligible beside the nearest middle seen.
        """
        nodes, weights = (torch.as_tensor(a, device=x.device) for a in np.polynomial.legendre.leggauss(16))
        near = x.norm(dim=1) < _FAR
        half = (_STOP - _START) / (2 * _PANELS)
        middle = _START + half * (2 * torch.arange(_PANELS, dtype=torch.float64, device=x.device) + 1)
        point = near.nonzero().flatten().repeat_interleave(_PANELS)
        t = middle.repeat(int(near.sum()))
        nearest = torch.cdist(x, _spiral(middle), compute_mode="donot_use_mm_for_euclid_dist").amin(1)
        points, logs = [point[:0]], [t[:0]]
        while len(t):
            d = (_spiral(t) - x[point]).norm(dim=1)
            reach = half * torch.sqrt(1 + (t + half).square()) / _SHRINK  # the speed grows along the curve
            nearest.scatter_reduce_(0, point, d, "amin")
            lowest = ((d - reach).clamp(min=0).square() - nearest[point].square()) / (2 * self.sigma**2)
            kept = lowest < _NEGLIGIBLE
            fine = reach * (d + reach) <= 8 * self.sigma**2
            done, split = kept & fine, kept & ~fine
            square = (_spiral(t[done, None] + half * nodes) - x[point[done], None]).square().sum(-1)
            points.append(point[done])
            logs.append(torch.logsumexp((half * weights).log() - square / (2 * self.sigma**2), 1))
            half /= 2
            t, point = torch.cat([t[split] - half, t[split] + half]), point[split].repeat(2)
        place, log = torch.cat(points), torch.cat(logs)
        top = (-0.5 * (nearest / self.sigma).square()).scatter_reduce(0, place, log, "amax", include_self=False)
        total = torch.zeros_like(top).index_add(0, place, (log - top[place]).exp())
        log_integral = top + torch.where(near, total.log(), 0.0)
        return log_integral - math.log(_STOP - _START) - math.log(2 * math.pi * self.sigma**2)


def _spiral(t: Tensor) -> Tensor:
    r"""Return the points of the noiseless curve, any shape (\*) to (\*, 2)."""
    return torch.stack([t * t.cos(), t * t.sin()], -1) / _SHRINK
