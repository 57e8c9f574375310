r"""Claims on large networks: gradients of pieces of a batch, truncated noise, layers that resample, orthogonal rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from divergences import GAN, KL
from models import Affine
from models.base import Model
from models.generators import truncated
from models.images.layers import Conv
from se_framework.equation.auxiliary import Dual, InnerProblem, OrthogonalWeights
from se_framework.equation.equation import StandardEquation
from se_framework.equation.metric import Metric
from se_framework.equation.penalties import R1
from se_framework.training.objective import objective
from se_framework.training.pieces import gathered
from se_framework.training.players import Player, make_players
from se_framework.verify import references as ref
from se_framework.verify.claims import Comparison, claim, equal
from se_framework.verify.equivalences.sums import _Bowl

ROUNDING = 1e-12
"""Of sums of some dozens of terms in float64."""
N = 12


@claim(
    "the gradient accumulated over equal pieces is that of the whole batch, penalty included",
    "linearity of the mean; Goodfellow et al. 2014, eq. 1",
)
def accumulation_is_the_large_batch() -> Iterator[Comparison]:
    x, z = (np.random.default_rng(seed).standard_normal((N, 1)) for seed in (91, 92))
    loc, scale, c, gamma = 0.3, 0.8, -0.2, 0.7

    def scalar(at: np.ndarray) -> np.ndarray:
        v_data, v = at[2] * x**2, at[2] * (at[0] + at[1] * z) ** 2
        return -np.log(1 + np.exp(-v_data)).mean() - np.log(1 + np.exp(v)).mean()

    def loss_of_phi(at: np.ndarray) -> np.ndarray:
        return -scalar(at) + gamma / 2 * ((2 * at[2] * x) ** 2).mean()

    here = np.array([loc, scale, c])
    d_theta, d_phi = ref.complex_slope(scalar, here)[:2], ref.complex_slope(loss_of_phi, here)[2]
    for pieces in (1, 3, 4, N):
        model = Affine((1,), init_scale=scale).double()
        with torch.no_grad():
            model.loc.fill_(loc)
        metric = Metric(_Bowl(c).double(), R1(gamma))
        of = StandardEquation(model=model, divergence=GAN(), auxiliary=Dual(), metric=metric)
        players = make_players(of, phi={"accumulate": pieces}, theta={"accumulate": pieces})
        draws = {"x": torch.as_tensor(x), "model/noise": torch.as_tensor(z), "penalty/own/mix": torch.rand(N).double()}
        draws = {name: t.to(model.loc.device) for name, t in draws.items()}
        ascent, descent = (_gradient(of, player, draws) for player in sorted(players, key=lambda p: -p.role.sign))
        yield equal(f"phi, {pieces} pieces", ascent, [d_phi], ROUNDING)
        # Affine holds the logarithm of its scale.
        yield equal(f"theta, {pieces} pieces", descent[:2], [d_theta[0], d_theta[1] * scale], ROUNDING)


def _gradient(of: StandardEquation, player: Player, draws: dict[str, torch.Tensor]) -> np.ndarray:
    due = player.due()
    gathered(player, lambda piece: objective(of, player, due, piece), draws)
    found = [p.grad.flatten() for p in player.parameters if p.grad is not None]
    return torch.cat(found).cpu().numpy()


@claim(
    "noise at truncation t is normal within [-t, t]: its moments are those of the truncated normal",
    "Brock, Donahue, Simonyan 2019, 3.1; Johnson, Kotz, Balakrishnan 1994, 13.10",
)
def truncated_noise() -> Iterator[Comparison]:
    levels = (np.arange(20000) + 0.5) / 20000  # the map of uniform numbers, by the midpoint rule
    for t in (0.1, 0.5, 1.0, 2.0):
        density, mass = np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi), float(torch.special.erf(torch.tensor(t / 2**0.5)))
        u = torch.as_tensor(levels)
        z = torch.special.ndtri(0.5 - mass / 2 + u * mass)
        ours = _at(levels, t)
        yield equal(f"quantiles, t {t:g}", ours, z.numpy(), 1e-7)
        yield equal(f"variance, t {t:g}", (ours**2).mean(), 1 - 2 * t * density / mass, 1e-6)


def _at(levels: np.ndarray, t: float) -> np.ndarray:
    """Return what :func:`models.generators.truncated` makes of given uniform numbers."""
    before, torch.rand = torch.rand, lambda *shape, **more: torch.as_tensor(levels)
    try:
        return truncated((len(levels),), t, torch.zeros((), dtype=torch.float64), None).numpy()
    finally:
        torch.rand = before


@claim(
    "a 4 x 4 kernel doubles or halves as nearest neighbours, or means of four, and a 3 x 3 convolution do",
    "linearity; Karras et al. 2018 fuse the same pairs",
)
def resampling_convolutions() -> Iterator[Comparison]:
    for h, w in ((4, 4), (6, 10)):
        x = np.random.default_rng(93).standard_normal((2, h, w))
        for way in ("double", "halve"):
            layer = Conv(2, 3, resample=way).double()
            weight, bias = (t.detach().cpu().numpy() for t in (layer.weight, layer.bias))  # type: ignore[union-attr]
            big = x.repeat(2, 1).repeat(2, 2) if way == "double" else x
            padded = np.pad(big, ((0, 0), (1, 1), (1, 1)))
            patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
            y = np.einsum("chwij,ocij->ohw", patches, weight) + bias[:, None, None]
            y = y if way == "double" else (y[:, ::2, ::2] + y[:, 1::2, ::2] + y[:, ::2, 1::2] + y[:, 1::2, 1::2]) / 4
            ours = layer(torch.as_tensor(x)[None].to(layer.weight.device))[0]
            yield equal(f"{way}, {h} x {w}", ours, y, ROUNDING)


@claim(
    "sum over W of |W W^T off its diagonal|^2: the slope is 4 (W W^T off its diagonal) W, zero for orthogonal rows",
    "Brock, Donahue, Simonyan 2019, eq. 3",
)
def orthogonal_rows() -> Iterator[Comparison]:
    model = Affine((1,)).double()
    for rows, columns in ((3, 5), (5, 3)):
        matrix = np.random.default_rng(94).standard_normal((rows, columns))
        model.extra = torch.nn.Parameter(torch.as_tensor(matrix).to(model.loc.device))
        value = _penalty(model)
        (slope,) = torch.autograd.grad(value, model.extra)
        off = matrix @ matrix.T * (1 - np.eye(rows))
        yield equal(f"value, {rows} x {columns}", value, (off**2).sum(), ROUNDING)
        yield equal(f"slope, {rows} x {columns}", slope, 4 * off @ matrix, ROUNDING)
    rows_of = np.linalg.qr(np.random.default_rng(95).standard_normal((6, 4)))[0].T * np.array([[1.0], [2], [3], [4]])
    model.extra = torch.nn.Parameter(torch.as_tensor(rows_of).to(model.loc.device))
    yield equal("orthogonal rows of any length", _penalty(model), 0.0, ROUNDING)


def _penalty(model: Model) -> torch.Tensor:
    problem = InnerProblem(None, None, None, None, model, KL(), 0.0, 1.0)  # type: ignore[arg-type]
    return OrthogonalWeights().minimum(problem)
