r"""Claims on estimates from samples, at the exact critic of correlated Gaussians: :math:`I = -\tfrac12\log(1-\rho^2)`.

The ratio of joint and product densities has moments of order k where :math:`k < 1 + 1/\rho`; rho is small enough for
the fourth, so that the standard errors of variances exist.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from divergences import GAN, KL, Divergence
from models import Affine
from models.laws import Particles
from se_framework.equation.auxiliary import Dual
from se_framework.equation.equation import StandardEquation
from se_framework.equation.metric import Metric
from se_framework.verify.claims import Comparison, claim, sampled

RHO = 0.3
INFORMATION = -0.5 * np.log(1 - RHO**2)
N, REPEATS = 64, 4000


class ExactLogRatio(nn.Module):
    """log of joint over product density of a standard normal pair of correlation rho, from (B, 2) to (B,)."""

    def forward(self, pairs: Tensor) -> Tensor:
        """Return the log-ratio."""
        x, y = pairs[:, 0], pairs[:, 1]
        squares = RHO**2 * (x.square() + y.square()) - 2 * RHO * x * y
        return INFORMATION - squares / (2 * (1 - RHO**2))


def _values(divergence: Divergence, normalised: bool, seed: int) -> Tensor:
    """Return the scalar on REPEATS batches of N joint and N product pairs."""
    generator = torch.Generator("cpu").manual_seed(seed)
    # The model is the product of the marginals: a standard normal in the plane.
    of = StandardEquation(
        model=Affine((2,), init_scale=1.0),
        divergence=divergence,
        auxiliary=Dual(normalised),
        metric=Metric(ExactLogRatio()),
    )
    z, noise = (_normal(generator) for _ in range(2))
    joint = torch.stack([z[..., 0], RHO * z[..., 0] + (1 - RHO**2) ** 0.5 * z[..., 1]], 2)
    return torch.func.vmap(of)(joint, noise).detach()


def _normal(generator: torch.Generator) -> Tensor:
    """Return REPEATS batches of N standard normal pairs, drawn on the CPU whatever the device."""
    draw = torch.randn(REPEATS, N, 2, generator=generator, device="cpu", dtype=torch.float64)
    return draw.to(torch.get_default_device())


def _standard_error(values: Tensor) -> float:
    return float(values.std() / REPEATS**0.5)


@claim("at the exact critic the bound over q >= 0 is unbiased: its mean is I", "Poole et al. 2019")
def unnormalised_bound_is_unbiased() -> Iterator[Comparison]:
    values = _values(KL(), False, seed=1)
    yield sampled("mean", values.mean(), _standard_error(values), INFORMATION)


@claim("over probabilities its mean is high by (e^(2I) - 1)/(2n), Jensen's gap", "McAllester and Stratos 2020")
def probability_bound_is_biased() -> Iterator[Comparison]:
    values = _values(KL(), True, seed=2)
    # The next term of the expansion is of the order of 1/n^2, a twentieth of the standard error.
    excess = (np.exp(2 * INFORMATION) - 1) / (2 * N)
    yield sampled("mean", values.mean(), _standard_error(values), INFORMATION + excess)


@claim("the partition estimate E_p e^v has variance (e^(2I) - 1)/n", "Song and Ermon 2020, theorem 2")
def variance_of_the_partition_estimate() -> Iterator[Comparison]:
    generator = torch.Generator("cpu").manual_seed(3)
    critic = Metric(ExactLogRatio())
    means = torch.func.vmap(lambda x: KL().mean_conjugate(critic(x), Particles(x)))(_normal(generator))
    squares = (means - 1).square()  # its mean is one
    yield sampled("mean", means.mean(), _standard_error(means), 1.0)
    yield sampled("variance", squares.mean(), _standard_error(squares), (np.exp(2 * INFORMATION) - 1) / N)


@claim("the first game's value on samples has the mean of the population's", "law of large numbers; Goodfellow 2014")
def sampled_game_is_unbiased() -> Iterator[Comparison]:
    values = _values(GAN(), False, seed=4)
    # E log s(v) by quadrature on a fine grid in the plane.
    grid = np.linspace(-8, 8, 801)
    x, y = np.meshgrid(grid, grid)
    v = INFORMATION - (RHO**2 * (x**2 + y**2) - 2 * RHO * x * y) / (2 * (1 - RHO**2))
    product = np.exp(-(x**2 + y**2) / 2) / (2 * np.pi)
    integrand = product * (np.exp(v) * -np.logaddexp(0, -v) - np.logaddexp(0, v))
    truth = float(integrand.sum() * (grid[1] - grid[0]) ** 2)
    yield sampled("mean", values.mean(), _standard_error(values), truth)
