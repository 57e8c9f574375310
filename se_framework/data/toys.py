r"""Toy laws with a sampler *and* an exact density, so that a trained model can be compared with the truth.

Model space is user space here (loc 0, scale 1). Densities are evaluated in float64.

Sources: the ring of eight Gaussians of Metz et al., "Unrolled GANs" (2017), with the quality threshold of three
standard deviations; the grid of 25 of Srivastava et al., "VEEGAN" (2017); the eight Gaussians of Grathwohl et al.,
"FFJORD" (2019); scikit-learn's ``make_moons``. Two more laws, of shapes, are in :mod:`se_framework.data.shapes`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from models.laws import Particles
from se_framework.data.sampler import Sampler
from se_framework.errors import DataError

# A quadrature of the entropy on a plane costs (160 * ratio of the widths)^2 points per component.
_MAX_WIDTH_RATIO = 8.0


class GaussianMixture(Sampler):
    r"""A mixture of isotropic Gaussians, :math:`p(x) = \sum_k w_k N(x; \mu_k, \sigma_k^2 I)`.

    Args:
        means: centres, K rows of equal shape E (a number per row means E = (1,)).
        sigmas: standard deviations, one number or K numbers, positive.
        weights: K non-negative weights, normalised here; equal if None.
        name: name of the law.
        labels: give the models the index of the component as a label.

    Raises:
        DataError: shapes disagree, a width or a weight is out of range, or one component shall be labelled.
    """

    sources: tuple[str, ...] = ()
    has_log_prob = True

    def __init__(
        self,
        means: Tensor | Sequence[float] | Sequence[Sequence[float]],
        sigmas: Tensor | float | Sequence[float],
        weights: Tensor | Sequence[float] | None = None,
        name: str = "gaussian_mixture",
        labels: bool = False,
    ) -> None:
        centres = _numbers(means)
        if centres.ndim == 1:
            centres = centres[:, None]
        count = len(centres) if centres.ndim else 0
        if count == 0:
            raise DataError("data.means is empty: give at least one centre")
        widths = _numbers(sigmas)
        shares = torch.full((count,), 1.0 / count, dtype=torch.float64) if weights is None else _numbers(weights)
        if widths.ndim > 1 or widths.numel() not in (1, count):
            raise DataError(f"data.sigmas holds {widths.numel()} numbers for {count} centres: give 1 or {count}")
        if shares.shape != (count,):
            raise DataError(f"data.weights holds {shares.numel()} numbers for {count} centres: give {count}")
        if not bool(torch.isfinite(centres).all()):
            raise DataError("data.means holds NaN or infinite numbers: give finite centres")
        if not bool((widths > 0).all() & torch.isfinite(widths).all()):
            raise DataError(f"data.sigmas must be positive standard deviations, got {widths.tolist()}")
        if not bool((shares >= 0).all() & torch.isfinite(shares).all() & (shares.sum() > 0)):
            raise DataError(f"data.weights must be non-negative with a positive sum, got {shares.tolist()}")
        if labels and count < 2:
            raise DataError("data.labels is true but there is one component: labels need at least two, set it to false")
        self.name, self.classes = name, count if labels else 0
        self.means, self.sigmas, self.weights = centres, widths.expand(count).clone(), shares / shares.sum()
        self.event_shape = tuple(centres.shape[1:])
        self.modes, self.mode_weights = centres, self.weights
        self.mode_sigma = float(widths.flatten()[0]) if len(set(self.sigmas.tolist())) == 1 else None

    def draw(self, n: int, generator: torch.Generator) -> Particles:
        r"""Draw n points, shape (n, \*E), in float64, with their components where the models are given labels."""
        uniform = torch.rand(n, generator=generator, dtype=torch.float64)
        edges = self.weights.cumsum(0)
        # The last edge may fall short of 1 by rounding; the index must not.
        k = torch.searchsorted(edges / edges[-1], uniform, right=True).clamp(max=len(edges) - 1)
        noise = torch.randn((n, *self.event_shape), generator=generator, dtype=torch.float64)
        x = self.means[k] + self.sigmas[k].view(-1, *[1] * len(self.event_shape)) * noise
        return Particles(x, context=k if self.classes else None)

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Return :math:`\log p(x)`, (n, \*E) to (n,), in float64."""
        means, sigmas, weights = (t.to(x.device) for t in (self.means, self.sigmas, self.weights))
        square = (x.double().flatten(1)[:, None] - means.flatten(1)).square().sum(-1)
        d = means[0].numel()
        log_normal = -0.5 * square / sigmas.square() - d * sigmas.log() - 0.5 * d * math.log(2 * math.pi)
        return torch.logsumexp(weights.log() + log_normal, 1)

    @cached_property
    def entropy(self) -> float | None:
        r"""Entropy :math:`-\sum_k w_k E_{N_k}\log p` in nats, by quadrature in one or two dimensions, else None.

        The trapezoidal rule on [-10, 10] standard deviations converges exponentially for these integrands; its step
        is an eighth of the narrowest width. It is None, too, where the widths differ more than eightfold.
        """
        d = self.means[0].numel()
        ratio = float(self.sigmas.max() / self.sigmas.min())
        if d > 2 or ratio > _MAX_WIDTH_RATIO:
            return None
        total = 0.0
        for mean, sigma, weight in zip(self.means, self.sigmas, self.weights, strict=True):
            count = 2 * round(80 * float(sigma / self.sigmas.min())) + 1
            line = torch.linspace(-10, 10, count, dtype=torch.float64)
            y = torch.cartesian_prod(*[line] * d).reshape(-1, d)
            density = torch.exp(-0.5 * y.square().sum(1)) / (2 * math.pi) ** (d / 2)
            log_p = torch.cat([self.log_prob(part) for part in (mean.flatten() + sigma * y).split(100_000)])
            total -= float(weight * (density * log_p).sum() * (line[1] - line[0]) ** d)
        return total

    @property
    def conditional_entropy(self) -> float | None:
        r"""Entropy given the component, :math:`\sum_k w_k\,\tfrac d2\log(2\pi e\,\sigma_k^2)`, in nats."""
        d = self.means[0].numel()
        return float((self.weights * d / 2 * torch.log(2 * math.pi * math.e * self.sigmas.square())).sum())


class Ring8(GaussianMixture):
    """Gaussians on a ring, eight by default: the mode-collapse test of "Unrolled GANs"; entropy -2.906727 nats.

    Args:
        radius: radius of the ring.
        sigma: standard deviation of each Gaussian.
        modes: number of Gaussians.
        labels: give the models the Gaussian of a point as its label.
    """

    sources: tuple[str, ...] = ("metz2017unrolled",)

    def __init__(self, radius: float = 2.0, sigma: float = 0.02, modes: int = 8, labels: bool = False) -> None:
        super().__init__(_ring(radius, modes), sigma, name="ring8", labels=labels)


class Gaussians8(GaussianMixture):
    """The eight Gaussians of FFJORD, radius 4/1.414 and width 0.5/1.414; entropy 2.831880 nats.

    Args:
        radius: radius of the ring.
        sigma: standard deviation of each Gaussian.
        labels: give the models the Gaussian of a point as its label.
    """

    sources: tuple[str, ...] = ("grathwohl2019ffjord",)

    def __init__(self, radius: float = 4.0 / 1.414, sigma: float = 0.5 / 1.414, labels: bool = False) -> None:
        super().__init__(_ring(radius, 8), sigma, name="gaussians8", labels=labels)


class Grid25(GaussianMixture):
    """Gaussians on a square grid around the origin, 5 x 5 by default: the grid of VEEGAN; entropy 0.065288 nats.

    Args:
        spacing: distance between neighbours on the grid.
        side: Gaussians along a side.
        sigma: standard deviation of each Gaussian.
        labels: give the models the Gaussian of a point as its label, counted column by column.

    Raises:
        DataError: the side is not positive.
    """

    sources: tuple[str, ...] = ("srivastava2017veegan",)

    def __init__(self, spacing: float = 2.0, side: int = 5, sigma: float = 0.05, labels: bool = False) -> None:
        if side < 1:
            raise DataError(f"data.side must be at least 1, got {side}")
        line = spacing * (torch.arange(side, dtype=torch.float64) - (side - 1) / 2)
        super().__init__(torch.cartesian_prod(line, line), sigma, name="grid25", labels=labels)


class GaussianMixture1d(GaussianMixture):
    """Two Gaussians on the line: weights 0.33 and 0.67, means -1 and 2, *variances* 0.0625 and 2.

    Args:
        means: the centres.
        variances: the variances (not the standard deviations).
        weights: the weights.
    """

    sources: tuple[str, ...] = ("nowozin2016fgan",)

    def __init__(
        self,
        means: Sequence[float] = (-1.0, 2.0),
        variances: Sequence[float] = (0.0625, 2.0),
        weights: Sequence[float] = (0.33, 0.67),
    ) -> None:
        super().__init__(means, _numbers(variances).sqrt(), weights, name="gaussian_mixture_1d")


class Moons(Sampler):
    r"""Two half circles of radius 1 with Gaussian noise, as in scikit-learn's ``make_moons``.

    With the arc uniform on :math:`[0, \pi]`, the centres (0, 0) and (1, 1/2), and the second arc turned by half a turn,

    .. math:: p(x) = \tfrac12\sum_{m}\tfrac1\pi\int_0^\pi N(x; c_m \pm (\cos t, \sin t), \sigma^2 I)\,dt .

    Args:
        noise: standard deviation of the noise, positive.

    Raises:
        DataError: the noise is not positive (the law would have no density).
    """

    sources: tuple[str, ...] = ("pedregosa2011scikit",)
    name = "moons"
    event_shape = (2,)
    has_log_prob = True

    def __init__(self, noise: float = 0.1) -> None:
        if not 0 < noise < math.inf:
            raise DataError(f"data.noise must be a positive standard deviation, got {noise}")
        self.noise = float(noise)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n points, shape (n, 2), in float64."""
        t = torch.pi * torch.rand(n, generator=generator, dtype=torch.float64)
        lower = torch.rand(n, generator=generator, dtype=torch.float64) < 0.5
        arc = torch.stack([t.cos(), t.sin()], 1)
        arc = torch.where(lower[:, None], torch.tensor([1.0, 0.5], dtype=torch.float64) - arc, arc)
        return arc + self.noise * torch.randn((n, 2), generator=generator, dtype=torch.float64)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density, (n, 2) to (n,), in float64, to about twelve digits of the density everywhere."""
        x = x.double()
        lower = torch.tensor([1.0, 0.5], dtype=torch.float64, device=x.device) - x
        return torch.logaddexp(self._log_arc(x), self._log_arc(lower)) - math.log(2)

    @cached_property
    def entropy(self) -> float | None:
        """Entropy in nats by the trapezoidal rule on the plane; None for noise below 0.05 (too fine a grid)."""
        if self.noise < 0.05:
            return None
        step, margin = self.noise / 4, 9 * self.noise
        box = ((-1.0, 2.0), (-0.5, 1.0))
        axes = [torch.arange(low - margin, high + margin, step, dtype=torch.float64) for low, high in box]
        grid = torch.cartesian_prod(*axes)
        log_p = torch.cat([self.log_prob(part) for part in grid.split(20_000)])
        return -float((log_p.exp() * log_p).sum() * step**2)

    def _log_arc(self, x: Tensor) -> Tensor:
        r"""Log-density of the noisy upper half circle at x.

        In polar coordinates :math:`(r, \varphi)` the integrand is :math:`e^{-(r-1)^2/2\sigma^2}
        e^{-\kappa(1-\cos\delta)}`, with :math:`\kappa = r/\sigma^2` and :math:`\delta` the angle between x and the
        point of the arc. The arc is cut where it is nearest to (or farthest from) x, so that the integrand falls
        monotonically along both pieces.
        """
        r, phi = x.norm(dim=1), torch.atan2(x[:, 1], x[:, 0])
        kappa = r / self.noise**2
        above = phi >= 0
        zero, half_turn = torch.zeros_like(phi), torch.full_like(phi, math.pi)
        first = _log_decreasing(kappa, torch.where(above, zero, -phi), torch.where(above, phi, half_turn))
        rest = torch.where(above, math.pi - phi, half_turn)
        second = _log_decreasing(kappa, torch.where(above, zero, math.pi + phi), rest)
        radial = -0.5 * ((r - 1) / self.noise) ** 2 - math.log(2 * math.pi * self.noise**2)
        return radial + torch.logaddexp(first, second) - math.log(math.pi)


def _log_decreasing(kappa: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    r"""Return :math:`\log\int_{start}^{stop} e^{-\kappa(1-\cos\delta)}d\delta` for 0 <= start <= stop <= pi, all (n,).

    The interval is cut where the integrand has fallen by :math:`e^{-40}`; 64 Gauss-Legendre nodes resolve the rest.
    """
    rule = np.polynomial.legendre.leggauss(64)
    nodes, weights = (torch.as_tensor(a, dtype=torch.float64, device=kappa.device) for a in rule)
    # cos(start) - cos(delta) <= 40 / kappa, written with sines of half angles: cosines near 1 lose half the digits.
    sine = torch.sqrt(torch.sin(start / 2).square() + 20 / kappa.clamp(min=1e-300))
    stop = torch.minimum(stop, 2 * torch.asin(sine.clamp(max=1)))
    length = (stop - start).clamp(min=0)
    delta = start[:, None] + length[:, None] * (nodes + 1) / 2
    fall = 2 * torch.sin((delta + start[:, None]) / 2) * torch.sin((delta - start[:, None]) / 2)
    inside = (torch.exp(-kappa[:, None] * fall) * weights).sum(1).log()
    return inside + (length / 2).log() - 2 * kappa * torch.sin(start / 2).square()


def _ring(radius: float, count: int) -> Tensor:
    angle = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
    return radius * torch.stack([angle.cos(), angle.sin()], 1)


def _numbers(values: object) -> Tensor:
    # Lists of a configuration are their own type, which torch.tensor does not read.
    if isinstance(values, Tensor):
        return values.detach().double().cpu()

    def plain(value: object) -> object:
        return [plain(v) for v in value] if isinstance(value, Sequence) and not isinstance(value, str) else value

    try:
        return torch.tensor(plain(values), dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"numbers in rows of equal length expected, got {values!r} ({error})") from error
