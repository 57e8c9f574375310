"""Clouds of weighted points: checked, in one type, with their weights and distances. Every primal starts here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from divergences.base import WeightedPoints


def clouds(name: str, q: WeightedPoints, p: WeightedPoints | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return x (N, d), y (M, d), their weights a (N,), b (M,), all in the wider type of both, float32 at least.

    Args:
        name: of the divergence, for messages.
        q: its first argument.
        p: its second argument.

    Raises:
        ValueError: p is missing, a cloud is empty or has no axis of coordinates, the points of the clouds or a cloud
            and its weights differ in shape.
    """
    if p is None:
        raise ValueError(f"{name} compares particles: it needs samples of the model")
    for symbol, cloud in (("q", q), ("p", p)):
        if len(cloud.x) == 0:
            raise ValueError(f"{name}: {symbol} has no particles")
        if cloud.x.ndim < 2:
            raise ValueError(
                f"{name}: {symbol} has points of shape {tuple(cloud.x.shape)}, expected (N, *E): write x[:, None] for "
                "N points on the line"
            )
        if cloud.log_weights is not None and cloud.log_weights.shape != cloud.x.shape[:1]:
            raise ValueError(
                f"{name}: {symbol} has {len(cloud.x)} points and log-weights of shape "
                f"{tuple(cloud.log_weights.shape)}: one number per point is needed"
            )
    dtype = torch.promote_types(torch.promote_types(q.x.dtype, p.x.dtype), torch.float32)
    x, y = q.x.flatten(1).to(dtype), p.x.flatten(1).to(dtype)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"{name}: points of q have {x.shape[1]} coordinates, points of p have {y.shape[1]}")
    if q.x.shape[1:] != p.x.shape[1:]:
        raise ValueError(
            f"{name}: points of q have shape {tuple(q.x.shape[1:])}, points of p have {tuple(p.x.shape[1:])}: "
            "reshape one like the other"
        )
    return x, y, weights(q, dtype), weights(p, dtype)


def standardised(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return both clouds about their common centre in units of their largest deviation, and that unit, shape ().

    For a D that does not see where the origin is, and multiplies by :math:`s^k` where points are multiplied by s: the
    value there times the unit to the k is that of the clouds, with the digits that they hold, however far away and
    however small they are. Centre and unit carry no gradient; none is lost, since D moves with neither.
    """
    with torch.no_grad():
        middle = [(cloud.amax(-2) + cloud.amin(-2)) / 2 for cloud in (x, y)]
        centre = middle[0] + (middle[1] - middle[0]) / 2
        unit = torch.maximum((x - centre).abs().amax((-2, -1)), (y - centre).abs().amax((-2, -1)))
        unit = torch.where(unit.isfinite() & (unit > 0), unit, 1.0)
    return (x - centre) / unit, (y - centre) / unit, unit


def weights(particles: WeightedPoints, dtype: torch.dtype) -> Tensor:
    """Return the weights of particles, shape (N,), summing to one."""
    if particles.log_weights is not None:
        return particles.log_weights.to(dtype).exp()
    n = len(particles.x)
    return torch.full((n,), 1.0 / n, dtype=dtype, device=particles.x.device)


def common_type(q: WeightedPoints, p: WeightedPoints | None) -> torch.dtype:
    """Return the wider of both clouds' types, in which a value is returned (:func:`clouds` has checked p)."""
    return torch.promote_types(q.x.dtype, p.x.dtype)  # type: ignore[union-attr]


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    r"""Return :math:`|x_i-y_j|^2`, shape (N, M), from clouds x (N, d), y (M, d).

    Taken from differences, never from :math:`|x|^2+|y|^2-2x^\top y`, which loses all digits where points lie close
    together and far from the origin, and gives no exact zero where they coincide. No array of size N M d is made.
    """
    return _SquaredDistances.apply(x, y.view_as(y))  # torch.compile refuses one tensor in two places


class _SquaredDistances(torch.autograd.Function):
    """cdist's direct form with a slope of its own, in matrix products: smooth at zero and differentiable again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Tensor:
        return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        # sum_j 2 g_ij (x_i - y_j); about the mean of both, so that clouds far from the origin lose no digits.
        x, y = ctx.saved_tensors
        centre = (x.detach().mean(-2, keepdim=True) + y.detach().mean(-2, keepdim=True)) / 2
        x, y, g = x - centre, y - centre, 2 * grad
        return g.sum(-1, keepdim=True) * x - g @ y, g.sum(-2).unsqueeze(-1) * y - g.mT @ x


def root(squared: Tensor) -> Tensor:
    """Return the distance, elementwise; where points coincide all its derivatives are zero (a subgradient is).

    The threshold, a distance of 3e-10 in float32, keeps the powers of 1/distance in second derivatives finite; NaN is
    no coincidence.
    """
    coincide = squared <= torch.finfo(squared.dtype).tiny ** 0.5
    return torch.where(coincide, 0.0, torch.where(coincide, 1.0, squared).sqrt())
